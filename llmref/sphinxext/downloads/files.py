"""Writes PAGE.md and PAGE.ipynb whenever PAGE.html is written, so all are equally fresh.

PAGE-practice.ipynb too, where a page has exercises.

That happens in Sphinx's own workers. Leaves out: pages that no list names.
"""

import re
import time
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.downloads.blocks import as_markdown
from llmref.sphinxext.downloads.directives import page_parts
from llmref.sphinxext.downloads.notebook import (
    as_notebook,
    cells_as_markdown,
    plain_cells,
    with_blanks,
)
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.downloads.parsing import site_parser
from llmref.sphinxext.downloads.wheel import requirement
from llmref.sphinxext.topics.practise import exercises_of, notebook_of

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


def write_page(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Write a page's Markdown and, if it was executed, its notebook."""
    if app.builder.name != "html" or not doctree or pagename in app.config.llmref_unlisted:
        return
    page = Page(pagename, app.env, app.builder, site_parser(vars(app.env)["myst_config"]), doctree)
    path = Path(app.outdir) / f"{pagename}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_blanks(app, page)
    if "llmref_key" not in app.env.metadata[pagename]:
        path.write_text(_plain(page), encoding="utf-8")
        return
    # myst-nb keeps the executed pages here.
    kept = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    cells = plain_cells(page, _read(kept))
    path.write_text(cells_as_markdown(page, cells), encoding="utf-8")
    notebook = as_notebook(page, cells, requirement(app.config))
    nbformat.write(notebook, path.with_suffix(".ipynb"))


def _write_blanks(app: Sphinx, page: Page) -> None:
    """Write the notebook with a page's exercises, or remove it where there are none any more."""
    blanks = Path(app.outdir) / notebook_of(page.docname)
    if exercises := exercises_of(page.docname, page.root):
        nbformat.write(with_blanks(page, exercises, requirement(app.config)), blanks)
    else:
        blanks.unlink(missing_ok=True)


def _read(path: Path) -> NotebookNode:
    """Read what myst-nb keeps; a build beside this one may be writing the same at this moment."""
    for _ in range(50):
        try:
            notebook: NotebookNode = nbformat.read(path, as_version=4)
            return notebook
        except nbformat.reader.NotJSONError:
            time.sleep(0.1)
    raise ExtensionError(f"{path} is no notebook")


def _plain(page: Page) -> str:
    """A page that runs nothing. One that is no UTF-8 has been warned of."""
    path = Path(page.env.doc2path(page.docname))
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    match = _FRONT_MATTER.match(text)
    start = match.end() if match else 0
    line = 1 + text.count("\n", 0, start)
    return as_markdown(page_parts(page, text[start:], line)) + "\n"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the event; after the others, which may still change the page's data."""
    app.connect("html-page-context", write_page, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
