"""Equations as a page displays them: read from their TeX, and compared side by side."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from llmref.tex import tokens
from llmref.verify.check import Check, passed, reject_all, require_known
from llmref.verify.errors import CheckFailedError, MissingWrongVariantError, UnreadableError
from llmref.verify.reader import OTHER_SIGN, Reader
from llmref.verify.symbolic import as_sympy, compare

# TeX shows a gap here, and tokens do not.
_SPLIT_NUMBER = re.compile(r"\d\s*(?:\\[,;:! ]|[~&])\s*\d")


def statement(
    result: str,
    text: str | Sequence[str],
    where: Mapping[str, Any],
    *,
    wrong: Mapping[str, str] | None = None,
    note: str = "",
) -> Check:
    """Check the equation `text`, in TeX, as the statement of `result` displays it; or several.

    `where` maps symbols, in TeX, to sympy expressions, matrices or functions of one argument. The
    text with any one of its signs turned must fail, and so must every text in `wrong`; the signs
    are counted, and only the texts are mistakes with names. An equation without a sign needs a
    wrong text of its own, which keeps its first or its last side. The site's build
    refuses the check unless the statement shows this very equation.
    Raises: UnreadableError, CheckFailedError, and what `identity` raises.
    """
    require_known(result)
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise UnreadableError(result, "give at least one equation")
    for equation in (*texts, *(wrong or {}).values()):
        if split := _SPLIT_NUMBER.search(equation):
            raise UnreadableError(result, f"{split[0]!r} has two readings: a number or a product")
    names = sorted(((tokens(key), value) for key, value in where.items()), key=lambda n: -len(n[0]))

    def holds(equation: list[str]) -> tuple[bool, str]:
        for left, right in pairwise(Reader(result, equation, names).sides()):
            equal, seen = compare(result, as_sympy(left), as_sympy(right))
            if not equal:
                return False, seen
        return True, "the sides agree"

    mistakes = {name: tokens(equation) for name, equation in (wrong or {}).items()}
    turned: dict[str, list[str]] = {}
    unsigned = []
    for equation in texts:
        true, seen = holds(tokens(equation))
        if not true:
            raise CheckFailedError(result, f"the sides of {equation!r} differ: {seen}")
        signs = Reader(result, tokens(equation), names).signs()
        unsigned += [] if signs else [equation]
        for place in signs:
            variant = tokens(equation)
            variant[place] = OTHER_SIGN[variant[place]]
            turned[f"sign {1 + len(turned)} turned"] = variant
    mistaken = _equations_of(result, texts, mistakes)
    for equation in unsigned:
        if equation not in mistaken:
            raise MissingWrongVariantError(
                result, f"an equation without a sign needs a wrong text of its own: {equation!r}"
            )
    rejected = reject_all(result, mistakes, holds) if mistakes else {}
    if turned:
        reject_all(result, turned, holds)
    return passed(
        result,
        "identity",
        "read from the statement's text: the sides agree",
        len(texts),
        rejected,
        note,
        _display(texts),
        tuple(texts),
        len(turned),
    )


def _equations_of(result: str, texts: list[str], mistakes: Mapping[str, list[str]]) -> set[str]:
    """The equations that have a wrong text; it belongs to those with its first or last side."""
    if len(texts) == 1:
        return set(texts if mistakes else ())
    found = set()
    for name, mistake in mistakes.items():
        same = {text for text in texts if _ends(tokens(text)) & _ends(mistake)}
        if not same:
            raise MissingWrongVariantError(
                result, f"the wrong text '{name}' has a side of none of the equations"
            )
        found |= same
    return found


def _ends(equation: list[str]) -> set[tuple[int, str]]:
    """The first side and the last, each with its place."""
    sides = " ".join(equation).split(" = ")
    return {(0, sides[0]), (1, sides[-1])}


def _display(texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return r"\begin{gathered}" + r"\\".join(texts) + r"\end{gathered}"
