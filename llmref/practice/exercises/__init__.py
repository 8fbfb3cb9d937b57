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
    """All exercises by name, in the order of groups and topics.

    Raises: ValueError if two topics have one of the same name.
    """
    folder = Path(__file__).parent
    found: dict[str, Exercise] = {}
    for path in sorted(folder.glob("*/[!_]*.py")):
        module = importlib.import_module(f"{__name__}.{path.parent.name}.{path.stem}")
        for it in module.EXERCISES:
            laws = tuple(of_numbers(law, it) for law in it.laws)
            if it.name in found:
                raise ValueError(
                    f"the exercise {it.name} is of {found[it.name].topic}, and of {it.topic} too"
                )
            found[it.name] = replace(it, laws=laws)
    return found


def exercise(name: str) -> Exercise:
    """The exercise of a name.

    Raises: KeyError with the nearest names.
    """
    known = exercises()
    plain = name.rpartition("/")[2].removesuffix(".py")  # as 'practice/rope.py' or 'norm/rms_norm'
    if plain in known:
        return known[plain]
    of_topic = [it.name for it in known.values() if it.topic.rpartition("/")[2] == plain]
    near = of_topic or get_close_matches(plain, known, n=3, cutoff=0.6)
    hint = f"; is it {' or '.join(near)}?" if near else "; llmref practice lists them"
    raise KeyError(f"there is no exercise {name!r}{hint}")
