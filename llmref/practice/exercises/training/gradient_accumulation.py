"""Exercises on a batch in pieces and on clipping its gradient."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, rows, table

Piece = tuple[Tensor, Tensor, Tensor]


def _mask(*bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.bool)


def _pieces() -> list[tuple[Any, ...]]:
    one = (table([1.0]), number(1.0), _mask(1))
    three = (table([1.0], [2.0], [1.0]), number(3.0, 1.0, 2.0), _mask(1, 1, 0))
    return [
        (number(0.0), [one]),
        (number(1.0, 2.0), [(table([1.0, 0.0], [0.0, 1.0]), number(0.0, 0.0), _mask(0, 1))]),
        (number(0.0), [one, three]),
        (
            number(0.5, -1.0, 2.0),
            [
                (rows(5, 3), rows(5, seed=1), _mask(1, 1, 1, 1, 1)),
                (rows(2, 3, seed=2), rows(2, seed=3), _mask(1, 0)),
                (rows(4, 3, seed=4), rows(4, seed=5), _mask(0, 1, 1, 0)),
            ],
        ),
        (
            normal(4, seed=6),
            [
                (rows(3, 4, seed=7), rows(3, seed=8), _mask(0, 0, 0)),
                (rows(6, 4, seed=9), rows(6, seed=10), _mask(1, 0, 1, 1, 1, 1)),
            ],
        ),
    ]


def _gradients() -> list[tuple[Any, ...]]:
    return [
        ([number(3.0)], 1.0),
        ([number(3.0), number(4.0)], 10.0),
        ([number(3.0), number(-4.0)], 1.0),
        ([number(3e-4), number(4e-4)], 1e-4),
        ([number(3.0), number(4.0)], 5.0),
        ([number(0.3), number(0.4, 1.2)], 0.65),
        ([number(0.0, 0.0), number(0.0)], 1.0),
        ([normal(2, 3, seed=3), normal(7, seed=4)], 50.0),
        ([normal(2, 3), normal(5, seed=1), normal(1, 4, seed=2)], 0.5),
    ]


def _regrouped(function: Function, weight: Tensor, pieces: list[Piece]) -> bool:
    joined = [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]
    return apart(function(weight, pieces), function(weight, joined))


def _padded(function: Function, weight: Tensor, pieces: list[Piece]) -> bool:
    x, y, mask = pieces[0]
    longer = (
        torch.cat([x, torch.ones_like(x[:1])]),
        torch.cat([y, torch.full_like(y[:1], 9.0)]),
        torch.cat([mask, torch.zeros_like(mask[:1])]),
    )
    return apart(function(weight, [longer, *pieces[1:]]), function(weight, pieces))


def _repeated(function: Function, weight: Tensor, pieces: list[Piece]) -> bool:
    return apart(function(weight, pieces + pieces), function(weight, pieces))


def _short(function: Function, grads: list[Tensor], max_norm: float) -> bool:
    clipped, _ = function(grads, max_norm)
    norm = torch.cat([g.flatten() for g in clipped]).norm()
    return bool(norm > max_norm * (1 + 1e-9))


def _same_inside(function: Function, grads: list[Tensor], max_norm: float) -> bool:
    norm = float(torch.cat([g.flatten() for g in grads]).norm())
    clipped, _ = function(grads, 2 * norm + 1)
    return any(apart(a, b) for a, b in zip(clipped, grads, strict=True))


def _direction(function: Function, grads: list[Tensor], max_norm: float) -> bool:
    before = torch.cat([g.flatten() for g in grads])
    after = torch.cat([g.flatten() for g in function(grads, max_norm)[0]])
    return apart(after * before.norm(), before * after.norm())


def _one_vector(function: Function, grads: list[Tensor], max_norm: float) -> bool:
    whole = torch.cat([g.flatten() for g in grads])
    return apart(function(grads, max_norm)[1], function([whole], max_norm)[1])


_LOSS = "loss = (x @ weight - y).square()[mask].sum()"
_BACK = "(loss / total).backward()"
_NORM = "torch.stack([g.square().sum() for g in grads]).sum().sqrt()"
_SCALED = "g * (max_norm / norm)"

ACCUMULATED_GRADIENT = Exercise(
    name="accumulated_gradient",
    topic="training/gradient_accumulation",
    level=2,
    task=(
        "A batch comes in a list of pieces (x, y, mask): (T, C), (T,), (T,), with a T of its own "
        "each. Return the gradient (C,) of the mean of (x w - y)^2 over all counted tokens of all "
        "pieces at w = weight (C,), one piece after the other."
    ),
    inputs=_pieces,
    fixed=("weight",),
    definition="accumulation-additive",
    laws=(
        Law(
            "However the batch is cut into pieces, the gradient is the same.",
            "accumulation-additive",
            _regrouped,
        ),
        Law(
            "A token that does not count changes nothing.",
            "accumulation-token-weight",
            _padded,
        ),
        Law("Every piece twice changes no mean.", "accumulation-additive", _repeated),
    ),
    mistakes=(
        Mistake(
            "mean of the pieces' means",
            "A token then weighs more the fewer tokens its own piece has.",
            ((_LOSS, _LOSS.replace("sum", "mean")), (_BACK, "(loss / len(pieces)).backward()")),
        ),
        Mistake(
            "divided by the number of pieces as well",
            "The tokens of all pieces are in the count already.",
            ((_BACK, "(loss / total / len(pieces)).backward()"),),
        ),
        Mistake(
            "divided by the piece's own count",
            "The sum of K means is K times too large, and weights tokens by their pieces.",
            ((_BACK, "(loss / mask.sum().clamp(min=1)).backward()"),),
        ),
        Mistake(
            "padding in the count",
            "Only tokens whose loss is in the sum count.",
            (("sum(mask.sum() for", "sum(mask.numel() for"),),
        ),
        Mistake(
            "padding in the loss",
            "A token that does not count has no loss.",
            (("square()[mask].sum()", "square().sum()"),),
        ),
        Mistake(
            "gradient reset before each piece",
            "It adds up over the pieces; it is reset once, before the first.",
            ((_BACK, "weight.grad = None; " + _BACK),),
        ),
        Mistake(
            "count of the pieces so far",
            "Each piece is divided by another count: count all pieces first, or divide at the end.",
            (
                ("total = sum(mask.sum() for _, _, mask in pieces)", "total = 0"),
                (_LOSS, "total = total + mask.sum(); " + _LOSS),
                (_BACK, "(loss / max(total, 1)).backward()"),
            ),
        ),
        Mistake(
            "not divided",
            "The gradient of a mean is that of the sum over the count.",
            ((_BACK, "loss.backward()"),),
        ),
    ),
    hints=(
        "The loss of a piece is a sum. What is it divided by?",
        "Count first, over all pieces; then one backward pass for each.",
        "Gradients add up by themselves in .grad.",
    ),
    branches={
        "several pieces": lambda weight, pieces: len(pieces) > 1,
        "pieces of different counts": lambda weight, pieces: (
            len({int(mask.sum()) for _, _, mask in pieces}) > 1
        ),
        "a piece that counts nothing": lambda weight, pieces: any(
            not mask.any() for _, _, mask in pieces
        ),
        "padding": lambda weight, pieces: any(not mask.all() for _, _, mask in pieces),
    },
)

CLIP_BY_GLOBAL_NORM = Exercise(
    name="clip_by_global_norm",
    topic="training/gradient_accumulation",
    level=1,
    task="Return the gradients (a list of tensors), shortened together to the norm max_norm if "
    "theirs is larger, and the norm that they had.",
    inputs=_gradients,
    definition="accumulation-clip-projection",
    laws=(
        Law("The result has at most the norm max_norm.", "accumulation-clip-projection", _short),
        Law(
            "Gradients with a smaller norm are left alone.",
            "accumulation-clip-projection",
            _same_inside,
        ),
        Law("The direction is kept.", "accumulation-clip-projection", _direction),
        Law(
            "The norm does not depend on how the entries are split into tensors.",
            "accumulation-clip-projection",
            _one_vector,
        ),
    ),
    mistakes=(
        Mistake(
            "each tensor by its own norm",
            "That turns the gradient: the norm is of all tensors as one vector.",
            ((_SCALED, "g * (max_norm / g.norm().clamp(min=max_norm))"),),
        ),
        Mistake(
            "sum of the norms",
            "Norms do not add; their squares do.",
            ((_NORM, "torch.stack([g.square().sum().sqrt() for g in grads]).sum()"),),
        ),
        Mistake(
            "largest norm",
            "The norm is of all tensors as one vector.",
            ((_NORM, "torch.stack([g.square().sum() for g in grads]).max().sqrt()"),),
        ),
        Mistake(
            "always rescaled",
            "A gradient that is short enough stays: its length says how near the minimum is.",
            (("if norm > max_norm:", "if norm > 0:"),),
        ),
        Mistake(
            "root forgotten",
            "The norm is the root of the sum of squares.",
            ((".sum().sqrt()", ".sum()"),),
        ),
        Mistake(
            "mean of squares",
            "The norm is of a sum, whatever the number of entries.",
            (("g.square().sum()", "g.square().mean()"),),
        ),
        Mistake(
            "factor upside down",
            "The factor is below 1: max_norm over the norm.",
            ((_SCALED, "g * (norm / max_norm)"),),
        ),
        Mistake(
            "norm of the result",
            "What one logs is the norm before clipping.",
            (("return grads, norm", "return grads, norm.clamp(max=max_norm)"),),
        ),
    ),
    conventions=(
        Convention(
            "1e-6 added to the norm",
            "torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6. To match, divide by the norm.",
            ((_SCALED, "g * (max_norm / (norm + 1e-6))"),),
        ),
        Convention(
            "clipping by value",
            "torch.nn.utils.clip_grad_value_ cuts each entry, which turns the gradient. To match, "
            "scale all entries by one factor.",
            (
                ("if norm > max_norm:", "if norm >= 0:"),
                (_SCALED, "g.clamp(-max_norm, max_norm)"),
            ),
        ),
    ),
    hints=(
        "One norm for all tensors: what adds up?",
        "Nothing happens to a gradient that is short enough.",
        "All tensors are multiplied by one factor.",
    ),
    branches={
        "clipped": lambda grads, max_norm: (
            sum(float(g.square().sum()) for g in grads) > max_norm**2
        ),
        "not clipped": lambda grads, max_norm: (
            sum(float(g.square().sum()) for g in grads) < max_norm**2
        ),
        "no gradient anywhere": lambda grads, max_norm: all(not g.any() for g in grads),
        "one tensor short, one long": lambda grads, max_norm: (
            min(float(g.norm()) for g in grads) < max_norm < max(float(g.norm()) for g in grads)
        ),
    },
)

EXERCISES = (ACCUMULATED_GRADIENT, CLIP_BY_GLOBAL_NORM)
