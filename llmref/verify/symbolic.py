"""Identities between sympy expressions, decided or refused, never guessed."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp

from llmref.verify.check import Check, passed, reject_all, require_known
from llmref.verify.errors import CheckFailedError, ShapeMismatchError, UndecidedError
from llmref.verify.names import as_value

_WITNESS_POINTS = 6
_DRAWS = 50  # of a value with the assumed properties
_DIGITS = 50
_EXACT = 1e-25  # far above what is left of a true zero in so many digits
_ROUNDED = 1e-9  # for numbers in float64
_SAME = {r"\leq": r"\le", r"\geq": r"\ge"}


def identity(result: str, lhs: Any, rhs: Any, *, wrong: Mapping[str, Any], note: str = "") -> Check:
    """Check that `lhs - rhs` is zero for all values of its symbols.

    Arguments: sympy expressions or matrices of one shape; each `wrong` variant replaces `rhs`.
    A variant counts as rejected only when a point was found at which the two sides differ.
    Raises: CheckFailedError with such a point, UndecidedError if sympy decides neither way,
    ShapeMismatchError, MissingWrongVariantError, WrongVariantPassedError, MissingScopeError,
    ResultIdError.
    """
    require_known(result)
    lhs, rhs = as_value(lhs), as_value(rhs)
    holds, seen = compare(result, lhs, rhs)
    if not holds:
        raise CheckFailedError(result, f"the two sides differ: {seen}")
    rejected = reject_all(result, wrong, lambda variant: compare(result, lhs, as_value(variant)))
    cases = lhs.shape[0] * lhs.shape[1] if isinstance(lhs, sp.MatrixBase) else 1
    figure = "difference simplifies to 0" + (f" in all {cases} entries" if cases > 1 else "")
    equation = f"{sp.latex(lhs)} = {sp.latex(rhs)}"
    return passed(result, "identity", figure, cases, rejected, note, equation)


def vanishes(expression: sp.Expr) -> tuple[bool | None, str]:
    """Whether `expression` is identically zero: (True, ''), (False, witness) or (None, '')."""
    expression = _without_matrix_elements(expression.doit())
    if expression.is_zero or sp.expand(expression) == 0:
        return True, ""
    # A point at which it is not zero refutes it, and is much cheaper to find than a proof.
    witness, vanished_everywhere = _find_witness(expression)
    if witness:
        return False, witness
    if not vanished_everywhere:
        return None, ""
    simplifications: tuple[Callable[[Any], Any], ...] = (
        sp.simplify,
        lambda e: sp.simplify(sp.expand(e.rewrite(sp.exp), force=False)),
        lambda e: sp.trigsimp(sp.expand_trig(e)),
        lambda e: sp.simplify(sp.expand_log(e)),
    )
    for simplify in simplifications:
        if simplify(expression) == 0:
            return True, ""
    return None, ""


def compare(result: str, lhs: Any, rhs: Any) -> tuple[bool, str]:
    """Whether two expressions or matrices are equal, and what was seen."""
    shapes = [side.shape if isinstance(side, sp.MatrixBase) else () for side in (lhs, rhs)]
    if shapes[0] != shapes[1]:
        raise ShapeMismatchError(result, f"shapes {shapes[0]} and {shapes[1]} differ")
    for difference in _entries(lhs - rhs):
        zero, witness = vanishes(difference)
        if zero is None:
            raise UndecidedError(result, f"sympy cannot decide whether this is 0: {difference}")
        if not zero:
            return False, witness
    return True, "difference simplifies to 0"


def related(result: str, left: Any, relation: str, right: Any) -> tuple[bool, str]:
    """Whether two sides are related as an equation says; numbers are compared as numbers."""
    left, right = (_single(as_value(side)) for side in (left, right))
    if {type(left), type(right)} & {sp.FiniteSet, type(sp.EmptySet)}:
        return left == right, f"{left} against {right}"
    if right == 0 and isinstance(left, sp.MatrixBase):
        right = sp.zeros(*left.shape)
    shapes = [side.shape if isinstance(side, sp.MatrixBase) else () for side in (left, right)]
    if shapes[0] != shapes[1]:
        raise ShapeMismatchError(result, f"shapes {shapes[0]} and {shapes[1]} differ")
    pairs = list(zip(_entries(left), _entries(right), strict=True))
    if not all(one.is_number and other.is_number for one, other in pairs):
        if relation != "=":
            raise UndecidedError(result, f"an inequality needs numbers, got {left} and {right}")
        return compare(result, left, right)
    for one, other in pairs:
        first, second = sp.N(one, _DIGITS), sp.N(other, _DIGITS)
        if {sp.nan, sp.zoo} & {first, second}:
            return False, "it is not a number"
        rounded = one.has(sp.Float) or other.has(sp.Float)
        if not _numbers_related(first, _SAME.get(relation, relation), second, rounded):
            return False, f"{sp.N(first, 3)} against {sp.N(second, 3)}"
    return True, "the sides agree"


def _numbers_related(first: Any, relation: str, second: Any, rounded: bool) -> bool:
    """Whether two numbers are related as said, up to rounding; either may be infinite."""
    if first == second:
        return relation not in ("<", ">")
    if relation != "=" and not (first.is_extended_real and second.is_extended_real):
        return False
    if not (first.is_finite and second.is_finite):
        return relation != "=" and bool((first < second) == (relation in ("<", r"\le")))
    slack = (_ROUNDED if rounded else _EXACT) * max(1, abs(first), abs(second))
    if relation == "=" or relation in (r"\le", r"\ge"):
        below = relation == r"\le" and first < second
        above = relation == r"\ge" and first > second
        return bool(below or above or abs(first - second) <= slack)
    return bool(first < second - slack if relation == "<" else first > second + slack)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, sp.MatrixBase) and value.shape == (1, 1) else value


def _entries(value: Any) -> list[sp.Expr]:
    return list(value) if isinstance(value, sp.MatrixBase) else [value]


def _without_matrix_elements(expression: sp.Expr) -> sp.Expr:
    elements = expression.atoms(sp.matrices.expressions.matexpr.MatrixElement)
    return expression.xreplace({element: sp.Dummy(str(element)) for element in elements})


def _find_witness(expression: sp.Expr) -> tuple[str, bool]:
    """A point where `expression` is not zero; and whether it was zero wherever it had a value."""
    generator = random.Random(0)  # the same points in every build
    symbols = sorted(expression.free_symbols, key=lambda symbol: symbol.sort_key())
    evaluated = False
    for _ in range(_WITNESS_POINTS):
        point = {symbol: _random_value(symbol, generator) for symbol in symbols}
        if None in point.values():
            continue
        value = sp.N(expression.subs(point), _DIGITS)
        if not value.is_number or value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
            continue
        evaluated = True
        # 50 digits are carried, so what is left of a true zero is far below this.
        if abs(value) > sp.Float("1e-25"):
            where = ", ".join(f"{symbol} = {value}" for symbol, value in point.items())
            return f"they differ by {sp.N(value, 3)}" + (f" at {where}" if where else ""), False
    return "", evaluated


def _random_value(symbol: sp.Symbol, generator: random.Random) -> sp.Expr | None:
    """A value with every property that the symbol is assumed to have; None if none was drawn."""
    assumed = {fact: holds for fact, holds in symbol.assumptions0.items() if holds is not None}
    for _ in range(_DRAWS):
        value = _candidate(symbol, generator)
        if all(getattr(value, f"is_{fact}") is holds for fact, holds in assumed.items()):
            return value
    return None


def _candidate(symbol: sp.Symbol, generator: random.Random) -> sp.Expr:
    if symbol.is_integer:
        return sp.Integer(generator.randint(1, 6)) * (-1 if symbol.is_negative else 1)
    value = sp.Rational(generator.randint(1, 40), generator.randint(41, 97))
    if symbol.is_irrational:
        value *= sp.sqrt(2)
    if symbol.is_imaginary:
        value *= sp.I
    if symbol.is_nonnegative:
        return value
    if symbol.is_real or symbol.is_imaginary:
        return -value if symbol.is_negative else value * generator.choice((-1, 1))
    # A symbol without assumptions stands for any complex number.
    return value + sp.I * sp.Rational(generator.randint(1, 40), generator.randint(11, 29))
