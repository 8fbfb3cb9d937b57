"""The reader of equations in TeX.

It knows numbers, + - / ^, fractions, roots, transposes and a few functions; every other symbol is
given its value. What has two readings is refused, not guessed.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import sympy as sp

from llmref.verify.errors import UnreadableError

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
_CLOSING = {"(": ")", "{": "}", "[": "]"}
OTHER_SIGN = {"+": "-", "-": "+"}
_DIGITS = frozenset("0123456789")
# The functions of which everybody reads f^2 x as the square of f(x).
_POWERS = (r"\cos", r"\sin", r"\tanh")


def _are_matrices(left: Any, right: Any) -> bool:
    return isinstance(left, sp.MatrixBase) and isinstance(right, sp.MatrixBase)


def _entrywise(left: Any, right: Any) -> Any:
    return left.multiply_elementwise(right) if _are_matrices(left, right) else left * right


class Reader:
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
        try:
            sides = [self._sum()]
            while self._take("="):
                sides.append(self._sum())
        except (
            TypeError,
            ValueError,
            AttributeError,
            sp.matrices.exceptions.MatrixError,
        ) as failure:
            self._refuse(f"this has no value ({failure})")
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
        while self._next() in OTHER_SIGN:
            total = total + self._term()
        return total

    def _term(self) -> Any:
        sign = self._next()
        if sign in OTHER_SIGN:
            self.read_signs.append(self.place)
            self.place += 1
        return -self._product() if sign == "-" else self._product()

    def _product(self) -> Any:
        value = self._factor()
        kinds = set()  # products of matrices, and entry by entry: beside each other, two readings
        while True:
            if self._take("/"):
                value = value / self._factor()
                if self._begins_factor() or self._next() in ("/", *_PRODUCTS):
                    self._refuse("a product after / has two readings")
            elif self._take(r"\odot"):
                factor = self._factor()
                kinds.add("entries" if _are_matrices(value, factor) else "")
                value = _entrywise(value, factor)
            elif self._take(r"\cdot") or self._take(r"\times") or self._begins_factor():
                factor = self._factor()
                kinds.add("matrices" if _are_matrices(value, factor) else "")
                value = value * factor
            else:
                return value
            if {"entries", "matrices"} <= kinds:
                self._refuse("a product of matrices beside \\odot has two readings")

    def _begins_factor(self) -> bool:
        token = self._next()
        no_factor = ("+", "-", "=", "/", ",", *_CLOSING.values(), *_PRODUCTS)
        return bool(token) and token not in no_factor

    def _factor(self) -> Any:
        value = self._base()
        while self._take("^"):
            value = self._transposed(value) if self._take(r"\top") else value ** self._exponent()
        return value

    def _transposed(self, value: Any) -> Any:
        if not isinstance(value, (sp.MatrixBase, sp.MatrixExpr)):
            self._refuse("only a matrix has a transpose")
        return value.T

    def _exponent(self) -> Any:
        """A group whose parentheses, if it has any, are not all of it: x^{(t)} is no power."""
        start = self.place + (self._next() == "{")
        value = self._group()
        if self.tokens[start : start + 1] == ["("] and self._closes(start) >= self.place - 2:
            self._refuse("a superscript in parentheses has two readings")
        return value

    def _closes(self, start: int) -> int:
        """The place of the parenthesis that closes the one at `start`."""
        depth = 0
        for place in range(start, len(self.tokens)):
            depth += (self.tokens[place] == "(") - (self.tokens[place] == ")")
            if not depth:
                return place
        return len(self.tokens)

    def _base(self) -> Any:
        for name, value in self.names:
            after = self.place + len(name)
            followed = self.tokens[after : after + 1]
            if self.tokens[self.place : after] == name and followed not in (["_"], ["'"]):
                self.place = after
                if callable(value) and not isinstance(value, (sp.Basic, sp.MatrixBase)):
                    return self._applied(value, powers=name[-1] in _POWERS)
                return value
        token = self._next()
        if token in _DIGITS:
            return self._number()
        if token in _CLOSING:
            return self._bracketed() if token == "[" else self._group()
        self.place += 1
        if token == r"\frac":
            numerator = self._group()
            return numerator / self._group()
        if token == r"\sqrt":
            degree = self._group() if self._next() == "[" else 2
            return sp.root(self._group(), degree)
        if token in _FUNCTIONS:
            value = self._applied(_FUNCTIONS[token], powers=token in _POWERS)
            if self._next() == "^":
                self._refuse("a power after a function's argument has two readings")
            return value
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        self.place -= 1
        return self._refuse(f"{token!r} has no value in `where`" if token else "a term is missing")

    def _applied(self, function: Callable[[Any], Any], *, powers: bool = False) -> Any:
        """A function of the group that follows it, or of the one factor that ends the term."""
        power = 1
        if self._take("^"):
            power = self._group()
            if not (powers and isinstance(power, sp.Integer) and power > 0):
                self._refuse("a power of a function has two readings")
        if self._next() in _CLOSING:
            return function(self._group()) ** power
        value = function(self._factor())
        if self._begins_factor() or self._next() in ("/", *_PRODUCTS):
            self._refuse("the argument of a function needs parentheses here")
        return value**power

    def _bracketed(self) -> Any:
        """A sum in brackets; what else they hold, such as [x], means many things."""
        start = self.place + 1
        value = self._group()
        if not {"+", "-"} & set(self.tokens[start + 1 : self.place]):
            self._refuse("brackets around no sum have two readings")
        return value

    def _group(self) -> Any:
        """What stands in parentheses, braces or brackets; or one digit or symbol, as in x^2."""
        for opening, closing in _CLOSING.items():
            if self._take(opening):
                value = self._sum()
                if not self._take(closing):
                    self._refuse(f"{closing!r} is missing")
                return value
        if self._next() in _DIGITS:
            self.place += 1
            return sp.Integer(self.tokens[self.place - 1])
        return self._base()

    def _number(self) -> Any:
        digits = ""
        while self._next() in _DIGITS or (self._next() == "." and digits.isdigit()):
            digits += self._next()
            self.place += 1
        if self._next() == ".":
            self._refuse("a number has one decimal point")
        if self._next() == r"\frac":
            self._refuse("a fraction after a number has two readings")
        return sp.Rational(digits)
