"""The pages that are made of all topics: the questions of an interview, and the cheat sheet.

Nothing on them is written twice: they show what the topics' pages hold, in the order of the site's
contents. Leaves out: what is collected (domain).
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.environment import BuildEnvironment
from sphinx.util import docname_join, logging

from llmref.sphinxext.results.tables import Place, link_to_page
from llmref.sphinxext.topics.domain import Topic, TopicsDomain

logger = logging.getLogger(__name__)


def write_interview(place: Place) -> list[nodes.Node]:
    """All questions of a group, by topic, each with its answer."""
    written: list[nodes.Node] = []
    for docname, topic in _of_group(place):
        if not topic.questions:
            continue
        block = nodes.container(classes=["topic-questions"])
        block += nodes.paragraph("", "", link_to_page(docname, topic.title), classes=["topic-name"])
        for question in topic.questions:
            shown = _moved(question, docname, place)
            if question["level"]:  # what the page's filter asks for
                kind = question["kind"].replace(" ", "_")
                shown["classes"] = [f"level-{question['level']}", f"kind-{kind}"]
            block += shown
        if topic.exercises:
            block += _to_write(docname, topic)
        written.append(block)
    return written


def _to_write(docname: str, topic: Topic) -> nodes.paragraph:
    """What of a topic a judge can be asked about, with the place where it is."""
    names = [nodes.literal("", it.name) for it in topic.exercises]
    commas: list[nodes.Node] = [nodes.Text("To write by hand, with a judge: ")]
    for index, name in enumerate(names):
        commas += [nodes.Text(", "), name] if index else [name]
    return nodes.paragraph("", "", *commas, classes=["to-write"])


def write_filter(place: Place) -> list[nodes.Node]:
    """The place where a script lets readers choose levels and kinds."""
    return [nodes.container(classes=["question-filter"])]


def write_sheet(place: Place) -> list[nodes.Node]:
    """One block for each topic of a group: formula, reason, code by hand, and the one trap."""
    return [
        nodes.container("", *_block(docname, topic, place), classes=["sheet"])
        for docname, topic in _of_group(place)
    ]


def _block(docname: str, topic: Topic, place: Place) -> Iterator[nodes.Node]:
    yield nodes.paragraph("", "", link_to_page(docname, topic.title), classes=["topic-name"])
    for part in topic.why:
        yield _moved(part, docname, place)
    for part in topic.formula:
        yield _moved(part, docname, place)
    if topic.code:
        yield nodes.literal_block(topic.code, topic.code, language="python")
    if topic.trap:
        parts = [_moved(part, docname, place) for part in topic.trap]
        if not isinstance(parts[0], nodes.paragraph):
            parts.insert(0, nodes.paragraph())
        parts[0].insert(0, nodes.strong("", "Trap: "))
        yield nodes.container("", *parts, classes=["trap"])


def _of_group(place: Place) -> Iterator[tuple[str, Topic]]:
    """The topics of the group that the report names, in the order of the contents."""
    domain = place.env.domains["topic"]
    assert isinstance(domain, TopicsDomain)
    of_group = [name for name in domain.topics if name.partition("/")[0] == place.argument]
    if not of_group:
        logger.warning("there are no topics in %r", place.argument, location=place.docname)
    for docname in _in_order(place.env):
        if docname in of_group:
            yield docname, domain.topics[docname]


def _in_order(env: BuildEnvironment) -> list[str]:
    """All pages in the order of the contents; what no contents hold comes last."""
    seen: dict[str, None] = {}

    def visit(docname: str) -> None:
        if docname not in seen:
            seen[docname] = None
            for child in env.toctree_includes.get(docname, []):
                visit(child)

    visit(env.config.root_doc)
    return [*seen, *sorted(env.found_docs - set(seen))]


def _moved(part: nodes.Element, docname: str, place: Place) -> nodes.Element:
    """Return a copy of a part of one page for another one, whose links lead where they led.

    Its ids get the name of its page in front, as two pages may have the same; formulas lose their
    numbers, since their equations stand on their own page.
    """
    copy = part.deepcopy()
    prefix = docname.replace("/", "-")
    for node in list(copy.findall(nodes.Element)):
        node.attributes.update(ids=[f"{prefix}-{id_}" for id_ in node["ids"]], names=[])
        if isinstance(node, nodes.math_block):
            node.attributes.update(label=None, number=None)
        elif isinstance(node, pending_xref):
            if node.get("reftype") == "doc" and not node["reftarget"].startswith("/"):
                node["reftarget"] = "/" + docname_join(docname, node["reftarget"])
            node["refdoc"] = place.docname
        elif isinstance(node, nodes.target):
            node.parent.remove(node)
        elif "refid" in node:
            node.replace_self(_link_back(node, docname, place))
    return copy


def _link_back(node: nodes.Element, docname: str, place: Place) -> nodes.reference:
    """A link within a page, such as to a footnote, as it leads there from another page."""
    page = place.builder.get_relative_uri(place.docname, docname)
    text = f"[{node.astext()}]" if isinstance(node, nodes.footnote_reference) else ""
    inside = [nodes.inline("", text)] if text else node.children
    return nodes.reference("", "", *inside, refuri=f"{page}#{node['refid']}", internal=True)
