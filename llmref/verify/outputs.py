"""What functions return, side by side: tensors, numbers, strings, None, and nestings of these.

Lists and tuples are alike; dtypes and shapes must agree, and nothing is broadcast. Leaves out:
what is compared with what (by_hand).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmref.verify.errors import NotANumberError

_SCALARS = (bool, int, float, str, bytes, type(None))
_LONGEST_VALUE = 30  # characters of a value that differs


def difference(result: str, returned: Any, target: Any, atol: float) -> tuple[float, str]:
    """The largest error between two outputs, infinite where no number tells it; and its words.

    A NaN raises if all else agrees.
    """
    differences = list(_differences(result, returned, target))
    numbers = [(error, seen) for error, seen in differences if not math.isnan(error)]
    error, seen = max(numbers, key=lambda d: d[0], default=(0.0, ""))
    if len(numbers) < len(differences) and error <= atol:
        raise NotANumberError(result, "one side holds a NaN")
    return error, seen


def _differences(result: str, returned: Any, target: Any) -> Iterator[tuple[float, str]]:
    kinds = [_kind(result, value) for value in (returned, target)]
    if kinds[0] is not kinds[1]:
        yield math.inf, f"{kinds[0].__name__} for {kinds[1].__name__}"
    elif kinds[0] is Tensor:
        yield from _tensor_differences(returned, target)
    elif kinds[0] is list:
        if len(returned) != len(target):
            yield math.inf, f"{len(returned)} items for {len(target)}"
        for one, other in zip(returned, target, strict=False):
            yield from _differences(result, one, other)
    elif kinds[0] is dict:
        if returned.keys() != target.keys():
            yield math.inf, f"keys {short([*returned])} for {short([*target])}"
        for key in (key for key in target if key in returned):
            yield from _differences(result, returned[key], target[key])
    elif kinds[0] is float:
        yield from _tensor_differences(*(_float64(value) for value in (returned, target)))
    elif returned != target:
        yield math.inf, f"{short(returned)} for {short(target)}"


def _kind(result: str, value: Any) -> type:
    """What a value is compared as; lists and tuples are alike."""
    if isinstance(value, Tensor):
        return Tensor
    if isinstance(value, (list, tuple)):
        return list
    if isinstance(value, dict):
        return dict
    if type(value) in _SCALARS:
        return type(value)
    raise TypeError(f"{result}: by_hand compares no {type(value).__name__}")


def _tensor_differences(returned: Tensor, target: Tensor) -> Iterator[tuple[float, str]]:
    """The largest error of the numbers, and a NaN if one side holds one."""
    a, b = returned.detach(), target.detach()
    if a.shape != b.shape:
        yield math.inf, f"shape {tuple(a.shape)} for {tuple(b.shape)}"
    elif a.dtype != b.dtype:
        yield math.inf, f"{a.dtype} for {b.dtype}"
    elif not a.is_floating_point() and not a.is_complex():
        differing = int((a != b).sum())
        yield (math.inf if differing else 0.0), f"{differing} of {a.numel()} entries differ"
    elif a.numel():
        wide = torch.complex128 if a.is_complex() else torch.float64
        is_hole = a.isnan() | b.isnan()
        # inf - inf is NaN, although two equal infinities do not differ.
        distance = (a.to(wide) - b.to(wide)).abs().masked_fill(is_hole | (a == b), 0)
        error = float(distance.nan_to_num(math.inf, math.inf).max())
        yield error, f"largest error {error:.2g}"
        if is_hole.any():
            yield math.nan, "a NaN"


def has_changed(arguments: Any, given: Any) -> bool:
    """Whether a call has changed its arguments, which were a copy of what was given."""
    if isinstance(given, Tensor):
        a, b = arguments.detach(), given.detach()
        return a.shape != b.shape or a.dtype != b.dtype or not _same_entries(a, b)
    if isinstance(given, dict):
        return list(arguments) != list(given) or has_changed(
            [*arguments.values()], [*given.values()]
        )
    if isinstance(given, (list, tuple)):
        pairs = zip(arguments, given, strict=False)
        return len(arguments) != len(given) or any(has_changed(a, b) for a, b in pairs)
    if arguments is given:  # what is its own copy cannot change: a number, a function
        return False
    if type(given) in _SCALARS:
        return bool(arguments != given)
    raise TypeError(f"by_hand passes no {type(given).__name__}: nobody could see it changed")


def _same_entries(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def size(value: Any) -> int:
    """How many values an output holds; None is none."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(size(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(size(item) for item in value)
    return value is not None


def _float64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
