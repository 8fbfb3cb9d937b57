"""Shows the source of an llmref object, read from its file, with a link to it.

Sphinx never imports the module: torch would take seconds, and a page must show what is on disk.
"""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
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
        try:
            path, first, last = find_source(name, Path(self.config.llmref_root))
        except LookupError as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(str(path))
        lines = path.read_text(encoding="utf-8").splitlines()[first - 1 : last]
        code = "\n".join(lines)
        literal = nodes.literal_block(code, code, language="python")
        self.set_source_info(literal)
        relative = path.relative_to(self.config.llmref_root).as_posix()
        url = self.config.llmref_source_url.format(path=relative, first=first, last=last)
        caption = nodes.caption(
            "",
            "",
            nodes.literal(name, name),
            nodes.Text(" "),
            nodes.reference("", f"{relative}, line {first}", refuri=url, internal=False),
        )
        block = nodes.container(
            "", caption, literal, literal_block=True, classes=["literal-block-wrapper"]
        )
        self.set_source_info(block)
        return [block]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and the pattern of its links."""
    app.add_config_value("llmref_root", str(PACKAGE_ROOT), "env", types=(str,))
    app.add_config_value("llmref_source_url", "{path}#L{first}-L{last}", "env", types=(str,))
    app.add_directive("source", SourceDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
