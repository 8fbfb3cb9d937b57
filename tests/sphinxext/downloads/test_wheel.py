"""The wheel beside the site, and the first cell of a notebook, which installs it."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.hosting.test_wheel import PROJECT
from tests.small_site import Built, Site

URL = "https://example.org/here/_static/llmref-1.2.3-py3-none-any.whl"


def build(site: Site) -> Built:
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    return built


@pytest.fixture
def with_wheel(site: Site) -> Site:
    site.configure(f"project = 'llmref'\nrelease = '1.2.3'\nllmref_wheel_of = {str(site.root)!r}")
    site.configure("html_baseurl = 'https://example.org/here/'\nexclude_patterns += ['README.md']")
    for name, text in {
        "pyproject.toml": PROJECT,
        "README.md": "# Read\n",
        "LICENSE": "Free.\n",
        "llmref/__init__.py": "",
        "index.md": "# I\n\n```{code-cell} python\n1\n```\n",
    }.items():
        site.write(name, text, executed=name == "index.md")
    return site


def test_the_wheel_stands_beside_the_site_and_is_built_again_when_it_changed(
    with_wheel: Site,
) -> None:
    wheel = build(with_wheel).html / "_static" / Path(URL).name
    first, time = wheel.read_bytes(), wheel.stat().st_mtime_ns
    build(with_wheel)
    assert wheel.stat().st_mtime_ns == time
    with_wheel.write("llmref/more.py", "x = 1\n")
    build(with_wheel)
    assert wheel.read_bytes() != first
    with_wheel.write("llmref/more.py", "x = 2\n")
    second = wheel.read_bytes()
    assert with_wheel.build("-D", "llmref_only=index").code == 0  # one page, not published
    assert wheel.read_bytes() == second
    build(with_wheel)
    assert wheel.read_bytes() != second
    with_wheel.configure("release = '1.3.0'")
    with_wheel.write("pyproject.toml", PROJECT.replace("1.2.3", "1.3.0"))
    wheels = [path.name for path in (build(with_wheel).html / "_static").glob("*.whl")]
    assert wheels == ["llmref-1.3.0-py3-none-any.whl"]


def first_cell(built: Built) -> str:
    cell = nbformat.read(built.html / "index.ipynb", as_version=4).cells[0]
    assert cell.cell_type == "code"
    return str(cell.source)


def installs(cell: str, monkeypatch: pytest.MonkeyPatch, version: str, *, plots: bool) -> list[str]:
    """Run the cell where that version of llmref is at hand; return what it installs."""
    import importlib.metadata
    import importlib.util

    asked: list[str] = []

    def found(name: str) -> str:
        assert name == "llmref"
        if not version:
            raise importlib.metadata.PackageNotFoundError
        return version

    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append(f"{name} {line}"))
    monkeypatch.setattr(importlib.metadata, "version", found)
    spec = ModuleType("matplotlib") if plots else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    scope: dict[str, Any] = {"get_ipython": lambda: shell}
    exec(TransformerManager().transform_cell(cell), scope)
    return asked


def test_the_first_cell_installs_the_wheel_unless_this_version_is_there(
    with_wheel: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = first_cell(build(with_wheel))
    command = f"pip install --quiet matplotlib {URL}"
    assert "# From https://example.org/here/index.html\n" in cell
    assert installs(cell, monkeypatch, "", plots=True) == [command]
    assert installs(cell, monkeypatch, "1.2.2", plots=True) == [command]
    assert installs(cell, monkeypatch, "1.2.3", plots=True) == []
    assert installs(cell, monkeypatch, "1.2.3", plots=False) == [command]


def test_without_an_address_it_takes_the_package_from_the_index_and_says_so(
    with_wheel: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_wheel.configure("html_baseurl = ''")
    cell = first_cell(build(with_wheel))
    assert "has no address, so the package comes from PyPI" in cell
    command = "pip install --quiet matplotlib llmref==1.2.3"
    assert installs(cell, monkeypatch, "", plots=True) == [command]
