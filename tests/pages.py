"""The cells of a page, as tests read them from its source."""

import re

from tests.small_site import ROOT

CELL = re.compile(
    r"^```\{code-cell\} python\n(---\n.*?\n---\n|(?::\w+:[^\n]*\n)*)(.*?)^```$", re.M | re.S
)


def cells(topic: str, before: str = "\n## There is no such section") -> list[str]:
    """The code of all cells of a topic's page, in order, or of those before a heading."""
    text = (ROOT / "docs" / f"{topic}.md").read_text(encoding="utf-8")
    return [match[2] for match in CELL.finditer(text.partition(before)[0])]


STATEMENT = re.compile(r"^(:::+)\{prf:(?!proof)\w+\}[^\n]*\n(.*?)^\1\s*$", re.M | re.S)
DISPLAY = re.compile(r"^\$\$\n(.*?)^\$\$", re.M | re.S)


def statements(topic: str) -> list[tuple[str, list[str]]]:
    """The results of a page that display formulas: id, and the TeX of each display."""
    text = (ROOT / "docs" / f"{topic}.md").read_text(encoding="utf-8")
    found = []
    for match in STATEMENT.finditer(text):
        label = re.search(r"^:label: (\S+)$", match[2], re.M)
        displays = DISPLAY.findall(match[2])
        if label and displays:
            found.append((label[1], displays))
    return found
