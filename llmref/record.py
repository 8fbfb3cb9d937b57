"""What a check and the site agree on: the form of an id, and the MIME type of a record.

Imports nothing heavy, so that Sphinx can read records without loading torch.
"""

import re
from pathlib import Path

MIME_TYPE = "application/vnd.llmref.check+json"
ID_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


def ids_in_use(path: Path) -> set[str]:
    """Read the ids in use from lines 'id version'; 'id version -> other-id' is out of use."""
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = (line.split() for line in lines if line.strip() and not line.startswith("#"))
    return {entry[0] for entry in entries if "->" not in entry}
