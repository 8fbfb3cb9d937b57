"""Equations as a page displays them: read from their TeX, and compared side by side."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from llmref.tex import tokens
from llmref.verify.check import Check, passed, reject_all, require_known
from llmref.verify.errors import CheckFailedError, MissingWrongVariantError, UnreadableError
from llmref.verify.names import names_of
from llmref.verify.reader import ARROWS, MAY_BE_EQUAL, OTHER, RELATIONS, Reader
from llmref.verify.symbolic import related

# TeX shows a gap here, and tokens do not.
_SPLIT_NUMBER = re.compile(r"\d\s*(?:\\[,;:! ]|[~&])\s*\d")


def statement(
    result: str,
    text: str | Sequence[str] | Mapping[str, str],
    where: Mapping[str, Any],
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    wrong: Mapping[str, str] | None = None,
    attained: bool = True,
    note: str = "",
) -> Check:
    r"""Check the equation `text`, in TeX, as the statement of `result` displays it; or several.

    `text` may also map an expression that is displayed alone to what it equals.
    `where` maps symbols, in TeX, to sympy expressions, numbers, matrices (a list is a column) or
    functions; with floats the sides agree to 1e-9 of their size. `over` gives each index its
    values, or a sum's whole subscript ('i<j') its choices, such as {'i': 0, 'j': 1}: an index in a
    name of `where`, as in 'P_{ij}', makes it a family (a tensor, list, mapping or function), and an
    equation must hold for each value of an index that no sum binds. A `Mean` is an expectation over
    an index, and a `Drawn` is random in it. An arrow is read as an equality: before it a `Becomes`
    has its new value; of a limit, `where` gives the value.
    The text with any one of its signs or inequalities turned must fail, and so must every text in
    `wrong`; the signs are counted, and only the texts are mistakes with names. An equation without
    a sign needs a wrong text of its own, which keeps its first or its last side.
    A bound that is never attained would hide a weaker one: each inequality with equality must be
    one in some case, unless `attained` is False; then turned signs that leave it true are not
    counted. The site's build refuses the check unless the statement shows this very equation.
    Raises: UnreadableError, CheckFailedError, and what `identity` raises.
    """
    require_known(result)
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise UnreadableError(result, "give at least one equation")
    wholes = [f"{it}={text[it]}" for it in texts] if isinstance(text, Mapping) else texts
    for equation in (*wholes, *(wrong or {}).values()):
        if not isinstance(equation, str):
            raise UnreadableError(result, f"an equation is a text, got {equation!r}")
        if split := _SPLIT_NUMBER.search(equation):
            raise UnreadableError(result, f"{split[0]!r} has two readings: a number or a product")
    ranges = over or {}
    if both := sorted(set(where) & set(ranges)):
        raise UnreadableError(result, f"an index with a value: {', '.join(both)}")
    names = names_of(where, ranges)

    def holds(equation: list[str]) -> tuple[bool, str]:
        return agree(Reader(result, equation, names, ranges), attained=attained)[:2]

    mistakes = {name: equation_tokens(equation) for name, equation in (wrong or {}).items()}
    cases = turned = 0
    unsigned = []
    for equation in wholes:
        reader = Reader(result, equation_tokens(equation), names, ranges)
        true, seen, tried = agree(reader, attained=attained)
        if not true:
            raise CheckFailedError(result, f"the sides of {equation!r} differ: {seen}")
        cases += tried
        signs = _turn(reader, holds, turned, attained=attained)
        turned += signs
        unsigned += [] if signs else [equation]
    mistaken = _equations_of(result, wholes, mistakes)
    for equation in unsigned:
        if equation not in mistaken:
            raise MissingWrongVariantError(
                result, f"an equation without a sign needs a wrong text of its own: {equation!r}"
            )
    rejected = reject_all(result, mistakes, holds) if mistakes else {}
    return passed(
        result,
        "numeric" if over else "identity",
        "read from the statement's text: the sides agree"
        + (f" in {cases} case{'s' * (cases != 1)}" if over else ""),
        cases if over else len(texts),
        rejected,
        note,
        _display(texts),
        tuple(texts),
        turned,
    )


def agree(reader: Reader, *, attained: bool) -> tuple[bool, str, int]:
    """Whether the sides of an equation are related as it says, what was seen, in how many cases."""
    cases = 0
    loose: dict[int, bool] = {}  # of the inequalities that may be equalities: is none one?
    for sides in reader.readings():
        cases += 1
        for place, ((_, left), (relation, right)) in enumerate(pairwise(sides)):
            true, seen = related(reader.result, left, relation, right)
            if not true:
                return False, seen, cases
            if attained and relation in MAY_BE_EQUAL and loose.get(place, True):
                loose[place] = not related(reader.result, left, "=", right)[0]
    if any(loose.values()):
        return False, "the bound is not attained", cases
    return True, "the sides agree", cases


def equation_tokens(equation: str) -> list[str]:
    """Its tokens; with & only where it separates: in cases and in matrices."""
    return tokens(equation, aligned="{cases}" in equation or "{pmatrix}" in equation)


def _is_equation(text: Sequence[str]) -> bool:
    return not set(RELATIONS) & set(text) - {"="}


def _turn(
    reader: Reader,
    holds: Callable[[list[str]], tuple[bool, str]],
    already: int,
    *,
    attained: bool,
) -> int:
    """Turn each sign and inequality that was read, one at a time; how many were rejected."""
    rejected = 0
    for place in sorted(reader.read_signs):
        variant = list(reader.tokens)
        variant[place] = OTHER[variant[place]]
        try:
            true, seen = holds(variant)
        except UnreadableError:  # it has no value, as x_{t+1} of the last t
            continue
        if true and not attained and not _is_equation(variant):
            continue  # a weaker bound is one as well
        name = f"sign {already + rejected + 1} turned"
        reject_all(reader.result, {name: (true, seen)}, lambda outcome: outcome)
        rejected += 1
    return rejected


def _equations_of(result: str, texts: list[str], mistakes: Mapping[str, list[str]]) -> set[str]:
    """The equations that have a wrong text; it belongs to those with its first or last side."""
    if len(texts) == 1:
        return set(texts if mistakes else ())
    found = set()
    for name, mistake in mistakes.items():
        same = {text for text in texts if _ends(equation_tokens(text)) & _ends(mistake)}
        if not same:
            raise MissingWrongVariantError(
                result, f"the wrong text '{name}' has a side of none of the equations"
            )
        found |= same
    return found


def _ends(equation: list[str]) -> set[tuple[int, str]]:
    """The first side and the last, each with its place."""
    edges = [place for place, token in enumerate(equation) if token in (*RELATIONS, *ARROWS)]
    if not edges:
        return set()
    return {(0, " ".join(equation[: edges[0]])), (1, " ".join(equation[edges[-1] + 1 :]))}


def _display(texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return r"\begin{gathered}" + r"\\".join(texts) + r"\end{gathered}"
