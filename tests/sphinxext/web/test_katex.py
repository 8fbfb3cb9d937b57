"""Formulas are typeset while the site is built, or refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docutils import frontend, nodes, parsers, utils

from llmref.sphinxext.web import katex as module
from llmref.sphinxext.web.katex import Katex, KeepMarks, for_katex
from tests.small_site import Site


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


def test_a_mark_is_taken_from_behind_its_formula_not_from_an_equal_text() -> None:
    """The full stop after the link is equal to that after the formula, and stays."""
    settings = frontend.get_default_settings(parsers.get_parser_class("rst"))
    document = utils.new_document("page", settings)
    parts = [nodes.reference("", "(9)"), nodes.Text("."), nodes.Text(" So "), nodes.math("", "x")]
    document += nodes.paragraph("", "", *parts, nodes.Text("."))
    KeepMarks(document).run()
    assert [part.astext() for part in document[0]] == ["(9)", ".", " So ", r"x\text{.}", ""]


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


def no_node(self: Katex) -> None:
    raise AssertionError("a process was started")


def test_a_kept_formula_is_the_same_and_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Katex(tmp_path)
    fresh = [first.render(r"\frac{a}{2}", display=d) for d in (True, False)]
    first.close()
    monkeypatch.setattr(Katex, "_running", no_node)
    kept = [Katex(tmp_path).render(r"\frac{a}{2}", display=d) for d in (True, False)]
    assert kept == fresh
    assert kept[0] != kept[1]


def test_a_formula_of_another_engine_is_typeset_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Katex(tmp_path)
    first.render("x", display=False)
    first.close()
    monkeypatch.setattr(module, "_engine", lambda: "another")
    monkeypatch.setattr(Katex, "_running", no_node)
    with pytest.raises(AssertionError, match="a process was started"):
        Katex(tmp_path).render("x", display=False)


def test_refused_tex_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        katex = Katex(tmp_path)
        assert "KaTeX parse error" in katex.render(r"\nosuchmacro", display=True)["error"]
        katex.close()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "half", "bytes", "another"])
def test_a_damaged_entry_is_written_anew(tmp_path: Path, damage: str) -> None:
    katex = Katex(tmp_path)
    html = katex.render("x", display=False)["html"]
    katex.close()
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "bytes": b"\xff\xfe\0"}
    entry.write_bytes(damaged.get(damage, whole.replace(b"</math>", b"")))
    again = Katex(tmp_path)
    assert again.render("x", display=False)["html"] == html
    assert entry.read_bytes() == whole
    again.close()


def test_a_site_is_the_same_from_a_cold_and_a_warm_cache(site: Site) -> None:
    site.configure(f"llmref_cache = {str(site.root / 'cache')!r}")
    site.write("index.md", "# Formulas\n\n$x^2$ and\n\n$$\na &= b \\\\\n&= c\n$$\n")
    site.write("other.md", "---\norphan: true\n---\n# Other\n\n$x^2$ and $\\pi$\n")
    pages = []
    for _ in range(2):
        built = site.build_cold("-j", "2")
        assert built.code == 0, built.warnings
        pages.append([built.page("index"), built.page("other")])
        shutil.rmtree(site.root / "_build")
    assert pages[0] == pages[1]
    assert len(list((site.root / "cache").glob("*.formula"))) == 3


def test_every_build_warns_of_refused_tex(site: Site) -> None:
    site.configure(f"llmref_cache = {str(site.root / 'cache')!r}")
    site.write("index.md", "# Formulas\n\n$\\nosuchmacro$\n")
    for _ in range(2):
        built = site.build("-E")
        assert built.code != 0
        assert "KaTeX parse error" in built.warnings


def test_a_mark_stays_at_the_formula_before_it(site: Site) -> None:
    """Else a line may begin with it. A word after the formula, or a display, is left alone."""
    site.write(
        "index.md", "# F\n\nFor $x$, $y$ and ($z$). Then $w$ is 'the $v$'.\n\n$$u$$\n\n. End\n"
    )
    page = site.build().page("index")
    for tex in ("x\\text{,}", "z\\text{).}", "y<", "w<", "v<", "u<"):
        assert f">{tex}" in page, tex
    assert "</span>, " not in page
    assert "</span>). Then" not in page
    assert "</span> Then" in page
