"""Exercise on the gradients of a linear layer."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, table


def _inputs() -> list[tuple[Any, ...]]:
    return [
        (table([2]), table([3]), table([5])),
        (table([2], [1]), table([3], [4]), table([5])),
        (table([1, 2]), table([3, 1]), table([1, 2], [3, 4])),
        (table([1, 2]), table([3, 1, 4]), table([1, 2, 0], [3, 4, 1])),
        (table([1, 2], [0, 1]), table([3, 1], [2, 0]), table([1, 2], [3, 4])),
        (normal(2, 3, 7), normal(2, 3, 5, seed=1), normal(7, 5, seed=2)),
    ]


def _euler(function: Function, grad: Tensor, x: Tensor, w: Tensor) -> bool:
    grad_x, grad_w, _ = function(grad, x, w)
    output = (grad * (x @ w.T)).sum()
    return apart((grad_x * x).sum(), output) or apart((grad_w * w).sum(), output)


def _summed(function: Function, grad: Tensor, x: Tensor, w: Tensor) -> bool:
    once = function(grad, x, w)
    twice = function(torch.stack([grad, grad]), torch.stack([x, x]), w)
    return apart(twice[1], 2 * once[1]) or apart(twice[2], 2 * once[2])


def _as_input(function: Function, grad: Tensor, x: Tensor, w: Tensor) -> bool:
    _, grad_w, grad_bias = function(grad, torch.ones_like(x), w)
    return apart(grad_w[:, 0], grad_bias)


LINEAR_BACKWARD = Exercise(
    name="linear_backward",
    topic="components/linear",
    level=1,
    task=(
        "Given the gradient of the output of a linear layer, whose weight w is (out, in), "
        "return those of its input x (..., in), its weight and its bias, in this order."
    ),
    inputs=_inputs,
    definition="linear-backward",
    laws=(
        Law(
            "Input times its gradient, weight times its, and output times its, each summed, "
            "are equal without a bias.",
            "linear-backward",
            _euler,
        ),
        Law(
            "Each token twice doubles the gradients of weight and bias: they are sums.",
            "linear-backward-leading-dims",
            _summed,
        ),
        Law(
            "The bias has the gradient of the weight of an input that is always 1.",
            "linear-backward",
            _as_input,
        ),
    ),
    mistakes=(
        Mistake(
            "dW transposed (a square layer hides it)",
            "The gradient has the shape of the weight, (out, in): outputs come first.",
            (("rows.T @ inputs", "inputs.T @ rows"),),
        ),
        Mistake(
            "dX with the transposed weight",
            "Forward multiplies by the transposed weight, backward by the weight itself.",
            (("grad @ w", "grad @ w.T"),),
        ),
        Mistake(
            "dW averaged over tokens",
            "Every token uses the weight, so it collects a sum; a mean of the loss is "
            "in the given gradient already.",
            (("rows.T @ inputs", "rows.T @ inputs / len(rows)"),),
        ),
        Mistake(
            "db averaged over tokens",
            "Every token uses the bias, so it collects a sum; a mean of the loss is "
            "in the given gradient already.",
            (("rows.sum(0)", "rows.mean(0)"),),
        ),
        Mistake(
            "db over all entries",
            "Each output has a bias of its own: sum over tokens, not over outputs.",
            (("rows.sum(0)", "rows.sum()"),),
        ),
        Mistake(
            "dW of the last token alone",
            "A weight collects from all tokens; one that is overwritten keeps the last.",
            (("rows.T @ inputs", "rows[-1:].T @ inputs[-1:]"),),
        ),
        Mistake(
            "dW before dX",
            "Gradients come in the order of the arguments of the layer: x, weight, bias.",
            (("return grad_x, grad_w", "return grad_w, grad_x"),),
        ),
    ),
    conventions=(
        Convention(
            "a weight stored as (in, out)",
            "Conv1D of GPT-2 in transformers and Dense of Flax store it so. "
            "To match, take the output as x times the transposed weight.",
            (("grad @ w", "grad @ w.T"), ("rows.T @ inputs", "inputs.T @ rows")),
        ),
    ),
    hints=(
        "Shapes decide most of it: each gradient has the shape of what it belongs to.",
        "Bring all tokens below each other, as the rows of a matrix.",
        "Weight and bias are used by every token. What does each collect?",
    ),
    branches={
        "one token": lambda grad, x, w: x.numel() == x.shape[-1],
        "several leading axes": lambda grad, x, w: x.ndim > 2,
        "a square weight that is not symmetric": lambda grad, x, w: (
            w.shape[0] == w.shape[1] > 1 and not torch.equal(w, w.T)
        ),
    },
)

EXERCISES = (LINEAR_BACKWARD,)
