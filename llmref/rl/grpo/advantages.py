"""Advantages from the rewards of a group, and the weight that their division gives to a prompt.

Leaves out: sampling and filtering of groups, the loss (see losses).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_at_least,
    require_choice,
    require_constant,
    require_floating,
    require_in,
    require_size,
)
from llmref.rl.policy_gradient import mean_baseline_advantages

Scale = Literal["group", "batch", "none"]
_TIE = 8  # units of rounding within which the rewards of a group are taken for equal


def group_advantages(
    rewards: Tensor,
    *,
    scale: Scale = "group",
    ddof: int = 1,
    eps: float | None = None,
) -> Tensor:
    """Centre the rewards of each group; divide by the standard deviation of the group or batch.

    (1, 0, 0, 1) has mean 1/2 and, with ddof 0, deviation 1/2: (1, -1, -1, 1), for eps = 0.
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Shao et al. 2024, arXiv:2402.03300; scale="none": Liu et al. 2025, arXiv:2503.20783.
    Differs: the paper leaves ddof and eps open; a division needs an eps, scale="none" takes none.
    Rewards within 8 eps (of their dtype) times the largest are equal, and get exactly 0; in
    bfloat16 that is 6 %. "batch" takes the standard deviation of the centred rewards.
    Raises: ValueError unless rewards are (B, G), finite, without a graph, and their advantages fit
    their dtype; for a group of one unless scale="none"; for another scale, ddof not 0 or 1, an eps
    that is missing, needless or negative. TypeError for integers.
    """
    added = _require_scale(scale, ddof, eps)
    centred = mean_baseline_advantages(widen(rewards, "rewards").double())
    if scale != "none" and rewards.shape[1] < 2:
        raise ValueError("a group of one has no spread: rewards need G >= 2, or scale='none'")
    spread = rewards.amax(dim=1, keepdim=True) - rewards.amin(dim=1, keepdim=True)  # (B, 1)
    largest = rewards.abs().amax(dim=1, keepdim=True)
    tied = spread <= _TIE * torch.finfo(rewards.dtype).eps * largest
    centred = torch.where(tied, 0.0, centred)
    if scale != "none":
        axes = (1,) if scale == "group" else (0, 1)
        # In units of the largest deviation no square overflows or vanishes.
        unit = centred.abs().amax(dim=axes, keepdim=True)
        std = unit * (centred / unit).std(dim=axes, correction=ddof, keepdim=True)
        centred = torch.where(tied, 0.0, centred / (std + added))  # eq. eq-grpo-advantage
    advantages = centred.to(rewards.dtype)
    if not advantages.isfinite().all():
        raise ValueError(
            f"advantages overflow {rewards.dtype}: rewards reach {largest.max().item():g} in size"
        )
    return advantages


def binary_group_weight(p: Tensor, G: int) -> Tensor:
    """Return what a prompt with success rate p weighs after division by the standard deviation.

    E[s] / (p (1 - p)), s the deviation (ddof 0) of G rewards that are 1 with probability p. Two: 1.
    Shapes: p (...) -> (...)
    Source: the bias of the division: Liu et al. 2025, arXiv:2503.20783.
    Differs: at p = 0 and 1, where it is 0/0, the limit sqrt(G - 1).
    Raises: ValueError for p outside [0, 1] or with a graph, or G < 2; TypeError for an
    integer p or a G that is no int.
    """
    require_floating(p=p)
    require_constant(p=p)
    require_in("[0, 1]", p=p)
    require_size(2, G=G)
    wide = widen(p, "p").double().unsqueeze(-1)  # (..., 1); lgamma of a large G needs float64
    k = torch.arange(1, G, dtype=wide.dtype, device=p.device)  # (G - 1,), the mixed groups
    choose = math.lgamma(G + 1) - torch.lgamma(k + 1) - torch.lgamma(G - k + 1)
    # One power of p and of 1 - p is divided out before it is taken: no 0/0 at the ends.
    log_chance = choose + torch.xlogy(k - 1, wide) + torch.xlogy(G - k - 1, 1 - wide)
    spread = (k * (G - k)).sqrt() / G
    return (log_chance.exp() * spread).sum(dim=-1).to(p.dtype)  # eq. eq-grpo-weight


def _require_scale(scale: str, ddof: int, eps: float | None) -> float:
    """What is added to a deviation: eps, which goes with a scale and only there."""
    require_choice(Scale, scale=scale)
    require_choice(Literal[0, 1], ddof=ddof)
    if scale == "none":
        if eps is not None:
            raise ValueError(f"scale='none' divides by nothing and takes no eps, got {eps}")
        return 0.0
    if eps is None:
        raise ValueError(f"scale={scale!r} needs eps, such as 1e-4: papers and libraries disagree")
    require_at_least(0, eps=eps)
    return eps
