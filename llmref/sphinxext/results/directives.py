"""The directives that authors write: a result, its proof, and places where the build reports.

Their names are those of sphinx-proof. Leaves out: what the site knows of all results (domain).
"""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from llmref.hosting.citation import citations, read_work, release_link
from llmref.records import ID_PATTERN, Published, read_published
from llmref.sphinxext.results.data import Result
from llmref.sphinxext.results.nodes import (
    Fold,
    FoldSummary,
    Proof,
    Report,
    ResultBox,
    ResultHeading,
)

if TYPE_CHECKING:
    from llmref.sphinxext.results.domain import ResultsDomain


class ResultDirective(SphinxDirective):
    """A titled result with its permanent id in `:label:`."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"label": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Number the result, register it, and return its box."""
        label = self.options.get("label", "")
        kind = self.name.partition(":")[2]
        if not ID_PATTERN.fullmatch(label):
            raise self.error(f"a {kind} needs a :label: in kebab-case, got {label!r}")
        title, messages = self.parse_inline(self.arguments[0])
        domain: ResultsDomain = self.env.domains["prf"]  # type: ignore[assignment]
        result = Result(
            id=label,
            kind=kind,
            number=1 + sum(r.docname == self.env.docname for r in domain.stated()),
            title="".join(node.astext() for node in title),
            docname=self.env.docname,
            line=self.lineno,
        )
        if known := domain.results.get(label):
            raise self.error(f"the id {label} is taken by a {known.kind} in {known.docname}")
        domain.results[label] = result
        # Not a dependency on the whole list: incremental.reading compares.
        listed = self.config.llmref_result_ids
        published = read_published(Path(listed)) if listed else {}
        result.former = former = former_ids(label, published)
        result.since = since(label, published)
        # As a label of the standard domain too, any Sphinx site can cite it with the role 'ref'.
        for id_ in (label, *former):
            self.env.domains.standard_domain.note_hyperlink_target(
                id_, self.env.docname, id_, f"{result.name} ({result.title})"
            )
        heading = ResultHeading(
            "", f"{result.name}. ", *title, permalink=label, classes=["result-title"]
        )
        box = ResultBox("", heading, *messages, ids=[label, *former], kind=kind)
        self.set_source_info(box)
        box += self.parse_content_to_nodes()
        box += Report("", report="path", argument=label)
        if former:
            box += nodes.paragraph("", f"Formerly {', '.join(former)}.", classes=["result-former"])
        if self.config.llmref_citation:
            box += self._cite(result, title)
        self.state.document.note_explicit_target(box)
        return [box]

    def _cite(self, result: Result, title: list[nodes.Node]) -> Fold:
        """Return the ways to cite the result, folded."""
        page = f"{result.docname}.html#{result.id}"
        base = self.config.html_baseurl
        self.env.note_dependency(self.config.llmref_citation)
        work = read_work(Path(self.config.llmref_citation))
        text = "".join(
            f"${node.astext()}$" if isinstance(node, nodes.math) else node.astext()
            for node in title
        )
        url = f"{base.rstrip('/')}/{page}" if base else page
        release = release_link(base, work.version, page, result.since)
        try:
            entries = citations(work, result.id, result.name, text, url, release)
        except ValueError as error:
            raise self.error(str(error)) from error
        fold = Fold("", FoldSummary("", "Cite"), classes=["cite"])
        for name, text in entries.items():
            language = "bibtex" if name == "BibTeX" else "text"
            fold += nodes.paragraph("", name)
            fold += nodes.literal_block(text, text, language=language)
        return fold


def former_ids(label: str, published: dict[str, Published]) -> list[str]:
    """The ids that a result had before; their links lead to it."""
    return sorted(entry.id for entry in published.values() if entry.moved_to == label)


def since(label: str, published: dict[str, Published]) -> str:
    """The version that brought a result, '' if it is not published."""
    return published[label].version if label in published else ""


class ProofDirective(SphinxDirective):
    """The proof of the result just before it. With `:fold:` it is folded until asked for."""

    has_content = True
    option_spec: ClassVar = {"fold": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the proof; `collect` finds what it rests on."""
        proof = Proof("", folded="fold" in self.options)
        self.set_source_info(proof)
        proof += self.parse_content_to_nodes()
        return [proof]


class ReportDirective(SphinxDirective):
    """A place where the build writes: status, totals, mistakes, agreement, ledger, and so on.

    `graph` takes a group as its argument, 'rl', or none for all results; `showcase` takes the id
    of a result whose first check reads its statement; `agreement` takes `all` for all pages.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Leave a placeholder; the results are complete only after all pages are read."""
        return [Report("", report=self.name, argument=" ".join(self.arguments))]
