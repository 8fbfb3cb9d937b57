"""What checks and the site agree on: the form of an id, the list of all ids, records and errors.

docs/result-ids.txt holds every id that was ever published, so that no link to a result breaks. One
line an id, sorted: `id version`, or `id version -> other-id` once the result goes by another id;
then the old anchor stays on the page of the new one. Lines that start with '#' are comments.
Imports nothing heavy, so that Sphinx can read records without loading torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIME_TYPE = "application/vnd.llmref.check+json"
# The names of what a check raises; no cell may announce one (tests compare them with the classes).
CHECK_ERRORS = frozenset(
    f"{name}Error"
    for name in (
        "ByHand",
        "CheckFailed",
        "MissingScope",
        "MissingWrongVariant",
        "NanOnly",
        "NotANumber",
        "ResultId",
        "ShapeMismatch",
        "TooFewSamples",
        "Undecided",
        "Unreadable",
        "Unseeded",
        "UnshownCheck",
        "Verification",
        "WrongVariantPassed",
    )
)
ID_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


@dataclass(frozen=True)
class Published:
    """An id, the version that introduced it, and the id that it has moved to, if any."""

    id: str
    version: str
    moved_to: str = ""


def read_published(path: Path) -> dict[str, Published]:
    """Read the list, by id.

    Raises: ValueError that names the line which is not of the form above.
    """
    return parse_published(path.read_text(encoding="utf-8"), path.name)


def parse_published(text: str, name: str) -> dict[str, Published]:
    """Read the text of such a list, by id; an error calls it by its name."""
    published = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 2:
            entry = Published(words[0], words[1])
        elif len(words) == 4 and words[2] == "->":
            entry = Published(words[0], words[1], words[3])
        else:
            raise ValueError(f"{name}, line {number}: 'id version [-> id]', got {line!r}")
        published[entry.id] = entry
    return published


def seal(record: Mapping[str, Any]) -> str:
    """Return what tells a record that a check has made from one that was written by hand."""
    text = json.dumps({**record, "seal": ""}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{MIME_TYPE} {text}".encode()).hexdigest()[:16]


def ids_in_use(path: Path) -> set[str]:
    """Return the ids that results go by now."""
    return {entry.id for entry in read_published(path).values() if not entry.moved_to}
