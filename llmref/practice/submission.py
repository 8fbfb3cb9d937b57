"""A reader's function or file: judged in a process of its own."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmref.practice.calling import TooLongError, where
from llmref.practice.exercise import Exercise
from llmref.practice.exercises import exercise
from llmref.practice.judging import judge_here
from llmref.practice.process import never, run
from llmref.practice.verdict import Verdict

SECONDS = 20.0


def judge(name: str, function: Any, *, seconds: float = SECONDS) -> Verdict:
    """Judge a function that a reader wrote for the exercise of this name.

    It runs in a process of its own for at most `seconds` (where processes can be forked).
    Raises: KeyError if there is no such exercise; TypeError if the name does not come first;
    ValueError if `seconds` is not positive.
    """
    if not isinstance(name, str):
        raise TypeError(f"judge(name, function): the name comes first, got {type(name).__name__}")
    _require_time(seconds)
    asked = exercise(name)
    answer = run(lambda: judge_here(asked, function), seconds)
    return Verdict(exercise=name, topic=asked.topic, **answer)


def inputs(name: str) -> list[tuple[Any, ...]]:
    """The arguments that an exercise is judged by, smallest first, in float64.

    Raises: KeyError if there is no such exercise.
    """
    return exercise(name).inputs()


def judge_file(
    asked: Exercise, path: Path, *, seconds: float, stop: Callable[[], bool] = never
) -> Verdict | None:
    """Judge the function of the exercise's name that a file defines; None if `stop` ended it.

    Raises: ValueError if `seconds` is not positive.
    """
    _require_time(seconds)
    answer = run(lambda: _judge(asked, path), seconds, stop)
    return Verdict(exercise=asked.name, topic=asked.topic, **answer) if answer else None


def _require_time(seconds: float) -> None:
    if not seconds > 0:
        raise ValueError(f"the time limit must be positive, got {seconds:g} s")


def _judge(asked: Exercise, path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        code = compile(text, str(path), "exec")
    except SyntaxError as failure:
        line = (failure.text or "").strip()
        return _wrong(f"{failure.msg} in line {failure.lineno} of {path}: {line}")
    except (ValueError, UnicodeDecodeError) as failure:
        return _wrong(f"{path} is no Python text: {failure}")
    scope: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(code, scope)
    except TooLongError as failure:
        return _wrong(f"{path} did not finish in {failure} s{where(failure, str(path))}")
    except (Exception, SystemExit) as failure:
        place = where(failure, str(path))
        kind = f"{type(failure).__name__}: {failure}".rstrip(": ")
        return _wrong(f"{path} raises {kind}{place}")
    found = scope.get(asked.name)
    if found is None:
        return _wrong(f"{path} defines no function {asked.name}{_instead(text)}")
    if isinstance(found, type):
        return _wrong(f"{asked.name} is a class; the task asks for {asked.signature}")
    return judge_here(asked, found)


def _instead(text: str) -> str:
    """What a file defines, for a name that was misspelled."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in ast.parse(text).body if isinstance(node, kinds)]
    return f"; it defines {', '.join(names)}" if names else ""


def _wrong(problem: str) -> dict[str, Any]:
    return {"outcome": "wrong", "problem": problem}
