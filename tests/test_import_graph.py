"""Imports flow one way: leaves <- functional <- norm, components <- attention <- training,
inference.

From functional alone rl imports too. One topic stands above its group: a decoder is made of parts
of all of them.
On top of all groups is practice, whose code by hand imports nothing of ours.
"""

import ast
import sys
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.import_graph import draw, modules

LEAVES = {"_numeric", "_require", "records", "tex"}
# For each room of the package, the rooms that it may import from.
MAY_IMPORT = {
    **dict.fromkeys(LEAVES, LEAVES),
    "functional": LEAVES | {"functional"},
    "norm": LEAVES | {"norm", "functional"},
    "components": LEAVES | {"components", "functional"},
    "attention": LEAVES | {"attention", "components", "norm", "functional"},
    "rl": LEAVES | {"rl", "functional"},
    "inference": LEAVES | {"inference", "attention", "components", "norm", "functional"},
    "training": LEAVES | {"training", "attention", "components", "norm", "functional"},
    "verify": LEAVES | {"verify"},
    "practice": LEAVES
    | {"practice", "attention", "components", "norm", "functional", "rl", "inference", "training"}
    | {"verify"},
    "hosting": LEAVES | {"hosting"},
    "__main__": {"practice"},
    "sphinxext": LEAVES | {"sphinxext", "hosting"},
}
# A topic that may import from more rooms than its group; only these and those above may import it.
ASSEMBLED = {"components.decoder": LEAVES | {"components", "attention", "norm", "functional"}}
ABOVE_ASSEMBLED = {"training", "inference", "practice"}
# The same within the machinery.
MAY_IMPORT_IN_SPHINXEXT = {
    "borrowed": set(),
    "single": set(),
    "transforms": set(),
    "execution": {"execution"},
    "results": {"results", "transforms"},
    "api": {"api", "execution", "results", "single", "transforms"},
    "topics": {"topics", "results", "api"},
    "incremental": {"incremental", "execution", "results", "single", "topics", "transforms"},
    "web": {"web", "execution", "results", "borrowed"},
    "downloads": {"downloads", "api", "execution", "results", "single", "topics", "web"},
    "books": {"books"},
}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The arrows that lead to a room which may not be reached from there."""
    return [
        f"{module} -> {other}"
        for module, imported in graph.items()
        for other in sorted(imported)
        if not may_import(module.split(".")[1:], other.split(".")[1:])
    ]


def may_import(module: list[str], other: list[str]) -> bool:
    if not module or not other:  # `llmref` itself imports nothing and may be imported by all
        return not other
    if module[0] == other[0] == "sphinxext" and len(module) > 1 and len(other) > 1:
        return other[1] in MAY_IMPORT_IN_SPHINXEXT[module[1]]
    topic, of_other = ".".join(module[:2]), ".".join(other[:2])
    if of_other in ASSEMBLED and topic != of_other and module[0] not in ABOVE_ASSEMBLED:
        return False
    return other[0] in ASSEMBLED.get(topic, MAY_IMPORT[module[0]])


def foreign(paths: Iterable[Path]) -> list[str]:
    """What code by hand imports besides torch and the standard library."""
    return [
        f"{path.name}: {name}"
        for path in sorted(paths)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node)
        if name.partition(".")[0] not in {"torch", *sys.stdlib_module_names}
    ]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or "."] if isinstance(node, ast.ImportFrom) else []


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def write(root: Path, files: dict[str, str]) -> dict[str, set[str]]:
    for name, text in files.items():
        path = root / "llmref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return draw(root)


def test_no_import_leads_upwards() -> None:
    assert upward(draw()) == []


def test_no_import_leads_in_a_circle() -> None:
    assert circle(draw()) == []


def test_every_room_is_known() -> None:
    assert {name.split(".")[1] for name in modules() if "." in name} == set(MAY_IMPORT)


def test_an_upward_arrow_is_found(tmp_path: Path) -> None:
    files = {"rl/kl.py": "", "functional/softmax.py": "def f():\n    from llmref.rl import kl"}
    assert upward(write(tmp_path, files)) == ["llmref.functional.softmax -> llmref.rl.kl"]


def test_a_part_may_not_import_what_is_assembled_of_parts(tmp_path: Path) -> None:
    files = {
        "components/decoder.py": "import llmref.attention.a\nimport llmref.rl.b",
        "components/rope.py": "import llmref.attention.a",
        "attention/a.py": "",
        "attention/c.py": "import llmref.components.decoder",
        "rl/b.py": "",
        "training/d.py": "import llmref.components.decoder",
    }
    assert upward(write(tmp_path, files)) == [
        "llmref.attention.c -> llmref.components.decoder",
        "llmref.components.decoder -> llmref.rl.b",
        "llmref.components.rope -> llmref.attention.a",
    ]


def test_an_upward_arrow_within_the_machinery_is_found(tmp_path: Path) -> None:
    files = {"sphinxext/results/a.py": "import llmref.sphinxext.web.b", "sphinxext/web/b.py": ""}
    arrow = "llmref.sphinxext.results.a -> llmref.sphinxext.web.b"
    assert upward(write(tmp_path, files)) == [arrow]


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {"rl/a.py": "from llmref.rl.b import f", "rl/b.py": "import llmref.rl.a"}
    assert set(circle(write(tmp_path, files))) == {"llmref.rl.a", "llmref.rl.b"}


def test_what_only_a_type_checker_reads_is_no_arrow(tmp_path: Path) -> None:
    files = {"rl/a.py": "if TYPE_CHECKING:\n    import llmref.rl.b", "rl/b.py": ""}
    assert write(tmp_path, files)["llmref.rl.a"] == set()


def test_a_relative_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a\.py, line 1: write imports in full"):
        write(tmp_path, {"rl/a.py": "from . import b"})


def test_code_by_hand_imports_torch_and_the_standard_library_only() -> None:
    files = [path for name, path in modules().items() if name.startswith("llmref.practice.by_hand")]
    assert files
    assert foreign(files) == []


def test_a_foreign_import_of_code_by_hand_is_found(tmp_path: Path) -> None:
    text = "import math\nimport torch.nn.functional as F\n\n\ndef f():\n    import llmref.rl.kl\n"
    (tmp_path / "a.py").write_text(text + "    from numpy import exp", encoding="utf-8")
    assert foreign([tmp_path / "a.py"]) == ["a.py: llmref.rl.kl", "a.py: numpy"]


def test_no_group_may_import_practice(tmp_path: Path) -> None:
    files = {"rl/kl.py": "import llmref.practice.by_hand.a", "practice/by_hand/a.py": ""}
    assert upward(write(tmp_path, files)) == ["llmref.rl.kl -> llmref.practice.by_hand.a"]


def test_no_module_shadows_the_standard_library() -> None:
    """A script's own folder comes first on the search path, so a `math.py` there would be taken."""
    names = {name.rpartition(".")[2] for name in modules()}
    assert not names & set(sys.stdlib_module_names)
