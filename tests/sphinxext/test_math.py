"""Formulas are typeset while the site is built, or refused."""

from collections.abc import Iterator

import pytest

from llmref.sphinxext.math import Katex, for_katex


@pytest.fixture(scope="module")
def katex() -> Iterator[Katex]:
    katex = Katex()
    yield katex
    katex.close()


@pytest.mark.parametrize(
    ("tex", "equations"),
    [
        ("a = b", ["a = b"]),
        (r"a &= b \\ &= c", [r"\begin{split}a &= b \\ &= c\end{split}"]),
        (r"a \\ b", [r"\begin{split}a \\ b\end{split}"]),
        (r"\begin{aligned}a &= b\end{aligned}", [r"\begin{aligned}a &= b\end{aligned}"]),
        (r"\begin{align}a &= b\end{align}", [r"\begin{align*}a &= b\end{align*}"]),
        (r"\begin{equation}a\label{x}\end{equation}", [r"\begin{equation*}a\end{equation*}"]),
        (r"\text{a \& b}", [r"\text{a \& b}"]),
        ("a\n\nb", ["a", "b"]),
        ("\n a \n\n\n", ["a"]),
    ],
)
def test_sphinx_formulas_become_katex_formulas(tex: str, equations: list[str]) -> None:
    assert for_katex(tex) == equations


def test_html_holds_mathml_for_screen_readers(katex: Katex) -> None:
    html = katex.render(r"\frac{1}{2}", display=False)["html"]
    assert "<math" in html
    assert "katex-html" in html
    assert "katex-display" not in html


def test_display_style_is_marked(katex: Katex) -> None:
    assert "katex-display" in katex.render("x", display=True)["html"]


def test_text_with_accents_is_allowed(katex: Katex) -> None:
    assert "html" in katex.render(r"\text{Schrödinger}", display=False)


@pytest.mark.parametrize("tex", [r"\nosuchmacro", "x^{", r"\frac{1}", "a & b", r"\text{$x}"])
def test_tex_that_katex_refuses_is_an_error(katex: Katex, tex: str) -> None:
    assert "KaTeX parse error" in katex.render(tex, display=True)["error"]


def test_a_closed_renderer_starts_again() -> None:
    katex = Katex()
    assert "html" in katex.render("x", display=False)
    katex.close()
    assert "html" in katex.render("y", display=False)
    katex.close()


def test_the_process_survives_an_error_and_line_breaks(katex: Katex) -> None:
    katex.render(r"\bad", display=True)
    assert "html" in katex.render("a\n+ b", display=True)
