"""Which functions of a topic something calls: what enters none of them cannot see a mutant."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tests.small_site import ROOT


@contextmanager
def recorded(files: set[str]) -> Iterator[set[tuple[str, int]]]:
    """File, relative to the root, and line of each function of these files that is entered."""
    seen: set[tuple[str, int]] = set()
    known: dict[str, str | None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        path = frame.f_code.co_filename
        if path not in known:
            name = path.removeprefix(f"{ROOT}/")
            known[path] = name if name in files else None
        if (file := known[path]) is not None:
            seen.add((file, frame.f_lineno))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
