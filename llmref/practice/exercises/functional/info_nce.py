"""Exercise on InfoNCE."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import rows, table
from llmref.practice.exercises._laws import without_maximum


def _pairs() -> list[tuple[Any, ...]]:
    return [
        (table([3.0], [-2.0]), table([1.0], [-1.0]), 2.0),
        (table([3.0, 4.0], [0.0, 1.0]), table([1.0, 0.0], [0.0, 2.0]), 0.5),
        (table([2.0, 0.0], [1.0, 0.0]), table([1.0, 0.0], [3.0, 0.0]), 1e-3),
        (table([3.0, 4.0], [0.0, 1.0]), table([1.0, 0.0], [0.0, 2.0]), 1e-4),
        (table([1.0, 0.0], [0.0, 1.0], [0.0, -2.0]), table([1.0, 0], [1.0, 1], [1.0, 0]), 0.2),
        (rows(5, 2, seed=1), rows(5, 2, seed=2), 2.0),
        (rows(3, 5, seed=3) - 1, rows(3, 5, seed=4) - 1, 0.1),
        (rows(4, 7, seed=5) - 1, rows(4, 7, seed=6) - 1, 0.07),
    ]


def _lengths(function: Function, a: Tensor, b: Tensor, temperature: float) -> bool:
    factor = torch.arange(1.0, 1 + len(a)).double()[:, None]
    return apart(function(factor * a, b, temperature), function(a, b, temperature)) or apart(
        function(a, factor * b, temperature), function(a, b, temperature)
    )


def _equal(function: Function, a: Tensor, b: Tensor, temperature: float) -> bool:
    same = b[:1].expand(b.shape)
    return apart(function(a, same, temperature), torch.tensor(math.log(len(a))).double())


def _negative(function: Function, a: Tensor, b: Tensor, temperature: float) -> bool:
    return bool(function(a, b, temperature) < -1e-9)


def _cold(function: Function, a: Tensor, b: Tensor, temperature: float) -> bool:
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    scores = a @ b.T
    hinge = (scores.amax(-1) - scores.diagonal()).mean()
    off = 1e-3 * function(a, b, 1e-3) - hinge
    return bool((off < -1e-9) | (off > 1e-3 * math.log(len(a)) + 1e-9))


_LOSS = "scores.log_softmax(-1).diagonal().mean()"

INFO_NCE = Exercise(
    name="info_nce",
    topic="functional/info_nce",
    level=2,
    task="Scores are cosines of rows of a (B, D) and rows of b (B, D), over the temperature; "
    "row i of a has to find row i of b among all B rows: return its mean cross-entropy, in "
    "this one direction; a low temperature makes large scores.",
    inputs=_pairs,
    definition="info-nce-definition",
    laws=(
        Law(
            "The lengths of the vectors change nothing: scores are cosines.",
            "info-nce-gradient",
            _lengths,
        ),
        Law("If all keys are equal, it costs log B.", "info-nce-definition", _equal),
        Law("The loss is never negative.", "info-nce-definition", _negative),
        Law(
            "At a low temperature, temperature times loss is the mean gap of a row's cosine "
            "to the largest of its row.",
            "info-nce-temperature-limits",
            _cold,
        ),
    ),
    mistakes=(
        Mistake(
            "not normalised",
            "Without it a long vector wins: scores are cosines.",
            (
                ("a / a.norm(dim=-1, keepdim=True)", "a"),
                ("b / b.norm(dim=-1, keepdim=True)", "b"),
            ),
        ),
        Mistake(
            "normalised over the batch",
            "The length of a vector is taken over its features, the last axis.",
            (
                ("a.norm(dim=-1, keepdim=True)", "a.norm(dim=0, keepdim=True)"),
                ("b.norm(dim=-1, keepdim=True)", "b.norm(dim=0, keepdim=True)"),
            ),
        ),
        Mistake(
            "temperature multiplied",
            "A low temperature sharpens, so it divides; what multiplies is its inverse.",
            (("/ temperature", "* temperature"),),
        ),
        Mistake(
            "keys look for queries",
            "The softmax runs over the keys of one query; this one runs over the queries.",
            (("scores.log_softmax(-1)", "scores.log_softmax(0)"),),
        ),
        Mistake(
            "softmax over all pairs",
            "Each query has a softmax of its own, over B keys.",
            (("scores.log_softmax(-1)", "scores.flatten().log_softmax(0).view_as(scores)"),),
        ),
        Mistake(
            "positive left out of the denominator",
            "The positive is one of the candidates; without it the loss can be negative.",
            (
                (
                    f"-{_LOSS}",
                    "(scores.masked_fill(torch.eye(len(a)).bool(), -torch.inf).logsumexp(-1)"
                    " - scores.diagonal()).mean()",
                ),
            ),
        ),
        Mistake(
            "sum",
            "The loss is a mean over the rows: it does not grow with the batch by itself.",
            ((_LOSS, "scores.log_softmax(-1).diagonal().sum()"),),
        ),
        Mistake(
            "no logarithm",
            "Minus the probability of the positive is no cross-entropy.",
            ((_LOSS, "scores.softmax(-1).diagonal().mean()"),),
        ),
        Mistake(
            "logarithm of softmax",
            "A probability of 1e-400 is 0 in floating point, and its logarithm infinite.",
            (("scores.log_softmax(-1)", "scores.softmax(-1).log()"),),
        ),
        without_maximum(
            (
                (
                    "scores.log_softmax(-1)",
                    "(scores - scores.exp().sum(-1, keepdim=True).log())",
                ),
            )
        ),
    ),
    conventions=(
        Convention(
            "the mean of both directions",
            "CLIP does so. To match, let only the rows of a look for rows of b.",
            (
                (
                    _LOSS,
                    "(scores.log_softmax(-1) + scores.log_softmax(0)).diagonal().mean() / 2",
                ),
            ),
        ),
    ),
    hints=(
        "It is a classification: how many classes has a row, and which is right?",
        "Divide each row by its length, so that products are cosines.",
        "One table of scores holds it all; the right ones stand on its diagonal.",
    ),
    branches={
        "scores that overflow": lambda a, b, temperature: temperature < 1 / 710,
        "a temperature above 1": lambda a, b, temperature: temperature > 1,
        "a low temperature": lambda a, b, temperature: temperature < 0.15,
        "equal keys": lambda a, b, temperature: len(b.unique(dim=0)) < len(b),
    },
)

EXERCISES = (INFO_NCE,)
