"""The key of a page's outputs: a digest of all that they depend on.

It covers the page's code cells, the llmref modules that they reach (imports) without comments and
docstrings, the data beside those, how kernels are run and set up, and the versions of Python and of
the packages that llmref requires (environment).
Leaves out: environment variables, and files that a cell opens elsewhere.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from llmref.sphinxext.execution.environment import environment
from llmref.sphinxext.execution.imports import package_files, reached_files

# Of the tags, only this one changes what a cell's outputs mean.
_MEANING_TAGS = {"raises-exception"}
_FORMAT = 2  # of an entry; part of every key
# How pages are run.
_MACHINERY = ("cells.py", "kernels.py", "runner.py", "server/__main__.py")
# Code that may show docstrings, comments or line numbers: then they are part of the key.
_READS_SOURCE = re.compile(
    r"__doc__|__code__|\binspect\b|\bpydoc\b|\bgetdoc|\bgetsource|\bhelp\(|\btraceback\b|\blinecache\b"
    r"|\bdoctest\b|lineno"
)
# The judge reads the code by hand, which therefore counts as it is, and what readers wrote.
_JUDGE = tuple(f"practice/{name}.py" for name in ("exercise", "judging", "submission"))
_BY_HAND = "practice/by_hand/"
# IPython's `name?`, in cells alone: the docstring of a module is a question too.
_ASKS = re.compile(r"^\s*[?!%]*\?|\?\s*$", re.MULTILINE)
KERNEL_CONFIG = """\
# Written by llmref.sphinxext: kernels that write nothing and draw the same SVG each time.
c = get_config()
c.HistoryManager.enabled = False
c.IPKernelApp.log_level = "CRITICAL"  # else it says that sockets are local, and was interrupted
c.InlineBackend.figure_formats = {"svg"}
c.InteractiveShell.enable_tip = False  # it is drawn by random, before the first cell
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


def key_of(code: list[dict[str, Any]], root: Path, preloaded: Iterable[str]) -> str:
    """Return the key of a page's outputs, from `code_of` it.

    `root` holds the package; `preloaded` is what kernels have imported before the page runs.
    """
    sources = [cell["source"] for cell in code]
    try:
        files = reached_files(sources, root)
    except (SyntaxError, ValueError):  # an IPython command beside an import, or no UTF-8
        files = package_files(root)
    data = set(_data_beside(files, root / "llmref"))
    asks = any(_ASKS.search(source) or _READS_SOURCE.search(source) for source in sources)
    names = {path: path.relative_to(root / "llmref").as_posix() for path in sorted(files)}
    whole = asks or any(_reads_source(path) for path in files if names[path] not in _JUDGE)
    parts = [
        _FORMAT,
        code,
        [
            (f"llmref/{name}", _code_digest(path, whole or name.startswith(_BY_HAND)))
            for path, name in names.items()
        ],
        [(path.relative_to(root).as_posix(), _digest(path)) for path in sorted(data)],
        sorted(preloaded),
        _machinery(),
        environment(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def state_of_all(root: Path, preloaded: Iterable[str]) -> str:
    """Return a digest that stays the same only if all keys do, without looking at any page."""
    files = sorted(path for path in (root / "llmref").rglob("*") if _counts(path))
    digests = [(path.as_posix(), _digest(path)) for path in files]
    here = Path(__file__).parent
    machinery = [KERNEL_CONFIG, *(_digest(here / name) for name in _MACHINERY)]
    parts = [_FORMAT, digests, sorted(preloaded), machinery, environment()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")


def _data_beside(files: set[Path], package: Path) -> Iterator[Path]:
    """Files that are no modules, in the folders of reached modules and below, as data is kept.

    Those of the package itself always count: every page that draws names figures.mplstyle in a
    string, so no import leads to it.
    """
    waiting = {path.parent for path in files} | {package}
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
                waiting.add(path)
            elif _counts(path) and path.suffix not in (".py", ".pyi"):
                yield path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _code_digest(path: Path, whole: bool) -> str:
    return _digest(path) if whole else _bare_digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _bare_digest(path: Path, _changed: int) -> str:
    """The digest of a module's syntax tree without docstrings; its time is a part of the key."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return _digest(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                    node.body = rest or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _reads_source(path: Path) -> bool:
    return _text_reads_source(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _text_reads_source(path: Path, _changed: int) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return _READS_SOURCE.search(text) is not None


@lru_cache(maxsize=1)
def _machinery() -> list[str]:
    here = Path(__file__).parent
    return [KERNEL_CONFIG, *(_code_digest(here / name, whole=False) for name in _MACHINERY)]
