"""What do k1, k2, k3 estimate, and what do their gradients optimise?

Exact divergences, the three one-sample estimators, and the two places where a policy is penalised
for leaving its reference: in the loss and in the reward. A divergence names its direction, KL(p||q)
with p the law that the samples come from; everything is in nats.
Leaves out: clamping (it stops the gradient where the policy is furthest away), adaptive
coefficients, divergences other than KL.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_choice, require_floating
from llmref.rl._tokens import token_log_probs, token_mask
from llmref.rl.aggregation import aggregate

Kind = Literal["k1", "k2", "k3"]
Ratio = Literal["none", "attached", "detached"]

_SERIES_BELOW = 0.3
_SERIES_TERMS = 14  # 0.3^13 / 15! is below float64's unit roundoff


def kl_categorical(logits_p: Tensor, logits_q: Tensor, *, dim: int = -1) -> Tensor:
    """KL(p||q) of two categorical laws, summed over their outcomes, in nats.

    Shapes: logits_p (..., V), logits_q (..., V) -> (...), V on axis `dim`
    Source: Kullback & Leibler 1951.
    Differs: an outcome that only p has gives inf (and no useful gradient), one that only q has 0.
    Raises: ValueError if the shapes differ, no outcome is there, or a law's logits are NaN, +inf or
    all -inf; TypeError for integers.
    """
    require_floating(logits_p=logits_p, logits_q=logits_q)
    if logits_p.shape != logits_q.shape:
        raise ValueError(f"shapes differ: {tuple(logits_p.shape)} and {tuple(logits_q.shape)}")
    logp, logq = (_log_law(name, x, dim) for name, x in (("p", logits_p), ("q", logits_q)))
    missing_in_p, missing_in_q = logp.isneginf(), logq.isneginf()
    # The difference is masked first: -inf - (-inf) is NaN, and so would its gradient be.
    log_ratio = torch.where(missing_in_p | missing_in_q, 0.0, logp - logq)
    terms = torch.where(missing_in_q & ~missing_in_p, torch.inf, logp.exp() * log_ratio)
    return terms.sum(dim=dim).to(torch.result_type(logits_p, logits_q))  # eq. eq-kl-definition


def kl_gaussian(mu_p: Tensor, std_p: Tensor, mu_q: Tensor, std_q: Tensor) -> Tensor:
    """KL(p||q) of two normal laws on the line, elementwise, in nats.

    Shapes: (...) x 4 -> (...), broadcast together
    Source: Kullback & Leibler 1951.
    Raises: ValueError unless the means are finite and the standard deviations finite and positive;
    TypeError for integers.
    """
    require_floating(mu_p=mu_p, std_p=std_p, mu_q=mu_q, std_q=std_q)
    for name, mu in (("mu_p", mu_p), ("mu_q", mu_q)):
        if not mu.isfinite().all():
            raise ValueError(f"{name} must be finite")
    for name, std in (("std_p", std_p), ("std_q", std_q)):
        if not (std.isfinite() & (std > 0)).all():
            raise ValueError(f"{name} must be positive and finite")
    dtype = torch.promote_types(mu_p.dtype, mu_q.dtype)
    mu_p, std_p, mu_q, std_q = (x.to(at_least_float32(x)) for x in (mu_p, std_p, mu_q, std_q))
    # The widths alone cost a k3 of their log variance ratio: no cancellation, never negative.
    widths = expm1_minus_x(2 * (std_p.log() - std_q.log()))
    return ((widths + ((mu_p - mu_q) / std_q).square()) / 2).to(dtype)  # eq. eq-kl-gaussian


def expm1_minus_x(x: Tensor) -> Tensor:
    """Return exp(x) - 1 - x with full relative precision, also where it is far below 1.

    Shapes: (...) -> (...)
    Differs: exp(x) - 1 - x loses all digits for |x| below the root of the unit roundoff, and
    expm1(x) - x loses half of them; here small x take the series.
    Raises: TypeError for integers.
    """
    require_floating(x=x)
    wide = x.to(at_least_float32(x))
    is_small = wide.abs() < _SERIES_BELOW
    # torch.where differentiates both branches, so each sees only arguments that it can take.
    small, large = torch.where(is_small, wide, 0.0), torch.where(is_small, 1.0, wide)
    tail = torch.ones_like(small)
    for k in range(_SERIES_TERMS, 2, -1):
        tail = 1 + small / k * tail  # 1 + x/3 (1 + x/4 (1 + ...))
    series = small.square() / 2 * tail  # eq. eq-kl-series
    direct = large.expm1() - large.clamp(max=torch.finfo(large.dtype).max)  # inf, not inf - inf
    return torch.where(is_small, series, direct).to(x.dtype)


def kl_estimate(logp: Tensor, logq: Tensor, kind: Kind = "k3") -> Tensor:
    """One estimate of KL(p||q) from each sample of p, from its two log-probabilities.

    k1 = -r, k2 = r^2 / 2, k3 = e^r - 1 - r, with r = logq - logp. Log-densities may be positive.

    Shapes: logp (...), logq (...) -> (...)
    Source: Schulman 2020, 'Approximating KL divergence'.
    Differs: nothing is clamped. A sample that q cannot produce (logq = -inf) gives inf.
    Raises: ValueError for another kind, different shapes, NaN or +inf, or a sample that p cannot
    have produced (logp = -inf); TypeError for integers.
    """
    require_choice("kind", kind, Kind)
    require_floating(logp=logp, logq=logq)
    if logp.shape != logq.shape:
        raise ValueError(f"shapes differ: {tuple(logp.shape)} and {tuple(logq.shape)}")
    if not logp.isfinite().all():
        raise ValueError("logp must be finite: the samples come from p")
    if logq.isnan().any() or logq.isposinf().any():
        raise ValueError("logq must not be NaN or +inf")
    k1 = logp.to(at_least_float32(logp)) - logq.to(at_least_float32(logq))
    if kind == "k1":
        estimate = k1
    elif kind == "k2":
        estimate = k1.square() / 2
    else:
        estimate = expm1_minus_x(-k1)
    return estimate.to(torch.result_type(logp, logq))  # eq. eq-kl-estimators


def kl_loss(
    logp: Tensor,
    ref_logp: Tensor,
    mask: Tensor,
    *,
    kind: Kind = "k2",
    old_logp: Tensor | None = None,
    ratio: Ratio = "none",
    level: Literal["token", "sequence"] = "token",
    ratio_scope: Literal["prefix", "token"] = "prefix",
    agg: str | None = None,
    norm: float | None = None,
) -> Tensor:
    """The KL penalty as a term of the loss: a mean of weighted estimates, differentiable in logp.

    Which divergence its gradient decreases depends on kind, ratio and level: see the page.
    ratio weights the estimates by pi / old, differentiated ("attached") or held fixed ("detached");
    its scope is the token alone or the product over the tokens up to it ("prefix").
    level="sequence" treats a row as one action: k of the summed log-ratio, the mean over rows.

    Shapes: logp, ref_logp, mask, old_logp (N, T) -> ()
    Source: Shao et al. 2024, arXiv:2402.03300 (k3); DeepSeek-AI 2025, arXiv:2512.02556 (attached).
    Differs: agg is None for "token-mean"; TRL computes kind="k3", ratio="attached",
    ratio_scope="token". Positions that the mask leaves out enter neither sums nor prefixes.
    Raises: ValueError for options that contradict each other or whose expected gradient is zero or
    belongs to no divergence, ref_logp or old_logp that require grad, invalid log-probabilities,
    an empty row, or a ratio that overflows.
    """
    _require_compatible(kind, ratio, level, ratio_scope, agg is not None or norm is not None)
    counted = token_mask(mask, logp)
    pi = token_log_probs("logp", logp, counted, constant=False)
    ref = token_log_probs("ref_logp", ref_logp, counted, constant=True)
    log_weight = _log_ratio(pi, old_logp, counted, ratio)
    if level == "sequence":
        pi, ref, log_weight = (x.sum(dim=-1, keepdim=True) for x in (pi, ref, log_weight))
        counted = counted.any(dim=-1, keepdim=True)  # (N, 1): one action a row
    elif ratio_scope == "prefix":
        log_weight = log_weight.cumsum(dim=-1)
    weight = log_weight.exp()
    if not weight.isfinite().all():
        raise ValueError(f"pi / old overflows: its log reaches {log_weight.max().item():g}")
    loss = weight * kl_estimate(pi, ref, kind)  # eq. eq-kl-loss
    return aggregate(loss, counted, agg or "token-mean", norm=norm).to(logp.dtype)


def kl_reward(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Return what each token's reward loses per unit of the KL coefficient: k1, without a graph.

    Shapes: logp, ref_logp, mask (N, T) -> (N, T), 0 where nothing counts
    Source: Stiennon et al. 2020, arXiv:2009.01325.
    Raises: ValueError if ref_logp requires grad or a counted log-probability is invalid.
    """
    counted = token_mask(mask, logp)
    ref = token_log_probs("ref_logp", ref_logp, counted, constant=True)
    pi = token_log_probs("logp", logp, counted, constant=False).detach()
    return kl_estimate(pi, ref, "k1").to(logp.dtype)  # eq. eq-kl-reward


def _log_law(name: str, logits: Tensor, dim: int) -> Tensor:
    """Normalise logits, in float32 at least, once they define a law."""
    if logits.ndim == 0 or logits.shape[dim] == 0:
        raise ValueError(f"a law needs an outcome, got logits_{name} {tuple(logits.shape)}")
    top = logits.amax(dim=dim)  # NaN wherever one is
    if not top.isfinite().all():
        raise ValueError(f"logits_{name} must not be NaN, +inf or all -inf, got {top.min().item()}")
    return logits.to(at_least_float32(logits)).log_softmax(dim=dim)


def _log_ratio(pi: Tensor, old_logp: Tensor | None, counted: Tensor, ratio: Ratio) -> Tensor:
    """Log of the importance ratio that `ratio` asks for, zero for "none"."""
    if ratio == "none":
        return torch.zeros_like(pi)
    if old_logp is None:
        raise ValueError(f"ratio={ratio!r} needs old_logp, the log-probabilities of the sampler")
    log_ratio = pi - token_log_probs("old_logp", old_logp, counted, constant=True)
    return log_ratio if ratio == "attached" else log_ratio.detach()


def _require_compatible(kind: str, ratio: str, level: str, scope: str, aggregates: bool) -> None:
    require_choice("kind", kind, Kind)
    require_choice("ratio", ratio, Ratio)
    require_choice("level", level, Literal["token", "sequence"])
    require_choice("ratio_scope", scope, Literal["prefix", "token"])
    if kind == "k1" and ratio != "attached":
        raise ValueError(
            f"kind='k1' with ratio={ratio!r}: its expected gradient is zero on-policy, and stays "
            "zero under a fixed ratio; use ratio='attached', kind='k2', or kl_reward"
        )
    if kind == "k2" and ratio == "attached":
        raise ValueError("kind='k2' with ratio='attached' follows no KL: use 'detached', or k3")
    if level == "sequence" and aggregates:
        raise ValueError("level='sequence' is a mean over rows and takes neither agg nor norm")
    if level == "sequence" and scope == "token":
        raise ValueError(
            "level='sequence' weights a row by its whole ratio, not ratio_scope='token'"
        )
