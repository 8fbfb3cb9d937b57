"""Which number may be subtracted from a reward, and what does each choice cost?

Baselines from the other responses of a group, the baseline of least variance, and whitening.
Leaves out: division by a group's spread (see grpo), learned critics (see advantages).
"""

import math

import torch
from torch import Tensor

from llmref._numeric import at_least_float32, check_distribution
from llmref._require import require_constant, require_floating
from llmref.rl._tokens import token_mask


def mean_baseline_advantages(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean of its group, itself included.

    (1, 2, 6) has mean 3: (-2, -1, 3).
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Shao et al. 2024, arXiv:2402.03300, without their division.
    Differs: a group of one gets advantage 0, and no gradient.
    Raises: ValueError unless rewards are (B, G), finite, without a graph; TypeError for integers.
    """
    wide = _group_rewards(rewards, at_least=1)
    return (wide - wide.mean(dim=1, keepdim=True)).to(rewards.dtype)  # eq. eq-pg-mean-baseline


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean of the others in its group.

    (1, 2, 6): 1 - 4 = -3, 2 - 3.5 = -1.5, 6 - 1.5 = 4.5.
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740.
    Raises: ValueError for G < 2 (there are no others), otherwise as mean_baseline_advantages.
    """
    wide = _group_rewards(rewards, at_least=2)
    group = wide.shape[1]
    centred = wide - wide.mean(dim=1, keepdim=True)
    return (group / (group - 1) * centred).to(rewards.dtype)  # eq. eq-pg-rloo


def optimal_baseline(
    rewards: Tensor, score_sq_norms: Tensor, probs: Tensor | None = None
) -> Tensor:
    """The constant baseline of least total variance: the mean reward weighted by |score|^2.

    Rewards (1, 3) with squared norms (3, 1), equally likely: (3 + 3) / 4 = 1.5.
    Shapes: rewards (M,), score_sq_norms (M,) or, for one baseline a parameter, (M, P), probs (M,)
    or None for equal weights -> () or (P,)
    Source: Greensmith et al. 2004.
    Differs: estimated from the batch that it is applied to, it is no longer independent of it.
    Raises: ValueError if the shapes do not fit, something is not finite, a squared norm is
    negative, no score has any weight, or probs is not a distribution; TypeError for integers.
    """
    require_floating(rewards=rewards, score_sq_norms=score_sq_norms)
    if rewards.ndim != 1 or len(rewards) == 0:
        raise ValueError(f"rewards must be (M,) with M >= 1, got {tuple(rewards.shape)}")
    if score_sq_norms.ndim not in (1, 2) or len(score_sq_norms) != len(rewards):
        raise ValueError(
            f"score_sq_norms {tuple(score_sq_norms.shape)} must be (M,) or (M, P), M {len(rewards)}"
        )
    _require_finite(rewards=rewards, score_sq_norms=score_sq_norms)
    if (score_sq_norms < 0).any():
        raise ValueError(f"squared norms are at least 0, got {score_sq_norms.min().item():g}")
    weights = _weights(rewards, probs)
    dtype = torch.promote_types(weights.dtype, at_least_float32(score_sq_norms))
    squares, weights = score_sq_norms.to(dtype), weights.to(dtype)
    total = weights @ squares
    if (total == 0).any():
        raise ValueError("every score that can occur is 0: all baselines are equally good")
    return ((weights * rewards) @ squares / total).to(rewards.dtype)  # eq. eq-pg-optimal-baseline


def masked_whiten(
    x: Tensor, mask: Tensor, *, center: bool = True, ddof: int = 1, eps: float = 1e-8
) -> Tensor:
    """Divide by the spread of the counted entries, and centre them unless told not to.

    (1, 3, [9]) with the last left out: mean 2, variance 2: (-1/sqrt 2, 1/sqrt 2, 0).
    Shapes: x (N, T), mask (N, T) -> (N, T), 0 where the mask leaves out
    Differs: the variance divides by n - ddof; center=False adds the mean back after the division.
    Raises: ValueError unless more than ddof entries count, ddof >= 0 and eps >= 0 is finite, if a
    counted entry is not finite, or if eps is 0 and all are equal; TypeError for integers.
    """
    if ddof < 0 or not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"ddof and eps must be at least 0 and finite, got {ddof} and {eps}")
    counted = token_mask(mask, x)
    kept = torch.where(counted, x, 0.0).to(at_least_float32(x))
    _require_finite(x=kept)
    count = int(counted.sum())
    if count <= ddof:
        raise ValueError(f"a variance with ddof {ddof} needs more entries, {count} count")
    mean = kept.sum() / count
    centred = torch.where(counted, kept - mean, 0.0)
    variance = centred.square().sum() / (count - ddof)
    if variance + eps == 0:
        raise ValueError("all counted entries are equal: with eps = 0 their spread is no divisor")
    scaled = centred * (variance + eps).rsqrt()  # eq. eq-pg-whiten
    return torch.where(counted, scaled if center else scaled + mean, 0.0).to(x.dtype)


def _group_rewards(rewards: Tensor, *, at_least: int) -> Tensor:
    if rewards.ndim != 2 or rewards.shape[1] < at_least:
        raise ValueError(f"rewards must be (B, G) with G >= {at_least}, got {tuple(rewards.shape)}")
    require_floating(rewards=rewards)
    require_constant("rewards", rewards)
    _require_finite(rewards=rewards)
    return rewards.to(at_least_float32(rewards))


def _weights(rewards: Tensor, probs: Tensor | None) -> Tensor:
    if probs is None:
        dtype = at_least_float32(rewards)
        return torch.full_like(rewards, 1 / len(rewards), dtype=dtype)
    if probs.shape != rewards.shape:
        raise ValueError(f"probs {tuple(probs.shape)} must be (M,) = {tuple(rewards.shape)}")
    check_distribution(probs)
    return probs.to(torch.promote_types(at_least_float32(rewards), at_least_float32(probs)))


def _require_finite(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite where it counts")
