"""The two places where a policy is penalised for leaving its reference: the loss and the reward.

Leaves out: the divergences and their estimators (see divergences).
"""

import torch
from torch import Tensor

from llmref._require import require_choice
from llmref.functional._tokens import require_rows, token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.rl._tokens import token_log_probs
from llmref.rl.kl._options import Ratio, RatioScope, require_gradient
from llmref.rl.kl.divergences import Kind, kl_estimate


def kl_loss(
    logp: Tensor,
    ref_logp: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    kind: Kind = "k2",
    old_logp: Tensor | None = None,
    ratio: Ratio = "none",
    ratio_scope: RatioScope = "prefix",
) -> Tensor:
    """The KL penalty as a term of the loss: a mean of weighted estimates, differentiable in logp.

    Which divergence its gradient decreases depends on kind, ratio and agg: see the page.
    ratio weights the estimates by pi / old, differentiated ("attached") or held fixed ("detached");
    its scope is the token alone or the product over the tokens up to it ("prefix").
    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.

    Shapes: logp, ref_logp, mask, old_logp (N, T) -> ()
    Source: Shao et al. 2024, arXiv:2402.03300 (k3); DeepSeek-AI 2025, arXiv:2512.02556 (attached).
    Differs: TRL computes kind="k3", ratio="attached", ratio_scope="token". Positions that the mask
    leaves out enter neither sums nor prefixes.
    Raises: ValueError for options that contradict each other or whose expected gradient is zero or
    belongs to no divergence, ref_logp or old_logp that require grad, invalid log-probabilities,
    an empty row, or a ratio that overflows; TypeError for integers.
    """
    require_gradient(kind, ratio)
    require_choice(RatioScope, ratio_scope=ratio_scope)
    counted = token_mask(mask, logp=logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    ref = token_log_probs("ref_logp", ref_logp, counted, constant=True)
    log_weight = _log_ratio(pi, old_logp, counted, ratio)
    if ratio_scope == "prefix":
        log_weight = log_weight.cumsum(dim=-1)
    loss = _weight(log_weight) * _finite(kl_estimate(pi, ref, kind), kind)  # eq. eq-kl-loss
    return aggregate(loss, counted, agg=agg, norm=norm).to(logp.dtype)


def sequence_kl_loss(
    logp: Tensor,
    ref_logp: Tensor,
    mask: Tensor,
    *,
    kind: Kind = "k2",
    old_logp: Tensor | None = None,
    ratio: Ratio = "none",
) -> Tensor:
    """The KL penalty of rows taken as one action each: k of the summed log-ratio, mean over rows.

    ratio weights a row by its whole ratio pi / old, as in kl_loss.

    Shapes: logp, ref_logp, mask, old_logp (N, T) -> ()
    Source: Schulman 2020, 'Approximating KL divergence', with a response as the sample.
    Raises: as kl_loss.
    """
    require_gradient(kind, ratio)
    counted = token_mask(mask, logp=logp)
    require_rows(counted.sum(dim=-1))
    pi = token_log_probs("logp", logp, counted, constant=False)
    ref = token_log_probs("ref_logp", ref_logp, counted, constant=True)
    log_weight = _log_ratio(pi, old_logp, counted, ratio)
    pi, ref, log_weight = (x.sum(dim=-1) for x in (pi, ref, log_weight))  # (N,)
    return (_weight(log_weight) * _finite(kl_estimate(pi, ref, kind), kind)).mean().to(logp.dtype)


def kl_reward(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Return what each token's reward loses per unit of the KL coefficient: k1, without a graph.

    Shapes: logp, ref_logp, mask (N, T) -> (N, T), 0 where nothing counts
    Source: Stiennon et al. 2020, arXiv:2009.01325.
    Raises: ValueError if ref_logp requires grad, something does not fit or a counted
    log-probability is invalid; TypeError for integers.
    """
    counted = token_mask(mask, logp=logp)
    ref = token_log_probs("ref_logp", ref_logp, counted, constant=True)
    pi = token_log_probs("logp", logp, counted, constant=False).detach()
    return kl_estimate(pi, ref, "k1").to(logp.dtype)  # eq. eq-kl-reward


def _log_ratio(pi: Tensor, old_logp: Tensor | None, counted: Tensor, ratio: Ratio) -> Tensor:
    """Log of the importance ratio that `ratio` asks for, zero for "none"."""
    if ratio == "none":
        if old_logp is not None:
            raise ValueError("ratio='none' takes no old_logp: the estimates are not weighted")
        return torch.zeros_like(pi)
    if old_logp is None:
        raise ValueError(f"ratio={ratio!r} needs old_logp, the log-probabilities of the sampler")
    log_ratio = pi - token_log_probs("old_logp", old_logp, counted, constant=True)
    return log_ratio if ratio == "attached" else log_ratio.detach()


def _finite(estimate: Tensor, kind: str) -> Tensor:
    if not estimate.isfinite().all():
        raise ValueError(
            f"{kind} overflows {estimate.dtype}: a sampled token has a far smaller probability "
            "under the policy than under the reference; use k2, or a wider dtype"
        )
    return estimate


def _weight(log_weight: Tensor) -> Tensor:
    weight = log_weight.exp()
    if not weight.isfinite().all():
        raise ValueError(f"pi / old overflows: its log reaches {log_weight.max().item():g}")
    return weight
