"""Exercise on multi-head attention."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, wider
from llmref.practice.exercises._laws import without_maximum


def _layer(B: int, T: int, C: int, H: int, seed: int) -> tuple[Any, ...]:
    weights = [normal(C, C, seed=seed + i) / 2 for i in range(1, 5)]
    return normal(B, T, C, seed=seed), *weights, H


def _layers() -> list[tuple[Any, ...]]:
    one = torch.ones(1, 1, dtype=torch.float64)
    two = torch.eye(2, dtype=torch.float64)
    numbers = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    tokens = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    twice = numbers.expand(1, 2, 2).clone()
    large = torch.tensor([[[-500.0], [-499.0]]], dtype=torch.float64)
    second = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)
    sheared = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    return [
        (3 * numbers[:, 1:], one, one, one, 2 * one, 1),
        (numbers, math.log(3) * one, one, one, one, 1),
        (large, -0.125 * one, one, one, one, 1),
        (tokens[:, 1:], two, two, two, sheared, 1),
        (twice, math.log(3) * two, two, two, two, 2),
        (tokens, math.log(3) * two, two, two, two, 1),
        (tokens, math.log(3) * two, two, two, two, 2),
        (tokens, second, two, two, two, 2),
        _layer(1, 3, 4, 2, 0),
        _layer(2, 5, 6, 3, 5),
        _layer(3, 5, 8, 2, 10),
    ]


def _later(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    changed = torch.cat([x[:, :-1], x[:, -1:] + 1], 1)
    before, after = (function(it, wq, wk, wv, wo, H)[:, :-1] for it in (x, changed))
    return apart(before, after)


def _removed(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    """Whether the values of the first head reach more than its columns of the output weight."""
    kept = (torch.arange(wv.shape[0]) >= wv.shape[0] // H).double()
    without_values = function(x, wq, wk, kept[:, None] * wv, wo, H)
    return apart(without_values, function(x, wq, wk, wv, wo * kept, H))


def _alone(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    out = function(x, wq, wk, wv, wo, H)[:, 0]
    return not bool(out.isfinite().all()) or apart(out, x[:, 0] @ wv.T @ wo.T)


def _linear(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    return apart(function(x, wq, wk, wv, 2 * wo, H), 2 * function(x, wq, wk, wv, wo, H))


def _scale(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    def longer(w: Tensor) -> Tensor:
        parts = wider(w).reshape(H, -1, 4 * w.shape[-1])
        return torch.cat([parts, *[torch.zeros_like(parts)] * 3], 1).flatten(0, 1)

    wide = [longer(wq), longer(wk), longer(wv), longer(wo.T).T]
    out = function(wider(x), *wide, H)[..., : x.shape[-1]]
    return apart(out, function(x, wq / 2, wk, wv, wo, H))


def _more_heads(
    function: Function, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, H: int
) -> bool:
    wide = [wider(wider(w).T).T for w in (wq, wk, wv, wo)]
    out = function(wider(x), *wide, 4 * H)[..., : x.shape[-1]]
    return apart(out, function(x, wq, wk, wv, wo, H))


_SPLIT = "features.view(B, T, num_heads, -1).transpose(1, 2)"

MULTI_HEAD = Exercise(
    name="multi_head",
    topic="attention/multi_head",
    level=2,
    task=(
        "Causal multi-head self-attention of x (B, T, C), with weights (C, C) stored as "
        "(out, in) and no biases; each head has C / num_heads consecutive features, and "
        "scores may be large, of both signs."
    ),
    inputs=_layers,
    definition="attention-multi-head",
    laws=(
        Law("A later token changes no earlier output.", "attention-multi-head", _later),
        Law(
            "A head without values is gone, as if its columns of the output weight were 0.",
            "attention-head-sum",
            _removed,
        ),
        Law(
            "More heads of the same size, for new features that are all 0, change nothing.",
            "attention-head-sum",
            _more_heads,
        ),
        Law(
            "Heads four times as wide, with 0 for what is new, halve all scores.",
            "attention-multi-head",
            _scale,
        ),
        Law("Twice the output weight gives twice the output.", "attention-head-sum", _linear),
        Law("The first token reads itself alone.", "attention-multi-head", _alone),
    ),
    mistakes=(
        Mistake(
            "view as (H, T, D), no transpose",
            "Features of one token lie side by side, so a view that puts heads before tokens "
            "mixes tokens. View as (T, H, D), then transpose.",
            ((_SPLIT, "features.view(B, num_heads, T, -1)"),),
        ),
        Mistake(
            "views alone, no transpose in or out",
            "A view as (H, T, D) and one back as (T, C) undo each other, but in between each head "
            "reads features of other tokens. Transpose on both ways.",
            (
                (_SPLIT, "features.view(B, num_heads, T, -1)"),
                ("heads.transpose(1, 2).reshape", "heads.reshape"),
            ),
        ),
        Mistake(
            "heads joined without a transpose",
            "A reshape reads in the order of memory, where all tokens of a head stand first.",
            (("heads.transpose(1, 2).reshape", "heads.reshape"),),
        ),
        Mistake(
            "every H-th feature to one head",
            "The features of a head are consecutive: split them as (H, D), not (D, H).",
            ((_SPLIT, "features.view(B, T, -1, num_heads).permute(0, 3, 1, 2)"),),
        ),
        Mistake(
            "every H-th feature to one head, and back",
            "The features of a head are consecutive: split them as (H, D), not (D, H), and join "
            "them so.",
            (
                (_SPLIT, "features.view(B, T, -1, num_heads).permute(0, 3, 1, 2)"),
                ("heads.transpose(1, 2).reshape", "heads.permute(0, 2, 3, 1).reshape"),
            ),
        ),
        Mistake(
            "scale 1 / sqrt(C)",
            "A score is a product of vectors of one head, so the scale is that of the head.",
            (("q.shape[-1] ** 0.5", "x.shape[-1] ** 0.5"),),
        ),
        Mistake(
            "scale 1 / D",
            "The standard deviation of a score grows with the root of D, not with D.",
            (("q.shape[-1] ** 0.5", "q.shape[-1]"),),
        ),
        Mistake(
            "no scale",
            "Scores are divided by the root of the size of a head.",
            ((" / q.shape[-1] ** 0.5", ""),),
        ),
        Mistake(
            "no mask",
            "Without it a token reads those that follow, which it is trained to predict.",
            (("scores.masked_fill(future, -torch.inf)", "scores"),),
        ),
        Mistake(
            "mask inverted",
            "The mask marks the future, which is hidden; the past and the token itself stay.",
            (("masked_fill(future", "masked_fill(~future"),),
        ),
        Mistake(
            "the token hidden from itself",
            "The diagonal stays: only columns above it are later tokens.",
            ((".triu(1)", ".triu()"),),
        ),
        Mistake(
            "masked after the softmax",
            "The hidden keys took part in the sum, so what is left does not sum to 1.",
            (
                (
                    "torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)",
                    "torch.softmax(scores, dim=-1).masked_fill(future, 0.0)",
                ),
            ),
        ),
        Mistake(
            "a finite number for minus infinity",
            "Scores may be below -30 and below -10000, and then what is hidden has all the weight.",
            (("-torch.inf", "-30.0"),),
        ),
        Mistake(
            "queries and keys exchanged",
            "Row i is query i: its scores are the products of q_i with all keys.",
            (("q @ k.transpose(-2, -1)", "k @ q.transpose(-2, -1)"),),
        ),
        Mistake(
            "output weight not transposed",
            "All four weights are (out, in), so this one is transposed too.",
            (("merged @ wo.T", "merged @ wo"),),
        ),
        Mistake(
            "output weight forgotten",
            "It mixes the heads; without it they stand side by side.",
            (("merged @ wo.T", "merged"),),
        ),
        Mistake(
            "input added",
            "The residual connection belongs to the block, not to the attention.",
            (("merged @ wo.T", "merged @ wo.T + x"),),
        ),
        Mistake(
            "one head",
            "Each head has a softmax of its own over its share of the features.",
            ((_SPLIT, "features.view(B, T, 1, -1).transpose(1, 2)"),),
        ),
        Mistake(
            "mask transposed, the past hidden",
            "Row i is query i, and it reads the columns up to i.",
            ((".triu(1)", ".tril(-1)"),),
        ),
        Mistake(
            "softmax over the queries",
            "Each query shares its weight among keys, so the rows sum to 1.",
            (("dim=-1)\n", "dim=-2)\n"),),
        ),
        without_maximum(
            (
                (
                    "torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)",
                    "torch.exp(scores.masked_fill(future, -torch.inf)); "
                    "weights = weights / weights.sum(-1, keepdim=True)",
                ),
            )
        ),
    ),
    conventions=(
        Convention(
            "weights stored as (in, out)",
            "Conv1D of GPT-2 in transformers and Dense of Flax store them so. "
            "To match, multiply by the transposed weight.",
            (
                (
                    "split(x @ wq.T), split(x @ wk.T), split(x @ wv.T)",
                    "split(x @ wq), split(x @ wk), split(x @ wv)",
                ),
                ("merged @ wo.T", "merged @ wo"),
            ),
        ),
    ),
    hints=(
        "Project all heads at once, cut the features into heads, attend in each, "
        "join them, project.",
        "Cutting is a view and a transpose; joining is the same backwards.",
        "Each token reads itself and earlier tokens; the scale belongs to the size of a head.",
    ),
    branches={
        "several heads": lambda x, wq, wk, wv, wo, num_heads: num_heads > 1,
        "scores below -20000": lambda x, wq, wk, wv, wo, num_heads: bool((x < -400).any()),
        "one token": lambda x, wq, wk, wv, wo, num_heads: x.shape[1] == 1,
        "heads of several features": lambda x, wq, wk, wv, wo, num_heads: (
            1 < num_heads < x.shape[-1]
        ),
    },
)

EXERCISES = (MULTI_HEAD,)
