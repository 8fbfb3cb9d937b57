"""The built site: `make test-site` builds it first. Served below a path, as on a shared host."""

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from llmref.hosting.browser import chromium

ROOT = Path(__file__).parents[2]
BELOW = "/some/where/"


@pytest.fixture(scope="session")
def html() -> Path:
    folder = ROOT / "_build" / "html"
    assert (folder / "index.html").is_file(), "there is no site: run make test-site"
    return folder


@pytest.fixture(scope="session")
def names(html: Path) -> list[str]:
    """Every page, without the theme's templates."""
    paths = (path.relative_to(html) for path in html.rglob("*.html"))
    return sorted(path.as_posix() for path in paths if path.parts[0] != "_static")


class Handler(SimpleHTTPRequestHandler):
    """Serves the site below a path and nothing else, so that a link to the root is an error."""

    def translate_path(self, path: str) -> str:
        if not path.startswith(BELOW):
            return "/there/is/no/such/file"
        return super().translate_path(path.removeprefix(BELOW.rstrip("/")))

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that says nothing when a browser leaves in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def served(html: Path) -> Iterator[str]:
    """The address of the site, which ends in a slash."""
    server = Server(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(html)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    server.shutdown()
    thread.join()
    server.server_close()


# Not for the session: while it runs, no test can start an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running
