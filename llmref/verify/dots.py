r"""Sums and products with dots: x_1+\dots+x_n, A_n\cdots A_1; for the reader.

The first and the last member differ in one place, which counts up from one to the other, or down
to a number. A sum that would have to count backwards is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from llmref.verify import operators

if TYPE_CHECKING:
    from llmref.verify.reader import Reader

DOTS = (r"\dots", r"\cdots", r"\ldots")


def goes_on(reader: Reader) -> bool:
    """Whether the term that begins here is the first of a sum with dots."""
    stop = _end(reader)
    plus, dots, again = (reader.tokens[stop : stop + 3] + [""] * 3)[:3]
    return plus == again == "+" and dots in DOTS


def sum_to(reader: Reader) -> Any:
    """The sum of the terms from the one that begins here to the one after the dots."""
    reader.take("+")
    first = reader.tokens[reader.place : _end(reader)]
    if first[:1] == ["-"]:
        reader.refuse("a sum with dots begins with no minus")
    reader.place = _end(reader) + 3
    last = reader.tokens[reader.place : _end(reader)]
    reader.place = _end(reader)
    values = _members(reader, first, last)
    return sum(values[1:], start=values[0]) if values else sp.Integer(0)


def product_to(reader: Reader, value: Any, start: int) -> Any:
    """The product that ends in the factor which began at `start`, with the ones up to the next."""
    first = reader.tokens[start : reader.place - 1]
    begins = reader.place
    reader.factor()
    for member in _members(reader, first, reader.tokens[begins : reader.place])[1:]:
        value = value * member
    return value


def _end(reader: Reader) -> int:
    """Where the term ends that begins here, with a sign of its own or without."""
    before = reader.place
    reader.take("+", "-")
    stop = operators.end_of_term(reader)
    reader.place = before
    return stop


def _members(reader: Reader, first: list[str], last: list[str]) -> list[Any]:
    if last[: len(first) + 1] == [*first, "^"]:  # x + ... + x^n
        first = [*first, "^", "1"]
    before = 0
    while first[before : before + 1] == last[before : before + 1] != []:
        before += 1
    after = 0
    shorter = min(len(first), len(last)) - before
    while after < shorter and first[-1 - after] == last[-1 - after]:
        after += 1
    ends = [found[before : len(found) - after] for found in (first, last)]
    if not all(ends) or any("_" in end for end in ends):
        reader.refuse("the first and the last member of a sum with dots differ in one place")
    low, high = (_number(reader, end) for end in ends)
    down = len(ends[1]) == 1 and ends[1][0].isdigit() and not ends[0][0].isdigit()
    counted = range(low, high - 1, -1) if down else range(low, high + 1)
    suffix = first[len(first) - after :]
    return [
        reader.beside([*first[:before], "{", *str(it), "}", *suffix]).product() for it in counted
    ]


def _number(reader: Reader, text: list[str]) -> int:
    value = reader.beside(text).sum()
    if not isinstance(value, sp.Integer):
        reader.refuse("dots count whole numbers")
    return int(value)
