"""Identities: proved, refuted with a point, or refused."""

import pytest
import sympy as sp

from llmref import verify

NOTE = "two sides written by hand"

x, y = sp.symbols("x y", real=True)
n = sp.Symbol("n", integer=True, positive=True)
z = sp.Symbol("z")


def test_a_true_identity_passes_and_says_what_was_compared() -> None:
    check = verify.identity(
        "trig-double-angle",
        sp.sin(2 * x),
        2 * sp.sin(x) * sp.cos(x),
        wrong={"lost factor": sp.sin(x) * sp.cos(x)},
        note=NOTE,
    )
    assert check.kind == "identity"
    assert check.cases == 1
    assert (
        check.equation == r"\sin{\left(2 x \right)} = 2 \sin{\left(x \right)} \cos{\left(x \right)}"
    )
    assert list(check.rejected) == ["lost factor"]


def test_a_false_identity_fails_with_a_point_where_it_is_false() -> None:
    with pytest.raises(
        verify.CheckFailedError, match=r"trig-sign: the two sides differ: .* at x = "
    ):
        verify.identity(
            "trig-sign", sp.sin(-x), sp.sin(x), wrong={"twice": 2 * sp.sin(x)}, note=NOTE
        )


def test_matrices_are_compared_in_every_entry() -> None:
    a = sp.Matrix([[x, y, 1], [0, 1, x]])
    check = verify.identity(
        "matrix-square",
        a * a.T,
        sp.Matrix([[x**2 + y**2 + 1, x + y], [x + y, 1 + x**2]]),
        wrong={"one entry": sp.Matrix([[x**2 + y**2 + 1, x + y], [x - y, 1 + x**2]])},
        note=NOTE,
    )
    assert check.cases == 4
    with pytest.raises(verify.CheckFailedError, match="matrix-square"):
        verify.identity(
            "matrix-square",
            sp.eye(2),
            sp.Matrix([[1, 0], [x, 1]]),
            wrong={"w": sp.zeros(2, 2)},
            note=NOTE,
        )


def test_matrix_symbols_are_written_out() -> None:
    a, b = sp.MatrixSymbol("A", 2, 3), sp.MatrixSymbol("B", 3, 2)
    assert (
        verify.identity(
            "matrix-transpose", (a * b).T, b.T * a.T, wrong={"order kept": a * b}, note=NOTE
        ).cases
        == 4
    )


def test_matrices_of_different_shapes_are_refused() -> None:
    with pytest.raises(
        verify.ShapeMismatchError, match=r"matrix-shape: shapes \(2, 2\) and \(3, 3\)"
    ):
        verify.identity(
            "matrix-shape", sp.eye(2), sp.eye(3), wrong={"w": sp.zeros(3, 3)}, note=NOTE
        )
    with pytest.raises(verify.ShapeMismatchError, match="matrix-shape"):
        verify.identity(
            "matrix-shape", sp.eye(2), sp.eye(2), wrong={"w": sp.zeros(3, 3)}, note=NOTE
        )


def test_a_check_without_a_wrong_variant_is_an_error() -> None:
    with pytest.raises(verify.MissingWrongVariantError, match="trivial-zero: give at least one"):
        verify.identity("trivial-zero", x - x, 0, wrong={}, note=NOTE)


def test_a_wrong_variant_that_is_right_is_an_error() -> None:
    with pytest.raises(
        verify.WrongVariantPassedError, match="trivial-square: the wrong variant 'expanded' passes"
    ):
        verify.identity(
            "trivial-square",
            (x + 1) ** 2,
            (x + 1) ** 2,
            wrong={"expanded": x**2 + 2 * x + 1},
            note=NOTE,
        )


def test_what_sympy_cannot_decide_is_refused() -> None:
    """An unknown function has no value that could be compared."""
    f = sp.Function("f")
    with pytest.raises(verify.UndecidedError, match="unknown-function: sympy cannot decide"):
        verify.identity("unknown-function", f(x) + f(y), f(x + y), wrong={"w": x}, note=NOTE)


def test_an_identity_that_holds_at_no_point_of_the_domain_is_undecided() -> None:
    """A difference that is never finite has no point at which it could be compared."""
    with pytest.raises(verify.UndecidedError):
        verify.identity("never-finite", sp.zoo * x, sp.oo * x, wrong={"w": x}, note=NOTE)


def test_assumptions_of_the_symbols_decide() -> None:
    """sqrt(x^2) = x is false for a real x and true for a positive one."""
    positive = sp.Symbol("p", positive=True)
    verify.identity(
        "root-square", sp.sqrt(positive**2), positive, wrong={"sign": -positive}, note=NOTE
    )
    with pytest.raises(verify.CheckFailedError, match="root-square"):
        verify.identity("root-square", sp.sqrt(x**2), x, wrong={"zero": 0}, note=NOTE)


def test_no_counterexample_lacks_the_assumed_properties() -> None:
    """2 floor(n/2) + 1 = n holds for odd n alone; sympy cannot decide it, and 4 refutes nothing."""
    odd = sp.Symbol("o", odd=True)
    with pytest.raises(verify.UndecidedError, match="odd-halves"):
        verify.identity(
            "odd-halves", 2 * sp.floor(odd / 2) + 1, odd, wrong={"w": odd + 1}, note=NOTE
        )
    with pytest.raises(verify.CheckFailedError, match="odd-halves: .* n = [246]"):
        verify.identity("odd-halves", 2 * sp.floor(n / 2) + 1, n, wrong={"w": n + 1}, note=NOTE)


@pytest.mark.parametrize(
    "assumptions",
    [
        {"odd": True},
        {"even": True},
        {"prime": True},
        {"irrational": True},
        {"imaginary": True},
        {"negative": True, "integer": True},
        {"nonpositive": True, "nonzero": True},
    ],
)
def test_values_are_drawn_for_every_assumption(assumptions: dict[str, bool]) -> None:
    symbol = sp.Symbol("s", **assumptions)
    with pytest.raises(verify.CheckFailedError, match="a-b: .* s = "):
        verify.identity("a-b", 2 * symbol, symbol, wrong={"w": 3 * symbol}, note=NOTE)


def test_symbols_without_assumptions_are_complex() -> None:
    with pytest.raises(verify.CheckFailedError, match="conjugate-self"):
        verify.identity("conjugate-self", sp.conjugate(z), z, wrong={"zero": 0}, note=NOTE)


def test_sums_are_evaluated() -> None:
    k = sp.Symbol("k", integer=True)
    verify.identity(
        "sum-gauss",
        sp.Sum(k, (k, 1, n)),
        n * (n + 1) / 2,
        wrong={"off by one": n * (n - 1) / 2},
        note=NOTE,
    )


def test_a_tiny_difference_is_still_a_difference() -> None:
    with pytest.raises(verify.CheckFailedError, match="tiny-difference"):
        verify.identity("tiny-difference", x + sp.Rational(1, 10**20), x, wrong={"w": 0}, note=NOTE)
