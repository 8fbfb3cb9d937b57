"""A server of kernels is started early where pages will probably run, and not for prose."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmref.sphinxext.execution import startup
from tests.small_site import EXECUTED, Site

BEFORE, BUILT, AFTER = 1_000_000_000, 1_500_000_000, 1_600_000_000


def write(path: Path, text: str, at: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("built", "edited", "early"),
    [
        (False, "docs/executed.md", True),
        (False, "docs/prose.md", True),  # the other page has never run
        (True, "docs/prose.md", False),
        (True, "docs/executed.md", True),
        (True, "llmref/rl/kl.py", True),
        (True, "llmref/hosting/build.py", False),
        (True, "llmref/sphinxext/single.py", False),
    ],
)
def test_a_page_that_runs_or_a_module_that_it_may_import_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool, edited: str, early: bool
) -> None:
    monkeypatch.setattr(startup, "PACKAGE_ROOT", tmp_path)
    app = SimpleNamespace(srcdir=tmp_path / "docs", doctreedir=tmp_path / "doctrees")
    for name in ("prose.md", "executed.md"):
        text = (EXECUTED if name == "executed.md" else "") + "# Page\n\nOf mystnb.\n"
        write(tmp_path / "docs" / name, text, BEFORE)
    for name in ("rl/kl.py", "hosting/build.py", "sphinxext/single.py"):
        write(tmp_path / "llmref" / name, "", BEFORE)
    if built:
        write(tmp_path / "doctrees/llmref.json", "{}", BUILT)
    os.utime(tmp_path / edited, (AFTER, AFTER))
    assert startup._looks_edited(app) is early


def test_a_site_without_code_never_needs_kernels(tmp_path: Path) -> None:
    write(tmp_path / "docs/prose.md", "# Page\n", AFTER)
    app = SimpleNamespace(srcdir=tmp_path / "docs", doctreedir=tmp_path / "doctrees")
    assert startup._looks_edited(app) is False


def test_garbage_is_looked_for_in_what_a_build_makes_and_in_nothing_else(site: Site) -> None:
    """What is loaded stays, and in a site of this size to look through it takes seconds."""
    site.configure(
        "import atexit, gc\n"
        "atexit.register(lambda: print(f'left: {gc.get_count()[0] < 100}'))\n"
        "def say(*_):\n"
        "    print(f'collects: {gc.isenabled()}, frozen: {gc.get_freeze_count() > 0}')\n"
        "def setup(app):\n"
        "    app.connect('source-read', say)\n"
        "    print(f'loading: {gc.isenabled()}')"
    )
    site.configure("extensions.insert(0, 'llmref.sphinxext.execution.startup')")
    site.write("index.md", "# I\n")
    status = site.build_cold().status
    assert "loading: False" in status
    assert "collects: True, frozen: True" in status
    assert "left: True" in status
