"""What a policy says about rewards: its log-probabilities, the optimal law, the implied reward.

Leaves out: the losses on preference pairs (see dpo).
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    boolean_mask,
    require_constant,
    require_finite,
    require_floating,
    require_ids,
    require_positive,
    require_shapes,
)
from llmref.functional.softmax import log_softmax, logsumexp
from llmref.rl.dpo._ratio import log_ratio


def aligned_sequence_logprob(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of each response: the sum over its tokens, not their mean.

    Aligned: logits[:, t] predict labels[:, t], so the shift is already made; for whole sequences,
    functional.sft.sequence_logprob makes it. The mask counts the response, with its end token, and
    neither prompt nor padding; what it leaves out may hold any logit and any label.

    Shapes: logits (N, T, V), labels (N, T), mask (N, T) -> (N,); 0 for a row that counts nothing
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Differs: the result is float32 at least: the sum of 500 tokens has no digit after the point in
    bfloat16, and the loss takes differences of such sums.
    Raises: ValueError if shapes do not fit, the mask is not 0/1, or a counted label is not in
    0..V-1 or has probability 0; TypeError unless logits are floating point and labels integers.
    """
    counted = _counted_labels(logits, labels, mask)
    labels = torch.where(counted, labels, 0)  # padding may hold -100
    # Padding may hold NaN, and 0 * NaN is NaN: replaced before anything is computed from it.
    kept = widen(torch.where(counted.unsqueeze(-1), logits, 0.0), "logits")
    tokens = log_softmax(kept).gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (N, T)
    if not tokens.isfinite().all():
        raise ValueError("a counted label has probability 0 under these logits")
    return torch.where(counted, tokens, 0.0).sum(dim=-1)  # eq. eq-dpo-sequence


def optimal_policy(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """The law that maximises mean reward minus beta KL(law||reference), and its log Z.

    ref (1/2, 1/2), rewards (log 3, 0), beta 1: the law (3/4, 1/4), Z = 2.
    Shapes: ref_logps (..., Y), rewards (..., Y) -> (..., Y), (...): all responses to one prompt
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Raises: ValueError if the shapes differ, beta is not positive, a reward is not finite, or
    ref_logps require grad or are not the logarithms of a distribution; TypeError for integers.
    """
    _require_law(ref_logps, rewards)
    require_positive(beta=beta)
    dtype = torch.result_type(ref_logps, rewards)
    tilted = widen(ref_logps, "ref_logps") + widen(rewards, "rewards") / beta
    log_z = logsumexp(tilted)  # (...)
    return (tilted - log_z.unsqueeze(-1)).to(dtype), log_z.to(dtype)  # eq. eq-dpo-optimal


def implicit_reward(policy_logps: Tensor, ref_logps: Tensor, *, beta: float) -> Tensor:
    """The reward for which a policy is optimal, up to a term that depends on the prompt alone.

    Shapes: policy_logps (...), ref_logps (...) -> (...)
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Differs: attached to the policy; loggers detach it.
    Raises: ValueError if the shapes differ, beta is not positive, ref_logps require grad, or a
    log-probability is not finite or above 1e-6; TypeError for integers.
    """
    require_positive(beta=beta)
    reward = beta * log_ratio("", policy_logps, ref_logps)  # eq. eq-dpo-reward
    return reward.to(policy_logps.dtype)


def _counted_labels(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The mask as booleans, once every counted label is a class."""
    named = {"logits": logits, "labels": labels, "mask": mask}
    require_shapes("logits (N, T, V), labels (N, T), mask (N, T)", **named)
    require_floating(logits=logits)
    counted = boolean_mask(mask)
    require_ids(logits.shape[-1], labels=labels[counted])
    return counted


def _require_law(ref_logps: Tensor, rewards: Tensor) -> None:
    require_shapes("ref_logps (..., Y), rewards (..., Y)", ref_logps=ref_logps, rewards=rewards)
    require_floating(ref_logps=ref_logps, rewards=rewards)
    require_constant(ref_logps=ref_logps)
    require_finite(rewards=rewards)
    total = logsumexp(widen(ref_logps, "ref_logps"))
    if not (total.abs() <= max(1e-4, torch.finfo(ref_logps.dtype).eps)).all():
        worst = total.flatten()[total.abs().argmax()].exp().item()
        raise ValueError(f"ref_logps must sum to 1 in probability, got {worst:g}")
