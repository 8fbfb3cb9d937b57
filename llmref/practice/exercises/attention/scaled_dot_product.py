"""Exercises on scaled dot-product attention and its gradients."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, table, wider
from llmref.practice.exercises._laws import without_maximum

_LOG3 = math.log(3)
_TWO_KEYS = (table([1]), table([0], [_LOG3]), table([8], [4]))  # the weights 1/4 and 3/4
_LONGER = (table([2, 0, 0, 0]), table([0, 1, 0, 0], [_LOG3, 0, 0, 0]), table([8], [4]))


def _forward() -> list[tuple[Any, ...]]:
    small = normal(2, 3), normal(4, 3, seed=1), normal(4, 2, seed=2)
    large = normal(2, 3, 4, 5, seed=3), normal(2, 3, 6, 5, seed=4), normal(2, 3, 6, 7, seed=5)
    mask = torch.ones(4, 6).tril(1) > 0
    mask[1] = False
    mask[2, :3] = False
    return [
        _TWO_KEYS,
        (table([1]), table([200], [800]), table([8], [4])),
        (table([1], [1000]), *_TWO_KEYS[1:]),
        (*_TWO_KEYS, torch.tensor([[False, True]])),
        (*_TWO_KEYS, torch.tensor([[False, False]])),
        (
            table([1]),
            table([-30000], [-30000], [-30000]),
            table([8], [4], [2]),
            torch.tensor([[True, True, False]]),
        ),
        (
            table([1]),
            table([0], [0], [60]),
            table([8], [4], [2]),
            torch.tensor([[True, True, False]]),
        ),
        _LONGER,
        small,
        (*small, torch.tensor([[True, False, True, True], [False, True, True, False]])),
        large,
        (*large, mask),
    ]


def _backward() -> list[tuple[Any, ...]]:
    return [
        (table([1]), *_TWO_KEYS),
        (table([1]), table([1]), table([800], [800]), table([8], [4])),
        (table([1]), *_LONGER),
        (
            normal(2, 5, seed=6),
            normal(2, 4, seed=7),
            normal(3, 4, seed=8),
            normal(3, 5, seed=9),
        ),
        (
            normal(2, 3, 4, 7, seed=10),
            normal(2, 3, 4, 5, seed=11),
            normal(2, 3, 6, 5, seed=12),
            normal(2, 3, 6, 7, seed=13),
        ),
    ]


def _full(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask


def _hidden(
    function: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> bool:
    mask = _full(q, k, mask)
    before = function(q, k, v, mask)
    for key in range(k.shape[-2]):
        moved = (torch.arange(k.shape[-2]) == key).double()[:, None]
        after = function(q, k + moved, v + 3 * moved, mask)
        rows = ~mask[:, key] & mask.any(-1)
        if apart(before[..., rows, :], after[..., rows, :]):
            return True
    return False


def _average(
    function: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> bool:
    mask = _full(q, k, mask)
    out = function(q, k, torch.ones_like(v), mask)[..., mask.any(-1), :]
    return apart(out, torch.ones_like(out))


def _scale(function: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> bool:
    mask = _full(q, k, mask)
    return apart(function(wider(q), wider(k), v, mask), function(q / 2, k, v, mask))


def _key_shift(
    function: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> bool:
    mask = _full(q, k, mask)
    before, after = (function(q, k + far, v, mask)[..., mask.any(-1), :] for far in (0, 2000))
    return not bool(after.isfinite().all()) or apart(before, after)


def _nothing(
    function: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> bool:
    mask = _full(q, k, mask)
    return bool((function(q, k, v, mask)[..., ~mask.any(-1), :] != 0).any())


def _keys(function: Function, grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    grad_k = function(grad, q, k, v)[1]
    return apart(grad_k.sum(-2), torch.zeros_like(grad_k[..., 0, :]))


def _values(function: Function, grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    return apart(function(grad, q, k, v)[2].sum(-2), grad.sum(-2))


def _balance(function: Function, grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    grad_q, grad_k, _ = function(grad, q, k, v)
    return apart((q * grad_q).sum((-2, -1)), (k * grad_k).sum((-2, -1)))


def _key_shift_backward(function: Function, grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    before, after = (function(grad, q, k + far, v)[2] for far in (0, 2000))
    return not bool(after.isfinite().all()) or apart(before, after)


def _scale_backward(function: Function, grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    wide = function(grad, wider(q), wider(k), v)[0][..., : q.shape[-1]]
    return apart(wide, function(grad, q / 2, k, v)[0] / 2)


_SCALE = " / q.shape[-1] ** 0.5"
_SOFTMAX = "torch.softmax(scores.masked_fill(~mask, lowest), dim=-1) * mask"
_LOWEST = (
    "torch.finfo(scores.dtype).min  # with -inf, a row without any key would be NaN",
    "-torch.inf",
)

ATTENTION = Exercise(
    name="attention",
    topic="attention/scaled_dot_product",
    level=1,
    task=(
        "Scaled dot-product attention of q (..., T, D), k (..., S, D) and v (..., S, Dv); the "
        "boolean mask (T, S) is True where a query may read a key, and a query that may read "
        "nothing gets 0; scores may be large, of both signs."
    ),
    inputs=_forward,
    definition="attention-sdpa",
    laws=(
        Law("A key that the mask hides changes nothing.", "attention-sdpa", _hidden),
        Law(
            "If all values are 1, each query that may read something gets 1.",
            "attention-convex-hull",
            _average,
        ),
        Law(
            "Four times as many features, the new ones 0, halve all scores.",
            "attention-sdpa",
            _scale,
        ),
        Law("A query that may read nothing gets 0.", "attention-sdpa", _nothing),
        Law(
            "A vector added to every key changes nothing, however large it is.",
            "attention-key-shift",
            _key_shift,
        ),
    ),
    mistakes=(
        Mistake(
            "no scale",
            "A dot product grows with the root of the number of features; "
            "scores are divided by it.",
            ((_SCALE, ""),),
        ),
        Mistake(
            "scale 1 / D",
            "The standard deviation of a dot product grows with the root of D, not with D.",
            (("q.shape[-1] ** 0.5", "q.shape[-1]"),),
        ),
        Mistake(
            "softmax over the queries",
            "Each query shares its weight among keys, so the rows sum to 1, not the columns.",
            (("dim=-1", "dim=-2"),),
        ),
        Mistake(
            "masked scores set to 0",
            "A score of 0 still has the weight of exp(0) = 1; hidden needs minus infinity.",
            ((_SOFTMAX, "torch.softmax(scores * mask, dim=-1)"),),
        ),
        Mistake(
            "masked after the softmax",
            "The hidden keys took part in the sum, so what is left does not sum to 1.",
            (("scores.masked_fill(~mask, lowest)", "scores"),),
        ),
        Mistake(
            "mask added as 0 and 1",
            "A mask that is added must hold 0 and minus infinity; True is a 1.",
            ((_SOFTMAX, "torch.softmax(scores + mask, dim=-1)"),),
        ),
        Mistake(
            "an empty row reads the mean of all values",
            "Where all scores are the lowest number they are equal, and so are the weights.",
            (("lowest), dim=-1) * mask", "lowest), dim=-1)"),),
        ),
        Mistake(
            "-inf, empty row NaN",
            "A row of minus infinities alone has no largest entry to subtract.",
            (_LOWEST,),
        ),
        Mistake(
            "30 subtracted from hidden scores",
            "A hidden score may be 60 above those that are read; minus infinity hides any.",
            (
                (
                    _SOFTMAX,
                    "torch.softmax(scores - 30.0 * ~mask, dim=-1) * mask.any(-1, keepdim=True)",
                ),
            ),
        ),
        Mistake(
            "a small number added to the sum of weights",
            "If a hidden score is far above those that are read, and the maximum is taken of all, "
            "the sum is the smaller of the two. Hide first: then no sum is below 1.",
            (
                (
                    _SOFTMAX,
                    "torch.exp(scores - scores.amax(-1, keepdim=True)) * mask; "
                    "weights = weights / (weights.sum(-1, keepdim=True) + 1e-9)",
                ),
            ),
        ),
        without_maximum(
            (
                (
                    _SOFTMAX,
                    "torch.exp(scores) * mask; "
                    "total = weights.sum(-1, keepdim=True); "
                    "weights = weights / total.masked_fill(~mask.any(-1, keepdim=True), 1.0)",
                ),
            )
        ),
        Mistake(
            "a finite number for minus infinity",
            "Scores may be below -30 and below -10000, and then what is hidden has all the weight.",
            (("torch.finfo(scores.dtype).min", "-30.0"),),
        ),
    ),
    conventions=(
        Convention(
            "True for blocked",
            "nn.MultiheadAttention takes boolean masks so. To match, invert the mask.",
            (
                ("torch.ones(", "torch.zeros("),
                (_SOFTMAX, "torch.softmax(scores.masked_fill(mask, lowest), dim=-1) * ~mask"),
            ),
        ),
    ),
    hints=(
        "Three steps: a score for each query and key, weights for each query, an average.",
        "The weights of a query sum to 1 over the keys, so hide keys before the softmax.",
        "What is a softmax of a row in which everything is hidden, and what should it read?",
    ),
    branches={
        "a mask": lambda q, k, v, mask=None: mask is not None,
        "a query that may read nothing": lambda q, k, v, mask=None: (
            mask is not None and not bool(mask.any(-1).all())
        ),
        "a row hidden in part": lambda q, k, v, mask=None: (
            mask is not None and bool((mask.any(-1) & ~mask.all(-1)).any())
        ),
        "scores that overflow": lambda q, k, v, mask=None: bool((k > 710).any()),
        "a hidden score far above those read": lambda q, k, v, mask=None: (
            mask is not None and bool((k == 60).any())
        ),
        "scores below -20000": lambda q, k, v, mask=None: bool((k < -20000).any()),
        "more keys than queries": lambda q, k, v, mask=None: k.shape[-2] > q.shape[-2] > 1,
        "several heads": lambda q, k, v, mask=None: q.ndim == 4,
    },
)

ATTENTION_BACKWARD = Exercise(
    name="attention_backward",
    topic="attention/scaled_dot_product",
    level=3,
    task=(
        "Return the gradients of attention without a mask with respect to q (..., T, D), "
        "k (..., S, D) and v (..., S, Dv), given that of its output; scores may be large."
    ),
    inputs=_backward,
    definition="attention-backward",
    laws=(
        Law(
            "The gradients of all values sum to those of all outputs.",
            "attention-backward",
            _values,
        ),
        Law(
            "The gradients of all keys sum to 0: a vector added to every key is invisible.",
            "attention-key-shift",
            _keys,
        ),
        Law(
            "A vector added to every key changes no gradient of a value, however large it is.",
            "attention-key-shift",
            _key_shift_backward,
        ),
        Law(
            "The queries times their gradients sum to the keys times theirs.",
            "attention-scale-gradient",
            _balance,
        ),
        Law(
            "Four times as many features, the new ones 0, halve all scores.",
            "attention-backward",
            _scale_backward,
        ),
    ),
    mistakes=(
        Mistake(
            "delta dropped",
            "Weights of a query sum to 1: a weight can only grow if others shrink.",
            (("(grad_weights - delta)", "grad_weights"),),
        ),
        Mistake(
            "delta as a plain mean over the keys",
            "The mean is taken with the attention weights.",
            (("(grad * (weights @ v)).sum(-1, ", "grad_weights.mean(-1, "),),
        ),
        Mistake(
            "delta over the queries",
            "There is one number for each query, a sum over its keys.",
            (
                (
                    "(grad * (weights @ v)).sum(-1, ",
                    "(weights * grad_weights).sum(-2, ",
                ),
            ),
        ),
        Mistake(
            "a (1 - a) for the softmax",
            "That is its diagonal alone: the weight of a key depends on the scores of the others.",
            (("weights * (grad_weights - delta)", "weights * (1 - weights) * grad_weights"),),
        ),
        Mistake(
            "no scale",
            "Scores are divided by the root of the number of features, and their gradients too.",
            (("q.shape[-1] ** -0.5", "1.0"),),
        ),
        Mistake(
            "scale missing from dQ and dK",
            "The scores are the scaled products, so the scale stays in both gradients.",
            (
                ("scale * grad_scores @ k", "grad_scores @ k"),
                ("scale * grad_scores.transpose", "grad_scores.transpose"),
            ),
        ),
        Mistake(
            "scale missing from dQ",
            "The scores are the scaled products, so the scale stays in the gradient.",
            (("scale * grad_scores @ k", "grad_scores @ k"),),
        ),
        Mistake(
            "scale missing from dK",
            "The scores are the scaled products, so the scale stays in the gradient.",
            (("scale * grad_scores.transpose", "grad_scores.transpose"),),
        ),
        Mistake(
            "scale applied twice",
            "It enters once, between the scores and the products of queries and keys.",
            (("grad_scores = weights", "grad_scores = scale * weights"),),
        ),
        Mistake(
            "softmax over the queries",
            "Each query shares its weight among keys, so the rows sum to 1.",
            (("dim=-1", "dim=-2"),),
        ),
        Mistake(
            "dK before dQ",
            "Gradients come in the order of the arguments: q, k, v.",
            (("return grad_q, grad_k", "return grad_k, grad_q"),),
        ),
        Mistake(
            "dV first",
            "Backwards the values come first, but gradients are returned in the order q, k, v.",
            (("return grad_q, grad_k, grad_v", "return grad_v, grad_k, grad_q"),),
        ),
        without_maximum(
            (
                (
                    "torch.softmax(scale * q @ k.transpose(-2, -1), dim=-1)",
                    "torch.exp(scale * q @ k.transpose(-2, -1)); "
                    "weights = weights / weights.sum(-1, keepdim=True)",
                ),
            )
        ),
    ),
    hints=(
        "Compute the weights again, and go back through the three steps one by one.",
        "Through the softmax: a weight times what is left of its gradient "
        "after a number for each query is subtracted.",
        "That number is the product of the output of the query with its gradient.",
    ),
    branches={
        "more keys than queries": lambda grad, q, k, v: k.shape[-2] > q.shape[-2] > 1,
        "several heads": lambda grad, q, k, v: q.ndim == 4,
        "a scale that is not 1": lambda grad, q, k, v: q.shape[-1] > 1,
        "scores that overflow": lambda grad, q, k, v: bool((k > 710).any()),
    },
)

EXERCISES = (
    ATTENTION,
    ATTENTION_BACKWARD,
)
