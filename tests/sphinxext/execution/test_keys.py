"""What a page's outputs depend on, and what they do not."""

from pathlib import Path

import nbformat
import pytest

from llmref.sphinxext.execution import keys
from llmref.sphinxext.execution.environment import environment, required

MODULE = '''"""What it is."""

import math


class Shape:
    """A shape."""

    def area(self, radius):
        """Return it."""
        # As everybody knows.
        return math.pi * radius**2
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in {
        "__init__.py": "",
        "figures.mplstyle": "figure.dpi: 100\n",
        "rl/__init__.py": "",
        "rl/kl.py": MODULE,
        "rl/data/table.json": "[1]",
        "norm/__init__.py": "",
        "norm/constants.json": "[1]",
    }.items():
        path = tmp_path / "llmref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "llmref"


def key(package: Path, code: str = "from llmref.rl import kl") -> str:
    keys._bare_digest.cache_clear()  # files change faster than their times
    keys._text_reads_source.cache_clear()
    return keys.key_of([{"source": code, "tags": []}], package.parent, ("torch",))


def state(package: Path) -> str:
    return keys.state_of_all(package.parent, ("torch",))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


KL = "rl/kl.py"
# An edit of the package, and whether it counts for a page that imports llmref.rl.kl.
EDITS: dict[str, tuple[str, str, str, bool]] = {
    "a number": (KL, "**2", "**3", True),
    "a name": (KL, "radius", "r", True),
    "a docstring of a module": (KL, "What it is", "What it was", False),
    "a docstring of a class": (KL, "A shape", "No shape", False),
    "a docstring of a function": (KL, '        """Return it."""\n', "", False),
    "a comment": (KL, "As everybody knows.", "", False),
    "an empty line": (KL, "\n\n", "\n\n\n", False),
    "the style of figures": ("figures.mplstyle", "100", "120", True),
    "data below the module's folder": ("rl/data/table.json", "1", "2", True),
    "data of another package": ("norm/constants.json", "1", "2", False),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_key_changes_with_what_outputs_depend_on_and_nothing_else(
    package: Path, what: str
) -> None:
    name, old, new, counts = EDITS[what]
    before, whole = key(package), state(package)
    edit(package / name, old, new)
    assert (key(package) != before) == counts
    assert state(package) != whole


@pytest.mark.parametrize(
    "code",
    [
        "print(kl.Shape.__doc__)",
        "help(kl.Shape)",
        "import inspect",
        "kl.Shape?",
        "import traceback",
    ],
)
def test_a_docstring_counts_for_code_that_may_show_it(package: Path, code: str) -> None:
    code = f"from llmref.rl import kl\n{code}"
    before = key(package, code)
    edit(package / KL, "Return it", "Return that")
    assert key(package, code) != before


def test_a_docstring_counts_if_a_module_may_show_it(package: Path) -> None:
    edit(package / "rl/__init__.py", "", "def about(x):\n    return x.__doc__\n")
    before = key(package)
    edit(package / KL, "Return it", "Return that")
    assert key(package) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERNEL_CONFIG", "other"),
        ("_MACHINERY", ("runner.py",)),
        ("environment", list),
        ("_FORMAT", -1),
    ],
)
def test_a_key_changes_with_how_pages_are_run(
    package: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    keys._machinery.cache_clear()
    before, whole = key(package), state(package)
    monkeypatch.setattr(keys, name, value)
    keys._machinery.cache_clear()
    assert key(package) != before
    assert state(package) != whole
    monkeypatch.undo()
    keys._machinery.cache_clear()


def test_the_style_of_figures_counts_for_a_page_that_imports_nothing_of_the_package(
    package: Path,
) -> None:
    before = key(package, "1")
    edit(package / "figures.mplstyle", "100", "120")
    assert key(package, "1") != before


def test_a_key_changes_with_what_kernels_have_imported(package: Path) -> None:
    code = [{"source": "1", "tags": []}]
    for digest in (
        lambda names: keys.key_of(code, package.parent, names),
        lambda names: keys.state_of_all(package.parent, names),
    ):
        assert digest(()) != digest(("torch",))
        assert digest(("a", "b")) == digest(("b", "a"))


def test_of_the_tags_of_a_cell_only_one_counts() -> None:
    tags = ["hide-input", "raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    notebook.cells[0].metadata["tags"] = tags
    assert keys.code_of(notebook) == [{"source": "1", "tags": ["raises-exception"]}]


def test_hidden_files_and_compiled_code_do_not_count(package: Path) -> None:
    before, whole = key(package), state(package)
    for name in ("rl/.kl.py.swp", "rl/data/.table", "rl/kl.pyc", "rl/data/table.pyc"):
        (package / name).write_text("", encoding="utf-8")
    assert (key(package), state(package)) == (before, whole)


def test_a_module_that_cannot_be_parsed_counts_as_it_stands(package: Path) -> None:
    edit(package / KL, "def area(", "def (")
    before = key(package)
    edit(package / KL, "As everybody knows", "As nobody knows")
    assert key(package) != before


def test_the_machinery_is_all_there() -> None:
    assert len(keys._machinery()) == 1 + len(keys._MACHINERY)
    assert all((Path(keys.__file__).parent / name).is_file() for name in keys._MACHINERY)


def installed(folder: Path, name: str, *needs: str, egg: bool = False) -> None:
    info = folder / (f"{name}.egg-info" if egg else f"{name}-1.0.dist-info")
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    text = "\n".join([*lines, "", "Requires-Dist: of-the-description", ""])
    (info / ("PKG-INFO" if egg else "METADATA")).write_text(text, encoding="utf-8")


def test_only_what_is_required_counts(tmp_path: Path) -> None:
    docs = ("Big_Engine>=2", 'site[fast]>1; extra == "docs"', 'runner; extra == "test"')
    installed(tmp_path, "mine", *docs)
    installed(tmp_path, "big_engine", "site", 'absent; sys_platform == "win32"')
    installed(tmp_path, "site", 'speed ; extra=="fast"', "mine", egg=True)
    installed(tmp_path, "speed")
    installed(tmp_path, "runner")
    installed(tmp_path, "of_the_description")
    found = required("mine", "docs", [str(tmp_path)])
    assert found == ["big-engine 1.0", "site 1.0", "speed 1.0"]
    (tmp_path / "runner-1.0.dist-info").rename(tmp_path / "runner-2.0.dist-info")
    assert required("mine", "docs", [str(tmp_path)]) == found
    edit(tmp_path / "site.egg-info/PKG-INFO", "Version: 1.0", "Version: 2.0")
    assert "site 2.0" in required("mine", "docs", [str(tmp_path)])


def test_this_environment_is_known() -> None:
    names = [line.split()[0] for line in environment()]
    assert {"torch", "sympy", "matplotlib", "sphinx", "ipykernel"} <= set(names)
    assert not {"llmref", "pytest", "ruff"} & set(names)
