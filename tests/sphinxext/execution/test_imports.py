"""Which files a cell reaches: every form of import, and nothing that is not one."""

from pathlib import Path

import pytest

from llmref.sphinxext.execution.imports import module_file, reached_files

FILES = {
    "llmref/__init__.py": "",
    "llmref/base.py": "import torch",
    "llmref/rl/__init__.py": "",
    "llmref/rl/kl.py": "from llmref.rl._reduce import aggregate",
    "llmref/rl/_reduce.py": "from .. import base",
    "llmref/rl/ppo.py": "from .kl import kl_loss\nfrom . import _reduce",
    "llmref/facade/__init__.py": "from .inner import f",
    "llmref/facade/inner.py": "def f():\n    import llmref.base as b",
    "other/__init__.py": "import llmref.rl.kl",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


KL = {"__init__.py", "rl/__init__.py", "rl/kl.py", "rl/_reduce.py", "base.py"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import llmref", {"__init__.py"}),
        ("import llmref.rl.kl", KL),
        ("import llmref.rl.kl as k", KL),
        ("from llmref.rl import kl", KL),
        ("from llmref.rl.kl import kl_loss, other", KL),
        ("if x:\n    from llmref.rl import kl", KL),
        ("def f():\n    import llmref.rl.kl", KL),
        ("from llmref.rl import ppo", KL | {"rl/ppo.py"}),
        (
            "from llmref.facade import f",
            {"__init__.py", "facade/__init__.py", "facade/inner.py", "base.py"},
        ),
        ("import torch, other", set()),
        ("import llmref_other", set()),
        ("name = 'llmref.rl.kl'", set()),
    ],
)
def test_a_cell_reaches_what_its_imports_reach(root: Path, code: str, expected: set[str]) -> None:
    files = reached_files([code], root)
    assert {path.relative_to(root / "llmref").as_posix() for path in files} == expected


def test_imports_in_a_circle_end(root: Path) -> None:
    (root / "llmref/base.py").write_text("import llmref.rl.kl", encoding="utf-8")
    assert root / "llmref/base.py" in reached_files(["import llmref.rl.kl"], root)


def test_a_syntax_error_is_the_callers(root: Path) -> None:
    with pytest.raises(SyntaxError):
        reached_files(["%matplotlib inline\nimport llmref"], root)


def test_a_name_that_is_no_module_has_no_file(root: Path) -> None:
    assert module_file("llmref.rl.kl.kl_loss", root) is None
    assert module_file("llmref.rl", root) == root / "llmref/rl/__init__.py"
