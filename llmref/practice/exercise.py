"""An exercise: what to write, the inputs that judge it, its laws, and the mistakes people make.

The model solution is the topic's code by hand. A mistake or another convention is an edit of its
text: so each is one line that can be shown, and cannot drift from the solution.
"""

import ast
import copy
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmref.practice.compared import TOLERANCE

Function = Callable[..., Any]
_BY_HAND = Path(__file__).parent / "by_hand"


@dataclass(frozen=True)
class Law:
    """A fact that every right solution keeps.

    `breaks` tells on one input whether a function breaks it; `result` is the id of the result that
    proves it.
    """

    words: str
    result: str
    breaks: Callable[..., bool]

    def broken_by(self, function: Function, inputs: Iterable[tuple[Any, ...]]) -> bool:
        """Whether a function breaks it on one of these inputs; what raises tells nothing."""
        return any(self._breaks(function, given) for given in inputs)

    def _breaks(self, function: Function, given: tuple[Any, ...]) -> bool:
        try:
            return bool(self.breaks(function, *copy.deepcopy(given)))
        except Exception:
            return False


@dataclass(frozen=True)
class Edit:
    """Another version of the model solution: pieces of its text, and what stands there instead."""

    name: str
    why: str
    pieces: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Mistake(Edit):
    """A version that is wrong; `why` says why people write it."""


@dataclass(frozen=True)
class Convention(Edit):
    """A version that others call right; `why` says who does, and what to change to match."""


@dataclass(frozen=True)
class Exercise:
    """What a reader writes from memory.

    `inputs` gives tuples of arguments, smallest first, in float64. `branches` name what the inputs
    must reach; each tells whether one input reaches it. `hints` are at most three, and no code.
    `hidden_mistakes` have right values on every input, and only a law gives them away: by their
    gradient, or in float32. `tolerance` is the error of right code in float64, relative to the
    largest entry. `fixed` names the arguments that training holds fixed: their gradients are not
    judged.
    """

    name: str
    topic: str
    level: int
    task: str
    inputs: Callable[[], list[tuple[Any, ...]]]
    definition: str
    laws: tuple[Law, ...]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    conventions: tuple[Convention, ...] = ()
    hidden_mistakes: tuple[Mistake, ...] = ()
    branches: Mapping[str, Callable[..., bool]] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    fixed: tuple[str, ...] = ()

    @property
    def solution(self) -> Function:
        """The code by hand of the page."""
        function: Function = getattr(_by_hand(self.topic), self.name)
        return function

    @property
    def source(self) -> str:
        """The text of the solution, without the rest of its file."""
        return _source(self.topic, self.name)

    @property
    def wrong(self) -> dict[str, Function]:
        """The mistakes that values give away, by name, as functions."""
        return {mistake.name: self.variant(mistake) for mistake in self.mistakes}

    @property
    def signature(self) -> str:
        """`rms_norm(x, weight, eps)`."""
        return f"{self.name}{inspect.signature(self.solution)}"

    def edited(self, edit: Edit) -> str:
        """The text of the solution after an edit.

        Raises: ValueError if a piece does not stand in the solution exactly once.
        """
        text = self.source
        for old, new in edit.pieces:
            if text.count(old) != 1:
                raise ValueError(
                    f"{self.name}, '{edit.name}': {old!r} stands {text.count(old)} times"
                )
            text = text.replace(old, new)
        return text

    def variant(self, edit: Edit) -> Function:
        """The function that an edit of the solution is."""
        return _variant(self.topic, self.name, self.edited(edit))


def apart(one: Tensor, other: Tensor) -> bool:
    """Whether two results differ as numbers; a NaN tells nothing of a law."""
    if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
        return False
    return not torch.allclose(one, other, rtol=1e-6, atol=1e-9)


@cache
def _source(topic: str, name: str) -> str:
    text = (_BY_HAND / f"{topic}.py").read_text(encoding="utf-8")
    (node,) = (
        it for it in ast.parse(text).body if isinstance(it, ast.FunctionDef) and it.name == name
    )
    return ast.get_source_segment(text, node) or ""


@cache
def _variant(topic: str, name: str, text: str) -> Function:
    """The function in a module of its own, with what stands beside it in the file."""
    path = _BY_HAND / f"{topic}.py"
    scope: dict[str, Any] = {"__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    exec(compile(text, f"<{name}>", "exec"), scope)
    function: Function = scope[name]
    return function


def _by_hand(topic: str) -> Any:
    return importlib.import_module(f"llmref.practice.by_hand.{topic.replace('/', '.')}")
