"""Which installed packages the outputs of pages and the site may depend on, with their versions.

Those that llmref and its docs extra require, directly or through others: what else is installed,
to run the tests, say, changes nothing.
Leaves out: a package whose files are edited in place, at the same version.
"""

import platform
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^]]*)\])?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")


@lru_cache(maxsize=1)
def environment() -> list[str]:
    """Return Python's version, and 'name version' of each package."""
    return [platform.python_version(), platform.machine(), *required("llmref", "docs", sys.path)]


def required(name: str, extra: str, path: list[str]) -> list[str]:
    """Return what package `name` requires with an extra, but not itself: its source is known.

    Markers other than extras are not looked at: what is installed was wanted.
    """
    installed = dict(_installed(path))
    waiting, found = [(name, extra)], set()
    while waiting:
        package, with_extra = waiting.pop()
        if (package, with_extra) in found or package not in installed:
            continue
        found.add((package, with_extra))
        for line in _metadata(installed[package]):
            if line.startswith("Requires-Dist:"):
                waiting += _needs(line.partition(":")[2].strip(), with_extra)
    packages = {package for package, _ in found} - {name}
    return sorted(f"{package} {_version(installed[package])}" for package in packages)


def _needs(requirement: str, extra: str) -> Iterator[tuple[str, str]]:
    """'a[b]; extra == "x"' -> ('a', ''), ('a', 'b') with the extra x, else nothing."""
    text, _, marker = requirement.partition(";")
    wanted = _EXTRA.search(marker)
    match = _REQUIREMENT.match(text)
    if match is None or (wanted and _normal(wanted[1]) != extra):
        return
    yield _normal(match[1]), ""
    for name in filter(None, (match[2] or "").split(",")):
        yield _normal(match[1]), _normal(name.strip())


def _installed(path: list[str]) -> Iterator[tuple[str, Path]]:
    """Where the metadata of each package is; of two, the one that Python finds first."""
    for folder in reversed(path):
        for info in Path(folder).glob("*.*-info"):
            if info.suffix in {".dist-info", ".egg-info"}:
                yield _normal(info.stem.partition("-")[0]), info


def _version(info: Path) -> str:
    stated = info.stem.partition("-")[2]
    if info.suffix == ".dist-info" and stated:
        return stated
    lines = (line for line in _metadata(info) if line.startswith("Version:"))
    return next(lines, "Version:").partition(":")[2].strip()


def _metadata(info: Path) -> list[str]:
    for path in (info / "METADATA", info / "PKG-INFO", info):
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                return list(takewhile(str.strip, file))  # the description follows an empty line
    return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
