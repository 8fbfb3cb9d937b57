"""What the symbols of an equation stand for: values, functions, and families with indices.

A family is named as the equation writes it, such as 'P_{ij}', with indices in the places where an
occurrence has its own: P_{i,l+1} is found by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sympy as sp
import torch

from llmref.tex import tokens
from llmref.verify.errors import UnreadableError

if TYPE_CHECKING:
    from llmref.verify.reader import Reader


class UnboundIndexError(Exception):
    """An index has no value yet: the equation is meant for every one that it may have."""

    def __init__(self, index: str) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True)
class Drawn:
    """A random variable: `values[outcome]` for each outcome of an index."""

    index: str
    values: Any


@dataclass(frozen=True)
class Mean:
    """An expectation over the outcomes of an index: `weights[outcome]` is its probability.

    With `given`, another index, `weights[condition, outcome]` is the probability.
    """

    index: str
    weights: Any
    given: str = ""


@dataclass(frozen=True)
class Becomes:
    r"""What changes: its value on the right of an arrow, and the new one, on the left of it.

    As in `h\leftarrow h+f(h)` and `W\to WQ`.
    """

    before: Any
    after: Any


@dataclass(frozen=True)
class Name:
    """A key of `where`: its tokens, of which some are indices, and what it stands for."""

    tokens: tuple[str, ...]
    slots: tuple[int, ...]
    value: Any

    def is_alone(self, place: int) -> bool:
        """Whether an index has no other beside it: then it may be a sum, such as t - 1."""
        return not {place - 1, place + 1} & set(self.slots)


def names_of(where: Mapping[str, Any], over: Mapping[str, Any]) -> list[Name]:
    """The names, longest first. An index is one in a name's subscript, superscript or argument."""
    found = []
    for key, value in where.items():
        parts = tokens(key)
        for kept in (parts, _with_commas(parts, over)):
            slots = tuple(place for place, part in enumerate(kept) if place and part in over)
            found.append(Name(tuple(kept), slots, value))
    return sorted(found, key=lambda name: (-len(name.tokens), len(name.slots)))


def _with_commas(parts: Sequence[str], over: Mapping[str, Any]) -> list[str]:
    """P_{ij} is also written P_{i,j+1}."""
    found = list(parts[:1])
    for before, part in pairwise(parts):
        found += [",", part] if before in over and part in over else [part]
    return found


def member(family: Any, places: Sequence[Any]) -> Any:
    """One of a family, which is a tensor, a list, a mapping or a function.

    Raises: LookupError if there is none.
    """
    if callable(family):
        return family(*places)
    if isinstance(family, Mapping):
        return family[places[0] if len(places) == 1 else tuple(places)]
    if any(isinstance(it, int) and it < 0 for it in places):  # Python would count from the end
        raise IndexError(f"no member {places[0]}")
    if isinstance(family, (sp.MatrixBase, torch.Tensor)):
        return family[tuple(places) if len(places) > 1 else places[0]]
    for it in places:
        family = family[it]
    return family


def as_value(value: Any) -> Any:
    """A number, a set or a matrix of sympy; a list or a tensor of one axis is a column."""
    if isinstance(value, (set, frozenset)):
        return sp.FiniteSet(*value)
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return sp.ImmutableMatrix(value)
    value = sp.sympify(value)
    if isinstance(value, sp.MatrixExpr):
        value = value.as_explicit()
    return sp.ImmutableMatrix(value) if isinstance(value, sp.MatrixBase) else value


def matched(reader: Reader, name: Name) -> list[Any] | None:
    """The indices with which a name stands here, after which the reader goes on; or None."""
    start, places = reader.place, []
    for place, part in enumerate(name.tokens):
        if place not in name.slots:
            if reader.take(part):
                continue
        elif (value := _slot(reader, name, place)) is not None:
            places.append(value)
            continue
        reader.place = start
        return None
    if reader.next() in ("_", "'"):  # a longer name, which is not known
        reader.place = start
        return None
    return places


def _slot(reader: Reader, name: Name, place: int) -> Any:
    """The index that an occurrence has in place of the one of the name; None if none is."""
    goes_on = _goes_on(reader, name, place)
    if reader.next() in reader.over and not goes_on:
        return reader.index(reader.next())
    try:
        value = reader.sum() if name.is_alone(place) and goes_on else reader.group()
    except UnreadableError:
        return None
    if isinstance(value, sp.Integer):
        return int(value)
    return value if isinstance(value, sp.Expr) and value.is_number else None


def _goes_on(reader: Reader, name: Name, place: int) -> bool:
    """Whether the index here is the first part of a sum, such as t - 1."""
    following = reader.tokens[reader.place + 1 : reader.place + 2]
    ends = [list(name.tokens[place + 1 : place + 2])]
    return name.tokens[place - 1] not in "_^" and following not in ends
