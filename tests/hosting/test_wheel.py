"""The wheel of a checkout: the same files give the same bytes, and a refusal says why."""

import os
import zipfile
from pathlib import Path

import pytest

from llmref.hosting.wheel import build_wheel, digest, wheel_name

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "llmref"
version = "1.2.3"
readme = "README.md"
[tool.setuptools.packages.find]
include = ["llmref*"]
[tool.setuptools.package-data]
llmref = ["*.mplstyle"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "llmref" / "part" / "__pycache__").mkdir(parents=True)
    for name, text in {
        "pyproject.toml": PROJECT,
        "README.md": "# Read\n",
        "LICENSE": "Free.\n",
        "llmref/__init__.py": "",
        "llmref/a.mplstyle": "lines.linewidth: 1\n",
        "llmref/part/__init__.py": "x = 1\n",
        "llmref/part/__pycache__/a.pyc": "",
    }.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_the_wheel_holds_the_package_and_its_data(checkout: Path, tmp_path: Path) -> None:
    wheel = build_wheel(checkout, tmp_path / "made")
    assert wheel == tmp_path / "made" / wheel_name("llmref", "1.2.3")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    assert names == {"llmref/__init__.py", "llmref/a.mplstyle", "llmref/part/__init__.py"}
    before = sorted(path.name for path in checkout.iterdir())
    assert before == ["LICENSE", "README.md", "llmref", "pyproject.toml"]  # nothing is left there


def test_the_same_files_give_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    """At another time, and for a user whose new files nobody else may read."""
    first = build_wheel(checkout, tmp_path / "first")
    assert {info.date_time[0] for info in zipfile.ZipFile(first).infolist()} == {1980}
    before = os.umask(0o077)
    try:
        second = build_wheel(checkout, tmp_path / "second")
    finally:
        os.umask(before)
    assert second.read_bytes() == first.read_bytes()


def test_a_digest_changes_with_every_file_that_counts(checkout: Path) -> None:
    digests = [digest(checkout)]
    (checkout / "llmref/part/__pycache__/a.pyc").write_text("other", encoding="utf-8")
    (checkout / "note.txt").write_text("other", encoding="utf-8")
    assert digest(checkout) == digests[0]
    for name in ("README.md", "pyproject.toml", "llmref/a.mplstyle", "llmref/new.py"):
        (checkout / name).write_text("# other", encoding="utf-8")
        digests.append(digest(checkout))
    assert len(set(digests)) == 5


def test_a_checkout_that_is_no_package_is_refused_with_the_reason(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "pyproject.toml").write_text("[project]\nversion = 1\n", encoding="utf-8")
    with pytest.raises(OSError, match="(?s)no wheel could be built: .*project"):
        build_wheel(checkout, tmp_path)
