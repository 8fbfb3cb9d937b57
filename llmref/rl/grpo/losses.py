"""The loss with its KL term, and the two presets Dr. GRPO and DAPO.

Leaves out: the clip (see ppo), one ratio a sequence (see gspo).
"""

from torch import Tensor

from llmref._require import require_at_least, require_choice
from llmref.functional._tokens import token_mask
from llmref.functional.aggregation import Aggregation
from llmref.rl._tokens import token_log_probs
from llmref.rl.kl import Kind, Ratio, RatioScope, kl_loss
from llmref.rl.kl._options import require_gradient
from llmref.rl.ppo import ppo_policy_loss


def grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    ref_logp: Tensor | None = None,
    beta: float = 0.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    kl_kind: Kind = "k3",
    kl_ratio: Ratio = "none",
    ratio_scope: RatioScope = "token",
) -> Tensor:
    """Minus the clipped surrogate plus beta times a KL penalty, over the counted tokens.

    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.
    Shapes: logp, old_logp, ref_logp (N, T), advantages (N,) or (N, T), mask (N, T) -> ()
    Source: Shao et al. 2024, arXiv:2402.03300.
    Differs: the paper has agg="seq-mean-token-mean", beta = 0.04 and no ratio on the KL. kl_ratio
    weights the KL by pi / old, of the token or of the prefix (ratio_scope), see kl.kl_loss.
    Raises: ValueError if beta is negative or has no ref_logp, for unknown or contradicting options,
    also of a penalty that is not computed, if ref_logp does not fit or requires grad, otherwise as
    ppo.ppo_policy_loss and kl.kl_loss.
    """
    require_at_least(0, beta=beta)
    require_gradient(kl_kind, kl_ratio, prefix="kl_")
    require_choice(RatioScope, ratio_scope=ratio_scope)
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
    token_log_probs("ref_logp", ref_logp, token_mask(mask, logp=logp), constant=True)
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
