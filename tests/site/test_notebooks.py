"""A downloaded notebook runs where nothing of this project but the site's wheel is installed."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PAGES = ("functional/softmax", "norm/rms_norm", "rl/grpo", "rl/kl")
FUNCTIONS = ("rms_norm", "rms_norm_backward")


@pytest.fixture(scope="session")
def installed(html: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with the wheel that stands beside the site, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel") / "site"
    (wheel,) = (html / "_static").glob("*.whl")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def test_the_wheel_has_what_pages_need(installed: Path) -> None:
    package = installed / "llmref"
    assert (package / "figures.mplstyle").is_file()
    assert {path.parent.name for path in package.glob("*/__init__.pyi")} >= {"norm", "rl"}


@pytest.mark.parametrize("page", PAGES)
def test_a_downloaded_notebook_runs(
    html: Path, installed: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(html / f"{page}.ipynb", as_version=4)
    nbformat.validate(notebook)
    (wheel,) = (html / "_static").glob("*.whl")
    assert f"%pip install --quiet matplotlib {_address(wheel.name)}" in notebook.cells[0].source
    where = nbformat.v4.new_code_cell("import llmref; print(llmref.__file__)")
    notebook.cells.insert(0, where)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    checked = [len(cell.outputs) for cell in code]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert str(installed) in where.outputs[0].text
    assert [len(cell.outputs) for cell in code] == checked  # the same cells print something
    assert os.listdir(tmp_path) == [] or set(os.listdir(tmp_path)) <= {"profile_default"}


def _address(name: str) -> str:
    return f"https://llmref.github.io/llmref/_static/{name}"


def test_a_practice_notebook_judges_what_is_written_in_it(
    html: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(html / "norm/rms_norm-practice.ipynb", as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    cells["rms_norm"].source = cells["rms_norm"].source.replace(
        'raise NotImplementedError("write it here")',
        "return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()",
    )
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (solved,), (blank,) = (cells[f"{name}-judge"].outputs for name in FUNCTIONS)
    assert "<th" in solved.data["text/html"]
    assert "right" in solved.data["text/html"]
    assert solved.data["text/plain"].startswith("right: rms_norm: ")
    assert "it raises NotImplementedError" in blank.data["text/html"]
    assert blank.data["text/plain"].startswith("wrong: rms_norm_backward: it raises")
