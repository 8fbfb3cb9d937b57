"""What is made of an exercise: laws that leave alone what is no number, and more mistakes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from llmref.practice.compared import same
from llmref.practice.exercise import Exercise, Function, Law, Mistake


@dataclass(frozen=True)
class LawOfForms(Law):
    """A law that tells of shapes too, such as that of a cache which grows."""


def of_numbers(law: Law, exercise: Exercise) -> Law:
    """The same law, kept by what has not the shapes of the solution, or is another at each call.

    Such a result breaks the law only by accident: what is wrong with it is something else.
    """
    if isinstance(law, LawOfForms):
        return law

    def breaks(function: Function, *given: Any) -> bool:
        form = _shapes(exercise.solution(*copy.deepcopy(given)))
        if form is not None and _shapes(function(*copy.deepcopy(given))) != form:
            return False
        return not _by_chance(function, exercise.inputs) and law.breaks(function, *given)

    return replace(law, breaks=breaks)


def with_mistakes(exercise: Exercise, *mistakes: Mistake) -> Exercise:
    """The exercise with more mistakes, for its judge alone."""
    return replace(exercise, mistakes=(*exercise.mistakes, *mistakes))


@lru_cache(maxsize=1)
def _by_chance(function: Function, inputs: Callable[[], list[tuple[Any, ...]]]) -> bool:
    """Whether two calls differ, on the largest input: there dropout is seen best."""
    largest = inputs()[-1]
    try:
        return not same(*(function(*copy.deepcopy(largest)) for _ in range(2)))
    except Exception:
        return False


def _shapes(value: Any) -> Any:
    """Shapes of tensors, also of those in a pair; None for integers and lists of them."""
    if isinstance(value, (list, tuple)):
        inner = tuple(map(_shapes, value))
        return inner if any(it is not None for it in inner) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None
