"""Equations with indices: sums, families, conditions, expectations, read from their TeX."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
import sympy as sp
import torch

from llmref import verify
from llmref.verify import Becomes, Drawn, Mean
from llmref.verify.names import names_of
from llmref.verify.reader import Reader
from llmref.verify.stated import agree, equation_tokens

NOTE = "three small numbers"
THREE = range(3)
X = [1, 2, 4]
WHERE: dict[str, Any] = {
    "x_i": X,
    "x": X,
    "n": 3,
    "b": 4,
    "P_{ij}": torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
    "K^i": lambda i: 10 * i,
    "r_{(i)}": {1: 5, 2: 6},
    "k_{1,t}": [7, 8, 9],
    "W": Drawn("y", [3, 5]),
    "B": Drawn(r"\lVert x\rVert\le1", [7, 9, 8]),
    "Z": Drawn(r"\sum", [4, 5, 6]),
    r"\mathbb E": Mean("y", [Fraction(1, 4), Fraction(3, 4)]),
    r"\operatorname{clip}": lambda value, low, high: sp.Min(sp.Max(value, low), high),
    r"\operatorname{twice}": lambda value: 2 * value,
    "S": {0, 2},
    "M": sp.Matrix([[1, 2], [3, 4]]),
    "D": sp.diag(3, -4),
    "E_i": [sp.Matrix([[1, 1], [0, 1]]), sp.Matrix([[1, 0], [2, 1]]), sp.Matrix([[0, 1], [1, 0]])],
    "v": Becomes(5, 6),
    "u_i": Becomes([1, 2, 3], [2, 4, 6]),
}
OVER: dict[str, Any] = {
    "i": THREE,
    "j": THREE,
    "t": THREE,
    "y": range(2),
    r"\sum": THREE,
    r"\lVert x\rVert\le1": THREE,
    "i<j": [{"i": 0, "j": 1}, {"i": 0, "j": 2}, {"i": 1, "j": 2}],
}


def read(text: str) -> Any:
    reader = Reader("some-id", equation_tokens(text + "=0"), names_of(WHERE, OVER), OVER)
    (sides,) = reader.readings()
    return sides[0][1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\sum_ix_i", 7),
        (r"\sum_{i}x_i^2+n", 24),
        (r"\sum_{i=1}^{n-1}i", 3),
        (r"\sum_{i=1}^nx_{i-1}", 7),
        (r"\sum_{i=1}^{0}x_i+1", 1),
        (r"\sum Z-n", 12),
        (r"\prod_ix_i", 8),
        (r"\max_i x_i-\min_i(x_i+1)", 2),
        (r"\max(n,b,2)", 4),
        (r"\sum_i\sum_{j\le i}P_{ij}", 34),
        (r"\sum_i\sum_{j<i}P_{ij}", 19),
        (r"\sum_i\sum_{j\ne i}P_{ij}", 30),
        (r"\sum_{i<j}P_{ij}", 11),
        (r"\sum_{i\in S}x_i", 5),
        (r"\max_{\lVert x\rVert\le1}B", 9),
        (r"\sum_{i\notin S}x_i", 2),
        (r"\sum_{i:\,x_i>1}1", 2),
        (r"\sum_{i:\,x_i>1,\,i\in S}1", 1),
        (r"P_{10}+P_{1,n-1}", 10),
        (r"K^2+K^{n}", 50),
        (r"r_{(2)}-r_{(n-2)}", 1),
        (r"k_{1,2}+k_{1,n-3}", 16),
        (r"\mathbb E\,W", sp.Rational(9, 2)),
        (r"\mathbb E[W^2-1]+n", 23),
        (r"\mathbb E(W-n)\,b", 6),
        (r"\mathbb E(W-n)^2", 3),
        (r"\mathbb E\bigl(b-W\bigr)_+^2+\mathbb E[W]^2", sp.Rational(41, 2)),
        (r"\lVert x\rVert^2+\lVert x\rVert_2^2", 42),
        (r"x^\top x-x\cdot x", 0),
        (r"\lfloor n/2\rfloor+\lceil n/2\rceil", 3),
        (r"|n-b|\,|b|", 4),
        (r"\lvert n-b\rvert", 1),
        (r"(-n)\bmod b", 1),
        (r"\binom bn+\binom{b}{2}", 10),
        (r"\mathbf1[n<b]+[b\le n]+1\{n=3\}", 2),
        (r"[n<b\vee b<n]+[n<b,\,b<n]", 1),
        (r"\begin{cases}x_0&n\ge b\\[2ex]b^2&n<b\end{cases}", 16),
        (r"\begin{cases}x_0&n\ge b\\b^2&n<b .\end{cases}", 16),
        (r"\begin{cases}\log(n-b)&n>b\\n&\text{otherwise}\end{cases}", 3),
        (r"\operatorname{clip}(b,1,n)", 3),
        (r"\operatorname{twice}(x)\cdot x", 42),
        (r"\langle x,\,x+1\rangle-n\langle M,M\rangle", 28 - 90),
        (r"\lVert x-n\rVert_1+\lVert x-n\rVert_\infty", 4 + 2),
        (r"\lVert D\rVert_2+\lVert D\rVert_*+\lVert D\rVert_F", 4 + 7 + 5),
        (r"(n-b)_++(b-n)_+^2", 1),
        (r"\lvert\{i:x_i>1\}\rvert+\lvert\{i:x_i>5\}\rvert", 2),
        (r"\min\Bigl\{n,b\Bigr\}\{n+b\}", 21),
        (r"\begin{pmatrix}x\\n\end{pmatrix}^{\top}\begin{pmatrix}x\\b\end{pmatrix}", 33),
        (r"\begin{pmatrix}1&n\end{pmatrix}\begin{pmatrix}1\\n\end{pmatrix}", 10),
        (r"x_0+\dots+x_{n-1}", 7),
        (r"n+x_1+\dots+x_2-b", 5),
        (r"x_2+\dots+x_{n-2}", 0),
        (r"b+b^2+\dots+b^n", 84),
        (r"b+\dots+b^n", 84),
        (r"2^{x_0+\dots+x_1}", 8),
        (r"n\,x_0x_1\cdots x_{n-1}", 24),
        (r"\log\frac bn\sinh 1", sp.log(sp.Rational(4, 3)) * sp.sinh(1)),
        (r"v+u_1", 7),
    ],
)
def test_each_construction_has_its_value(text: str, value: Any) -> None:
    assert sp.simplify(sp.Matrix([read(text)])[0] - value) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"\sum_zx_i", "'z' is not in `over`"),
        (r"\prod x_i", "over what does this go"),
        (r"\sum_{i\in T}x_i", "'T' is no set"),
        (r"\sum_{i:\,n}x_i", "a condition needs a relation"),
        (r"\begin{cases}1&n>b\end{cases}", "no case holds"),
        (r"\begin{cases}1\end{cases}", "each case needs & and a condition"),
        (r"x_{n}", "this has no value"),
        (r"x_{n-4}", "this has no value"),
        (r"P_{ijk}", "'P' has no value"),
        (r"\lVert M\rVert", "no norm of this"),
        (r"\lVert x\rVert_3", "no norm of this"),
        (r"\langle x,M\rangle", "of one shape"),
        (r"M^{1/2}", "only whole powers"),
        (r"M-n", "this has no value"),
        (r"x_0+\dots+x_0", "differ in one place"),
        (r"x_0+\dots", "a term is missing|has no value"),
        (r"x_0+\dots+P_{11}", "differ in one place"),
        (r"-x_0+\dots+x_2", "begins with no minus"),
        (r"x_{n/2}+\dots+x_2", "dots count whole numbers"),
        (r"\lVert x", "rVert.* is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(text: str, reason: str) -> None:
    with pytest.raises(verify.UnreadableError, match=reason):
        read(text)


def test_a_product_with_dots_counts_down_to_a_number() -> None:
    found = read(r"E_{n-1}\cdots E_0")
    expected = WHERE["E_i"][2] * WHERE["E_i"][1] * WHERE["E_i"][0]
    assert found == expected
    assert expected != WHERE["E_i"][0] * WHERE["E_i"][1] * WHERE["E_i"][2]


def softmax(text: str, **options: Any) -> verify.Check:
    weights = [sp.Rational(1, 7), sp.Rational(2, 7), sp.Rational(4, 7)]
    where = {"p_i": weights, "x_i": [sp.log(it) for it in X]}
    return verify.statement(
        "some-id", text, where, over={"i": THREE, "j": THREE}, note=NOTE, **options
    )


def test_an_equation_holds_for_each_value_of_an_index_that_no_sum_binds() -> None:
    wrong = {"no exponential": r"p_i=\frac{x_i}{\sum_je^{x_j}}"}
    check = softmax(r"p_i=\frac{e^{x_i}}{\sum_je^{x_j}}", wrong=wrong)
    assert (check.kind, check.cases, list(check.rejected)) == ("numeric", 3, list(wrong))
    with pytest.raises(verify.CheckFailedError, match="differ"):
        softmax(r"p_i=\frac{e^{x_i}}{\sum_{j\ne i}e^{x_j}}", wrong=wrong)
    with pytest.raises(verify.WrongVariantPassedError, match="the same"):
        softmax(r"p_i=\frac{e^{x_i}}{\sum_je^{x_j}}", wrong={"the same": r"p_i=p_i"})


def stated(text: str | Mapping[str, str], value: Any, **options: Any) -> verify.Check:
    return verify.statement("some-id", text, WHERE | value, over=OVER, note=NOTE, **options)


def test_an_expectation_may_depend_on_another_index() -> None:
    """Two rows of probabilities: the means of 0 and 1 are the second of each."""
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)
    where = {
        "a": Drawn("y", [0, 1]),
        r"\mathbb E": Mean("y", weights, given="s"),
        "m_s": [0.75, 0.5],
    }
    over = {"y": range(2), "s": range(2)}
    right, wrong = r"m_s=\mathbb E\,a", r"m_s=\mathbb E[1-a]"
    check = verify.statement("some-id", right, where, over=over, wrong={"w": wrong}, note=NOTE)
    assert check.cases == 2
    with pytest.raises(verify.CheckFailedError):
        verify.statement("some-id", wrong, where, over=over, note=NOTE)


def test_relations_and_signs_are_turned_also_in_the_range_of_a_sum() -> None:
    below = {"c_i": [0, 4, 15]}
    check = stated(r"c_i=\sum_{j<i}P_{ij}", below)
    assert (check.turned, check.rejected) == (1, {})
    assert stated(r"\sum_{j=1}^{n-1}K^j+n=33", {}).turned == 2


def test_a_turned_sign_that_leaves_no_value_is_not_counted() -> None:
    """x_{t+1} of the last t is nothing; with the sign turned it is something else, or nothing."""
    differences = {"d_t": lambda t: X[t + 1] - X[t]}
    check = verify.statement(
        "some-id",
        "d_t=x_{t+1}-x_t",
        {"x_t": X, **differences},
        over={"t": range(2)},
        note=NOTE,
    )
    assert check.turned == 1


def test_an_inequality_must_be_attained_unless_it_is_said_not_to_be() -> None:
    bound = r"(-n_i)\bmod b\le b-1"
    assert stated(bound, {"n_i": [5, 6, 9]}).turned == 3
    with pytest.raises(verify.CheckFailedError, match="the bound is not attained"):
        stated(bound, {"n_i": [6, 7, 8]})
    loose = stated(bound, {"n_i": [6, 7, 8]}, attained=False)
    assert loose.turned == 1  # n + 1 is a bound as well
    with pytest.raises(verify.CheckFailedError, match=r"2\.00 against 1\.00"):
        stated(r"(-n_i)\bmod b\le b-3", {"n_i": [6, 7, 8]})


def test_an_expression_that_is_displayed_alone_equals_what_is_said() -> None:
    check = stated({r"2n+b": "N"}, {"N": 10})
    assert check.statement == ("2n+b",)
    assert check.equation == "2n+b"
    with pytest.raises(verify.CheckFailedError, match="differ"):
        stated({r"2n+b": "N"}, {"N": 11})


def test_floats_agree_to_nine_digits_and_no_less() -> None:
    third = torch.tensor(1 / 3, dtype=torch.float64)
    wrong = {"half": r"f=\frac12"}
    check = stated(r"f=\frac13", {"f": third}, wrong=wrong)
    assert check.figure.endswith("the sides agree in 1 case")
    with pytest.raises(verify.CheckFailedError):
        stated(r"f=\frac13", {"f": third + 1e-8}, wrong=wrong)
    with pytest.raises(verify.CheckFailedError, match="not a number"):
        stated(r"f=\frac13", {"f": third / 0 * 0}, wrong=wrong)


def test_an_index_has_no_value_of_its_own() -> None:
    with pytest.raises(verify.UnreadableError, match="an index with a value: i"):
        stated("n=3", {"i": 1})


def test_an_inequality_between_symbols_is_not_decided() -> None:
    with pytest.raises(verify.UndecidedError, match="needs numbers"):
        stated(r"s\le n", {"s": sp.Symbol("s")})


def test_shapes_must_agree() -> None:
    with pytest.raises(verify.ShapeMismatchError):
        stated("x=n", {})


@pytest.mark.parametrize(
    "family", [X, tuple(X), torch.tensor(X), dict(enumerate(X)), X.__getitem__]
)
def test_a_family_is_a_list_a_tensor_a_mapping_or_a_function(
    family: list[int] | Callable[[int], int],
) -> None:
    assert stated(r"\sum_iz_i-z_0=6", {"z_i": family}).turned == 1


@pytest.mark.parametrize(
    ("text", "true"),
    [
        (r"v=\infty", True),
        (r"n=\infty", False),
        (r"n<\infty", True),
        (r"n>\infty", False),
        (r"\log(n-b)\le n", False),  # a complex number is below none
        (r"\frac1{n-3}=n", False),
        (r"n\ge n", True),
        (r"n<n", False),
    ],
)
def test_what_is_infinite_or_complex_equals_nothing_finite(text: str, true: bool) -> None:
    reader = Reader("some-id", equation_tokens(text), names_of(WHERE | {"v": sp.oo}, OVER), OVER)
    assert agree(reader, attained=False)[0] is true


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (r"v\leftarrow v+1", r"v\leftarrow v-1"),
        (r"v\to v+1", r"v\to 2v"),
        (r"u_i\leftarrow 2u_i", r"u_i\leftarrow u_i"),
        (r"r:=n-b", r"r:=b-n"),
        (r"\{i:x_i\ge2\}=S'", r"\{i:x_i>2\}=S'"),
        (r"S''=\{i:x_i>5\}", r"S''=\{i:x_i>1\}"),
        (r"y\to1", r"y\to2"),
        (r"x-x=0", r"x+x=0"),
    ],
)
def test_arrows_sets_and_definitions_are_equalities(text: str, wrong: str) -> None:
    values = {
        "r": -1,
        "S'": {1, 2},
        "S''": set(),
        "y": sp.limit(1 + 1 / sp.Symbol("n"), "n", sp.oo),
    }
    where = {key: value for key, value in WHERE.items() if key != "S"} | values
    over = {"i": THREE}
    assert verify.statement("some-id", text, where, over=over, wrong={"w": wrong}, note=NOTE)
    with pytest.raises(verify.CheckFailedError):
        verify.statement("some-id", wrong, where, over=over, wrong={"w": text}, note=NOTE)
