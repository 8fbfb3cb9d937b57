"""The mutants of a topic: one operator, sign, constant or function changed, in one place.

Left out is what changes nothing: docstrings, annotations, and the words of an error. Told apart are
those of a formula, of an argument's default, and of what is refused.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import mutants
from tests.small_site import ROOT


@dataclass(frozen=True)
class Mutant:
    """One change: file, line and words name it; function is the outermost one that holds it."""

    file: str
    line: int
    change: str
    function: str  # "" for a constant of the module
    lines: range  # of the function
    tree: ast.Module
    code: str = ""  # the line as it is
    kind: str = "formula"  # or "default" of an argument, or "refusal": what leads to a `raise`

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}: {self.change}"

    def is_entered(self, place: tuple[str, int]) -> bool:
        """Whether a call of this file and line enters the function, or one within it."""
        return not self.function or (place[0] == self.file and place[1] in self.lines)


def files(topic: str, root: Path = ROOT) -> list[Path]:
    """The module of a topic, or the parts of its package."""
    path = root / "llmref" / topic
    if path.is_dir():
        return sorted(it for it in path.glob("*.py") if it.name != "__init__.py")
    return [path.with_suffix(".py")]


def topics(root: Path = ROOT) -> list[str]:
    """All topics that have code by hand, which are all that have a page."""
    folder = root / "llmref" / "practice" / "by_hand"
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.glob("*/*.py")
        if path.stem != "__init__"
    )


def mutants_of(topic: str, root: Path = ROOT) -> list[Mutant]:
    """All mutants of a topic, in the order of its files and lines."""
    sources = {path: path.read_text(encoding="utf-8") for path in files(topic, root)}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    refusing = _refusing(trees)
    found = []
    for path, source in sources.items():
        tree = trees[path]
        silent = _silent(tree)
        owner = _owners(tree)
        kinds = dict.fromkeys(refusing[path], "refusal")
        kinds |= dict.fromkeys(_defaults(tree), "default")
        codes = source.splitlines()
        for change, mutant in mutants(source):
            place, _, what = change.partition(": ")
            line = int(place.split()[1])
            if line not in silent:
                name = path.relative_to(root).as_posix()
                function, lines = owner.get(line, ("", range(0)))
                code, kind = codes[line - 1].strip(), kinds.get(line, "formula")
                found.append(Mutant(name, line, what, function, lines, mutant, code, kind))
    return found


def _silent(tree: ast.Module) -> set[int]:
    """Lines that only say what is wrong: a `raise` and what is passed to it."""
    return _lines(node for node in ast.walk(tree) if isinstance(node, ast.Raise))


def _lines(nodes: Iterable[ast.stmt | ast.expr]) -> set[int]:
    return {line for it in nodes for line in range(it.lineno, (it.end_lineno or it.lineno) + 1)}


def _refusing(trees: Mapping[Path, ast.Module]) -> dict[Path, set[int]]:
    """Lines that decide whether arguments are refused, or find what the error names.

    `if ...:` with what it holds, if that ends in a `raise`; calls of `require_...`, and functions
    of such a name that compute nothing; and functions that are called in those lines alone.
    """
    lines = {path: _silent(tree) for path, tree in trees.items()}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.If(test=test, body=[*_, ast.Raise()] as body):
                    lines[path] |= _lines([test, *body])
                case ast.Expr(value=ast.Call(func=function)) if "require" in ast.unparse(function):
                    lines[path] |= _lines([node])
                case ast.FunctionDef(name=name) if "require" in name and not _computes(node):
                    lines[path] |= _lines([node])
    waiting = [(path, it) for path, tree in trees.items() for it in tree.body]
    before = -1
    while before != (before := sum(map(len, lines.values()))):
        for path, it in waiting:
            if isinstance(it, ast.FunctionDef) and _is_for(it, lines, trees):
                lines[path] |= _lines([it])
    return lines


def _computes(function: ast.FunctionDef) -> bool:
    """Whether it returns something else than an argument as it was given."""
    given = {it.arg for it in (*function.args.args, *function.args.kwonlyargs)}
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return any(it and not (isinstance(it, ast.Name) and it.id in given) for it in returned)


def _is_for(
    function: ast.FunctionDef, lines: Mapping[Path, set[int]], trees: Mapping[Path, ast.Module]
) -> bool:
    """Whether a function is called, and in these lines alone."""
    calls = [
        node.lineno in lines[path]
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == function.name
    ]
    return all(calls) and bool(calls)


def _defaults(tree: ast.Module) -> set[int]:
    """Lines of the values that arguments and fields have if nobody gives them."""
    values: list[ast.expr | None] = []
    for node in ast.walk(tree):
        match node:
            case ast.arguments(defaults=by_place, kw_defaults=by_name):
                values += [*by_place, *by_name]
            case ast.ClassDef(body=body):
                values += [it.value for it in body if isinstance(it, ast.AnnAssign)]
    return _lines(value for value in values if value)


def _owners(tree: ast.Module) -> dict[int, tuple[str, range]]:
    """For each line the function or method that holds it: its __qualname__, and its lines."""
    found: dict[int, tuple[str, range]] = {}
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for it in inside:
            if isinstance(it, ast.FunctionDef):
                name = f"{node.name}.{it.name}" if isinstance(node, ast.ClassDef) else it.name
                # A call is seen at the first line, which is that of a decorator if there is one.
                start = min([it.lineno, *(decorator.lineno for decorator in it.decorator_list)])
                lines = range(start, (it.end_lineno or it.lineno) + 1)
                found |= dict.fromkeys(lines, (name, lines))
    return found
