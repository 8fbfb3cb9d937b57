"""How pages run: fresh, side by side, and with every failure reported in one build.

Before Sphinx reads, all pages whose key has changed are executed (runner.py) and their outputs kept
(cache.py); the readers then only look outputs up. A page's key covers its code cells, the llmref
modules that they reach (imports.py), and the versions of Python and of the installed packages.
Leaves out: environment variables and files that a cell opens are not part of the key.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from myst_nb.core.render import NbElementRenderer, strip_ansi
from myst_nb.sphinx_ import Parser
from nbformat import NotebookNode, from_dict
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.cache import OutputCache, Outputs, page_key, write_whole
from llmref.sphinxext.imports import reached_files
from llmref.sphinxext.kernels import PRELOADED, KernelServer, python_path
from llmref.sphinxext.runner import Page, run_pages
from llmref.sphinxext.startup import load_for_later

logger = logging.getLogger(__name__)

# Named in a string by every page that draws, so no import leads to it.
_FIGURE_STYLE = Path("llmref/figures.mplstyle")
# These would keep a failing cell, or a check, out of the page and so out of our sight.
_HIDING_TAGS = {"remove-cell", "remove-output", "remove-stderr", "skip-execution"}
# Of the tags, only this one changes what a cell's outputs mean.
_MEANING_TAGS = {"raises-exception"}
_KERNEL_CONFIG = """\
# Written by llmref.sphinxext.execution: kernels that write nothing and draw the same SVG each time.
c = get_config()
c.HistoryManager.enabled = False
c.IPKernelApp.log_level = "ERROR"  # it warns that local sockets are not encrypted
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.rc = {"svg.hashsalt": "llmref"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "metadata": {"Date": None}}
"""


@dataclass
class Executed:
    """What was executed of a page in this build: its key, its code, and the outputs."""

    key: str
    code: list[dict[str, Any]]
    outputs: Outputs


# Reading so few pages takes no longer in one process than in several.
_FEW = 2
# The key of a page that was edited, or run while a module was: it has to be read again.
_EDITED = "edited"

# By docname; readers are forked with them.
_executed: dict[str, Executed] = {}


class ExecutedPageParser(Parser):
    """myst-nb's parser, given each page with its outputs already in place."""

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse a page; the outputs were made before any page was read."""
        if not is_myst_markdown_notebook(inputstring):
            super().parse(inputstring, document)
            return
        env = document.settings.env
        code = code_of(read_notebook(inputstring))
        executed = _executed[env.docname]
        if code != executed.code:
            logger.warning(
                "edited while the site was being built; build it again", location=env.docname
            )
            _executed[env.docname] = executed = Executed(_EDITED, code, [[] for _ in code])
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
        if "raises-exception" in cell_metadata.get("tags", []):
            # The message is the point; the frames would show the paths of this machine.
            output = {**output, "traceback": [f"{output['ename']}: {output['evalue']}"]}
        else:
            docname = self.renderer.document.settings.env.docname
            logger.warning(
                "cell %d raised %s: %s\n%s",
                cell_index,
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


def read_notebook(text: str) -> NotebookNode:
    """Read a page as a notebook whose cell ids are the same in every build."""
    notebook: NotebookNode = read_myst_markdown_notebook(text, add_source_map=True)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def read_executed(text: str, docname: str) -> NotebookNode:
    """Read a page as a notebook with the outputs of this build."""
    notebook = read_notebook(text)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(zip(code, _executed[docname].outputs, strict=True)):
        cell.outputs = [from_dict(output) for output in outputs]
        cell.execution_count = number + 1
    return notebook


def code_of(notebook: NotebookNode) -> list[dict[str, Any]]:
    """Return what of a page's own text its outputs depend on."""
    return [
        {"source": cell.source, "tags": sorted(_MEANING_TAGS & set(cell.metadata.get("tags", [])))}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def key_of(code: list[dict[str, Any]], root: Path) -> str:
    """Return the key of a page's outputs, from `code_of` it; `root` holds the package."""
    try:
        files = reached_files((cell["source"] for cell in code), root)
    except SyntaxError:  # an IPython command, say, beside an import
        files = set((root / "llmref").rglob("*.py"))
    return _key(code, files, root)


def _key(code: list[dict[str, Any]], files: set[Path], root: Path) -> str:
    style = root / _FIGURE_STYLE
    return page_key(code, files | {style} if style.is_file() else files, root, _KERNEL_CONFIG)


def configure(app: Sphinx, config: Config) -> None:
    """Let myst-nb render what is there: it executes nothing itself."""
    config.nb_execution_mode = "off"
    config.nb_render_plugin = "llmref"


def outdated_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the unedited pages whose key has changed with a module or a package."""
    root = Path(app.config.llmref_root)
    unedited = env.found_docs - added - changed
    keys = {name: key for name in unedited if (key := env.metadata[name].get("llmref_key"))}
    # The key of a page without code that imports everything: while it stays, so do all others.
    common = _key([], set((root / "llmref").rglob("*.py")), root)
    before, env.llmref_common_key = getattr(env, "llmref_common_key", ""), common  # type: ignore[attr-defined]
    if common == before:
        return sorted(name for name, key in keys.items() if key == _EDITED)
    return sorted(
        name for name, key in keys.items() if key != key_of(env.metadata[name]["llmref_code"], root)
    )


def remove_outputs_of(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Remove the files of pages that are no more; Sphinx would leave them to be found."""
    for docname in removed if app.builder.format == "html" else ():
        for ending in (".html", ".md", ".ipynb"):
            (Path(app.outdir) / f"{docname}{ending}").unlink(missing_ok=True)
        (Path(app.outdir) / "_sources" / f"{docname}.md.txt").unlink(missing_ok=True)
    return []


def forget_words(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Drop the words of removed pages from the search index; Sphinx keeps them with no page."""
    indexer = getattr(app.builder, "indexer", None)
    for mapping in (indexer._mapping, indexer._title_mapping) if indexer else ():
        for word in [word for word, pages in mapping.items() if not pages]:
            del mapping[word]
    return []


def remove_unused_images(app: Sphinx, exception: Exception | None) -> None:
    """Remove the pictures that no page shows any more."""
    if exception is None and app.builder.format == "html":
        used = {name for _, name in app.env.images.values()}
        for path in (Path(app.outdir) / "_images").glob("*"):
            if path.name not in used:
                path.unlink()


def read_few_pages_here(app: Sphinx) -> None:
    """Let Sphinx fork readers only for many pages: each one hands its whole environment back."""
    processes = app.parallel

    def before(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
        app.parallel = 1 if len(docnames) <= _FEW else processes

    def after(app: Sphinx, env: BuildEnvironment) -> list[str]:
        app.parallel = processes
        return []

    app.connect("env-before-read-docs", before)
    app.connect("env-updated", after)


def execute_pages(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Execute whatever is to be read and has no outputs yet."""
    if docnames:
        load_for_later()
    cache = OutputCache(Path(app.config.llmref_cache or Path(app.doctreedir) / "llmref_cache"))
    root = Path(app.config.llmref_root)
    _executed.clear()
    stale: list[Page] = []
    for docname in docnames:
        text = _text(env, docname)
        if not is_myst_markdown_notebook(text):
            continue
        notebook = read_notebook(text)
        _warn_of_hiding_tags(docname, notebook)
        code = code_of(notebook)
        key = key_of(code, root)
        if (outputs := cache.load(key)) is not None:
            _executed[docname] = Executed(key, code, outputs)
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
        unedited = page.key == key_of(code, root)
        if not unedited:
            logger.warning(
                "a module was edited while this page ran; build it again", location=page.docname
            )
        _executed[page.docname] = Executed(page.key if unedited else _EDITED, code, page.outputs)
        if unedited and not page.failed:
            cache.store(page.key, page.outputs)
        logger.info(
            "running pages... [%3d%%] %s%s, %.1f s",
            100 * len(ended) // len(pages),
            page.docname,
            " (failed)" if page.failed else "",
            page.seconds,
        )

    logger.info("running pages... %d of %d", len(pages), len(docnames))
    run_pages(
        pages,
        timeout=app.config.llmref_cell_timeout,
        workers=os.cpu_count() or 1,
        python_path=python_path(root),
        profile=str(_kernel_profile(app)),
        modules=app.config.llmref_preload,
        done=done,
    )
    cache.store_times({page.docname: [page.seconds, page.cell_cpu_seconds] for page in ended})
    cache.prune()


def _text(env: BuildEnvironment, docname: str) -> str:
    return Path(env.doc2path(docname)).read_text(encoding="utf-8")


def _warn_of_hiding_tags(docname: str, notebook: NotebookNode) -> None:
    for cell, line in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        if hiding := _HIDING_TAGS & set(cell.metadata.get("tags", [])):
            logger.warning(
                "the tag %s would hide a failing cell", min(hiding), location=(docname, line + 1)
            )


def _kernel_profile(app: Sphinx) -> Path:
    """Write the kernels' configuration, in one step, since two builds may start at once."""
    folder = Path(app.doctreedir) / "ipython"
    profile = folder / "profile_default" / "ipython_kernel_config.py"
    profile.parent.mkdir(parents=True, exist_ok=True)
    write_whole(profile, _KERNEL_CONFIG)
    return folder


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the parser and the events."""
    app.setup_extension("myst_nb")
    app.add_source_parser(ExecutedPageParser, override=True)
    # Beside the doctrees by default; elsewhere, so that it survives a failed build.
    app.add_config_value("llmref_cache", "", "", types=(str,))
    app.add_config_value("llmref_preload", PRELOADED, "", types=(tuple, list))
    app.add_config_value("llmref_cell_timeout", 120.0, "", types=(float, int))  # seconds
    app.connect("config-inited", configure, priority=100)  # before myst-nb reads it
    app.connect("env-get-outdated", outdated_pages)
    app.connect("env-get-outdated", remove_outputs_of)
    app.connect("html-collect-pages", forget_words)
    app.connect("build-finished", remove_unused_images)
    read_few_pages_here(app)
    app.connect("env-before-read-docs", execute_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
