"""The code that one writes on a whiteboard: shown from its file, and confirmed by a check.

Its home is llmref/practice/by_hand, in a file of the page's name. It has an id, as results have, so
that checks name it and links lead to it.
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from llmref.records import read_published
from llmref.sphinxext.api.definitions import parse
from llmref.sphinxext.api.public import PACKAGE
from llmref.sphinxext.results.data import BY_HAND, Result
from llmref.sphinxext.results.directives import former_ids, since

if TYPE_CHECKING:
    from llmref.sphinxext.results.domain import ResultsDomain


class ByHand(nodes.General, nodes.Element):
    """The listing; its id is that of the code."""


def home(docname: str) -> str:
    """'rl/kl' -> 'llmref/practice/by_hand/rl/kl.py'."""
    return f"{PACKAGE}/practice/by_hand/{docname}.py"


def code_of(path: Path) -> str:
    """Return the code of a file without the docstring, and with one blank line for two."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = parse(path).body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines = lines[first.end_lineno :]
    return "\n".join(lines).strip("\n").replace("\n\n\n", "\n\n")


def functions_of(path: Path) -> list[str]:
    """Return the names of the public functions of a file, in its order."""
    found = (node.name for node in parse(path).body if isinstance(node, ast.FunctionDef))
    return [name for name in found if not name.startswith("_")]


class ByHandDirective(SphinxDirective):
    """`by-hand` ID: the page's code by hand, under its permanent id."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Show the file, and register its id."""
        root, docname = Path(self.config.llmref_root), self.env.docname
        path = root / home(docname)
        self.env.note_dependency(str(path))
        if not path.is_file():
            raise self.error(f"the code by hand of this page belongs into {home(docname)}")
        label = self.arguments[0]
        expected = f"{docname.rpartition('/')[2].replace('_', '-')}-by-hand"
        if label != expected:
            raise self.error(f"the id of this page's code by hand is {expected}, got {label!r}")
        try:
            names = functions_of(path)
        except SyntaxError as error:
            where = f"{home(docname)}, line {error.lineno}"
            raise self.error(f"{where}: {error.msg}") from error
        if not names:
            raise self.error(f"{home(docname)} has no public function")
        domain: ResultsDomain = self.env.domains["prf"]  # type: ignore[assignment]
        if known := domain.results.get(label):
            raise self.error(f"the id {label} is taken on {known.docname}")
        listed = self.config.llmref_result_ids
        published = read_published(Path(listed)) if listed else {}
        former = former_ids(label, published)
        domain.results[label] = Result(
            id=label,
            kind=BY_HAND,
            number=0,
            former=former,
            since=since(label, published),
            title=f"{', '.join(names)} by hand",
            docname=docname,
            line=self.lineno,
            functions=[f"{home(docname).removesuffix('.py').replace('/', '.')}.{n}" for n in names],
        )
        code = code_of(path)
        literal = nodes.literal_block(code, code, language="python")
        self.set_source_info(literal)
        url = self.config.llmref_source_url.format(
            path=home(docname), first=1, last=len(path.read_text(encoding="utf-8").splitlines())
        )
        link = nodes.reference(
            "", "source of this listing, which runs alone", refuri=url, internal=False
        )
        about = nodes.paragraph("", "", link, classes=["by-hand-about"])
        box = ByHand("", about, literal, ids=[label, *former])
        self.set_source_info(box)
        for id_ in box["ids"]:
            self.env.domains.standard_domain.note_hyperlink_target(
                id_, docname, id_, f"Code by hand ({', '.join(names)})"
            )
        self.state.document.note_explicit_target(box)
        return [box]
