"""The whole book as an EPUB 3: `make epub`.

Sphinx's builder writes it; this module makes each page fit for an e-reader (nothing folded, no
script, formulas as MathML that EPUB allows, permanent links that lead to the site), says in the
manifest what each page holds, and zips so that two builds give the same bytes.
"""

import html
import os
import posixpath
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from xml.dom import minidom
from xml.dom.minidom import Document, Element
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from sphinx.application import Sphinx
from sphinx.builders.epub3 import Epub3Builder
from sphinx.highlighting import PygmentsBridge
from sphinx.util.typing import ExtensionMetadata

from llmref.hosting.citation import read_work

_HERE = Path(__file__).parent
_STYLES = ("pygments.css", "epub.css")
# Of no use without a browser: what writes in the clipboard, what filters, and 'show', 'hide'.
_LEFT_OUT = {
    "bar-code",
    "cite",
    "ledger-filter",
    "question-filter",
    "sd-summary-state-marker",
}
# KaTeX asks for letters by an attribute that browsers no longer read; Unicode has the letters.
_LETTERS = {
    "double-struck": "DOUBLE-STRUCK",
    "bold": "BOLD",
    "script": "SCRIPT",
    "fraktur": "FRAKTUR",
    "monospace": "MONOSPACE",
    "sans-serif": "SANS-SERIF",
    "bold-italic": "BOLD ITALIC",
}
_ACCESSIBILITY = {
    "accessMode": ("textual", "visual"),
    "accessModeSufficient": ("textual",),
    "accessibilityFeature": ("MathML", "alternativeText", "readingOrder", "tableOfContents"),
    "accessibilityHazard": ("none",),
}


class BookBuilder(Epub3Builder):
    """Sphinx's builder, with pages, manifest and zip as an e-reader and EPUBCheck want them."""

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        """Lead to the site where the book leaves a page out."""
        if docname in self.config.llmref_epub_left_out:
            return f"{self.config.html_baseurl.rstrip('/')}/{docname}.html"
        return super().get_target_uri(docname, typ)

    def get_relative_uri(self, from_: str, to: str, typ: str | None = None) -> str:
        """Return the address of a page, seen from another one."""
        if to in self.config.llmref_epub_left_out:
            return self.get_target_uri(to, typ)
        return super().get_relative_uri(from_, to, typ)

    def init_highlighter(self) -> None:
        """Colour code as the site does on a light page."""
        self.highlighter = PygmentsBridge("html", "a11y-high-contrast-light")
        self.dark_highlighter = None

    def add_css_file(self, filename: str, **kwargs: Any) -> None:
        """Take our own style sheets; those of the site's extensions need scripts."""
        if filename in _STYLES:
            super().add_css_file(filename, **kwargs)

    def init_css_files(self) -> None:
        """Start with our own style sheets."""
        self._css_files = []
        for name in _STYLES:
            self.add_css_file(name)

    def copy_static_files(self) -> None:
        """Write what the pages use, and nothing of the site's theme."""
        self._static_dir.mkdir(parents=True, exist_ok=True)
        self.create_pygments_style_file()
        shutil.copy(_HERE / "epub.css", self._static_dir)
        if self.config.epub_cover:
            image = Path(self.config.epub_cover[0]).name
            shutil.copy(self.confdir / self.config.llmref_epub_cover, self._static_dir / image)

    def copy_extra_files(self) -> None:
        """Leave out the files that stand beside the site's pages."""

    def content_metadata(self) -> dict[str, Any]:
        """Date the book by its release, unless SOURCE_DATE_EPOCH says otherwise."""
        metadata = super().content_metadata()
        if not os.environ.get("SOURCE_DATE_EPOCH") and self.config.llmref_citation:
            released = read_work(Path(self.config.llmref_citation)).released
            metadata["date"] = f"{released}T00:00:00Z"
        return metadata

    def toc_metadata(self, level: int, navpoints: list[Any]) -> dict[str, Any]:
        """Name the book in the old contents as everywhere else."""
        metadata = super().toc_metadata(level, navpoints)
        return {**metadata, "uid": html.escape(self.config.epub_identifier)}

    def build_content(self) -> None:
        """Mend the pages, list them, and complete the list."""
        left_out = [f"{name}{self.out_suffix}" for name in self.config.llmref_epub_left_out]
        self.config.epub_exclude_files = left_out
        holds: dict[str, str] = {}
        base = self.config.html_baseurl.rstrip("/") + "/"
        for docname in sorted(self.env.found_docs - set(self.config.llmref_epub_left_out)):
            name = f"{docname}{self.out_suffix}"
            path = Path(self.outdir) / name
            page = minidom.parse(str(path))
            mend_page(page, f"{base}{docname}.html")
            path.write_bytes(page.toxml(encoding="utf-8"))
            kinds = {"math": "mathml", "svg": "svg"}
            holds[name] = " ".join(kinds[k] for k in kinds if page.getElementsByTagName(k))
        super().build_content()
        if self.config.epub_cover:
            holds[self.config.epub_cover[0]] = "cover-image"
        path = Path(self.outdir) / "content.opf"
        package = minidom.parse(str(path))
        _complete(package, holds)
        path.write_bytes(package.toxml(encoding="utf-8"))

    def build_epub(self) -> None:
        """Zip with one date for all, mimetype first and as it is."""
        path = Path(self.outdir) / f"{self.config.epub_basename}.epub"
        first = ("META-INF/container.xml", "content.opf", "toc.ncx")
        with ZipFile(path, "w") as epub:
            for name in ("mimetype", *first, *self.files):
                entry = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = ZIP_STORED if name == "mimetype" else ZIP_DEFLATED
                epub.writestr(entry, (Path(self.outdir) / name).read_bytes())


def mend_page(page: Document, address: str) -> None:
    """Make a page of the site, which stands at `address` there, one for an e-reader."""
    for element in _elements(page, "*"):
        if _LEFT_OUT & set(element.getAttribute("class").split()):
            element.parentNode.removeChild(element)  # type: ignore[union-attr]
    for summary in _elements(page, "summary"):
        fold = summary.parentNode
        assert isinstance(fold, Element)
        if "hide" in fold.getAttribute("class").split():  # of a cell, to show and to hide it
            fold.removeChild(summary)
        else:
            _rename(summary, "p", "summary")
    for details in _elements(page, "details"):
        _rename(details, "div", "")
        if details.hasAttribute("open"):
            details.removeAttribute("open")
    for link in _elements(page, "a"):
        target = link.getAttribute("href")
        if "result-id" in link.getAttribute("class").split():
            link.setAttribute("href", address + target)
        elif target.endswith((".ipynb", ".md")) and "://" not in target:
            link.setAttribute("href", posixpath.join(posixpath.dirname(address), target))
    for math in _elements(page, "math"):
        mend_formula(math)


def mend_formula(math: Element) -> None:
    """Turn KaTeX's MathML into what EPUB and browsers know: no TeX inside, letters by Unicode."""
    for annotation in _elements(math, "annotation"):
        math.setAttribute("alttext", _text(annotation).strip())
        annotation.parentNode.removeChild(annotation)  # type: ignore[union-attr]
    for name in ("mi", "mn", "mo", "mtext"):
        for token in _elements(math, name):
            if any(isinstance(child, Element) for child in token.childNodes):
                _set_text(token, _text(token))  # as in \bmod: elements inside an operator
            letters = _LETTERS.get(token.getAttribute("mathvariant"))
            if letters:
                _set_text(token, "".join(_letter(c, letters) for c in _text(token)))
                token.removeAttribute("mathvariant")
    for name in ("msub", "msup", "msubsup", "mover", "munder", "munderover"):
        for script in _elements(math, name):
            for mark in list(script.childNodes):  # after \\min in a script, where no room is for it
                if _text(mark) == "\N{FUNCTION APPLICATION}":  # type: ignore[arg-type]
                    script.removeChild(mark)
    for table in _elements(math, "mtable"):
        if table.getAttribute("columnspacing") == "":
            table.setAttribute("columnspacing", "0em")
        _align(table)


def _align(table: Element) -> None:
    """Say with classes what browsers do not read in attributes: how columns stand."""
    sides = table.getAttribute("columnalign").split()
    if sides[:2] == ["right", "left"]:
        table.setAttribute("class", "aligned")
    for row in (row for row in table.childNodes if isinstance(row, Element)):
        cells = (cell for cell in row.childNodes if isinstance(cell, Element))
        for number, cell in enumerate(cells):
            side = sides[min(number, len(sides) - 1)] if sides else "center"
            if side != "center":
                cell.setAttribute("class", side)


def _letter(character: str, letters: str) -> str:
    """'E', 'DOUBLE-STRUCK' -> '𝔼'; a character without such a form stays as it is."""
    name = unicodedata.name(character, "")
    name = name.replace("LATIN ", "").replace("LETTER ", "")
    # A few were in Unicode before the block of mathematical letters: ℝ, ℒ.
    old = "BLACK-LETTER" if letters == "FRAKTUR" else letters
    for full in (f"MATHEMATICAL {letters} {name}", f"{old} {name}"):
        try:
            return unicodedata.lookup(full)
        except KeyError:
            continue
    return character


def _complete(package: Document, holds: dict[str, str]) -> None:
    """Add to the package file what Sphinx leaves out of it."""
    for item in _elements(package, "item"):
        if properties := holds.get(item.getAttribute("href")):
            item.setAttribute("properties", properties)
    (metadata,) = _elements(package, "metadata")
    for unknown in _elements(metadata, "dc:contributor"):
        metadata.removeChild(unknown)
    for name, values in _ACCESSIBILITY.items():
        for value in values:
            meta = package.createElement("meta")
            meta.setAttribute("property", f"schema:{name}")
            _set_text(meta, value)
            metadata.appendChild(meta)


def _elements(inside: Document | Element, name: str) -> list[Element]:
    return list(inside.getElementsByTagName(name))


def _rename(element: Element, name: str, class_: str) -> None:
    element.tagName = element.nodeName = name
    classes = f"{element.getAttribute('class')} {class_}".strip()
    if classes:
        element.setAttribute("class", classes)


def _text(element: Element) -> str:
    parts = (
        _text(child) if isinstance(child, Element) else str(getattr(child, "data", ""))
        for child in element.childNodes
    )
    return "".join(parts)


def _set_text(element: Element, text: str) -> None:
    while element.firstChild:
        element.removeChild(element.firstChild)
    document = element.ownerDocument
    assert document is not None
    element.appendChild(document.createTextNode(text))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Put the builder in the place of Sphinx's own."""
    app.add_builder(BookBuilder, override=True)
    # Pages that make no sense in a book, and the picture that becomes its cover.
    app.add_config_value("llmref_epub_left_out", (), "epub", types=(tuple, list))
    app.add_config_value("llmref_epub_cover", "", "epub", types=(str,))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
