"""Equations as a page displays them: read from their TeX, and compared side by side.

The reader knows numbers, + - / ^, fractions, roots, transposes and a few functions; every other
symbol is given its value in `where`. What has two readings is refused, not guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import sympy as sp

from llmref.tex import tokens
from llmref.verify.check import Check, reject_all, require_known
from llmref.verify.errors import CheckFailedError, MissingWrongVariantError, UnreadableError
from llmref.verify.symbolic import as_sympy, compare

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    r"\log": sp.log,
    r"\ln": sp.log,
    r"\exp": sp.exp,
    r"\cos": sp.cos,
    r"\sin": sp.sin,
    r"\tanh": sp.tanh,
    r"\arcsin": sp.asin,
    r"\operatorname{tr}": sp.trace,
    r"\det": sp.det,
}
_CONSTANTS = {"e": sp.E, r"\infty": sp.oo}
_PRODUCTS = (r"\cdot", r"\times", r"\odot")
_CLOSING = {"(": ")", "{": "}"}
_OTHER_SIGN = {"+": "-", "-": "+"}


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
    are counted, and only the texts are mistakes with names. The site's build refuses the check
    unless the statement shows this very equation.
    Raises: UnreadableError, CheckFailedError, and what `identity` raises.
    """
    require_known(result)
    texts = [text] if isinstance(text, str) else list(text)
    names = sorted(((tokens(key), value) for key, value in where.items()), key=lambda n: -len(n[0]))

    def holds(equation: list[str]) -> tuple[bool, str]:
        for left, right in pairwise(_Reader(result, equation, names).sides()):
            equal, seen = compare(result, as_sympy(left), as_sympy(right))
            if not equal:
                return False, seen
        return True, "the sides agree"

    mistakes = {name: tokens(equation) for name, equation in (wrong or {}).items()}
    turned: dict[str, list[str]] = {}
    unsigned = 0
    for equation in texts:
        true, seen = holds(tokens(equation))
        if not true:
            raise CheckFailedError(result, f"the sides of {equation!r} differ: {seen}")
        signs = _Reader(result, tokens(equation), names).signs()
        unsigned += not signs
        for place in signs:
            variant = tokens(equation)
            variant[place] = _OTHER_SIGN[variant[place]]
            turned[f"sign {1 + len(turned)} turned"] = variant
    if unsigned > len(mistakes):
        raise MissingWrongVariantError(result, "an equation without a sign needs a wrong text")
    rejected = reject_all(result, mistakes, holds) if mistakes else {}
    if turned:
        reject_all(result, turned, holds)
    return Check(
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


def _display(texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return r"\begin{gathered}" + r"\\".join(texts) + r"\end{gathered}"


def _entrywise(left: Any, right: Any) -> Any:
    both = isinstance(left, sp.MatrixBase) and isinstance(right, sp.MatrixBase)
    return left.multiply_elementwise(right) if both else left * right


class _Reader:
    """Recursive descent over the tokens of one equation."""

    def __init__(
        self, result: str, equation: list[str], names: list[tuple[list[str], Any]]
    ) -> None:
        self.result, self.tokens, self.names = result, equation, names
        self.place = 0
        self.read_signs: list[int] = []

    def signs(self) -> list[int]:
        """The places of all signs that were read as such, not as a part of a symbol."""
        self.sides()
        return self.read_signs

    def sides(self) -> list[Any]:
        """Read two or more sides."""
        sides = [self._sum()]
        while self._take("="):
            sides.append(self._sum())
        if self.place < len(self.tokens):
            self._refuse("expected an operator or the end")
        if len(sides) < 2:
            self._refuse("an equation needs two sides")
        return sides

    def _next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def _take(self, token: str) -> bool:
        if self._next() != token:
            return False
        self.place += 1
        return True

    def _refuse(self, reason: str) -> NoReturn:
        read, rest = self.tokens[: self.place], self.tokens[self.place :]
        raise UnreadableError(
            self.result, f"{reason} after {' '.join(read)!r}, before {' '.join(rest)!r}"
        )

    def _sum(self) -> Any:
        total = self._term()
        while self._next() in _OTHER_SIGN:
            total = total + self._term()
        return total

    def _term(self) -> Any:
        sign = self._next()
        if sign in _OTHER_SIGN:
            self.read_signs.append(self.place)
            self.place += 1
        return -self._product() if sign == "-" else self._product()

    def _product(self) -> Any:
        value = self._factor()
        while True:
            if self._take("/"):
                value = value / self._factor()
                if self._begins_factor():
                    self._refuse("a product after / has two readings")
            elif self._take(r"\odot"):
                value = _entrywise(value, self._factor())
            elif self._take(r"\cdot") or self._take(r"\times") or self._begins_factor():
                value = value * self._factor()
            else:
                return value

    def _begins_factor(self) -> bool:
        token = self._next()
        return bool(token) and token not in ("+", "-", "=", ")", "}", "/", ",", *_PRODUCTS)

    def _factor(self) -> Any:
        value = self._base()
        while self._take("^"):
            value = value.T if self._take(r"\top") else value ** self._group()
        return value

    def _base(self) -> Any:
        for name, value in self.names:
            after = self.place + len(name)
            followed = self.tokens[after : after + 1]
            if self.tokens[self.place : after] == name and followed not in (["_"], ["'"]):
                self.place = after
                if callable(value) and not isinstance(value, (sp.Basic, sp.MatrixBase)):
                    return self._applied(value)
                return value
        token = self._next()
        if token.isdigit():
            return self._number()
        if token in _CLOSING:
            return self._group()
        self.place += 1
        if token == r"\frac":
            numerator = self._group()
            return numerator / self._group()
        if token == r"\sqrt":
            return sp.sqrt(self._group())
        if token in _FUNCTIONS:
            value = self._applied(_FUNCTIONS[token])
            if self._next() == "^":
                self._refuse("a power after a function's argument has two readings")
            return value
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        self.place -= 1
        return self._refuse(f"{token!r} has no value in `where`" if token else "a term is missing")

    def _applied(self, function: Callable[[Any], Any]) -> Any:
        """A function of the group that follows it, or of the one factor that ends the term."""
        power = self._group() if self._take("^") else 1
        if self._next() in _CLOSING:
            return function(self._group()) ** power
        value = function(self._factor())
        if self._begins_factor():
            self._refuse("the argument of a function needs parentheses here")
        return value**power

    def _group(self) -> Any:
        """What stands in parentheses or braces; or one digit or symbol, as in x^2."""
        for opening, closing in _CLOSING.items():
            if self._take(opening):
                value = self._sum()
                if not self._take(closing):
                    self._refuse(f"{closing!r} is missing")
                return value
        if self._next().isdigit():
            self.place += 1
            return sp.Integer(self.tokens[self.place - 1])
        return self._base()

    def _number(self) -> Any:
        digits = ""
        while self._next().isdigit() or (self._next() == "." and digits):
            digits += self._next()
            self.place += 1
        return sp.Rational(digits)
