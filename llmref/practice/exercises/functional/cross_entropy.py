"""Exercises on the cross-entropy and its gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import rows, table
from llmref.practice.exercises._laws import without_maximum

_NAN = math.nan


def _forward() -> list[tuple[Any, ...]]:
    return [
        (table([0.0, 1.0]), torch.tensor([0]), -100),
        (table([-800.0, -801.0]), torch.tensor([0]), -100),
        (table([0.0, 1.0], [2.0, 0.0]), torch.tensor([1, 1]), -100),
        (table([0.0, 1.0], [2.0, 0.0]), torch.tensor([1, 0]), 0),
        (table([1.0, 3.0], [_NAN, _NAN]), torch.tensor([0, -100]), -100),
        (table([0.0, 800.0], [900.0, 0.0]), torch.tensor([0, 0]), -100),
        (table([0.0, 1.0], [1000.0, 1001.0]), torch.tensor([1, 0]), -100),
        (rows(2, 3, 5), torch.tensor([[4, -100, 0], [2, -100, -100]]), -100),
        (3 * rows(6, 7, seed=1), torch.tensor([3, 0, 6, 3, 5, 1]), 3),
    ]


def _backward() -> list[tuple[Any, ...]]:
    return [
        (table([0.0, 0.0]), torch.tensor([1])),
        (table([0.0, 1.0], [2.0, 0.0]), torch.tensor([1, 1])),
        (table([0.0, 1000.0], [1000.0, 0.0]), torch.tensor([0, 0])),
        (table([0.0, 1.0], [1000.0, 1001.0]), torch.tensor([1, 0])),
        (table([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]), torch.tensor([[2, 0]])),
        (2 * rows(4, 3, seed=2), torch.tensor([0, 2, 1, 2])),
        (rows(2, 3, 5, seed=3), torch.tensor([[4, 0, 1], [2, 2, 3]])),
    ]


def _ignored(function: Function, logits: Tensor, targets: Tensor, ignore_index: int) -> bool:
    longer = torch.cat([logits, torch.full_like(logits[:1], torch.nan)])
    more = torch.cat([targets, torch.full_like(targets[:1], ignore_index)])
    before, after = function(logits, targets, ignore_index), function(longer, more, ignore_index)
    return not torch.allclose(before, after, rtol=1e-6, atol=1e-9, equal_nan=True)


def _shifted(function: Function, logits: Tensor, targets: Tensor, ignore_index: int) -> bool:
    shift = torch.arange(1.0, 1 + targets.numel()).double().reshape(targets.shape)[..., None]
    once = function(logits, targets, ignore_index)
    return apart(once, function(logits + shift, targets, ignore_index))


def _outside(function: Function, logits: Tensor, targets: Tensor, ignore_index: int) -> bool:
    z, y = logits[targets != ignore_index], targets[targets != ignore_index]
    gap = (z.amax(-1) - z.gather(-1, y[:, None])[:, 0]).mean()
    loss = function(logits, targets, ignore_index)
    return bool((loss < gap - 1e-9) | (loss > gap + math.log(logits.shape[-1]) + 1e-9))


def _no_sum(function: Function, logits: Tensor, targets: Tensor) -> bool:
    grad = function(logits, targets)
    return apart(grad.sum(-1), torch.zeros_like(grad[..., 0]))


def _wrong_way(function: Function, logits: Tensor, targets: Tensor) -> bool:
    grad = function(logits, targets)
    at_target = torch.nn.functional.one_hot(targets, logits.shape[-1]).bool()
    return bool((grad[at_target] > 1e-9).any() or (grad[~at_target] < -1e-9).any())


def _too_large(function: Function, logits: Tensor, targets: Tensor) -> bool:
    return bool(function(logits, targets).abs().sum() > 2 + 1e-9)


_RETURN = "return -chosen.mean()"
_LOG_P = "logits[counted].to(wide).log_softmax(-1)"
_CHOSEN = "log_p.gather(-1, targets[counted].unsqueeze(-1))"

CROSS_ENTROPY = Exercise(
    name="cross_entropy",
    topic="functional/cross_entropy",
    level=2,
    task="The mean of minus the log-probability of the target (natural logarithm), over the "
    "positions whose target is not ignore_index; logits are (..., V), targets (...), "
    "logits may be large, and an ignored position may hold anything, NaN too.",
    inputs=_forward,
    definition="cross-entropy-definition",
    laws=(
        Law(
            "An ignored position changes nothing, whatever it holds.",
            "cross-entropy-ignore",
            _ignored,
        ),
        Law(
            "A number added to all logits of a position changes nothing.",
            "cross-entropy-definition",
            _shifted,
        ),
        Law(
            "The loss is at least the mean gap to the largest logit, and at most log V more.",
            "cross-entropy-stability",
            _outside,
        ),
    ),
    mistakes=(
        Mistake(
            "logarithm of softmax",
            "A probability of 1e-400 is 0 in floating point, and its logarithm infinite; "
            "log-softmax never forms it.",
            ((_LOG_P, "logits[counted].to(wide).softmax(-1).log()"),),
        ),
        Mistake(
            "a small number added to the probability",
            "It caps the loss of what is very unlikely, and its gradient too; log-softmax needs "
            "no such number.",
            ((_LOG_P, "(logits[counted].to(wide).softmax(-1) + 1e-9).log()"),),
        ),
        without_maximum(
            (
                (
                    _LOG_P,
                    "logits[counted].to(wide); "
                    "log_p = log_p - log_p.exp().sum(-1, keepdim=True).log()",
                ),
            )
        ),
        Mistake(
            "softmax applied twice",
            "The loss takes logits: it applies the softmax itself.",
            ((_LOG_P, "logits[counted].to(wide).softmax(-1).log_softmax(-1)"),),
        ),
        Mistake(
            "no logarithm",
            "Minus the probability is no log-likelihood; the logarithm is missing.",
            ((_LOG_P, "logits[counted].to(wide).softmax(-1)"),),
        ),
        Mistake(
            "normaliser forgotten",
            "A logit is no log-probability until the logarithm of the sum is subtracted.",
            ((_LOG_P, "logits[counted].to(wide)"),),
        ),
        Mistake(
            "softmax over the positions",
            "The probabilities of one position sum to 1 over the classes, the last axis.",
            ((_LOG_P, "logits[counted].to(wide).log_softmax(0)"),),
        ),
        Mistake(
            "mean over all positions",
            "Ignored positions are no part of the number that divides.",
            ((_RETURN, "return -chosen.sum() / targets.numel()"),),
        ),
        Mistake(
            "loss times mask",
            "0 times NaN is NaN: select the counted positions, do not multiply.",
            (
                (_LOG_P, "logits.to(wide).log_softmax(-1)"),
                (_CHOSEN, "log_p.gather(-1, (targets * counted).unsqueeze(-1)).squeeze(-1)"),
                (_RETURN, "return -(chosen * counted).sum() / counted.sum()"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "the sum over counted positions",
            "torch calls it reduction='sum'. To match, divide by the number of counted ones.",
            ((_RETURN, "return -chosen.sum()"),),
        ),
        Convention(
            "a logarithm to base 2, bits",
            "Compression and bits per byte count so. To match, take the natural logarithm.",
            ((_RETURN, "return -chosen.mean() / torch.tensor(2.0).to(chosen).log()"),),
        ),
        Convention(
            "a loss for each position, 0 where it is ignored",
            "torch calls it reduction='none'. To match, average over the counted positions.",
            (
                (
                    _RETURN,
                    "return torch.zeros(targets.shape, dtype=wide)"
                    ".masked_scatter(counted, -chosen)",
                ),
            ),
        ),
    ),
    hints=(
        "First decide which positions count; the rest is never looked at.",
        "The log-probability is the logit minus the logarithm of the sum of exponentials, "
        "computed so that nothing overflows.",
        "Divide by the number of counted positions.",
    ),
    branches={
        "ignored positions": lambda logits, targets, index: bool((targets == index).any()),
        "a class that is ignored": lambda logits, targets, index: index >= 0,
        "NaN where nothing counts": lambda logits, targets, index: bool(logits.isnan().any()),
        "a gap that underflows": lambda logits, targets, index: bool((logits > 750).any()),
        "logits far below 0": lambda logits, targets, index: bool((logits < -750).any()),
        "several axes of positions": lambda logits, targets, index: targets.ndim > 1,
    },
)

CROSS_ENTROPY_BACKWARD = Exercise(
    name="cross_entropy_backward",
    topic="functional/cross_entropy",
    level=2,
    task="The gradient of the mean cross-entropy over all positions with respect to the "
    "logits (..., V), which may be large, for targets (...), none of which is ignored.",
    inputs=_backward,
    definition="cross-entropy-gradient",
    laws=(
        Law("The gradient of a position sums to 0.", "cross-entropy-gradient", _no_sum),
        Law(
            "Only the target's logit has a negative derivative: a step against the gradient "
            "raises it.",
            "cross-entropy-gradient",
            _wrong_way,
        ),
        Law(
            "The sizes of all entries together sum to at most 2: each of N positions has 1/N.",
            "cross-entropy-gradient",
            _too_large,
        ),
    ),
    mistakes=(
        Mistake(
            "target minus prediction",
            "That is the direction of descent, the negative gradient.",
            (("(p - onehot)", "(onehot - p)"),),
        ),
        Mistake(
            "target forgotten",
            "The normaliser gives the probabilities; the target's own logit gives minus 1.",
            (("(p - onehot)", "p"),),
        ),
        Mistake(
            "at the target alone",
            "All logits of a position stand in its normaliser, so all have a gradient.",
            (("(p - onehot)", "(p - 1) * onehot"),),
        ),
        Mistake(
            "divided by the batch alone",
            "The mean runs over all positions, not over the first axis only.",
            (("targets.numel()", "len(targets)"),),
        ),
        Mistake(
            "of the squared error",
            "That is the gradient of the squared distance of the probabilities.",
            (
                (
                    "(p - onehot)",
                    "p * (p - onehot - (p * (p - onehot)).sum(-1, keepdim=True))",
                ),
            ),
        ),
        Mistake(
            "softmax over the positions",
            "The probabilities of one position sum to 1 over the classes, the last axis.",
            (("logits.softmax(-1)", "logits.softmax(0)"),),
        ),
        without_maximum(
            (
                (
                    "logits.softmax(-1)",
                    "logits.exp() / logits.exp().sum(-1, keepdim=True)",
                ),
            )
        ),
    ),
    conventions=(
        Convention(
            "the gradient of the sum",
            "torch gives it with reduction='sum'. To match, divide by the number of positions.",
            ((" / targets.numel()", ""),),
        ),
    ),
    hints=(
        "Write the loss of a position as the normaliser minus the logit of the target.",
        "The derivative of the logarithm of the sum of exponentials is the softmax.",
        "The mean over positions leaves a factor.",
    ),
    branches={
        "several axes of positions": lambda logits, targets: targets.ndim > 1,
        "logits that overflow": lambda logits, targets: bool((logits > 710).any()),
    },
)

EXERCISES = (
    CROSS_ENTROPY,
    CROSS_ENTROPY_BACKWARD,
)
