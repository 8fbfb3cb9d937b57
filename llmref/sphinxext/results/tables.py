"""What reports are made of: a place to write, counts in words, links to results, tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.builders import Builder
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.results.data import ExecutedCheck, Result
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.results.nodes import count, rejections

if TYPE_CHECKING:
    import networkx


@dataclass
class Place:
    """Where a report is written: on which page, and with which argument."""

    builder: Builder
    env: BuildEnvironment
    docname: str
    argument: str = ""

    @property
    def domain(self) -> ResultsDomain:
        """All results and checks."""
        domain = self.env.domains["prf"]
        assert isinstance(domain, ResultsDomain)
        return domain

    @cached_property
    def graph(self) -> "networkx.DiGraph":
        """What rests on what."""
        return self.domain.graph()

    def here(self) -> tuple[list[Result], list[ExecutedCheck]]:
        """The results and the checks of the page itself."""
        return (
            [result for result in self.domain.stated() if result.docname == self.docname],
            [check for check in self.domain.checks if check.docname == self.docname],
        )


def counts(results: list[Result], checks: list[ExecutedCheck]) -> str:
    mistakes = sum(len(check.record["rejected"]) for check in checks)
    turned = sum(check.record["turned"] for check in checks)
    return (
        f"{count(len(results), 'result')}, {count(len(checks), 'check')} executed, "
        f"{rejections(mistakes, turned)}"
    )


def listed(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def page_title(env: Any, docname: str) -> list[nodes.Node]:
    return [node.deepcopy() for node in env.titles[docname].children]


def ref(id_: str, text: str = "") -> pending_xref:
    return pending_xref(
        "",
        nodes.inline("", text or id_),
        refdomain="prf",
        reftype="ref",
        reftarget=id_,
        refexplicit=bool(text),
        refwarn=True,
    )


def link_to_page(docname: str, text: str, *, heading: str = "") -> pending_xref:
    """Link to a page, or to a heading there, which must exist."""
    if heading:
        return pending_xref(
            "",
            nodes.inline("", text),
            refdomain="doc",
            reftype="myst",
            reftarget=docname,
            reftargetid=heading,
            refexplicit=True,
        )
    return pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=True,
        refwarn=True,
    )


def refs(ids: list[str]) -> nodes.paragraph:
    paragraph = nodes.paragraph()
    for index, id_ in enumerate(ids):
        paragraph += [nodes.Text(", "), ref(id_, id_)] if index else ref(id_, id_)
    return paragraph


def table(header: list[str], rows: Sequence[Any]) -> nodes.container:
    """Build a table; a row is a list of cells, or a pair of that and the row's classes."""

    def table_row(row: Any) -> nodes.row:
        cells, classes = row if isinstance(row, tuple) else (row, [])
        return nodes.row("", *map(entry, cells), classes=classes)

    def entry(content: Any) -> nodes.entry:
        if isinstance(content, (nodes.Text, pending_xref)):
            content = nodes.paragraph("", "", content)
        return nodes.entry("", *(content if isinstance(content, list) else [content]))

    group = nodes.tgroup("", cols=len(header))
    group += [nodes.colspec("", colwidth=1) for _ in header]
    group += nodes.thead("", nodes.row("", *(entry(nodes.Text(title)) for title in header)))
    group += nodes.tbody("", *map(table_row, rows))
    return nodes.container("", nodes.table("", group), classes=["table-scroll"])
