"""The reader of equations in TeX.

It knows numbers, + - / ^, fractions, roots, transposes, relations and a few functions, what stands
in operators (sums and extrema over indices, cases, brackets that hold a condition), in brackets
(norms, inner products, sets, columns) and in dots (a sum or a product that goes on).
Every other symbol is given its value. What has two readings is refused, not guessed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import sympy as sp

from llmref.tex import LINE_BREAK
from llmref.verify import brackets, dots, operators
from llmref.verify.errors import UnreadableError
from llmref.verify.names import (
    Becomes,
    Drawn,
    Mean,
    Name,
    UnboundIndexError,
    as_value,
    matched,
    member,
)

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    r"\log": sp.log,
    r"\ln": sp.log,
    r"\exp": sp.exp,
    r"\cos": sp.cos,
    r"\sin": sp.sin,
    r"\tanh": sp.tanh,
    r"\cosh": sp.cosh,
    r"\sinh": sp.sinh,
    r"\coth": sp.coth,
    r"\arcsin": sp.asin,
    r"\operatorname{tr}": sp.trace,
    r"\det": sp.det,
}
_CONSTANTS = {"e": sp.E, r"\infty": sp.oo}
_PRODUCTS = (r"\cdot", r"\times", r"\odot", r"\bmod")
_BRACKETS = {"(": ")", "{": "}", "[": "]"}
MAY_BE_EQUAL = (r"\le", r"\leq", r"\ge", r"\geq")
RELATIONS = ("=", *MAY_BE_EQUAL, "<", ">")
# An arrow is an equality: of what a variable becomes, or of a limit whose value is given.
ARROWS = (r"\leftarrow", r"\to", r"\mapsto")
_ENDS = (
    *("+", "-", "/", ",", ";", ":", ".", "&", LINE_BREAK, r"\Vert", r"\mid"),
    *(*_BRACKETS.values(), *brackets.CLOSING, r"\end{cases}", *dots.DOTS),
    *(*RELATIONS, *ARROWS, *_PRODUCTS, *operators.IN_CONDITIONS),
)
# The sign or the relation with which a text says something else.
OTHER_SIGN = {"+": "-", "-": "+"}
OTHER = OTHER_SIGN | {r"\le": r"\ge", r"\ge": r"\le", "<": ">", ">": "<"}
OTHER |= {r"\leq": r"\geq", r"\geq": r"\leq"}
_DIGITS = frozenset("0123456789")
# The functions of which everybody reads f^2 x as the square of f(x).
_POWERS = (r"\cos", r"\sin", r"\tanh", r"\cosh", r"\sinh")
Side = tuple[str, Any]  # a value, and the relation before it


def _are_matrices(left: Any, right: Any) -> bool:
    return isinstance(left, sp.MatrixBase) and isinstance(right, sp.MatrixBase)


def _entrywise(left: Any, right: Any) -> Any:
    return left.multiply_elementwise(right) if _are_matrices(left, right) else left * right


def _times(left: Any, right: Any) -> Any:
    """A product; of a row and a column it is a number."""
    product = left * right
    return product[0] if _are_matrices(left, right) and product.shape == (1, 1) else product


def _dot(left: Any, right: Any) -> Any:
    """A product with a dot: the inner product of two columns."""
    columns = _are_matrices(left, right) and left.shape == right.shape and left.shape[1] == 1
    return left.dot(right) if columns and left.shape[0] > 1 else _times(left, right)


class Reader:
    """Recursive descent over the tokens of one equation."""

    def __init__(
        self,
        result: str,
        equation: Sequence[str],
        names: Sequence[Name],
        over: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.result, self.tokens, self.names = result, list(equation), names
        self.over = over or {}
        self.indices: dict[str, Any] = {}  # what each index is now
        self.place = 0
        self.bars = 0
        self.is_after = False  # on the left of an arrow
        self.read_signs: set[int] = set()  # of signs and relations, not those within a symbol

    def readings(self) -> Iterator[list[Side]]:
        """The sides of the equation, for every value of each index that no sum binds."""
        try:
            sides = self.sides()
        except UnboundIndexError as unbound:
            for value in self.over[unbound.index]:
                self.indices[unbound.index] = value
                yield from self.readings()
            del self.indices[unbound.index]
        else:
            yield sides

    def sides(self) -> list[Side]:
        """Read two or more sides."""
        self.place = self.bars = 0
        try:
            sides = self.related()
        except (
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            ArithmeticError,
            NotImplementedError,
            sp.matrices.exceptions.MatrixError,
        ) as failure:
            self.refuse(f"this has no value ({failure})")
        if self.place < len(self.tokens):
            self.refuse("expected an operator or the end")
        if len(sides) < 2:
            self.refuse("an equation needs two sides")
        return sides

    def related(self, relations: Sequence[str] = RELATIONS) -> list[Side]:
        """Sums, with what relates each to the one before it."""
        self.is_after = operators.goes_to_arrow(self, ARROWS)
        sides = [("", self.sum())]
        self.is_after = False
        while self.next() in (*relations, *ARROWS) or self._defines():
            self.place += self._defines()
            if self.next() in OTHER:
                self.read_signs.add(self.place)
            self.place += 1
            relation = self.tokens[self.place - 1]
            sides.append(("=" if relation in ARROWS else relation, self.sum()))
        return sides

    def _defines(self) -> bool:
        return self.tokens[self.place : self.place + 2] == [":", "="]

    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *tokens: str) -> bool:
        if self.next() not in tokens or not self.next():
            return False
        self.place += 1
        return True

    def beside(self, text: list[str]) -> "Reader":
        """A reader of another text, for which the indices are what they are here."""
        other = Reader(self.result, text, self.names, self.over)
        other.indices = self.indices
        return other

    def need(self, token: str) -> None:
        if not self.take(token):
            self.refuse(f"{token!r} is missing")

    def refuse(self, reason: str) -> NoReturn:
        read, rest = self.tokens[: self.place], self.tokens[self.place :]
        raise UnreadableError(
            self.result, f"{reason} after {' '.join(read)!r}, before {' '.join(rest)!r}"
        )

    def sum(self) -> Any:
        total = self._term()
        while self.next() in OTHER_SIGN:
            total = brackets.plus(total, self._term())
        return total

    def _term(self) -> Any:
        if dots.goes_on(self):
            return dots.sum_to(self)
        sign = self.next()
        if sign in OTHER_SIGN:
            self.read_signs.add(self.place)
            self.place += 1
        return -self.product() if sign == "-" else self.product()

    def product(self) -> Any:
        start = self.place
        value = self.factor()
        kinds = set()  # products of matrices, and entry by entry: beside each other, two readings
        while True:
            if self.take("/"):
                value = value / self.factor()
                if self._begins_factor() or self.next() in ("/", *_PRODUCTS):
                    self.refuse("a product after / has two readings")
            elif self.take(r"\odot"):
                factor = self.factor()
                kinds.add("entries" if _are_matrices(value, factor) else "")
                value = _entrywise(value, factor)
            elif self.take(r"\bmod"):
                value = value % self.factor()
            elif self.take(*dots.DOTS):
                value = dots.product_to(self, value, start)
            elif self.next() in (r"\cdot", r"\times") or self._begins_factor():
                dotted = self.take(r"\cdot")
                self.take(r"\times")
                start = self.place
                factor = self.factor()
                kinds.add("matrices" if _are_matrices(value, factor) else "")
                value = _dot(value, factor) if dotted else _times(value, factor)
            else:
                return value
            if {"entries", "matrices"} <= kinds:
                self.refuse("a product of matrices beside \\odot has two readings")

    def _begins_factor(self) -> bool:
        token = self.next()
        return bool(token) and token not in _ENDS and not (token == "|" and self.bars)

    def factor(self) -> Any:
        value = self._base()
        if self.tokens[self.place - 1 : self.place + 2] == [")", "_", "+"]:
            self.place += 2
            value = brackets.positive_part(value)
        while self.take("^"):
            value = self._transposed(value) if self.take(r"\top") else self._power(value)
        return value

    def _power(self, value: Any) -> Any:
        exponent = self._exponent()
        if isinstance(value, sp.MatrixBase) and not isinstance(exponent, sp.Integer):
            self.refuse("of a matrix only whole powers are known")
        return value**exponent

    def _transposed(self, value: Any) -> Any:
        if not isinstance(value, (sp.MatrixBase, sp.MatrixExpr)):
            self.refuse("only a matrix has a transpose")
        return value.T

    def _exponent(self) -> Any:
        """A group whose parentheses, if it has any, are not all of it: x^{(t)} is no power."""
        start = self.place + (self.next() == "{")
        value = self.group()
        if self.tokens[start : start + 1] == ["("] and self._closes(start) >= self.place - 2:
            self.refuse("a superscript in parentheses has two readings")
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
        if operators.is_condition(self):
            return operators.bracket(self)
        if brackets.is_set(self, self.place):
            return operators.chosen_set(self)
        for name in self.names:
            if (places := matched(self, name)) is not None:
                return self._named(name, places)
        token = self.next()
        if token in self.over and token not in operators.BIG:
            return as_value(self.index(token))
        if token in _DIGITS:
            return self._number()
        if token in _BRACKETS:
            return self._bracketed() if token == "[" else self.group()
        self.place += 1
        if token in operators.BIG:
            return operators.big(self, token)
        if token == r"\begin{cases}":
            return operators.cases(self)
        if token == "|" or token in brackets.OPENING:
            return brackets.read(self, token)
        if token in (r"\frac", r"\binom"):
            upper, lower = self.group(), self.group()
            return upper / lower if token == r"\frac" else sp.binomial(upper, lower)
        if token == r"\sqrt":
            degree = self.group() if self.next() == "[" else 2
            return sp.root(self.group(), degree)
        if token in _FUNCTIONS:
            value = self._applied(_FUNCTIONS[token], powers=token in _POWERS)
            if self.next() == "^":
                self.refuse("a power after a function's argument has two readings")
            return value
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        self.place -= 1
        return self.refuse(f"{token!r} has no value in `where`" if token else "a term is missing")

    def index(self, token: str) -> Any:
        """What an index is now."""
        if token not in self.indices:
            raise UnboundIndexError(token)
        self.place += 1
        return self.indices[token]

    def _named(self, name: Name, places: list[Any]) -> Any:
        """The value of a name that has been read, with its indices."""
        value = name.value
        if isinstance(value, Becomes):
            value = value.after if self.is_after else value.before
        if isinstance(value, Mean):
            return operators.mean(self, value)
        if isinstance(value, Drawn):
            if value.index not in self.indices:
                raise UnboundIndexError(value.index)
            return as_value(member(value.values, [*places, self.indices[value.index]]))
        if places:
            return as_value(member(value, places))
        if callable(value) and not isinstance(value, (sp.Basic, sp.MatrixBase)):
            return self._applied(value, powers=name.tokens[-1] in _POWERS)
        return as_value(value)

    def _applied(self, function: Callable[..., Any], *, powers: bool = False) -> Any:
        """A function of the group that follows it, or of the one factor that ends the term."""
        power = None
        if self.take("^"):
            power = self.group()
            if not (powers and isinstance(power, sp.Integer) and power > 0):
                self.refuse("a power of a function has two readings")
        if self.next() in (*_BRACKETS, r"\{"):
            value = as_value(function(*self.arguments()))
        else:
            value = as_value(function(self.factor()))
            goes_on = self._begins_factor() and self.next() not in _FUNCTIONS
            if goes_on or self.next() in ("/", *_PRODUCTS):
                self.refuse("the argument of a function needs parentheses here")
        return value if power is None else value**power

    def arguments(self) -> list[Any]:
        """What stands in one pair of brackets, between commas or bars."""
        closing = _BRACKETS.get(self.next(), r"\}")
        self.place += 1
        bars, self.bars = self.bars, 0
        found = [self.sum()]
        while self.take(",", ";", r"\Vert", r"\mid"):
            found.append(self.sum())
        self.need(closing)
        self.bars = bars
        return found

    def until(self, closing: str) -> Any:
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.need(closing)
        self.bars = bars
        return value

    def _bracketed(self) -> Any:
        """A sum in brackets; what else they hold, such as [x], means many things."""
        start = self.place + 1
        value = self.group()
        if not {"+", "-"} & set(self.tokens[start + 1 : self.place]):
            self.refuse("brackets around no sum have two readings")
        return value

    def group(self) -> Any:
        """What stands in parentheses, braces or brackets; or one digit or symbol, as in x^2."""
        for opening, closing in _BRACKETS.items():
            if self.take(opening):
                return self.until(closing)
        if self.next() in _DIGITS:
            self.place += 1
            return sp.Integer(self.tokens[self.place - 1])
        return self._base()

    def _number(self) -> Any:
        digits = ""
        while self.next() in _DIGITS or (self.next() == "." and digits.isdigit()):
            digits += self.next()
            self.place += 1
        if self.next() == ".":
            self.refuse("a number has one decimal point")
        if self.next() == r"\frac":
            self.refuse("a fraction after a number has two readings")
        return sp.Rational(digits)
