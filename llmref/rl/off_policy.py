"""What if the tokens were drawn by another policy than the one that is trained?

Importance weights of a token, a prefix, a text; truncated and masked; CISPO; the clip of PPO
decoupled from the sampler. Leaves out: log-probabilities of filtered samplers (see sampling), the
geometric mean (see gspo), KL penalties (see kl).
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_at_least,
    require_choice,
    require_finite,
    require_floating,
    require_in,
    require_number,
    require_shapes,
)
from llmref.functional._tokens import require_rows, token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.rl._tokens import narrowed, token_advantages, token_log_probs
from llmref.rl.ppo import clipped_surrogate

Level = Literal["token", "prefix", "sequence"]


def importance_weights(
    logp: Tensor,
    rollout_logp: Tensor,
    mask: Tensor,
    *,
    level: Level,
    cap: float | None = None,
) -> Tensor:
    """How much more likely logp makes a token, its prefix or its text than the sampler did.

    Each token gets its own ratio, the product of the ratios up to it, or that of all; padding gets
    0. Ratios 2 and 3: 2, 3; 2, 6; 6, 6. No gradient flows through a weight.
    Shapes: logp, rollout_logp, mask (N, T) -> (N, T)
    Differs: with a cap the result is min(weight, cap), also where the weight itself overflows.
    Raises: ValueError if rollout_logp requires grad, something does not fit, a counted
    log-probability is not finite or above 1e-6, for an unknown level, an empty row, a cap that is
    not positive, a weight that overflows the dtype of logp; TypeError for integers.
    """
    require_choice(Level, level=level)
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp.detach(), counted, constant=True)
    mu = token_log_probs("rollout_logp", rollout_logp, counted, constant=True)
    require_rows(counted.sum(dim=-1))
    log_weight = pi - mu  # (N, T), 0 in padding
    if level == "prefix":
        log_weight = log_weight.cumsum(dim=-1)
    if level == "sequence":
        log_weight = log_weight.sum(dim=-1, keepdim=True).expand_as(pi)
    weights = log_weight.exp()  # eq. eq-off-policy-weights
    if cap is not None:
        require_number(cap=cap)
        require_in("(0, inf)", cap=cap)
        weights = weights.clamp(max=_reachable(cap, weights.dtype))
    return narrowed(torch.where(counted, weights, 0.0), logp.dtype, "a weight")


def truncate_weights(weights: Tensor, *, cap: float) -> Tensor:
    """The smaller of a weight and the cap (truncated importance sampling).

    Weights .5, 3 with cap 2: .5, 2. An infinite weight becomes the cap.
    Shapes: weights (...) -> (...), without a gradient
    Source: the truncation of trainers (TIS); verl and TRL apply it to tokens and to texts.
    Raises: ValueError for a negative or NaN weight, a cap that is not positive and finite
    in the dtype of the weights;
    TypeError for integers.
    """
    require_number(cap=cap)
    require_in("(0, inf)", cap=cap)
    held = _weights(weights)
    return held.clamp(max=_reachable(cap, held.dtype))  # eq. eq-off-policy-truncation


def mask_weights(weights: Tensor, *, low: float, high: float) -> Tensor:
    """A weight where it is in [low, high], and 0 elsewhere.

    Weights .5, 1, 3 with low .8 and high 2: 0, 1, 0.
    Shapes: weights (...) -> (...), without a gradient
    Source: Ling team 2025, arXiv:2510.18855 (IcePop), for tokens.
    Raises: ValueError for a negative or NaN weight, unless 0 <= low <= high < inf; TypeError for
    integers.
    """
    require_at_least(0, low=low)
    require_number(high=high)
    require_in("[0, inf)", high=high)
    if low > high:
        raise ValueError(f"low must be at most high, got low = {low}, high = {high}")
    held = _weights(weights)
    kept = (held >= low) & (held <= high) & held.isfinite()
    return torch.where(kept, held, 0.0)  # eq. eq-off-policy-mask


def cispo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_high: float,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """Minus the log-probability times the advantage and the truncated ratio, which is held fixed.

    The gradient is the ratio, at most 1 + clip_high, times the score; the value has no meaning.
    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: MiniMax 2025, arXiv:2506.13585.
    Differs: the ratio is limited above only, and clip_high is relative: the cap is 1 + clip_high.
    Raises: ValueError if clip_high is negative or not finite, old_logp or the advantages require
    grad or do not fit, a counted log-probability is not finite or above 1e-6, for an empty row, an
    unknown agg, a loss that overflows the dtype of logp; TypeError for integers.
    """
    require_in("[0, inf)", clip_high=clip_high)
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    ratio = (pi.detach() - old).exp()
    ratio = ratio.clamp(max=_reachable(1 + clip_high, ratio.dtype))
    losses = -ratio * token_advantages(advantages, counted) * pi  # eq. eq-off-policy-cispo
    loss = aggregate(losses, counted, agg=agg, norm=norm)
    return narrowed(loss, logp.dtype, "the loss")


def decoupled_ppo_loss(
    logp: Tensor,
    proximal_logp: Tensor,
    rollout_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    cap: float | None = None,
) -> Tensor:
    """PPO's loss around a proximal policy, each token weighted by proximal over sampler.

    The clip looks at logp - proximal_logp, the weight at proximal_logp - rollout_logp, and a cap
    truncates the weight.
    Shapes: logp, proximal_logp, rollout_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Hilton et al. 2021, arXiv:2110.00641; with a cap as in verl and OpenRLHF.
    Raises: ValueError as importance_weights and ppo.ppo_policy_loss.
    """
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    proximal = token_log_probs("proximal_logp", proximal_logp, counted, constant=True)
    rollout = token_log_probs("rollout_logp", rollout_logp, counted, constant=True)
    weights = importance_weights(proximal, rollout, counted, level="token", cap=cap)
    surrogate = clipped_surrogate(
        pi, proximal, token_advantages(advantages, counted), clip_low=clip_low, clip_high=clip_high
    )
    losses = -weights * surrogate  # eq. eq-off-policy-decoupled
    loss = aggregate(losses, counted, agg=agg, norm=norm)
    return narrowed(loss, logp.dtype, "the loss")


def effective_sample_size(weights: Tensor) -> Tensor:
    """How many samples of equal weight have the same spread: (sum w)^2 / sum w^2.

    Weights 1, 1, 0, 0: 2. Between 1 and N.
    Shapes: weights (N,) -> (), in float32 at least
    Raises: ValueError unless weights are (N,), non-negative, finite and not all 0; TypeError for
    integers.
    """
    require_shapes("weights (N,)", weights=weights)
    held = _weights(weights)
    require_finite(weights=weights)
    if not (held > 0).any():
        raise ValueError("all weights are 0: no sample is left")
    w = widen(held) / widen(held).max()  # the result does not depend on the scale
    return w.sum().square() / w.square().sum()  # eq. eq-off-policy-ess


def _reachable(cap: float, dtype: torch.dtype) -> float:
    """The cap, which the dtype must hold."""
    if cap > torch.finfo(dtype).max:
        raise ValueError(f"cap must be finite in {dtype}, got {cap:g}")
    return cap


def _weights(weights: Tensor) -> Tensor:
    require_floating(weights=weights)
    held = weights.detach()
    if not (held >= 0).all():
        worst = held[~(held >= 0)][0].item()
        raise ValueError(f"weights must be at least 0, got {worst:g}")
    return held
