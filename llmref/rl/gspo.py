"""What changes when the ratio is a geometric mean?

One ratio per sequence, the geometric mean of its tokens' ratios, clipped as a whole; and the form
with one ratio per token that has the same value and gradient.
Leaves out: KL penalties (see kl), group advantages (see grpo).
"""

from torch import Tensor

from llmref._require import require_tensor
from llmref.functional._tokens import require_rows, token_mask
from llmref.functional.aggregation import aggregate
from llmref.rl._tokens import narrowed, token_advantages, token_log_probs
from llmref.rl.ppo import clipped_surrogate, importance_ratio


def sequence_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """The geometric mean of a sequence's token ratios pi / old.

    Ratios 2 and 1/2: 1. Ratios 4 and 1: 2.
    Shapes: logp, old_logp, mask (N, T) -> (N,)
    Source: Zheng et al. 2025, arXiv:2507.18071.
    Raises: ValueError if old_logp requires grad, something does not fit, a counted log-probability
    is not finite or above 1e-6, for an empty row, if the ratio overflows the dtype of logp;
    TypeError for integers.
    """
    ratio = importance_ratio(*_as_log_probs(_mean_log_ratio(logp, old_logp, mask)))
    return narrowed(ratio, logp.dtype, "the ratio")  # eq. eq-gspo-ratio


def gspo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """Minus the clipped surrogate of each sequence's ratio, the mean over sequences.

    Shapes: logp, old_logp, mask (N, T), advantages (N,) -> ()
    Source: Zheng et al. 2025, arXiv:2507.18071.
    Raises: ValueError unless advantages are (N,), if the loss overflows the dtype of logp,
    otherwise as sequence_ratio and ppo.clipped_surrogate.
    """
    log_ratio = _mean_log_ratio(logp, old_logp, mask)  # (N,)
    require_tensor(advantages=advantages)
    if advantages.shape != log_ratio.shape:
        raise ValueError(
            f"advantages {tuple(advantages.shape)} must be (N,) = {tuple(log_ratio.shape)}, one "
            "per sequence; gspo_token_loss takes one per token"
        )
    surrogate = clipped_surrogate(
        *_as_log_probs(log_ratio), advantages, clip_low=clip_low, clip_high=clip_high
    )
    return narrowed(-surrogate.mean(), logp.dtype, "the loss")  # eq. eq-gspo-loss


def gspo_token_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """The same with one advantage per token: each token has its sequence's ratio, its own gradient.

    Shapes: logp, old_logp, mask (N, T), advantages (N,) or (N, T) -> ()
    Source: Zheng et al. 2025, arXiv:2507.18071.
    Raises: ValueError if the loss overflows the dtype of logp, otherwise as sequence_ratio and
    ppo.clipped_surrogate.
    """
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    of_sequence = _mean_log_ratio(logp, old_logp, mask).detach().unsqueeze(1)  # (N, 1)
    log_ratio = of_sequence + (pi - pi.detach())  # eq. eq-gspo-token; adds a gradient and no value
    weights = token_advantages(advantages, counted)
    surrogate = clipped_surrogate(
        *_as_log_probs(log_ratio), weights, clip_low=clip_low, clip_high=clip_high
    )
    loss = aggregate(-surrogate, counted, agg="seq-mean-token-mean")
    return narrowed(loss, logp.dtype, "the loss")


def _mean_log_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """Subtract before summing: the ratio is near 1, and its distance from 1 is what is clipped."""
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    old = token_log_probs("old_logp", old_logp, counted, constant=True)
    lengths = counted.sum(dim=-1)  # (N,)
    require_rows(lengths)
    return (pi - old).sum(dim=-1) / lengths


def _as_log_probs(log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Write a log-ratio, exactly, as the difference of two log-probabilities, the second fixed."""
    shift = log_ratio.detach().clamp(min=0)
    return log_ratio - shift, -shift
