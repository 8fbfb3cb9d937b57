"""One page of a site that is otherwise as it was last built: what `make page` asks for.

Nothing that is left undone here is forgotten: the next whole build finds it stale as before.
Leaves out: a site that was never built, or whose configuration has changed, is built whole; and so
is one that pages were added to or removed from, since its contents have to lead to all of them.
"""

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata


def forget_if_contents_changed(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Build the whole site if it has other pages than before; refuse a page that it has not.

    Where the configuration has changed, Sphinx takes all pages for added.
    """
    page = app.config.llmref_only
    if page and page not in env.found_docs:
        raise ExtensionError(f"the site has no page {page}")
    if added or removed:
        app.config.llmref_only = ""
    return []


def only_page(app: Sphinx) -> str:
    """Return the one page to read and write, or nothing if that is the whole site."""
    page: str = app.config.llmref_only
    return page


def of_interest(app: Sphinx, docnames: set[str]) -> set[str]:
    """Return those of some pages that this build is about."""
    page = only_page(app)
    return docnames & {page} if page else docnames


def to_write(app: Sphinx, docnames: set[str]) -> set[str]:
    """The same of pages to write, unless all are: Sphinx would not say why another time."""
    return docnames if docnames >= app.env.found_docs else of_interest(app, docnames)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register what `make page` sets; whoever asks for the page sets this up."""
    app.add_config_value("llmref_only", "", "", types=(str,))  # a page
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
