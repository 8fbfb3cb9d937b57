"""Exercise on grouped-query attention."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import heads, normal, number, wider
from llmref.practice.exercises._laws import without_maximum


def _random(B: int, H: int, G: int, T: int, S: int, D: int, Dv: int, seed: int) -> tuple[Any, ...]:
    return (
        normal(B, H, T, D, seed=seed),
        normal(B, G, S, D, seed=seed + 1),
        normal(B, G, S, Dv, seed=seed + 2),
    )


def _inputs() -> list[tuple[Any, ...]]:
    def one_key(H: int, G: int) -> tuple[Any, ...]:
        values = number(*range(1, G + 1)).reshape(1, G, 1, 1)
        return torch.ones(1, H, 1, 1, dtype=torch.float64), torch.ones_like(values), values

    return [
        (heads(0, 1).transpose(1, 2), heads(0, math.log(3)), heads(8, 4)),
        (heads(1, 1).transpose(1, 2), heads(200, 800), heads(8, 4)),
        (heads(1, 1000).transpose(1, 2), heads(0, math.log(3)), heads(8, 4)),
        one_key(4, 2),
        one_key(6, 2),
        (
            number(2, 0, 0, 0).reshape(1, 1, 1, 4),
            number(0, 1, 0, 0, math.log(3), 0, 0, 0).reshape(1, 1, 2, 4),
            heads(8, 4),
        ),
        _random(1, 6, 3, 1, 2, 4, 4, 0),
        _random(2, 4, 1, 3, 5, 3, 2, 3),
        _random(2, 4, 4, 3, 5, 3, 2, 6),
        _random(2, 6, 3, 4, 5, 8, 7, 9),
    ]


def _shared(function: Function, q: Tensor, k: Tensor, v: Tensor) -> bool:
    r = q.shape[1] // k.shape[1]
    before = function(q, k, v)
    for g in range(k.shape[1]):
        moved = v.clone()
        moved[:, g] += 1
        after = function(q, k, moved)
        others = [h for h in range(q.shape[1]) if h // r != g]
        if apart(before[:, others], after[:, others]):
            return True
    return False


def _copied(function: Function, q: Tensor, k: Tensor, v: Tensor) -> bool:
    r = q.shape[1] // k.shape[1]
    return apart(
        function(q, k, v), function(q, k.repeat_interleave(r, 1), v.repeat_interleave(r, 1))
    )


def _average(function: Function, q: Tensor, k: Tensor, v: Tensor) -> bool:
    out = function(q, k, torch.ones_like(v))
    return bool(out.isnan().any()) or apart(out, torch.ones_like(out))


def _scale(function: Function, q: Tensor, k: Tensor, v: Tensor) -> bool:
    return apart(function(wider(q), wider(k), v), function(q / 2, k, v))


_HEADS = "k[:, :, None], v[:, :, None]"

GROUPED_QUERY = Exercise(
    name="grouped_query",
    topic="attention/grouped_query",
    level=2,
    task=(
        "Attention of q (B, H, T, D) to k (B, G, S, D) and v (B, G, S, Dv), where each H / G "
        "neighbouring query heads share a key/value head; no mask, and scores may be large."
    ),
    inputs=_inputs,
    definition="attention-gqa",
    laws=(
        Law(
            "The values of a key/value head reach its own neighbouring query heads only.",
            "attention-gqa",
            _shared,
        ),
        Law(
            "If each key/value head is copied for its query heads, the output stays.",
            "attention-gqa-repeat",
            _copied,
        ),
        Law("If all values are 1, so are all outputs.", "attention-gqa", _average),
        Law(
            "Four times as many features, the new ones 0, halve all scores.",
            "attention-gqa",
            _scale,
        ),
    ),
    mistakes=(
        Mistake(
            "heads tiled: h mod G",
            "repeat puts copies of the whole block side by side; neighbours that share a head "
            "need repeat_interleave.",
            (
                ("q.reshape(B, G, H // G, T, D)", "q.reshape(B, H // G, G, T, D)"),
                (_HEADS, "k[:, None], v[:, None]"),
            ),
        ),
        Mistake(
            "values tiled, keys not",
            "Keys and values of a query head come from the same key/value head.",
            (
                (
                    _HEADS,
                    "k[:, :, None], v.repeat(1, H // G, 1, 1).reshape(B, G, H // G, *v.shape[2:])",
                ),
            ),
        ),
        Mistake(
            "floor(h / G) for floor(h / r)",
            "A group has H / G query heads; G is the number of groups.",
            (
                (
                    _HEADS,
                    "(it[:, torch.arange(H) // G % G]"
                    ".reshape(B, G, H // G, *it.shape[2:]) for it in (k, v))",
                ),
            ),
        ),
        Mistake(
            "one head for all",
            "That is multi-query attention, the case of one key/value head.",
            ((_HEADS, "k[:, :1, None], v[:, :1, None]"),),
        ),
        Mistake(
            "the mean of the heads",
            "Heads are pooled when a model is converted, once; attention reads them apart.",
            (
                (
                    _HEADS,
                    "k.mean(1, keepdim=True)[:, :, None], v.mean(1, keepdim=True)[:, :, None]",
                ),
            ),
        ),
        Mistake(
            "no scale",
            "Scores are divided by the root of the size of a head.",
            ((" / D**0.5", ""),),
        ),
        Mistake(
            "softmax over the queries",
            "Each query shares its weight among keys, so the rows sum to 1.",
            (("dim=-1", "dim=-2"),),
        ),
        without_maximum(
            (
                (
                    "torch.softmax(scores, dim=-1)",
                    "scores.exp() / scores.exp().sum(-1, keepdim=True)",
                ),
            )
        ),
    ),
    hints=(
        "Query heads 0 to H / G - 1 read key/value head 0, the next ones head 1.",
        "Copy each key/value head beside itself, or give the queries one axis more.",
        "The rest is plain attention.",
    ),
    branches={
        "as many heads as queries have": lambda q, k, v: k.shape[1] == q.shape[1],
        "scores that overflow": lambda q, k, v: bool((k > 710).any()),
        "one head for all": lambda q, k, v: k.shape[1] == 1,
        "groups between the two": lambda q, k, v: 1 < k.shape[1] < q.shape[1],
        "more heads in a group than groups": lambda q, k, v: (
            q.shape[1] // k.shape[1] > k.shape[1] > 1
        ),
    },
)

EXERCISES = (GROUPED_QUERY,)
