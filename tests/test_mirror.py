"""The three trees agree: one module, one page and one test file for each topic."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from llmref.record import ids_in_use

ROOT = Path(__file__).parents[1]
GROUPS = ("attention", "components", "norm", "functional", "rl")
# functional <- norm, components <- attention; functional <- rl
MAY_IMPORT = {
    "functional": {"functional"},
    "norm": {"norm", "functional"},
    "components": {"components", "functional"},
    "attention": {"attention", "components", "norm", "functional"},
    "rl": {"rl", "functional"},
}


def pages() -> set[str]:
    return {
        page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for group in GROUPS
        for page in (ROOT / "docs" / group).glob("*.md")
        if page.name != "index.md"
    }


def modules() -> set[str]:
    """All public modules: a module with a leading underscore is shared within its group."""
    return {
        module.relative_to(ROOT / "llmref").with_suffix("").as_posix()
        for group in GROUPS
        for module in (ROOT / "llmref" / group).glob("[!_]*.py")
    }


def is_part_of(module: str, topics: set[str]) -> bool:
    """`components/rope_scaling` is a part of the topic `components/rope`."""
    return any(module.startswith(f"{topic}_") for topic in topics)


def test_every_page_has_its_module_and_its_tests() -> None:
    assert pages(), "no page was found"
    for page in pages():
        group, topic = page.split("/")
        assert (ROOT / "llmref" / group / f"{topic}.py").is_file(), page
        assert (ROOT / "tests" / group / f"test_{topic}.py").is_file(), page


def test_every_module_has_a_page_or_is_part_of_a_topic() -> None:
    assert modules() - pages() == {m for m in modules() - pages() if is_part_of(m, pages())}


def test_every_test_file_belongs_to_a_topic() -> None:
    for group in GROUPS:
        for test in (ROOT / "tests" / group).glob("test_*.py"):
            name = test.stem.removeprefix("test_")
            modules_of_test = [f"{name}.py", f"_{name}.py"]
            assert any((ROOT / "llmref" / group / m).is_file() for m in modules_of_test), test


def test_every_oracle_test_names_its_topic() -> None:
    for test in (ROOT / "tests" / "oracle").glob("test_*.py"):
        topic = re.search(r'^TOPIC = "(.+)"$', test.read_text(encoding="utf-8"), re.MULTILINE)
        assert topic, test
        assert topic[1] in pages()
        assert topic[1].split("/")[1] == test.stem.removeprefix("test_")


def test_the_agreement_table_is_about_pages() -> None:
    rows = json.loads((ROOT / "docs" / "agreement.json").read_text(encoding="utf-8"))
    tested = {
        re.search(r'^TOPIC = "(.+)"$', test.read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]
        for test in (ROOT / "tests" / "oracle").glob("test_*.py")
    }
    assert {row["topic"] for row in rows} == tested
    assert all(row["largest_difference"] <= row["allowed"] for row in rows)


def test_every_page_is_in_the_index_and_no_other() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^((?:{'|'.join(GROUPS)})/\w+)$", index, re.MULTILINE)
    overviews = {f"{page.parent.name}/index" for page in (ROOT / "docs").glob("*/index.md")}
    assert sorted(listed) == sorted(pages() | overviews)


def labels() -> list[str]:
    return [
        label
        for page in sorted(pages())
        for label in re.findall(
            r"^:+\{prf:(?!proof)\w+\}.*\n:label: (\S+)$",
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
    for path in (ROOT / "llmref").rglob("*"):
        name = path.relative_to(ROOT / "llmref")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != ".":
            assert any(name.match(pattern) for pattern in patterns), name


@pytest.mark.parametrize("group", GROUPS)
def test_imports_flow_one_way(group: str) -> None:
    for module in (ROOT / "llmref" / group).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module}: write imports in full"
                names = [node.module or ""]
            for name in names:
                if name.startswith("llmref."):
                    assert name.split(".")[1] in MAY_IMPORT[group], f"{module} imports {name}"


def test_formulas_need_torch_alone() -> None:
    for group in GROUPS:
        for module in (ROOT / "llmref" / group).glob("*.py"):
            text = module.read_text(encoding="utf-8")
            third_party = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
            for forbidden in ("sympy", "numpy", "scipy", "sphinx", "matplotlib", "transformers"):
                assert forbidden not in third_party, f"{module} imports {forbidden}"
