"""`make topic` starts a topic that is green, and refuses what cannot be one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.new_topic import into_stub, main
from tests.small_site import tree
from tests.test_make import make

ROOT = Path(__file__).parents[1]
PARTS = ("llmref", "docs", "tests")
FILES = ("Makefile", "conf.py", "pyproject.toml", "CITATION.cff", "README.md", "LICENSE")


def copy_to(folder: Path) -> Path:
    folder.mkdir()
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def topic(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    # The environment that runs the tests is complete: take its stamps for granted.
    stamps = [f"-o{sys.prefix}/{stamp}" for stamp in (".docs", ".test")]
    return make(project, "topic", f"T={name}", f"VENV={sys.prefix}", *stamps)


def run(project: Path, *command: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files(project: Path) -> dict[str, bytes]:
    return {name: text for name, text in tree(project).items() if "__pycache__" not in name}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], str]:
    """A copy of the project with a new topic, what it was before, and what the command said."""
    project = copy_to(tmp_path_factory.mktemp("topic") / "project")
    before = files(project)
    done = topic(project, "functional/hinge_loss")
    assert done.returncode == 0, done.stdout + done.stderr
    return project, before, done.stdout


def test_a_topic_is_made_and_entered_where_it_must_be(
    started: tuple[Path, dict[str, bytes], str],
) -> None:
    project, before, said = started
    after = files(project)
    caches = (".pytest_cache", ".hypothesis")
    changed = {n for n in after if after[n] != before.get(n) and not n.startswith(caches)}
    assert changed == {
        "llmref/functional/hinge_loss.py",
        "llmref/functional/__init__.pyi",
        "llmref/practice/by_hand/functional/hinge_loss.py",
        "llmref/practice/exercises/functional/hinge_loss.py",
        "tests/practice/solutions/functional_hinge_loss.py",
        "docs/functional/hinge_loss.md",
        "docs/index.md",
        "docs/result-ids.txt",
        "docs/agreement.json",
        "tests/functional/test_hinge_loss.py",
        "tests/oracle/test_hinge_loss.py",
    }
    assert all(name in said for name in changed)
    index = after["docs/index.md"].decode()
    assert ",\n{doc}`hinge loss <functional/hinge_loss>`\n:::" in index
    assert "\nfunctional/hinge_loss\n```" in index


def test_the_tests_of_a_new_topic_pass(started: tuple[Path, dict[str, bytes], str]) -> None:
    project = started[0]
    tests = ["tests/functional/test_hinge_loss.py", "tests/test_mirror.py", "tests/test_doors.py"]
    # What has to do with the names of topics; the rest of the doors is as it was.
    apart = "not wins and not type_ch and not without_a_function and not door_loads"
    run(project, "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", apart)
    run(project, "pytest", "-q", "tests/practice/test_exercises.py", "-k", "hinge_loss")
    oracle = ["-c", "tests/oracle/pytest.ini", "--rootdir", ".", "tests/oracle/test_hinge_loss.py"]
    run(project, "pytest", "-q", *oracle)


def test_a_new_topic_is_formatted_and_without_lint(
    started: tuple[Path, dict[str, bytes], str],
) -> None:
    project = started[0]
    made = ["llmref/functional", "llmref/practice", "tests/functional", "tests/oracle"]
    run(project, "ruff", "format", "--check", *made)
    run(project, "ruff", "check", *made)


def test_the_page_of_a_new_topic_builds_without_a_warning(
    started: tuple[Path, dict[str, bytes], str],
) -> None:
    project = started[0]
    one = ["-D", "include_patterns=functional/hinge_loss.md", "-D", "llmref_result_ids="]
    one += ["-D", "root_doc=functional/hinge_loss"]
    built = project / "_build/one"
    run(project, "sphinx", "-nW", "--keep-going", "--conf-dir", ".", *one, "docs", str(built))
    page = (built / "functional/hinge_loss.html").read_text(encoding="utf-8")
    assert "1 result, 3 checks executed" in page


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    project = copy_to(tmp_path_factory.mktemp("refused") / "project")
    return project, files(project)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "say T=group/name"),
        ("hinge", "say T=group/name"),
        ("rl/Hinge-Loss", "say T=group/name"),
        ("rl/a/b", "say T=group/name"),
        ("rl/_hidden", "say T=group/name"),
        ("rl/lambda", "say T=group/name"),
        ("rl/../kl", "say T=group/name"),
        ("optim/adam", "there is no group 'optim'; there are attention, components,"),
        ("sphinxext/hinge", "there is no group 'sphinxext'"),
        ("functional/math", "'math' would shadow"),
        ("rl/index", "'index' would shadow"),
        ("rl/kl", "llmref.rl has 'kl' already"),
        ("attention/masks", "llmref.attention has 'masks' already"),
        ("norm/fold_rms_norm", "llmref.norm has 'fold_rms_norm' already"),
    ],
)
def test_what_cannot_be_a_topic_gets_one_line_and_nothing_is_made(
    project: tuple[Path, dict[str, bytes]], name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(name, project[0]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"make topic: {said}")
    assert files(project[0]) == project[1]


def test_a_refusal_reaches_whoever_runs_make(project: tuple[Path, dict[str, bytes]]) -> None:
    done = topic(project[0], "rl/kl")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert lines == ["make topic: llmref.rl has 'kl' already"]
    assert files(project[0]) == project[1]


def test_a_topic_whose_test_fails_is_taken_back(tmp_path: Path) -> None:
    project = copy_to(tmp_path / "project")
    template = project / "tests/topic_template/oracle.py.txt"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("torch.square(x + y)", "torch.square(x)"), encoding="utf-8")
    before = files(project)
    done = topic(project, "norm/other_norm")
    assert done.returncode != 0
    assert "make topic: the new test fails" in done.stderr
    after = {name: text for name, text in files(project).items() if "cache" not in name}
    assert after == {name: text for name, text in before.items() if "cache" not in name}


def test_a_line_of_a_front_door_goes_to_its_sorted_place() -> None:
    text = "from .a import b as b\nfrom .c import (\n    d as d,\n)\n"
    new = {"group": "g", "version": "1"}
    assert into_stub(text, name="b", **new) == (
        "from .a import b as b\nfrom .b import b as b\nfrom .c import (\n    d as d,\n)\n"
    )
    assert into_stub(text, name="e", **new) == text + "from .e import e as e\n"


def test_a_part_of_the_tests_can_be_run() -> None:
    stamps = [f"-o{sys.prefix}/{stamp}" for stamp in (".docs", ".test")]
    shown = make(ROOT, "-n", "test", "T=tests/norm", f"VENV={sys.prefix}", *stamps)
    assert re.search(r"-m pytest -q .* tests/norm\n", shown.stdout)
