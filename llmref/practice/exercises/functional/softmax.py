"""Exercise on softmax."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows, table


def _scores() -> list[tuple[Any, ...]]:
    return [
        (number(2.0),),
        (number(0.0, 1.0),),
        (number(1000.0, 1001.0),),
        (number(-2000.0, -2000.0),),
        (number(0.0, -torch.inf, 1.0),),
        (table([0.0, 1.0], [1000.0, 1001.0]),),
        (torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, -1.0]]).double(),),
        (rows(2, 3, 5),),
    ]


def _sums(function: Function, x: Tensor) -> bool:
    return apart(function(x).sum(-1), torch.ones_like(x[..., 0]))


def _shifted(function: Function, x: Tensor) -> bool:
    return apart(function(x + 3), function(x))


def _ratios(function: Function, x: Tensor) -> bool:
    p = function(x)
    return apart(p[..., 1:] * x[..., :-1].exp(), p[..., :-1] * x[..., 1:].exp())


def _large(function: Function, x: Tensor) -> bool:
    return not bool(function(x + 2000).isfinite().all())


SOFTMAX = Exercise(
    name="softmax",
    topic="functional/softmax",
    level=1,
    task="Turn the scores of each row (last axis) into probabilities, for scores of any size.",
    inputs=_scores,
    definition="softmax-definition",
    laws=(
        Law("Large scores overflow nothing.", "softmax-stable", _large),
        Law("The probabilities of each row sum to 1.", "softmax-definition", _sums),
        Law("A number added to all scores changes nothing.", "softmax-shift", _shifted),
        Law("Ratios of probabilities are ratios of exponentials.", "softmax-shift", _ratios),
    ),
    mistakes=(
        Mistake(
            "no maximum subtracted",
            "The exponential of 710 is beyond float64, that of 89 beyond float32.",
            (("x - x.amax(-1, keepdim=True)", "x"),),
        ),
        Mistake(
            "one maximum for all rows",
            "A row far below the largest of all would have exponentials of 0, and a sum of 0.",
            (("x.amax(-1, keepdim=True)", "x.amax()"),),
        ),
        Mistake(
            "scores divided by their maximum",
            "That avoids overflow too, but it changes all differences of scores.",
            (("x - x.amax(-1, keepdim=True)", "x / x.amax(-1, keepdim=True)"),),
        ),
        Mistake(
            "normalised over all rows",
            "A sum without an axis runs over the whole tensor.",
            (
                ("x - x.amax(-1, keepdim=True)", "x - x.amax()"),
                ("weights.sum(-1, keepdim=True)", "weights.sum()"),
            ),
        ),
        Mistake(
            "normalised over the first axis",
            "The last axis is that of the scores.",
            (
                ("x - x.amax(-1, keepdim=True)", "x - x.amax(0, keepdim=True)"),
                ("weights.sum(-1, keepdim=True)", "weights.sum(0, keepdim=True)"),
            ),
        ),
        Mistake(
            "divided by the largest",
            "That makes the largest 1; the sum has to be.",
            (("weights.sum(-1, keepdim=True)", "weights.amax(-1, keepdim=True)"),),
        ),
        Mistake(
            "powers of 2",
            "The base is e: another base is another temperature.",
            (("torch.exp(shifted)", "torch.exp2(shifted)"),),
        ),
    ),
    hints=(
        "Only differences of scores count.",
        "So subtract what makes the largest exponential 1.",
        "The sum keeps its axis, so that it divides each row.",
    ),
    branches={
        "several rows": lambda x: x.ndim > 1,
        "rows far apart": lambda x: x.ndim > 1 and bool(x.amax() - x.amin() > 750),
        "scores that overflow": lambda x: bool((x > 710).any()),
        "scores that underflow": lambda x: bool((x < -750).all()),
        "a score of minus infinity": lambda x: bool(x.isinf().any()),
    },
)

EXERCISES = (SOFTMAX,)
