"""The front doors: what `from llmref.rl import ...` gives, and that it costs nothing before.

Leaves out: how a page's key follows the doors (tests/sphinxext/execution/test_imports.py).
"""

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmref
from llmref.sphinxext.api.public import groups, public_names, stub_lines, topics
from tests.import_graph import modules

ROOT = Path(__file__).parents[1]
# Functions that go by the name of their topic: rms_norm, softmax, ...
SAME_NAME = [
    (f"llmref.{group}", topic)
    for group in groups(ROOT)
    for topic, path in topics(group, ROOT).items()
    if topic in public_names(path)
]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(stub: Path) -> list[str]:
    """The imports of a stub, a line for each, however the formatter has broken them."""
    return [
        f"from .{node.module or ''} import {alias.name} as {alias.asname}"
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


@pytest.mark.parametrize("group", groups(ROOT))
def test_a_door_lists_the_public_names_of_its_topics(group: str) -> None:
    stub = ROOT / "llmref" / group / "__init__.pyi"
    found, wanted = listed(stub), stub_lines(group, ROOT)
    missing = [f"+ {line}" for line in wanted if line not in found]
    surplus = [f"- {line}" for line in found if line not in wanted]
    assert not missing + surplus, "\n".join(
        [f"in llmref/{group}/__init__.pyi write (+) and remove (-):", *surplus, *missing]
    )
    assert found == wanted, f"sort llmref/{group}/__init__.pyi:\n" + "\n".join(wanted)


@pytest.mark.parametrize("group", groups(ROOT))
def test_no_two_topics_of_a_group_share_a_name(group: str) -> None:
    names = [line.split()[-1] for line in stub_lines(group, ROOT)]
    assert sorted(names) == sorted(set(names))


def test_the_outer_door_leads_to_every_group_and_the_checks() -> None:
    wanted = [f"from . import {name} as {name}" for name in sorted([*groups(ROOT), "verify"])]
    assert listed(ROOT / "llmref/__init__.pyi") == wanted
    assert llmref.norm is sys.modules["llmref.norm"]


def test_a_door_loads_nothing_before_a_name_is_asked_for() -> None:
    imports = "".join(f", llmref.{group}" for group in groups(ROOT))
    heavy = "{'torch', 'sympy', 'numpy'} & set(sys.modules)"
    assert run(f"import sys, llmref{imports}; print({heavy})") == "set()\n"


def test_a_door_loads_only_the_topic_of_the_name() -> None:
    code = "import sys; from llmref.rl import kl_loss; print('llmref.rl.dpo' in sys.modules)"
    assert run(code) == "False\n"


def test_every_name_of_every_door_can_be_loaded() -> None:
    for group in groups(ROOT):
        door = getattr(llmref, group)
        for line in stub_lines(group, ROOT):
            _, topic, _, name, *_ = line.split()
            home = f"llmref.{group}{topic}"
            assert getattr(door, name) is getattr(sys.modules[home], name), line
        assert set(dir(door)) == {line.split()[-1] for line in stub_lines(group, ROOT)}


def test_a_name_that_no_topic_has_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_loss"):
        from llmref.rl import no_such_loss  # type: ignore[attr-defined]  # noqa: F401


ORDERS = {
    "the door first": "from {door} import {name} as f",
    "the module first": "import {door}.{name}\nfrom {door} import {name} as f",
    "another name of the module first": (
        "from {door}.{name} import {name} as g\nfrom {door} import {name} as f\nassert f is g"
    ),
    "the module by string first": (
        "import importlib\nimportlib.import_module('{door}.{name}')\nfrom {door} import {name} as f"
    ),
    "the module afterwards": (
        "import {door} as d\nf = d.{name}\nimport {door}.{name}\nassert d.{name} is f"
    ),
    "all names": "from {door} import *\nf = {name}",
    "the outer door": "import llmref\nf = {door}.{name}",
}


# For each program a process that has torch already, which takes most of the time, and no llmref.
FORKS = """
import json, os, sys, traceback
import torch
assert not any(name.partition(".")[0] == "llmref" for name in sys.modules)
ended = {}
for name, program in json.loads(sys.argv[1]).items():
    if not (child := os.fork()):
        try:
            exec(program, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended() -> tuple[dict[str, int], str]:
    """The exit code of a program for each order, and what they have said."""
    assert SAME_NAME
    programs = dict.fromkeys(ORDERS, "import sys\n")
    for order, (door, name) in itertools.product(ORDERS, SAME_NAME):
        programs[order] += ORDERS[order].format(door=door, name=name) + (
            f"\nmodule = sys.modules['{door}.{name}']\n"
            f"assert callable(f) and f is module.{name}, f\n"
            f"from {door}.{name} import {name} as h\nassert h is f\n"
        )
    command = [sys.executable, "-W", "error", "-c", FORKS, json.dumps(programs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_a_function_wins_over_the_module_of_its_name(
    order: str, ended: tuple[dict[str, int], str]
) -> None:
    """`from llmref.norm import rms_norm` is the function, whatever was imported before."""
    codes, said = ended
    assert codes[order] == 0, said


def test_a_topic_without_a_function_of_its_name_is_a_module() -> None:
    code = (
        "from llmref.functional import sampling\nfrom llmref.components import bpe\n"
        "from llmref.rl import kl_loss, kl\nprint(*(type(x).__name__ for x in (sampling, bpe, kl)))"
    )
    assert run(code) == "module module module\n"


def test_type_checkers_see_what_python_sees(tmp_path: Path) -> None:
    seen = tmp_path / "seen.py"
    seen.write_text(
        "from llmref.norm import rms_norm\nfrom llmref.norm.rms_norm import rms_norm_backward\n"
        "from llmref.functional import sampling\nfrom llmref.attention import MultiHeadAttention\n"
        "reveal_type(rms_norm)\nreveal_type(rms_norm_backward)\nreveal_type(sampling)\n"
        "reveal_type(MultiHeadAttention)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(seen)], capture_output=True, text=True, cwd=ROOT
    )
    shown = [line.partition('"')[2] for line in done.stdout.splitlines() if "Revealed" in line]
    function, backward, module, layer = shown
    assert function.startswith("def (x: torch._tensor.Tensor")
    assert backward.startswith("def (grad_output: torch._tensor.Tensor")
    assert module.startswith("types.ModuleType")
    assert layer.endswith('-> llmref.attention.multi_head.layer.MultiHeadAttention"')


def test_our_own_modules_go_past_the_doors() -> None:
    """Through a door the graph of imports would not see which topic is meant."""
    for path in modules(ROOT).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in {
                f"llmref.{group}" for group in groups(ROOT)
            }:
                offered = [line.split()[-1] for line in stub_lines(node.module[7:], ROOT)]
                taken = {alias.name for alias in node.names} & set(offered)
                assert not taken, f"{path}, line {node.lineno}: import {taken} from its topic"
