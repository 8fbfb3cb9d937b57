"""All that Sphinx would leave stale: an incremental build gives the files of a clean one.

memory: what a build leaves for the next one to know. workers: Sphinx's processes. complete: that
all is written. reading: which pages are read again. writing: which are written again. leftovers:
what removed pages and files leave behind.
"""

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext import single
from llmref.sphinxext.incremental import complete, memory, workers
from llmref.sphinxext.incremental.leftovers import (
    forget_words,
    remove_old_static_files,
    remove_outputs_of,
    remove_unused_files,
)
from llmref.sphinxext.incremental.reading import (
    forget_pages,
    note_files,
    outdated_pages,
    read_few_pages_here,
)
from llmref.sphinxext.incremental.writing import pages_to_rewrite


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the events."""
    app.setup_extension("llmref.sphinxext.single")
    app.connect("env-get-outdated", single.forget_if_contents_changed, priority=1)
    memory.listen(app)
    workers.watch(app)
    app.connect("builder-inited", complete.require_written)
    app.connect("build-finished", complete.require_all, priority=998)
    app.connect("env-get-outdated", outdated_pages)
    app.connect("env-get-outdated", remove_outputs_of)
    app.connect("env-updated", lambda app, env: list(pages_to_rewrite(app, env)))
    app.connect("write-started", remove_old_static_files)
    app.connect("html-collect-pages", forget_words)
    app.connect("build-finished", remove_unused_files)
    app.connect("env-before-read-docs", note_files)
    app.connect("env-before-read-docs", forget_pages, priority=999)  # nobody asks for them any more
    read_few_pages_here(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
