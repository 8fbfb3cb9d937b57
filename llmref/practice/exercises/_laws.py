"""What exercises share: laws that leave alone what has another shape, and a mistake."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake


@dataclass(frozen=True)
class LawOfForms(Law):
    """A law that tells of shapes too, such as that of a cache which grows."""


def of_numbers(law: Law, exercise: Exercise) -> Law:
    """The same law, kept by what has not the shapes of the solution.

    Such a result breaks the law only by accident: what is wrong with it is its shape.
    """
    if isinstance(law, LawOfForms):
        return law

    def breaks(function: Function, *given: Any) -> bool:
        form = _shapes(exercise.solution(*copy.deepcopy(given)))
        if form is not None and _shapes(function(*copy.deepcopy(given))) != form:
            return False
        return law.breaks(function, *given)

    return replace(law, breaks=breaks)


def passes(result: Any, leaf: Tensor) -> bool:
    """Whether a gradient passes from a result to an argument."""
    return bool((slope(result, leaf) != 0).any())


def slope(result: Any, leaf: Tensor) -> Tensor:
    """The gradient of the sum of a result in an argument; 0 if none passes."""
    if not result.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(result.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def padded(mask: Tensor, *tokens: Tensor) -> tuple[Tensor, ...]:
    """Tensors (N, T) and their mask, with a column at both ends that does not count."""
    off = torch.zeros_like(mask[:, :1])
    first = [it[:, :1] - 1 - place for place, it in enumerate(tokens)]
    longer = [torch.cat([end, it, end - 1], 1) for end, it in zip(first, tokens, strict=True)]
    return *longer, torch.cat([off, mask, off], 1)


def without_maximum(pieces: tuple[tuple[str, str], ...]) -> Mistake:
    """The mistake that all softmaxes share, by its edit of a solution."""
    return Mistake(
        "exp without the maximum",
        "The exponential of 710 is beyond float64, and that of -750 is 0: subtract the largest "
        "score first, which changes nothing else.",
        pieces,
    )


def _shapes(value: Any) -> Any:
    """Shapes of tensors, also of those in a pair; None for integers and lists of them."""
    if isinstance(value, (list, tuple)):
        inner = tuple(map(_shapes, value))
        return inner if any(it is not None for it in inner) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None
