"""Exercise on SwiGLU."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table

_LOG3 = math.log(3)


def _inputs() -> list[tuple[Any, ...]]:
    return [
        (number(1), table([_LOG3]), table([4]), table([2])),
        (number(1), table([-_LOG3]), table([4]), table([2])),
        (number(1, 0), table([_LOG3, 1], [0, 3]), table([4, 2], [1, 5]), table([1, 2], [0, 1])),
        (
            normal(2, 3),
            normal(3, 3, seed=1),
            normal(3, 3, seed=2),
            normal(3, 3, seed=3),
        ),
        (
            normal(2, 3, 5, seed=4),
            normal(7, 5, seed=5),
            normal(7, 5, seed=6),
            normal(5, 7, seed=7),
        ),
    ]


def _scaled(function: Function, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> bool:
    return apart(function(x, gate, -4 * up, down / -4), function(x, gate, up, down))


def _closed(function: Function, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> bool:
    out = function(x, torch.zeros_like(gate), up, down)
    return apart(out, torch.zeros_like(out))


def _signs(function: Function, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> bool:
    difference = function(x, gate, up, down) - function(x, -gate, up, down)
    return apart(difference, ((x @ gate.T) * (x @ up.T)) @ down.T)


_HIDDEN = "gate * torch.sigmoid(gate) * up"

SWIGLU = Exercise(
    name="swiglu",
    topic="components/swiglu",
    level=1,
    task=(
        "The SwiGLU layer of x (..., d) without biases: the branch of w_gate goes through "
        "SiLU, times the branch of w_up, then w_down; weights are (out, in)."
    ),
    inputs=_inputs,
    definition="swiglu-definition",
    laws=(
        Law(
            "The branch of w_up is linear: times -4 there is undone by 1/-4 in w_down.",
            "swiglu-gauge",
            _scaled,
        ),
        Law("If the gates are 0, so is the output.", "swiglu-definition", _closed),
        Law(
            "With the gates negated, the output differs by the layer without an activation.",
            "swiglu-definition",
            _signs,
        ),
    ),
    mistakes=(
        Mistake(
            "gate and up exchanged",
            "One branch is bent and the other is not; fused weights come in both orders.",
            ((_HIDDEN, "up * torch.sigmoid(up) * gate"),),
        ),
        Mistake(
            "sigmoid of the gate alone: GLU",
            "SiLU is the gate times its sigmoid; the sigmoid alone is the older GLU.",
            ((_HIDDEN, "torch.sigmoid(gate) * up"),),
        ),
        Mistake(
            "gelu: GEGLU",
            "GEGLU bends the gate by GELU, SwiGLU by SiLU.",
            ((_HIDDEN, "torch.nn.functional.gelu(gate) * up"),),
        ),
        Mistake(
            "relu: ReGLU",
            "ReGLU bends the gate by ReLU, SwiGLU by SiLU.",
            ((_HIDDEN, "torch.relu(gate) * up"),),
        ),
        Mistake(
            "no activation: the bilinear layer",
            "The gate goes through SiLU before the product.",
            ((_HIDDEN, "gate * up"),),
        ),
        Mistake(
            "both branches bent",
            "Only the gate goes through SiLU.",
            ((_HIDDEN, "gate * torch.sigmoid(gate) * up * torch.sigmoid(up)"),),
        ),
        Mistake(
            "branches added",
            "A gate multiplies.",
            ((_HIDDEN, "gate * torch.sigmoid(gate) + up"),),
        ),
        Mistake(
            "product bent",
            "SiLU acts on the gate, before the product with the other branch.",
            ((_HIDDEN, "gate * up * torch.sigmoid(gate * up)"),),
        ),
    ),
    conventions=(
        Convention(
            "weights stored as (in, out)",
            "Dense of Flax and Conv1D of GPT-2 in transformers store them so. "
            "To match, multiply by the transposed weight.",
            (
                ("x @ w_gate.T, x @ w_up.T", "x @ w_gate, x @ w_up"),
                ("hidden @ w_down.T", "hidden @ w_down"),
            ),
        ),
    ),
    hints=(
        "Two branches from the same input; one is bent, the other is not.",
        "SiLU is a number times its sigmoid.",
        "The branches are multiplied entry by entry, then comes the third matrix.",
    ),
    branches={
        "gates of both signs": lambda x, w_gate, w_up, w_down: bool(
            ((x @ w_gate.T) > 0).any() and ((x @ w_gate.T) < 0).any()
        ),
        "several rows": lambda x, w_gate, w_up, w_down: x.ndim > 1,
        "more hidden units than features": lambda x, w_gate, w_up, w_down: (
            w_gate.shape[0] > w_gate.shape[1]
        ),
    },
)

EXERCISES = (SWIGLU,)
