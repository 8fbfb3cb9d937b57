"""The judge: one function, all inputs of its exercise, one verdict.

Runs in the process that runs the function (process). Leaves out: how a verdict is shown (verdict).
"""

import contextlib
import copy
import io
import linecache
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmref.practice import compared
from llmref.practice.exercise import Edit, Exercise, Function

Answer = dict[str, Any]
_LONGEST_INPUT = 280  # characters of an input that is printed whole


@contextlib.contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Let what a function creates without saying a dtype have that of its arguments."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def judge_here(exercise: Exercise, function: Any) -> Answer:
    """Judge in this process; the answer is plain data, the fields of a Verdict."""
    if not callable(function):
        return _wrong(f"{exercise.name} must be a function, not a {type(function).__name__}")
    inputs = exercise.inputs()
    largest, started, spent = 0.0, time.perf_counter(), 0.0
    for dtype in (torch.float64, torch.float32):
        wide = dtype == torch.float64
        tolerance = exercise.tolerance if wide else compared.TOLERANCE_OF_FLOAT32
        for given in inputs:
            arguments = _as(given, dtype)
            begin = time.perf_counter()
            with _default(dtype):
                found, problem = _called(function, arguments, exercise)
            spent += time.perf_counter() - begin
            if problem:
                return _wrong(problem, _shown(exercise, given))
            wanted = exercise.solution(*_as(given, dtype))
            if problem := compared.difference(found, wanted, tolerance):
                with contextlib.redirect_stdout(io.StringIO()):  # it has printed its part
                    return _explained(exercise, function, inputs, given, dtype, problem)
            if wide:
                largest = max(largest, compared.error(found, wanted))
    model = max(time.perf_counter() - started - spent, 1e-9)
    return {
        "outcome": "right",
        "inputs": len(inputs),
        "error": largest,
        "time": spent / model,
        "laws": [law.words for law in exercise.laws],
    }


@_default(torch.float64)
def _explained(
    exercise: Exercise,
    function: Function,
    inputs: Sequence[tuple[Any, ...]],
    given: tuple[Any, ...],
    dtype: torch.dtype,
    problem: str,
) -> Answer:
    """What is wrong, as far as it is known: a convention, a law, a known mistake, an input."""
    outputs = [output(function, it) for it in inputs]
    for convention in exercise.conventions:
        if _is_variant(exercise, convention, inputs, outputs):
            return {
                "outcome": "convention",
                "convention": convention.name,
                "why": convention.why,
                **_shown(exercise, given),
                "problem": problem,
            }
    mistakes = [it for it in exercise.mistakes if _is_variant(exercise, it, inputs, outputs)]
    answer = _wrong(problem, _shown(exercise, given))
    for law in () if problem.startswith("it returns") else exercise.laws:
        if law.broken_by(_in_tensors(function), inputs):
            answer |= {"law": law.words, "result": law.result}
            break
    else:
        answer |= {"law": exercise.task, "result": exercise.definition}
    if dtype != torch.float64:
        answer["problem"] += " (in float32; in float64 it is right)"
    if mistakes:
        answer["mistake"] = " or ".join(f"'{it.name}'" for it in mistakes)
        answer["why"] = " ".join(it.why for it in mistakes)
    return answer


def _called(function: Function, arguments: tuple[Any, ...], exercise: Exercise) -> tuple[Any, str]:
    """What a function returns, and what is wrong with the call itself."""
    before = copy.deepcopy(arguments)
    try:
        found = function(*arguments)
    except (Exception, SystemExit) as failure:
        return None, _raised(failure, function, exercise)
    for number, (one, other) in enumerate(zip(arguments, before, strict=True)):
        if not _unchanged(one, other):
            name = exercise.signature.partition("(")[2].rstrip(")").split(", ")[number]
            return None, f"it changes its argument {name.partition('=')[0]}; work on a copy"
    return found, ""


def _unchanged(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_unchanged, one, other))
    if not isinstance(one, Tensor):
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _raised(failure: BaseException, function: Function, exercise: Exercise) -> str:
    """An exception at the reader's own line: the last one of a file of theirs."""
    kind = f"{type(failure).__name__}: {failure}".rstrip(": ")
    file = getattr(getattr(function, "__code__", None), "co_filename", "")
    frames = [it for it in traceback.extract_tb(failure.__traceback__) if it.filename == file]
    if not frames:
        if isinstance(failure, TypeError) and "argument" in str(failure):
            return f"it cannot be called as {exercise.signature}: {failure}"
        return f"it raises {kind}"
    line = frames[-1].line or linecache.getline(file, frames[-1].lineno or 0).strip()
    return f"it raises {kind}, in line {frames[-1].lineno}: {line}"


def output(function: Function, given: tuple[Any, ...]) -> Any:
    """What a function returns for a copy of an input; None if it raises."""
    try:
        return function(*copy.deepcopy(given))
    except Exception:
        return None


def _is_variant(
    exercise: Exercise, edit: Edit, inputs: Sequence[tuple[Any, ...]], outputs: Sequence[Any]
) -> bool:
    variant = exercise.variant(edit)
    return all(
        (theirs is None and ours is None)
        or (ours is not None and compared.same(theirs, ours, exercise.tolerance))
        for theirs, ours in zip(outputs, (output(variant, it) for it in inputs), strict=True)
    )


def _in_tensors(function: Function) -> Function:
    """The same function, which returns tensors for arrays and numbers: laws compute with them."""
    return lambda *arguments: _tensors(function(*arguments))


def _tensors(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_tensors, value))
    tensor = compared.as_tensor(value)
    return value if tensor is None else tensor


def _as(given: Any, dtype: torch.dtype) -> Any:
    """Arguments of another precision, each a copy; also those in a list or a pair."""
    if isinstance(given, (list, tuple)):
        return type(given)(_as(it, dtype) for it in given)
    if isinstance(given, Tensor):
        return given.clone().to(dtype if given.is_floating_point() else given.dtype)
    return given


def _shown(exercise: Exercise, given: tuple[Any, ...]) -> Answer:
    """The input as a call that a reader can paste, and what it should give."""
    call = f"{exercise.name}({', '.join(map(compared.text, given))})"
    wanted = compared.text(exercise.solution(*copy.deepcopy(given)))
    if len(call) > _LONGEST_INPUT or len(wanted) > _LONGEST_INPUT:
        shapes = ", ".join(map(_form, given))
        return {"call": f"{exercise.name} on arguments of the shapes {shapes}"}
    return {"call": call, "expected": wanted}


def _form(value: Any) -> str:
    """The shape of an argument: (2, 3), or ((2, 3), (2, 3)) of a pair."""
    if isinstance(value, (list, tuple)) and any(isinstance(it, Tensor) for it in value):
        return f"({', '.join(map(_form, value))})"
    return compared.shape(value) if isinstance(value, Tensor) else repr(value)


def _wrong(problem: str, shown: Answer | None = None) -> Answer:
    return {"outcome": "wrong", "problem": problem, **(shown or {})}
