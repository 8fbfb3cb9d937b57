"""A page as a notebook: its cells with what the build printed, and first one that installs llmref.

Beside it one with blanks: what a reader writes by hand, and a cell for each that asks the judge.

Leaves out: how prose loses what only the site understands (directives).
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

import nbformat
from nbformat import NotebookNode

from llmref.sphinxext.downloads.blocks import Code, as_markdown, fenced
from llmref.sphinxext.downloads.directives import page_parts
from llmref.sphinxext.downloads.inline import inline
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.topics.by_hand import code_of, functions_of, home
from llmref.sphinxext.topics.practise import Exercise

# Runs in Jupyter and in Colab. Where this very version is at hand, it does nothing.
_INSTALL = """\
# {origin}
# It needs llmref {version} and matplotlib; this cell installs what is missing.
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

try:
    installed = version("{project}")
except PackageNotFoundError:
    installed = ""
if installed != "{version}" or find_spec("matplotlib") is None:
    {comment}%pip install --quiet matplotlib {requirement}"""
_FROM_INDEX = "# This copy of the site has no address, so the package comes from PyPI.\n    "
_OF_READER = "# The code by hand is that of the cell above: change it, and run the checks again."
_FILL = """\
Write each function from memory, run its cell, then the one below it: the judge says whether it is
right, or which law it breaks on which input. `llmref.practice` has hints too: run
`!llmref practice hint NAME`."""
_BLANK = """\
import torch

from llmref.practice import judge


def {}:
    raise NotImplementedError("write it here")"""
_PICTURES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpeg"}


def plain_cells(page: Page, executed: NotebookNode) -> list[NotebookNode]:
    """Return the cells of an executed page, in which prose is plain Markdown."""
    cells: list[NotebookNode] = []
    lines = executed.metadata.get("source_map", [0] * len(executed.cells))
    for cell, line in zip(executed.cells, lines, strict=True):
        if cell.cell_type == "markdown":
            cells += _prose(page, cell, line + 1)
            continue
        cells.append(cell)
        if caption := _figure(cell).get("caption"):
            text = f"*{inline(page, caption, line + 1)}*"
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-caption"))
    module = _module_of_reader(page, cells)
    return [_to_run(page, cell, module) for cell in cells]


def _module_of_reader(page: Page, cells: list[NotebookNode]) -> tuple[str, str]:
    """The cell with the code by hand, and what stands there for a module that others import.

    'rms_norm' is a name of the library too, so such a page imports the module under a name.
    """
    path = page.root / home(page.docname)
    own = _own_import(page.docname)
    names = (m[1] for cell in cells for m in own.finditer(cell.source) if m[1])
    if not path.is_file() or not (name := next(names, "")):
        return "", ""
    functions = ", ".join(f"{function}={function}" for function in functions_of(path))
    return code_of(
        path
    ), f"from types import SimpleNamespace\n\n{name} = SimpleNamespace({functions})"


def _prose(page: Page, cell: NotebookNode, line: int) -> Iterator[NotebookNode]:
    for number, part in enumerate(page_parts(page, cell.source, line)):
        id_ = f"{cell.id}-{number}" if number else cell.id
        if isinstance(part, Code):
            yield nbformat.v4.new_code_cell(part.source, id=id_)
        else:
            yield nbformat.v4.new_markdown_cell(part, id=id_)


def as_notebook(page: Page, cells: list[NotebookNode], requirement: str) -> NotebookNode:
    """Return the notebook that a reader takes along; `requirement` is '' if there is no wheel."""
    return _notebook(page, [_without_figure(cell) for cell in cells], requirement)


def with_blanks(page: Page, exercises: list[Exercise], requirement: str) -> NotebookNode:
    """Return the notebook in which a reader writes the exercises of a page."""
    title = f"# {page.env.titles[page.docname].astext()}: practise"
    cells = [nbformat.v4.new_markdown_cell(f"{title}\n\n{_FILL}", id="title")]
    for it in exercises:
        link = page.of_page(page.docname, it.definition)
        task = f"## `{it.name}`\n\nLevel {it.level}. {it.task} [Definition]({link})"
        cells += [
            nbformat.v4.new_markdown_cell(task, id=f"{it.name}-task"),
            nbformat.v4.new_code_cell(_BLANK.format(it.signature), id=it.name),
            nbformat.v4.new_code_cell(f'judge("{it.name}", {it.name})', id=f"{it.name}-judge"),
        ]
    return _notebook(page, cells, requirement)


def _notebook(page: Page, cells: list[NotebookNode], requirement: str) -> NotebookNode:
    """These cells below one that installs llmref."""
    config = page.env.config
    install = _INSTALL.format(
        origin=f"From {page.of_page(page.docname)}",
        project=config.project,
        version=config.release,
        comment="" if requirement else _FROM_INDEX,
        requirement=requirement or f"{config.project}=={config.release}",
    )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook: NotebookNode = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(install, id="install"), *cells],
        metadata={
            "colab": {"provenance": []},
            "kernelspec": kernel,
            "language_info": {"name": "python"},
        },
    )
    return notebook


def _own_import(docname: str) -> re.Pattern[str]:
    """An import of the page's code by hand, which stands in a cell of its own.

    A reader may have changed it there; the code of another page is the package's.
    """
    group, _, topic = docname.partition("/")
    return re.compile(
        rf"^from llmref\.practice\.by_hand\.{group}"
        rf"(?:\.{topic} import (?:\([^)]*\)|[^\n(]+)| import {topic} as (\w+))$",
        re.MULTILINE,
    )


def _to_run(page: Page, cell: NotebookNode, module: tuple[str, str]) -> NotebookNode:
    """A cell in which what a reader wrote is not replaced by what the package has."""
    if cell.cell_type != "code":
        return cell
    code, namespace = module
    source = _own_import(page.docname).sub(_OF_READER, cell.source)
    if code and cell.source == code:
        source = f"{code}\n\n\n{namespace}"
    return NotebookNode({**cell, "source": source})


def _without_figure(cell: NotebookNode) -> NotebookNode:
    """A cell without what only the site reads; its caption stands below it."""
    kept = {name: value for name, value in cell.metadata.items() if name != "mystnb"}
    return NotebookNode({**cell, "metadata": NotebookNode(kept)})


def cells_as_markdown(page: Page, cells: list[NotebookNode]) -> str:
    """Return cells as plain Markdown: prose, code, what the code printed, and its pictures."""
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(as_markdown([Code(cell.source)]))
        parts += _pictures(page, cell)
        printed = "\n".join(filter(None, map(_printed, cell.get("outputs", []))))
        if printed:
            parts.append(fenced(printed, "text"))
    return "\n\n".join(parts) + "\n"


def _figure(cell: NotebookNode) -> dict[str, Any]:
    figure: dict[str, Any] = cell.metadata.get("mystnb", {}).get("figure", {})
    return figure


def _pictures(page: Page, cell: NotebookNode) -> Iterator[str]:
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    used = {name for _, name in page.env.images.values()}
    for output in cell.get("outputs", []):
        for name in _picture_names(output.get("data", {})):
            if name in used:
                yield f"![{alt}]({page.file(f'_images/{name}')})"


def _picture_names(data: dict[str, Any]) -> Iterator[str]:
    """What myst-nb calls a picture: a digest of it."""
    for kind, ending in _PICTURES.items():
        if kind in data:
            text = "".join(data[kind])
            lines = os.linesep.join(text.splitlines())
            content = lines.encode() if ending == ".svg" else base64.b64decode(text)
            yield f"{hashlib.sha256(content).hexdigest()}{ending}"


def _printed(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text).rstrip()
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    if set(output.data) & set(_PICTURES):
        return ""
    return str(output.data.get("text/plain", "")).rstrip()
