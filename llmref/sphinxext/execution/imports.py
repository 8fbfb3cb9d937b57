"""Which files of the package a piece of code reaches, read from the syntax tree.

A package with an __init__.pyi is a front door (lazy_loader): the stub says which module each name
is loaded from, so `from llmref.rl import kl_loss` reaches the door, kl and what kl imports, and
`import llmref.rl`, which may take any name, reaches all that the door can load. Imports by string
are followed where the string is a constant: `importlib.import_module("llmref.rl.kl")`.
Leaves out: a string that is put together when the code runs, and all other ways to a module, such
as sys.modules, exec, runpy or pickle.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

# The folder that holds the package, unless the configuration names another.
PACKAGE_ROOT = Path(__file__).parents[3]

# A module, and the attributes that are taken from it, one from the other; no attributes stand for
# the module as an object, from which anything may be taken later, and '*' for `import *`.
Reference = tuple[str, tuple[str, ...]]


def reached_files(code: Iterable[str], root: Path, package: str = "llmref") -> set[Path]:
    """Return the files of `package` (below `root`) that `code` imports, directly or through others.

    ['from llmref.rl import kl'] -> {llmref/__init__.py, llmref/rl/__init__.py, .../kl.py, ...}
    """
    walk = _Walk(root, package)
    # Most cells import nothing; parsing all of them would take a second.
    for cell in code:
        if package in cell:
            walk.waiting.extend(_references(cell, "", package))
    return walk.files()


def package_files(root: Path, package: str = "llmref") -> set[Path]:
    """Return all files that code can reach: the modules, and the stubs of the front doors."""
    folder = root / package
    return {path for ending in ("*.py", "*.pyi") for path in folder.rglob(ending)}


def module_file(name: str, root: Path) -> Path | None:
    """Return the file of module `name`, or None if `name` is no module (but a function, say)."""
    base = root.joinpath(*name.split("."))
    # Where both are there, Python takes the package.
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def door_names(stub: Path) -> dict[str, str]:
    """Return what a front door hands out: each name with its module, '' for a submodule itself.

    'from .kl import kl_loss as kl_loss' -> {'kl_loss': 'kl'}
    """
    return _door_names(stub, stub.stat().st_mtime_ns) if stub.is_file() else {}


class _Walk:
    """Follows references until there are no new ones."""

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root, package
        self.reached: set[Path] = set()
        self.waiting: list[Reference] = []

    def files(self) -> set[Path]:
        followed: set[Reference] = set()
        while self.waiting:
            reference = self.waiting.pop()
            if reference not in followed and reference[0].split(".")[0] == self.package:
                followed.add(reference)
                self._follow(*reference)
        return self.reached

    def _follow(self, module: str, names: tuple[str, ...]) -> None:
        """Run `module` with the packages around it, then take from it what is asked for."""
        parts = module.split(".")
        path = None
        for end in range(1, len(parts) + 1):
            path = self._run(".".join(parts[:end]))
        if path is None:
            return
        stub = path.with_suffix(".pyi")
        offered = door_names(stub)
        for name in self._asked_for(path, names, offered):
            if name in offered:
                self.reached.add(stub)
                home = f"{module}.{offered[name]}" if offered[name] else module
                taken = (home, (name,)) if offered[name] else (f"{module}.{name}", names[1:])
                self.waiting.append(taken)
            elif module_file(f"{module}.{name}", self.root):
                self.waiting.append((f"{module}.{name}", names[1:]))

    def _asked_for(
        self, path: Path, names: tuple[str, ...], offered: dict[str, str]
    ) -> Iterable[str]:
        if names and names != ("*",):
            return names[:1]
        if offered:
            self.reached.add(path.with_suffix(".pyi"))
            return offered
        return _exported(path) if names else ()

    def _run(self, module: str) -> Path | None:
        """Note that a module is run, and what it imports then."""
        path = module_file(module, self.root)
        if path is not None and path not in self.reached:
            self.reached.add(path)
            # Relative imports count from the package: the module itself for an __init__.
            within = module if path.name == "__init__.py" else module.rpartition(".")[0]
            time = path.stat().st_mtime_ns
            self.waiting.extend(_references_of(path, within, self.package, time))
        return path


@lru_cache(maxsize=64)
def _door_names(stub: Path, _changed: int) -> dict[str, str]:
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


@lru_cache(maxsize=1024)
def _references_of(path: Path, within: str, package: str, _changed: int) -> tuple[Reference, ...]:
    """What a module refers to; its time of change is a part of the cache's key."""
    return tuple(_references(path.read_text(encoding="utf-8"), within, package))


def _exported(path: Path) -> list[str]:
    """The names in `__all__`, which may be submodules; all submodules if it is no plain list."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "__all__"]
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets == named:
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:  # made of other lists
                break
    return [other.stem for other in path.parent.iterdir()] if named else []


def _references(code: str, within: str, package: str) -> Iterator[Reference]:
    """Yield what `code` refers to; relative imports count from the package `within`."""
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), within)
            yield from ((base, (alias.name,)) for alias in node.names)
        elif chain := _chain(node, package):
            yield chain
            continue  # llmref.rl.kl_loss asks for one name, and not for llmref.rl as a whole
        elif isinstance(node, ast.Call) and (name := _imported_by_string(node, within)):
            yield name, ()
        waiting.extend(ast.iter_child_nodes(node))


def _absolute(name: str, within: str) -> str:
    """'..base' within 'llmref.rl' -> 'llmref.base'."""
    rest = name.lstrip(".")
    if not (level := len(name) - len(rest)):
        return name
    parts = within.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [rest])])


def _chain(node: ast.AST, package: str) -> Reference | None:
    """Read llmref.rl.kl_loss, as code writes it after `import llmref.rl`."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    is_package = isinstance(node, ast.Name) and node.id == package
    return (package, tuple(names)) if is_package else None


def _imported_by_string(call: ast.Call, within: str) -> str:
    """'llmref.rl.kl' for import_module("llmref.rl.kl") and import_module(".kl", "llmref.rl")."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else None
    function = call.func.id if isinstance(call.func, ast.Name) else function
    if function not in ("import_module", "__import__"):
        return ""
    given = dict(zip(("name", "package"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    text = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
    name, package = text.get("name"), text.get("package", within)
    if not isinstance(name, str) or not isinstance(package, str):
        return ""
    return _absolute(name, package)
