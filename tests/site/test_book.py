"""The printed book: its contents tell the truth, its links lead somewhere, nothing is cut off."""

import re
import unicodedata
from functools import lru_cache
from itertools import takewhile

import pytest
from pikepdf import Pdf
from pypdf import PdfReader

from llmref.hosting.pdf import page_numbers

from .conftest import ROOT

BOOK = ROOT / "_build" / "llmref.pdf"
TOPICS = sorted(
    path.relative_to(ROOT / "docs").with_suffix("").as_posix()
    for group in ("attention", "components", "functional", "inference", "norm", "rl", "training")
    for path in (ROOT / "docs" / group).glob("*.md")
)


@pytest.fixture(scope="module")
def book() -> Pdf:
    assert BOOK.is_file(), "there is no book: run make test-browser"
    return Pdf.open(BOOK)


@pytest.fixture(scope="module")
def reader() -> PdfReader:
    return PdfReader(BOOK)


@pytest.fixture(scope="module")
def numbers(book: Pdf) -> dict[str, int]:
    return page_numbers(book)


def title_of(topic: str) -> str:
    text = (ROOT / "docs" / f"{topic}.md").read_text(encoding="utf-8")
    match = re.search(r"^# (.*)$", text, re.MULTILINE)
    assert match
    return match[1]


@lru_cache
def contents_of(reader: PdfReader) -> str:
    """The contents as they look, line by line: the pages after the title, before a running head."""
    before = takewhile(lambda page: not page.extract_text().startswith("llmref"), reader.pages[1:])
    return "\n".join(page.extract_text(extraction_mode="layout") for page in before)


def squeezed(text: str) -> str:
    """Text as the eye reads it; a PDF has no words, only places, and some fonts join f and i."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def test_it_is_a_book(book: Pdf) -> None:
    assert 15 < len(book.pages) / len(TOPICS) < 30
    assert book.docinfo["/Author"] == "The llmref authors"
    assert "mathematics of large language models" in str(book.docinfo["/Title"])
    sizes = {tuple(round(float(x)) for x in page.mediabox) for page in book.pages}
    assert sizes == {(0, 0, 595, 842)}  # A4


@pytest.mark.parametrize("topic", TOPICS)
def test_the_contents_give_the_page_on_which_a_chapter_begins(
    topic: str, reader: PdfReader, numbers: dict[str, int]
) -> None:
    number = numbers[topic.replace("/", "-").replace("_", "-")]
    title = squeezed(title_of(topic))
    assert title in squeezed(reader.pages[number - 1].extract_text())
    lines = map(squeezed, contents_of(reader).splitlines())
    assert f"{title}{number}" in lines


def test_every_page_has_its_number_and_its_chapter_on_it(
    reader: PdfReader, numbers: dict[str, int]
) -> None:
    for topic in TOPICS[::6]:
        number = numbers[topic.replace("/", "-").replace("_", "-")] + 1
        text = reader.pages[number - 1].extract_text()
        assert squeezed(title_of(topic)) in squeezed(text)
        assert str(number) in text.split()


def test_the_bookmarks_lead_to_parts_chapters_and_sections(book: Pdf) -> None:
    with book.open_outline() as outline:
        parts = [item.title for item in outline.root]
        chapters = {child.title for item in outline.root for child in item.children}
    assert parts[-1] == "Results by id"
    assert "Reinforcement learning" in parts
    assert {title_of(topic) for topic in TOPICS} <= chapters


def test_every_link_inside_leads_to_a_page(book: Pdf, numbers: dict[str, int]) -> None:
    inside = outside = 0
    for page in book.pages:
        for note in page.get("/Annots", []):
            if "/Dest" in note:
                assert str(note.Dest).lstrip("/") in numbers
                inside += 1
            else:
                assert str(note.A.URI).startswith(("https://", "http://", "mailto:")), note.A.URI
                assert ".invalid" not in str(note.A.URI)
                outside += 1
    assert inside > 2000
    assert outside > 300


def test_no_tex_is_printed(reader: PdfReader, numbers: dict[str, int]) -> None:
    """Where no code is: the pages of contents and results, whose titles have formulas."""
    last = numbers["results"] - 1
    text = "".join(page.extract_text() for page in reader.pages[last:])
    assert "kl-unbiased" in text
    assert not re.search(r"\\[a-z]+|\$", text)


def test_results_are_listed_with_the_page_of_their_box(
    reader: PdfReader, numbers: dict[str, int]
) -> None:
    number = numbers["rl-kl--kl-unbiased"]
    assert "kl-unbiased" in reader.pages[number - 1].extract_text()
    pages = reader.pages[numbers["results"] - 1 :]
    lines = "\n".join(page.extract_text(extraction_mode="layout") for page in pages).splitlines()
    (line,) = [line for line in lines if line.strip().startswith("kl-unbiased ")]
    assert line.split()[-1] == str(number)
