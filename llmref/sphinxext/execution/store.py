"""What is kept between builds: outputs of executed pages, by a key that covers all they depend on.

An entry is written in one step and never changed, so an interrupted build leaves none half written,
and two builds may share the folder. One that is damaged all the same counts as missing: its first
line is a digest of the rest.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

# What the cells of a page print, cell by cell, as notebook outputs.
Outputs = list[list[dict[str, Any]]]

_KEEP_SECONDS = 30 * 24 * 3600.0


class OutputCache:
    """A folder of entries, one file each, and the time that each page took last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._times = folder / "times.json"

    def load(self, key: str) -> Outputs | None:
        """Return the outputs stored under `key`, or None."""
        kept = read_entry(self._path(key))
        return None if kept is None else json.loads(kept)

    def store(self, key: str, outputs: Outputs) -> None:
        """Keep the outputs of a page whose cells all did what they should."""
        write_entry(self._path(key), json.dumps(outputs))

    def times(self) -> dict[str, list[float]]:
        """Return what each page took last: seconds in all, and CPU seconds of its cells."""
        try:
            times = json.loads(self._times.read_bytes())
            return {
                str(page): [float(seconds), float(cpu)] for page, (seconds, cpu) in times.items()
            }
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}  # it only orders the pages

    def store_times(self, times: dict[str, list[float]]) -> None:
        """Keep them for the order of the next build."""
        write_whole(self._times, json.dumps({**self.times(), **times}))

    def prune(self) -> None:
        """Remove entries that no build has used for a month."""
        oldest = time.time() - _KEEP_SECONDS
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another build was faster
                if path != self._times and path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.outputs"


def read_entry(path: Path) -> str | None:
    """Return what `write_entry` has written, or None if the file is missing or damaged."""
    try:
        digest, _, kept = path.read_bytes().partition(b"\n")
        if digest != _digest(kept):
            return None
        os.utime(path)  # still in use
    except FileNotFoundError:
        return None
    return kept.decode("utf-8")


def write_entry(path: Path, text: str) -> None:
    """Keep a text with its digest."""
    write_whole(path, f"{_digest(text.encode()).decode()}\n{text}")


def _digest(kept: bytes) -> bytes:
    return hashlib.sha256(kept).hexdigest().encode()


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: it is never seen in part, and two builds may write it at once."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(text.encode("utf-8"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # the disk was full
