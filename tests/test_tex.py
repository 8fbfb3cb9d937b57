"""TeX compared by its tokens: layout does not count, a sign does."""

import pytest

from llmref.tex import shows, tokens


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (r"\tfrac12 x_{i}^{2}", r"\frac 1 2x_i^2"),
        (r"\operatorname {KL}\bigl( p\bigr)", r"\operatorname{KL}(p)"),
        (r"\mathbb E\,x", r"\mathbb{E} x"),
        (r"a &= b \;", "a=b"),
        (r"\left[a\right]", "[a]"),
    ],
)
def test_layout_does_not_count(one: str, same: str) -> None:
    assert tokens(one) == tokens(same)


@pytest.mark.parametrize(
    ("one", "other"), [("a-b", "a+b"), ("[a]", "(a)"), ("x_{ij}", "x_ij"), (r"\mu a", r"\nu a")]
)
def test_what_is_different_stays_different(one: str, other: str) -> None:
    assert tokens(one) != tokens(other)


DISPLAY = r"""
\begin{aligned}
f(x)&=1-g(x), & h&=2\\
f'(x)&=f(x)\,g(x)\le\tfrac14\\
\operatorname{Var}k&=a\\&\quad+b-c .
\end{aligned}
"""


@pytest.mark.parametrize(
    "equation",
    ["f(x)=1-g(x)", "h=2", "f'(x)=f(x)g(x)", r"\operatorname{Var} k = a + b - c"],
)
def test_a_whole_equation_is_found(equation: str) -> None:
    assert shows(DISPLAY, equation)


@pytest.mark.parametrize(
    "equation",
    ["f(x)=1+g(x)", "f(x)=1", "x)=1-g(x)", r"\operatorname{Var}k=a", "h=3", "f'(x)=f(x)"],
)
def test_a_changed_or_cut_equation_is_not(equation: str) -> None:
    assert not shows(DISPLAY, equation)


@pytest.mark.parametrize(
    "goes_on",
    [
        *(rf"\\&\quad {operator} a" for operator in (r"\times", r"\odot", "/", r"\pm", "^2", "_1")),
        r"\\&\quad(1+a)",
        r"\\&\quad\sum_ia_i",
        r"\\& a",
        r"\\& a\\&=b",
    ],
)
def test_an_equation_that_goes_on_in_the_next_line_is_not_shown_by_its_first(goes_on: str) -> None:
    display = rf"\begin{{aligned}}F&=m {goes_on}\end{{aligned}}"
    assert not shows(display, "F=m")
    in_one_line = goes_on.replace(r"\\&", "").replace(r"\quad", "")
    assert shows(display, "F=m" + in_one_line)


@pytest.mark.parametrize(
    ("display", "equation"),
    [
        (r"\begin{aligned}F&=m+\\&a=b\end{aligned}", "a=b"),
        ("f(x;a)=b", "a)=b"),
        ("f(x;a=b)=c", "a=b"),
        ("f(x;a=b;y)=c", "a=b"),
        (r"\sum_{i=1,j=2,k=3}a", "j=2"),
        ("f[(a;b=c;d]=1", "b=c"),
    ],
)
def test_a_part_of_an_equation_is_not_shown(display: str, equation: str) -> None:
    assert not shows(display, equation)


def test_lines_with_relations_of_their_own_are_equations() -> None:
    display = r"\begin{aligned}F&=m\\&=n\\G&\le 2\end{aligned}"
    assert shows(display, "F=m")
    assert shows(display, "F=m=n")
