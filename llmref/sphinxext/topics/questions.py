"""Questions of an interview: with a level and a kind, and an answer that is folded."""

import itertools
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from llmref.sphinxext.results.nodes import FoldSummary

LEVELS = ("1", "2", "3")
KINDS = ("explain", "derive", "code", "find the mistake")


class Question(nodes.General, nodes.Element):
    """A question and its answer; `level` and `kind` are empty where nobody has said them."""


def question_node(
    title: list[nodes.Node], answer: list[nodes.Node], level: str = "", kind: str = ""
) -> Question:
    """Build a question from the nodes of its text and of its answer."""
    about = f"level {level}, {kind}" if level else ""
    marks = [nodes.Text(" "), nodes.inline("", about, classes=["question-about"])] if about else []
    text = nodes.inline("", "", *title, classes=["question-text"])
    body = nodes.container("", *answer, classes=["answer"])
    return Question("", FoldSummary("", "", text, *marks), body, level=level, kind=kind)


class QuestionDirective(SphinxDirective):
    """`question` TEXT, with `:level:` 1 to 3 and `:kind:`; its content is the answer."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"level": directives.unchanged, "kind": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the question; refuse one without level, kind or answer."""
        level, kind = self.options.get("level", ""), self.options.get("kind", "")
        if level not in LEVELS:
            raise self.error(f"a question needs a :level: of {', '.join(LEVELS)}, got {level!r}")
        if kind not in KINDS:
            raise self.error(f"a question needs a :kind: of {', '.join(KINDS)}, got {kind!r}")
        answer = self.parse_content_to_nodes()
        if not answer:
            raise self.error("a question needs its answer")
        title, messages = self.parse_inline(self.arguments[0])
        question = question_node(title, [*messages, *answer], level, kind)
        question["ids"] = [self._free_id("".join(node.astext() for node in title))]
        self.set_source_info(question)
        self.state.document.note_explicit_target(question)
        return [question]

    def _free_id(self, words: str) -> str:
        """The first words as an id, with a number if another question begins like this one."""
        first = f"question-{nodes.make_id(words)[:60]}".strip("-")
        ids = (f"{first}-{number}" if number > 1 else first for number in itertools.count(1))
        return next(id_ for id_ in ids if id_ not in self.state.document.ids)
