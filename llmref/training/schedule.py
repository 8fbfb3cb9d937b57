"""What is the learning rate at each step, and what does a falling one buy?

Leaves out: restarts, schedules that look at the loss, and one rate per layer.
"""

import math
from collections.abc import Sequence
from typing import Literal

from llmref._require import (
    require_at_least,
    require_choice,
    require_in,
    require_number,
    require_positive,
    require_size,
)

Decay = Literal["linear", "cosine", "1-sqrt"]


def warmup_cosine(
    step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """The learning rate after `step` updates: a linear rise from 0, then half a cosine.

    From total_steps on it stays at min_lr.
    Units: step counts the optimiser's updates so far, 0 for the first; rates are per update.
    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.
    Differs: the warm-up, which that paper has not.
    Raises: TypeError for a count that is no int; ValueError if one is negative, total_steps is not
        above warmup_steps, max_lr is not positive, or min_lr is negative or above max_lr.
    """
    require_size(0, step=step, warmup_steps=warmup_steps)
    require_size(warmup_steps + 1, hint=" (warmup_steps + 1)", total_steps=total_steps)
    _require_rates(min_lr, max_lr)
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    x = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return _between(min_lr, max_lr, _decayed(x, "cosine"))  # eq. eq-schedule-cosine


def warmup_stable_decay(
    step: int,
    *,
    max_lr: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    decay: Decay,
    min_lr: float = 0.0,
) -> float:
    """The learning rate after `step` updates: a linear rise, a plateau, a fall to min_lr.

    Units: as in warmup_cosine.
    Source: Hu et al. 2024, arXiv:2404.06395; '1-sqrt': Hägele et al. 2024, arXiv:2405.18392.
    Differs: MiniCPM's decay is exponential, and it does not end at a given rate.
    Raises: TypeError for a count that is no int; ValueError if one is negative, decay_steps is 0,
        decay is unknown, max_lr is not positive, or min_lr is negative or above max_lr.
    """
    require_size(0, step=step, warmup_steps=warmup_steps, stable_steps=stable_steps)
    require_size(1, decay_steps=decay_steps)
    require_choice(Decay, decay=decay)
    _require_rates(min_lr, max_lr)
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    x = min(1.0, max(0, step - warmup_steps - stable_steps) / decay_steps)
    return _between(min_lr, max_lr, _decayed(x, decay))  # eq. eq-schedule-wsd


def quadratic_second_moment(
    lrs: Sequence[float], *, curvature: float, noise_var: float, start: float
) -> float:
    """The mean of θ² after SGD on h θ²/2, with independent gradient noise of mean 0.

    Units: lrs are the learning rates of the updates in order, curvature is h, noise_var the
        variance of the noise of one gradient, start the first θ; the result has the unit of θ².
    Source: one line of algebra, eq. eq-schedule-second-moment.
    Raises: ValueError if a rate, the curvature or the variance is negative or not finite,
        start is not finite, or the result is too large for a float.
    """
    require_at_least(0, curvature=curvature, noise_var=noise_var)
    require_number(start=start)
    require_in("(-inf, inf)", start=start)
    second_moment = float(start) * float(start)
    for index, lr in enumerate(lrs):
        require_at_least(0, **{f"lrs[{index}]": lr})
        kept, step = 1 - float(lr) * curvature, float(lr)
        second_moment = kept * kept * second_moment + step * step * noise_var
    if not math.isfinite(second_moment):
        raise ValueError("the mean of θ² must be a float, got a larger one: a rate is too high")
    return second_moment


def _decayed(x: float, decay: Decay) -> float:
    """What is left of the rate after the fraction x of its decay: 1 at 0, and 0 at 1."""
    if decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * x))
    return 1 - x if decay == "linear" else 1 - math.sqrt(x)


def _between(low: float, high: float, share: float) -> float:
    """Low at share 0 and high at share 1, both exactly."""
    return low * (1 - share) + high * share


def _require_rates(min_lr: float, max_lr: float) -> None:
    require_number(max_lr=max_lr)
    require_positive(max_lr=max_lr)
    require_at_least(0, min_lr=min_lr)
    if min_lr > max_lr:
        raise ValueError(f"min_lr must be at most max_lr, got {min_lr} above {max_lr}")
