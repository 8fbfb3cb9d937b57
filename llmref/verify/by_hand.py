"""Checks of code written by hand: it gives what the library gives, on every input.

Leaves out: speed, and inputs that the page does not list.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llmref.verify.check import Check, passed, reject_all, require_known, require_tolerance
from llmref.verify.errors import ByHandError, CheckFailedError, NotANumberError
from llmref.verify.outputs import difference, has_changed, short, size

_HOME = "llmref.practice.by_hand."
_NOTEBOOK = "__main__."  # where a reader changes the code; a page must confirm that of its file


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

    Arguments: `function` is defined below llmref.practice.by_hand, or in a cell of a notebook;
    `library` calls functions of the groups; each of `inputs` is a tuple of arguments, which every
    call gets as a copy of its own.
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
        if has_changed(arguments, given):
            raise ByHandError(result, f"{name} changes its arguments (input {place})")
        error, seen = difference(result, returned, target, atol)
        if error > atol:
            raise CheckFailedError(result, f"{seen} on input {place}, allowed {atol:.2g}")
        largest, compared = max(largest, error), compared + size(target)
    if not compared:
        raise ByHandError(result, "nothing was compared: every output is empty")

    def test(mistaken: Callable[..., Any]) -> tuple[bool, str]:
        return _first_difference(result, mistaken, inputs, expected, atol)

    rejected = reject_all(result, wrong, test, nan)
    figure = f"{function.__name__} equals llmref on {_inputs(inputs)}, largest error {largest:.2g}"
    return passed(result, "by_hand", figure, len(inputs), rejected, note, function=name)


def _require_by_hand(result: str, function: Any, library: Any) -> str:
    """The dotted name of `function`, which must not be compared with itself."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    if not name.startswith((_HOME, _NOTEBOOK)) or "<" in name:
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
            raise ByHandError(result, f"each input is a tuple of arguments, got {short(given)}")


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
            error, seen = difference(result, returned, target, atol)
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


def _inputs(inputs: Sequence[Any]) -> str:
    return f"{len(inputs)} input{'' if len(inputs) == 1 else 's'}"
