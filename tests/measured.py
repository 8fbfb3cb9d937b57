"""Tables of measured numbers that a page includes, with the commit that they were measured at."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.small_site import ROOT


def commit(root: Path = ROOT) -> str:
    """The commit of a checkout, and whether it differs from it; 'an unknown commit' without git."""
    command = ["git", "-C", str(root)]
    found = subprocess.run([*command, "rev-parse", "--short=10", "HEAD"], capture_output=True)
    if found.returncode:
        return "an unknown commit"
    changes = subprocess.run(
        [*command, "status", "--porcelain", "--untracked-files=no"], capture_output=True
    )
    edited = " with edits" if changes.stdout.strip() else ""
    return f"`{found.stdout.decode().strip()}`{edited}"


def share(part: int, whole: int) -> str:
    """'97 %', rounded down: 100 % is all."""
    return f"{100 * part // whole} %" if whole else ""


def table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], words: str, at: str | None = None
) -> str:
    """A table in Markdown, its first column text and the others numbers, and how it was made."""
    lines = [f"| {' | '.join(heads)} |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, "", f"{words} Measured at commit {at or commit()}.", ""])


def by_result(counts: Mapping[str, Sequence[int]]) -> str:
    """How many changes were stopped, and how many tried, of each result; a line for each."""
    lines = [f'"{label}": {json.dumps(counts[label])}' for label in sorted(counts)]
    return "{\n" + ",\n".join(lines) + "\n}\n"
