"""The key of a page's outputs: a digest of all that they depend on.

It covers the page's code cells, the llmref modules that they reach (imports), the kernels'
settings, and the versions of Python and of the installed packages.
Leaves out: environment variables and files that a cell opens.
"""

import hashlib
import json
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from llmref.sphinxext.execution.imports import reached_files

# Named in a string by every page that draws, so no import leads to it.
_FIGURE_STYLE = Path("llmref/figures.mplstyle")
# Of the tags, only this one changes what a cell's outputs mean.
_MEANING_TAGS = {"raises-exception"}
_FORMAT = 1  # of an entry; part of every key
KERNEL_CONFIG = """\
# Written by llmref.sphinxext: kernels that write nothing and draw the same SVG each time.
c = get_config()
c.HistoryManager.enabled = False
c.IPKernelApp.log_level = "ERROR"  # it warns that local sockets are not encrypted
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.rc = {"svg.hashsalt": "llmref"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "metadata": {"Date": None}}
"""


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
    except (SyntaxError, ValueError):  # an IPython command beside an import, or no UTF-8
        files = set((root / "llmref").rglob("*.py"))
    return digest_of(code, files, root)


def digest_of(code: list[dict[str, Any]], files: set[Path], root: Path) -> str:
    """Return the digest of code, the files that it reaches, Python and all packages."""
    style = root / _FIGURE_STYLE
    read = sorted(files | {style} if style.is_file() else files)
    modules = [(path.relative_to(root).as_posix(), _digest(path)) for path in read]
    parts = [_FORMAT, code, modules, KERNEL_CONFIG, _environment()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _environment() -> list[str]:
    """Python and every installed package, with versions: the names of their metadata folders."""
    packages = {info.name for folder in sys.path for info in Path(folder).glob("*.dist-info")}
    return [platform.python_version(), platform.machine(), *sorted(packages)]
