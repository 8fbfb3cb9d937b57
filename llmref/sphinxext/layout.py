"""What results, proofs, checks and reports look like: nodes, and their HTML.

Everything folds with the `details` element, so a page is complete without JavaScript.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

from llmref.sphinxext.graph import draw, study_path
from llmref.sphinxext.versions import NOTICE

if TYPE_CHECKING:  # results imports this module
    import networkx

    from llmref.sphinxext.results import ExecutedCheck, Result, ResultsDomain

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
# Beyond this, a typeset equation is no longer read; the check still shows what it compared.
_LONGEST_EQUATION = 1500


class ResultBox(nodes.General, nodes.Element):
    """A result: heading and statement."""


class ResultHeading(nodes.General, nodes.TextElement):
    """'Theorem 3. Title', with the permalink."""


class Proof(nodes.General, nodes.Element):
    """A proof."""


class CheckNode(nodes.General, nodes.Element):
    """A passed check; `record` is its machine-readable form."""


class Fold(nodes.General, nodes.Element):
    """Content that is folded until asked for."""


class FoldSummary(nodes.General, nodes.TextElement):
    """The line of a fold that is always visible."""


class FoldMarker(nodes.Invisible, nodes.Element):
    """The rest of this section is to be folded."""


class Report(nodes.General, nodes.Element):
    """A place for the build to write about results; `report` names what."""


class FoldDirective(SphinxDirective):
    """`fold` SUMMARY: folds the rest of its section, executed cells included."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Mark the place; cells are no directive's content, so they are folded in at the end."""
        return [FoldMarker("", summary=self.arguments[0])]


def check_node(record: dict[str, Any]) -> CheckNode:
    """Build the node of a check: one line that can be opened."""
    rejected = record["rejected"]
    summary = FoldSummary(
        "",
        "",
        nodes.inline("", "Checked", classes=["check-mark"]),
        nodes.inline("", f" {record['kind'].replace('_', ' ')}", classes=["check-kind"]),
        nodes.Text(f": {record['figure']}; {_count(len(rejected), 'mistake')} rejected"),
    )
    body = nodes.container(classes=["check-body"])
    if record["note"]:
        body += nodes.paragraph("", record["note"])
    if 0 < len(record["equation"]) <= _LONGEST_EQUATION:
        body += _displayed(record["equation"])
    body += nodes.paragraph("", "The same test rejects:")
    items = (
        nodes.list_item("", nodes.paragraph("", "", nodes.emphasis("", name), nodes.Text(f": {s}")))
        for name, s in rejected.items()
    )
    body += nodes.bullet_list("", *items)
    return CheckNode("", summary, body, record=record)


def _displayed(tex: str) -> nodes.math_block:
    return nodes.math_block(tex, tex, number=None, label=None, nowrap=False, **{"no-wrap": False})


class WriteReports(SphinxPostTransform):
    """Fills in the reports, before the references in them are resolved."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        """Replace each placeholder."""
        for node in list(self.document.findall(Report)):
            write = getattr(self, f"_{node['report']}")
            node.replace_self(write(node["argument"]))

    def _domain(self) -> "ResultsDomain":
        return self.env.domains["prf"]  # type: ignore[return-value]

    @cached_property
    def _rests_on(self) -> "networkx.DiGraph":
        return self._domain().graph()

    def _here(self) -> "tuple[list[Result], list[ExecutedCheck]]":
        domain, docname = self._domain(), self.env.docname
        return (
            [result for result in domain.results.values() if result.docname == docname],
            [check for check in domain.checks if check.docname == docname],
        )

    def _status(self, _: str) -> list[nodes.Node]:
        results, checks = self._here()
        agreed: dict[str, str] = {}
        for row in _agreement(self.env.srcdir):
            if row["topic"] == self.env.docname:
                agreed[row["library"]] = ".".join(row["version"].split(".")[:2])
        text = _counts(results, checks)
        if agreed:
            text += "; agrees with " + _and([f"{name} {agreed[name]}" for name in sorted(agreed)])
        name = self.env.docname.rpartition("/")[2]
        paragraph = nodes.paragraph("", f"{text}. ", classes=["page-status"])
        paragraph += nodes.reference("", "Notebook", refuri=f"{name}.ipynb", internal=False)
        paragraph += nodes.Text(", ")
        paragraph += nodes.reference("", "Markdown", refuri=f"{name}.md", internal=False)
        return [paragraph]

    def _totals(self, _: str = "") -> list[nodes.Node]:
        domain = self._domain()
        counts = _counts(list(domain.results.values()), domain.checks)
        return [nodes.paragraph("", f"{counts}.", classes=["page-status"])]

    def _read(self) -> nodes.paragraph:
        """For how many results the check has read the equation that the statement displays."""
        domain = self._domain()
        displayed = sum(result.equations > 0 for result in domain.results.values())
        read = {c.record["result"] for c in domain.checks if c.record["statement"]}
        text = (
            f"{_count(displayed, 'statement')} {'displays' if displayed == 1 else 'display'} an "
            f"equation, and for {_count(len(read), 'result')} a check reads that very text: "
            "a sign changed there stops the build."
        )
        return nodes.paragraph("", text)

    def _showcase(self, id_: str) -> list[nodes.Node]:
        """A result of another page, the cell that reads its statement, and that check opened."""
        domain = self._domain()
        records = [c.record for c in domain.checks if c.record["result"] == id_]
        record = next((record for record in records if record["statement"]), None)
        if record is None:
            logger.warning(
                "no check reads the statement of %s, so it cannot be shown here",
                id_,
                location=self.env.docname,
            )
            return []
        result = domain.results[id_]
        heading = ResultHeading("", f"{result.name}. ", _ref(id_, result.title), permalink="")
        heading["classes"].append("result-title")
        box = ResultBox("", heading, kind=result.kind)
        box += [_displayed(equation) for equation in record["statement"]]
        code = next(
            cell["source"]
            for cell in self.env.metadata[result.docname]["llmref_code"]
            if "verify.statement" in cell["source"] and f'"{id_}"' in cell["source"]
        )
        check = check_node(record)
        check["open"] = True
        return [box, nodes.literal_block(code, code, language="ipython3"), check]

    def _mistakes(self, _: str) -> list[nodes.Node]:
        checks = self._here()[1]
        rows = [
            [nodes.Text(name), _ref(check.record["result"]), nodes.Text(seen)]
            for check in checks
            for name, seen in check.record["rejected"].items()
        ]
        table = _table(["Mistake", "Rejected by", "What the check saw"], rows)
        summary = FoldSummary("", f"{_count(len(rows), 'mistake')} rejected by the checks above")
        return [Fold("", summary, table)] if rows else []

    def _ledger(self, _: str) -> list[nodes.Node]:
        domain = self._domain()
        graph = self._rests_on
        agreed: dict[str, set[str]] = {}
        for row in _agreement(self.env.srcdir):
            agreed.setdefault(row["topic"], set()).add(f"{row['library']} {row['version']}")
        by_result: dict[str, list[ExecutedCheck]] = {}
        for check in domain.checks:
            by_result.setdefault(check.record["result"], []).append(check)
        written = [*self._totals(), self._read(), nodes.container(classes=["ledger-filter"])]
        for docname in sorted({result.docname for result in domain.results.values()}):
            results = [r for r in domain.results.values() if r.docname == docname]
            rows = []
            for result in results:
                checks = by_result.get(result.id, [])
                shown = [
                    nodes.paragraph(
                        "",
                        f"{c.record['kind'].replace('_', ' ')}: {c.record['figure']}; "
                        f"{_count(len(c.record['rejected']), 'mistake')} rejected",
                    )
                    for c in checks
                ]
                title = nodes.paragraph("", "", _ref(result.id, result.id), nodes.Text(": "))
                title += nodes.Text(f"{result.title} ({result.kind})")
                kinds = sorted({c.record["kind"] for c in checks})
                classes = [f"kind-{result.kind}", *(f"check-{kind}" for kind in kinds)]
                rests = [_refs(result.rests_on), _refs(sorted(graph.successors(result.id)))]
                cells = [title, shown or nodes.Text("definition"), *rests]
                rows.append((cells, [f"group-{docname.split('/')[0]}", *classes]))
            heading = nodes.title("", "", *_page_title(self.env, docname))
            section = nodes.section("", heading, ids=[f"ledger-{docname.replace('/', '-')}"])
            if libraries := agreed.get(docname):
                section += nodes.paragraph("", f"Agrees with {_and(sorted(libraries))}.")
            section += _table(["Result", "Checks", "Rests on", "Supports"], rows)
            written.append(section)
        return written

    def _path(self, id_: str) -> list[nodes.Node]:
        """What to read to prove a result from scratch, in order."""
        path = study_path(self._rests_on, id_)
        if not path:
            return []
        text = nodes.Text("To prove this from scratch, read in this order: ")
        paragraph = _refs(path)
        paragraph.insert(0, text)
        summary = FoldSummary("", f"Rests on {_count(len(path), 'result')}")
        return [Fold("", summary, paragraph, classes=["path"])]

    def _graph(self, group: str) -> list[nodes.Node]:
        domain = self._domain()
        wanted = {
            id_
            for id_, result in domain.results.items()
            if not group or result.docname.split("/")[0] == group
        }
        graph = self._rests_on.subgraph(wanted)

        def link(id_: str) -> str:
            page = domain.results[id_].docname
            uri = self.app.builder.get_relative_uri(self.env.docname, page)
            return f"{uri}#{id_}"

        alone = sum(not graph.degree(id_) for id_ in graph)
        counts = (
            f"{_count(len(graph), 'result')}, {_count(graph.number_of_edges(), 'edge')}; "
            f"{_count(alone, 'result')} without an edge here"
        )
        paragraph = nodes.paragraph("", f"{counts}.", classes=["page-status"])
        svg = draw(graph, link, f"What rests on what: {group or 'all results'}")
        picture = nodes.container("", nodes.raw("", svg, format="html"), classes=["graph-scroll"])
        return [paragraph, picture]

    def _agreement(self, _: str) -> list[nodes.Node]:
        docname = self.env.docname
        rows = _agreement(self.env.srcdir)
        mine = [row for row in rows if row["topic"] == docname] or (
            rows if docname == "ledger" else []
        )
        cells = [
            [
                nodes.Text(row["formula"]),
                nodes.Text(f"{row['library']} {row['version']}"),
                nodes.Text(row["convention"]),
                nodes.Text(f"{row['largest_difference']:.1e} (allowed {row['allowed']:.0e})"),
            ]
            for row in mine
        ]
        return [_table(["Formula", "Library", "Its convention", "Largest difference"], cells)]


class FoldSections(SphinxPostTransform):
    """Moves what follows a fold marker into a fold; late, so that contents lists see sections."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        """Fold to the end of the marker's section."""
        for marker in list(self.document.findall(FoldMarker)):
            parent = marker.parent
            assert isinstance(parent, nodes.Element)
            index = parent.index(marker)
            inside = parent[index + 1 :]
            del parent[index:]
            parent += Fold("", FoldSummary("", marker["summary"]), *inside)


class LinkRepeatedNotes(SphinxPostTransform):
    """Leads further references to a note to its first one; the theme has moved the note there."""

    default_priority = 2  # right after the theme's own transform
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the references whose footnote is gone."""
        places: dict[str, str] = {}
        for note in self.document.findall(lambda node: type(node).__name__ == "SideNoteNode"):
            assert isinstance(note, nodes.Element)
            label = note["names"][0].rpartition("-")[2]
            if not note["ids"]:
                note["ids"] = [f"note-{label}"]
            places[label] = note["ids"][0]
        for reference in list(self.document.findall(nodes.footnote_reference)):
            label = reference.astext()
            if label in places:
                link = nodes.reference("", label, refid=places[label], internal=True)
                reference.replace_self(nodes.superscript("", "", link))


def _agreement(srcdir: str | Path) -> list[dict[str, Any]]:
    path = Path(srcdir) / "agreement.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _counts(results: "list[Result]", checks: "list[ExecutedCheck]") -> str:
    mistakes = sum(len(check.record["rejected"]) for check in checks)
    return (
        f"{_count(len(results), 'result')}, {_count(len(checks), 'check')} executed, "
        f"{_count(mistakes, 'mistake')} rejected"
    )


def _and(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _page_title(env: Any, docname: str) -> list[nodes.Node]:
    return [node.deepcopy() for node in env.titles[docname].children]


def _ref(id_: str, text: str = "") -> pending_xref:
    return pending_xref(
        "",
        nodes.inline("", text or id_),
        refdomain="prf",
        reftype="ref",
        reftarget=id_,
        refexplicit=bool(text),
        refwarn=True,
    )


def _refs(ids: list[str]) -> nodes.paragraph:
    paragraph = nodes.paragraph()
    for index, id_ in enumerate(ids):
        paragraph += [nodes.Text(", "), _ref(id_, id_)] if index else _ref(id_, id_)
    return paragraph


def _table(header: list[str], rows: Sequence[Any]) -> nodes.container:
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


def _visit_box(self: HTML5Translator, node: ResultBox) -> None:
    self.body.append(self.starttag(node, "div", CLASS=f"result result-{node['kind']}"))


def _depart_div(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append("</div>\n")


def _visit_heading(self: HTML5Translator, node: ResultHeading) -> None:
    self.body.append(self.starttag(node, "p", ""))


def _depart_heading(self: HTML5Translator, node: ResultHeading) -> None:
    id_ = node["permalink"]
    if not id_:  # shown on another page than its own
        self.body.append("</p>\n")
        return
    self.body.append(
        f' <a class="result-id" href="#{id_}" title="Permanent link to this result">{id_}</a></p>\n'
    )


def _visit_proof(self: HTML5Translator, node: Proof) -> None:
    if node["folded"]:
        self.body.append(self.starttag(node, "details", CLASS="proof"))
        self.body.append('<summary><span class="proof-title">Proof</span></summary>\n')
    else:
        self.body.append(self.starttag(node, "div", CLASS="proof"))
        self.body.append('<p class="proof-title">Proof</p>\n')


def _depart_proof(self: HTML5Translator, node: Proof) -> None:
    self.body.append("</details>\n" if node["folded"] else "</div>\n")


def _visit_check(self: HTML5Translator, node: CheckNode) -> None:
    tag = self.starttag(node, "details", CLASS=f"check check-{node['record']['kind']}")
    self.body.append(
        tag.replace("<details", '<details open="open"', 1) if node.get("open") else tag
    )


def _visit_fold(self: HTML5Translator, node: Fold) -> None:
    self.body.append(self.starttag(node, "details", CLASS="fold"))


def _depart_details(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append("</details>\n")


def _visit_summary(self: HTML5Translator, node: FoldSummary) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def _depart_summary(self: HTML5Translator, node: FoldSummary) -> None:
    self.body.append("</summary>\n")


def leave_room_for_versions(
    app: Sphinx, pagename: str, _: str, context: dict[str, Any], __: Any
) -> None:
    """Mark where the hosted site says of an old version that it is one."""
    if "body" in context and app.builder.name == "html":
        context["body"] = f"{NOTICE}\n{context['body']}"


def add_static_files(app: Sphinx) -> None:
    """Put our style sheet and script beside the site's own static files."""
    # Not appended: an unset list is the default of every build in the process.
    app.config.html_static_path = [*app.config.html_static_path, str(STATIC)]


def _pass(self: Any, node: nodes.Element) -> None:
    """Other builders show the content without the box around it."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register nodes, transforms and static files."""
    html: dict[type[nodes.Element], tuple[Any, Any]] = {
        ResultBox: (_visit_box, _depart_div),
        ResultHeading: (_visit_heading, _depart_heading),
        Proof: (_visit_proof, _depart_proof),
        CheckNode: (_visit_check, _depart_details),
        Fold: (_visit_fold, _depart_details),
        FoldSummary: (_visit_summary, _depart_summary),
    }
    for node, visitors in html.items():
        app.add_node(node, html=visitors, latex=(_pass, _pass), text=(_pass, _pass))
    app.add_directive("fold", FoldDirective)
    app.add_post_transform(WriteReports)
    app.add_post_transform(FoldSections)
    app.add_post_transform(LinkRepeatedNotes)
    app.connect("builder-inited", add_static_files)
    app.connect("html-page-context", leave_room_for_versions)
    app.add_css_file("llmref.css")
    app.add_js_file("llmref.js", loading_method="defer")
    app.add_js_file("preview.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
