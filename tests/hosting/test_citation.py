"""What a reader copies to cite a result: valid BibTeX, and the same link everywhere."""

from pathlib import Path

import pytest
from pybtex.database import parse_string

import llmref
from llmref.hosting.citation import Work, as_tex, citations, read_work, release_link
from tests.small_site import Site

ROOT = Path(__file__).parents[2]
WORK = Work("The book", ("A. Author", "The team"), "1.2.0", "2026-05-04")
URL = "https://example.org/rl/kl.html#kl-k3"


@pytest.fixture
def entries() -> dict[str, str]:
    return citations(WORK, "kl-k3", "Theorem 3", "k3 is $\\ge 0$", URL)


def test_bibtex_is_valid_and_keeps_authors_and_title(entries: dict[str, str]) -> None:
    parsed = parse_string(entries["BibTeX"], "bibtex").entries["llmref-kl-k3"]
    assert parsed.type == "misc"
    assert [str(person) for person in parsed.persons["author"]] == ["{A. Author}", "{The team}"]
    assert parsed.fields["title"] == "{k3 is $\\ge 0$ (result kl-k3)}"
    assert parsed.fields["howpublished"] == "The book, version 1.2.0"
    assert parsed.fields["year"] == "2026"
    assert parsed.fields["url"] == URL


def test_every_form_holds_the_permanent_link_and_the_id(entries: dict[str, str]) -> None:
    assert entries["Link"] == URL
    assert entries["Markdown"] == f"[k3 is $\\ge 0$]({URL}) (llmref, `kl-k3`)"
    assert entries["Plain text"].startswith("A. Author, The team: Theorem 'k3 is \\ge 0' (kl-k3).")
    assert entries["Plain text"].endswith(URL)


def test_the_release_stands_beside_the_latest_statement() -> None:
    release = "https://example.org/v1.2.0/rl/kl.html#kl-k3"
    assert release_link("https://example.org", "1.2.0", "rl/kl.html#kl-k3", "1.2.0") == release
    forms = citations(WORK, "kl-k3", "Theorem 3", "k3", URL, release)
    assert (forms["Link"], forms["Link to version 1.2.0"]) == (URL, release)
    fields = parse_string(forms["BibTeX"], "bibtex").entries["llmref-kl-k3"].fields
    assert (fields["url"], fields["note"]) == (URL, f"Permanent copy: \\url{{{release}}}")


def test_a_result_that_the_release_does_not_have_has_no_link_into_it() -> None:
    """0.10 is newer than 0.9, and where the site is at home must be known."""
    assert release_link("https://example.org/", "0.9.0", "a.html#a-b", "0.10.0") == ""
    assert release_link("https://example.org/", "0.10.0", "a.html#a-b", "0.9.0") != ""
    assert release_link("https://example.org/", "0.9.0", "a.html#a-b", "") != ""
    assert release_link("", "0.9.0", "a.html#a-b", "0.9.0") == ""


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("2^(k+1) at a_b & 50 %", r"2\textasciicircum{}(k+1) at a\_b \& 50 \%"),
        ("Δ²/12 and −0.1", r"$\Delta$$^2$/12 and $-$0.1"),
        ("KL(π‖ref)", r"KL($\pi$$\Vert$ref)"),
        ("of $x_1^2 \\ge π$, é and øre", r"of $x_1^2 \ge \pi$, {\'e} and {\o}re"),
        (
            "a\\b {c} ~#",
            r"a\textbackslash{}b \textbraceleft{}c\textbraceright{} "
            r"\textasciitilde{}\#",
        ),
    ],
)
def test_a_title_is_ascii_that_latex_can_read(text: str, tex: str) -> None:
    assert as_tex(text) == tex
    parsed = parse_string(f"@misc{{a, title = {{{{{tex}}}}}}}", "bibtex").entries["a"]
    assert parsed.fields["title"] == f"{{{tex}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a ☃", "'☃' has no name in LaTeX: write it as a formula"), ("5 $", "a stray dollar sign")],
)
def test_what_latex_cannot_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_tex(text)


def test_no_form_holds_the_number_of_the_result(entries: dict[str, str]) -> None:
    """Numbers change when a result is inserted; ids do not."""
    assert not any("Theorem 3" in text for text in entries.values())


def test_the_work_is_read_from_the_projects_own_citation_file() -> None:
    work = read_work(ROOT / "CITATION.cff")
    assert work.authors == ("The llmref authors",)
    assert work.version == llmref.__version__
    assert work.year.isdigit()


def test_names_of_persons_are_joined(tmp_path: Path) -> None:
    cff = "title: T\nauthors:\n - given-names: Ada\n   family-names: Byron\n"
    (tmp_path / "c.cff").write_text(cff + "version: 2\ndate-released: 2027-01-01\n")
    assert read_work(tmp_path / "c.cff") == Work("T", ("Ada Byron",), "2", "2027-01-01")


def test_a_result_offers_its_citations_without_a_script(site: Site) -> None:
    site.configure(f"llmref_citation = {str(ROOT / 'CITATION.cff')!r}")
    site.configure("html_baseurl = 'https://example.org/book'")
    site.write("index.md", "# I\n\n:::{prf:definition} Of $x$ and *y*\n:label: a-b\nText.\n:::\n")
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    cite = built.page("index").split('<details class="cite fold">')[1].split("</details>")[0]
    assert "<summary>Cite</summary>" in cite
    assert "https://example.org/book/index.html#a-b" in cite
    assert "[Of $x$ and y](https://example.org/book/index.html#a-b)" in cite
    assert "@misc" in cite
    assert "Link to version" in cite
    assert f"https://example.org/book/v{llmref.__version__}/index.html#a-b" in cite


def test_a_title_that_no_bibliography_can_hold_fails_at_its_line(site: Site) -> None:
    site.configure(f"llmref_citation = {str(ROOT / 'CITATION.cff')!r}")
    site.write("index.md", "# I\n\n:::{prf:definition} Of ☃\n:label: a-b\nText.\n:::\n")
    built = site.build()
    assert built.code != 0
    assert "index.md:3: ERROR: '☃' has no name in LaTeX" in built.warnings
