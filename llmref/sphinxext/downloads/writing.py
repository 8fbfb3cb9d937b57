"""What the build itself has written on a page, as Markdown: from nodes, since it has no source.

Leaves out: nodes that no report and no listing of the API uses; they are a warning.
"""

from textwrap import indent
from typing import Any

from docutils import nodes
from sphinx import addnodes

from llmref.sphinxext.api.links import ApiLinks
from llmref.sphinxext.downloads import boxes
from llmref.sphinxext.downloads.blocks import fenced
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.results.nodes import (
    CheckNode,
    Fold,
    FoldSummary,
    ResultBox,
    ResultHeading,
)
from llmref.sphinxext.results.reports import writer_of
from llmref.sphinxext.results.tables import Place
from llmref.sphinxext.topics.questions import Question

_ESCAPED = str.maketrans({"*": "\\*", "_": "\\_", "`": "\\`", "<": "\\<", "[": "\\["})


def write_report(page: Page, name: str, argument: str) -> str:
    """Return a report, such as the status of a page."""
    place = Place(page.builder, page.env, page.docname, argument)
    return _blocks(page, writer_of(name)(place), 2)


def write_listing(page: Page) -> str:
    """Return the API as the page shows it: signatures, summaries, links."""
    sections = page.doctree.findall(
        lambda node: isinstance(node, nodes.section) and _is_listing(node)
    )
    return _blocks(page, sections, 2)


def _is_listing(section: nodes.section) -> bool:
    return "api-topic" in section["classes"] or section["ids"][0].startswith("group-")


def _blocks(page: Page, found: Any, level: int) -> str:
    written = (_block(page, node, level) for node in found)
    return "\n\n".join(filter(None, (text.strip("\n") for text in written)))


def _block(page: Page, node: nodes.Node, level: int) -> str:
    if isinstance(node, nodes.section):
        title = _line(page, node[0])
        return f"{'#' * level} {title}\n\n{_blocks(page, node.children[1:], level + 1)}"
    if isinstance(node, (nodes.paragraph, nodes.caption)):
        return _line(page, node)
    if isinstance(node, (FoldSummary, ResultHeading, nodes.rubric, nodes.term, nodes.title)):
        return f"**{_line(page, node)}**"
    if isinstance(node, nodes.math_block):
        return f"$$\n{node.astext()}\n$$"
    if isinstance(node, nodes.literal_block):
        return fenced(node.astext(), "python" if "python" in node.get("language", "") else "text")
    if isinstance(node, nodes.table):
        return _table(page, node)
    if isinstance(node, nodes.bullet_list):
        return "\n".join(_headed("- ", _blocks(page, item, level)) for item in node.children)
    if isinstance(node, nodes.enumerated_list):
        numbered = enumerate(node.children, node.get("start", 1))
        return "\n".join(_headed(f"{n}. ", _blocks(page, item, level)) for n, item in numbered)
    if isinstance(node, nodes.block_quote):
        return indent(_blocks(page, node, level), "> ", lambda line: True)
    if isinstance(node, nodes.Element) and isinstance(node, nodes.Admonition):
        title = "" if isinstance(node, nodes.admonition) else f"**{node.tagname.capitalize()}**\n\n"
        return title + _blocks(page, node, level)
    if isinstance(node, nodes.image):
        return _inline(page, node)
    if isinstance(node, Question):
        summary = node.children[0]
        assert isinstance(summary, FoldSummary)
        asked = boxes.question(_line(page, summary.children[0]), node.attributes)
        return f"{asked}\n\n{_blocks(page, node.children[1:], level)}"
    if isinstance(node, addnodes.desc_signature):
        return fenced(node.astext(), "python")
    if isinstance(node, _GROUPS):
        return _blocks(page, node.children, level)
    if isinstance(node, (nodes.target, nodes.raw, addnodes.index)):
        return ""
    page.warn(1, "the downloads cannot write the node %s", type(node).__name__)
    return ""


_GROUPS = (
    CheckNode,
    Fold,
    ResultBox,
    ApiLinks,
    addnodes.desc,
    addnodes.desc_content,
    nodes.container,
    nodes.definition,
    nodes.definition_list,
    nodes.definition_list_item,
    nodes.figure,
    nodes.legend,
    nodes.list_item,
)


def _headed(mark: str, text: str) -> str:
    r"""'1. ', 'a\nb' -> '1. a\n   b': an item of a list, its later lines below its first."""
    return mark + indent(text, " " * len(mark))[len(mark) :]


def _line(page: Page, node: nodes.Node) -> str:
    return "".join(_inline(page, child) for child in node.children)


def _inline(page: Page, node: nodes.Node) -> str:
    if isinstance(node, nodes.Text):
        return node.astext().translate(_ESCAPED)
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    if isinstance(node, nodes.literal):
        return f"`{node.astext()}`"
    if isinstance(node, nodes.image):
        name = page.env.images[node["uri"]][1]
        return f"![{node.get('alt', '')}]({page.file(f'_images/{name}')})"
    if isinstance(node, nodes.raw):
        return node.astext().strip() if node["format"] == "html" else ""
    inside = _line(page, node)
    if isinstance(node, addnodes.download_reference) and (name := node.get("filename")):
        return f"[{inside}]({page.file(f'_downloads/{name}')})"
    if isinstance(node, nodes.reference):
        return f"[{inside}]({page.link_of(node)})"
    if isinstance(node, addnodes.pending_xref):
        own = node.get("refexplicit") or node["refdomain"] == "py"
        address, shown = _resolved(page, node, node.astext() if own else "")
        return f"[{inside if own else shown}]({address})" if address else inside
    for kind, mark, end in _MARKS:
        if isinstance(node, kind):
            return f"{mark}{inside}{end}"
    return inside


_MARKS = (
    (nodes.strong, "**", "**"),
    (nodes.emphasis, "*", "*"),
    (nodes.superscript, "<sup>", "</sup>"),
    (nodes.subscript, "<sub>", "</sub>"),
)


def _resolved(page: Page, node: addnodes.pending_xref, text: str) -> tuple[str, str]:
    """The address of a reference, and the text that the site gives one without a text."""
    target, anchor = node["reftarget"], node.get("reftargetid") or ""
    if node["refdomain"] == "doc":  # MyST's link to a page, or to a heading there
        place = page.env.metadata[target].get("myst_slugs", {}).get(anchor, (0, anchor, ""))
        return page.of_page(target, place[1]), place[2] or page.env.titles[target].astext()
    if not node["refdomain"]:  # MyST's link to a label
        return page.resolve("std", "ref", target.lower(), text)
    return page.resolve(node["refdomain"], node["reftype"], target, text)


def _table(page: Page, table: nodes.table) -> str:
    rows = [[_cell(page, entry) for entry in row.children] for row in table.findall(nodes.row)]
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def _cell(page: Page, entry: nodes.Node) -> str:
    """A cell in one line, its paragraphs one after the other."""
    lines = (
        _inline(page, part) if isinstance(part, nodes.Text) else _line(page, part)
        for part in entry.children
    )
    return "<br>".join(lines).replace("|", "\\|").replace("\n", " ")
