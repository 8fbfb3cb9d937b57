"""What a policy says about rewards: its log-probabilities, the optimum, the implied reward.

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
    require_integers,
    require_positive,
    require_shapes,
)
from llmref.functional.softmax import log_softmax, logsumexp
from llmref.rl._tokens import narrowed
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
    labels = torch.where(counted, labels.long(), 0)  # padding may hold -100
    # Padding may hold NaN, and 0 * NaN is NaN: replaced before anything is computed from it.
    kept = widen(torch.where(counted.unsqueeze(-1), logits, 0.0), "logits")
    tokens = log_softmax(kept).gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (N, T)
    if not tokens.isfinite().all():
        raise ValueError("a counted label has probability 0 under these logits")
    return torch.where(counted, tokens, 0.0).sum(dim=-1)  # eq. eq-dpo-sequence


def optimal_policy(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """The log of the policy that maximises mean reward minus beta KL(policy||ref), and its log Z.

    ref (1/2, 1/2), rewards (log 3, 0), beta 1: (3/4, 1/4), Z = 2.
    Shapes: ref_logps (..., Y), rewards (..., Y) -> (..., Y), (...): all responses to one prompt
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Differs: the largest reward is subtracted first, so that a common term costs no digits; what the
    reference excludes stays excluded, whatever its reward.
    Raises: ValueError if the shapes differ, beta is not positive, a reward is not finite, a result
    overflows, or ref_logps require grad or are not the logarithms of a distribution; TypeError for
    integers.
    """
    _require_reference(ref_logps, rewards)
    require_positive(beta=beta)
    dtype = torch.result_type(ref_logps, rewards)
    ref, reward = widen(ref_logps, "ref_logps"), widen(rewards, "rewards")
    excluded = ref.isneginf()
    top = reward.detach().masked_fill(excluded, -torch.inf).amax(-1, keepdim=True)  # (..., 1)
    behind = torch.where(excluded, 0.0, reward - top) / beta
    tilted = ref + narrowed(behind, behind.dtype, "the difference of two rewards over beta")
    shifted = logsumexp(tilted)  # (...), log of Z exp(-top / beta)
    log_z = narrowed(shifted + top.squeeze(-1) / beta, dtype, "log Z")
    logps = tilted - shifted.unsqueeze(-1)  # eq. eq-dpo-optimal
    kept = torch.where(excluded, 0.0, logps)
    return torch.where(excluded, -torch.inf, narrowed(kept, dtype, "a log-probability")), log_z


def implicit_reward(policy_logps: Tensor, ref_logps: Tensor, *, beta: float) -> Tensor:
    """The reward for which a policy is optimal, up to a term that depends on the prompt alone.

    Shapes: policy_logps (...), ref_logps (...) -> (...)
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Differs: attached to the policy; loggers detach it.
    Raises: ValueError if the shapes differ, beta is not positive, ref_logps require grad, a
    log-probability is not finite or above 1e-6, or the result overflows; TypeError for integers.
    """
    require_positive(beta=beta)
    reward = beta * log_ratio("", policy_logps, ref_logps)  # eq. eq-dpo-reward
    return narrowed(reward, policy_logps.dtype, "the implied reward")


def _counted_labels(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The mask as booleans, once every counted label is a class."""
    named = {"logits": logits, "labels": labels, "mask": mask}
    require_shapes("logits (N, T, V), labels (N, T), mask (N, T)", **named)
    require_floating(logits=logits)
    require_integers(labels=labels)
    counted = boolean_mask(mask)
    require_ids(logits.shape[-1], labels=labels[counted].long())  # uint8 cannot hold a V of 300
    return counted


def _require_reference(ref_logps: Tensor, rewards: Tensor) -> None:
    """A logarithm is rounded to its own digits: the sum may be off by eps times their mean size."""
    require_shapes("ref_logps (..., Y), rewards (..., Y)", ref_logps=ref_logps, rewards=rewards)
    require_floating(ref_logps=ref_logps, rewards=rewards)
    require_constant(ref_logps=ref_logps)
    require_finite(rewards=rewards)
    ref = widen(ref_logps, "ref_logps")
    total = logsumexp(ref)
    size = (ref.exp() * torch.where(ref.isneginf(), 0.0, ref).abs()).sum(-1).clamp(min=1)
    allowed = (torch.finfo(ref_logps.dtype).eps * size).clamp(min=1e-4)
    if not (total.abs() <= allowed).all():
        worst = total.flatten()[total.abs().argmax()].exp().item()
        raise ValueError(f"ref_logps must sum to 1 in probability, got {worst:g}")
