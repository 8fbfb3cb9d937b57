"""What a build leaves for the next one to know: that it ended, and which pages it warned of.

A warning must come again until its cause is mended, though nothing else has been edited: Sphinx
would find all pages up to date, and a strict build would be green the second time.
Leaves out: pages whose cells failed; their keys are never clean (execution).
"""

import json
import logging
import re
from pathlib import Path
from typing import Any
from zlib import crc32

from docutils import nodes
from sphinx.application import ENV_PICKLE_FILENAME, Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.build_phase import BuildPhase
from sphinx.util.logging import NAMESPACE, get_node_location, is_suppressed_warning

from llmref.sphinxext.execution.store import write_whole
from llmref.sphinxext.single import of_interest, only_page

_LINE = re.compile(r":\d*$")


class Memory(logging.Handler):
    """Notes the pages that this build warns of, and knows those of the last one."""

    def __init__(self, app: Sphinx) -> None:
        super().__init__(logging.WARNING)
        self._app = app
        self._file = Path(app.doctreedir) / "llmref.json"
        self._warned: set[str] = set()
        # A warning that belongs to no page: of the site as a whole, or of who knows what.
        self._of_site = self._of_unknown = False
        last = self._load()
        self.warned: set[str] = set(last.get("pages", ()))
        self.site_warned = bool(last.get("site"))
        self.ids = last.get("ids")
        if not last.get("ended", True):
            # Doctrees may be newer than the environment knows, and pages older.
            (Path(app.doctreedir) / ENV_PICKLE_FILENAME).unlink(missing_ok=True)

    def _load(self) -> dict[str, Any]:
        try:
            last = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            last = None
        return last if isinstance(last, dict) else {"ended": False}

    def emit(self, record: logging.LogRecord) -> None:
        """Note the page of a warning; readers and writers hand theirs to the main process."""
        kind = getattr(record, "type", None) or "", getattr(record, "subtype", None) or ""
        if is_suppressed_warning(*kind, self._app.config.suppress_warnings):
            return
        if page := self._page(getattr(record, "location", None)):
            self._warned.add(page)
        elif self._phase() is BuildPhase.CONSISTENCY_CHECK:
            self._of_site = True
        else:
            self._of_unknown = True

    def _page(self, location: Any) -> str:
        if isinstance(location, nodes.Node):
            location = get_node_location(location)
        elif isinstance(location, tuple):
            location = location[0]
        path = _LINE.sub("", str(location or ""))
        env = getattr(self._app, "env", None)
        if not path or env is None:
            return ""
        names = {path, env.path2doc(path)} & env.found_docs
        return next(iter(names), "")

    def _phase(self) -> BuildPhase:
        builder = getattr(self._app, "builder", None)
        return builder.phase if builder else BuildPhase.INITIALIZATION

    def begin(self, app: Sphinx) -> None:
        """Say that a build is under way: if it is killed, the next one starts anew."""
        self._write(ended=False)

    def outdated(self, app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
        """Return the pages that the last build warned of: they are read and written again."""
        return sorted(of_interest(app, self.warned))

    def recheck(self, app: Sphinx, env: BuildEnvironment) -> list[str]:
        """Return a page to write again if the site has to be checked again, though no page has."""
        again = self.site_warned or self._ids() != self.ids
        return [app.config.root_doc] if again and not only_page(app) else []

    def _ids(self) -> int:
        """The list of published ids, which Sphinx knows nothing of, but our check does."""
        path = Path(self._app.config.llmref_result_ids)
        return crc32(path.read_bytes()) if path.is_file() else 0

    def end(self, app: Sphinx, exception: Exception | None) -> None:
        """Keep what this build warned of. Where no page is to blame, all are read again.

        So they are after an exception: then Sphinx itself has removed its environment.
        """
        if page := only_page(app):  # of the others, all is as it was
            self._warned |= self.warned - {page}
            self._of_site |= self.site_warned
        self._write(ended=not self._of_unknown)

    def _write(self, *, ended: bool) -> None:
        state = {"ended": ended, "pages": sorted(self._warned), "site": self._of_site}
        state["ids"] = self.ids if only_page(self._app) else self._ids()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, json.dumps(state))


def listen(app: Sphinx) -> None:
    """Start to listen, before the environment is loaded."""
    memory = Memory(app)
    logging.getLogger(NAMESPACE).addHandler(memory)
    app.connect("builder-inited", memory.begin, priority=1)
    app.connect("env-get-outdated", memory.outdated)
    app.connect("env-updated", memory.recheck)
    app.connect("build-finished", memory.end, priority=999)  # after all that may warn
