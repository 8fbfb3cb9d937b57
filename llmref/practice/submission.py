"""A reader's function or file: judged in a process of its own."""

import traceback
from pathlib import Path
from typing import Any

from llmref.practice.exercise import Exercise
from llmref.practice.exercises import exercise
from llmref.practice.judging import judge_here
from llmref.practice.process import run
from llmref.practice.verdict import Verdict

SECONDS = 20.0


def judge(name: str, function: Any, *, seconds: float = SECONDS) -> Verdict:
    """Judge a function that a reader wrote for the exercise of this name.

    It runs in a process of its own for at most `seconds` (where processes can be forked).
    Raises: KeyError if there is no such exercise.
    """
    asked = exercise(name)
    answer = run(lambda: judge_here(asked, function), seconds)
    return Verdict(exercise=name, topic=asked.topic, **answer)


def judge_file(asked: Exercise, path: Path, *, seconds: float) -> Verdict:
    """Judge the function of the exercise's name that a file defines."""
    answer = run(lambda: _judge(asked, path), seconds)
    return Verdict(exercise=asked.name, topic=asked.topic, **answer)


def _judge(asked: Exercise, path: Path) -> dict[str, Any]:
    try:
        code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    except SyntaxError as failure:
        line = (failure.text or "").strip()
        return _wrong(f"{failure.msg} in line {failure.lineno} of {path}: {line}")
    except (ValueError, UnicodeDecodeError) as failure:
        return _wrong(f"{path} is no Python text: {failure}")
    scope: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(code, scope)
    except (Exception, SystemExit) as failure:
        frames = traceback.extract_tb(failure.__traceback__)
        lines = [it.lineno for it in frames if it.filename == str(path)]
        at = f" in line {lines[-1]}" if lines else ""
        return _wrong(f"{path} raises {type(failure).__name__}{at}: {failure}")
    if asked.name not in scope:
        return _wrong(f"{path} defines no function {asked.name}")
    return judge_here(asked, scope[asked.name])


def _wrong(problem: str) -> dict[str, Any]:
    return {"outcome": "wrong", "problem": problem}
