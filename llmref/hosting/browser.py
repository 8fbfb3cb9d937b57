"""The browser that looks at the built site: for its tests, its weight and the printable book."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# A browser asks for updates and for its maker's lists by itself; nothing of that belongs here.
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


def find_chromium() -> str:
    """Return the path of Chromium: LLMREF_CHROMIUM, or the first name that PATH has."""
    asked = os.environ.get("LLMREF_CHROMIUM")
    found = next(filter(None, map(shutil.which, [asked] if asked else _NAMES)), None)
    if found is None:
        raise FileNotFoundError(
            f"there is no browser {asked!r}"
            if asked
            else "there is no Chromium or Chrome: install one (Debian: apt-get install chromium) "
            "or set LLMREF_CHROMIUM to its path"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium without a window and without a request of its own."""
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, as in a container.
        sandbox = not (hasattr(os, "geteuid") and os.geteuid() == 0)
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=list(_QUIET), chromium_sandbox=sandbox
        )
        try:
            yield browser
        finally:
            browser.close()
