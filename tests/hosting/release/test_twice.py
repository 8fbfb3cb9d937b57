"""Two builds in two folders: what depends on the folder is found, and a failed one says why."""

from pathlib import Path

import pytest

from llmref.hosting.release.checkout import RefusedError
from llmref.hosting.release.twice import check_bytes, digests
from tests.hosting.release.conftest import Project

MAKEFILE = """
strict:
	@mkdir -p _build/html/rl && cp README.md _build/html/index.html
	@echo %s > _build/html/rl/kl.html
epub:
	@cp README.md _build/llmref.epub
"""


def makefile(project: Project, page: str) -> None:
    project.write("Makefile", MAKEFILE % page)
    project.commit()


def test_the_same_bytes_pass(project: Project) -> None:
    makefile(project, "same")
    assert check_bytes(project.release) == "3 files of two builds are the same"


@pytest.mark.parametrize("page", ["$(CURDIR)", "$$PYTHONPATH"])
def test_a_page_that_tells_its_folder_is_refused(project: Project, page: str) -> None:
    makefile(project, page)
    with pytest.raises(RefusedError, match=r"^two builds differ in 1 files: html/rl/kl\.html$"):
        check_bytes(project.release)


def test_a_file_that_only_one_build_has_is_refused(project: Project) -> None:
    built = iter(["llmref.epub", "other.epub"])

    def build(folder: Path) -> None:
        (folder / "_build").mkdir()
        (folder / "_build" / next(built)).write_bytes(b"")

    with pytest.raises(RefusedError, match=r"differ in 2 files: llmref\.epub, other\.epub"):
        check_bytes(project.release, build)


def test_a_build_that_fails_says_why(project: Project) -> None:
    project.write("Makefile", "strict:\n\t@echo 'rl/kl.md:3: a check fails' >&2; false\n")
    project.commit()
    with pytest.raises(RefusedError, match=r"^make strict epub: rl/kl\.md:3: a check fails$"):
        check_bytes(project.release)


def test_a_build_of_nothing_is_refused(project: Project) -> None:
    with pytest.raises(RefusedError, match="nothing was built"):
        check_bytes(project.release, lambda folder: None)


def test_only_what_is_published_is_compared(project: Project, tmp_path: Path) -> None:
    """The work folder and the cache hold times and paths."""
    for name in ("html/index.html", "llmref.epub", "work/doctrees/a", "cache/a", "lock"):
        (tmp_path / "built" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "built" / name).write_bytes(b"")
    assert sorted(digests(tmp_path / "built")) == ["html/index.html", "llmref.epub"]


def test_what_git_does_not_know_is_not_built(project: Project) -> None:
    project.write("secret.txt", "")

    def build(folder: Path) -> None:
        assert (folder / "README.md").is_file()
        assert not (folder / "secret.txt").exists()
        (folder / "_build/html").mkdir(parents=True)
        (folder / "_build/html/index.html").touch()

    assert check_bytes(project.release, build) == "1 files of two builds are the same"
