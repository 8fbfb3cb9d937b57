"""Which files of the package a piece of code reaches, read from the syntax tree.

Leaves out: a module that is named only in a string (importlib.import_module) is not followed.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

# The folder that holds the package, unless the configuration names another.
PACKAGE_ROOT = Path(__file__).parents[3]


def reached_files(code: Iterable[str], root: Path, package: str = "llmref") -> set[Path]:
    """Return the files of `package` (below `root`) that `code` imports, directly or through others.

    ['from llmref.rl import kl'] -> {llmref/__init__.py, llmref/rl/__init__.py, .../kl.py, ...}
    """
    reached: set[Path] = set()
    followed: set[str] = set()
    # Most cells import nothing; parsing all of them would take a second.
    waiting = [
        name for cell in code if package in cell for name in _imported_names(cell, within="")
    ]
    while waiting:
        for module in _with_parents(waiting.pop()):
            if module in followed or module.split(".")[0] != package:
                continue
            followed.add(module)
            if (path := module_file(module, root)) is not None:
                reached.add(path)
                # Relative imports count from the package: the module itself for an __init__.
                within = module if path.name == "__init__.py" else module.rpartition(".")[0]
                waiting.extend(_imported_by(path, within, path.stat().st_mtime_ns))
    return reached


def module_file(name: str, root: Path) -> Path | None:
    """Return the file of module `name`, or None if `name` is no module (but a function, say)."""
    base = root.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=1024)
def _imported_by(path: Path, within: str, _changed: int) -> tuple[str, ...]:
    """What a module imports; its time of change is a part of the cache's key."""
    return tuple(_imported_names(path.read_text(encoding="utf-8"), within))


def _imported_names(code: str, within: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = within.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # The imported name may be a module too: 'from llmref.rl import kl'.
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
