"""The exercises, a file for each topic: what judges a reader's function."""

import importlib
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from llmref.practice.exercise import Exercise
from llmref.practice.exercises._laws import of_numbers


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by name, in the order of groups and topics."""
    folder = Path(__file__).parent
    found = {}
    for path in sorted(folder.glob("*/[!_]*.py")):
        module = importlib.import_module(f"{__name__}.{path.parent.name}.{path.stem}")
        for it in module.EXERCISES:
            laws = tuple(of_numbers(law, it) for law in it.laws)
            found[it.name] = replace(it, laws=laws)
    return found


def exercise(name: str) -> Exercise:
    """The exercise of a name.

    Raises: KeyError with the nearest names.
    """
    known = exercises()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; is it {' or '.join(near)}?" if near else ""
        raise KeyError(f"there is no exercise {name!r}{hint}")
    return known[name]
