"""All results and checks of the site, and what a strict build refuses of them.

The domain is our own: results go into objects.inv, state lives in the domain, and a result without
a check stops a strict build.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.builders import Builder
from sphinx.domains import Domain, ObjType
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from llmref.records import read_published
from llmref.sphinxext.results.data import BY_HAND, Erratum, ExecutedCheck, Result, Shown
from llmref.sphinxext.results.directives import ProofDirective, ResultDirective
from llmref.sphinxext.results.errata import cited_results, read_errata
from llmref.sphinxext.results.graph import build_graph, cycles
from llmref.sphinxext.results.nodes import CheckNode, Proof, Report, ResultBox
from llmref.tex import shows

if TYPE_CHECKING:
    import networkx

logger = logging.getLogger(__name__)

KINDS = ("definition", "lemma", "proposition", "theorem", "corollary")


def _short_title(env: BuildEnvironment, docname: str) -> str:
    """The title of a page without its acronyms: 'Attention masks'."""
    return env.titles[docname].astext().partition(" (")[0] if docname in env.titles else docname


class ResultsDomain(Domain):
    """All results and checks of the site."""

    name = "prf"
    label = "Results"
    object_types: ClassVar = {kind: ObjType(kind, "ref") for kind in (*KINDS, BY_HAND)}
    directives: ClassVar = {**dict.fromkeys(KINDS, ResultDirective), "proof": ProofDirective}
    roles: ClassVar = {"ref": XRefRole(warn_dangling=True, innernodeclass=nodes.inline)}
    dangling_warnings: ClassVar = {"ref": "no result has the id %(target)s"}
    initial_data: ClassVar = {"results": {}, "checks": [], "shows": {}, "errata": []}
    data_version = 3

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

    @property
    def errata(self) -> list[Erratum]:
        """What was false once, in the order of reading."""
        return self.data["errata"]  # type: ignore[no-any-return]

    def graph(self) -> "networkx.DiGraph":
        """What rests on what."""
        return build_graph({result.id: result.rests_on for result in self.stated()})

    def stated(self) -> list[Result]:
        """The results proper, without code by hand."""
        return [result for result in self.results.values() if result.kind != BY_HAND]

    def get_type_name(self, type: ObjType, primary: bool = False) -> str:  # noqa: A002
        """'Theorem', as a search says of a hit."""
        return type.lname.capitalize()

    def clear_doc(self, docname: str) -> None:
        """Forget a page that is read again or removed."""
        for id_ in [id_ for id_, r in self.results.items() if r.docname == docname]:
            del self.results[id_]
        self.data["checks"] = [check for check in self.checks if check.docname != docname]
        self.data["errata"] = [erratum for erratum in self.errata if erratum.docname != docname]
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
        self.errata.extend(erratum for erratum in otherdata["errata"] if erratum.docname in mine)
        self.shows.update({d: shown for d, shown in otherdata["shows"].items() if d in mine})

    def process_doc(self, env: BuildEnvironment, docname: str, document: nodes.document) -> None:
        """Collect the checks of a page, and what each proof on it rests on."""
        for check in document.findall(CheckNode):
            self.checks.append(ExecutedCheck(docname, check.line or 1, check["record"]))
        self.errata.extend(read_errata(document, docname))
        self.shows[docname] = Shown(
            cited=cited_results(document),
            linked=_linked_headings(document),
            reports=[(node["report"], node["argument"]) for node in document.findall(Report)],
        )
        box: ResultBox | None = None
        formulas: dict[str, list[str]] = {}
        for node in document.findall():
            if isinstance(node, ResultBox):
                box = node
                formulas[box["ids"][0]] = [math.astext() for math in _formulas(box)]
                displayed = [math.astext() for math in node.findall(nodes.math_block)]
                self.results[box["ids"][0]].equations = sum("=" in text for text in displayed)
            elif isinstance(node, Proof):
                if box is None:
                    logger.warning("a proof without a result before it", location=node)
                    continue
                result = self.results[box["ids"][0]]  # which may have a second proof
                result.rests_on = list(dict.fromkeys([*result.rests_on, *cited_results(node)]))
        for check in document.findall(CheckNode):
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
        """Link to a result: 'Lemma 2' on its page, 'Lemma 2 of Softmax' from another one."""
        result = self.results.get(target)
        if result is None:
            return None
        text = result.name
        if result.docname != fromdocname:
            text += f" of {_short_title(env, result.docname)}"
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
        self._check_by_hand()
        self._check_published()
        self._check_acyclic()

    def _check_by_hand(self) -> None:
        """Each function of the code by hand is confirmed, by a check of that kind."""
        confirmed = {check.record["function"] for check in self.checks}
        shown = {name for result in self.results.values() for name in result.functions}
        for check in self.checks:
            if (name := check.record["function"]) and name not in shown:
                logger.warning(
                    "this check is of no code by hand that a page shows: %s",
                    name,
                    location=(check.docname, check.line),
                )
        for result in self.results.values():
            for name in sorted(set(result.functions) - confirmed):
                logger.warning(
                    "no verify.by_hand confirms %s", name, location=(result.docname, result.line)
                )

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


def _formulas(box: ResultBox) -> Iterator[nodes.Element]:
    """The formulas of a statement, in the text and displayed."""
    return (node for node in box.findall() if isinstance(node, (nodes.math, nodes.math_block)))


def _require_shown(check: CheckNode, formulas: dict[str, list[str]], docname: str) -> None:
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


def _linked_headings(document: nodes.document) -> list[tuple[str, str]]:
    """The headings of other pages that a page links to, as in `other.md#heading`."""
    links = (
        (node["reftarget"], node.get("reftargetid"))
        for node in document.findall(pending_xref)
        if node.get("refdomain") == "doc"
    )
    return sorted({(page, anchor) for page, anchor in links if anchor})
