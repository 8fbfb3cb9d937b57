"""What agrees with which library: the comparisons of a page, and those of all pages to search in.

Leaves out: the comparisons themselves, which `make agreement` runs and writes to agreement.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util import logging

from llmref.sphinxext.results.nodes import Fold, FoldSummary, count
from llmref.sphinxext.results.tables import Place, link_to_page, listed, page_title, table

logger = logging.getLogger(__name__)

# The page of all comparisons, to which others lead.
PAGE = "agreement"
_HEADER = ["Formula", "Library", "Its convention", "Largest difference"]
# In words that sort from the finest to the coarsest.
_STEPS = (("0", 0.0), ("below_1e-12", 1e-12), ("below_1e-6", 1e-6))


def read_agreement(srcdir: str | Path) -> list[dict[str, Any]]:
    """Return the rows of the table, none where it is missing."""
    path = Path(srcdir) / "agreement.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_agreement(place: Place) -> list[nodes.Node]:
    """List what agrees with which library: of this page, folded, or of all pages."""
    rows = read_agreement(place.env.srcdir)
    if place.argument == "all":
        return _write_all(place, rows)
    mine = [row for row in rows if row["topic"] == place.docname]
    if not mine:
        test = f"tests/oracle/test_{place.docname.rpartition('/')[2]}.py"
        logger.warning(
            "no comparison is recorded for this page: run make agreement T=%s",
            test,
            location=place.docname,
        )
        return []
    summary = FoldSummary("", compared(mine))
    return [Fold("", summary, _table([_cells(row) for row in mine]))]


def compared(rows: list[dict[str, Any]]) -> str:
    """'12 comparisons with torch and trl'."""
    return f"{count(len(rows), 'comparison')} with {listed(sorted({r['library'] for r in rows}))}"


def _write_all(place: Place, rows: list[dict[str, Any]]) -> list[nodes.Node]:
    topics = sorted({row["topic"] for row in rows})
    known = [topic for topic in topics if topic in place.env.found_docs]
    for topic in sorted(set(topics) - set(known)):
        logger.warning(
            "agreement.json has rows of %s, which is no page: run make agreement",
            topic,
            location=place.docname,
        )
    same = sum(row["largest_difference"] == 0 for row in rows)
    libraries = {row["library"] for row in rows}
    text = (
        f"{count(len(rows), 'comparison')} with {count(len(libraries), 'library', 'libraries')} "
        f"on {count(len(known), 'page')}; {same:,} of them found no difference at all."
    )
    return [
        nodes.paragraph("", text, classes=["page-status"]),
        Fold("", FoldSummary("", "The libraries and their versions"), _versions(rows)),
        nodes.container(classes=["ledger-filter"]),
        *(_section(place, topic, [r for r in rows if r["topic"] == topic]) for topic in known),
    ]


def _versions(rows: list[dict[str, Any]]) -> nodes.container:
    """Which version of each library was compared with, and how often."""
    found = sorted({(row["library"], row["version"]) for row in rows})
    cells = []
    for library, version in found:
        own = [row for row in rows if (row["library"], row["version"]) == (library, version)]
        pages = len({row["topic"] for row in own})
        cells.append([nodes.Text(text) for text in (library, version, f"{len(own)}", f"{pages}")])
    return table(["Library", "Version", "Comparisons", "Pages"], cells)


def _section(place: Place, topic: str, rows: list[dict[str, Any]]) -> nodes.section:
    heading = nodes.title("", "", *page_title(place.env, topic))
    differ = nodes.paragraph("", "Where libraries differ, and why: ")
    differ += link_to_page(topic, "In practice", heading="in-practice")
    differ += nodes.Text(".")
    listing = _table([(_cells(row), _classes(row)) for row in rows])
    return nodes.section("", heading, differ, listing, ids=[anchor(topic)])


def anchor(topic: str) -> str:
    """Where the comparisons of a page stand on the page of all."""
    return f"{PAGE}-{topic.replace('/', '-')}"


def _table(rows: Sequence[Any]) -> nodes.container:
    written = table(_HEADER, rows)
    written["classes"].append("agreement")  # on a phone its rows are stacked
    return written


def _cells(row: dict[str, Any]) -> list[nodes.Node]:
    return [
        nodes.Text(row["formula"]),
        nodes.Text(f"{row['library']} {row['version']}"),
        nodes.Text(row["convention"]),
        nodes.Text(f"{_short(row['largest_difference'], 1)} (allowed {_short(row['allowed'], 0)})"),
    ]


def _short(number: float, digits: int) -> str:
    """'4.4e-16', and '0' for what is exact."""
    return f"{number:.{digits}e}" if number else "0"


def _classes(row: dict[str, Any]) -> list[str]:
    """What the filter of the page asks for."""
    difference = row["largest_difference"]
    step = next((name for name, most in _STEPS if difference <= most), "larger")
    group, library = row["topic"].split("/")[0], nodes.make_id(row["library"])
    return [f"group-{group}", f"library-{library}", f"difference-{step}"]
