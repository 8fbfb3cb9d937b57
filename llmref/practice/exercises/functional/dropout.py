"""Exercises on dropout."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows


def _uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _forward() -> list[tuple[Any, ...]]:
    return [
        (number(3.0), number(0.5), 0.25, True),
        (number(3.0), number(0.25), 0.25, True),
        (number(3.0), number(0.125), 0.25, True),
        (number(3.0), number(0.125), 0.25, False),
        (number(3.0), number(0.0), 0.0, True),
        (number(3.0, -2.0), number(0.875, 0.0), 0.5, True),
        (rows(2, 3), _uniform(2, 3), 0.3, True),
        (rows(2, 3, 5, seed=1), _uniform(2, 3, 5, seed=1), 0.7, True),
        (rows(2, 3, 5, seed=2), _uniform(2, 3, 5, seed=2), 0.1, False),
    ]


def _backward() -> list[tuple[Any, ...]]:
    return [given[:3] for given in _forward() if given[3]]


def _evaluation(function: Function, x: Tensor, u: Tensor, p: float, training: bool) -> bool:
    return apart(function(x, u, p, False), x)


def _mean(function: Function, x: Tensor, u: Tensor, p: float, training: bool) -> bool:
    """Eight uniforms an eighth apart, of which a quarter is below 1/4."""
    grid = torch.arange(8, dtype=torch.float64) / 8
    several = [function(x, torch.full_like(x, float(it)), 0.25, True) for it in grid]
    return apart(torch.stack(several).mean(0), x)


def _own(function: Function, x: Tensor, u: Tensor, p: float, training: bool) -> bool:
    """The last entry, beside all others and alone."""
    x, u = x.flatten(), u.flatten()
    return apart(function(x, u, p, training)[-1:], function(x[-1:], u[-1:], p, training))


def _scaled(function: Function, grad: Tensor, u: Tensor, p: float) -> bool:
    return apart(function(grad, torch.ones_like(u), 0.75), 4 * grad)


def _dropped(function: Function, grad: Tensor, u: Tensor, p: float) -> bool:
    return apart(function(grad, torch.zeros_like(u), 0.25), 0 * grad)


_WHERE = "torch.where(u >= p, x / (1 - p), 0.0)"
_GRAD = "torch.where(u >= p, grad / (1 - p), 0.0)"

DROPOUT = Exercise(
    name="dropout",
    topic="functional/dropout",
    level=1,
    task=(
        "Dropout with probability p to drop, so that the mean stays; u, of the shape of x, holds "
        "one uniform number from [0, 1) for each entry, and an entry is kept where it is p or "
        "more. In evaluation return x."
    ),
    inputs=_forward,
    definition="dropout-inverted",
    laws=(
        Law("In evaluation nothing changes.", "dropout-inverted", _evaluation),
        Law("The mean over the uniforms is the entry itself.", "dropout-moments", _mean),
        Law("Each entry has a uniform of its own.", "dropout-inverted", _own),
    ),
    mistakes=(
        Mistake(
            "not rescaled",
            "Then the mean in training is 1 - p times that in evaluation.",
            (("x / (1 - p)", "x"),),
        ),
        Mistake(
            "p taken for the probability to keep",
            "p is the probability to drop, in every library of today.",
            ((_WHERE, "torch.where(u < p, x / p, 0.0) if p else 0 * x"),),
        ),
        Mistake(
            "rescaled in evaluation too",
            "Either the training is rescaled or the evaluation, not both.",
            (("return x\n", "return x * (1 - p)\n"),),
        ),
        Mistake(
            "dropout stays on in evaluation",
            "A model in evaluation gives one answer, not a random one.",
            (("if not training:", "if training is None:"),),
        ),
        Mistake(
            "multiplied by 1 - p",
            "What is left makes up for what is dropped, so it grows.",
            (("x / (1 - p)", "x * (1 - p)"),),
        ),
        Mistake(
            "one draw for the whole tensor",
            "Each entry is dropped independently of the others.",
            ((_WHERE, "torch.where(u.flatten()[0] >= p, x / (1 - p), 0.0)"),),
        ),
        Mistake(
            "the kept ones dropped",
            "An entry is dropped with probability p, and kept where its uniform is p or more.",
            (("u >= p", "u < p"),),
        ),
        Mistake(
            "a uniform equal to p drops",
            "An entry at u = p is kept: uniforms can be exactly 0, and with p = 0 nothing drops.",
            (("u >= p", "u > p"),),
        ),
    ),
    conventions=(
        Convention(
            "rescaled in evaluation",
            "The first papers leave training as it is and multiply by 1 - p in evaluation. To "
            "match, divide by 1 - p in training.",
            (("x / (1 - p)", "x"), ("return x\n", "return x * (1 - p)\n")),
        ),
        Convention(
            "kept where u is below 1 - p",
            "It has the same probability, and gives another mask for the same uniforms. To match, "
            "keep where u is p or more.",
            (("u >= p", "u < 1 - p"),),
        ),
    ),
    hints=(
        "Which uniforms make up a share of 1 - p?",
        "An entry is kept with probability 1 - p: what must it be multiplied by for its mean?",
    ),
    branches={
        "evaluation": lambda x, u, p, training: not training,
        "p = 0": lambda x, u, p, training: p == 0,
        "a uniform equal to p": lambda x, u, p, training: bool((u == p).any()),
    },
    fixed=("u",),
)

DROPOUT_BACKWARD = Exercise(
    name="dropout_backward",
    topic="functional/dropout",
    level=1,
    task=(
        "The gradient of dropout in training with respect to its input, given that of its output "
        "and the uniforms of the forward pass, of one shape; an entry was kept where u is p or "
        "more."
    ),
    inputs=_backward,
    definition="dropout-backward",
    laws=(
        Law("Of a kept entry it is 1 / (1 - p) times grad.", "dropout-backward", _scaled),
        Law("Of a dropped entry it is 0.", "dropout-backward", _dropped),
    ),
    mistakes=(
        Mistake(
            "passed where the entry was dropped",
            "A dropped entry has no influence, so its gradient is 0.",
            ((_GRAD, "grad / (1 - p)"),),
        ),
        Mistake(
            "not rescaled",
            "What multiplies forwards multiplies backwards.",
            (("grad / (1 - p)", "grad"),),
        ),
        Mistake(
            "a new mask",
            "The backward pass uses the mask of the forward pass, not another draw.",
            (("u >= p", "(7 * u + 0.5) % 1 >= p"),),
        ),
        Mistake(
            "the kept ones dropped",
            "It is kept where the entry was kept.",
            (("u >= p", "u < p"),),
        ),
    ),
    hints=("With the mask held, dropout is a product with a fixed number for each entry.",),
    branches={
        "p = 0": lambda grad, u, p: p == 0,
        "a uniform equal to p": lambda grad, u, p: bool((u == p).any()),
    },
)

EXERCISES = (DROPOUT, DROPOUT_BACKWARD)
