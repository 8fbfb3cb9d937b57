"""The sections of a topic's page: which there are, and in which order.

Leaves out: what stands in them, and pages that are no topic's.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from llmref.sphinxext.api.public import groups, topics
from llmref.sphinxext.results.nodes import Fold, Report
from llmref.sphinxext.topics.by_hand import ByHand
from llmref.sphinxext.topics.practise import exercises_home
from llmref.sphinxext.topics.questions import Question

logger = logging.getLogger(__name__)

SECTIONS = (
    "By hand",
    "Run it",
    "Picture",
    "Derivation",
    "Further results",
    "In the library",
    "In practice",
    "Common mistakes",
    "Interview",
    "Practise",
    "References",
)
_OPTIONAL = {"Further results", "Practise"}


def is_topic(docname: str, root: Path) -> bool:
    """Whether a page is that of a topic: the package has one of that name in that group."""
    group, _, name = docname.partition("/")
    return group in groups(root) and name in topics(group, root)


def check_sections(app: Sphinx, document: nodes.document) -> None:
    """Warn of a topic's page that lacks a part or has one out of order."""
    docname = app.env.docname
    root = Path(app.config.llmref_root)
    listed = docname in app.config.llmref_first_edition
    if listed or not is_topic(docname, root):
        return
    page = next(iter(document.findall(nodes.section)), None)
    if page is None:
        return  # an empty page has been warned of
    sections = [child for child in page.children if isinstance(child, nodes.section)]
    for section, problem in _problems(page, sections):
        logger.warning("%s", problem, location=section)
    reports = {node["report"] for node in page.findall(Report)}
    if (root / exercises_home(docname)).is_file() and "practise" not in reports:
        logger.warning("the exercises are not shown: write {practise}", location=page)


def _problems(
    page: nodes.section, sections: list[nodes.section]
) -> list[tuple[nodes.Element, str]]:
    found: list[tuple[nodes.Element, str]] = []
    titles = [section[0].astext() for section in sections]
    for index, (section, title) in enumerate(zip(sections, titles, strict=True)):
        if title not in SECTIONS:
            found.append((section, f"a topic's page has no section {title!r}"))
        elif title in titles[:index]:
            found.append((section, f"the section {title!r} is there twice"))
    found += [
        (page, f"the section {title!r} is missing")
        for title in SECTIONS
        if title not in titles and title not in _OPTIONAL
    ]
    known = [title for title in titles if title in SECTIONS]
    in_order = sorted(known, key=SECTIONS.index)
    for section, title, expected in zip(
        [s for s in sections if s[0].astext() in SECTIONS], known, in_order, strict=True
    ):
        if title != expected:
            found.append(
                (section, f"the section {title!r} is out of order: {expected!r} comes here")
            )
            break
    return found + _missing_parts(page, dict(zip(titles, sections, strict=True)))


def _missing_parts(
    page: nodes.section, sections: dict[str, nodes.section]
) -> list[tuple[nodes.Element, str]]:
    found: list[tuple[nodes.Element, str]] = []
    top = [child for child in page.children if not isinstance(child, nodes.section)]
    if not any(isinstance(node, nodes.math_block) for node in top):
        found.append((page, "the formula is missing above the sections"))
    if not any(isinstance(node, Report) and node["report"] == "status" for node in top):
        found.append((page, "the status is missing above the sections"))
    if not any(isinstance(node, Fold) and "symbols" in node["classes"] for node in top):
        found.append((page, "the symbols are missing above the sections"))
    for title, kind, what in (
        ("By hand", ByHand, "the code by hand is missing"),
        ("Common mistakes", nodes.list_item, "a list of mistakes is missing"),
        ("Interview", Question, "a question is missing"),
    ):
        section = sections.get(title)
        if section is not None and next(iter(section.findall(kind)), None) is None:
            found.append((section, f"{what} in the section {title!r}"))
    return found
