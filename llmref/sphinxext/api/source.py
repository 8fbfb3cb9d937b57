"""Shows the source of an llmref object, read from its file, with links to it and to its API entry.

Docstrings and code are folded, and remarks for linters are left out. Sphinx never imports the
module: torch would take seconds, and a page must show what is on disk.
"""

import ast
import re
import textwrap
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.api.definitions import Defined, Definition, find_definition
from llmref.sphinxext.execution.imports import PACKAGE_ROOT
from llmref.sphinxext.results.nodes import Fold, FoldSummary, count

# A remark such as 'noqa' says nothing to a reader; another remark may follow in the same line.
_FOR_LINTERS = re.compile(r"[ ]*# (?:noqa|type: ignore)[^#\n]*(?=(#)?)")


def find_source(name: str, root: Path) -> tuple[Path, int, int]:
    """Return file, first and last line of the function, class or method `name`.

    Raises: LookupError that names the part which does not exist.
    """
    definition = find_definition(name, root)
    return definition.path, *definition.lines


def to_read(definition: Definition) -> tuple[str, str]:
    """Return the code of a definition without its docstrings, and the docstrings.

    Those of methods are headed by their names.
    """
    lines = definition.path.read_text(encoding="utf-8").splitlines()
    first, last = definition.lines
    documents, skipped = [], set()
    for node in _with_docstrings(definition.node):
        text = node.body[0]
        assert text.end_lineno is not None
        # A blank line below a docstring parted it from the code.
        blank = text.end_lineno < last and not lines[text.end_lineno].strip()
        skipped |= set(range(text.lineno, text.end_lineno + 1 + blank))
        title = "" if node is definition.node else f"{node.name}: "
        documents.append(title + (ast.get_docstring(node) or ""))
    kept = [lines[n - 1] for n in range(first, last + 1) if n not in skipped]
    code = textwrap.dedent("\n".join(kept))
    code = _FOR_LINTERS.sub(lambda match: "  " if match[1] else "", code)
    return code, "\n\n".join(documents)


def _with_docstrings(top: ast.AST) -> list[Defined]:
    """The definition and what is defined in it, if it has a docstring and a body besides."""
    return [
        node
        for node in ast.walk(top)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and ast.get_docstring(node) is not None
        and len(node.body) > 1
    ]


class SourceDirective(SphinxDirective):
    """`source` NAME: the source of llmref.some.function, with a link to it."""

    required_arguments = 1
    option_spec: ClassVar = {"class": directives.class_option}

    def run(self) -> list[nodes.Node]:
        """Return the highlighted source under a caption that links to the repository."""
        name = self.arguments[0]
        root = Path(self.config.llmref_root)
        try:
            definition = find_definition(name, root)
        except LookupError as error:
            raise self.error(str(error)) from error
        path, (first, last) = definition.path, definition.lines
        self.env.note_dependency(str(path))
        code, documents = to_read(definition)
        literal = nodes.literal_block(code, code, language="python")
        self.set_source_info(literal)
        relative = path.relative_to(root).as_posix()
        url = self.config.llmref_source_url.format(path=relative, first=first, last=last)
        caption = nodes.caption(
            "",
            "",
            self._entry_link(name, definition.name),
            nodes.Text(" "),
            nodes.reference("", f"{path.name}, line {first}", refuri=url, internal=False),
        )
        block = nodes.container(
            "",
            caption,
            *_folded(documents),
            Fold(
                "",
                FoldSummary("", f"Source, {count(code.count(chr(10)) + 1, 'line')}"),
                literal,
                classes=["source"],
                open=self.env.docname in self.config.llmref_first_edition,
            ),
            literal_block=True,
            classes=["literal-block-wrapper"],
            ids=self._note(definition.name),
        )
        self.set_source_info(block)
        return [block]

    def _entry_link(self, name: str, defined: str) -> pending_xref:
        """The name, as a link to its entry in the API, if it has one."""
        return pending_xref(
            "",
            nodes.literal(name, name),
            refdomain="py",
            reftype="obj",
            reftarget=defined,
            llmref_optional=True,
        )

    def _note(self, defined: str) -> list[str]:
        """Note that this page shows the source; return the place's id, the first time."""
        shown = self.env.metadata[self.env.docname].setdefault("llmref_sources", {})
        if defined in shown:
            return []
        shown[defined] = f"source-{defined}"
        return [shown[defined]]


def _folded(documents: str) -> list[nodes.Node]:
    if not documents:
        return []
    text = nodes.literal_block(documents, documents, language="text")
    return [Fold("", FoldSummary("", "Docstring"), text, classes=["docstring"])]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and the pattern of its links."""
    # Topics that still have the form of the first edition, where the code is on view.
    app.add_config_value("llmref_first_edition", (), "env", types=(tuple, list))
    app.add_config_value("llmref_root", str(PACKAGE_ROOT), "env", types=(str,))
    app.add_config_value("llmref_source_url", "{path}#L{first}-L{last}", "env", types=(str,))
    app.add_directive("source", SourceDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
