"""What of the package is public, by group and topic, read from the files.

A group is a package with a front door (__init__.pyi). What is public in a topic: of a package the
names in its `__all__`, of a module its functions and classes without a leading underscore.
Leaves out: where a name is defined (definitions), and how it is shown (listing).
"""

import ast
from pathlib import Path

from llmref.sphinxext.api.definitions import parse

PACKAGE = "llmref"


def groups(root: Path) -> list[str]:
    """Return the groups of topics: the packages with a front door."""
    return sorted(stub.parent.name for stub in (root / PACKAGE).glob("*/__init__.pyi"))


def topics(group: str, root: Path) -> dict[str, Path]:
    """Return the topics of a group with their files; a leading underscore is for what they share.

    'rl' -> {'dpo': llmref/rl/dpo/__init__.py, 'grpo': llmref/rl/grpo.py, ...}
    """
    found = {}
    for path in sorted((root / PACKAGE / group).glob("[!_]*")):
        door = path / "__init__.py"
        if path.suffix == ".py" or door.is_file():
            found[path.stem] = door if door.is_file() else path
    return found


def public_names(path: Path) -> list[str]:
    """Return the public names of a topic, in the order of its file."""
    body = parse(path).body
    if path.name == "__init__.py":
        lists = [n.value for n in body if isinstance(n, ast.Assign) and _names(n) == ["__all__"]]
        return list(ast.literal_eval(lists[0])) if lists else []
    defined = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [name for name in defined if not name.startswith("_")]


def stub_lines(group: str, root: Path) -> list[str]:
    """Return the lines that the front door of a group must have, in the order of the formatter."""
    return [
        f"from .{topic} import {name} as {name}"
        for topic, path in topics(group, root).items()
        for name in sorted(public_names(path), key=_isort_key)
    ]


def _isort_key(name: str) -> tuple[int, str]:
    """CONSTANTS come before Classes, and these before functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]
