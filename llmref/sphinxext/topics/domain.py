"""What is collected from the pages of topics: their questions, and what stands on a cheat sheet.

It holds copies of nodes whose references are not resolved yet: a page that shows them does that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains import Domain

from llmref.sphinxext.topics.by_hand import ByHand
from llmref.sphinxext.topics.practise import Exercise, exercises_of
from llmref.sphinxext.topics.questions import Question, question_node


@dataclass
class Topic:
    """The parts of a topic's page that other pages show; an old page lacks some of them."""

    title: str
    why: list[nodes.Element] = field(default_factory=list)
    formula: list[nodes.Element] = field(default_factory=list)
    code: str = ""
    trap: list[nodes.Element] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    exercises: list[Exercise] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)  # checksums: pages show their sizes

    def parts(self) -> list[nodes.Element]:
        """All that other pages show but its title and its code."""
        return [*self.why, *self.formula, *self.trap, *self.questions]

    def shown(self) -> str:
        """All of it as text: where it changes, the pages that show it are stale."""
        texts = [self.title, self.code, *map(str, self.pictures), *map(str, self.exercises)]
        return "\n".join([*texts, *(part.pformat() for part in self.parts())])


class TopicsDomain(Domain):
    """The topics of the site, by page."""

    name = "topic"
    label = "Topics"
    initial_data: ClassVar = {"topics": {}}
    data_version = 3

    @property
    def topics(self) -> dict[str, Topic]:
        """By docname."""
        return self.data["topics"]  # type: ignore[no-any-return]

    def clear_doc(self, docname: str) -> None:
        """Forget a page that is read again or removed."""
        self.topics.pop(docname, None)

    def merge_domaindata(self, docnames: Iterable[str], otherdata: dict[str, Any]) -> None:
        """Take over what another process has read."""
        mine = set(docnames)
        self.topics.update({d: topic for d, topic in otherdata["topics"].items() if d in mine})

    def collect(self, docname: str, document: nodes.document) -> None:
        """Collect the parts of a page, if it has questions or code by hand."""
        page = next(iter(document.findall(nodes.section)), None)
        if page is None:
            return
        sections = {
            child[0].astext(): child for child in page.children if isinstance(child, nodes.section)
        }
        questions = list(_questions(page, sections.get("Interview")))
        by_hand = next(iter(page.findall(ByHand)), None)
        if not questions and by_hand is None:
            return
        why, formula = _opening(page)
        listing = by_hand and by_hand.next_node(nodes.literal_block)
        topic = self.topics[docname] = Topic(
            title=page[0].astext(),
            why=[part.deepcopy() for part in why],
            formula=[part.deepcopy() for part in formula],
            code=listing.astext() if listing else "",
            trap=_first_item(sections.get("Common mistakes")),
            questions=questions,
            exercises=exercises_of(docname, Path(self.env.config.llmref_root)),
        )
        for node in (node for part in topic.parts() for node in part.findall()):
            # Else each of them brings its whole page along.
            node.document = None  # type: ignore[assignment]
        images = (image for part in topic.parts() for image in part.findall(nodes.image))
        paths = [Path(self.env.srcdir, image["uri"]) for image in images]
        topic.pictures = [crc32(path.read_bytes()) for path in paths if path.is_file()]

    def get_objects(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """Nothing here is cited from elsewhere: questions are found on their pages."""
        return []


def collect_topic(app: Sphinx, document: nodes.document) -> None:
    """Collect when Sphinx has noted pictures and files, which are then found from any page."""
    domain = app.env.domains["topic"]
    assert isinstance(domain, TopicsDomain)
    domain.collect(app.env.docname, document)


def _opening(page: nodes.section) -> tuple[list[nodes.Element], list[nodes.Element]]:
    """The paragraph just before the first formula, and the formula."""
    paragraph: list[nodes.Element] = []
    for child in page.children:
        if isinstance(child, nodes.math_block):
            return paragraph, [child]
        if isinstance(child, nodes.section):
            break
        if isinstance(child, nodes.paragraph):
            paragraph = [child]
    return paragraph, []


def _first_item(section: nodes.Element | None) -> list[nodes.Element]:
    item = None if section is None else section.next_node(nodes.list_item)
    parts = [] if item is None else item.children
    return [part.deepcopy() for part in parts if isinstance(part, nodes.Element)]


def _questions(page: nodes.section, interview: nodes.Element | None) -> Iterator[Question]:
    """The questions of a page; those of the first edition are plain folds in their section."""
    for node in page.findall(nodes.Element):
        if isinstance(node, Question):
            yield node.deepcopy()
        elif node.parent is interview and node.get("design_component") == "dropdown":
            title, *answer = node.deepcopy().children
            yield question_node(list(title.children), answer)
