"""The whole site as one printable PDF: `make pdf`, after `make html`.

`python -m llmref.hosting.pdf SITE PDF`. Chromium puts the built pages into one document
(print/book.js) and prints it. Only the print tells on which page everything stands, so that the
page numbers of the contents are written into it. Leaves out: folded code that sets up or draws, the
tables of mistakes, which stand at the checks too, the graph, all comparisons with libraries, which
each page has, and the ledger, whose place a list of all results with their pages takes.
"""

import io
import mimetypes
import os
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pikepdf import Dictionary, Name, ObjectStreamMode, Pdf
from playwright.sync_api import Route, ViewportSize

from llmref.hosting.browser import chromium
from llmref.hosting.citation import Work, read_work

_PRINT = Path(__file__).parent / "print"
# A name that no machine has: every request is answered from the folder.
_ORIGIN = "http://book.invalid"
_EMPTY = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="/_static/pygments.css">
<link rel="stylesheet" href="/_static/katex/katex.min.css">
<link rel="stylesheet" href="/book.css"></head><body></body></html>"""
# The right edge of the text in book.css, in points.
_RIGHT = (210 - 20) / 25.4 * 72
# The width of the text in book.css (170 mm), so that what is measured is what is printed.
_VIEWPORT = ViewportSize(width=643, height=1000)


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
        page.add_script_tag(content=(_PRINT / "book.js").read_text(encoding="utf-8"))
        page.evaluate("front => assembleBook(front)", front)
        page.evaluate("fitFormulas()")
        printed = page.pdf(
            prefer_css_page_size=True, print_background=True, outline=True, tagged=True
        )
    with Pdf.open(io.BytesIO(printed)) as pdf:
        _number_lists(pdf)
        return _finish(pdf, work)


def _answer(route: Route, site: Path, title: str) -> None:
    """Serve a file of the site, or the book's own two; whatever else is asked for is not there."""
    name = unquote(urlsplit(route.request.url).path).lstrip("/")
    path = _PRINT / name if name == "book.css" else site / name
    if name == "book.html":
        route.fulfill(body=_EMPTY.format(title=title), content_type="text/html")
    elif route.request.url.startswith(_ORIGIN) and path.is_file():
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        route.fulfill(body=path.read_bytes(), content_type=kind)
    else:
        route.abort()


def page_numbers(pdf: Pdf) -> dict[str, int]:
    """Return the page, from 1, of each place that a link of the document leads to."""
    pages = {page.obj.objgen: number for number, page in enumerate(pdf.pages, 1)}
    places = pdf.Root.get("/Dests", Dictionary()).items()
    return {name.lstrip("/"): pages[place[0].objgen] for name, place in places}


def _number_lists(pdf: Pdf) -> None:
    """Write page numbers beside the lines of the contents and of the list of results.

    Where the lines stand is known from their links; only a print tells the numbers.
    """
    numbers = page_numbers(pdf)
    lists = [*range(1, numbers["index"]), *range(numbers["results"], len(pdf.pages) + 1)]
    font = pdf.make_indirect(
        Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name("/Times-Roman"))
    )
    for number in lists:
        page = pdf.pages[number - 1]
        lines: dict[str, list[float]] = {}
        for link in page.obj.get("/Annots", []):
            if "/Dest" in link:  # of a title that needs two lines, the second counts
                lines[str(link.Dest).lstrip("/")] = [float(x) for x in link.Rect]
        if lines:
            name = page.add_resource(font, Name.Font)
            written = [_line_end(str(name), lines[to], numbers[to]) for to in lines]
            page.contents_add(b"q\n", prepend=True)
            page.contents_add("\n".join(["\nQ q 0.34 0.38 0.42 rg", *written, "Q"]).encode())


def _line_end(font: str, line: list[float], number: int) -> str:
    """Dots and a number, from the end of a line of a list to the right edge of the text."""
    _, bottom, right, top = line
    size, baseline = 0.72 * (top - bottom), bottom + 0.24 * (top - bottom)
    left = _RIGHT - len(str(number)) * size / 2  # a digit of Times is half as wide as its size
    dots = f"0.34 0.38 0.42 RG [0.6 3] 0 d 0.6 w {right + 6:.2f} {baseline:.2f} m "
    dots += f"{left - 5:.2f} {baseline:.2f} l S" if left - 5 > right + 6 else "n"
    return f"{dots}\nBT {font} {size:.2f} Tf {left:.2f} {baseline:.2f} Td ({number}) Tj ET"


def _finish(pdf: Pdf, work: Work) -> bytes:
    """Say what the file is and when it was released, not when or by what it was printed."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = time.strftime("%Y%m%d", time.gmtime(int(epoch))) if epoch else work.released
    date = f"D:{day.replace('-', '')}000000Z"
    pdf.docinfo = pdf.make_indirect(
        Dictionary(
            Title=work.title, Author=", ".join(work.authors), CreationDate=date, ModDate=date
        )
    )
    pdf.Root.PageMode = Name.UseOutlines
    written = io.BytesIO()
    # A page of formulas has hundreds of small objects: together they shrink to a quarter.
    pdf.save(written, object_stream_mode=ObjectStreamMode.generate, deterministic_id=True)
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
