"""Which number may be subtracted from a reward, and what does each choice cost?

Baselines from the other responses of a group, the baseline of least variance, and whitening.
All compute in float64, so that sums neither overflow nor lose what rewards differ by.
Leaves out: division by a group's standard deviation (see grpo), learned critics (see advantages).
"""

import torch
from torch import Tensor

from llmref._numeric import check_distribution, widen
from llmref._require import (
    require_at_least,
    require_axis,
    require_constant,
    require_finite,
    require_floating,
    require_in,
    require_shapes,
    require_size,
)
from llmref.functional._tokens import token_mask
from llmref.rl._tokens import narrowed, token_values


def mean_baseline_advantages(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean of its group, itself included.

    (1, 2, 6) has mean 3: (-2, -1, 3).
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Shao et al. 2024, arXiv:2402.03300, without their division.
    Differs: a group of one gets advantage 0, and no gradient; equal rewards get exactly 0.
    Raises: ValueError unless rewards are (B, G), finite, without a graph, and their advantages fit
    their dtype; TypeError for integers.
    """
    centred = _centred(rewards, at_least=1)  # eq. eq-pg-mean-baseline
    return narrowed(centred, rewards.dtype, "an advantage")


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean of the others in its group.

    (1, 2, 6): 1 - 4 = -3, 2 - 3.5 = -1.5, 6 - 1.5 = 4.5.
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740.
    Differs: equal rewards get exactly 0.
    Raises: ValueError for G < 2 (there are no others), otherwise as mean_baseline_advantages.
    """
    centred, group = _centred(rewards, at_least=2), rewards.shape[1]
    return narrowed(group / (group - 1) * centred, rewards.dtype, "an advantage")  # eq. eq-pg-rloo


def optimal_baseline(
    rewards: Tensor, score_sq_norms: Tensor, probs: Tensor | None = None
) -> Tensor:
    """The constant baseline of least total variance: the mean reward weighted by |score|^2.

    Rewards (1, 3) with squared norms (3, 1), equally likely: (3 + 3) / 4 = 1.5.
    Shapes: rewards (M,), score_sq_norms (M,) or, for one baseline a parameter, (M, P), probs (M,)
    or None for equal weights -> () or (P,)
    Source: Greensmith et al. 2004.
    Differs: estimated from the batch that it is applied to, it is no longer independent of it. A
    parameter without a score, for which all baselines are equally good, gets the mean reward.
    Raises: ValueError if the shapes do not fit, something is not finite, a squared norm is
    negative, no score at all has any weight, or probs is not a distribution; TypeError for
    integers.
    """
    _require_scores(rewards, score_sq_norms)
    weights, squares = _weights(rewards, probs), score_sq_norms.double()
    total = weights @ squares
    if (total == 0).all():
        raise ValueError("every score that can occur is 0: all baselines are equally good")
    worth = rewards.double()
    weighted = (weights * worth) @ squares / torch.where(total == 0, 1.0, total)
    best = torch.where(total == 0, weights @ worth, weighted)  # eq. eq-pg-optimal-baseline
    return narrowed(best, rewards.dtype, "the baseline")


def masked_whiten(
    x: Tensor, mask: Tensor, *, eps: float, center: bool = True, ddof: int = 1
) -> Tensor:
    """Divide by the standard deviation of the counted entries, and centre them unless told not to.

    (1, 3, [9]) with the last left out: mean 2, variance 2: (-1/sqrt 2, 1/sqrt 2, 0).
    Shapes: x (N, T), mask (N, T) -> (N, T), 0 where the mask leaves out
    Source: a convention of libraries.
    Differs: the variance divides by n - ddof; center=False adds the mean back after the division.
    Equal entries give exactly 0, and entries of any size are whitened.
    Raises: ValueError unless more than ddof entries count, ddof >= 0 and eps >= 0 is finite, if a
    counted entry is not finite, or if eps is 0 and all are equal; TypeError for integers and a ddof
    that is no int.
    """
    require_size(0, ddof=ddof)
    require_at_least(0, eps=eps)
    counted = token_mask(mask, x=x)
    kept = token_values("x", x, counted, constant=False).double()
    count = int(counted.sum())
    if count <= ddof:
        raise ValueError(f"a variance with ddof {ddof} needs more entries, {count} count")
    root = eps**0.5
    # In this unit no square overflows, and of entries and eps the larger does not vanish.
    unit = torch.maximum(_power_of_two(kept), _power_of_two(kept.new_tensor(root)))
    first = (kept[counted][0] / unit).detach()  # a shift cancels, and makes equal entries exactly 0
    shifted = torch.where(counted, kept / unit - first, 0.0)
    mean = shifted.sum() / count
    centred = torch.where(counted, shifted - mean, 0.0)
    variance = centred.square().sum() / (count - ddof) + (root / unit) ** 2
    if eps == 0 and variance == 0:
        raise ValueError("all counted entries are equal: with eps = 0 there is no divisor")
    white = centred * torch.where(variance == 0, 1.0, variance).rsqrt()  # eq. eq-pg-whiten
    out = white if center else white + (mean + first) * unit
    return narrowed(torch.where(counted, out, 0.0), x.dtype, "a whitened entry")


def _power_of_two(x: Tensor) -> Tensor:
    """A power of 2 near the largest magnitude, a normal one: dividing by it changes no digit."""
    _, exponent = torch.frexp(x.detach().abs().max().clamp_min(torch.finfo(x.dtype).tiny))
    return torch.ldexp(x.new_ones(()), exponent - 1)


def _centred(rewards: Tensor, *, at_least: int) -> Tensor:
    """Rewards minus the mean of their group; taken from the first one, equal rewards give 0."""
    wide = _group_rewards(rewards, at_least=at_least).double()
    if not wide.numel():
        return wide
    unit = _power_of_two(wide)
    shifted = wide / unit - wide[:, :1] / unit
    return (shifted - shifted.mean(dim=1, keepdim=True)) * unit


def _group_rewards(rewards: Tensor, *, at_least: int) -> Tensor:
    require_axis("G", at_least, "rewards (B, G)", rewards=rewards)
    require_floating(rewards=rewards)
    require_constant(rewards=rewards)
    require_finite(rewards=rewards)
    return widen(rewards, "rewards")


def _require_scores(rewards: Tensor, score_sq_norms: Tensor) -> None:
    require_floating(rewards=rewards, score_sq_norms=score_sq_norms)
    require_axis("M", 1, "rewards (M,)", rewards=rewards)
    axes = "M, P" if score_sq_norms.ndim > 1 else "M,"
    named = {"rewards": rewards, "score_sq_norms": score_sq_norms}
    require_shapes(f"rewards (M,), score_sq_norms ({axes})", **named)
    require_finite(**named)
    require_in("[0, inf)", score_sq_norms=score_sq_norms)


def _weights(rewards: Tensor, probs: Tensor | None) -> Tensor:
    if probs is None:
        return torch.full_like(rewards, 1 / len(rewards), dtype=torch.float64)
    require_shapes("rewards (M,), probs (M,)", rewards=rewards, probs=probs)
    check_distribution(probs, name="probs")
    return probs.double()
