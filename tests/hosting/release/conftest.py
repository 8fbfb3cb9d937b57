"""A small project under git that could be released as 0.2.0, after 0.1.0."""

import subprocess
from pathlib import Path

import pytest

from llmref.hosting.release.checkout import Checkout
from llmref.hosting.release.zenodo import as_text, metadata

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "llmref"
version = "0.2.0"
readme = "README.md"
authors = [{ name = "Ada Byron" }, { name = "The team" }]
[tool.setuptools.packages.find]
include = ["llmref*"]
""",
    "README.md": "# Read\n",
    "LICENSE": "Copyright (c) 2026 Ada Byron, The team\n",
    "CITATION.cff": """cff-version: 1.2.0
message: "Cite it."
title: "The work"
abstract: "What it is."
authors:
  - given-names: Ada
    family-names: Byron
    affiliation: "A house"
    orcid: "https://orcid.org/0000-0001-2345-678X"
  - name: "The team"
version: 0.2.0
date-released: 2027-01-02
license: [MIT, CC-BY-4.0]
repository-code: "https://example.org"
keywords: [one, two]
""",
    "CHANGELOG.md": "# C\n\n## 0.2.0 (2027-01-02)\n\n- New.\n\n## 0.1.0 (2026-01-02)\n\n- A.\n",
    "docs/result-ids.txt": "# ids\na-new 0.2.0\na-old 0.1.0\nb-was 0.1.0 -> a-old\n",
    "docs/_cover.svg": "<svg><text>Ada Byron, The team</text></svg>",
    "llmref/__init__.py": '__version__ = "0.2.0"\n__all__ = ["part"]\n',
    "llmref/part/__init__.py": "from llmref.part.one import f\n\n__all__ = ['f']\n",
    "llmref/part/one.py": "def f():\n    return 1\n",
}


class Project:
    """A folder under git, and the release of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.release = Checkout(root)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def git(self, *arguments: str) -> None:
        told = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *told, *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "-m", "work")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    made.write("docs/result-ids.txt", "a-old 0.1.0\nb-was 0.1.0\n")
    made.git("init", "--initial-branch=main")
    made.commit()
    made.git("tag", "v0.1.0")
    for name, text in FILES.items():
        made.write(name, text)
    made.write(".zenodo.json", as_text(metadata(made.root)))
    made.commit()
    return made
