"""How does a student learn from the whole distribution of a teacher, or from a part of it?

Token tensors are (N, T), one row a text, and logits (N, T, V) at a position are those of its own
token: shift them first (functional.sft). All divergences are in nats. Leaves out: how texts are
drawn, importance ratios for samples of an older student (rl.kl), and teachers with another
vocabulary.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import wide_dtype
from llmref._require import (
    boolean_mask,
    require_choice,
    require_constant,
    require_finite,
    require_floating,
    require_ids,
    require_in,
    require_number,
    require_positive,
    require_shapes,
)
from llmref.functional._tokens import token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.functional.softmax import log_softmax

Tail = Literal["bucket", "renormalize"]
_SUMMED = ("seq-mean-token-sum", "constant")
_ROUNDING = 1e-3  # what log-probabilities in 16 bits may add to a mass of 1


def forward_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """Temperature squared times KL(teacher || student), both at that temperature.

    Teacher (0, log 3), student (0, 0), temperature 1: log 2 + 3/4 log(3/4) + 1/4 log(1/4).
    Shapes: student_logits, teacher_logits (N, T, V), mask (N, T) -> ()
    Source: Hinton et al. 2015, arXiv:1503.02531.
    Differs: the divergence, not the cross-entropy. It is computed in float64, and for distributions
    near each other from terms that do not cancel, so a high temperature does not multiply rounding;
    16 bits give a loss in float32.
    Raises: ValueError for wrong shapes, a temperature that is not positive and finite, a teacher
    that requires grad, logits that are NaN, +inf or all -inf, or where the divergence is infinite,
    and as aggregate; TypeError for integers.
    """
    student, teacher, counted = _logits(student_logits, teacher_logits, mask, temperature)
    loss = _softened_kl(teacher, student, temperature)  # eq. eq-distillation-kd
    return _averaged(loss, counted, student_logits, agg=agg, norm=norm)


def reverse_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """Temperature squared times KL(student || teacher), both at that temperature.

    Shapes: student_logits, teacher_logits (N, T, V), mask (N, T) -> ()
    Source: Gu et al. 2023, arXiv:2306.08543, one position at a time.
    Differs: the squared temperature, as in forward_kl_loss: both have one limit for high ones.
    Raises: as forward_kl_loss.
    """
    student, teacher, counted = _logits(student_logits, teacher_logits, mask, temperature)
    loss = _softened_kl(student, teacher, temperature)  # eq. eq-distillation-reverse
    return _averaged(loss, counted, student_logits, agg=agg, norm=norm)


def generalized_jsd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    beta: float,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """Generalised Jensen-Shannon divergence: beta is the teacher's share of the mixture.

    It is finite for all distributions. For a temperature divide the logits by it, and multiply the
    loss, and with it the rounding of float64, by its square.
    Shapes: student_logits, teacher_logits (N, T, V), mask (N, T) -> ()
    Source: Agarwal et al. 2023, arXiv:2306.13649.
    Differs: beta 0 and 1 are refused. There the divergence is 0, and libraries put a KL there.
    Raises: ValueError unless 0 < beta < 1, and otherwise as forward_kl_loss.
    """
    require_in("(0, 1)", beta=beta, hint=": at the ends it is 0; take forward or reverse KL there")
    student, teacher, counted = _logits(student_logits, teacher_logits, mask, 1.0)
    q, p = log_softmax(student), log_softmax(teacher)
    mixture = beta * p.exp() + (1 - beta) * q.exp()
    # A token that neither has would give 0 * inf in the gradient of the logarithm.
    m = torch.where(mixture > 0, mixture, 1.0).log()
    loss = beta * _kl(p, m) + (1 - beta) * _kl(q, m)  # eq. eq-distillation-jsd
    return _averaged(loss, counted, student_logits, agg=agg, norm=norm)


def top_k_kl_loss(
    student_logits: Tensor,
    teacher_top_logps: Tensor,
    teacher_top_ids: Tensor,
    mask: Tensor,
    *,
    tail: Tail,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """KL(teacher || student) from the teacher's k largest log-probabilities.

    tail: "bucket" compares all other tokens as one; "renormalize" takes the teacher's distribution
    given these k, against the whole student, which learns to give nothing to all others.
    Shapes: student_logits (N, T, V), teacher_top_logps, teacher_top_ids (N, T, k), mask (N, T)
    -> ()
    Source: the chain rule of the KL divergence.
    Differs: a mass of the k tokens above 1 by rounding counts as 1, and a rest of at most 0.001 as
    0 where the student has no other token. The student's tail is a sum over its tokens, not 1 minus
    the others. There is no temperature: stored log-probabilities must be those of the softened
    teacher, whose normaliser needs all logits.
    Raises: ValueError for wrong shapes, ids that repeat or lie outside the vocabulary, a mass above
    1.001, or below 0.999 with no token left or 0 to renormalise, a teacher that requires grad,
    invalid logits, an infinite divergence, and as aggregate; TypeError for wrong dtypes.
    """
    require_choice(Tail, tail=tail)
    counted = _top_mask(student_logits, teacher_top_logps, teacher_top_ids, mask)
    ids = torch.where(counted[..., None], teacher_top_ids, 0).long()
    # Position 0 stands for all where nothing counts: a distribution of one token.
    logp = torch.where(counted[..., None], teacher_top_logps, -torch.inf).double()
    logq = log_softmax(torch.where(counted[..., None], student_logits, 0.0).double())
    rest = _rest(logp, ids, counted, student_logits.shape[-1])  # (N, T)
    listed = logq.gather(-1, ids)  # (N, T, k)
    if tail == "renormalize":
        loss = _kl(_given(logp, counted), listed)  # eq. eq-distillation-renormalized
    else:
        others = _logsumexp(logq.scatter(-1, ids, -torch.inf))  # (N, T)
        is_none = others.isneginf() & (rest <= _ROUNDING)
        tails = (torch.where(is_none, -torch.inf, rest.log()), others)
        pairs = zip((logp, listed), tails, strict=True)
        p, q = (torch.cat([top, one[..., None]], -1) for top, one in pairs)
        loss = _kl(p, q)  # eq. eq-distillation-top-k
    return _averaged(loss, counted, student_logits, agg=agg, norm=norm)


def on_policy_kl_loss(
    logp: Tensor,
    teacher_logp: Tensor,
    mask: Tensor,
    *,
    future: bool,
    agg: Aggregation,
    norm: float | None = None,
) -> Tensor:
    """Policy-gradient loss of texts drawn from the student, each token charged its log-ratio.

    With `future` a token is charged for all that follow it too. Only the gradient has a meaning.
    Shapes: logp, teacher_logp, mask (N, T) -> ()
    Source: Gu et al. 2023, arXiv:2306.08543, without its length normalisation and variance
    reduction.
    Raises: ValueError for wrong shapes, a counted log-probability that is not finite or above 1e-6,
    a teacher that requires grad, `future` with an agg that divides by lengths, and as aggregate;
    TypeError for integers.
    """
    require_choice(Aggregation, agg=agg)
    if future and agg not in _SUMMED:
        raise ValueError(
            f"future=True needs an agg of {list(_SUMMED)}, got {agg!r}: divided by the number of "
            "tokens, which the student chooses, it does not follow the divergence"
        )
    counted = token_mask(mask, logp=logp, teacher_logp=teacher_logp)
    require_constant(teacher_logp=teacher_logp)
    student, teacher = (
        _token_logps(name, x, counted)
        for name, x in (("logp", logp), ("teacher_logp", teacher_logp))
    )
    cost = (student - teacher).detach()
    if future:
        cost = cost.flip(1).cumsum(1).flip(1)
    loss = cost * student  # eq. eq-distillation-on-policy
    return aggregate(loss, counted, agg=agg, norm=norm).to(wide_dtype(logp))


def _logits(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of student and teacher in float64, and which positions count."""
    logits = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    axes = "student_logits (N, T, V), teacher_logits (N, T, V), mask (N, T)"
    require_shapes(axes, **logits, mask=mask)
    require_floating(**logits)
    require_constant(teacher_logits=teacher_logits)
    require_number(temperature=temperature)
    require_positive(temperature=temperature)
    require_in("(0, 1e150]", temperature=temperature)  # its square is a factor of the loss
    counted = boolean_mask(mask)
    # The zeros come before any arithmetic: padding may hold NaN.
    student, teacher = (torch.where(counted[..., None], x, 0.0).double() for x in logits.values())
    return student, teacher, counted


def _softened_kl(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Temperature squared times KL(p || q), the softmax of logits at that temperature.

    If r = log q - log p is small for every token, as at a high temperature, the sum of -p r is
    rounding. As p and q sum to 1, the divergence is also the sum of p (e^r - 1 - r), which are all
    positive; then r comes from the difference of the logits, and e^r - 1 - r from its series.
    """
    logp, logq = log_softmax(first / temperature), log_softmax(second / temperature)
    p = logp.exp()
    excluded = logp.isneginf() & logq.isneginf()
    gap = torch.where(excluded, 0.0, second - first) / temperature
    near = (_centred(p, gap).detach().abs() < 0.01).all(-1)
    gap = _centred(p, torch.where(near[..., None], gap, 0.0))  # no infinity reaches a gradient
    ratio = gap - (p * torch.expm1(gap)).sum(-1, keepdim=True).log1p()
    series = torch.ones_like(ratio)
    for n in range(7, 2, -1):  # (e^r - 1 - r) / r^2 = 1/2 (1 + r/3 (1 + r/4 (...)))
        series = 1 + ratio / n * series
    close = (p * (temperature * ratio) ** 2 * series / 2).sum(-1)
    return torch.where(near, close, temperature**2 * _kl(logp, logq))


def _centred(p: Tensor, x: Tensor) -> Tensor:
    return x - (p * x).sum(-1, keepdim=True)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(p || q) over the last axis; a p of 0 adds 0, also to the gradient."""
    p = logp.exp()
    return (p * torch.where(p > 0, logp - logq, 0.0)).sum(-1)


def _averaged(
    loss: Tensor, counted: Tensor, logits: Tensor, *, agg: Aggregation, norm: float | None
) -> Tensor:
    if loss.isinf().logical_and(counted).any():
        place = loss.isinf().logical_and(counted).nonzero()[0].tolist()
        raise ValueError(
            f"the divergence is infinite at the counted position {place}: its second distribution "
            "gives 0 to a token of the first"
        )
    return aggregate(loss, counted, agg=agg, norm=norm).to(wide_dtype(logits))


def _top_mask(student_logits: Tensor, logps: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Which positions count, once ids and shapes fit."""
    require_shapes(
        "mask (N, T), student_logits (N, T, V), teacher_top_logps (N, T, k), "
        "teacher_top_ids (N, T, k)",
        mask=mask,
        student_logits=student_logits,
        teacher_top_logps=logps,
        teacher_top_ids=ids,
    )
    require_floating(student_logits=student_logits, teacher_top_logps=logps)
    require_constant(teacher_top_logps=logps)
    counted = boolean_mask(mask)
    require_ids(student_logits.shape[-1], teacher_top_ids=ids[counted])
    ordered = ids[counted].long().sort(-1).values
    repeated = ordered[:, 1:][ordered.diff(dim=-1) == 0]
    if repeated.numel():
        raise ValueError(f"teacher_top_ids must differ at a position, got {repeated[0]} twice")
    require_in("[-inf, inf)", teacher_top_logps=logps[counted])
    return counted


def _rest(logp: Tensor, ids: Tensor, counted: Tensor, vocabulary: int) -> Tensor:
    """The teacher's mass of all other tokens, once that of the listed ones is possible."""
    mass = logp.exp().sum(-1)
    least = 1 - _ROUNDING if ids.shape[-1] == vocabulary else 0.0
    bad = mass[counted & ((mass > 1 + _ROUNDING) | (mass < least))]
    if bad.numel():
        raise ValueError(
            f"the mass of the teacher's {ids.shape[-1]} of {vocabulary} tokens must be "
            f"{'1' if least else 'at most 1'}, but for 0.001 of rounding, got {bad[0]:g}"
        )
    return (1 - mass).clamp(min=0)


def _given(logp: Tensor, counted: Tensor) -> Tensor:
    """The distribution of the listed tokens, given that it is one of them."""
    total = logp.logsumexp(-1, keepdim=True)
    if (counted & total[..., 0].isneginf()).any():
        raise ValueError("the teacher's tokens have the mass 0 at a counted position")
    return torch.where(counted[..., None], logp - total, -torch.inf)


def _logsumexp(x: Tensor) -> Tensor:
    """As torch's, with a gradient of 0 where all entries are -inf."""
    peak = x.detach().amax(-1, keepdim=True)
    shift = torch.where(peak.isfinite(), peak, 0.0)
    total = (x - shift).exp().sum(-1)
    empty = total == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, total).log() + shift[..., 0])


def _token_logps(name: str, logp: Tensor, counted: Tensor) -> Tensor:
    """Log-probabilities with zeros where nothing counts, in float32 at least."""
    kept = torch.where(counted, logp, 0.0)
    require_finite(" where the mask counts", **{name: kept})
    if (kept > 1e-6).any():
        raise ValueError(f"{name} holds log-probabilities, at most 0, got {kept.max().item():g}")
    return kept.to(wide_dtype(kept))
