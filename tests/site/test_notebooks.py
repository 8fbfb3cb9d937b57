"""A downloaded notebook runs where nothing but the wheel of llmref is installed of this project."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import ROOT

PAGES = ("functional/softmax", "norm/rms_norm", "rl/kl")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, made from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    tracked = subprocess.run(
        ["git", "ls-files", "llmref", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for name in tracked:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    zipfile.ZipFile(built).extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("page", PAGES)
def test_a_downloaded_notebook_runs(
    html: Path, wheel: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(html / f"{page}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert "pip install llmref matplotlib" in notebook.cells[0].source
    where = nbformat.v4.new_code_cell("import llmref; print(llmref.__file__)")
    notebook.cells.insert(0, where)
    monkeypatch.setenv("PYTHONPATH", str(wheel))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    checked = [len(cell.outputs) for cell in code]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert str(wheel) in where.outputs[0].text
    assert [len(cell.outputs) for cell in code] == checked  # the same cells print something
    assert os.listdir(tmp_path) == [] or set(os.listdir(tmp_path)) <= {"profile_default"}
