"""The importance ratio, the clipped surrogate and its loss.

Leaves out: the critic and the entropy bonus (see terms).
"""

import math

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_constant, require_floating
from llmref.rl._tokens import token_advantages, token_log_probs, token_mask
from llmref.rl.aggregation import aggregate


def importance_ratio(
    logp: Tensor, old_logp: Tensor, *, max_log_ratio: float | None = None
) -> Tensor:
    """How much more likely the policy makes each sample than the policy that scored it.

    Shapes: logp (...), old_logp (...) -> (...)
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Differs: max_log_ratio clamps the log-ratio on both sides, and with it stops the gradient there.
    Raises: ValueError if the shapes differ, old_logp requires grad, a log-probability is not finite
    or above 1e-6, max_log_ratio is not positive, or the ratio overflows; TypeError for integers.
    """
    pi, old = _log_prob("logp", logp), _log_prob("old_logp", old_logp)
    require_constant("old_logp", old_logp)
    if logp.shape != old_logp.shape:
        raise ValueError(f"shapes differ: {tuple(logp.shape)} and {tuple(old_logp.shape)}")
    log_ratio = pi - old
    if max_log_ratio is not None:
        if not max_log_ratio > 0:
            raise ValueError(f"max_log_ratio must be positive, got {max_log_ratio}")
        log_ratio = log_ratio.clamp(-max_log_ratio, max_log_ratio)
    ratio = log_ratio.exp()  # eq. eq-ppo-ratio
    if not ratio.isfinite().all():
        raise ValueError(f"pi / old overflows: its log reaches {log_ratio.max().item():g}")
    return ratio.to(logp.dtype)


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
    advantages that do not fit, require grad or are not finite, otherwise as importance_ratio.
    """
    _require_clips(clip_low, clip_high, dual_clip)
    require_floating(advantages=advantages)
    require_constant("advantages", advantages)
    if advantages.shape != logp.shape:
        raise ValueError(
            f"advantages {tuple(advantages.shape)} must have the shape of logp {tuple(logp.shape)}"
        )
    if not advantages.isfinite().all():
        raise ValueError("advantages must be finite")
    ratio = importance_ratio(logp.to(at_least_float32(logp)), old_logp)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)  # eq. eq-ppo-clip
    if dual_clip is not None:
        floored = torch.maximum(surrogate, dual_clip * advantages)  # eq. eq-ppo-dual-clip
        surrogate = torch.where(advantages < 0, floored, surrogate)
    return surrogate.to(logp.dtype)


def ppo_policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    agg: str = "token-mean",
    norm: float | None = None,
) -> Tensor:
    """Minus the clipped surrogate over the counted tokens, to be minimised.

    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Differs: the paper leaves open how tokens of responses of different lengths are averaged.
    Raises: ValueError for an empty row, an unknown agg, otherwise as clipped_surrogate.
    """
    counted = token_mask(mask, logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    surrogate = clipped_surrogate(
        pi,
        old,
        token_advantages(advantages, counted).expand_as(pi),
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
    )
    return aggregate(-surrogate, counted, agg, norm=norm).to(logp.dtype)  # eq. eq-ppo-loss


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
    counted = token_mask(mask, logp)
    pi = token_log_probs("logp", logp, counted, constant=False).detach()
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    ratio = importance_ratio(pi, old)
    weights = token_advantages(advantages, counted).expand_as(pi)
    # eq. eq-ppo-four-cases
    stopped = (weights > 0) & (ratio > 1 + clip_high) | (weights < 0) & (ratio < 1 - clip_low)
    if dual_clip is not None:
        stopped |= (weights < 0) & (ratio > dual_clip)
    return aggregate(stopped.to(pi.dtype), counted)


def _require_clips(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    if not 0 <= clip_low < 1:
        raise ValueError(f"clip_low must lie in [0, 1), got {clip_low}")
    if not clip_high >= 0:
        raise ValueError(f"clip_high must be at least 0, got {clip_high}")
    if dual_clip is not None and not (dual_clip > 1 + clip_high and math.isfinite(dual_clip)):
        raise ValueError(f"dual_clip must exceed 1 + clip_high = {1 + clip_high}, got {dual_clip}")


def _log_prob(name: str, logp: Tensor) -> Tensor:
    require_floating(**{name: logp})
    if not logp.isfinite().all():
        raise ValueError(f"{name} must be finite; give padding any finite value")
    if (logp > 1e-6).any():
        raise ValueError(f"{name} holds log-probabilities, at most 0, got {logp.max().item():g}")
    return logp.to(at_least_float32(logp))
