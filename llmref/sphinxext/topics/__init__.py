"""The form of a topic's page, and what is collected from all of them.

sections: their order. by_hand, symbols, questions, practise: what authors write. bars: the checks
of a
result, folded together. domain: what is collected. collected: the pages that are made of it.
Leaves out: what a result is and what confirms it (results), and the functions of a topic (api).
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.results.directives import ReportDirective
from llmref.sphinxext.results.nodes import add_box
from llmref.sphinxext.results.reports import OTHERS
from llmref.sphinxext.topics.bars import Bar, BarCode, GatherChecks, note_stray_checks
from llmref.sphinxext.topics.by_hand import ByHand, ByHandDirective
from llmref.sphinxext.topics.collected import write_filter, write_interview, write_sheet
from llmref.sphinxext.topics.domain import TopicsDomain, collect_topic
from llmref.sphinxext.topics.practise import PractiseDirective, write_practise
from llmref.sphinxext.topics.questions import Question, QuestionDirective
from llmref.sphinxext.topics.sections import check_sections
from llmref.sphinxext.topics.symbols import SymbolsDirective

_WRITERS = {
    "cheat-sheet": write_sheet,
    "interview": write_interview,
    "question-filter": write_filter,
}


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register directives, the domain, the bars and the rules."""
    app.setup_extension("llmref.sphinxext.api.source")  # which knows the pages of the old form
    app.add_domain(TopicsDomain)
    app.add_directive("by-hand", ByHandDirective)
    app.add_directive("symbols", SymbolsDirective)
    app.add_directive("question", QuestionDirective)
    app.add_directive("practise", PractiseDirective)
    OTHERS["practise"] = write_practise
    for name, write in _WRITERS.items():
        app.add_directive(name, ReportDirective)
        OTHERS[name] = write
    add_box(app, Bar, "details", "bar")
    add_box(app, BarCode, "div", "bar-code")
    add_box(app, ByHand, "div", "by-hand")
    add_box(app, Question, "details", "question")
    app.add_post_transform(GatherChecks)
    app.connect("doctree-read", check_sections)
    app.connect("doctree-read", note_stray_checks)
    app.connect("doctree-read", collect_topic, priority=900)  # after Sphinx's own collectors
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
