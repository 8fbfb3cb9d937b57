"""How is a softmax over many keys put together from blocks of keys?

A state is a summary of the keys seen so far, of fixed size; two of them merge. Leaves out: where
the scores come from, and tiles of queries (see flash).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_floating,
    require_in,
    require_one_dtype,
    require_shapes,
    require_size,
)
from llmref.attention.online_softmax._sums import (
    reference_point,
    require_resolved,
    require_sums,
)


class SoftmaxState(NamedTuple):
    """Summary of a set of keys: its largest score, and two sums relative to it.

    Shapes: m (...), l (...), o (..., Dv), in float32 at least. o is not normalised.
    """

    m: Tensor
    l: Tensor  # noqa: E741
    o: Tensor


def empty_state(
    shape: tuple[int, ...],
    value_dim: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> SoftmaxState:
    """The state of no keys, which changes nothing in a merge: (-inf, 0, 0).

    Shapes: -> m and l of the shape, o (*shape, Dv)
    Source: Milakov & Gimelshein 2018, arXiv:1805.02867, where m starts at minus infinity.
    Raises: ValueError if value_dim is negative; TypeError unless that is an int and dtype floating
    point.
    """
    require_size(0, value_dim=value_dim)
    for size in shape:
        require_size(0, shape=size)
    l = widen(torch.zeros(shape, dtype=dtype, device=device), "dtype")  # noqa: E741
    return SoftmaxState(torch.full_like(l, -math.inf), l, l.new_zeros((*shape, value_dim)))


def block_state(scores: Tensor, value: Tensor) -> SoftmaxState:
    """The state of one block of keys; a score -inf is a masked key.

    scores (0, log 3), values (8, 4): m = log 3, l = 1/3 + 1, o = 8/3 + 4.
    Shapes: scores (..., n), value (n, Dv) or (..., n, Dv) with leading axes that broadcast to those
    of the scores -> m (...), l (...), o (..., Dv)
    Source: Rabe & Staats 2021, arXiv:2112.05682.
    Raises: TypeError unless both are floating point; ValueError if a score is +inf or NaN, the
    values do not fit, or a sum of finite values overflows.
    """
    wide, values = widen(scores, "scores"), widen(value, "value")
    require_one_dtype(scores=wide, value=values)
    _require_values(wide, values)
    if scores.shape[-1] == 0:
        return empty_state(scores.shape[:-1], value.shape[-1], dtype=wide.dtype, device=wide.device)
    m = wide.detach().amax(-1)  # the merged results do not depend on the reference point
    if not (m < math.inf).all():
        raise ValueError("a score is +inf or NaN: the weights of its row do not exist")
    weights = (wide - reference_point(m).unsqueeze(-1)).exp()  # (..., n), at most 1
    o = torch.einsum("...n,...nd->...d", weights, values)
    require_sums(o, values)
    return SoftmaxState(m, weights.sum(-1), o)  # eq. eq-online-state


def merge_states(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """The state of the union of two disjoint sets of keys.

    (0, 1, o_a) and (log 2, 1, o_b) give (log 2, 1/2 + 1, o_a / 2 + o_b).
    Shapes: two states of the same shapes -> a state of these shapes
    Source: Milakov & Gimelshein 2018, arXiv:1805.02867, section 3.1, for m and l.
    Raises: ValueError if the shapes differ, m is not finite where a state is not empty, or a sum of
    finite values overflows.
    """
    _check_state(a)
    _check_state(b)
    if [x.shape for x in a] != [x.shape for x in b]:
        raise ValueError(f"states must have the same shapes, got {_shapes(a)} and {_shapes(b)}")
    m = torch.maximum(a.m, b.m)
    shift = reference_point(m)
    keep_a, keep_b = (a.m - shift).exp(), (b.m - shift).exp()  # at most 1; 0 for an empty state
    o = keep_a.unsqueeze(-1) * a.o + keep_b.unsqueeze(-1) * b.o
    require_sums(o, a.o, b.o)
    return SoftmaxState(m, keep_a * a.l + keep_b * b.l, o)  # eq. eq-online-merge


def finalize_state(state: SoftmaxState) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a state; of no keys, 0 and -inf.

    Shapes: m (...), l (...), o (..., Dv) -> (..., Dv), (...)
    Source: Dao 2023, arXiv:2307.08691, section 3.1: the division comes last.
    Raises: ValueError if m is not finite where the state is not empty.
    """
    _check_state(state)
    # Filled before log and division: 1 / 0 in their gradients would be NaN for empty states.
    total = state.l.masked_fill(state.l == 0, 1)
    return state.o / total.unsqueeze(-1), state.m + total.log()  # eq. eq-online-exact


def merge_outputs(o1: Tensor, lse1: Tensor, o2: Tensor, lse2: Tensor) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp over two disjoint sets of keys, from those of each.

    lse 0 and log 3: weights 1/4 and 3/4, lse log 4. Both empty (lse -inf): 0 and -inf.
    Shapes: outputs (..., Dv), lse (...) in nats -> (..., Dv), (...)
    Source: Rabe & Staats 2021, arXiv:2112.05682, for states; here each is divided by its sum.
    Raises: TypeError unless all are floating point; ValueError if the shapes do not fit, an lse is
    +inf or NaN (some kernels mark an empty row by +inf or by 0: make it -inf first), or so large
    that its rounding changes weights by more than 0.1 %.
    """
    outputs = widen(o1, "o1"), widen(o2, "o2")
    first, second = widen(lse1, "lse1"), widen(lse2, "lse2")
    axes = "o1 (..., Dv), lse1 (...), o2 (..., Dv), lse2 (...)"
    require_shapes(axes, o1=o1, lse1=lse1, o2=o2, lse2=lse2)
    require_in("[-inf, inf)", lse1=first, lse2=second)
    require_resolved("subtract one number from the scores of a row", lse1=lse1, lse2=lse2)
    nothing = (first == -math.inf) & (second == -math.inf)
    difference = (first - second).masked_fill(nothing, 0)  # -inf - -inf would be NaN
    share = difference.sigmoid().unsqueeze(-1)
    out = share * outputs[0] + (-difference).sigmoid().unsqueeze(-1) * outputs[1]
    lse = torch.logaddexp(first.masked_fill(nothing, 0), second.masked_fill(nothing, 0))
    out = out.masked_fill(nothing.unsqueeze(-1), 0)  # eq. eq-lse-merge
    return out.to(o1.dtype), lse.masked_fill(nothing, -math.inf).to(lse1.dtype)


def online_logsumexp(x: Tensor) -> Tensor:
    """Log-sum-exp over the last axis in one pass, one score at a time.

    Shapes: x (..., n) -> (...)
    Source: Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3.
    Raises: TypeError unless x is floating point; ValueError if x has no axis or holds +inf or NaN.
    """
    wide = widen(x)
    require_shapes("x (..., n)", x=x)
    require_in("[-inf, inf)", x=wide)
    m = wide.new_full(wide.shape[:-1], -math.inf)
    l = torch.zeros_like(m)  # noqa: E741
    for score in wide.unbind(-1):
        larger = torch.maximum(m, score.detach())
        shift = reference_point(larger)
        l = l * (m - shift).exp() + (score - shift).exp()  # noqa: E741  # eq. eq-online-recurrence
        m = larger
    return (m + l.masked_fill(l == 0, 1).log()).to(x.dtype)


def _require_values(scores: Tensor, values: Tensor) -> None:
    if not _fits(scores, values):
        raise ValueError(
            "there must be one value (Dv,) for each score, "
            f"got scores {tuple(scores.shape)} and values {tuple(values.shape)}"
        )


def _fits(scores: Tensor, values: Tensor) -> bool:
    if scores.ndim < 1 or values.ndim < 2 or values.shape[-2] != scores.shape[-1]:
        return False
    lead, given = scores.shape[:-1], values.shape[:-2]
    if len(given) > len(lead):
        return False
    return all(n in (1, m) for n, m in zip(reversed(given), reversed(lead), strict=False))


def _shapes(state: SoftmaxState) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in state]


def _check_state(state: SoftmaxState) -> None:
    require_floating(m=state.m, l=state.l, o=state.o)
    if state.m.shape != state.l.shape or state.o.shape[:-1] != state.l.shape:
        raise ValueError(f"a state is m (...), l (...), o (..., Dv), got {_shapes(state)}")
    require_in("[0, inf]", l=state.l)
    if not (state.m.isfinite() | ((state.m == -math.inf) & (state.l == 0))).all():
        raise ValueError("a state has a finite m, or it is empty: (-inf, 0, 0)")
