"""The Makefile's promises: a failed build costs nothing, bad interpreters get one clear line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "LLMREF"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's own Makefile and conf.py around one page."""
    for name in ("Makefile", "conf.py", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    docs = tmp_path / "docs"
    for name in ("_static/favicon.svg", "results.schema.json"):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / name, docs / name)
    (docs / "references.bib").write_text("", encoding="utf-8")
    (docs / "result-ids.txt").write_text("", encoding="utf-8")
    (docs / "index.md").write_text("# First\n\n$x$\n", encoding="utf-8")
    return tmp_path


def build(project: Path) -> subprocess.CompletedProcess[str]:
    # The environment that runs the tests is complete: take its stamp for granted.
    return make(project, "html", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs")


def test_a_failed_build_leaves_the_last_good_site_and_fails_until_mended(project: Path) -> None:
    page, built = project / "docs/index.md", project / "_build/html/index.html"
    first = build(project)
    assert first.returncode == 0, first.stderr
    assert "First" in built.read_text(encoding="utf-8")
    page.write_text("# Second\n\n$\\nosuchmacro$\n", encoding="utf-8")
    for _ in range(2):  # nothing has changed the second time, and it still must fail
        failed = build(project)
        assert failed.returncode != 0
        assert "docs/index.md:3: WARNING: KaTeX" in failed.stderr
        assert "_build/html is as it was" in failed.stderr
        assert "First" in built.read_text(encoding="utf-8")
    page.write_text("# Third\n", encoding="utf-8")
    assert build(project).returncode == 0
    assert "Third" in built.read_text(encoding="utf-8")


def test_two_builds_at_once_take_turns(project: Path) -> None:
    """The second finds nothing to do, and neither removes what the other works on."""
    arguments = ["html", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs"]
    builds = [
        subprocess.Popen(
            ["make", *arguments],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in builds]
    assert [process.returncode for process in builds] == [0, 0], outputs
    assert sum("Another build is running here" in output for output in outputs) == 1
    assert "First" in (project / "_build/html/index.html").read_text(encoding="utf-8")


def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    shown = make(ROOT, "help").stdout
    listed = set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE))
    assert listed == set(phony[1].split())


def test_an_interpreter_that_is_too_old_gets_one_clear_line(project: Path) -> None:
    old = project / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make(project, "html", f"PYTHON={old}", "VENV=new")
    assert done.returncode != 0
    first = done.stderr.splitlines()[0]
    assert "llmref needs Python 3.11 or newer" in first
    assert "is Python 3.8.1" in first
    assert "Traceback" not in done.stderr
    assert not (project / "new").exists()


def test_a_missing_interpreter_is_named(project: Path) -> None:
    done = make(project, "test", "PYTHON=no-such-python", "VENV=new")
    assert done.returncode != 0
    assert "no interpreter 'no-such-python'" in done.stderr.splitlines()[0]


def test_a_page_that_does_not_exist_is_named(project: Path) -> None:
    done = make(project, "page", "P=rl/none", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs")
    assert done.returncode != 0
    assert "there is no docs/rl/none.md" in done.stderr


@pytest.mark.parametrize("folder", ["my venv", "", "a  b"])
def test_an_environment_whose_path_has_a_space_is_refused(project: Path, folder: str) -> None:
    """Unquoted it would be two: `make distclean` would remove both."""
    kept = project / "my" / "file"
    kept.parent.mkdir()
    kept.touch()
    for target in ("html", "distclean"):
        done = make(project, target, f"VENV={folder}")
        assert done.returncode != 0
        assert done.stderr.strip().endswith(
            f"VENV must be one path without a space, got '{folder}'.  Stop."
        )
        assert len(done.stderr.splitlines()) == 1
    assert kept.is_file()


def test_a_locale_that_is_not_installed_does_no_harm(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "xx_XX.UTF-8")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    done = build(project)
    assert done.returncode == 0, done.stderr
