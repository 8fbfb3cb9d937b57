"""`make fuzz`: call every public function with generated arguments, and say what came of it.

Exit status 1 if there is a find; each is printed with the command that makes its call alone. A run
of all functions without a find writes the table of the site.
"""

import argparse
import itertools
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import torch

from tests import measured
from tests.fuzz.draw import draw
from tests.fuzz.forked import forked
from tests.fuzz.judge import ERROR, FIND, LARGE, RESULT, Verdict, is_large, judge, made
from tests.fuzz.targets import Target, targets
from tests.small_site import ROOT

TABLE = ROOT / "docs" / "_fuzz.md"
KINDS = (RESULT, ERROR, LARGE, FIND)


def fuzz(chosen: list[Target], calls: range) -> Iterator[tuple[Target, list[Verdict]]]:
    """Each target with the verdicts of its calls, in order."""
    pairs = [(target, number) for target in chosen for number in calls]
    answers = forked(lambda place: asdict(judge(draw(*pairs[place]))), range(len(pairs)))
    for target in chosen:
        found = []
        for place, answer in itertools.islice(answers, len(calls)):
            if answer is not None:
                found.append(Verdict(**answer))
            elif is_large(draw(*pairs[place])):
                found.append(Verdict(LARGE))
            else:
                found.append(Verdict(FIND, "it crashed or never ended"))
        yield target, found


def show(target: Target, number: int) -> int:
    """One call, here and now: its arguments, what it ends in, and its verdict."""
    drawn = draw(target, number)
    print(drawn)
    for name, value in drawn.values.items():
        print(f"{'*' if name in drawn.changes else ' '} {name} = {value!r}")
    try:
        print(made(drawn, draw(target, number).values))
    except Exception:
        traceback.print_exc()
    ((_, (verdict,)),) = fuzz([target], range(number, number + 1))
    print(verdict.kind, verdict.words)
    return int(verdict.kind == FIND)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="the start of names: rl, rl.grpo_loss; or all")
    parser.add_argument("--calls", type=int, default=200, help="so many of each function")
    parser.add_argument("--call", type=int, help="this one alone, with its arguments")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = targets()
    chosen = [
        name
        for name in known
        if not options.names or any(f"{name}.".startswith(f"{it}.") for it in options.names)
    ]
    if not chosen:
        parser.error(f"no function: {', '.join(options.names)}")
    if options.call is not None:
        return show(known[chosen[0]], options.call)
    table: dict[str, Counter[str]] = {}
    for target, verdicts in fuzz([known[name] for name in chosen], range(options.calls)):
        table[target.name] = Counter(it.kind for it in verdicts)
        print(f"{target.name}: {dict(table[target.name])}", file=sys.stderr, flush=True)
        for number, verdict in enumerate(verdicts):
            if verdict.kind == FIND:
                print(f"FIND {draw(target, number)}\n     {verdict.words}", flush=True)
    print_table(table)
    if chosen == list(known) and not any(row[FIND] for row in table.values()):
        write(table)
    return int(any(row[FIND] for row in table.values()))


def groups(table: dict[str, Counter[str]]) -> dict[str, list[Counter[str]]]:
    """The rows of each group."""
    found: dict[str, list[Counter[str]]] = {}
    for name, row in table.items():
        found.setdefault(name.partition(".")[0], []).append(row)
    return found


def write(table: dict[str, Counter[str]]) -> None:
    """Write the counts of each group, and which state of the code they are of, for the page."""
    rows = [
        (group, len(it), *(sum(row[kind] for row in it) for kind in KINDS))
        for group, it in groups(table).items()
    ]
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    heads = ("Group", "Functions", "Results", "Errors by name", "Too large to call", "Finds")
    text = measured.table(heads, [("all", *totals), *rows], "By `make fuzz`.")
    TABLE.write_text(text, encoding="utf-8")


def print_table(table: dict[str, Counter[str]]) -> None:
    print(f"{'':50} {'calls':>8}" + "".join(f"{kind:>12}" for kind in KINDS))
    rows = [*table.items()]
    rows += [(f"{group}: {len(it)}", sum(it, Counter())) for group, it in groups(table).items()]
    for name, row in rows:
        print(f"{name:50} {row.total():8}" + "".join(f"{row[kind]:12}" for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
