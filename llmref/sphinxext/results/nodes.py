"""What results, proofs, checks and folds are on a page: nodes, and their HTML.

Everything folds with the `details` element, so a page is complete without JavaScript. Imports no
other room: whoever writes results uses these.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

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


def check_node(record: dict[str, Any]) -> CheckNode:
    """Build the node of a check alone: one line that can be opened."""
    rejected = record["rejected"]
    summary = FoldSummary(
        "",
        "",
        nodes.inline("", "Checked", classes=["check-mark"]),
        nodes.inline("", f" {record['kind'].replace('_', ' ')}", classes=["check-kind"]),
        nodes.Text(f": {record['figure']}; {rejections(len(rejected), record['turned'])}"),
    )
    body = nodes.container(classes=["check-body"])
    if record["note"]:
        body += nodes.paragraph("", record["note"])
    body += _found(record)
    return CheckNode("", summary, body, record=record)


def check_body(record: dict[str, Any]) -> nodes.container:
    """Build what a bar says of one check: what was compared, what was seen, what is rejected."""
    kind = nodes.inline("", record["kind"].replace("_", " ").capitalize(), classes=["check-kind"])
    note = f", {record['note']}" if record["note"] else ""
    first = nodes.paragraph("", "", kind, nodes.Text(f"{note}: {record['figure']}."))
    return nodes.container("", first, *_found(record), classes=["check-body"])


def _found(record: dict[str, Any]) -> list[nodes.Node]:
    """The equation that was compared, if it can be read, and what was rejected."""
    found: list[nodes.Node] = []
    if 0 < len(record["equation"]) <= _LONGEST_EQUATION:
        found.append(displayed_formula(record["equation"]))
    items = [
        nodes.list_item("", nodes.paragraph("", "", nodes.emphasis("", name), nodes.Text(f": {s}")))
        for name, s in record["rejected"].items()
    ]
    if turned := record["turned"]:
        which = "its sign" if turned == 1 else f"any one of its {turned} signs"
        items.append(
            nodes.list_item("", nodes.paragraph("", f"the statement with {which} flipped"))
        )
    return [*found, nodes.paragraph("", "The same test rejects:"), nodes.bullet_list("", *items)]


def displayed_formula(tex: str) -> nodes.math_block:
    return nodes.math_block(tex, tex, number=None, label=None, nowrap=False, **{"no-wrap": False})


def count(number: int, noun: str, many: str = "") -> str:
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def rejections(mistakes: int, turned: int) -> str:
    """'2 mistakes and 1 sign flip rejected': mistakes have names; a check flips signs by itself."""
    named = [count(mistakes, "mistake")] if mistakes or not turned else []
    flipped = [count(turned, "sign flip")] if turned else []
    return " and ".join([*named, *flipped]) + " rejected"


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
    self.body.append(_details(self, node, f"check check-{node['record']['kind']}"))


def _visit_fold(self: HTML5Translator, node: Fold) -> None:
    self.body.append(_details(self, node, "fold"))


def _details(self: HTML5Translator, node: nodes.Element, classes: str) -> str:
    tag = self.starttag(node, "details", CLASS=classes)
    # With a value, as XML asks for: an EPUB is made of this too.
    return tag.replace("<details", '<details open="open"', 1) if node.get("open") else tag


def _depart_details(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append("</details>\n")


def _visit_summary(self: HTML5Translator, node: FoldSummary) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def _depart_summary(self: HTML5Translator, node: FoldSummary) -> None:
    self.body.append("</summary>\n")


def _pass(self: Any, node: nodes.Element) -> None:
    """Other builders show the content without the box around it."""


def add_nodes(app: Sphinx) -> None:
    """Register the nodes with what HTML has for them."""
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


def add_box(app: Sphinx, node: type[nodes.Element], tag: str, classes: str) -> None:
    """Register a node that is an element of HTML around its content, and nothing elsewhere."""

    def visit(self: HTML5Translator, node: nodes.Element) -> None:
        self.body.append(self.starttag(node, tag, CLASS=classes))

    def depart(self: HTML5Translator, node: nodes.Element) -> None:
        self.body.append(f"</{tag}>\n")

    app.add_node(node, html=(visit, depart), latex=(_pass, _pass), text=(_pass, _pass))
