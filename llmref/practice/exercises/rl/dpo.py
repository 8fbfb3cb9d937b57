"""Exercise on the loss of DPO."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows


def _pairs() -> list[tuple[Any, ...]]:
    return [
        (number(-2.0), number(-3.0), number(-2.0), number(-3.0), 0.5),
        (number(-2.0), number(-3.0), number(-4.0), number(-1.0), 0.5),
        (number(-5.0, -1.0), number(-1.0, -2.0), number(-3.0, -2.0), number(-2.0, -4.0), 2.0),
        (number(-900.0, 0.0), number(0.0, -900.0), number(0, -898.0), number(-898.0, 0.0), 1.0),
        (*(-5 * rows(5, seed=seed).abs() for seed in range(4)), 0.1),
    ]


def _shifted(
    function: Function, pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float
) -> bool:
    shift = torch.arange(1.0, 1 + len(pc)).double()
    once = function(pc, pr, rc, rr, beta)
    return apart(function(pc + shift, pr, rc + shift, rr, beta), once) or apart(
        function(pc, pr - shift, rc, rr - shift, beta), once
    )


def _at_reference(
    function: Function, pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float
) -> bool:
    return apart(function(rc, rr, rc, rr, beta), torch.tensor(math.log(2)).double())


def _swapped(
    function: Function, pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float
) -> bool:
    margin = beta * ((pc - rc) - (pr - rr))
    gap = function(pr, pc, rr, rc, beta) - function(pc, pr, rc, rr, beta)
    return apart(gap, margin.mean())


def _infinite(
    function: Function, pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float
) -> bool:
    return not bool(function(pc, pr, rc, rr, beta).isfinite().all())


DPO_LOSS = Exercise(
    name="dpo_loss",
    topic="rl/dpo",
    level=1,
    task="DPO's loss, a mean over pairs, from the log-probabilities of whole responses, each "
    "(N,): of the policy for the chosen (pc) and the rejected (pr) one, and of the reference "
    "(rc, rr); margins may be large.",
    inputs=_pairs,
    definition="dpo-loss",
    laws=(
        Law("Large margins overflow nothing.", "dpo-cdpo", _infinite),
        Law("Where policy and reference agree, it costs log 2.", "dpo-loss", _at_reference),
        Law(
            "Only ratios of policy to reference count, response by response.",
            "dpo-loss",
            _shifted,
        ),
        Law(
            "With chosen and rejected exchanged it costs more, by the margin.",
            "dpo-cdpo",
            _swapped,
        ),
    ),
    mistakes=(
        Mistake(
            "chosen and rejected exchanged",
            "The loss falls as the chosen response becomes likelier; exchanging policy and "
            "reference turns it around as well.",
            (("(chosen - rejected)", "(rejected - chosen)"),),
        ),
        Mistake(
            "no reference",
            "Without it the loss rewards what was likely before any training.",
            (("pc - rc", "pc"), ("pr - rr", "pr")),
        ),
        Mistake(
            "beta on the chosen alone",
            "The factor belongs to both implied rewards.",
            (("beta * (chosen - rejected)", "beta * chosen - rejected"),),
        ),
        Mistake(
            "divided by beta",
            "The implied reward is beta times the log-ratio.",
            (("beta * (chosen - rejected)", "(chosen - rejected) / beta"),),
        ),
        Mistake(
            "beta outside the logarithm",
            "The margin is scaled before the sigmoid, not the loss after it.",
            (
                ("beta * (chosen - rejected)", "chosen - rejected"),
                ("-logsigmoid(h).mean()", "-beta * logsigmoid(h).mean()"),
            ),
        ),
        Mistake(
            "log of the sigmoid",
            "The sigmoid of -1000 is 0 in floating point, and exp(1000) is infinite; log-sigmoid "
            "and softplus form neither.",
            (("logsigmoid(h)", "torch.sigmoid(h).log()"),),
        ),
        Mistake(
            "no logarithm",
            "Minus a probability is no log-likelihood.",
            (("logsigmoid(h)", "torch.sigmoid(h)"),),
        ),
        Mistake(
            "sum",
            "The loss is a mean over pairs: it does not grow with the batch by itself.",
            (("logsigmoid(h).mean()", "logsigmoid(h).sum()"),),
        ),
    ),
    conventions=(
        Convention(
            "a loss for each pair",
            "The authors' code returns these and averages later. To match, average.",
            (("logsigmoid(h).mean()", "logsigmoid(h)"),),
        ),
    ),
    hints=(
        "What is the implied reward of one response, up to a constant of the prompt?",
        "The difference of two such rewards is the margin; the constant is gone.",
        "Minus the log-likelihood of the label, computed so that no margin overflows.",
    ),
    branches={
        "several pairs": lambda pc, pr, rc, rr, beta: len(pc) > 1,
        "a margin that overflows": lambda pc, pr, rc, rr, beta: bool(
            ((pc - rc - pr + rr).abs() > 1000).any()
        ),
        "policy and reference agree": lambda pc, pr, rc, rr, beta: bool((pc == rc).all()),
    },
    fixed=("rc", "rr"),
)

EXERCISES = (DPO_LOSS,)
