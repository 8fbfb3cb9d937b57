"""The exercises of a page: what a reader writes from memory, and where it is judged.

They are read from the text of llmref/practice/exercises, in a file of the page's name, so that a
build loads none of them. Leaves out: what the judge says of a mistake, which a cell of the page
asks.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from docutils import nodes

from llmref.sphinxext.api.definitions import parse
from llmref.sphinxext.api.public import PACKAGE
from llmref.sphinxext.results.directives import ReportDirective
from llmref.sphinxext.results.tables import Place, link_to_page
from llmref.sphinxext.topics.by_hand import home


@dataclass(frozen=True)
class Exercise:
    """What a page says of an exercise; `definition` is the id of the result that defines it."""

    name: str
    parameters: str
    level: int
    task: str
    definition: str

    @property
    def signature(self) -> str:
        """'rope(x, positions, base)'."""
        return f"{self.name}({self.parameters})"


def exercises_home(docname: str) -> str:
    """'rl/kl' -> 'llmref/practice/exercises/rl/kl.py'."""
    return f"{PACKAGE}/practice/exercises/{docname}.py"


def notebook_of(docname: str) -> str:
    """'rl/kl' -> 'rl/kl-practice.ipynb', with blanks to fill."""
    return f"{docname}-practice.ipynb"


def exercises_of(docname: str, root: Path) -> list[Exercise]:
    """Return the exercises of a page, in the order of their file; none if there is no file."""
    path, code = root / exercises_home(docname), root / home(docname)
    if not (path.is_file() and code.is_file()):
        return []
    parameters = {
        node.name: ast.unparse(node.args)
        for node in parse(code).body
        if isinstance(node, ast.FunctionDef)
    }
    calls = (
        node
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Exercise"
    )
    return [_read(call, parameters) for call in sorted(calls, key=lambda call: call.lineno)]


class PractiseDirective(ReportDirective):
    """`practise`: the exercises of the page, and how to begin."""

    optional_arguments = 0
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Leave a placeholder; refuse a page without exercises."""
        root, docname = Path(self.config.llmref_root), self.env.docname
        for file in (exercises_home(docname), home(docname)):
            self.env.note_dependency(str(root / file))
        if not exercises_of(docname, root):
            raise self.error(f"the exercises of this page belong into {exercises_home(docname)}")
        return super().run()


def write_practise(place: Place) -> list[nodes.Node]:
    """The exercises of a page, each with its signature, level and task; then how to begin."""
    found = exercises_of(place.docname, Path(place.env.config.llmref_root))
    items = [nodes.list_item("", _about(exercise)) for exercise in found]
    notebook = notebook_of(place.docname).rpartition("/")[2]
    begin = nodes.paragraph(
        "",
        "",
        nodes.Text("Fill the blanks in the "),
        nodes.reference("", "practice notebook", refuri=notebook, internal=False),
        nodes.Text(", or in a terminal the file that "),
        nodes.literal("", f"llmref practice start {found[0].name}"),
        nodes.Text(" writes."),
    )
    if "practice" in place.env.found_docs:
        begin += [nodes.Text(" "), link_to_page("practice", "How the judge works"), nodes.Text(".")]
    return [nodes.bullet_list("", *items), begin]


def _about(exercise: Exercise) -> nodes.paragraph:
    about = nodes.inline("", f"level {exercise.level}:", classes=["question-about"])
    signature = nodes.literal("", exercise.signature)
    # Between backquotes stands code, as in a docstring.
    task = [
        nodes.literal("", part) if number % 2 else nodes.Text(part)
        for number, part in enumerate(f" {exercise.task}".split("`"))
    ]
    return nodes.paragraph("", "", signature, nodes.Text(" "), about, *task)


def _read(call: ast.Call, parameters: dict[str, str]) -> Exercise:
    values = {word.arg: word.value for word in call.keywords}
    name, level, task, definition = (
        ast.literal_eval(values[word]) for word in ("name", "level", "task", "definition")
    )
    return Exercise(name, parameters[name], level, task, definition)
