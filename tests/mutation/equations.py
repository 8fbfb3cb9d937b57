"""How often a wrong equation on a page stops the build: `make mutate-pages`, of all or some topics.

Every displayed equation in a statement is changed in one place: a sign or an inequality turned, a
factor dropped, two terms or the halves of a fraction exchanged. It stops the build if a check reads
the equation and rejects what it then says; an equation that no check reads stops nothing.
Leaves out: words, formulas within the text, and proofs.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmref import tex, verify
from llmref.verify.errors import VerificationError
from llmref.verify.names import names_of
from llmref.verify.reader import OTHER, Reader
from llmref.verify.stated import agree, equation_tokens
from tests.measured import by_result, share, table
from tests.mutation.sites import topics
from tests.pages import cells, statements
from tests.small_site import ROOT

TABLE = ROOT / "docs" / "_mutated_equations.md"
BY_RESULT = ROOT / "docs" / "mutated_equations.json"  # which the ledger reads
Edit = tuple[int, int, tuple[str, ...]]  # tokens from here up to there become these
_SYMBOL = re.compile(
    r"[A-Za-z0-9]|\\(?:[a-zA-Z]*(?:alpha|beta|gamma|delta|eps|silon|theta|lambda|mu|nu|rho|sigma|tau"
    r"|omega|Sigma|Delta|Gamma|Omega|eta|ell|pi|phi|kappa)[a-z]*|bar|hat|tilde)$"
)
_OPENING = ("(", r"\frac", r"\sqrt", r"\sum")
_CLOSING = (")", r"\rVert", r"\rfloor")
_ACCENTS = (r"\bar", r"\hat", r"\tilde", r"\overline")


@dataclass
class Found:
    """What became of the mutants of one page."""

    displays: int = 0
    read: int = 0
    alive: list[str] = field(default_factory=list)
    # Of each result: how many changes stop the build, and how many were tried.
    results: dict[str, list[int]] = field(default_factory=dict)

    @property
    def killed(self) -> int:
        return sum(killed for killed, _ in self.results.values())

    @property
    def tried(self) -> int:
        return sum(tried for _, tried in self.results.values())


def units(found: list[str]) -> list[tuple[int, int]]:
    """Where single symbols stand, each with its subscript and superscript."""
    places = []
    place = 0
    while place < len(found):
        if not _SYMBOL.match(found[place]) or found[place - 1 : place] in (["_"], ["^"]):
            place += 1
            continue
        end = place + 1 + (found[place] in _ACCENTS)
        while found[end : end + 1] in (["_"], ["^"]):
            end = _after_group(found, end + 1)
        places.append((place, end))
        place = end
    return places


def _after_group(found: list[str], place: int) -> int:
    if found[place : place + 1] != ["{"]:
        return place + 1
    depth = 0
    for end in range(place, len(found)):
        depth += (found[end] == "{") - (found[end] == "}")
        if not depth:
            return end + 1
    return len(found)


def edits(found: list[str], breaks: Collection[int] = ()) -> Iterator[Edit]:
    """Each change in one place; no product goes on after a break of the line."""
    for place, token in enumerate(found):
        if token in OTHER:
            yield place, place + 1, (OTHER[token],)
        if token == r"\frac":
            middle = _after_group(found, place + 1)
            end = _after_group(found, middle)
            yield place + 1, end, (*found[middle:end], *found[place + 1 : middle])
    symbols = units(found)
    ends = {end for _, end in symbols} - set(breaks)
    ends |= {place + 1 for place, token in enumerate(found) if token in _CLOSING} - set(breaks)
    starts = {start for start, _ in symbols} - set(breaks)
    starts |= {place for place, token in enumerate(found) if token in _OPENING} - set(breaks)
    by_start = dict(symbols)
    for start, end in symbols:
        is_head = found[start - 1 : start] in ([r"\frac"], [r"\sqrt"], [r"\log"], [r"\exp"])
        if not is_head and (start in ends or end in starts) and not _is_digit(found, start, end):
            yield start, end, ()
        other = end + 1
        if found[end : end + 1] != ["-"] or other not in by_start or start in ends:
            continue
        if by_start[other] not in starts:
            yield start, by_start[other], (*found[other : by_start[other]], "-", *found[start:end])


def _is_digit(found: list[str], start: int, end: int) -> bool:
    """Whether it is one of several digits, of which none is a factor."""
    digits = [token.isdigit() or token == "." for token in found[max(0, start - 1) : end + 1]]
    return found[start].isdigit() and sum(digits) > 1


def try_page(topic: str) -> Found:
    """Run the cells of a page, and try the mutants of its equations where a check reads them."""
    os.environ["MPLBACKEND"] = "Agg"
    blocks = {
        (label, number): tex.without_layout(block)
        for label, found in statements(topic)
        for number, block in enumerate(found)
    }
    rejected: dict[tuple[str, int], dict[Edit, bool]] = {key: {} for key in blocks}
    original = verify.statement

    def statement(result: str, text: Any, where: Any, **options: Any) -> Any:
        over = options.get("over") or {}
        texts = [text] if isinstance(text, str) else list(text)
        for one in texts:
            whole = equation_tokens(f"{one}={text[one]}" if isinstance(text, Mapping) else one)
            names = names_of(where, over)
            for key, (present, breaks) in blocks.items():
                wanted = tex.without_layout(one)[0]
                if key[0] != result or (start := tex.found_in(present, breaks, wanted)) is None:
                    continue
                kept = [place for place, token in enumerate(whole) if not _is_layout(token)]
                for edit in edits(present, breaks):
                    if not start <= edit[0] < start + len(wanted):
                        continue
                    first, last = kept[edit[0] - start], kept[edit[1] - start - 1] + 1
                    mutant = [*whole[:first], *edit[2], *whole[last:]]
                    if mutant == whole:
                        continue
                    reader = Reader(result, mutant, names, over)
                    stops = not _agrees(reader, attained=options.get("attained", True))
                    rejected[key][edit] = rejected[key].get(edit, False) or stops
        return original(result, text, where, **options)

    scope: dict[str, object] = {"__name__": "__main__"}
    verify.statement = statement
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for number, cell in enumerate(cells(topic)):
                exec(compile(cell, f"{topic}, cell {number}", "exec"), scope)
    finally:
        verify.statement = original
    found = Found(len(blocks), sum(map(bool, rejected.values())))
    for key, (present, breaks) in blocks.items():
        counts = found.results.setdefault(key[0], [0, 0])
        for edit in edits(present, breaks):
            counts[1] += 1
            if rejected[key].get(edit):
                counts[0] += 1
            else:
                old, new = " ".join(present[edit[0] : edit[1]]), " ".join(edit[2]) or "nothing"
                shown = " ".join(present[max(0, edit[0] - 4) : edit[1] + 4])
                read = "" if edit in rejected[key] else " (not read)"
                found.alive.append(f"{key[0]}: {old} becomes {new} in {shown}{read}")
    return found


def _tried(topic: str) -> Found | str:
    """What came of it, or what went wrong, in words that can be sent to another process."""
    try:
        return try_page(topic)
    except Exception as failure:
        return f"{topic}: its cells do not pass, {failure}"


def _is_layout(token: str) -> bool:
    return token in ("&", tex.LINE_BREAK) or token.startswith((r"\begin{", r"\end{"))


def _agrees(reader: Reader, *, attained: bool) -> bool:
    try:
        return agree(reader, attained=attained)[0]
    except (VerificationError, KeyError, IndexError):  # then the build stops as well
        return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.equations", description=__doc__)
    parser.add_argument("topics", nargs="*", help="group/name; all if none is given")
    parser.add_argument("--alive", action="store_true", help="list what stops nothing")
    parser.add_argument("--write", action="store_true", help="write the tables of the site")
    options = parser.parse_args()
    if options.write and options.topics:
        parser.error("the tables are of all pages: leave out --write, or the topics")
    found, failed = {}, False
    wanted = options.topics or topics()
    # A process for each page: cells change torch's default dtype, and may switch gradients off.
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    for topic, outcome in zip(wanted, pool.map(_tried, wanted), strict=True):
        if isinstance(outcome, str):
            print(outcome, file=sys.stderr)
            failed = True
            continue
        found[topic] = outcome
        print(f"{topic}: {outcome.read} of {outcome.displays} displays are read, ", end="")
        print(f"{outcome.killed} of {outcome.tried} changes stop the build", flush=True)
        for line in outcome.alive if options.alive else ():
            print(f"  {line}")
    if options.write and not failed:
        TABLE.write_text(as_table(found), encoding="utf-8")
        BY_RESULT.write_text(as_json(found), encoding="utf-8")
        print(f"{TABLE.relative_to(ROOT)} and {BY_RESULT.relative_to(ROOT)} are written")
    return int(failed)


def as_json(found: Mapping[str, Found]) -> str:
    """For each result that displays an equation what was stopped, and of how many changes."""
    of_each = {
        label: counts
        for page in found.values()
        for label, counts in page.results.items()
        if counts[1]
    }
    return by_result(of_each)


def as_table(found: Mapping[str, Found], at: str | None = None) -> str:
    """The table of the site: what was read and stopped, of each page and of all."""
    rows = [
        (
            f"{{doc}}`{topic} <{topic}>`",
            it.displays,
            it.read,
            it.tried,
            it.killed,
            share(it.killed, it.tried),
        )
        for topic, it in found.items()
    ]
    totals = [sum(column) for column in zip(*(row[1:5] for row in rows), strict=True)]
    rows.insert(0, ("all", *totals, share(totals[3], totals[2])))
    heads = ("Page", "Displays", "Read", "Changes", "Stopped", "Share")
    return table(heads, rows, "By `make mutate-pages WRITE=1`.", at)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
