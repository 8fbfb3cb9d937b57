"""One page of a site that is otherwise as it was last built: what `make page` asks for.

Nothing that is left undone here is forgotten: the next whole build finds it stale as before.
Leaves out: a site that was never built, or whose configuration has changed, is built whole; and so
is one that does not know the page yet, since its contents have to lead there.
"""

from sphinx.application import Sphinx
from sphinx.environment import CONFIG_OK


def forget_new_page(app: Sphinx) -> None:
    """Build the whole site if the page is new to it."""
    if app.config.llmref_only not in app.env.all_docs:
        app.config.llmref_only = ""


def only_page(app: Sphinx) -> str:
    """Return the one page to read and write, or nothing if that is the whole site."""
    page: str = app.config.llmref_only
    return page if page and app.env.config_status == CONFIG_OK else ""


def of_interest(app: Sphinx, docnames: set[str]) -> set[str]:
    """Return those of some pages that this build is about."""
    page = only_page(app)
    return docnames & {page} if page else docnames


def to_write(app: Sphinx, docnames: set[str]) -> set[str]:
    """The same of pages to write, unless all are: Sphinx would not say why another time."""
    return docnames if docnames >= app.env.found_docs else of_interest(app, docnames)
