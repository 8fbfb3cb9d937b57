"""How pages run: fresh, side by side, and with every failure reported in one build.

keys, imports: what a page's outputs depend on. store: where they are kept. pages: which pages run.
runner, cells, kernels, folders, server: how they run. parser: how Sphinx finds the outputs.
startup: what makes a build start quickly.
Leaves out: what Sphinx would leave stale after all that (incremental).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # startup is loaded before Sphinx has loaded anything else
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.util.typing import ExtensionMetadata


def leave_execution_to_us(app: "Sphinx", config: "Config") -> None:
    """Let myst-nb render what is there: it executes nothing itself."""
    config.nb_execution_mode = "off"
    config.nb_render_plugin = "llmref"


def setup(app: "Sphinx") -> "ExtensionMetadata":
    """Register the parser and the events."""
    from llmref.sphinxext.execution.kernels import PRELOADED
    from llmref.sphinxext.execution.pages import execute_pages
    from llmref.sphinxext.execution.parser import ExecutedPageParser

    app.setup_extension("myst_nb")
    app.add_source_parser(ExecutedPageParser, override=True)
    # Beside the doctrees by default; elsewhere, so that it survives a failed build.
    app.add_config_value("llmref_cache", "", "", types=(str,))
    app.add_config_value("llmref_preload", PRELOADED, "", types=(tuple, list))
    app.add_config_value("llmref_cell_timeout", 120.0, "", types=(float, int))  # seconds
    app.connect("config-inited", leave_execution_to_us, priority=100)  # before myst-nb reads it
    app.connect("env-before-read-docs", execute_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
