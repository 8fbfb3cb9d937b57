"""The judge: one function, all inputs of its exercise, one verdict.

Runs in the process that runs the function (process). Leaves out: a single call (calling), what a
gradient should be (gradients), and how a verdict is shown (verdict).
"""

import contextlib
import copy
import io
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmref.practice import compared, gradients
from llmref.practice.calling import Called, TooLongError, as_dtype, called, default_dtype
from llmref.practice.exercise import Edit, Exercise, Function, Law
from llmref.practice.exercises._laws import LawOfForms

Answer = dict[str, Any]
_LONGEST_INPUT = 280  # characters of an input that is printed whole
_FEWEST = 3  # inputs that tell which mistake it is
_LAWS_ARE_EXACT = 1e-10  # what is float32 inside has right values, and keeps laws roughly
_YET = "its values are right on every input, but it breaks a law: {}"
_BY_GRADIENT = "look at its gradient"
_ELSEWHERE = "look at other arguments"
_RANDOM = (
    "two calls with the same arguments differ: is there randomness, or something that is kept?"
)


def judge_here(exercise: Exercise, function: Any) -> Answer:
    """Judge in this process; the answer is plain data, the fields of a Verdict."""
    if not callable(function):
        return _wrong(f"{exercise.name} must be a function, not a {type(function).__name__}")
    inputs = exercise.inputs()
    remarks: list[str] = []
    largest, printed = 0.0, ""
    for dtype in (torch.float64, torch.float32):
        wide = dtype == torch.float64
        tolerance = exercise.tolerance if wide else compared.TOLERANCE_OF_FLOAT32
        for number, given in enumerate(inputs):
            with default_dtype(dtype):
                seen = called(function, as_dtype(given, dtype), exercise)
            shown = _shown(exercise, number, given) | {"printed": seen.printed}
            if seen.problem:
                return _wrong(seen.problem, shown)
            with default_dtype(dtype):
                wanted = exercise.solution(*as_dtype(given, dtype))
            if problem := compared.difference(seen.value, wanted, tolerance):
                if not wide:
                    problem += " (in float32; in float64 it is right)"
                return _explained(exercise, function, inputs, given, seen, problem, shown)
            if wide:
                largest = max(largest, compared.error(seen.value, wanted))
                printed = printed if number else seen.printed
            elif not remarks:
                remarks += compared.other_dtype(seen.value, wanted)
    with contextlib.redirect_stdout(io.StringIO()):
        if largest < _LAWS_ARE_EXACT and (law := _broken(exercise.laws, function, inputs)):
            return _broken_yet_right(exercise, function, inputs, law)
        remarks += _only_by_default(exercise, function, inputs[-1])
        remarks += gradients.remarks(exercise, function, inputs)
        spent = _seconds(function, inputs) / _seconds(exercise.solution, inputs)
    return {
        "outcome": "right",
        "inputs": len(inputs),
        "exact": compared.is_plain(exercise.solution(*copy.deepcopy(inputs[0]))),
        "error": largest,
        "time": spent,
        "laws": [law.words for law in exercise.laws],
        "remarks": remarks,
        "printed": printed,
    }


def _broken_yet_right(
    exercise: Exercise, function: Function, inputs: Sequence[tuple[Any, ...]], law: Law
) -> Answer:
    """What is wrong where all values are right: a law, and the mistake if it is known."""
    slopes_differ = gradients.remarks(exercise, function, inputs)
    answer = _wrong(_YET.format(_BY_GRADIENT if slopes_differ else _ELSEWHERE))
    known = [
        it
        for it in exercise.hidden_mistakes
        if law.broken_by(exercise.variant(it), inputs)
        and gradients.agree(exercise, function, exercise.variant(it), inputs)
    ]
    return answer | {"law": law.words, "result": law.result} | _all_of(known)


def _all_of(edits: Sequence[Edit]) -> Answer:
    """The names and the reasons of what a function equals."""
    if not edits:
        return {}
    return {
        "mistake": " or ".join(f"'{it.name}'" for it in edits),
        "why": " ".join(it.why for it in edits),
    }


@default_dtype(torch.float64)
def _explained(
    exercise: Exercise,
    function: Function,
    inputs: Sequence[tuple[Any, ...]],
    given: tuple[Any, ...],
    seen: Called,
    problem: str,
    shown: Answer,
) -> Answer:
    """What is wrong, as far as it is known: a convention, a law, a known mistake, an input."""
    answer = _wrong(problem, shown)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what counts has been printed
            may_be_random = not problem.startswith("it returns") and "float32" not in problem
            if may_be_random and not _again(exercise, function, given, seen):
                return _wrong(_RANDOM, shown)
            return answer | _named(exercise, function, inputs, problem)
    except TooLongError:
        return answer


def _named(
    exercise: Exercise, function: Function, inputs: Sequence[tuple[Any, ...]], problem: str
) -> Answer:
    """The convention that it follows; or the law that it breaks, and the mistake that it is."""
    outputs = [output(function, it) for it in inputs]
    for convention in exercise.conventions:
        if _is_variant(exercise, convention, inputs, outputs):
            return {
                "outcome": "convention",
                "convention": convention.name,
                "why": convention.why,
            }
    named: Answer = {"law": "the definition", "result": exercise.definition}
    laws = exercise.laws
    if problem.startswith(("it returns", "the shape")):  # of which only some laws tell
        laws = tuple(it for it in laws if isinstance(it, LawOfForms) and "shape" in problem)
    if law := _broken(laws, function, inputs):
        named = {"law": law.words, "result": law.result}
    known = [it for it in exercise.mistakes if _is_variant(exercise, it, inputs, outputs)]
    return named | (_all_of(known) or _named_where_finite(exercise, inputs, outputs))


@default_dtype(torch.float64)
def _broken(
    laws: Sequence[Law], function: Function, inputs: Sequence[tuple[Any, ...]]
) -> Law | None:
    """The first law that a function breaks."""
    return next((law for law in laws if law.broken_by(_in_tensors(function), inputs)), None)


def _named_where_finite(
    exercise: Exercise, inputs: Sequence[tuple[Any, ...]], outputs: Sequence[Any]
) -> Answer:
    """What a function is that is NaN on some inputs: two faults, of which one would hide the other.

    Only where the function differs from the solution on the other inputs too.
    """
    wanted = [output(exercise.solution, it) for it in inputs]
    pairs = list(zip(inputs, outputs, wanted, strict=True))
    clear = [it for it in pairs if it[1] is not None and not compared.lost(it[1], it[2])]
    few = len(clear) < _FEWEST or len(clear) == len(pairs)
    if few or all(compared.same(one, other, exercise.tolerance) for _, one, other in clear):
        return {}
    others, found = [it[0] for it in clear], [it[1] for it in clear]
    edits = (*exercise.mistakes, *exercise.conventions)
    known = _all_of([it for it in edits if _is_variant(exercise, it, others, found)])
    return known | {"mistake": f"{known['mistake']}, and not a number in places"} if known else {}


def _again(exercise: Exercise, function: Function, given: tuple[Any, ...], seen: Called) -> bool:
    """Whether a second call with the same arguments gives the same."""
    second = called(function, as_dtype(given, torch.float64), exercise)
    return not second.problem and compared.same(second.value, seen.value)


def _only_by_default(exercise: Exercise, function: Function, given: tuple[Any, ...]) -> list[str]:
    """A remark on a function that creates tensors without saying their dtype."""
    with default_dtype(torch.float32):
        seen = called(function, as_dtype(given, torch.float64), exercise)
    if not seen.problem:
        return []
    return [f"it is right only where torch's default dtype is that of x: else {seen.problem}"]


def _seconds(function: Function, inputs: Sequence[tuple[Any, ...]]) -> float:
    """How long all inputs take, at best."""
    best = float("inf")
    for _ in range(3):
        copies = [copy.deepcopy(given) for given in inputs]
        begin = time.perf_counter()
        with default_dtype(torch.float64):
            for given in copies:
                output(function, given)
        best = min(best, time.perf_counter() - begin)
    return max(best, 1e-9)


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
    if isinstance(value, Tensor) and value.requires_grad:  # a law may differentiate it
        return value
    tensor = compared.as_tensor(value)
    return value if tensor is None else tensor


def _shown(exercise: Exercise, number: int, given: tuple[Any, ...]) -> Answer:
    """The input as a call that a reader can paste, and what it should give."""
    call = f"{exercise.name}({', '.join(compared.text(it, whole=True) for it in given)})"
    wanted = compared.text(exercise.solution(*copy.deepcopy(given)))
    if len(call) > _LONGEST_INPUT or len(wanted) > _LONGEST_INPUT:
        shapes = ", ".join(map(_form, given))
        return {"call": f'{exercise.name}(*inputs("{exercise.name}")[{number}])  # {shapes}'}
    return {"call": call, "expected": wanted}


def _form(value: Any) -> str:
    """The shape of an argument: (2, 3), or ((2, 3), (2, 3)) of a pair."""
    if isinstance(value, (list, tuple)) and any(isinstance(it, Tensor) for it in value):
        return f"({', '.join(map(_form, value))})"
    return compared.shape(value) if isinstance(value, Tensor) else repr(value)


def _wrong(problem: str, shown: Answer | None = None) -> Answer:
    return {"outcome": "wrong", "problem": problem, **(shown or {})}
