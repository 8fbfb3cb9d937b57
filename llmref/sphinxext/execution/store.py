"""Outputs of executed pages, kept by a key that covers all that they depend on.

An entry is written in one step and never changed, so an interrupted build leaves none half written,
and two builds may share the folder.
"""

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
        path = self._path(key)
        outputs = _read_json(path)
        if outputs is not None:
            os.utime(path)  # still in use
        return outputs  # type: ignore[no-any-return]

    def store(self, key: str, outputs: Outputs) -> None:
        """Keep the outputs of a page whose cells all did what they should."""
        _write_json(self._path(key), outputs)

    def times(self) -> dict[str, list[float]]:
        """Return what each page took last: seconds in all, and CPU seconds of its cells."""
        times = _read_json(self._times) or {}
        return {page: value for page, value in times.items() if isinstance(value, list)}

    def store_times(self, times: dict[str, list[float]]) -> None:
        """Keep them for the order of the next build."""
        _write_json(self._times, {**self.times(), **times})

    def prune(self) -> None:
        """Remove entries that no build has used for a month."""
        oldest = time.time() - _KEEP_SECONDS
        for path in self.folder.iterdir():
            if path != self._times and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value))


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: it is never seen in part, and two builds may write it at once."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
