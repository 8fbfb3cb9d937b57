"""Finds where an llmref object is defined, by reading files: nothing is imported.

Leaves out: which objects are public (public), and how the site shows them (source, listing).
"""

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmref.sphinxext.execution.imports import door_names, module_file

Defined = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Definition:
    """A function, class or method, or a name that is assigned: its file, and its syntax tree."""

    name: str  # from where it is defined: 'llmref.attention.multi_head.layer.MultiHeadAttention'
    path: Path
    node: Defined | ast.Assign | ast.AnnAssign

    @property
    def lines(self) -> tuple[int, int]:
        """The first line, which may be a decorator's, and the last one."""
        decorators = getattr(self.node, "decorator_list", [])
        assert self.node.end_lineno is not None
        return min(n.lineno for n in (self.node, *decorators)), self.node.end_lineno


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file, which is not to be changed."""
    state = path.stat()
    return _parse(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=1024)
def _parse(path: Path, *state: int) -> ast.Module:
    """Parse a file once for as long as its size and times are the same."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def find_definition(name: str, root: Path) -> Definition:
    """Return the definition of the function, class or method `name`.

    A name that a module only imports, as a front door does, is looked up where it is defined.
    Raises: LookupError that names the part which does not exist.
    """
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        path = module_file(module, root)
        if path is not None:
            break
    else:
        raise LookupError(f"no module on the way to {name}")
    body: list[ast.stmt] = parse(path).body
    for depth, part in enumerate(parts[end:]):
        found = [node for node in body if _defines(node, part)]
        if not found and depth == 0 and (home := _imported_from(part, body, module, path)):
            return find_definition(".".join([home, *parts[end + 1 :]]), root)
        if not found:
            raise LookupError(f"{path.name} defines no {part} (of {name})")
        node = found[-1]
        body = getattr(node, "body", [])
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign))
    return Definition(name, path, node)


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == name
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name


def _imported_from(name: str, body: list[ast.stmt], module: str, path: Path) -> str:
    """'llmref.rl.ppo.terms.entropy_bonus', if a module imports `name` from there."""
    if home := door_names(path.with_suffix(".pyi")).get(name):
        return f"{module}.{home}.{name}"
    for node in body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return f"{node.module}.{alias.name}"
    return ""
