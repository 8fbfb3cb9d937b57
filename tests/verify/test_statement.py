"""Displayed equations: read from their TeX, with every sign proved to matter."""

import pytest
import sympy as sp

from llmref import verify
from llmref.tex import tokens
from llmref.verify.names import names_of
from llmref.verify.reader import Reader

NOTE = "positive symbols a and b"

a, b, x = sp.symbols("a b x", positive=True)
SQUARE = {"a": a, "b": b}


def read(text: str, **where: object) -> object:
    names = names_of(SQUARE | where, {})
    return Reader("some-id", tokens(text + "=0"), names).sides()[0][1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"a+b-2", a + b - 2),
        (r"-a^2b", -(a**2) * b),
        (r"+a", a),
        (r"\frac{a+1}{b}", (a + 1) / b),
        (r"\tfrac12 a", a / 2),
        (r"12.5\,a", sp.Rational(25, 2) * a),
        (r"a/b", a / b),
        (r"2a/b-1", 2 * a / b - 1),
        (r"\bigl(a-b\bigr)^{2}", (a - b) ** 2),
        (r"[a-(b-a)]\cdot 3", 3 * (2 * a - b)),
        (r"a\times b^{-1}", a / b),
        (r"e^{a-b}", sp.exp(a - b)),
        (r"\sqrt{a}\sqrt b", sp.sqrt(a * b)),
        (r"\log a", sp.log(a)),
        (r"b\log(a)", b * sp.log(a)),
        (r"\log\frac ab", sp.log(a / b)),
        (r"\cos^2(a)", sp.cos(a) ** 2),
        (r"\exp(a)\,b", sp.exp(a) * b),
        (r"\infty", sp.oo),
    ],
)
def test_each_construction_has_its_value(text: str, value: sp.Expr) -> None:
    assert sp.simplify(read(text) - value) == 0 or read(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"a/bb", "a product after / has two readings"),
        (r"\log a b", "needs parentheses"),
        (r"\log(a)^2", "a power after a function's argument has two readings"),
        (r"c+a", "'c' has no value in `where` after '', before 'c [+] a"),
        (r"(a+b", r"'\)' is missing"),
        (r"a+", "'=' has no value"),
        (r"a)", "expected an operator or the end"),
        (r"a_1", "'a' has no value"),
    ],
)
def test_what_has_no_single_reading_is_refused(text: str, reason: str) -> None:
    with pytest.raises(verify.UnreadableError, match=reason):
        read(text)


@pytest.mark.parametrize(("text", "reason"), [("a", "two sides"), ("a=", "a term is missing")])
def test_an_equation_has_two_sides(text: str, reason: str) -> None:
    with pytest.raises(verify.UnreadableError, match=reason):
        verify.statement("some-id", text, SQUARE, note=NOTE)


def test_symbols_take_their_subscripts_with_them_and_the_longest_wins() -> None:
    check = verify.statement(
        "some-id",
        r"a_{1}-a_1' = \sigma(a)\,x",
        {"a": a, "a_1": a * x, "a_1'": b, r"\sigma": lambda v: v - b / x, "x": x},
        note=NOTE,
    )
    assert (check.turned, check.rejected) == (1, {})


def test_every_sign_of_the_text_is_turned_and_must_be_rejected() -> None:
    text = r"(a-b)^2 = a^2 - 2ab + b^2"
    check = verify.statement("some-id", text, SQUARE, note=NOTE)
    assert (check.turned, check.rejected) == (3, {})
    assert check.statement == (text,)
    assert check.equation == text
    assert check.kind == "identity"
    with pytest.raises(verify.WrongVariantPassedError, match="sign 3 turned"):
        verify.statement("some-id", r"a-b = a-b+0", {**SQUARE, "b": b}, note=NOTE)


def test_a_mistake_keeps_its_name_beside_the_signs_and_the_text_shows_both() -> None:
    wrong = {"sign 1 turned": "a-b=b-a", "power lost": "a-b=-(b-a)^2"}
    check = verify.statement("some-id", "a-b=-(b-a)", SQUARE, wrong=wrong, note=NOTE)
    assert (check.turned, list(check.rejected)) == (3, list(wrong))
    assert repr(check).endswith("; 3 signs turned")
    assert "<li>3 signs turned</li>" in check._repr_html_()
    assert check.record()["turned"] == 3


def test_a_sign_inside_a_symbol_is_a_part_of_its_name() -> None:
    check = verify.statement(
        "some-id", "S_{n+1}-a=b", {"S_{n+1}": a + b, "a": a, "b": b}, note=NOTE
    )
    assert (check.turned, check.rejected) == (1, {})


def test_several_equations_make_one_check() -> None:
    both = ["a-b=-(b-a)", "b^2/b=b"]
    check = verify.statement("some-id", both, SQUARE, wrong={"no power": "b/b=b"}, note=NOTE)
    assert check.cases == 2
    assert (check.turned, list(check.rejected)) == (3, ["no power"])
    assert check.equation == r"\begin{gathered}a-b=-(b-a)\\b^2/b=b\end{gathered}"
    with pytest.raises(verify.CheckFailedError, match=r"the sides of 'b=a' differ"):
        verify.statement("some-id", ["a-b=-(b-a)", "b=a"], SQUARE, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError, match="an equation without a sign"):
        verify.statement("some-id", both, SQUARE, note=NOTE)


def test_a_text_without_a_sign_needs_a_wrong_one() -> None:
    with pytest.raises(verify.MissingWrongVariantError):
        verify.statement("some-id", r"\sqrt{a^2}=a", SQUARE, note=NOTE)
    wrong = {"square kept": r"\sqrt{a^2}=a^2"}
    assert list(
        verify.statement("some-id", r"\sqrt{a^2}=a", SQUARE, wrong=wrong, note=NOTE).rejected
    ) == ["square kept"]


def test_all_sides_of_a_chain_are_compared() -> None:
    assert verify.statement("some-id", "a-b=-(b-a)=-b+a", SQUARE, note=NOTE).cases == 1
    with pytest.raises(verify.CheckFailedError, match=r"the sides of .* differ: .* at a = "):
        verify.statement("some-id", "a-b=-(b-a)=b-a", SQUARE, note=NOTE)


def test_matrices_keep_their_order_and_have_transposes() -> None:
    m, n = sp.Matrix([[a, 1], [0, b]]), sp.Matrix([[1, x], [2, 1]])
    check = verify.statement(
        "some-id",
        r"(AB)^\top = B^\top A^\top",
        {"A": m, "B": n},
        wrong={"order kept": r"(AB)^\top = A^\top B^\top"},
        note=NOTE,
    )
    assert (check.turned, list(check.rejected)) == (0, ["order kept"])


def test_a_product_entry_by_entry_is_not_a_product_of_matrices() -> None:
    m, n = sp.Matrix([[a, 1], [0, b]]), sp.Matrix([[1, x], [2, 1]])
    where = {"A": m, "B": n, "a": a}
    assert read(r"A\odot B", **where) == sp.Matrix([[a, x], [0, b]])
    assert read(r"A\odot B\odot B", **where) == sp.Matrix([[a, x**2], [0, b]])
    assert read(r"a\odot A", **where) == a * m


M, N = sp.Matrix([[a, 1], [0, b]]), sp.Matrix([[1, x], [2, 1]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"\log x/y", "needs parentheses"),
        (r"\log x\cdot y", "needs parentheses"),
        (r"\operatorname{Var}x\cdot y", "needs parentheses"),
        (r"\tanh^{-1}(x)", "a power of a function has two readings"),
        (r"\sin^{-1}x", "a power of a function has two readings"),
        (r"\log^2x", "a power of a function has two readings"),
        (r"f^{-1}(x)", "a power of a function has two readings"),
        (r"f^2(x)", "a power of a function has two readings"),
        (r"A\odot BA", r"beside \\odot has two readings"),
        (r"AB\odot A", r"beside \\odot has two readings"),
        (r"x/y\cdot x", "a product after / has two readings"),
        (r"x/y/x", "a product after / has two readings"),
        (r"x^{(y)}", "a superscript in parentheses has two readings"),
        (r"x^{(y+1)}", "a superscript in parentheses has two readings"),
        (r"x^(y)", "a superscript in parentheses has two readings"),
        (r"2\tfrac12", "a fraction after a number has two readings"),
        (r"[x]", "brackets around no sum have two readings"),
        (r"[xy]", "brackets around no sum have two readings"),
        (r"(x+y]x", r"'\)' is missing"),
        (r"[x+y)x", r"'\]' is missing"),
        (r"\lfloor x\rceil", r"'.*rfloor' is missing"),
        (r"|x", r"'\|' is missing"),
        (r"\lVert x\rVert_3", "no norm of this"),
        (r"1.2.3", "one decimal point"),
        (r"x²", "has no value"),
        (r"x^\top", "only a matrix has a transpose"),
        (r"A+x", "this has no value"),
        (r"AC", "this has no value"),
    ],
)
def test_tex_that_two_people_read_differently_is_refused(text: str, reason: str) -> None:
    y = sp.Symbol("y", positive=True)
    where = {"x": x, "y": y, "f": sp.exp, r"\operatorname{Var}": lambda v: v**2}
    with pytest.raises(verify.UnreadableError, match=reason):
        read(text, **where, A=M, B=N, C=sp.Matrix([1, 2, 3]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\sqrt[3]{x}", sp.cbrt(x)),
        (r"\sqrt[4]{x}", x ** sp.Rational(1, 4)),
        (r"x^{(a-1)/b}", x ** ((a - 1) / b)),
        (r"\log(x)/b", sp.log(x) / b),
        (r"f[x]", sp.exp(x)),
        (r"x\tfrac12", x / 2),
        (r"\tanh^2x", sp.tanh(x) ** 2),
    ],
)
def test_what_has_one_reading_is_read(text: str, value: sp.Expr) -> None:
    assert sp.simplify(read(text, x=x, f=sp.exp) - value) == 0


def test_a_gap_in_a_number_is_refused() -> None:
    for text in (r"2\,3=23", "2&3=23", "2~3=6"):
        with pytest.raises(verify.UnreadableError, match="a number or a product"):
            verify.statement("some-id", text, {}, wrong={"one less": "22=23"}, note=NOTE)


def test_a_mistake_is_one_text() -> None:
    with pytest.raises(verify.UnreadableError, match=r"an equation is a text, got \['a=b'\]"):
        verify.statement("some-id", "a-b=-(b-a)", SQUARE, wrong={"w": ["a=b"]}, note=NOTE)


def test_no_equation_shows_nothing() -> None:
    with pytest.raises(verify.UnreadableError, match="at least one equation"):
        verify.statement("some-id", [], SQUARE, wrong={"w": "a=b"}, note=NOTE)


def test_each_equation_needs_a_mistake_of_its_own() -> None:
    two = ["a^2/a=a", "b^2/b=b"]
    wrong = {"no power": "b/b=b", "power kept": "b^2/b=b^2"}
    with pytest.raises(verify.MissingWrongVariantError, match=r"of its own: 'a\^2/a=a'"):
        verify.statement("some-id", two, SQUARE, wrong=wrong, note=NOTE)
    wrong = {"no power": "b/b=b", "power kept": "a^2/a=a^2"}
    assert verify.statement("some-id", two, SQUARE, wrong=wrong, note=NOTE).cases == 2
    with pytest.raises(verify.MissingWrongVariantError, match="'stray' has a side of none"):
        verify.statement("some-id", two, SQUARE, wrong={**wrong, "stray": "1=2"}, note=NOTE)
