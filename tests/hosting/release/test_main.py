"""`make release-check`: all checks are tried, each failure is one line, and what is left out is."""

from collections.abc import Callable

import pytest

from llmref.hosting.release.__main__ import CHECKS, main
from llmref.hosting.release.checkout import Checkout, RefusedError
from tests.hosting.release.conftest import Project
from tests.test_make import ROOT, make


def refusing(release: Checkout) -> str:
    raise RefusedError("it is wrong:\n  so")


def broken(release: Checkout) -> str:
    raise FileNotFoundError("no such file")


def good(release: Checkout) -> str:
    return "fine"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().out.splitlines()


def test_all_checks_are_tried_and_a_failure_is_one_line(lines: Callable[[], list[str]]) -> None:
    assert main([], {"tag": refusing, "ids": broken, "bytes": good}) == 1
    assert lines() == [
        "FAILED    tag: it is wrong: so",
        "FAILED    ids: FileNotFoundError: no such file",
        "ok        bytes: fine",
        "2 of 3 checks failed.",
    ]


def test_what_is_left_out_is_said_and_is_no_failure(lines: Callable[[], list[str]]) -> None:
    assert main(["--quick"], {"tag": good, "bytes": refusing}) == 0
    assert lines() == [
        "ok        tag: fine",
        "LEFT OUT  bytes: site and EPUB were not built twice, so nothing is known of it",
        "No check failed.",
    ]
    assert main([], {"bytes": refusing}) == 1


def test_a_good_project_passes_every_check_and_one_fault_fails(
    project: Project, lines: Callable[[], list[str]]
) -> None:
    at = ["--quick", "--root", str(project.root)]
    assert main(at) == 0, lines()
    lines()
    (project.root / "CHANGELOG.md").unlink()
    assert main([*at, "--tag", "v9.0.0"]) == 1
    said = lines()
    assert len(said) == len(CHECKS) + 1
    assert said[0] == "FAILED    tag: TAG=v9.0.0, but the version is 0.2.0: v0.2.0"
    assert said[1].startswith("FAILED    versions: FileNotFoundError: ")


def test_make_hands_on_what_was_asked_for() -> None:
    told = make(ROOT, "--dry-run", "release-check", "TAG=v0.1.0", "QUICK=1").stdout
    assert 'llmref.hosting.release --tag "v0.1.0" --quick' in told
    told = make(ROOT, "--dry-run", "release-check").stdout
    assert told.rstrip().endswith("-m llmref.hosting.release")
