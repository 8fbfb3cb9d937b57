"""Shows the source of an llmref object, read from its file, with links to it and to its API entry.

Sphinx never imports the module: torch would take seconds, and a page must show what is on disk.
"""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.api.definitions import find_definition
from llmref.sphinxext.execution.imports import PACKAGE_ROOT


def find_source(name: str, root: Path) -> tuple[Path, int, int]:
    """Return file, first and last line of the function, class or method `name`.

    Raises: LookupError that names the part which does not exist.
    """
    definition = find_definition(name, root)
    return definition.path, *definition.lines


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
        code = "\n".join(path.read_text(encoding="utf-8").splitlines()[first - 1 : last])
        literal = nodes.literal_block(code, code, language="python")
        self.set_source_info(literal)
        relative = path.relative_to(root).as_posix()
        url = self.config.llmref_source_url.format(path=relative, first=first, last=last)
        caption = nodes.caption(
            "",
            "",
            self._entry_link(name, definition.name),
            nodes.Text(" "),
            nodes.reference("", f"{relative}, line {first}", refuri=url, internal=False),
        )
        block = nodes.container(
            "",
            caption,
            literal,
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


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and the pattern of its links."""
    app.add_config_value("llmref_root", str(PACKAGE_ROOT), "env", types=(str,))
    app.add_config_value("llmref_source_url", "{path}#L{first}-L{last}", "env", types=(str,))
    app.add_directive("source", SourceDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
