"""The EPUB of a small site: the same bytes twice, and pages that an e-reader can show."""

import io
import re
import shutil
from xml.dom import minidom
from zipfile import ZipFile

import pytest

from llmref.sphinxext.books.epub import mend_formula, mend_page
from tests.small_site import Site

MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML">{}</math>'


def mended(inside: str) -> str:
    math = minidom.parseString(MATH.format(inside)).documentElement
    mend_formula(math)
    return str(math.toxml()).replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<mi mathvariant="double-struck">E</mi>', "<math><mi>𝔼</mi></math>"),
        ('<mi mathvariant="double-struck">R</mi>', "<math><mi>ℝ</mi></math>"),
        ('<mi mathvariant="script">L</mi>', "<math><mi>ℒ</mi></math>"),
        ('<mn mathvariant="bold">1.</mn>', "<math><mn>𝟏.</mn></math>"),
        ('<mi mathvariant="normal">x</mi>', '<math><mi mathvariant="normal">x</mi></math>'),
        ("<mo><mrow><mi>m</mi><mi>o</mi></mrow></mo>", "<math><mo>mo</mo></math>"),
        (
            "<msub><mi>q</mi><mi>min</mi><mo>\N{FUNCTION APPLICATION}</mo></msub>",
            "<math><msub><mi>q</mi><mi>min</mi></msub></math>",
        ),
        (
            r'<mi>x</mi><annotation encoding="application/x-tex">\hat x</annotation>',
            r'<math alttext="\hat x"><mi>x</mi></math>',
        ),
        (
            '<mtable columnspacing="" columnalign="right"><mtr><mtd/></mtr></mtable>',
            '<math><mtable columnspacing="0em" columnalign="right"><mtr><mtd class="right"/></mtr>'
            "</mtable></math>",
        ),
    ],
)
def test_formulas_become_what_epub_allows(before: str, after: str) -> None:
    assert mended(before) == after


def test_a_page_is_unfolded_and_its_links_lead_to_the_site() -> None:
    page = minidom.parseString(
        '<body><details class="fold" open=""><summary>Show</summary><p>x</p></details>'
        '<details class="cite fold"><summary>Cite</summary></details>'
        '<details class="admonition hide"><summary>Show code</summary><pre>1</pre></details>'
        '<a class="result-id" href="#a-b">a-b</a><a href="kl.ipynb">Notebook</a></body>'
    )
    mend_page(page, "https://example.org/rl/kl.html")
    assert page.documentElement.toxml() == (
        '<body><div class="fold"><p class="summary">Show</p><p>x</p></div>'
        '<div class="admonition hide"><pre>1</pre></div>'
        '<a class="result-id" href="https://example.org/rl/kl.html#a-b">a-b</a>'
        '<a href="https://example.org/rl/kl.ipynb">Notebook</a></body>'
    )


@pytest.fixture
def book(site: Site) -> Site:
    site.configure("html_baseurl = 'https://example.org/'\nepub_uid = 'small'")
    site.configure("epub_description = 'Small'\nllmref_epub_left_out = ['graph']")
    site.configure("version = '1.0'\ncopyright = 'CC BY 4.0'")
    site.configure("epub_identifier = 'https://example.org/'\nepub_tocscope = 'includehidden'")
    site.write("index.md", "# Book\n\n```{toctree}\n:hidden:\ntopic\ngraph\n```\n\n{doc}`graph`\n")
    site.write("graph.md", "# The graph\n")
    site.write(
        "topic.md",
        "# A topic\n\n:::{prf:definition} Of $x$\n:label: a-b\n"
        "It is $\\mathbb{E}[x]$.\n:::\n\n```{code-cell} python\nprint('exe' + 'cuted')\n```\n",
        executed=True,
    )
    return site


def test_two_builds_give_the_same_bytes(book: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    files = []
    for name in ("one", "two"):
        built = book.build_cold("-b", "epub", "-d", str(book.root / "_build" / name))
        assert built.warnings == ""
        files.append((book.root / "_build/html/small.epub").read_bytes())
        shutil.rmtree(book.root / "_build/html")  # as make epub does
    assert files[0] == files[1]
    assert b"2023-11-14" in ZipFile(io.BytesIO(files[0])).read("content.opf")


def test_a_page_that_the_book_leaves_out_is_linked_on_the_site(book: Site) -> None:
    built = book.build("-b", "epub", "-d", str(book.root / "_build/doctrees"))
    assert (built.code, built.warnings) == (0, "")
    epub = ZipFile(book.root / "_build/html/small.epub")
    assert "graph.xhtml" not in epub.namelist()
    assert b'href="https://example.org/graph.html"' in epub.read("index.xhtml")
    assert b"graph" not in epub.read("content.opf")
    page = epub.read("topic.xhtml").decode()
    assert "𝔼" in page
    assert "executed" in page
    assert "mathbb{E}" not in re.sub(r'alttext="[^"]*"', "", page)


def test_a_source_that_the_site_opens_is_well_formed(book: Site) -> None:
    """Pages of the old form show the source unfolded; XML wants a value for each attribute."""
    book.configure("llmref_first_edition = ['old']")
    book.write(
        "old.md", "---\norphan: true\n---\n\n# Old\n\n```{source} llmref.norm.rms_norm\n```\n"
    )
    built = book.build("-b", "epub", "-d", str(book.root / "_build/doctrees"))
    assert (built.code, built.warnings) == (0, "")
    page = ZipFile(book.root / "_build/html/small.epub").read("old.xhtml").decode()
    assert "def rms_norm" in re.sub(r"<[^>]+>", "", page)
