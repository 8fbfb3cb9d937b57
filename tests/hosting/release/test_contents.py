"""The wheel of a release: a file too many or too few, a path of the machine, a name that fails."""

import shutil
import zipfile
from pathlib import Path

import pytest

from llmref.hosting.release.checkout import Checkout, RefusedError
from llmref.hosting.release.contents import check_files, check_names, check_paths, check_wheel
from llmref.hosting.wheel import build_wheel
from tests.hosting.release.conftest import Project


def test_a_good_wheel_installs_and_is_used(project: Project) -> None:
    said = check_wheel(project.release)
    assert said == "llmref-0.2.0-py3-none-any.whl: 3 files, 1 names"


def test_a_file_that_git_does_not_know_is_refused(project: Project) -> None:
    project.write("llmref/part/draft.py", "")
    with pytest.raises(RefusedError, match=r"not the package's: llmref/part/draft\.py"):
        check_wheel(project.release)


def test_tests_in_the_wheel_are_refused(project: Project, tmp_path: Path) -> None:
    wheel = build_wheel(project.root, tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tests/test_it.py", "")
    with pytest.raises(RefusedError, match=r"not the package's: tests/test_it\.py"):
        check_files(wheel, project.release)


def test_a_data_file_that_the_wheel_lacks_is_refused(project: Project) -> None:
    """It stands in no pattern of package-data."""
    project.write("llmref/part/data.txt", "")
    project.commit()
    with pytest.raises(RefusedError, match=r"lacks llmref/part/data\.txt"):
        check_wheel(project.release)


def test_settings_of_the_checkout_are_not_missed(project: Project) -> None:
    project.write("llmref/part/.npmrc", "")
    project.commit()
    assert "3 files" in check_wheel(project.release)


def test_a_wheel_of_another_version_is_refused(project: Project, tmp_path: Path) -> None:
    wheel = build_wheel(project.root, tmp_path)
    project.edit("pyproject.toml", 'version = "0.2.0"', 'version = "0.2.1"')
    with pytest.raises(RefusedError, match=r"whl is not of version 0\.2\.1"):
        check_files(wheel, Checkout(project.root))


def test_a_path_of_the_machine_is_refused(project: Project) -> None:
    project.write("llmref/part/one.py", f"def f():\n    return '{project.root}/data'\n")
    with pytest.raises(RefusedError, match=r"llmref/part/one\.py in the wheel names .*project"):
        check_wheel(project.release)


def test_only_a_whole_path_counts(project: Project, tmp_path: Path) -> None:
    """A folder /home/a is not named by /home/ab/c, nor by https://host/home/a/c."""
    text = "# /home/ab/c, https://example.org/home/a/c, /home/a\n"
    project.write("llmref/part/one.py", text)
    wheel = build_wheel(project.root, tmp_path / "good")
    check_paths(wheel, [Path("/home/a"), Path("/")])
    project.write("llmref/part/one.py", "# '/home/a/c'\n")
    with pytest.raises(RefusedError, match=r"one\.py in the wheel names /home/a$"):
        check_paths(build_wheel(project.root, tmp_path / "bad"), [Path("/home/a")])


def test_a_name_that_cannot_be_imported_is_refused(project: Project) -> None:
    project.edit("llmref/part/__init__.py", "['f']", "['f', 'g']")
    with pytest.raises(RefusedError, match=r"the wheel: AttributeError: .*no attribute 'g'"):
        check_wheel(project.release)


def test_a_module_that_only_the_checkout_has_is_refused(project: Project) -> None:
    """Beside the checkout it would be found: the wheel is used from an empty folder."""
    project.write("tests/help.py", "")
    project.edit("llmref/part/one.py", "def", "import tests.help\n\ndef")
    with pytest.raises(RefusedError, match=r"the wheel: ModuleNotFoundError: No module named"):
        check_wheel(project.release)


def test_what_was_installed_must_be_the_version(project: Project, tmp_path: Path) -> None:
    project.edit("llmref/__init__.py", "0.2.0", "0.1.9")
    wheel = build_wheel(project.root, tmp_path)
    with pytest.raises(RefusedError, match=r"installed, the wheel is version 0\.1\.9, not 0\.2\.0"):
        check_names(wheel, "0.2.0", tmp_path / "installed")
    shutil.rmtree(tmp_path / "installed")
    wheel.write_bytes(b"no archive")
    with pytest.raises(RefusedError, match="the wheel: ERROR"):
        check_names(wheel, "0.2.0", tmp_path / "installed")
