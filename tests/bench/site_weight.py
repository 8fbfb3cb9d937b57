"""Measures what a reader's browser loads and when formulas stand, and writes the table.

Run by `make bench-site`. Each visit has an empty cache, and the server compresses as a host does.
"""

import gzip
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser

from llmref.hosting.browser import chromium

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
TABLE = ROOT / "docs" / "_site_weight.md"
PAGES = {
    "landing page": "index.html",
    "derivation, KL": "rl/kl.html",
    "derivation, softmax": "functional/softmax.html",
    "ledger": "ledger.html",
    "graph": "graph.html",
    "search": "search.html?q=softmax",
}
_COMPRESSED = (".woff2", ".png", ".jpg", ".gif", ".zip")
# Counts every movement of what is already on the page; a reader's own input moves nothing here.
_OBSERVE = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
_READ = """
async () => {
  await document.fonts.ready;
  const painted = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const fonts = performance.getEntriesByType("resource")
    .filter((entry) => entry.name.includes("KaTeX_")).map((entry) => entry.responseEnd);
  const formulas = [...document.querySelectorAll(".katex")];
  return {
    shift: window.shift, painted, typeset: Math.max(painted, ...fonts), formulas: formulas.length,
  };
}
"""


@dataclass(frozen=True)
class Profile:
    """A kind of reader: the width of the window, and how slow the machine and the line are."""

    name: str
    width: int
    height: int
    visits: int
    slower: int = 1
    megabits: float = 0
    latency: float = 0


DESKTOP = Profile("desktop", 1280, 800, visits=5)
PHONE = Profile("phone", 390, 844, visits=3, slower=4, megabits=10, latency=40)


@dataclass(frozen=True)
class Visit:
    """What one visit cost: kB on the wire, and milliseconds from the click."""

    kilobytes: float
    scripts: float
    requests: float
    shift: float
    painted: float
    typeset: float
    formulas: float


class _Handler(SimpleHTTPRequestHandler):
    """Serves files as a host does: compressed, unless they are already."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(unquote(urlsplit(self.path).path)))
        if path.is_dir():
            path /= "index.html"
        if not path.is_file():
            self.send_error(404)
            return
        squeezed = path.suffix not in _COMPRESSED
        content = _compressed(path, path.stat().st_mtime_ns) if squeezed else path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(content)))
        if squeezed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with suppress(ConnectionError):  # a reader who left
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Say nothing."""


@cache
def _compressed(path: Path, _modified: int) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; gives the address."""

    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def visit(browser: Browser, address: str, profile: Profile) -> Visit:
    """Open a page with nothing in the cache."""
    context = browser.new_context(viewport={"width": profile.width, "height": profile.height})
    context.add_init_script(_OBSERVE)
    page = context.new_page()
    kinds: dict[str, str] = {}
    sizes: dict[str, float] = {}
    devtools = context.new_cdp_session(page)
    devtools.on(
        "Network.responseReceived",
        lambda event: kinds.update({event["requestId"]: event["type"]}),
    )
    devtools.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: event["encodedDataLength"] / 1000}),
    )
    devtools.send("Network.enable")
    devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    if profile.megabits:
        speed = profile.megabits * 1e6 / 8
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": profile.slower})
        devtools.send(
            "Network.emulateNetworkConditions",
            {
                "offline": False,
                "latency": profile.latency,
                "downloadThroughput": speed,
                "uploadThroughput": speed,
            },
        )
    page.goto(address, wait_until="load")
    if "?q=" in address:
        page.locator(".search-summary", has_text="found").wait_for()
    page.wait_for_timeout(500)  # for what scripts still load or move
    seen = page.evaluate(_READ)
    context.close()
    scripts = sum(size for id_, size in sizes.items() if kinds.get(id_) == "Script")
    return Visit(sum(sizes.values()), scripts, len(sizes), **seen)


def median(browser: Browser, address: str, profile: Profile) -> Visit:
    visits = [astuple(visit(browser, address, profile)) for _ in range(profile.visits)]
    return Visit(*map(statistics.median, zip(*visits, strict=True)))


def table(rows: list[tuple[str, Profile, Visit]]) -> str:
    """Return the table in Markdown."""
    head = "| Page | Window | Formulas | kB | kB of scripts | Requests | Layout shift "
    head += "| First paint | Formulas typeset |"
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, profile, seen in rows:
        lines.append(
            f"| {name} | {profile.name} | {seen.formulas:.0f} | {seen.kilobytes:.0f} "
            f"| {seen.scripts:.0f} | {seen.requests:.0f} | {seen.shift:.4f} "
            f"| {seen.painted:.0f} ms | {seen.typeset:.0f} ms |"
        )
    return "\n".join(lines) + "\n"


def main(target: Path) -> None:
    rows = []
    with serve(SITE) as root, chromium() as browser:
        visit(browser, root, DESKTOP)  # the first page that a browser opens is slow
        for name, path in PAGES.items():
            for profile in (DESKTOP, PHONE):
                rows.append((name, profile, median(browser, root + path, profile)))
    target.write_text(table(rows), encoding="utf-8")
    print(table(rows), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE)
