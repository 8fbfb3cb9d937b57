"""One call of a reader's function: in which precision, what it returns, and what is wrong with it.

Leaves out: whether what it returns is right (judging).
"""

import bdb
import contextlib
import copy
import io
import linecache
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function

_MOST_PRINTED = 2000  # characters


class TooLongError(BaseException):
    """The time is over. No `except Exception` of a reader stops it."""


@dataclass(frozen=True)
class Called:
    """What a call returned and printed; `problem` says what went wrong with it, if anything did."""

    value: Any = None
    problem: str = ""
    printed: str = ""


def called(function: Function, arguments: tuple[Any, ...], exercise: Exercise) -> Called:
    """Call a function, whatever it does."""
    before = copy.deepcopy(arguments)
    out = io.StringIO()
    value, problem = None, ""
    try:
        with contextlib.redirect_stdout(out):
            value = function(*arguments)
    except TooLongError as failure:
        problem = f"it did not finish in {failure} s{_place(failure, function)}"
    except bdb.BdbQuit:
        problem = "breakpoint() does not work here: run your file with python -i"
    except (Exception, SystemExit) as failure:
        problem = _raised(failure, function, exercise)
    else:
        problem = _changed(arguments, before, exercise)
    return Called(value, problem, out.getvalue()[:_MOST_PRINTED].rstrip())


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let what a function creates without saying a dtype have that of its arguments."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def as_dtype(given: Any, dtype: torch.dtype) -> Any:
    """Arguments of another precision, each a copy; also those in a list or a pair."""
    if isinstance(given, (list, tuple)):
        return type(given)(as_dtype(it, dtype) for it in given)
    if isinstance(given, Tensor):
        return _rounded(given, dtype) if given.is_floating_point() else given.clone()
    return given


def _rounded(given: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in another precision; what is below 1 stays so, since a uniform does."""
    rounded = given.clone().to(dtype)
    return rounded.masked_fill((given < 1) & (rounded == 1), 1 - torch.finfo(dtype).eps / 2)


def where(failure: BaseException, file: str) -> str:
    """', in line 3: return y' of the last line of a file that an exception came through."""
    frames = [it for it in traceback.extract_tb(failure.__traceback__) if it.filename == file]
    if not frames or "site-packages" in file:
        return ""
    line = frames[-1].line or linecache.getline(file, frames[-1].lineno or 0).strip()
    return f", in line {frames[-1].lineno}: {line}"


def _place(failure: BaseException, function: Function) -> str:
    return where(failure, getattr(getattr(function, "__code__", None), "co_filename", ""))


def _raised(failure: BaseException, function: Function, exercise: Exercise) -> str:
    """An exception at the reader's own line."""
    kind = f"{type(failure).__name__}: {failure}".rstrip(": ")
    place = _place(failure, function)
    if not place and isinstance(failure, TypeError) and "argument" in str(failure):
        return f"it cannot be called as {exercise.signature}: {failure}"
    return f"it raises {kind}{place}"


def _changed(arguments: tuple[Any, ...], before: tuple[Any, ...], exercise: Exercise) -> str:
    for number, (one, other) in enumerate(zip(arguments, before, strict=True)):
        if not _unchanged(one, other):
            name = exercise.signature.partition("(")[2].rstrip(")").split(", ")[number]
            return f"it changes its argument {name.partition('=')[0]}; work on a copy"
    return ""


def _unchanged(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_unchanged, one, other))
    if not isinstance(one, Tensor):
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
