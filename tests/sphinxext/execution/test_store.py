"""What is kept between builds: whole, or missing."""

import os
import time
from pathlib import Path

import pytest

from llmref.sphinxext.execution.store import OutputCache, read_entry, write_entry, write_whole

OUTPUTS = [[{"output_type": "stream", "name": "stdout", "text": "π\r\n"}], []]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[]", b"\xff\xfe\0", b"0\n[]", b"null"],
    ids=["empty", "object", "list", "no UTF-8", "other digest", "null"],
)
def test_a_damaged_entry_is_missing_and_can_be_written_again(tmp_path: Path, damage: bytes) -> None:
    cache = OutputCache(tmp_path)
    cache.store("key", OUTPUTS)
    assert cache.load("key") == OUTPUTS
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage)
    assert cache.load("key") is None
    entry.write_bytes(whole[:-2])
    assert cache.load("key") is None
    cache.store("key", OUTPUTS)
    assert cache.load("key") == OUTPUTS


def test_line_ends_are_kept(tmp_path: Path) -> None:
    write_entry(tmp_path / "x.formula", "a\r\nb\n")
    assert read_entry(tmp_path / "x.formula") == "a\r\nb\n"


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"a": 1}', b'{"a": ["x", 1]}', b"\xff", b"{"])
def test_damaged_times_are_no_times(tmp_path: Path, damage: bytes) -> None:
    cache = OutputCache(tmp_path)
    (tmp_path / "times.json").write_bytes(damage)
    assert cache.times() == {}
    cache.store_times({"a": [1.0, 0.5]})
    assert cache.times() == {"a": [1.0, 0.5]}


def test_the_times_of_pages_that_did_not_run_are_kept(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path)
    cache.store_times({"a": [1.0, 0.5], "b": [2.0, 0.5]})
    cache.store_times({"b": [3.0, 0.5]})
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(tmp_path / "times.json", (month_ago, month_ago))
    cache.prune()
    assert cache.times() == {"a": [1.0, 0.5], "b": [3.0, 0.5]}


def test_only_what_no_build_has_used_for_a_month_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = OutputCache(tmp_path)
    for key in ("old", "used", "new"):
        cache.store(key, OUTPUTS)
    month_ago = time.time() - 31 * 24 * 3600
    for key in ("old", "used"):
        os.utime(tmp_path / f"{key}.outputs", (month_ago, month_ago))
    cache.load("used")
    cache.prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.outputs", "used.outputs"]
    # Another build removes a file between the listing and the look at it.
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([tmp_path / "gone.tmp"]))
    cache.prune()


def test_a_file_that_cannot_be_written_whole_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(tmp_path / "x", "text")
    assert list(tmp_path.iterdir()) == []


def test_two_builds_may_write_a_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between the writing of the first and its last step."""
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(os, "getpid", lambda: 0)
        write_whole(tmp_path / "x", "other")
        replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    write_whole(tmp_path / "x", "first")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "first"
