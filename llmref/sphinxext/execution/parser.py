"""A page's parser and renderer: outputs stand in place before a page is read."""

from typing import Any

from docutils import nodes
from myst_nb.core.read import is_myst_markdown_notebook
from myst_nb.core.render import NbElementRenderer, strip_ansi
from myst_nb.sphinx_ import Parser
from nbformat import NotebookNode, from_dict
from sphinx.util import logging

from llmref.sphinxext.execution.cells import may_be_announced
from llmref.sphinxext.execution.keys import code_of
from llmref.sphinxext.execution.pages import EDITED, Executed, executed_by_name, read_notebook

logger = logging.getLogger(__name__)

# Of the page in hand: what number IPython gives to the cell at an index, In[1] to the first code.
_numbers: dict[int, int] = {}


class ExecutedPageParser(Parser):
    """myst-nb's parser, given each page with its outputs already in place."""

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse a page; the outputs were made before any page was read."""
        if not is_myst_markdown_notebook(inputstring):
            super().parse(inputstring, document)
            return
        env = document.settings.env
        code = code_of(read_notebook(inputstring))
        executed = executed_by_name.get(env.docname)
        if executed is None or code != executed.code:
            if executed is not None:  # else it has been warned of
                logger.warning(
                    "edited while the site was being built; build it again", location=env.docname
                )
            executed_by_name[env.docname] = executed = Executed(EDITED, code, [[] for _ in code])
        env.metadata[env.docname]["llmref_key"] = executed.key
        # So that a later build need not parse a page that was not edited.
        env.metadata[env.docname]["llmref_code"] = code
        plain = env.mystnb_config
        try:
            reader = f"{read_executed.__module__}.{read_executed.__name__}"
            formats = {".md": (reader, {"docname": env.docname}, False)}
            env.mystnb_config = plain.copy(custom_formats=formats)
            super().parse(inputstring, document)
        finally:
            env.mystnb_config = plain


class StrictRenderer(NbElementRenderer):
    """Renders cell outputs; an error that the author did not announce is a warning."""

    def render_error(
        self, output: Any, cell_metadata: dict[str, Any], cell_index: int, source_line: int
    ) -> list[nodes.Element]:
        """Warn with page, line, cell and traceback, unless the cell is tagged raises-exception."""
        announced = "raises-exception" in cell_metadata.get("tags", [])
        if announced and may_be_announced(output["ename"]):
            # The message is the point; the frames would show the paths of this machine.
            output = {**output, "traceback": [f"{output['ename']}: {output['evalue']}"]}
        else:
            docname = self.renderer.document.settings.env.docname
            logger.warning(
                "cell %d raised %s: %s\n%s",
                _numbers[cell_index],
                output["ename"],
                output["evalue"],
                strip_ansi("\n".join(output["traceback"])),
                location=(docname, source_line - 1),  # myst-nb counts one too many
                type="llmref",
                subtype="cell",
            )
        rendered: list[nodes.Element] = super().render_error(
            output, cell_metadata, cell_index, source_line
        )
        return rendered


def read_executed(text: str, docname: str) -> NotebookNode:
    """Read a page as a notebook with the outputs of this build."""
    notebook = read_notebook(text)
    indices = (n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    _numbers.clear()
    _numbers.update({index: number for number, index in enumerate(indices, start=1)})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(
        zip(code, executed_by_name[docname].outputs, strict=True)
    ):
        cell.outputs = [from_dict(output) for output in outputs]
        cell.execution_count = number + 1
    return notebook
