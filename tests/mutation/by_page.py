"""Do the cells of a page, which are its checks, reject a mutant?

The cells run one after another; a mutant is tried in a copy of the process as it is before the
first cell that enters its function, so what comes before is computed once.
"""

import json
import os
from collections.abc import Iterator
from types import CodeType

from tests.mutation.calls import recorded
from tests.mutation.forked import ALIVE, outcome
from tests.mutation.install import install
from tests.mutation.sites import Mutant
from tests.pages import cells


def reject_by_page(
    topic: str, files: set[str], mutants: list[Mutant], seconds: float = 60
) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with 'killed' or 'alive'; one whose function no cell enters is alive."""
    os.environ["MPLBACKEND"] = "Agg"
    codes = [compile(cell, f"{topic}, cell {i}", "exec") for i, cell in enumerate(cells(topic))]
    first = _first_cells(codes, files)
    waiting = list(mutants)
    scope: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(codes):
        now = [it for it in waiting if _first(it, first) == number]
        for mutant in now:

            def attempt(mutant: Mutant = mutant, number: int = number) -> bool:
                install(mutant)
                for later in codes[number:]:
                    exec(later, scope)
                return True

            yield mutant, outcome(attempt, seconds)
        waiting = [it for it in waiting if it not in now]
        exec(code, scope)
    yield from ((mutant, ALIVE) for mutant in waiting)


def _first(mutant: Mutant, first: dict[tuple[str, int], int]) -> int | None:
    return min((n for place, n in first.items() if mutant.is_entered(place)), default=None)


def _first_cells(codes: list[CodeType], files: set[str]) -> dict[tuple[str, int], int]:
    """For each function the first cell that enters it, found in a copy of the process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        scope: dict[str, object] = {"__name__": "__main__"}
        found: dict[tuple[str, int], int] = {}
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            for number, code in enumerate(codes):
                with recorded(files) as seen:
                    exec(code, scope)
                for place in seen:
                    found.setdefault(place, number)
            places = [[file, line, number] for (file, line), number in found.items()]
            os.write(write, json.dumps(places).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the cells must pass before the mutants are tried")
    return {(file, line): number for file, line, number in json.loads(text)}
