"""The whole site as one printable PDF: `make pdf`, after `make html`.

`python -m llmref.sphinxext.book SITE PDF`. Chromium puts the built pages into one document
(offline/book.js) and prints it twice: the first print tells on which page everything stands, the
second has these numbers in its contents. Leaves out: the graph and the ledger, of which a list of
all results with their pages takes the place.
"""

import io
import mimetypes
import os
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Page, Route
from pypdf import PdfReader, PdfWriter

from llmref.sphinxext.browser import chromium
from llmref.sphinxext.cite import Work, read_work

_OFFLINE = Path(__file__).parent / "offline"
# A name that no machine has: every request is answered from the folder.
_ORIGIN = "http://book.invalid"
_EMPTY = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="/_static/pygments.css">
<link rel="stylesheet" href="/_static/katex/katex.min.css">
<link rel="stylesheet" href="/book.css"></head><body></body></html>"""
_MOST_PRINTS = 4
# The width of the text in book.css (170 mm), so that what is measured is what is printed.
_VIEWPORT = {"width": 643, "height": 1000}


def print_book(site: Path, work: Work) -> bytes:
    """Return the PDF of a built site."""
    front = ["The mathematics of large language models, derived, executed and checked"]
    front += [", ".join(work.authors), f"Version {work.version}, {work.year}"]
    front += ["Text and figures: CC BY 4.0. Code: MIT."]
    with chromium() as browser:
        page = browser.new_page(viewport=_VIEWPORT, color_scheme="light")
        page.set_default_timeout(300_000)
        page.route("**/*", lambda route: _answer(route, site, work.title))
        page.emulate_media(media="print")
        page.goto(f"{_ORIGIN}/book.html")
        page.add_script_tag(content=(_OFFLINE / "book.js").read_text(encoding="utf-8"))
        page.evaluate("front => assembleBook(front)", front)
        page.evaluate("fitFormulas()")
        return _print_with_numbers(page, work)


def _answer(route: Route, site: Path, title: str) -> None:
    """Serve a file of the site, or the book's own two; whatever else is asked for is not there."""
    name = unquote(urlsplit(route.request.url).path).lstrip("/")
    path = _OFFLINE / name if name == "book.css" else site / name
    if name == "book.html":
        route.fulfill(body=_EMPTY.format(title=title), content_type="text/html")
    elif route.request.url.startswith(_ORIGIN) and path.is_file():
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        route.fulfill(body=path.read_bytes(), content_type=kind)
    else:
        route.abort()


def _print_with_numbers(page: Page, work: Work) -> bytes:
    numbers: dict[str, int] = {}
    for _ in range(_MOST_PRINTS):
        page.evaluate("numbers => fillPageNumbers(numbers)", numbers)
        printed = page.pdf(
            prefer_css_page_size=True, print_background=True, outline=True, tagged=True
        )
        reader = PdfReader(io.BytesIO(printed))
        found = page_numbers(reader)
        if found == numbers:
            return _finish(reader, work)
        numbers = found
    raise RuntimeError(f"the page numbers still changed in print {_MOST_PRINTS}")


def page_numbers(reader: PdfReader) -> dict[str, int]:
    """Return the page, from 1, of each place that a link of the document leads to."""
    pages = {page.indirect_reference.idnum: n for n, page in enumerate(reader.pages, 1)}  # type: ignore[union-attr]
    return {
        name.lstrip("/"): pages[place.raw_get("/Page").idnum]
        for name, place in reader.named_destinations.items()
    }


def _finish(reader: PdfReader, work: Work) -> bytes:
    """Say what the file is, and nothing that differs from one build to the next."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = (
        time.strftime("%Y%m%d", time.gmtime(int(epoch)))
        if epoch
        else work.released.replace("-", "")
    )
    writer = PdfWriter(clone_from=reader)
    writer.metadata = {
        "/Title": work.title,
        "/Author": ", ".join(work.authors),
        "/CreationDate": f"D:{day}000000Z",
        "/ModDate": f"D:{day}000000Z",
    }
    writer.page_mode = "/UseOutlines"
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def main(site: Path, target: Path) -> None:
    """Print the site into a file, which is replaced only by a whole book."""
    work = read_work(Path("CITATION.cff"))
    book = print_book(site, work)
    temporary = target.with_suffix(".new")
    temporary.write_bytes(book)
    temporary.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
