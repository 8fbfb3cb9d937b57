"""The processes that Sphinx reads and writes with: none is lost, and none outlives the build.

Sphinx drops an error of a worker that arrives while it still hands out work, and says neither that
a worker was killed nor which page it had in hand.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import sphinx.builders
from sphinx.application import Sphinx
from sphinx.errors import SphinxError, SphinxParallelError
from sphinx.util import logging
from sphinx.util.parallel import ParallelTasks

from llmref.hosting.processes import die_with_parent
from llmref.sphinxext.transforms import LinkingTransform

logger = logging.getLogger(__name__)


class PageError(SphinxError):
    """What went wrong, with the page that was being read or written."""

    category = "Page error"


class Workers(ParallelTasks):
    """Sphinx's own workers, whose errors all reach the build."""

    app: Sphinx

    def __init__(self, nproc: int) -> None:
        super().__init__(nproc)
        self._parent = os.getpid()
        self._error: Exception | None = None

    def add_task(self, *args: Any, **kwargs: Any) -> None:
        """Start a worker; raise what another one has raised meanwhile."""
        super().add_task(*args, **kwargs)
        if self._error is not None:
            raise self._error

    def _process(self, pipe: Any, func: Callable[..., Any], arg: Any) -> None:
        die_with_parent(signal.SIGKILL)
        # While a worker has the reading ends, writing to a build that is no more would never fail.
        for end in (*self._precvs.values(), *self._precvs_waiting.values()):
            end.close()
        if os.getppid() != self._parent:
            os._exit(1)

        def with_page(arg: Any) -> Any:
            try:
                return func(arg)
            except Exception as error:
                raise PageError(f"{page_in_hand(self.app)}: {error!r}") from error

        super()._process(pipe, with_page, arg)

    def _join_one(self) -> bool:
        # Should this process break off, it ends them: at its exit it would wait for one that in its
        # turn waits for somebody to read its pipe.
        for number in self._precvs_waiting:
            self._procs[number].daemon = True
        try:
            return super()._join_one()
        except EOFError:  # it was killed
            self._error = SphinxParallelError("a process that read or wrote pages was killed", "")
        except Exception as error:
            self._error = error
        raise self._error


class NotePage(LinkingTransform):
    """Notes the page whose links are resolved, first of all: Sphinx does so when it is written."""

    default_priority = -1

    def run(self, **kwargs: Any) -> None:
        """Note it where Sphinx does."""
        docname = self.env.current_document.docname
        self.builder.current_docname = docname  # type: ignore[attr-defined]


def page_in_hand(app: Sphinx) -> str:
    """Return the path of the page that this process reads or writes."""
    docname = app.env.current_document.docname or getattr(app.builder, "current_docname", "")
    return str(app.env.doc2path(docname)) if docname else "between two pages"


def name_page(app: Sphinx, exception: Exception | None) -> None:
    """Name the page at which a build broke off in this very process."""
    if exception is not None and not isinstance(exception, SphinxParallelError):
        page = page_in_hand(app)
        if page != "between two pages":
            logger.error("the build broke off at this page: %r", exception, location=f"{page}:1")


def watch(app: Sphinx) -> None:
    """Have Sphinx use them."""
    Workers.app = app
    sphinx.builders.ParallelTasks = Workers  # type: ignore[attr-defined]
    NotePage.register(app)
    app.connect("build-finished", name_page, priority=1)
