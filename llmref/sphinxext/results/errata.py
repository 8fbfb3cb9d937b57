"""What was false of a result once: the lines of the tables in a container of class 'errata'."""

from collections.abc import Iterator

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util import logging

from llmref.sphinxext.results.data import Erratum

logger = logging.getLogger(__name__)


def read_errata(document: nodes.document, docname: str) -> Iterator[Erratum]:
    """Yield the lines of a page, each of one result or more; warn of one that names none."""
    for section in document.findall(nodes.section):
        for container in (child for child in section.children if _holds_errata(child)):
            for body in container.findall(nodes.tbody):
                for row in body.children:
                    cited = cited_results(row)
                    if not cited:
                        logger.warning("this line of the errata names no result", location=row)
                    yield Erratum(docname, section["ids"][0], cited)


def _holds_errata(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "errata" in node["classes"]


def cited_results(part: nodes.Node) -> list[str]:
    """Return the results that a part of a page cites, each once, in order."""
    targets = (
        node["reftarget"]
        for node in part.findall(pending_xref)
        if node.get("refdomain") == "prf" and node.get("reftype") == "ref"
    )
    return list(dict.fromkeys(targets))
