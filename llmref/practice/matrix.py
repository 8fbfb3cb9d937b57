"""Which input of an exercise gives which mistake away: the kill matrix, measured when it is asked.

Leaves out: mutants of the solutions, which tests make.
"""

import html
from collections.abc import Iterable
from dataclasses import dataclass

from llmref.practice import compared
from llmref.practice.exercise import Exercise
from llmref.practice.exercises import exercises
from llmref.practice.judging import output


@dataclass(frozen=True)
class Kill:
    """One mistake: for each input whether it gives it away, and the first law that it breaks.

    `law` is empty if it breaks the definition alone.
    """

    mistake: str
    given_away: tuple[bool, ...]
    law: str


def kills(exercise: Exercise) -> list[Kill]:
    """Run every mistake of an exercise on each of its inputs, in float64."""
    inputs = exercise.inputs()
    wanted = [output(exercise.solution, given) for given in inputs]
    found = []
    for name, function in exercise.wrong.items():
        pairs = zip((output(function, given) for given in inputs), wanted, strict=True)
        given_away = tuple(not compared.same(one, other) for one, other in pairs)
        broken = (law.words for law in exercise.laws if law.broken_by(function, inputs))
        found.append(Kill(name, given_away, next(broken, "")))
    return found


class Matrix:
    """The kill matrix of all exercises, a table for each; it shows itself in a notebook."""

    def __init__(self, asked: Iterable[Exercise] | None = None) -> None:
        """Measure it."""
        self.rows = {it.name: kills(it) for it in (asked or exercises().values())}

    def __str__(self) -> str:
        every = [kill for found in self.rows.values() for kill in found]
        missed = sum(not any(kill.given_away) for kill in every)
        weakest = min(sum(kill.given_away) / len(kill.given_away) for kill in every)
        return (
            f"Exercises: {len(self.rows)}; mistakes: {len(every)}, of which {missed} not given "
            f"away; the best hidden shows on {weakest:.0%} of the inputs of its exercise"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(_table(name, found) for name, found in self.rows.items())
        return f"<div class='llmref-said'><p>{html.escape(str(self))}.</p>{tables}</div>"


def _table(name: str, found: list[Kill]) -> str:
    numbers = "".join(f"<th>{n}</th>" for n in range(1, 1 + len(found[0].given_away)))
    rows = "".join(
        f"<tr><td>{html.escape(kill.mistake)}</td>"
        + "".join(f"<td>{'x' if shown else ''}</td>" for shown in kill.given_away)
        + f"<td>{html.escape(kill.law or 'the definition')}</td></tr>"
        for kill in found
    )
    summary = f"<code>{name}</code>, {len(found)} mistakes"
    head = f"<tr><th>mistake</th>{numbers}<th>the first law that it breaks</th></tr>"
    return (
        f"<details><summary>{summary}</summary>"
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table></details>"
    )
