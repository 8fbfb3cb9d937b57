"""The importance ratio, the clipped surrogate and its loss.

Leaves out: the critic and the entropy bonus (see terms).
"""

import math

import torch
from torch import Tensor

from llmref._numeric import bounded, maximum, minimum, widen
from llmref._require import (
    require_at_least,
    require_constant,
    require_finite,
    require_floating,
    require_in,
    require_number,
    require_shapes,
)
from llmref.functional._tokens import token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.rl._tokens import log_probs, narrowed, token_advantages, token_log_probs


def importance_ratio(
    logp: Tensor, old_logp: Tensor, *, max_log_ratio: float | None = None
) -> Tensor:
    """How much more likely the policy makes each sample than the policy that scored it.

    Shapes: logp (...), old_logp (...) -> (...)
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Differs: max_log_ratio clamps the log-ratio on both sides, and stops the gradient beyond.
    Raises: ValueError if the shapes differ, old_logp requires grad, a log-probability is not finite
    or above 1e-6, max_log_ratio is not positive, or the ratio overflows the dtype of logp;
    TypeError for integers.
    """
    require_shapes("logp (...), old_logp (...)", logp=logp, old_logp=old_logp)
    require_constant(old_logp=old_logp)
    log_ratio = log_probs("logp", logp) - log_probs("old_logp", old_logp)
    if max_log_ratio is not None:
        require_in("(0, inf]", max_log_ratio=max_log_ratio)
        log_ratio = bounded(log_ratio, -max_log_ratio, max_log_ratio)
    ratio = log_ratio.exp().to(logp.dtype)  # eq. eq-ppo-ratio
    if not ratio.isfinite().all():
        raise ValueError(
            f"pi / old overflows {logp.dtype}: its log reaches {log_ratio.max().item():g}; "
            "importance_ratio can bound it by max_log_ratio"
        )
    return ratio


def clipped_surrogate(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """Ratio times advantage, or with the ratio clipped, whichever is less: to be maximised.

    Ratio 2, advantages 1 and -1, clip 0.2: 1.2 and -2.
    Shapes: logp, old_logp, advantages (...) -> (...)
    Source: Schulman et al. 2017, arXiv:1707.06347; dual_clip: Ye et al. 2019, arXiv:1912.09729.
    Differs: the two sides of the clip have names of their own.
    Raises: ValueError for clip_low outside [0, 1), clip_high < 0, dual_clip <= 1 + clip_high,
    advantages that do not fit, require grad or are not finite, a result that overflows the dtype
    of logp, otherwise as importance_ratio.
    """
    _require_clips(clip_low, clip_high, dual_clip)
    _require_advantages(logp, advantages)
    ratio = importance_ratio(widen(logp, "logp"), old_logp)
    clipped = bounded(ratio, 1 - clip_low, 1 + clip_high)
    # At a tie, the edges of the clip above all, the gradient is that of the ratio, and whole.
    surrogate = minimum(ratio * advantages, clipped * advantages)  # eq. eq-ppo-clip
    if dual_clip is not None:
        floored = maximum(surrogate, dual_clip * advantages)  # eq. eq-ppo-dual-clip
        surrogate = torch.where(advantages < 0, floored, surrogate)
    return narrowed(surrogate, logp.dtype, "the surrogate")


def ppo_policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """Minus the clipped surrogate over the counted tokens, to be minimised.

    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.
    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Differs: the paper leaves open how tokens of responses of different lengths are averaged.
    Raises: ValueError for an empty row, an unknown agg, otherwise as clipped_surrogate.
    """
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    surrogate = clipped_surrogate(
        pi,
        old,
        token_advantages(advantages, counted),
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
    )
    loss = aggregate(-surrogate, counted, agg=agg, norm=norm)  # eq. eq-ppo-loss
    return narrowed(loss, logp.dtype, "the loss")


def clip_fraction(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """The share of counted tokens from which clipping takes the whole gradient.

    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Differs: a token with advantage 0 has no gradient to lose, and is not among them.
    Raises: as ppo_policy_loss.
    """
    _require_clips(clip_low, clip_high, dual_clip)
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False).detach()
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    ratio = importance_ratio(pi, old)
    weights = token_advantages(advantages, counted)
    # eq. eq-ppo-four-cases
    stopped = (weights > 0) & (ratio > 1 + clip_high) | (weights < 0) & (ratio < 1 - clip_low)
    if dual_clip is not None:
        stopped |= (weights < 0) & (ratio > dual_clip)
    return aggregate(stopped.to(pi.dtype), counted, agg="token-mean")


def _require_clips(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    require_in("[0, 1)", clip_low=clip_low)
    require_at_least(0, clip_high=clip_high)
    require_number(dual_clip=2 if dual_clip is None else dual_clip)
    if dual_clip is not None and not (dual_clip > 1 + clip_high and math.isfinite(dual_clip)):
        raise ValueError(f"dual_clip must exceed 1 + clip_high = {1 + clip_high}, got {dual_clip}")


def _require_advantages(logp: Tensor, advantages: Tensor) -> None:
    require_shapes("logp (...), advantages (...)", logp=logp, advantages=advantages)
    require_floating(advantages=advantages)
    require_constant(advantages=advantages)
    require_finite(advantages=advantages)
