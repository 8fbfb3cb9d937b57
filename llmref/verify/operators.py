"""What an equation says about many terms at once, or about one of several cases.

Sums, products and extrema over an index, expectations, cases, and brackets that hold a condition;
for the reader, whose place they move.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sympy as sp

from llmref.tex import LINE_BREAK, tokens
from llmref.verify import brackets
from llmref.verify.names import Mean, UnboundIndexError, as_value, matched, member

if TYPE_CHECKING:
    from llmref.verify.reader import Reader

BIG = (r"\sum", r"\prod", r"\max", r"\min")
_AND = (",", r"\wedge", r"\text{and}")
_OR = (r"\vee", r"\text{or}")
IN_CONDITIONS = (r"\ne", r"\neq", r"\in", r"\notin", *_AND, *_OR)
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda one, other: sp.simplify(one - other) == 0,
    r"\ne": lambda one, other: sp.simplify(one - other) != 0,
    "<": lambda one, other: one < other,
    ">": lambda one, other: one > other,
    r"\le": lambda one, other: one <= other,
    r"\ge": lambda one, other: one >= other,
}
_SAME = {r"\neq": r"\ne", r"\leq": r"\le", r"\geq": r"\ge"}
_OPENING = ("(", "{", "[", *brackets.OPENING, r"\begin{cases}")
_CLOSING = (")", "}", "]", *brackets.CLOSING, r"\end{cases}")
_OTHERWISE = re.compile(r"\\text\{\s*(?:otherwise|else)\s*\.?\}")


def depths(found: Sequence[str], start: int) -> Iterator[tuple[int, int]]:
    """Places from `start` on, with how many brackets are open before each, down to -1."""
    depth = 0
    for place in range(start, len(found)):
        depth -= found[place] in _CLOSING
        yield place, depth
        if depth < 0:
            return
        depth += found[place] in _OPENING
    yield len(found), 0


def big(reader: Reader, token: str) -> Any:
    """A sum, product, maximum or minimum; of the term after it, or of a list in parentheses."""
    if reader.next() != "_" and token in (r"\max", r"\min"):
        return _extreme(token, reader.arguments())
    if reader.next() != "_" and token not in reader.over:
        reader.refuse(f"over what does this go? Say so in `over` with the key {token!r}")
    chosen = _assignments(reader) if reader.next() == "_" else _choices(reader, token)
    values = _each(reader, chosen)
    if token == r"\sum":
        return sum(values[1:], start=values[0]) if values else sp.Integer(0)
    if token == r"\prod":
        return sp.prod(values)
    return _extreme(token, values)


def _extreme(token: str, values: Sequence[Any]) -> Any:
    return sp.Max(*values) if token == r"\max" else sp.Min(*values)


def mean(reader: Reader, over: Mean) -> Any:
    """An expectation of the brackets after it, with a power of parentheses, or of the term."""
    if over.given and over.given not in reader.indices:
        raise UnboundIndexError(over.given)
    outcomes = reader.over[over.index]
    first = [reader.indices[over.given]] if over.given else []
    weights = [as_value(member(over.weights, [*first, it])) for it in outcomes]
    read = {"[": lambda: reader.arguments()[0], "(": reader.factor}.get(
        reader.next(), reader.product
    )
    values = _each(reader, [{over.index: it} for it in outcomes], read)
    parts = [weight * value for weight, value in zip(weights, values, strict=True)]
    return sum(parts[1:], start=parts[0])


def _each(
    reader: Reader, chosen: Sequence[dict[str, Any]], read: Callable[[], Any] | None = None
) -> list[Any]:
    """What follows, read once for each choice of indices."""
    start, values = reader.place, []
    before = dict(reader.indices)
    for choice in chosen:
        reader.place = start
        reader.indices = before | choice
        values.append((read or reader.product)())
    reader.indices = before
    if not chosen:
        reader.place = end_of_term(reader)
    return values


def end_of_term(reader: Reader) -> int:
    for place, depth in depths(reader.tokens, reader.place):
        token = reader.tokens[place] if place < len(reader.tokens) else ""
        if depth < 0 or (not depth and token in ("", "+", "-", ",", *_COMPARED, *_SAME)):
            return place
    return len(reader.tokens)


def goes_to_arrow(reader: Reader, arrows: Sequence[str]) -> bool:
    """Whether the side that begins here is the one before an arrow."""
    for place, depth in depths(reader.tokens, reader.place):
        token = reader.tokens[place] if place < len(reader.tokens) else ""
        if depth < 0 or (not depth and token in ("", ",", *arrows, *_COMPARED, *_SAME)):
            return token in arrows
    return False


def _assignments(reader: Reader) -> list[dict[str, Any]]:
    """The values of the indices that a sum binds: `_i`, `_{i=1}^n`, `_{j<i}`, `_{i: condition}`."""
    reader.need("_")
    braced = reader.take("{")
    start = reader.place
    stop = start + 1
    if braced:
        stop = next(place for place, depth in depths(reader.tokens, start) if depth < 0)
    found = reader.tokens[start:stop]
    text, index = "".join(found), found[0]
    after = stop + braced
    for key in reader.over:
        if tokens(key) == found:  # as it stands, such as i<j or \text{rows}
            reader.place = after
            return _choices(reader, key)
    if index not in reader.over:
        reader.refuse(f"over what does this go? {text!r} is not in `over`")
    if reader.tokens[start + 1 : start + 2] == ["="] and reader.tokens[after : after + 1] == ["^"]:
        reader.place = start + 2
        first = reader.sum()
        reader.place = after + 1
        last = reader.group()
        return [{index: it} for it in range(int(first), int(last) + 1)]
    chosen = _filtered(reader, start, stop)
    reader.place = after
    return chosen


def _filtered(reader: Reader, start: int, stop: int) -> list[dict[str, Any]]:
    """The values of an index for which the condition holds that stands there with it, if any."""
    index, chosen = reader.tokens[start], []
    before = dict(reader.indices)
    for value in reader.over[index]:
        reader.indices = before | {index: value}
        reader.place = start + 1 + (reader.tokens[start + 1 : start + 2] == [":"])
        if reader.place == stop or _holds_from(reader, start):
            chosen.append({index: value})
    reader.indices = before
    return chosen


def chosen_set(reader: Reader) -> sp.FiniteSet:
    r"""The set of an index's values for which a condition holds, such as \{i: x_i>0\}."""
    reader.need(r"\{")
    start = reader.place
    stop = next(place for place, depth in depths(reader.tokens, start) if depth < 0)
    chosen = _filtered(reader, start, stop)
    reader.place = stop
    reader.need(r"\}")
    return sp.FiniteSet(*(it[reader.tokens[start]] for it in chosen))


def _choices(reader: Reader, key: str) -> list[dict[str, Any]]:
    return [it if isinstance(it, dict) else {key: it} for it in reader.over[key]]


def _holds_from(reader: Reader, start: int) -> bool:
    """Whether the condition of a sum holds, which begins at its index, or after a colon."""
    if reader.tokens[start + 1] != ":":
        reader.place = start
    return condition(reader)


def condition(reader: Reader) -> bool:
    """One or more relations, with 'and' and 'or' between them."""
    holds = _all(reader)
    while reader.take(*_OR):
        other = _all(reader)
        holds = holds or other
    return holds


def _all(reader: Reader) -> bool:
    holds = _one(reader)
    while reader.take(*_AND):
        other = _one(reader)
        holds = holds and other
    return holds


def _one(reader: Reader) -> bool:
    """One chain of relations, or one membership."""
    token = reader.next()
    beside = reader.tokens[reader.place + 1 : reader.place + 2]
    if token in reader.over and beside in ([r"\in"], [r"\notin"]):
        if token not in reader.indices:
            raise UnboundIndexError(token)
        reader.place += 2
        return (reader.indices[token] in _set(reader)) == (beside == [r"\in"])
    found = reader.related((*_COMPARED, *_SAME))
    if len(found) < 2:
        reader.refuse("a condition needs a relation")
    truths = [
        _COMPARED[_SAME.get(relation, relation)](left, right)
        for (_, left), (relation, right) in pairwise(found)
    ]
    if not all(it in (True, False) for it in truths):
        reader.refuse("whether this holds is not known")
    return all(bool(it) for it in truths)


def _set(reader: Reader) -> Any:
    for name in reader.names:
        if (places := matched(reader, name)) is not None:
            return member(name.value, places) if places else name.value
    return reader.refuse(f"{reader.next()!r} is no set in `where`")


def is_condition(reader: Reader) -> bool:
    r"""Whether brackets that hold a condition begin here: \mathbf 1[i=j], 1\{x>0\}, [j\le i]."""
    start = reader.place
    one = reader.tokens[start : start + 1] in ([r"\mathbf{1}"], ["1"])
    opening = reader.tokens[start + one : start + one + 1]
    if opening not in (["["], [r"\{"]) or brackets.is_set(reader, start + one):
        return False
    relations = (*_COMPARED, *_SAME, r"\in", r"\notin")
    return any(
        not depth and reader.tokens[place] in relations
        for place, depth in depths(reader.tokens, start + one + 1)
        if place < len(reader.tokens)
    )


def bracket(reader: Reader) -> sp.Integer:
    """1 where the condition in the brackets holds, and else 0."""
    reader.take(r"\mathbf{1}", "1")
    closing = "]" if reader.take("[") else r"\}"
    reader.take(r"\{")
    holds = condition(reader)
    reader.need(closing)
    return sp.Integer(int(holds))


def cases(reader: Reader) -> Any:
    """The value of the first row whose condition holds."""
    chosen = None
    while True:
        start = reader.place
        middle = next(
            (
                place
                for place, depth in depths(reader.tokens, start)
                if not depth and place < len(reader.tokens) and reader.tokens[place] == "&"
            ),
            None,
        )
        if middle is None:
            reader.refuse("each case needs & and a condition")
        reader.place = middle + 1
        if otherwise := bool(_OTHERWISE.fullmatch(reader.next())):
            reader.place += 1
        holds = otherwise or condition(reader)
        reader.take(".", ",")
        end = reader.place
        if holds and chosen is None:
            reader.place = start
            chosen = reader.sum()
            if reader.place != middle:
                reader.refuse("expected & and a condition")
        reader.place = end
        if reader.take(r"\end{cases}"):
            break
        reader.need(LINE_BREAK)
    if chosen is None:
        reader.refuse("no case holds")
    return chosen
