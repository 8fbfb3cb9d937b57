"""Checks of code written by hand: it gives what the library gives, on every input.

Leaves out: speed, and inputs that the page does not list.
"""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmref.verify.check import (
    Check,
    reject_all,
    require_known,
    require_tolerance,
)
from llmref.verify.errors import ByHandError, CheckFailedError, NotANumberError

_HOME = "llmref.practice.by_hand."
_SCALARS = (bool, int, float, str, bytes, type(None))
_LONGEST_VALUE = 30  # characters of a value that differs


def by_hand(
    result: str,
    function: Callable[..., Any],
    library: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    wrong: Mapping[str, Callable[..., Any]],
    atol: float = 1e-12,
    nan: Collection[str] = (),
    note: str = "",
) -> Check:
    """Check that `function` returns what `library` returns, on every input.

    Arguments: `function` is defined below llmref.practice.by_hand, `library` calls functions of the
    groups; each of `inputs` is a tuple of arguments, which every call gets as a copy of its own.
    What they return: tensors, numbers, strings, None, and nested lists, tuples and dicts of these;
    floats agree within `atol`, all else exactly, dtypes and shapes too. Each function in `wrong`
    replaces `function`, and must differ or raise on one input at least; `nan` names those that only
    a NaN gives away.
    Raises: ByHandError if there is nothing to compare or `function` changes its arguments;
    CheckFailedError, NotANumberError, MissingWrongVariantError, WrongVariantPassedError,
    MissingScopeError, ResultIdError; TypeError for a value of another type.
    """
    require_known(result)
    require_tolerance(result, atol)
    name = _require_by_hand(result, function, library)
    _require_inputs(result, inputs)
    expected = [library(*copy.deepcopy(given)) for given in inputs]
    largest, compared = 0.0, 0
    for place, (given, target) in enumerate(zip(inputs, expected, strict=True), start=1):
        arguments = copy.deepcopy(given)
        returned = function(*arguments)
        if _unequal(arguments, given):
            raise ByHandError(result, f"{name} changes its arguments (input {place})")
        error, seen = _difference(result, returned, target, atol)
        if error > atol:
            raise CheckFailedError(result, f"{seen} on input {place}, allowed {atol:.2g}")
        largest, compared = max(largest, error), compared + _size(target)
    if not compared:
        raise ByHandError(result, "nothing was compared: every output is empty")

    def test(mistaken: Callable[..., Any]) -> tuple[bool, str]:
        return _first_difference(result, mistaken, inputs, expected, atol)

    rejected = reject_all(result, wrong, test, nan)
    figure = f"{function.__name__} equals llmref on {_inputs(inputs)}, largest error {largest:.2g}"
    return Check(result, "by_hand", figure, len(inputs), rejected, note, function=name)


def _require_by_hand(result: str, function: Any, library: Any) -> str:
    """The dotted name of `function`, which must not be compared with itself."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    if not name.startswith(_HOME) or "<" in name:
        raise ByHandError(result, f"the function must be defined below {_HOME[:-1]}, got {name}")
    while isinstance(library, functools.partial):
        library = library.func
    home = f"{getattr(library, '__module__', '')}."
    if home.startswith("llmref.practice."):
        raise ByHandError(result, "the library must be another code than that of llmref.practice")
    return name


def _require_inputs(result: str, inputs: Any) -> None:
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise ByHandError(result, "give at least one input: a list of tuples of arguments")
    for given in inputs:
        if not isinstance(given, tuple):
            raise ByHandError(result, f"each input is a tuple of arguments, got {_short(given)}")


def _first_difference(
    result: str,
    mistaken: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    expected: Sequence[Any],
    atol: float,
) -> tuple[bool, str]:
    """Whether a mistaken function passes; if not, what the first input showed on which it fails."""
    no_number = None
    for place, (given, target) in enumerate(zip(inputs, expected, strict=True), start=1):
        _require_signature(result, mistaken, given)
        try:
            returned = mistaken(*copy.deepcopy(given))
        except NameError as failure:  # a slip of the author, not of a reader
            raise ByHandError(result, f"a wrong function does not run: {failure}") from failure
        except Exception as failure:
            return False, f"raises {type(failure).__name__} on input {place}"
        try:
            error, seen = _difference(result, returned, target, atol)
        except NotANumberError as failure:
            no_number = failure
            continue
        if error > atol:
            return False, f"{seen} on input {place}"
    if no_number:
        raise no_number
    return True, f"the same on {_inputs(inputs)}"


def _require_signature(result: str, function: Callable[..., Any], given: Any) -> None:
    """A function of other arguments raises too, but that shows nothing."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function of torch in C has none
        return
    try:
        signature.bind(*given)
    except TypeError as failure:
        raise ByHandError(result, f"a wrong function has another signature: {failure}") from failure


def _difference(result: str, returned: Any, target: Any, atol: float) -> tuple[float, str]:
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
            yield math.inf, f"keys {_short([*returned])} for {_short([*target])}"
        for key in returned.keys() & target.keys():
            yield from _differences(result, returned[key], target[key])
    elif kinds[0] is float:
        yield from _tensor_differences(*(_float64(value) for value in (returned, target)))
    elif returned != target:
        yield math.inf, f"{_short(returned)} for {_short(target)}"


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


def _unequal(arguments: Any, given: Any) -> bool:
    """Whether a call has changed its arguments, which were a copy of what was given."""
    if isinstance(given, Tensor):
        a, b = arguments.detach(), given.detach()
        return a.shape != b.shape or a.dtype != b.dtype or not _same_entries(a, b)
    if isinstance(given, dict):
        return list(arguments) != list(given) or _unequal([*arguments.values()], [*given.values()])
    if isinstance(given, (list, tuple)):
        pairs = zip(arguments, given, strict=False)
        return len(arguments) != len(given) or any(_unequal(a, b) for a, b in pairs)
    if arguments is given:  # what is its own copy cannot change: a number, a function
        return False
    if type(given) in _SCALARS:
        return bool(arguments != given)
    raise TypeError(f"by_hand passes no {type(given).__name__}: nobody could see it changed")


def _same_entries(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _size(value: Any) -> int:
    """How many values an output holds; None is none."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_size(item) for item in value)
    return value is not None


def _inputs(inputs: Sequence[Any]) -> str:
    return f"{len(inputs)} input{'' if len(inputs) == 1 else 's'}"


def _float64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
