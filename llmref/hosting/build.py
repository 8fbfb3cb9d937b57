"""Builds the site in a work folder and publishes it: what `make html` and `make page` run.

`python -m llmref.hosting.build [--page PAGE] [--fresh] [--conf FILE] WORK SITE -- SPHINX...` The
work folder is kept from build to build, also from one that failed, so that only what is stale is
built again. It is emptied if a build was killed in it, if FILE has changed, or if any file in it is
not as the last build left it. SITE is replaced in one step, and only by a build without a warning.
Leaves out: whether Sphinx has written all that it should (sphinxext.incremental.complete).
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

from llmref.hosting.lock import held
from llmref.hosting.processes import die_with_parent, run

_MANIFEST = "manifest.json"


def main(arguments: list[str]) -> int:
    """Build, and publish unless a single page was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="llmref.hosting.build")
    parser.add_argument("--page", default="")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--conf", type=Path, default=None)
    parser.add_argument("work", type=Path)
    parser.add_argument("site", type=Path)
    parser.add_argument("sphinx", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    die_with_parent()
    try:
        with held(given.site.parent / "lock"):
            if given.fresh:
                shutil.rmtree(given.work, ignore_errors=True)
            code = build(given.work, given.conf, [part for part in given.sphinx if part != "--"])
            if code == 0 and not given.page:
                publish(given.work / "html", given.site)
    except OSError as error:  # the disk is full, or the folder is not ours to write in
        print(f"make html: {_first(error)}", file=sys.stderr)
        code = 1
    if given.page:
        faults = ", with the faults above" if code else ""
        print(f"The page is in {given.work}/html/{given.page}.html{faults}; it is not published.")
    elif code == 0:
        print(f"The site is in {given.site}: open {given.site}/index.html or run make serve.")
    else:
        print(f"make html: the site was not built; {given.site} is as it was.", file=sys.stderr)
    return code if code >= 0 else 128 - code


def build(work: Path, conf: Path | None, sphinx: list[str]) -> int:
    """Run Sphinx in the work folder and return its exit code."""
    noted = intact_files(work, conf)
    if noted is None:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    code = run(sphinx)
    if code >= 0:  # else it was killed, and what is there may be half written
        _write_manifest(work, conf, noted or {})
    return code


def intact_files(work: Path, conf: Path | None) -> dict[str, Any] | None:
    """Return what the last build noted of its files, or None if they are not as it left them."""
    try:
        manifest = json.loads((work / _MANIFEST).read_bytes())
        noted: dict[str, Any] = manifest["files"]
        files = _files(work)
        intact = files.keys() == noted.keys() and all(
            # Whoever writes to a file changes its times; a copy of the folder has others too.
            times == noted[name][:3] or _checksum(work / name) == noted[name][3]
            for name, times in files.items()
        )
        return noted if intact and manifest["conf"] == _checksum(conf) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def publish(html: Path, site: Path) -> None:
    """Replace the site by a copy of the built one, unless it is one already."""
    # Sphinx's note to itself depends on where the checkout is.
    ignored = shutil.ignore_patterns(".buildinfo*")
    built = {name: state[:2] for name, state in _files(html).items() if ".buildinfo" not in name}
    there = {name: state[:2] for name, state in (_files(site) if site.is_dir() else {}).items()}
    if built == there:
        return

    def take(source: str, copy: str) -> None:
        """Copy a file, or link to the published copy of it, which is quicker."""
        name = os.path.relpath(source, html)
        if built[name] == there.get(name):
            with contextlib.suppress(OSError):  # a file system without links
                os.link(site / name, copy)
                return
        shutil.copy2(source, copy)

    site = site.resolve()  # which may be a link to where it is served from
    new, old = (site.with_name(f"{site.name}.{state}") for state in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(html, new, ignore=ignored, copy_function=take)
    if site.exists():
        site.rename(old)
    new.rename(site)
    shutil.rmtree(old, ignore_errors=True)


def _first(error: OSError) -> str:
    """What went wrong first: copying a tree reports each of its files."""
    found = error.args[0] if isinstance(error, shutil.Error) else error
    return str(found[0][-1] if isinstance(found, list) else found)


def _write_manifest(work: Path, conf: Path | None, noted: dict[str, Any]) -> None:
    files = {}
    for name, times in _files(work).items():
        before = noted.get(name)
        untouched = before is not None and before[:3] == times
        files[name] = before if untouched else [*times, _checksum(work / name)]
    path = work / _MANIFEST
    path.write_text(json.dumps({"conf": _checksum(conf), "files": files}), encoding="utf-8")


def _files(work: Path) -> dict[str, list[int]]:
    """Size and times of all files, by name."""
    found: dict[str, list[int]] = {}
    folders = [str(work)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                state = entry.stat(follow_symlinks=False)
                name = os.path.relpath(entry.path, work)
                found[name] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    found.pop(_MANIFEST, None)
    return found


def _checksum(path: Path | None) -> int:
    return zlib.crc32(path.read_bytes()) if path else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
