"""Small sites, built as a reader builds: by the command line, in a process of their own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CONF = """
project = "small"
extensions = ["myst_nb", "llmref.sphinxext"]
html_theme = "basic"
exclude_patterns = ["_build", "copy"]
html_math_renderer = "katex"
myst_enable_extensions = ["colon_fence", "dollarmath"]
llmref_source_url = "https://example.org/{path}#L{first}-L{last}"
"""
EXECUTED = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"


@dataclass
class Built:
    """What a build left behind."""

    code: int
    warnings: str
    html: Path

    def page(self, name: str) -> str:
        return (self.html / f"{name}.html").read_text(encoding="utf-8")


class Site:
    """A folder of pages; `write` adds or replaces one, `build` builds it strictly."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment: dict[str, str] = {}
        root.mkdir(exist_ok=True)
        (root / "conf.py").write_text(CONF, encoding="utf-8")

    def write(self, name: str, text: str, *, executed: bool = False) -> None:
        text = (EXECUTED if executed else "") + textwrap.dedent(text)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def line(self, name: str, text: str) -> int:
        """The line of `text` in a page, for comparison with what the build says."""
        lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        return 1 + next(i for i, line in enumerate(lines) if text in line)

    def build(self) -> Built:
        command = [sys.executable, "-m", "sphinx", "-nWq", "--keep-going", "-b", "html"]
        done = subprocess.run(
            [*command, str(self.root), str(self.root / "_build/html")],
            capture_output=True,
            text=True,
            cwd=self.root,
            env={**os.environ, **self.environment},
        )
        return Built(done.returncode, done.stderr, self.root / "_build/html")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Site]:
    return lambda: Site(tmp_path_factory.mktemp("site"))
