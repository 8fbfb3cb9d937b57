"""Whether the gradient of a function whose values are right is right too.

All inputs are tried for gradients that are not a number; the last, which has no ties, for the rest.
Leaves out: gradients that an exercise asks for (judging compares them as values).
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmref.practice import compared
from llmref.practice.calling import as_dtype, called, default_dtype
from llmref.practice.exercise import Exercise, Function

_NONE = "no gradient passes through it: in training, return what torch computed from x"
_SHOULD_NOT = "a gradient passes through {}, and none should: detach it"
_NAN = "its value is right, its gradient in {} is not a number for input {}, counted from 0"
_DETACHED = "its value is right, its gradient in {} is not: a part of it is detached"
_HELD = "its value is right, its gradient in {} is not: detach what is held fixed, and no more"


def remarks(exercise: Exercise, function: Function, inputs: Sequence[tuple[Any, ...]]) -> list[str]:
    """What is wrong with the gradient, in at most one remark; nothing if torch cannot say."""
    if exercise.name.endswith("_backward"):
        return []
    for number, given in reversed(list(enumerate(inputs))):
        if remark := _remark(exercise, function, given, number, number == len(inputs) - 1):
            return [remark]
    return []


def agree(
    exercise: Exercise, function: Function, other: Function, inputs: Sequence[tuple[Any, ...]]
) -> bool:
    """Whether two functions have the same gradients on every input, which may be NaN."""
    return all(
        _same(exercise, _slope(exercise, function, given), _slope(exercise, other, given))
        for given in inputs
    )


def _slope(
    exercise: Exercise, function: Function, given: tuple[Any, ...]
) -> dict[str, Tensor] | None:
    """The gradient in each argument that asks for one; None if torch cannot say."""
    arguments = _leaves(exercise, given)
    leaves = _trained(arguments)
    with torch.enable_grad(), default_dtype(torch.float64):
        results = _tensors(called(function, tuple(arguments.values()), exercise).value)
    try:
        return _slopes(results, [it.requires_grad for it in results], leaves)
    except RuntimeError:
        return None


def _same(
    exercise: Exercise, one: dict[str, Tensor] | None, other: dict[str, Tensor] | None
) -> bool:
    if one is None or other is None:
        return False
    return all(compared.same(one[name], other[name], exercise.tolerance) for name in other)


def _trained(arguments: dict[str, Any]) -> dict[str, Tensor]:
    return {
        name: it for name, it in arguments.items() if isinstance(it, Tensor) and it.requires_grad
    }


def _remark(
    exercise: Exercise, function: Function, given: tuple[Any, ...], number: int, last: bool
) -> str:
    arguments = _leaves(exercise, given)
    leaves = _trained(arguments)
    with torch.enable_grad():
        wanted = _tensors(exercise.solution(*arguments.values()))
        with default_dtype(torch.float64):
            found = _tensors(called(function, tuple(arguments.values()), exercise).value)
    if not leaves or len(found) != len(wanted):
        return ""
    flows = [it.requires_grad for it in wanted]
    if last:
        for place, (one, should) in enumerate(zip(found, flows, strict=True)):
            if one.requires_grad and not should:
                return _SHOULD_NOT.format(f"entry {place}" if len(found) > 1 else "it")
            if should and not one.requires_grad:
                return _NONE
    try:
        mine, right = (_slopes(it, flows, leaves) for it in (found, wanted))
    except RuntimeError:  # written in place: torch itself says so to who differentiates
        return ""
    return _difference(exercise, mine, right, number, last)


def _difference(
    exercise: Exercise,
    mine: dict[str, Tensor],
    right: dict[str, Tensor],
    number: int,
    last: bool,
) -> str:
    lost = [name for name in right if right[name].isfinite().all() and mine[name].isnan().any()]
    if lost:
        return _NAN.format(" and ".join(lost), number)
    off = [it for it in right if not compared.same(mine[it], right[it], exercise.tolerance)]
    if off and last:
        words = _HELD if "detach" in exercise.source else _DETACHED
        return words.format(" and ".join(off))
    return ""


def _leaves(exercise: Exercise, given: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments by name; those that are trained ask for a gradient."""
    names = inspect.signature(exercise.solution).parameters
    arguments = dict(zip(names, as_dtype(given, torch.float64), strict=False))
    for name, it in arguments.items():
        if isinstance(it, Tensor) and it.is_floating_point() and name not in exercise.fixed:
            it.requires_grad_()
    return arguments


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of a result, one or several."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return [it for it in values if isinstance(it, Tensor)]


def _slopes(
    results: list[Tensor], flows: list[bool], leaves: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The gradients of a weighted sum of the results; 0 where none passes.

    The weights differ, since a plain sum of what is normalised is constant.
    """
    parts = [it.flatten() for it, flow in zip(results, flows, strict=True) if flow]
    if not any(it.requires_grad for it in parts):
        return {name: torch.zeros_like(it) for name, it in leaves.items()}
    entries = torch.cat(parts)
    weights = torch.cos(torch.arange(len(entries), dtype=entries.dtype))
    found = torch.autograd.grad(
        entries, list(leaves.values()), weights, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))
