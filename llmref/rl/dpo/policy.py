"""What a policy says about rewards: its log-probabilities, the optimal law, the implied reward.

Leaves out: the losses on preference pairs (see dpo).
"""

import math

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_constant, require_floating
from llmref.functional.softmax import log_softmax, logsumexp
from llmref.rl._tokens import require_rows, token_mask


def sequence_logps(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of each response: the sum over its tokens, not their mean.

    Already shifted: logits[:, t] predict labels[:, t]. The mask counts the response, with its end
    token, and neither prompt nor padding; what it leaves out may hold any logit and any label.

    Shapes: logits (N, T, V), labels (N, T), mask (N, T) -> (N,)
    Source: Rafailov et al. 2023, arXiv:2305.18290.
    Differs: the result is float32 at least: the sum of 500 tokens has no digit after the point in
    bfloat16, and the loss takes differences of such sums.
    Raises: ValueError if shapes do not fit, a counted label is not in 0..V-1 or has probability 0,
    or a row counts no token; TypeError unless logits are floating point and labels integers.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits must be (N, T, V), got {tuple(logits.shape)}")
    require_floating(logits=logits)
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels {tuple(labels.shape)} must be {tuple(logits.shape[:2])}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    counted = token_mask(mask, logits[..., 0])
    require_rows(counted.sum(dim=-1))
    labels = torch.where(counted, labels, 0)  # padding may hold -100
    if labels.min() < 0 or labels.max() >= logits.shape[-1]:
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(f"counted labels must be in 0..{logits.shape[-1] - 1}, got {low}..{high}")
    # Padding may hold NaN, and 0 * NaN is NaN: replaced before anything is computed from it.
    kept = torch.where(counted.unsqueeze(-1), logits, 0.0).to(at_least_float32(logits))
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
    require_positive("beta", beta)
    require_floating(ref_logps=ref_logps, rewards=rewards)
    require_constant("ref_logps", ref_logps)
    if ref_logps.shape != rewards.shape:
        raise ValueError(f"shapes differ: {tuple(ref_logps.shape)} and {tuple(rewards.shape)}")
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite")
    dtype = torch.result_type(ref_logps, rewards)
    ref = ref_logps.to(at_least_float32(ref_logps))
    total = logsumexp(ref)
    if not (total.abs() <= max(1e-4, torch.finfo(ref_logps.dtype).eps)).all():
        worst = total.flatten()[total.abs().argmax()].exp().item()
        raise ValueError(f"ref_logps must sum to 1 in probability, got {worst:g}")
    tilted = ref + rewards.to(at_least_float32(rewards)) / beta
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
    require_positive("beta", beta)
    reward = beta * log_ratio("", policy_logps, ref_logps)  # eq. eq-dpo-reward
    return reward.to(policy_logps.dtype)


def log_ratio(which: str, policy: Tensor, ref: Tensor) -> Tensor:
    """Log of policy over reference, in float32 at least, once both are log-probabilities.

    Shapes: policy (...), ref (...) -> (...)
    Raises: ValueError if the shapes differ, the reference requires grad, or as response_logps.
    """
    require_constant(f"ref_{which}logps", ref)
    pi = response_logps(f"policy_{which}logps", policy)
    frozen = response_logps(f"ref_{which}logps", ref)
    if policy.shape != ref.shape:
        raise ValueError(
            f"ref_{which}logps {tuple(ref.shape)} must have the shape of "
            f"policy_{which}logps {tuple(policy.shape)}"
        )
    return pi - frozen


def response_logps(name: str, logps: Tensor) -> Tensor:
    """Return log-probabilities in float32 at least.

    Shapes: logps (...) -> (...)
    Raises: ValueError if one is not finite or above 1e-6; TypeError unless floating point.
    """
    require_floating(**{name: logps})
    if not logps.isfinite().all():
        raise ValueError(f"{name} must be finite")
    if (logps > 1e-6).any():
        raise ValueError(f"{name} holds log-probabilities, at most 0, got {logps.max().item():g}")
    return logps.to(at_least_float32(logps))


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless a hyperparameter is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
