"""The pages that are made of all topics: the questions of an interview, and the cheat sheet.

Nothing on them is written twice: they show what the topics' pages hold, in the order of the site's
contents. Leaves out: what is collected (domain).
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.environment import BuildEnvironment
from sphinx.util import docname_join

from llmref.sphinxext.results.tables import Place
from llmref.sphinxext.topics.domain import Topic, TopicsDomain


def write_interview(place: Place) -> list[nodes.Node]:
    """All questions of a group, by topic, each with its answer."""
    written: list[nodes.Node] = []
    for docname, topic in _of_group(place):
        if not topic.questions:
            continue
        block = nodes.container(classes=["topic-questions"])
        block += nodes.paragraph("", "", _link(docname, topic.title), classes=["topic-name"])
        for question in topic.questions:
            shown = _moved(question, docname, place)
            shown["ids"] = []
            if question["level"]:  # what the page's filter asks for
                kind = question["kind"].replace(" ", "_")
                shown["classes"] = [f"level-{question['level']}", f"kind-{kind}"]
            block += shown
        written.append(block)
    return written


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
    yield nodes.paragraph("", "", _link(docname, topic.title), classes=["topic-name"])
    for part in topic.why:
        yield _moved(part, docname, place)
    for part in topic.formula:
        formula = part.deepcopy()
        formula.attributes.update(ids=[], names=[], label=None, number=None)
        yield formula
    if topic.code:
        yield nodes.literal_block(topic.code, topic.code, language="python")
    if topic.trap:
        first, *others = [_moved(part, docname, place) for part in topic.trap]
        first.insert(0, nodes.strong("", "Trap: "))
        yield nodes.container("", first, *others, classes=["trap"])


def _of_group(place: Place) -> Iterator[tuple[str, Topic]]:
    """The topics of the group that the report names, in the order of the contents."""
    domain = place.env.domains["topic"]
    assert isinstance(domain, TopicsDomain)
    for docname in _in_order(place.env):
        if docname in domain.topics and docname.partition("/")[0] == place.argument:
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


def _link(docname: str, text: str) -> pending_xref:
    return pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=True,
        refwarn=True,
    )


def _moved(part: nodes.Element, docname: str, place: Place) -> nodes.Element:
    """Return a copy of a part of one page for another one, whose links lead where they led."""
    copy = part.deepcopy()
    for node in copy.findall(nodes.Element):
        node.attributes.update(ids=[], names=[], backrefs=[])
    for link in copy.findall(pending_xref):
        if link.get("reftype") == "doc" and not link["reftarget"].startswith("/"):
            link["reftarget"] = "/" + docname_join(docname, link["reftarget"])
        link["refdoc"] = place.docname
    page = place.builder.get_relative_uri(place.docname, docname)
    for node in [node for node in copy.findall(nodes.Element) if "refid" in node]:
        inside = nodes.inline()
        if isinstance(node, nodes.footnote_reference):
            inside += nodes.superscript("", f"[{node.astext()}]")
        else:
            inside += node.children
        address = f"{page}#{node['refid']}"
        node.replace_self(nodes.reference("", "", inside, refuri=address, internal=True))
    return copy
