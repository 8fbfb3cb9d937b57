"""The Makefile's promises: a failed build costs nothing, bad interpreters get one clear line."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmref.hosting.build import intact_files
from tests.small_site import tree

ROOT = Path(__file__).parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "LLMREF"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's own Makefile and conf.py around one page."""
    for name in ("Makefile", "conf.py", "pyproject.toml", "CITATION.cff", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    docs = tmp_path / "docs"
    for name in ("_static/favicon.svg", "results.schema.json"):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / name, docs / name)
    (docs / "references.bib").write_text("", encoding="utf-8")
    (docs / "result-ids.txt").write_text("", encoding="utf-8")
    (docs / "index.md").write_text("# First\n\n$x$\n", encoding="utf-8")
    (docs / "404.md").write_text("---\norphan: true\n---\n# None\n", encoding="utf-8")
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
    mended = build(project)
    assert mended.returncode == 0
    assert "0 added, 1 changed, 0 removed" in mended.stdout  # and the other page is as it was
    assert "Third" in built.read_text(encoding="utf-8")


def test_a_damaged_work_folder_is_not_published(project: Path) -> None:
    """Sphinx alone finds all up to date, and publishes what is there."""
    assert build(project).returncode == 0
    site, work = project / "_build/html", project / "_build/work/html"
    whole = tree(site)

    def rebuild() -> None:
        again = build(project)
        assert again.returncode == 0, again.stderr
        assert tree(site) == whole

    (work / "index.html").write_bytes(b"\xff\xfe\0")
    (work / "searchindex.js").unlink()
    (work / "_static" / "left.svg").write_text("<svg/>", encoding="utf-8")
    rebuild()
    (entry,) = (project / "_build/cache").glob("*.formula")
    entry.write_bytes(entry.read_bytes()[:-20])
    shutil.rmtree(project / "_build/work")
    rebuild()


def test_a_work_folder_that_was_copied_is_intact(project: Path) -> None:
    """Its files have other times, as on a machine that keeps _build from run to run."""
    assert build(project).returncode == 0
    work = project / "_build/work"
    shutil.copytree(work, work.with_name("copy"))
    shutil.rmtree(work)
    work.with_name("copy").rename(work)
    assert intact_files(work, project / "conf.py")
    (project / "conf.py").touch()
    assert intact_files(work, project / "conf.py")
    (project / "conf.py").write_text("", encoding="utf-8")
    assert intact_files(work, project / "conf.py") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whom", ["make", "lock"])
def test_a_build_ends_with_whoever_started_it(
    project: Path, whom: str, number: signal.Signals
) -> None:
    """Nothing of it runs on, and the next build does not wait for the dead."""
    with (project / "conf.py").open("a", encoding="utf-8") as conf:
        conf.write("import time\n(ROOT / 'started').touch()\ntime.sleep(600)\n")
    process = subprocess.Popen(
        ["make", "html", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(project / "started")
    below = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid if whom == "make" else below[0].pid, number)
    assert process.wait(20) != 0
    assert psutil.wait_procs(below, timeout=5)[1] == []
    lock = [sys.executable, "-m", "llmref.hosting.lock", str(project / "_build/lock")]
    assert subprocess.run([*lock, "true"], capture_output=True, timeout=10).stdout == b""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


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
    waited = [output for output in outputs if "Another build is running here" in output]
    assert len(waited) == 1
    assert re.search(r"running here \(process \d+, since \d\d:\d\d:\d\d\): waiting", waited[0])
    assert "First" in (project / "_build/html/index.html").read_text(encoding="utf-8")


def test_a_command_under_a_lock_hands_on_its_exit_code(tmp_path: Path) -> None:
    lock = [sys.executable, "-m", "llmref.hosting.lock", str(tmp_path / "lock")]
    assert subprocess.run([*lock, "sh", "-c", "exit 3"], check=False).returncode == 3
    assert subprocess.run([*lock, "sh", "-c", "kill -9 $$"], check=False).returncode == 137
    if sys.platform == "linux":  # what runs under it cannot keep it
        opened = subprocess.run([*lock, "ls", "-l", "/proc/self/fd"], capture_output=True).stdout
        assert b" -> " in opened
        assert bytes(tmp_path / "lock") not in opened


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


def page(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    return make(project, "page", f"P={name}", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs")


def test_a_single_page_knows_the_site_and_fails_if_it_must(project: Path) -> None:
    docs, work = project / "docs", project / "_build/work/html"
    (docs / "index.md").write_text("# First\n\n```{toctree}\na\nb\n```\n", encoding="utf-8")
    (docs / "a.md").write_text("# A\n\nSee [](b.md).\n", encoding="utf-8")
    (docs / "b.md").write_text("# B\n\nSee [](a.md).\n", encoding="utf-8")
    first = page(project, "a")  # nothing was built before: so all is
    assert (first.returncode, first.stderr) == (0, "")
    assert "The page is in _build/work/html/a.html; it is not published." in first.stdout
    assert not (project / "_build/html").exists()
    (docs / "a.md").write_text("# A\n\nSee [](b.md) and $\\nosuchmacro$.\n", encoding="utf-8")
    (docs / "b.md").write_text("# Edited\n\n$\\another$\n", encoding="utf-8")
    for _ in range(2):
        wrong = page(project, "a")
        assert wrong.returncode != 0
        assert wrong.stderr.count("WARNING") == 1
        assert len(wrong.stdout.splitlines()) == 1
        assert "Edited" not in (work / "b.html").read_text(encoding="utf-8")
    (docs / "a.md").write_text("# New\n\nSee [](b.md).\n", encoding="utf-8")
    mended = page(project, "a")
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "New" in (work / "a.html").read_text(encoding="utf-8")
    failed = build(project)  # what was left aside is not forgotten
    assert failed.returncode != 0
    assert "docs/b.md:3: WARNING: KaTeX" in failed.stderr
    (docs / "b.md").write_text("# Edited\n\nSee [](a.md).\n", encoding="utf-8")
    assert build(project).returncode == 0
    site = tree(project / "_build/html")
    shutil.rmtree(project / "_build")
    assert build(project).returncode == 0
    assert tree(project / "_build/html") == site


def test_a_folder_that_cannot_be_written_gets_one_clear_line(project: Path) -> None:
    (project / "_build").write_text("no folder", encoding="utf-8")
    done = build(project)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    first = done.stderr.splitlines()[0]
    assert re.match(r"make html: \[Errno \d+\] .*_build", first)


def test_a_page_that_is_new_to_the_site_can_be_built(project: Path) -> None:
    """The contents are read again too: else the page would be in no toctree."""
    docs = project / "docs"
    assert build(project).returncode == 0
    (docs / "new.md").write_text("# New\n", encoding="utf-8")
    (docs / "index.md").write_text("# First\n\n```{toctree}\nnew\n```\n", encoding="utf-8")
    done = page(project, "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (project / "_build/html/new.html").exists()


def test_a_part_of_the_tests_that_is_not_there_is_named(project: Path) -> None:
    stamps = [f"-o{sys.prefix}/{stamp}" for stamp in (".docs", ".test")]
    done = make(project, "test", "T=tests/none.py::test_it", f"VENV={sys.prefix}", *stamps)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "make test: there is no tests/none.py"


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
