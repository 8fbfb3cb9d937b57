"""Exercises on low-rank adapters."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table


def _weights() -> list[tuple[Any, ...]]:
    return [
        (table([2]), table([3]), table([5]), 2.0),
        (table([1]), table([1], [0], [2], [1]), table([1, 5, 2, 0]), 8.0),
        (table([1, 2], [3, 4]), table([1, 1], [0, 2]), table([1, 0], [2, 1]), 4.0),
        (normal(6, 6), normal(2, 6, seed=1), normal(6, 2, seed=2), 0.5),
        (normal(7, 5, seed=3), normal(3, 5, seed=4), normal(7, 3, seed=5), 6.5),
    ]


def _layers() -> list[tuple[Any, ...]]:
    inputs = number(1), number(1), number(1, 2), normal(4, 6, seed=6), normal(2, 3, 5, seed=7)
    return [(x, *weights) for x, weights in zip(inputs, _weights(), strict=True)]


def _fresh(function: Function, x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(x, w, a, 0 * b, alpha), x @ w.T)


def _linear(function: Function, x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(2 * x, w, a, b, alpha), 2 * function(x, w, a, b, alpha))


def _strength(function: Function, x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(x, w, a, b, 3 * alpha), function(x, w, a, 3 * b, alpha))


def _rank(function: Function, x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    """Twice the rank, what is new being 0, with twice alpha."""
    longer = torch.cat([a, 0 * a]), torch.cat([b, 0 * b], 1)
    return apart(function(x, w, *longer, 2 * alpha), function(x, w, a, b, alpha))


def _merge_fresh(function: Function, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(w, a, 0 * b, alpha), w)


def _merge_strength(function: Function, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(w, a, b, 3 * alpha), function(w, a, 3 * b, alpha))


def _merge_rank(function: Function, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    longer = torch.cat([a, 0 * a]), torch.cat([b, 0 * b], 1)
    return apart(function(w, *longer, 2 * alpha), function(w, a, b, alpha))


def _merge_undone(function: Function, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> bool:
    return apart(function(function(w, a, b, alpha), a, -b, alpha), w)


_BASE, _UPDATE = "x @ w.T", "scale * low @ b.T"
_INPUTS = Mistake(
    "divided by the inputs",
    "The rank is the number of rows of a; its columns are the inputs.",
    (("alpha / a.shape[0]", "alpha / a.shape[1]"),),
)
_TWICE = Mistake(
    "scaled twice",
    "The scale multiplies the product of the factors once, not each of them.",
    (("alpha / a.shape[0]", "(alpha / a.shape[0]) ** 2"),),
)
_CONVENTIONS = (
    Convention(
        "alpha as the scale itself",
        "mlx-lm takes the scale so, without the rank. To match, divide alpha by the rank.",
        (("alpha / a.shape[0]", "alpha"),),
    ),
    Convention(
        "alpha over the root of the rank: rsLoRA",
        "use_rslora of peft does so. To match, divide alpha by the rank.",
        (("alpha / a.shape[0]", "alpha / a.shape[0] ** 0.5"),),
    ),
)

LORA = Exercise(
    name="lora",
    topic="components/lora",
    level=1,
    task=(
        "A linear layer of x (..., in) with weight w (out, in) and a low-rank adapter with "
        "factors a (r, in) and b (out, r), scaled by alpha / r; no bias."
    ),
    inputs=_layers,
    definition="lora-definition",
    laws=(
        Law("With b = 0 it is the layer without an adapter.", "lora-identity-at-init", _fresh),
        Law(
            "Twice the input gives twice the output: the adapter is linear too.",
            "lora-merge-exact",
            _linear,
        ),
        Law("Three times alpha is as three times b.", "lora-definition", _strength),
        Law(
            "Twice the rank, with 0 for what is new, and twice alpha change nothing.",
            "lora-definition",
            _rank,
        ),
    ),
    mistakes=(
        Mistake(
            "scale forgotten",
            "The product of the factors is multiplied by alpha / r.",
            ((_UPDATE, "low @ b.T"),),
        ),
        _TWICE,
        _INPUTS,
        Mistake(
            "base scaled too",
            "The scale belongs to the adapter; the layer itself stays as it is.",
            ((f"{_BASE} + {_UPDATE}", f"scale * ({_BASE} + low @ b.T)"),),
        ),
        Mistake(
            "base layer forgotten",
            "The adapter is added to the output of the layer.",
            ((f"{_BASE} + {_UPDATE}", _UPDATE),),
        ),
        Mistake(
            "adapter multiplied, not added",
            "The adapter stands beside the layer, and the two outputs are added.",
            ((f"{_BASE} + {_UPDATE}", f"{_BASE} * (1 + {_UPDATE})"),),
        ),
        Mistake(
            "update subtracted",
            "Training finds the sign; the adapter is added.",
            ((f"{_BASE} + scale", f"{_BASE} - scale"),),
        ),
    ),
    conventions=_CONVENTIONS,
    hints=(
        "Two paths from the same input: the layer, and the adapter beside it.",
        "The input goes through a first, which has few rows, and then through b.",
        "The rank is the number of rows of a.",
    ),
    branches={
        "a rank above 1": lambda x, w, a, b, alpha: a.shape[0] > 1,
        "one token": lambda x, w, a, b, alpha: x.ndim == 1,
        "alpha below the rank": lambda x, w, a, b, alpha: alpha < a.shape[0],
        "more outputs than inputs": lambda x, w, a, b, alpha: w.shape[0] > w.shape[1],
    },
)

LORA_MERGE = Exercise(
    name="lora_merge",
    topic="components/lora",
    level=1,
    task=(
        "The weight (out, in) of a layer whose adapter, with factors a (r, in) and b (out, r) "
        "and the scale alpha / r, is merged in."
    ),
    inputs=_weights,
    definition="lora-merge-exact",
    laws=(
        Law("With b = 0 the weight stays as it is.", "lora-identity-at-init", _merge_fresh),
        Law("Three times alpha is as three times b.", "lora-definition", _merge_strength),
        Law(
            "Twice the rank, with 0 for what is new, and twice alpha change nothing.",
            "lora-definition",
            _merge_rank,
        ),
        Law("Merging -b afterwards restores the weight.", "lora-merge-exact", _merge_undone),
    ),
    mistakes=(
        Mistake(
            "scale forgotten",
            "The layer multiplies the product of the factors by alpha / r, so the merge must.",
            (("w + scale * b @ a", "w + b @ a"),),
        ),
        _TWICE,
        _INPUTS,
        Mistake(
            "weight scaled too",
            "The scale belongs to the update; the weight itself stays as it is.",
            (("w + scale * b @ a", "scale * (w + b @ a)"),),
        ),
        Mistake(
            "update alone",
            "The update is added to the weight.",
            (("w + scale * b @ a", "scale * b @ a"),),
        ),
        Mistake(
            "update subtracted",
            "Subtracting is unmerging.",
            (("w + scale", "w - scale"),),
        ),
    ),
    conventions=_CONVENTIONS,
    hints=(
        "The merged weight has to give what layer and adapter give together.",
        "Which order of the two factors has the shape of the weight?",
        "The scale belongs to the update alone.",
    ),
    branches={
        "a rank above 1": lambda w, a, b, alpha: a.shape[0] > 1,
        "alpha below the rank": lambda w, a, b, alpha: alpha < a.shape[0],
        "more outputs than inputs": lambda w, a, b, alpha: w.shape[0] > w.shape[1],
    },
)

EXERCISES = (
    LORA,
    LORA_MERGE,
)
