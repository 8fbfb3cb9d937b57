"""Executes the pages that have no outputs yet, before Sphinx reads any, and reports every failure.

Readers then only look outputs up (parser).
"""

import contextlib
import os
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from llmref.sphinxext.execution.kernels import KernelServer, python_path
from llmref.sphinxext.execution.keys import KERNEL_CONFIG, code_of, key_of
from llmref.sphinxext.execution.runner import Page, run_pages
from llmref.sphinxext.execution.startup import load_for_later
from llmref.sphinxext.execution.store import OutputCache, Outputs

logger = logging.getLogger(__name__)

# These would keep a failing cell, or a check, out of the page and so out of our sight.
_HIDING_TAGS = {"remove-cell", "remove-output", "remove-stderr", "skip-execution"}


@dataclass
class Executed:
    """What was executed of a page in this build: its key, its code, and the outputs."""

    key: str
    code: list[dict[str, Any]]
    outputs: Outputs


# The key of a page that failed, or was edited while it ran or was read: the next build reads it
# again.
EDITED = "edited"

# By docname; readers are forked with them.
executed_by_name: dict[str, Executed] = {}


def read_notebook(text: str) -> NotebookNode:
    """Read a page as a notebook whose cell ids are the same in every build."""
    notebook: NotebookNode = read_myst_markdown_notebook(text, add_source_map=True)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def execute_pages(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Execute whatever is to be read and has no outputs yet."""
    if docnames:
        load_for_later()
    cache = OutputCache(Path(app.config.llmref_cache or Path(app.doctreedir) / "llmref_cache"))
    root = Path(app.config.llmref_root)
    preloaded = app.config.llmref_preload
    executed_by_name.clear()
    stale: list[Page] = []
    for docname in docnames:
        text = _text(env, docname)
        if text is None or not is_myst_markdown_notebook(text):
            continue
        notebook = read_notebook(text)
        _warn_of_hiding_tags(docname, notebook)
        code = code_of(notebook)
        key = key_of(code, root, preloaded)
        if (outputs := cache.load(key)) is not None:
            executed_by_name[docname] = Executed(key, code, outputs)
        else:
            stale.append(Page(docname, key, notebook, env.doc2path(docname).parent))
    if not stale:
        if KernelServer.current is not None:
            KernelServer.current.close()  # started for nothing
        return
    times = cache.times()
    # The longest first, so that none is left alone at the end; a new page may be long.
    pages = sorted(stale, key=lambda page: -times.get(page.docname, [float("inf")])[0])
    ended: list[Page] = []

    def done(page: Page) -> None:
        ended.append(page)
        code = code_of(page.notebook)
        # A module that was edited meanwhile may have been read before or after.
        unedited = page.key == key_of(code, root, preloaded)
        if not unedited:
            logger.warning(
                "a module was edited while this page ran; build it again", location=page.docname
            )
        clean = unedited and not page.failed
        if clean:
            cache.store(page.key, page.outputs)
        executed_by_name[page.docname] = Executed(page.key if clean else EDITED, code, page.outputs)
        logger.info(
            "running pages... [%3d%%] %s%s, %.1f s",
            100 * len(ended) // len(pages),
            page.docname,
            " (failed)" if page.failed else "",
            page.seconds,
        )

    _forget_bytecode(root)
    logger.info("running pages... %d of %d", len(pages), len(docnames))
    run_pages(
        pages,
        timeout=app.config.llmref_cell_timeout,
        workers=max(1, min(app.parallel, _cores())),
        python_path=python_path(root),
        settings=KERNEL_CONFIG,
        modules=preloaded,
        done=done,
    )
    cache.store_times({page.docname: [page.seconds, page.cell_cpu_seconds] for page in ended})
    cache.prune()


def _forget_bytecode(root: Path) -> None:
    """Have kernels compile our modules anew.

    Python takes compiled code for current if size and second of the source are the same, which an
    edit that restores a time keeps.
    """
    for path in (root / "llmref").rglob("*.py"):
        with contextlib.suppress(OSError):  # there is none, or the tree is not ours to write in
            Path(cache_from_source(path)).unlink()


def _cores() -> int:
    """How many processors this build may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(env: BuildEnvironment, docname: str) -> str | None:
    """Return what Sphinx will read, or None, with a warning, if that is no UTF-8."""
    try:
        return Path(env.doc2path(docname)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        logger.warning("this page is not in UTF-8, so it was not run: %s", error, location=docname)
        return None


def _warn_of_hiding_tags(docname: str, notebook: NotebookNode) -> None:
    for cell, line in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        if hiding := _HIDING_TAGS & set(cell.metadata.get("tags", [])):
            logger.warning(
                "the tag %s would hide a failing cell", min(hiding), location=(docname, line + 1)
            )
