"""Which module of llmref imports which, read from the syntax trees: nothing is imported.

`python -m tests.import_graph` draws it, a line for each module.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """The files of the package, by dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / "llmref").rglob("*.py"))
    }


def draw(root: Path = ROOT) -> dict[str, set[str]]:
    """What each module imports of the package, at the top or inside a function."""
    known = modules(root)
    return {name: _imports(path, known) - {name} for name, path in known.items()}


def _imports(path: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}, line {node.lineno}: write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        # 'from llmref.rl import kl' imports a module, 'from llmref.rl.kl import f' a name of one.
        found |= {
            next((n for n in (name, name.rpartition(".")[0]) if n in known), "") for name in names
        }
    return found - {""}


def _without_type_checking(tree: ast.Module) -> ast.Module:
    """A tree without what only a type checker reads."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


if __name__ == "__main__":
    for module, imported in draw().items():
        print(module, "<-", ", ".join(sorted(imported)) or "nothing of ours")
