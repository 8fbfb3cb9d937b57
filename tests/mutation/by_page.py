"""Do the cells of a page, which are its checks, reject a mutant?

The cells run one after another; a mutant is tried in a copy of the process as it is before the
first cell that enters its function, so what comes before is computed once.
"""

import ast
import json
import os
from collections.abc import Iterator, Mapping
from types import CodeType

from tests.mutation.calls import recorded
from tests.mutation.forked import ALIVE, outcome
from tests.mutation.install import install
from tests.mutation.sites import Mutant
from tests.pages import cells

Entered = Mapping[tuple[str, int], list[int]]  # by file and line of a function, cells that enter it


class Page:
    """The cells of a page, which pass, with what each of them enters."""

    def __init__(self, topic: str, files: set[str]) -> None:
        os.environ["MPLBACKEND"] = "Agg"
        self.cells = cells(topic)
        self.codes = [
            compile(cell, f"{topic}, cell {number}", "exec")
            for number, cell in enumerate(self.cells)
        ]
        self.entered = _entered(self.codes, files)

    def entering(self, mutant: Mutant) -> list[int]:
        """The cells that enter the mutant's function."""
        return sorted(
            {n for place, found in self.entered.items() if mutant.is_entered(place) for n in found}
        )

    def results(self, mutant: Mutant) -> list[str]:
        """The results whose checks stand in those cells."""
        found = [checked(self.cells[number]) for number in self.entering(mutant)]
        return sorted(set().union(*found))

    def reject(self, mutants: list[Mutant], seconds: float = 60) -> Iterator[tuple[Mutant, str]]:
        """Each mutant with 'killed' or 'alive'; one whose function no cell enters is alive."""
        waiting = list(mutants)
        scope: dict[str, object] = {"__name__": "__main__"}
        for number, code in enumerate(self.codes):
            now = [it for it in waiting if self.entering(it)[:1] == [number]]
            for mutant in now:

                def attempt(mutant: Mutant = mutant, number: int = number) -> bool:
                    install(mutant)
                    for later in self.codes[number:]:
                        exec(later, scope)
                    return True

                yield mutant, outcome(attempt, seconds)
            waiting = [it for it in waiting if it not in now]
            exec(code, scope)
        yield from ((mutant, ALIVE) for mutant in waiting)


def checked(cell: str) -> set[str]:
    """The results that a cell checks: what its calls of `verify` name first."""
    found = set()
    for call in ast.walk(ast.parse(cell)):
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="verify"), attr=check),
                args=[ast.Constant(value=str(result)), *_],
            ) if check.islower():  # the others are parts of formulas, such as verify.Mean
                found.add(result)
    return found


def _entered(codes: list[CodeType], files: set[str]) -> Entered:
    """For each function the cells that enter it, found in a copy of the process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        scope: dict[str, object] = {"__name__": "__main__"}
        found: dict[tuple[str, int], list[int]] = {}
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            for number, code in enumerate(codes):
                with recorded(files) as seen:
                    exec(code, scope)
                for place in seen:
                    found.setdefault(place, []).append(number)
            places = [[file, line, numbers] for (file, line), numbers in found.items()]
            with os.fdopen(write, "w") as pipe:
                json.dump(places, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the cells must pass before the mutants are tried")
    return {(file, line): numbers for file, line, numbers in json.loads(text)}
