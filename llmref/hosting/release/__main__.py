"""`python -m llmref.hosting.release [--tag v0.1.0] [--quick]`: tries all checks; 1 if one fails."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from llmref.hosting.release.checkout import Checkout, RefusedError
from llmref.hosting.release.contents import check_wheel
from llmref.hosting.release.facts import (
    check_authors,
    check_changelog,
    check_citation,
    check_ids,
    check_tag,
    check_versions,
    check_zenodo,
)
from llmref.hosting.release.twice import check_bytes

CHECKS: dict[str, Callable[[Checkout], str]] = {
    "tag": check_tag,
    "versions": check_versions,
    "changelog": check_changelog,
    "ids": check_ids,
    "citation": check_citation,
    "authors": check_authors,
    "zenodo": check_zenodo,
    "wheel": check_wheel,
    "bytes": check_bytes,  # last: it takes longer than all others together
}
_SLOW = "bytes"


def main(arguments: list[str], checks: dict[str, Callable[[Checkout], str]] = CHECKS) -> int:
    """Try each check and print its line; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="llmref.hosting.release")
    parser.add_argument("--tag", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--root", type=Path, default=Path())
    given = parser.parse_args(arguments)
    release = Checkout(given.root.resolve(), given.tag)
    failed = 0
    for name, check in checks.items():
        if name == _SLOW and given.quick:
            _say("LEFT OUT", name, "site and EPUB were not built twice, so nothing is known of it")
            continue
        try:
            _say("ok", name, check(release))
        except RefusedError as error:
            failed += 1
            _say("FAILED", name, str(error))
        except Exception as error:  # a file that is missing or cannot be read; the others go on
            failed += 1
            _say("FAILED", name, f"{type(error).__name__}: {error}")
    print(f"{failed} of {len(checks)} checks failed." if failed else "No check failed.")
    return 1 if failed else 0


def _say(verdict: str, name: str, what: str) -> None:
    print(f"{verdict:<8}  {name}: {' '.join(what.split())}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
