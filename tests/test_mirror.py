"""The three trees agree: one module, one page and one test file for each topic."""

import ast
import json
import re
import tomllib
from pathlib import Path

from llmref.records import ids_in_use

ROOT = Path(__file__).parents[1]
GROUPS = ("attention", "components", "norm", "functional", "inference", "rl", "training")
# Modules that several topics share and pages show, without a page of their own.
SHARED = {"functional/aggregation"}


def pages() -> set[str]:
    return {
        page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for group in GROUPS
        for page in (ROOT / "docs" / group).glob("*.md")
        if page.name != "index.md"
    }


def topics() -> set[str]:
    """All topics: a module, or a package of parts. A leading underscore is for what they share."""
    found = {
        path.relative_to(ROOT / "llmref").with_suffix("").as_posix()
        for group in GROUPS
        for path in (ROOT / "llmref" / group).glob("[!_]*")
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert found, "no topic was found"
    return found


def test_every_topic_has_its_page_and_its_tests() -> None:
    assert topics() - SHARED == pages()
    for topic in topics():
        group, name = topic.split("/")
        assert (ROOT / "tests" / group / f"test_{name}.py").is_file(), topic


def test_every_test_file_belongs_to_a_topic() -> None:
    for group in GROUPS:
        tests = list((ROOT / "tests" / group).glob("test_*.py"))
        assert tests, group
        for test in tests:
            assert f"{group}/{test.stem.removeprefix('test_')}" in topics(), test


def test_a_package_is_for_parts_and_its_door_defines_nothing() -> None:
    for door in (ROOT / "llmref").glob("*/*/__init__.py"):
        if door.parents[1].name not in GROUPS:
            continue
        parts = {path.stem for path in door.parent.glob("[!_]*.py")}
        tree = ast.parse(door.read_text(encoding="utf-8"))
        defined = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        exported = next(
            ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
        )
        assert len(parts) >= 2, f"{door.parent} has one part: make it a module"
        assert not defined, f"{door} defines {defined}: a door only imports"
        assert not parts & set(exported), f"{door}: a part and a function go by one name"


def public_names(topic: str) -> set[str]:
    """The functions and classes of a topic that have no underscore, in files that have none."""
    path = ROOT / "llmref" / topic
    files = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return {
        node.name
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }


def exported(topic: str) -> set[str]:
    """What a front door lists; of a topic in one file, what is public there."""
    door = ROOT / "llmref" / topic / "__init__.py"
    if not door.is_file():
        return public_names(topic)
    return next(
        set(ast.literal_eval(node.value))
        for node in ast.parse(door.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
    )


def imported_from_rooms(topic: str) -> set[str]:
    """The functions and classes that a front door takes from a file with an underscore."""
    door = ROOT / "llmref" / topic / "__init__.py"
    if not door.is_file():
        return set()
    return {
        alias.name
        for node in ast.parse(door.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and "._" in str(node.module)
        for alias in node.names
        if alias.name in exported(topic) and alias.name[0].islower()
    }


def test_a_front_door_exports_all_that_is_public_behind_it() -> None:
    """What parts share lives in a file with an underscore, or has one itself."""
    for topic in topics():
        assert public_names(topic) <= exported(topic), topic


def test_every_public_name_is_shown_on_a_page_and_no_page_shows_another() -> None:
    shown: set[str] = set()
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        shown |= set(re.findall(r"^```\{source\} llmref\.(\S+)$", text, re.MULTILINE))
    for topic in topics():
        prefix = topic.replace("/", ".") + "."
        names = {name.removeprefix(prefix) for name in shown if name.startswith(prefix)}
        # A page may show a method, and a helper that a proof speaks about.
        names = {n.split(".")[0] for n in names if not n.rpartition(".")[2].startswith("_")}
        assert names == public_names(topic) | imported_from_rooms(topic), topic


def oracle_tests() -> list[Path]:
    found = sorted((ROOT / "tests" / "oracle").glob("test_*.py"))
    assert found, "no oracle test was found"
    return found


def test_every_oracle_test_names_its_topic() -> None:
    for test in oracle_tests():
        topic = re.search(r'^TOPIC = "(.+)"$', test.read_text(encoding="utf-8"), re.MULTILINE)
        assert topic, test
        assert topic[1] in pages()
        assert topic[1].split("/")[1] == test.stem.removeprefix("test_")


def test_the_agreement_table_is_about_pages() -> None:
    rows = json.loads((ROOT / "docs" / "agreement.json").read_text(encoding="utf-8"))
    tested = {
        re.search(r'^TOPIC = "(.+)"$', test.read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]
        for test in oracle_tests()
    }
    assert {row["topic"] for row in rows} == tested
    assert all(row["largest_difference"] <= row["allowed"] for row in rows)


def test_code_by_hand_belongs_to_a_page_and_to_no_page_of_the_old_form() -> None:
    folder = ROOT / "llmref" / "practice" / "by_hand"
    files = {
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.glob("*/*.py")
        if path.name != "__init__.py"
    }
    conf = (ROOT / "conf.py").read_text(encoding="utf-8")
    old = set(re.findall(r'^    "(\w+/\w+)",$', conf, re.MULTILINE))
    assert old <= pages()
    assert files == pages() - old


def test_every_page_is_in_the_index_and_no_other() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^((?:{'|'.join(GROUPS)})/\w+)$", index, re.MULTILINE)
    overviews = {
        f"{group}/index" for group in GROUPS if (ROOT / f"docs/{group}/index.md").is_file()
    }
    assert sorted(listed) == sorted(pages() | overviews)


def labels() -> list[str]:
    """The ids of results and of code by hand."""
    return [
        label or by_hand
        for page in sorted(pages())
        for label, by_hand in re.findall(
            r"^:+\{prf:(?!proof)\w+\}.*\n:label: (\S+)$|^`+\{by-hand\} (\S+)$",
            (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    ]


def test_result_ids_are_unique_sorted_and_published() -> None:
    path = ROOT / "docs" / "result-ids.txt"
    assert len(labels()) == len(set(labels()))
    assert set(labels()) == ids_in_use(path)
    ids = [line.split()[0] for line in path.read_text().splitlines() if not line.startswith("#")]
    assert ids == sorted(set(ids))


def test_an_installed_package_holds_every_data_file() -> None:
    """A downloaded notebook draws with figures.mplstyle, so the wheel must have it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["llmref"]
    names = [
        path.relative_to(ROOT / "llmref")
        for path in (ROOT / "llmref").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != "."
    ]
    assert names
    for name in names:
        assert any(name.match(pattern) for pattern in patterns), name


def test_formulas_need_torch_alone() -> None:
    for group in GROUPS:
        modules = list((ROOT / "llmref" / group).rglob("*.py"))
        assert len(modules) > 1, group
        for module in modules:
            text = module.read_text(encoding="utf-8")
            third_party = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
            for forbidden in ("sympy", "numpy", "scipy", "sphinx", "matplotlib", "transformers"):
                assert forbidden not in third_party, f"{module} imports {forbidden}"
