"""Which files a cell reaches: every form of import, and nothing that is not one."""

import os
from pathlib import Path

import pytest

from llmref.sphinxext.execution.imports import module_file, package_files, reached_files
from llmref.sphinxext.execution.keys import key_of

FILES = {
    "llmref/__init__.py": "",
    "llmref/base.py": "import torch",
    "llmref/rl/__init__.py": "",
    "llmref/rl/kl.py": "from llmref.rl._reduce import aggregate",
    "llmref/rl/_reduce.py": "from .. import base",
    "llmref/rl/ppo.py": "from .kl import kl_loss\nfrom . import _reduce",
    "llmref/facade/__init__.py": "from .inner import f",
    "llmref/facade/inner.py": "def f():\n    import llmref.base as b",
    "llmref/norm/__init__.py": "",  # a front door
    "llmref/norm/__init__.pyi": "from .rms import rms as rms\nfrom .inner import g as g\n",
    "llmref/norm/rms.py": "",
    "llmref/norm/inner/__init__.py": "from llmref.norm.inner.part import g",
    "llmref/norm/inner/part.py": "import llmref.base",
    "llmref/norm/unlisted.py": "",
    "llmref/starred/__init__.py": "__all__ = ['f', 'one']",
    "llmref/starred/one.py": "",
    "llmref/starred/two.py": "",
    "llmref/joined/__init__.py": "__all__ = [*others]",
    "llmref/joined/one.py": "",
    "other/__init__.py": "import llmref.rl.kl",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


DOOR = {"__init__.py", "norm/__init__.py", "norm/__init__.pyi"}
INNER = {"norm/inner/__init__.py", "norm/inner/part.py", "base.py"}
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
        # Through a front door
        ("from llmref.norm import rms", DOOR | {"norm/rms.py"}),
        ("from llmref.norm import g as h", DOOR | INNER),
        ("from llmref.norm import unlisted", DOOR - {"norm/__init__.pyi"} | {"norm/unlisted.py"}),
        ("from llmref.norm import inner", DOOR - {"norm/__init__.pyi"} | INNER),
        ("from llmref.norm.rms import rms", DOOR - {"norm/__init__.pyi"} | {"norm/rms.py"}),
        ("import llmref.norm", DOOR | INNER | {"norm/rms.py"}),
        ("import llmref.norm as n", DOOR | INNER | {"norm/rms.py"}),
        ("from llmref import norm", DOOR | INNER | {"norm/rms.py"}),
        ("from llmref.norm import *", DOOR | INNER | {"norm/rms.py"}),
        ("import llmref.rl.kl\nllmref.norm.rms(x)", KL | DOOR | {"norm/rms.py"}),
        ("import llmref.rl.kl\nf(llmref.norm)", KL | DOOR | INNER | {"norm/rms.py"}),
        # All that a package names
        ("from llmref.starred import *", {"__init__.py", "starred/__init__.py", "starred/one.py"}),
        ("from llmref.joined import *", {"__init__.py", "joined/__init__.py", "joined/one.py"}),
        # By string
        ("import importlib\nimportlib.import_module('llmref.rl.kl')", KL),
        ("import_module('.kl', package='llmref.rl')", KL),
        ("__import__('llmref.rl.kl')", KL),
        ("import_module(f'llmref.rl.{name}')", set()),
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


def test_python_prefers_a_package_to_a_module_of_its_name(root: Path) -> None:
    (root / "llmref/rl/kl").mkdir()
    (root / "llmref/rl/kl/__init__.py").write_text("", encoding="utf-8")
    assert module_file("llmref.rl.kl", root) == root / "llmref/rl/kl/__init__.py"


def test_a_door_of_doors_hands_out_one_name(root: Path) -> None:
    (root / "llmref/__init__.pyi").write_text("from . import norm as norm", encoding="utf-8")
    files = reached_files(["import llmref.base\nllmref.norm.rms(x)"], root)
    names = {path.relative_to(root / "llmref").as_posix() for path in files}
    assert names == DOOR | {"__init__.pyi", "base.py", "norm/rms.py"}


def test_a_module_that_imports_through_a_door_is_followed(root: Path) -> None:
    (root / "llmref/base.py").write_text("from llmref.norm import rms", encoding="utf-8")
    assert root / "llmref/norm/rms.py" in reached_files(["from llmref import base"], root)


def test_an_edited_stub_is_read_again_and_changes_the_key(root: Path) -> None:
    """One page takes a name from the door, the other one goes past it."""
    through = [{"source": "from llmref.norm import rms", "tags": []}]
    past = [{"source": "from llmref.norm.rms import rms", "tags": []}]
    before = key_of(through, root, ()), key_of(past, root, ())
    stub = root / "llmref/norm/__init__.pyi"
    stub.write_text("from .inner import g as rms\nfrom .inner import rms as rms", encoding="utf-8")
    os.utime(stub, (1, 1))  # whatever the clock's resolution
    assert key_of(through, root, ()) != before[0]
    assert key_of(past, root, ()) == before[1]
    assert root / "llmref/norm/inner/part.py" in reached_files([through[0]["source"]], root)


def test_the_files_of_the_package_are_its_modules_and_its_stubs(root: Path) -> None:
    (root / "llmref/py.typed").touch()
    found = {path.relative_to(root).as_posix() for path in package_files(root)}
    assert found == {name for name in FILES if name.startswith("llmref/")}
