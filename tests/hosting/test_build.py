"""What is kept of a work folder, and what is published: with a command in place of Sphinx."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmref.hosting.build import build, intact_files, publish

WRITE = "mkdir -p work/html && echo {0} > work/html/index.html"


def run(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Build with a script of the shell."""
    command = [sys.executable, "-m", "llmref.hosting.build", *options, "work", "site", "--"]
    return subprocess.run(
        [*command, "sh", "-c", script], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with a site and the work folder that it was built in."""
    done = run(tmp_path, WRITE.format("first"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/index.html").read_text(encoding="utf-8") == "first\n"
    return tmp_path


def test_a_work_folder_is_kept_unless_a_fresh_build_is_asked_for(built: Path) -> None:
    look = "mkdir -p work/html && ls work/html > work/html/found"
    assert run(built, look).returncode == 0
    assert "index.html" in (built / "site/found").read_text(encoding="utf-8")
    assert run(built, look, "--fresh").returncode == 0
    assert (built / "site/found").read_text(encoding="utf-8") == "found\n"
    assert not (built / "site/index.html").exists()


def test_what_a_killed_build_has_left_is_not_taken_for_whole(built: Path) -> None:
    killed = run(built, "echo half > work/html/index.html; kill -9 $$")
    assert killed.returncode == 128 + 9
    assert (built / "site/index.html").read_text(encoding="utf-8") == "first\n"
    assert intact_files(built / "work", None) is None
    assert run(built, "mkdir -p work/html && ls work/html > work/html/found").returncode == 0
    assert not (built / "site/index.html").exists()


def test_a_failed_build_keeps_its_work_and_publishes_nothing(built: Path) -> None:
    failed = run(built, "echo wrong > work/html/index.html; exit 2")
    assert failed.returncode == 2
    assert intact_files(built / "work", None)
    assert (built / "site/index.html").read_text(encoding="utf-8") == "first\n"


def test_a_file_that_was_changed_by_others_is_noticed(tmp_path: Path) -> None:
    """Also after a build that has left it alone: what was noted is what the build wrote."""
    work = tmp_path / "work"
    for script in (f"echo 1 > {work}/a; echo 1 > {work}/b", f"echo 2 > {work}/b"):
        assert build(work, None, ["sh", "-c", script]) == 0
        assert intact_files(work, None)
    (work / "a").write_text("2\n", encoding="utf-8")
    assert intact_files(work, None) is None


def test_a_change_of_the_same_size_whose_time_was_put_back_is_noticed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert build(work, None, ["sh", "-c", f"echo 1 > {work}/a"]) == 0
    state = (work / "a").stat()
    (work / "a").write_text("2\n", encoding="utf-8")
    os.utime(work / "a", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert intact_files(work, None) is None


@pytest.mark.parametrize(
    "damage",
    ["echo 3 > {}/a", "rm {}/a", "touch {}/new", "mv {0}/a {0}/b", "echo > {}/manifest.json"],
)
def test_every_damage_to_a_work_folder_is_noticed(tmp_path: Path, damage: str) -> None:
    work = tmp_path / "work"
    assert build(work, None, ["sh", "-c", f"echo 1 > {work}/a; echo 2 > {work}/b"]) == 0
    assert intact_files(work, None)
    subprocess.run(["sh", "-c", damage.format(work)], check=True)
    assert intact_files(work, None) is None


def site(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


@pytest.fixture
def html(tmp_path: Path) -> Path:
    (tmp_path / "html").mkdir()
    for name in ("same", "edited", ".buildinfo", ".buildinfo.bak"):
        (tmp_path / "html" / name).write_text("1", encoding="utf-8")
    return tmp_path / "html"


def test_a_site_is_published_whole_and_without_notes_of_sphinx(html: Path, tmp_path: Path) -> None:
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"same": "1", "edited": "1"}
    (html / "edited").write_text("22", encoding="utf-8")
    (html / "same").rename(html / "moved")
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"moved": "1", "edited": "22"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "site"]


def test_a_file_of_the_same_size_is_published_again(html: Path, tmp_path: Path) -> None:
    publish(html, tmp_path / "site")
    (html / "edited").write_text("2", encoding="utf-8")
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"same": "1", "edited": "2"}


def test_a_page_that_is_gone_is_not_published_any_more(html: Path, tmp_path: Path) -> None:
    publish(html, tmp_path / "site")
    (html / "same").unlink()
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"edited": "1"}


def test_where_no_file_can_be_linked_all_are_copied(
    html: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    publish(html, tmp_path / "site")
    (html / "edited").write_text("22", encoding="utf-8")
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"same": "1", "edited": "22"}


def test_a_site_that_is_published_already_is_left_alone(html: Path, tmp_path: Path) -> None:
    publish(html, tmp_path / "site")
    before = (tmp_path / "site").stat().st_ino
    (html / ".buildinfo").write_text("2", encoding="utf-8")
    publish(html, tmp_path / "site")
    assert (tmp_path / "site").stat().st_ino == before


def test_what_a_publication_that_was_killed_has_left_is_removed(html: Path, tmp_path: Path) -> None:
    publish(html, tmp_path / "site")
    for state in ("new", "old"):
        (tmp_path / f"site.{state}").mkdir()
        (tmp_path / f"site.{state}" / "half").touch()
    (html / "edited").write_text("22", encoding="utf-8")
    publish(html, tmp_path / "site")
    assert site(tmp_path / "site") == {"same": "1", "edited": "22"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "site"]


def test_a_site_may_be_a_link_to_where_it_is_served_from(html: Path, tmp_path: Path) -> None:
    served, link = tmp_path / "served", tmp_path / "site"
    served.mkdir()
    link.symlink_to(served)
    for text in ("one", "three", "five and six"):
        (html / "edited").write_text(text, encoding="utf-8")
        publish(html, link)
        assert site(served) == {"same": "1", "edited": text}
        assert link.is_symlink()


def test_a_published_file_is_no_link_to_the_work_folder(html: Path, tmp_path: Path) -> None:
    """Else the next build would write into the site."""
    for _ in range(2):
        publish(html, tmp_path / "site")
        assert (html / "same").stat().st_nlink == (tmp_path / "site/same").stat().st_nlink == 1
        (html / "edited").write_text("22", encoding="utf-8")
