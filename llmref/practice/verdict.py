"""A verdict: what the judge says, as text and in a notebook.

It never shows the solution.
"""

import html
from dataclasses import dataclass, field

SITE = "https://llmref.github.io/llmref"
_CELL = "text-align:left;vertical-align:top"


@dataclass(frozen=True, repr=False)
class Verdict:
    """What the judge says of one function.

    `outcome` is 'right', 'convention' or 'wrong'. Where it is not right: `problem` is what was
    seen, on the smallest input that shows it, which `call` writes out and which should give
    `expected`; `law` is the law that is broken, or 'the definition', `result` the id of the result
    that proves or states it; `mistake` and `convention` name what the function equals on all
    inputs, and `why` says why people write it, or who does. Where it is right: `inputs`, the
    largest relative `error`, the `time` against the code by hand, and `remarks` on what is not
    judged. `printed` is what the call of `call` has printed, or that of the smallest input. A
    verdict is true if it is 'right'.
    """

    exercise: str
    topic: str
    outcome: str
    problem: str = ""
    call: str = ""
    expected: str = ""
    law: str = ""
    result: str = ""
    mistake: str = ""
    convention: str = ""
    why: str = ""
    printed: str = ""
    inputs: int = 0
    exact: bool = False
    error: float = 0.0
    time: float = 0.0
    laws: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.outcome == "right"

    @property
    def counterexample(self) -> str:
        """The smallest input that shows it, and what it should give."""
        if self.expected:
            return f"{self.call}\n    should give {self.expected}"
        return f"from llmref.practice import inputs\n{self.call}" if "*inputs" in self.call else ""

    @property
    def link(self) -> str:
        """Where the law is proved."""
        return f"{SITE}/{self.topic}.html#{self.result}" if self.result else ""

    def lines(self) -> list[tuple[str, str]]:
        """Each part with its heading."""
        if self.outcome == "right":
            return [
                ("right", f"{self.exercise}: {self._seen()}"),
                *(("law", law) for law in self.laws),
                *(("note", remark) for remark in self.remarks),
                *([("printed", self.printed)] if self.printed else []),
            ]
        first = ("wrong", f"{self.exercise}: {self.problem}")
        if self.outcome == "convention":
            first = (
                "another convention",
                f"{self.exercise} is right by this one: {self.convention}",
            )
        parts = [
            ("try", self.counterexample),
            ("printed", self.printed),
            ("law", f"{self.law} ({self.result})" if self.result else self.law),
            ("mistake", self.mistake),
            ("why", self.why),
            ("read", self.link),
        ]
        return [first, *(part for part in parts if part[1])]

    def _seen(self) -> str:
        times = f"{self.time:.1f} times as long as the code by hand"
        if self.exact:
            return f"{self.inputs} inputs, {times}"
        numbers = f"{self.inputs} inputs in float64 and float32, largest error {self.error:.1g}"
        return f"{numbers}, {times}"

    def __str__(self) -> str:
        return "\n".join(f"{name}: {words}" for name, words in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colours = {"right": "#1a7f37", "convention": "#9a6700", "wrong": "#b35900"}
        rows = "".join(
            f"<tr><th style='{_CELL}'>{html.escape(name)}</th>"
            f"<td style='{_CELL};overflow-wrap:anywhere'>{self._cell(name, words)}</td></tr>"
            for name, words in self.lines()
            if name != "read"  # here the law itself is the link
        )
        edge = f"border-left:4px solid {colours[self.outcome]};padding-left:8px"
        table = f"<table style='margin:0'>{rows}</table>"
        return f"<div class='llmref-said' style='{edge}'>{table}</div>"

    def _cell(self, name: str, words: str) -> str:
        shown = html.escape(words)
        if name in ("try", "printed"):
            return f"<pre style='white-space:pre-wrap;margin:0'>{shown}</pre>"
        if name == "law" and self.result:
            law, id_ = html.escape(self.law), html.escape(self.result)
            return f'{law} (<a href="{html.escape(self.link)}">{id_}</a>)'
        return shown
