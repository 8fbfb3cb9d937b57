"""Results with permanent ids, the checks that confirm them, and the pages' view of both.

The directive names are those of sphinx-proof, but the domain is our own: results go into
objects.inv, state lives in the domain, and a result without a check stops a strict build.
Leaves out: how each of them looks in HTML (layout.py).
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.domains import Domain, ObjType
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata

from llmref.record import ID_PATTERN, MIME_TYPE
from llmref.sphinxext import layout
from llmref.sphinxext.cite import citations, read_work
from llmref.sphinxext.graph import build_graph, cycles
from llmref.sphinxext.published import read_published
from llmref.tex import shows

if TYPE_CHECKING:
    import networkx

logger = logging.getLogger(__name__)

KINDS = ("definition", "lemma", "proposition", "theorem", "corollary")


@dataclass
class Result:
    """A stated result: where it stands, and what its proof refers to."""

    id: str
    kind: str
    number: int
    title: str
    docname: str
    line: int
    rests_on: list[str] = field(default_factory=list)
    equations: int = 0  # displayed in its statement

    @property
    def name(self) -> str:
        """'Theorem 3'."""
        return f"{self.kind.capitalize()} {self.number}"


@dataclass
class ExecutedCheck:
    """The record of a check, and the cell that it came from."""

    docname: str
    line: int
    record: dict[str, Any]


@dataclass
class Shown:
    """What a page shows of other pages: results that it cites, and whether it has reports."""

    cited: list[str] = field(default_factory=list)
    reports: bool = False
    state: str = ""


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
        domain = self.env.domains["prf"]
        assert isinstance(domain, ResultsDomain)
        result = Result(
            id=label,
            kind=kind,
            number=1 + sum(r.docname == self.env.docname for r in domain.results.values()),
            title="".join(node.astext() for node in title),
            docname=self.env.docname,
            line=self.lineno,
        )
        if known := domain.results.get(label):
            raise self.error(f"the id {label} is taken by a {known.kind} in {known.docname}")
        domain.results[label] = result
        former = self._former_ids(label)
        # As a label of the standard domain too, any Sphinx site can cite it with the role 'ref'.
        for id_ in (label, *former):
            self.env.domains.standard_domain.note_hyperlink_target(
                id_, self.env.docname, id_, f"{result.name} ({result.title})"
            )
        heading = layout.ResultHeading(
            "", f"{result.name}. ", *title, permalink=label, classes=["result-title"]
        )
        box = layout.ResultBox("", heading, *messages, ids=[label, *former], kind=kind)
        self.set_source_info(box)
        box += self.parse_content_to_nodes()
        box += layout.Report("", report="path", argument=label)
        if former:
            box += nodes.paragraph("", f"Formerly {', '.join(former)}.", classes=["result-former"])
        if self.config.llmref_citation:
            box += self._cite(result, title)
        self.state.document.note_explicit_target(box)
        return [box]

    def _former_ids(self, label: str) -> list[str]:
        """The ids that this result had before; their links lead here."""
        listed = self.config.llmref_result_ids
        if not listed:
            return []
        self.env.note_dependency(listed)
        published = read_published(Path(listed)).values()
        return sorted(entry.id for entry in published if entry.moved_to == label)

    def _cite(self, result: Result, title: list[nodes.Node]) -> layout.Fold:
        """Return the ways to cite the result, folded."""
        page = f"{result.docname}.html#{result.id}"
        entries = citations(
            read_work(Path(self.config.llmref_citation)),
            result.id,
            result.name,
            "".join(
                f"${node.astext()}$" if isinstance(node, nodes.math) else node.astext()
                for node in title
            ),
            self.config.html_baseurl.rstrip("/") + "/" + page if self.config.html_baseurl else page,
        )
        fold = layout.Fold("", layout.FoldSummary("", "Cite"), classes=["cite"])
        for name, text in entries.items():
            language = "bibtex" if name == "BibTeX" else "text"
            fold += nodes.paragraph("", name)
            fold += nodes.literal_block(text, text, language=language)
        return fold


class ProofDirective(SphinxDirective):
    """The proof of the result just before it. With `:fold:` it is folded until asked for."""

    has_content = True
    option_spec: ClassVar = {"fold": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the proof; `collect` finds what it rests on."""
        proof = layout.Proof("", folded="fold" in self.options)
        self.set_source_info(proof)
        proof += self.parse_content_to_nodes()
        return [proof]


class ReportDirective(SphinxDirective):
    """A place where the build writes: status, totals, mistakes, agreement, ledger, and so on.

    `graph` takes a group as its argument, 'rl', or none for all results; `showcase` takes the id
    of a result whose first check reads its statement.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Leave a placeholder; the results are complete only after all pages are read."""
        return [layout.Report("", report=self.name, argument=" ".join(self.arguments))]


class CheckRenderer:
    """Turns the output of a check into a node that holds its record."""

    mime_priority_overrides: ClassVar = [("*", MIME_TYPE, 0)]

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """Return the check's node for our MIME type, and leave all others to myst-nb."""
        if data.mime_type != MIME_TYPE or inline:
            return None
        assert isinstance(data.content, dict)
        node = layout.check_node(data.content)
        node.line = (data.line or 2) - 1  # myst-nb counts one too many
        return [node]


class ResultsDomain(Domain):
    """All results and checks of the site."""

    name = "prf"
    label = "Results"
    object_types: ClassVar = {kind: ObjType(kind, "ref") for kind in KINDS}
    directives: ClassVar = {**dict.fromkeys(KINDS, ResultDirective), "proof": ProofDirective}
    roles: ClassVar = {"ref": XRefRole(warn_dangling=True, innernodeclass=nodes.inline)}
    dangling_warnings: ClassVar = {"ref": "no result has the id %(target)s"}
    initial_data: ClassVar = {"results": {}, "checks": [], "shows": {}}
    data_version = 1

    @property
    def results(self) -> dict[str, Result]:
        """By id."""
        return self.data["results"]  # type: ignore[no-any-return]

    @property
    def checks(self) -> list[ExecutedCheck]:
        """In the order of reading."""
        return self.data["checks"]  # type: ignore[no-any-return]

    @property
    def shows(self) -> dict[str, Shown]:
        """By docname."""
        return self.data["shows"]  # type: ignore[no-any-return]

    def graph(self) -> "networkx.DiGraph":
        """What rests on what."""
        return build_graph({id_: result.rests_on for id_, result in self.results.items()})

    def clear_doc(self, docname: str) -> None:
        """Forget a page that is read again or removed."""
        for id_ in [id_ for id_, r in self.results.items() if r.docname == docname]:
            del self.results[id_]
        self.data["checks"] = [check for check in self.checks if check.docname != docname]
        self.shows.pop(docname, None)

    def merge_domaindata(self, docnames: Iterable[str], otherdata: dict[str, Any]) -> None:
        """Take over what another process has read."""
        mine = set(docnames)
        for id_, result in otherdata["results"].items():
            if result.docname in mine:
                if known := self.results.get(id_):
                    logger.warning(
                        "the id %s is taken by a %s in %s",
                        id_,
                        known.kind,
                        known.docname,
                        location=(result.docname, result.line),
                    )
                self.results[id_] = result
        self.checks.extend(check for check in otherdata["checks"] if check.docname in mine)
        self.shows.update({d: shown for d, shown in otherdata["shows"].items() if d in mine})

    def process_doc(self, env: BuildEnvironment, docname: str, document: nodes.document) -> None:
        """Collect the checks of a page, and what each proof on it rests on."""
        for check in document.findall(layout.CheckNode):
            self.checks.append(ExecutedCheck(docname, check.line or 1, check["record"]))
        self.shows[docname] = Shown(
            cited=_references(document),
            reports=any(node["report"] != "path" for node in document.findall(layout.Report)),
        )
        box: layout.ResultBox | None = None
        formulas: dict[str, list[str]] = {}
        for node in document.findall():
            if isinstance(node, layout.ResultBox):
                box = node
                formulas[box["ids"][0]] = [math.astext() for math in _formulas(box)]
                displayed = [math.astext() for math in node.findall(nodes.math_block)]
                self.results[box["ids"][0]].equations = sum("=" in text for text in displayed)
            elif isinstance(node, layout.Proof):
                if box is None:
                    logger.warning("a proof without a result before it", location=node)
                    continue
                self.results[box["ids"][0]].rests_on = _references(node)
        for check in document.findall(layout.CheckNode):
            _require_shown(check, formulas, docname)

    def resolve_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        typ: str,
        target: str,
        node: pending_xref,
        contnode: nodes.Element,
    ) -> nodes.reference | None:
        """Link to a result: 'Lemma 2' on its page, 'Lemma 2 (its-id)' from another one."""
        result = self.results.get(target)
        if result is None:
            return None
        text = result.name
        if result.docname != fromdocname:
            text += f" ({result.id})"
        content = (
            contnode if node["refexplicit"] else nodes.inline("", text, classes=["result-ref"])
        )
        return make_refnode(
            builder, fromdocname, result.docname, result.id, content, title=result.title
        )

    def resolve_any_xref(self, *args: Any) -> list[tuple[str, nodes.reference]]:
        """Results are only cited by their own role, so 'any' finds none."""
        return []

    def get_objects(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """Put every result into objects.inv."""
        for result in self.results.values():
            yield result.id, result.title, result.kind, result.docname, result.id, 1

    def check_consistency(self) -> None:
        """Warn, with page and line, of whatever is not confirmed."""
        checked = {check.record["result"] for check in self.checks}
        for result in self.results.values():
            if result.kind != "definition" and result.id not in checked:
                logger.warning(
                    "the %s %s has no check",
                    result.kind,
                    result.id,
                    location=(result.docname, result.line),
                )
        for check in self.checks:
            if check.record["result"] not in self.results:
                logger.warning(
                    "this check names no result of the site: %s",
                    check.record["result"],
                    location=(check.docname, check.line),
                )
        self._check_published()
        self._check_acyclic()

    def _check_acyclic(self) -> None:
        """No proof may rest on itself, however far around."""
        for cycle in cycles(self.graph()):
            result = self.results[min(cycle)]
            logger.warning(
                "these proofs rest on each other: %s",
                " -> ".join([*cycle, cycle[0]]),
                location=(result.docname, result.line),
            )

    def _check_published(self) -> None:
        """An id never vanishes, and a new one is published on purpose."""
        listed = self.env.config.llmref_result_ids
        if not listed:
            return
        published = read_published(Path(listed))
        for id_, entry in sorted(published.items()):
            if (entry.moved_to or id_) not in self.results:
                moved = f", and so is {entry.moved_to}, where it moved" if entry.moved_to else ""
                logger.warning(
                    "the published id %s is missing from the site%s", id_, moved, location=listed
                )
        for result in self.results.values():
            if result.id not in published:
                logger.warning(
                    "the id %s is not in docs/result-ids.txt: ids are for ever, so add it there",
                    result.id,
                    location=(result.docname, result.line),
                )


def _formulas(box: layout.ResultBox) -> Iterator[nodes.Element]:
    """The formulas of a statement, in the text and displayed."""
    return (node for node in box.findall() if isinstance(node, (nodes.math, nodes.math_block)))


def _require_shown(check: layout.CheckNode, formulas: dict[str, list[str]], docname: str) -> None:
    """Warn if a check has read an equation that its result does not show."""
    id_ = check["record"]["result"]
    for equation in check["record"]["statement"]:
        if not any(shows(text, equation) for text in formulas.get(id_, [])):
            logger.warning(
                "the statement of %s does not show the equation that was checked: %s",
                id_,
                equation,
                location=(docname, check.line),
            )


def _references(part: nodes.Element) -> list[str]:
    """The results that a part of a page cites, each once, in order."""
    targets = (
        node["reftarget"]
        for node in part.findall(pending_xref)
        if node.get("refdomain") == "prf" and node.get("reftype") == "ref"
    )
    return list(dict.fromkeys(targets))


def pages_to_rewrite(app: Sphinx, env: BuildEnvironment) -> Iterator[str]:
    """Yield the pages that show something of other pages which has changed.

    Sphinx writes again only what it has read again, so that titles in the navigation, numbers of
    equations and results cited from elsewhere would go stale.
    """
    domain = env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    everywhere = _digest(
        sorted((docname, title.astext()) for docname, title in env.titles.items()),
        sorted(env.toctree_includes.items()),
        sorted(env.domains.math_domain.equations.items()),
        sorted(env.domains.standard_domain.labels.items()),
        sorted((result.id, result.rests_on) for result in domain.results.values()),
    )
    agreement = Path(env.srcdir) / "agreement.json"
    of_reports = _digest(
        sorted(map(repr, domain.results.values())),
        sorted(map(repr, domain.checks)),
        agreement.read_text(encoding="utf-8") if agreement.is_file() else "",
    )
    for docname in sorted(env.found_docs):
        shown = domain.shows.get(docname, Shown())
        cited = [domain.results.get(id_) for id_ in shown.cited]
        state = _digest(everywhere, cited, of_reports if shown.reports else "")
        if shown.state != state:
            shown.state = state
            domain.shows[docname] = shown
            yield docname


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def set_result_ids(app: Sphinx) -> None:
    """Tell the checks in the kernels which ids are published."""
    if app.config.llmref_result_ids:
        os.environ["LLMREF_RESULT_IDS"] = str(app.config.llmref_result_ids)
    else:
        os.environ.pop("LLMREF_RESULT_IDS", None)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the domain, the reports and the events."""
    app.add_domain(ResultsDomain)
    app.add_config_value("llmref_citation", "", "env", types=(str,))
    app.add_config_value("llmref_result_ids", "", "env", types=(str,))
    for report in ("status", "totals", "mistakes", "ledger", "agreement", "graph", "showcase"):
        app.add_directive(report, ReportDirective)
    app.connect("builder-inited", set_result_ids)
    app.connect("env-updated", lambda app, env: list(pages_to_rewrite(app, env)))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
