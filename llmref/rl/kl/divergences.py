"""How far is one distribution from another, exactly and from single samples?

Leaves out: what a policy pays for it (see penalties).
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_broadcastable,
    require_choice,
    require_dim,
    require_finite,
    require_floating,
    require_in,
    require_positive,
    require_shapes,
)

Kind = Literal["k1", "k2", "k3"]

_SERIES_BELOW = 0.3
_SERIES_TERMS = 14  # 0.3^13 / 15! is below float64's unit roundoff


def kl_categorical(logits_p: Tensor, logits_q: Tensor, *, dim: int = -1) -> Tensor:
    """KL(p||q) of two categorical distributions, summed over their outcomes, in nats.

    It is never negative, also where the two are equal but for rounding.

    Shapes: logits_p (..., V), logits_q (..., V) -> (...), V on axis `dim`
    Source: Kullback & Leibler 1951.
    Differs: an outcome that only p has gives inf (and no useful gradient), one that only q has 0.
    Raises: ValueError if the shapes differ, dim is no axis, no outcome is there, or the logits
    are NaN, +inf or all -inf; TypeError for integers.
    """
    require_shapes("logits_p (...), logits_q (...)", logits_p=logits_p, logits_q=logits_q)
    logp, logq = (_log_probs(name, x, dim) for name, x in (("p", logits_p), ("q", logits_q)))
    missing_in_p, missing_in_q = logp.isneginf(), logq.isneginf()
    # The difference is masked first: -inf - (-inf) is NaN, and so would its gradient be.
    log_ratio = torch.where(missing_in_p | missing_in_q, 0.0, logq - logp)
    # p log(p/q) has both signs, and rounding would decide what is left of a small divergence;
    # p k3 differs from it by q - p, whose sum is 0, and has one sign.
    p, q, is_far = logp.exp(), logq.exp(), log_ratio > 1  # far: no q / p that may overflow
    near = p * expm1_minus_x(torch.where(is_far, 0.0, log_ratio))
    terms = torch.where(is_far, q - p * (1 + log_ratio), near)
    terms = torch.where(missing_in_p, q, terms)
    terms = torch.where(missing_in_q & ~missing_in_p, torch.inf, terms)
    return terms.sum(dim=dim).to(torch.result_type(logits_p, logits_q))  # eq. eq-kl-definition


def kl_gaussian(mu_p: Tensor, std_p: Tensor, mu_q: Tensor, std_q: Tensor) -> Tensor:
    """KL(p||q) of two normal distributions on the line, elementwise, in nats.

    Shapes: (...) x 4 -> (...), broadcast together
    Source: Kullback & Leibler 1951.
    Raises: ValueError unless the means are finite and the standard deviations finite and positive;
    TypeError for integers.
    """
    require_floating(mu_p=mu_p, std_p=std_p, mu_q=mu_q, std_q=std_q)
    require_finite(mu_p=mu_p, mu_q=mu_q)
    require_positive(std_p=std_p, std_q=std_q)
    require_broadcastable(mu_p=mu_p, std_p=std_p, mu_q=mu_q, std_q=std_q)
    dtype = torch.promote_types(mu_p.dtype, mu_q.dtype)
    mu_p, std_p, mu_q, std_q = (widen(x) for x in (mu_p, std_p, mu_q, std_q))
    # The widths alone cost a k3 of their log variance ratio: no cancellation, never negative.
    widths = expm1_minus_x(2 * _log_ratio(std_p, std_q))
    return ((widths + ((mu_p - mu_q) / std_q).square()) / 2).to(dtype)  # eq. eq-kl-gaussian


def expm1_minus_x(x: Tensor) -> Tensor:
    """Return exp(x) - 1 - x with full relative precision, also where it is far below 1.

    Shapes: (...) -> (...)
    Differs: exp(x) - 1 - x loses all digits for |x| below the root of the unit roundoff, and
    expm1(x) - x loses half of them; here small x take the series.
    Raises: TypeError for integers.
    """
    wide = widen(x)
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
    require_choice(Kind, kind=kind)
    require_shapes("logp (...), logq (...)", logp=logp, logq=logq)
    _require_samples(logp, logq)
    k1 = widen(logp, "logp") - widen(logq, "logq")
    if kind == "k1":
        estimate = k1
    elif kind == "k2":
        estimate = k1.square() / 2
    else:
        estimate = expm1_minus_x(-k1)
    return estimate.to(torch.result_type(logp, logq))  # eq. eq-kl-estimators


def _log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """Return log(x/y) with full relative precision: near-equal numbers have an exact difference."""
    is_near = (x < 2 * y) & (y < 2 * x)
    near = torch.where(is_near, (x - y) / y, 0.0)
    return torch.where(is_near, near.log1p(), x.log() - y.log())


def _log_probs(name: str, logits: Tensor, dim: int) -> Tensor:
    """Normalise logits, in float32 at least, once they define a distribution."""
    require_floating(**{f"logits_{name}": logits})
    require_dim(dim, **{f"logits_{name}": logits})
    if logits.shape[dim] == 0:
        raise ValueError(f"a distribution needs an outcome: logits_{name} {tuple(logits.shape)}")
    top = logits.amax(dim=dim)  # NaN wherever one is
    if not top.isfinite().all():
        raise ValueError(f"logits_{name} must not be NaN, +inf or all -inf, got {top.min().item()}")
    return widen(logits, f"logits_{name}").log_softmax(dim=dim)


def _require_samples(logp: Tensor, logq: Tensor) -> None:
    require_floating(logp=logp, logq=logq)
    require_finite(", as the samples come from p", logp=logp)
    require_in("[-inf, inf)", logq=logq)
