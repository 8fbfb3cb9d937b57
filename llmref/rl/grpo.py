"""What does GRPO optimise once its two normalisers are taken seriously?

Advantages from the rewards of a group, the loss with its KL term, the two presets Dr. GRPO and
DAPO, and the weight that division by the group's spread gives to a prompt.
Leaves out: sampling and filtering of groups, one ratio a sequence (see gspo), the clip (see ppo).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_choice, require_constant, require_floating
from llmref.rl._tokens import token_log_probs, token_mask
from llmref.rl.kl import Kind, Ratio, kl_loss
from llmref.rl.policy_gradient import mean_baseline_advantages
from llmref.rl.ppo import ppo_policy_loss

_TIE = 8  # units of rounding within which the rewards of a group are taken for equal


def group_advantages(
    rewards: Tensor,
    *,
    scale: Literal["group", "batch", "none"] = "group",
    ddof: int = 1,
    eps: float = 1e-4,
) -> Tensor:
    """Centre the rewards of each group, and divide by the spread of the group or of the batch.

    (1, 0, 0, 1) has mean 1/2 and, with ddof 0, spread 1/2: (1, -1, -1, 1), for eps = 0.
    Shapes: rewards (B, G) -> (B, G), G responses to each of B prompts
    Source: Shao et al. 2024, arXiv:2402.03300; scale="none": Liu et al. 2025, arXiv:2503.20783.
    Differs: the paper leaves ddof and eps open. Rewards within 8 eps (of their dtype) times the
    largest are equal, and get exactly 0; in bfloat16 that is 6 %. "batch" takes the spread of the
    centred rewards.
    Raises: ValueError unless rewards are (B, G), finite, without a graph; for a group of one unless
    scale="none"; for another scale, ddof not 0 or 1, eps < 0. TypeError for integers.
    """
    require_choice("scale", scale, Literal["group", "batch", "none"])
    require_choice("ddof", ddof, Literal[0, 1])
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"eps must be at least 0 and finite, got {eps}")
    require_floating(rewards=rewards)
    centred = mean_baseline_advantages(rewards.to(at_least_float32(rewards)))
    if scale != "none" and rewards.shape[1] < 2:
        raise ValueError("a group of one has no spread: rewards need G >= 2, or scale='none'")
    spread = rewards.amax(dim=1, keepdim=True) - rewards.amin(dim=1, keepdim=True)  # (B, 1)
    largest = rewards.abs().amax(dim=1, keepdim=True)
    tied = spread <= _TIE * torch.finfo(rewards.dtype).eps * largest
    centred = torch.where(tied, 0.0, centred)
    if scale != "none":
        axes = (1,) if scale == "group" else (0, 1)
        std = centred.std(dim=axes, correction=ddof, keepdim=True) + eps
        centred = torch.where(tied, 0.0, centred / std)  # eq. eq-grpo-advantage
    return centred.to(rewards.dtype)


def grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logp: Tensor | None = None,
    beta: float = 0.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    agg: str = "seq-mean-token-mean",
    norm: float | None = None,
    kl_kind: Kind = "k3",
    kl_ratio: Ratio = "none",
    ratio_scope: Literal["prefix", "token"] = "token",
) -> Tensor:
    """Minus the clipped surrogate plus beta times a KL penalty, over the counted tokens.

    Shapes: logp, old_logp, ref_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Shao et al. 2024, arXiv:2402.03300.
    Differs: the paper has beta = 0.04; the average and the KL's ratio are choices here. kl_ratio
    weights the KL by pi / old, of the token or of the prefix (ratio_scope), see kl.kl_loss.
    Raises: ValueError if beta is negative or has no ref_logp, ref_logp does not fit or requires
    grad, otherwise as ppo.ppo_policy_loss and kl.kl_loss.
    """
    if not (beta >= 0 and math.isfinite(beta)):
        raise ValueError(f"beta must be at least 0 and finite, got {beta}")
    surrogate = ppo_policy_loss(
        logp,
        old_logp,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
        agg=agg,
        norm=norm,
    )
    if ref_logp is None:
        if beta > 0:
            raise ValueError(f"beta = {beta} needs ref_logp, the reference's log-probabilities")
        return surrogate
    token_log_probs("ref_logp", ref_logp, token_mask(mask, logp), constant=True)
    if beta == 0:
        return surrogate
    penalty = kl_loss(
        logp,
        ref_logp,
        mask,
        kind=kl_kind,
        old_logp=None if kl_ratio == "none" else old_logp,
        ratio=kl_ratio,
        ratio_scope=ratio_scope,
        agg=agg,
        norm=norm,
    )
    return surrogate + beta * penalty  # eq. eq-grpo-loss


def dr_grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    norm: float,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Tensor:
    """GRPO's loss divided by a constant number of tokens a row, without a KL term.

    Its advantages come from group_advantages(rewards, scale="none").
    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Liu et al. 2025, arXiv:2503.20783.
    Raises: as grpo_loss.
    """
    return grpo_loss(  # eq. eq-grpo-dr
        logp,
        old_logp,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        agg="constant",
        norm=norm,
    )


def dapo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
) -> Tensor:
    """GRPO's loss over all tokens of the batch, with a higher upper clip, without a KL term.

    Its advantages come from group_advantages(rewards), from groups that are not all equal.
    Shapes: logp, old_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Yu et al. 2025, arXiv:2503.14476.
    Differs: leaves out their penalty for overlong responses and their filter of groups.
    Raises: as grpo_loss.
    """
    return grpo_loss(  # eq. eq-grpo-dapo
        logp,
        old_logp,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        agg="token-mean",
    )


def binary_group_weight(p: Tensor, G: int) -> Tensor:
    """Return how much a prompt with success rate p weighs after division by the group's spread.

    E[s] / (p (1 - p)), s the spread (ddof 0) of G rewards that are 1 with probability p. Two: 1.
    Shapes: p (...) -> (...)
    Source: the bias of the division: Liu et al. 2025, arXiv:2503.20783.
    Differs: at p = 0 and 1, where it is 0/0, the limit sqrt(G - 1).
    Raises: ValueError for p outside [0, 1] or with a graph, or G < 2; TypeError for integers.
    """
    require_floating(p=p)
    require_constant("p", p)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p must lie in [0, 1], got {p.min().item():g} to {p.max().item():g}")
    if G < 2:
        raise ValueError(f"a group needs G >= 2 for a spread, got {G}")
    wide = p.to(at_least_float32(p)).unsqueeze(-1)  # (..., 1)
    k = torch.arange(1, G, dtype=wide.dtype, device=p.device)  # (G - 1,), the mixed groups
    choose = math.lgamma(G + 1) - torch.lgamma(k + 1) - torch.lgamma(G - k + 1)
    # One power of p and of 1 - p is divided out before it is taken: no 0/0 at the ends.
    log_law = choose + torch.xlogy(k - 1, wide) + torch.xlogy(G - k - 1, 1 - wide)
    spread = (k * (G - k)).sqrt() / G
    return (log_law.exp() * spread).sum(dim=-1).to(p.dtype)  # eq. eq-grpo-weight
