"""Exercises on GELU and SiLU."""

from typing import Any

from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows


def _numbers() -> list[tuple[Any, ...]]:
    return [
        (number(0.0),),
        (number(1.0),),
        (number(-2.0, 2.0),),
        (number(-6.0, 0.5, 6.0),),
        (number(-30.0, -1.0, 1.0, 30.0),),
        (number(-800.0, -9.0, -0.1, 0.1, 800.0),),
        (rows(2, 3),),
        (2 * rows(3, 4, seed=1) - 3,),
    ]


def _gap(function: Function, x: Tensor) -> bool:
    return apart(function(x) - function(-x), x)


def _below(function: Function, x: Tensor) -> bool:
    return bool((function(x) > x.clamp(min=0) + 1e-9).any())


_BRANCHES = {
    "both signs": lambda x: bool((x > 0).any() and (x < 0).any()),
    "far below 0": lambda x: bool((x < -700).any()),
    "far above 0": lambda x: bool((x > 700).any()),
}

GELU = Exercise(
    name="gelu",
    topic="functional/activations",
    level=1,
    task="GELU, exact: x times the distribution function of the normal distribution at x.",
    inputs=_numbers,
    definition="activations-gelu",
    laws=(
        Law("The values at x and -x differ by x.", "activations-gelu", _gap),
        Law("It never exceeds ReLU.", "activations-gelu", _below),
    ),
    mistakes=(
        Mistake(
            "the error function of x",
            "Its argument is x over the root of 2.",
            (("-x / math.sqrt(2)", "-x"),),
        ),
        Mistake(
            "not halved",
            "The distribution function is half of 1 plus the error function.",
            ((") / 2", ")"),),
        ),
        Mistake(
            "x forgotten",
            "The distribution function is the gate; x passes it.",
            (("return x * torch.erfc", "return torch.erfc"),),
        ),
        Mistake(
            "the other tail",
            "The probability of being below x, not above.",
            (("torch.erfc(-x", "torch.erfc(x"),),
        ),
    ),
    conventions=(
        Convention(
            "the tanh form",
            "GPT-2 and approximate='tanh' use it; it is up to 0.0005 away. To match, use erf.",
            (
                (
                    "x * torch.erfc(-x / math.sqrt(2)) / 2",
                    "x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))",
                ),
            ),
        ),
        Convention(
            "the sigmoid form",
            "OpenAI's 'quick' GELU uses it; it is up to 0.02 away. To match, use erf.",
            (
                (
                    "x * torch.erfc(-x / math.sqrt(2)) / 2",
                    "x * torch.sigmoid(1.702 * x)",
                ),
            ),
        ),
    ),
    hints=(
        "It is a gate: x times a probability.",
        "The probability that a standard normal number is below x.",
        "Written with the error function of x over the root of 2.",
    ),
    branches=_BRANCHES,
)

SILU = Exercise(
    name="silu",
    topic="functional/activations",
    level=1,
    task="SiLU, also called Swish: x times the sigmoid of x.",
    inputs=_numbers,
    definition="activations-silu",
    laws=(
        Law("The values at x and -x differ by x.", "activations-silu", _gap),
        Law("It never exceeds ReLU.", "activations-silu", _below),
    ),
    mistakes=(
        Mistake(
            "sigmoid alone",
            "The sigmoid is the gate; x passes it.",
            (("x * torch.sigmoid(x)", "torch.sigmoid(x)"),),
        ),
        Mistake(
            "tanh for the sigmoid",
            "The gate lies between 0 and 1.",
            (("torch.sigmoid(x)", "torch.tanh(x)"),),
        ),
        Mistake(
            "a slope of 1.702",
            "That is the sigmoid form of GELU.",
            (("torch.sigmoid(x)", "torch.sigmoid(1.702 * x)"),),
        ),
        Mistake(
            "the sigmoid of minus x",
            "The gate opens for large x.",
            (("torch.sigmoid(x)", "torch.sigmoid(-x)"),),
        ),
    ),
    hints=("It is a gate: x times a number between 0 and 1.", "The gate is the sigmoid of x."),
    branches=_BRANCHES,
)

EXERCISES = (
    GELU,
    SILU,
)
