"""What the site knows of a result, a check, an erratum, and of what a page shows of others."""

from dataclasses import dataclass, field
from typing import Any

# The kind of what is no statement, but has an id and a check: the code of a page by hand.
BY_HAND = "by-hand"


@dataclass
class Result:
    """A stated result: where it stands, and what its proof refers to."""

    id: str
    kind: str
    number: int
    title: str
    docname: str
    line: int
    rests_on: list[str] = field(default_factory=list)
    equations: int = 0  # displayed in its statement
    former: list[str] = field(default_factory=list)  # the ids that it had before
    functions: list[str] = field(default_factory=list)  # of code by hand, each to be confirmed
    since: str = ""  # the version that brought it, if it is published

    @property
    def name(self) -> str:
        """'Theorem 3'."""
        return f"{self.kind.capitalize()} {self.number}" if self.number else "Code by hand"


@dataclass
class ExecutedCheck:
    """The record of a check, and the cell that it came from."""

    docname: str
    line: int
    record: dict[str, Any]


@dataclass
class Erratum:
    """A line that says what was false of some results: its page and section there."""

    docname: str
    section: str
    results: list[str]


@dataclass
class Shown:
    """What a page shows of others: results, headings (page, anchor), reports (name, argument)."""

    cited: list[str] = field(default_factory=list)
    linked: list[tuple[str, str]] = field(default_factory=list)
    reports: list[tuple[str, str]] = field(default_factory=list)
    state: str = ""
