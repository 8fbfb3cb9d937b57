"""One bar for all checks of a result: what they found, and on demand their cells.

Authors write a result, its proof and its cells, in this order. From the first cell to the last one
everything goes into the bar, which stands just below the proof, also a sentence between two cells.
Cells that stand before the first result of a section, such as imports, go into the next bar.
Leaves out: proofs, and cells that draw a figure or have the tag `outside`: they stay on the page.
"""

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from llmref.sphinxext.results.nodes import (
    CheckNode,
    FoldMarker,
    FoldSummary,
    Proof,
    ResultBox,
    check_body,
    count,
    rejections,
)
from llmref.sphinxext.topics.by_hand import ByHand

logger = logging.getLogger(__name__)

Owner = nodes.Element | None
Run = list[nodes.Element]
# A summary is a line, two at most: longer lists of scopes end in an ellipsis.
_LONGEST_SCOPES = 130
_NO_RESULT = "below no result of its section"


class Bar(nodes.General, nodes.Element):
    """The checks of a result, folded; `of` is its id."""


class BarCode(nodes.General, nodes.Element):
    """The cells of the checks, which a book leaves to the site."""


class GatherChecks(SphinxPostTransform):
    """Puts cells with checks into bars; late, so that what is on the page has been counted."""

    default_priority = 890  # before folds are made of markers

    def run(self, **kwargs: Any) -> None:
        """Go through the sections that hold results."""
        waiting: list[nodes.Element] = []
        for section, owner, run in list(_runs_of(self.document)):
            outside = [node for node in run if _stays_outside(node)]
            inside = [node for node in run if node not in outside]
            if owner is None:
                # Imports and helpers, which print nothing, wait for the next bar.
                waiting += [node for node in inside if _is_cell(node) and not _prints(node)]
            elif checks := [check for node in inside for check in node.findall(CheckNode)]:
                bar = Bar("", of=owner["ids"][0])
                section.insert(_end_of_proof(section, owner, run), bar)
                fill(bar, checks, [*waiting, *inside])
                waiting = []


def _end_of_proof(section: nodes.Element, owner: nodes.Element, run: Run) -> int:
    """The place just below the result, or below the last proof before its last cell."""
    first, last = section.index(owner), section.index(run[-1])
    proofs = [i for i in range(first, last) if isinstance(section[i], Proof)]
    return 1 + max([first, *proofs])


def note_stray_checks(app: Sphinx, document: nodes.document) -> None:
    """Warn of a check that stands below no result, or below another one than its own."""
    for _, owner, run in _runs_of(document):
        above = [] if owner is None else owner["ids"]
        for check in (check for node in run for check in node.findall(CheckNode)):
            result = check["record"]["result"]
            if result not in above:
                where = f"below {above[0]}, not its own result" if above else _NO_RESULT
                logger.warning(
                    "this check stands %s: %s",
                    where,
                    result,
                    location=(app.env.docname, check.line),
                )


def _runs_of(document: nodes.document) -> Iterator[tuple[nodes.section, Owner, Run]]:
    """Yield section, result and cells, for all sections with cells."""
    for section in document.findall(nodes.section):
        if next(iter(section.findall(_owns)), None) is None:
            found = any(True for _ in section.findall(CheckNode))
            if not found:
                continue
        for owner, run in _runs(section):
            yield section, owner, run


def _owns(node: nodes.Node) -> bool:
    return isinstance(node, (ResultBox, ByHand))


def _runs(section: nodes.Element) -> Iterator[tuple[Owner, Run]]:
    """Yield each result with what stands from its first cell to its last one."""
    owner: Owner = None
    run: Run = []
    tail: Run = []
    for child in section.children:
        if isinstance(child, (ResultBox, ByHand, FoldMarker, nodes.section)):
            if run:
                yield owner, run
            owner, run, tail = None if isinstance(child, FoldMarker) else child, [], []
            if isinstance(child, nodes.section):
                return
        elif isinstance(child, nodes.Element) and _is_cell(child):
            run += [*tail, child]
            tail = []
        elif run and isinstance(child, nodes.Element):
            tail.append(child)
    if run:
        yield owner, run


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Element) and node.get("nb_element") == "cell_code"


def _prints(cell: nodes.Element) -> bool:
    return any(
        part.get("nb_element") == "cell_code_output" for part in cell.findall(nodes.container)
    )


def _stays_outside(node: nodes.Element) -> bool:
    return isinstance(node, Proof) or (
        _is_cell(node)
        and (
            "tag_outside" in node["classes"]
            or next(iter(node.findall(nodes.image)), None) is not None
        )
    )


def fill(bar: Bar, checks: list[CheckNode], cells: list[nodes.Element]) -> None:
    """Move cells into a bar, below a summary and what each check found."""
    records = [check["record"] for check in checks]
    bar["ids"] = [f"checks-{bar['of']}"]
    bar += FoldSummary("", "", *_summary(records))
    for check in checks:
        bar += check_body(check["record"])
        _remove(check)
    for cell in cells:
        cell.parent.remove(cell)
    bar += BarCode("", *cells)


def _remove(check: CheckNode) -> None:
    """Take a check out of its cell, and the output around it if nothing is left in it."""
    parent = check.parent
    parent.remove(check)
    while not (parent.children or _is_cell(parent)):
        empty, parent = parent, parent.parent
        parent.remove(empty)


def _summary(records: list[dict[str, Any]]) -> list[nodes.Node]:
    rejected = rejections(
        sum(len(record["rejected"]) for record in records),
        sum(record["turned"] for record in records),
    )
    scopes = list(dict.fromkeys(record["note"] for record in records if record["note"]))
    text = _shortened(scopes)
    return [
        nodes.inline("", count(len(records), "check"), classes=["check-mark"]),
        nodes.Text(f": {text}" if text else ""),
        nodes.inline("", f"; {rejected}", classes=["bar-rejected"]),
    ]


def _shortened(scopes: list[str]) -> str:
    """['a', 'b'] -> 'a; b', or 'a; …' if the line would be too long."""
    shown: list[str] = []
    for scope in scopes:
        if shown and len("; ".join([*shown, scope])) > _LONGEST_SCOPES:
            return "; ".join([*shown, "…"])
        shown.append(scope)
    return "; ".join(shown)
