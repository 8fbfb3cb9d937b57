"""What the build writes about results into the pages: status, mistakes, what to read first.

Leaves out: the reports on the whole site (ledger), and on libraries (agreement).
"""

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from llmref.sphinxext.results.agreement import read_agreement, write_agreement
from llmref.sphinxext.results.graph import study_path
from llmref.sphinxext.results.ledger import (
    write_graph,
    write_ledger,
    write_totals,
)
from llmref.sphinxext.results.nodes import (
    Fold,
    FoldSummary,
    Report,
    ResultBox,
    ResultHeading,
    check_node,
    count,
    displayed_formula,
)
from llmref.sphinxext.results.tables import (
    Place,
    counts,
    listed,
    ref,
    refs,
    table,
)
from llmref.sphinxext.transforms import LinkingTransform

logger = logging.getLogger(__name__)


class WriteReports(LinkingTransform):
    """Fills in the reports."""

    def run(self, **kwargs: Any) -> None:
        """Replace each placeholder."""
        for node in list(self.document.findall(Report)):
            place = Place(self.builder, self.env, self.env.docname, node["argument"])
            node.replace_self(writer_of(node["report"])(place))


def write_status(place: Place) -> list[nodes.Node]:
    """Count what the page has, and lead to its other forms."""
    results, checks = place.here()
    agreed: dict[str, str] = {}
    for row in read_agreement(place.env.srcdir):
        if row["topic"] == place.docname:
            agreed[row["library"]] = ".".join(row["version"].split(".")[:2])
    text = counts(results, checks)
    if agreed:
        text += "; agrees with " + listed([f"{name} {agreed[name]}" for name in sorted(agreed)])
    name = place.docname.rpartition("/")[2]
    paragraph = nodes.paragraph("", f"{text}. ", classes=["page-status"])
    paragraph += nodes.reference("", "Notebook", refuri=f"{name}.ipynb", internal=False)
    paragraph += nodes.Text(", ")
    paragraph += nodes.reference("", "Markdown", refuri=f"{name}.md", internal=False)
    return [paragraph]


def write_mistakes(place: Place) -> list[nodes.Node]:
    """List the mistakes that the checks of the page reject."""
    checks = place.here()[1]
    rows = [
        [nodes.Text(name), ref(check.record["result"]), nodes.Text(seen)]
        for check in checks
        for name, seen in check.record["rejected"].items()
    ]
    listing = table(["Mistake", "Rejected by", "What the check saw"], rows)
    summary = FoldSummary("", f"{count(len(rows), 'mistake')} rejected by the checks above")
    return [Fold("", summary, listing, classes=["mistakes"])] if rows else []


def write_path(place: Place) -> list[nodes.Node]:
    """What to read to prove a result from scratch, in order."""
    id_ = place.argument
    path = study_path(place.graph, id_)
    if not path:
        return []
    text = nodes.Text("To prove this from scratch, read in this order: ")
    paragraph = refs(path)
    paragraph.insert(0, text)
    summary = FoldSummary("", f"Rests on {count(len(path), 'result')}")
    return [Fold("", summary, paragraph, classes=["path"])]


def write_showcase(place: Place) -> list[nodes.Node]:
    """A result of another page, the cell that reads its statement, and that check opened."""
    id_ = place.argument
    domain = place.domain
    records = [c.record for c in domain.checks if c.record["result"] == id_]
    record = next((record for record in records if record["statement"]), None)
    if record is None:
        logger.warning(
            "no check reads the statement of %s, so it cannot be shown here",
            id_,
            location=place.docname,
        )
        return []
    result = domain.results[id_]
    heading = ResultHeading("", f"{result.name}. ", ref(id_, result.title), permalink="")
    heading["classes"].append("result-title")
    box = ResultBox("", heading, kind=result.kind)
    box += [displayed_formula(equation) for equation in record["statement"]]
    code = showcase_code(place.env, result.docname, id_)
    check = check_node(record)
    check["open"] = True
    return [box, nodes.literal_block(code, code, language="ipython3"), check]


def showcase_code(env: BuildEnvironment, docname: str, id_: str) -> str:
    """The cell of a page that reads the statement of a result."""
    cells = env.metadata[docname].get("llmref_code", [])
    sources = [cell["source"] for cell in cells]
    reads = (code for code in sources if "verify.statement" in code and f'"{id_}"' in code)
    return next(reads, "")


WRITERS: dict[str, Callable[[Place], list[nodes.Node]]] = {
    "agreement": write_agreement,
    "graph": write_graph,
    "ledger": write_ledger,
    "mistakes": write_mistakes,
    "path": write_path,
    "showcase": write_showcase,
    "status": write_status,
    "totals": write_totals,
}
# What other rooms write into pages; each of them registers the directives of its own.
OTHERS: dict[str, Callable[[Place], list[nodes.Node]]] = {}


def writer_of(report: str) -> Callable[[Place], list[nodes.Node]]:
    """Return what writes a report."""
    return WRITERS.get(report) or OTHERS[report]
