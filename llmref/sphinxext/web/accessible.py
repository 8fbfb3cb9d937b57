"""Mends what docutils, myst-nb and the theme leave out for keyboards and screen readers.

What a style sheet or the script can mend is in static/; here is what the HTML itself must say.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput, visit_HideCellInput
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

from llmref.sphinxext.borrowed import expect_match

logger = logging.getLogger(__name__)
_ROOT = re.compile(r"<svg\b[^>]*>")
_SIZE = re.compile(r'\s(width|height)="([\d.]+)(pt|px|)"')
_LIGHT = re.compile(r'html\[data-theme="?light"?\]')
# Asks each box for its size and then changes it, so that the page is laid out again for each.
_TAB_STOPS = re.compile(
    r"(\w+)\.tabIndex=\1\.scrollWidth>\1\.clientWidth\|\|\1\.scrollHeight>\1\.clientHeight\?0:-1"
)
_NOT_DARK = "html:not([data-theme=dark])"
_PIXELS = {"pt": 4 / 3, "px": 1, "": 1}


class DescribeImages(SphinxPostTransform):
    """Gives each image its size, and asks for a text in place of each that has none."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Read the sizes of drawings from their files."""
        for image in self.document.findall(nodes.image):
            if not image.get("alt", "").strip():
                placed: nodes.Element | None = image
                while placed is not None and not placed.line:
                    placed = placed.parent
                logger.warning(
                    "an image without an alternative text",
                    location=placed or image,
                    type="llmref",
                    subtype="image",
                )
            if "width" not in image and "height" not in image:
                image.attributes.update(drawing_size(self.env.srcdir / image["uri"]))


class NameCells(SphinxPostTransform):
    """Makes a column without a head the heads of its rows, and asks for a word in each head.

    A formula alone is no name for every screen reader.
    """

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Make a first column without a head heads itself; warn of heads that are formulas."""
        for head in self.document.findall(nodes.thead):
            heads = list(head.findall(nodes.entry))
            first_column = head.parent.next_node(nodes.colspec)
            if first_column and not heads[0].astext().strip():
                first_column["stub"] = 1
                rows = (row for row in head.parent.findall(nodes.row) if row.parent is not head)
                heads += [entry for row in rows if (entry := row.next_node(nodes.entry))]
            for entry in heads:
                if _is_formula_alone(entry):
                    logger.warning(
                        "a column or a row that is headed by a formula alone: %s",
                        entry.astext(),
                        location=head.parent,
                        type="llmref",
                        subtype="table",
                    )


def _is_formula_alone(entry: nodes.entry) -> bool:
    bare = entry.deepcopy()
    formulas = list(bare.findall(nodes.math))
    for formula in formulas:
        formula.parent.remove(formula)
    return bool(formulas) and not re.search(r"\w", bare.astext())


def drawing_size(path: Path) -> dict[str, str]:
    """Return width and height of an SVG file in whole pixels; nothing for another file."""
    if path.suffix != ".svg" or not path.is_file():
        return {}
    root = _ROOT.search(path.read_text(encoding="utf-8"))
    found = _SIZE.findall(root[0]) if root else []
    return {name: str(round(float(number) * _PIXELS[unit])) for name, number, unit in found}


def visit_entry(self: HTML5Translator, node: nodes.entry) -> None:
    """Write an empty cell of a table's head as the data cell that it is: it heads nothing."""
    HTML5Translator.visit_entry(self, node)
    if not node.astext().strip():
        self.body[-1] = re.sub(r"^<th\b", "<td", self.body[-1])
        self.context[-1] = self.context[-1].replace("</th>", "</td>")


def depart_entry(self: HTML5Translator, node: nodes.entry) -> None:
    """Close the cell."""
    HTML5Translator.depart_entry(self, node)


def visit_hidden_cell(self: HTML5Translator, node: HideCodeCellNode) -> None:
    """Name the control of a hidden cell by the text that it shows."""
    visit_HideCellInput(self, node)
    at = self.body.index('<summary aria-label="Toggle hidden content">\n', -4)
    self.body[at] = "<summary>\n"


def override_nodes(app: Sphinx) -> None:
    """Put our HTML in place of what the theme, which is loaded late, has registered."""
    app.add_node(nodes.entry, override=True, html=(visit_entry, depart_entry))
    app.add_node(HideCodeCellNode, override=True, html=(visit_hidden_cell, depart_HideCellInput))


def light_by_default(app: Sphinx, exception: Exception | None) -> None:
    """Let the light colours hold wherever no script has chosen the dark ones.

    The theme has colours for 'light' and 'dark', but until its script has run a page says 'auto'.
    """
    if exception is not None or app.builder.format != "html":
        return
    for name in ("styles/pydata-sphinx-theme.css", "pygments.css"):
        sheet = Path(app.outdir) / "_static" / name
        if sheet.is_file() and "data-theme" in (text := sheet.read_text(encoding="utf-8")):
            text = expect_match(_LIGHT, _NOT_DARK, text, "pydata_sphinx_theme.light")
            sheet.write_text(text, encoding="utf-8")


def leave_tab_stops_to_us(app: Sphinx, exception: Exception | None) -> None:
    """Take out of the theme's script what llmref.js does in one go, a second sooner on a phone."""
    script = Path(app.outdir) / "_static" / "scripts" / "pydata-sphinx-theme.js"
    if exception is None and app.builder.format == "html" and script.is_file():
        text = script.read_text(encoding="utf-8")
        text = expect_match(_TAB_STOPS, "0", text, "pydata_sphinx_theme.tab_stops")
        script.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register transforms and visitors."""
    app.add_post_transform(DescribeImages)
    app.add_post_transform(NameCells)
    app.connect("builder-inited", override_nodes)
    # Late: the theme itself writes pygments.css when the build is finished.
    app.connect("build-finished", light_by_default, priority=900)
    app.connect("build-finished", leave_tab_stops_to_us)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
