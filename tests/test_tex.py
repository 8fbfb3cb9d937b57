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
        (r"\left[a\right]", "(a)"),
    ],
)
def test_layout_does_not_count(one: str, same: str) -> None:
    assert tokens(one) == tokens(same)


@pytest.mark.parametrize(
    ("one", "other"), [("a-b", "a+b"), ("x_{ij}", "x_ij"), (r"\mu a", r"\nu a")]
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
