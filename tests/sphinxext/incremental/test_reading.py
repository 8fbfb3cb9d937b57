"""Which pages are read or written again: what Sphinx, which asks for newer files, would not see."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.incremental.reading import _files
from tests.small_site import Site, tree


def compare_with_clean(site: Site, *, cold: bool = False) -> None:
    """An incremental build gives the files of a clean one, in a process of its own if `cold`."""
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    incremental = tree(built.html)
    shutil.rmtree(site.root / "_build")
    built = site.build_cold() if cold else site.build()
    assert (built.code, built.warnings) == (0, "")
    differing = {name for name, text in tree(built.html).items() if incremental.get(name) != text}
    assert differing == set()


@pytest.fixture(scope="module")
def two_built(module_site: Callable[[], Site]) -> Site:
    site = module_site()
    site.write("index.md", "# I\n\n```{toctree}\n:caption: First\na\nb\n```\n")
    site.write("a.md", "# A\n\nOf a.\n")
    site.write("b.md", "# B\n\n```{include} part.txt\n```\n")
    site.write("part.txt", "Included.\n")
    site.configure('html_theme = "sphinx_book_theme"')
    assert site.build().code == 0
    site.keep()
    return site


@pytest.fixture
def two(two_built: Site) -> Site:
    return two_built.put_back()


@pytest.mark.parametrize("name", ["a.md", "part.txt"])
def test_a_file_that_is_older_than_the_one_before_is_read(two: Site, name: str) -> None:
    """As after `mv`, or an archive that keeps times."""
    path = two.root / name
    path.write_text(path.read_text(encoding="utf-8") + "\nOlder.\n", encoding="utf-8")
    os.utime(path, (1, 1))
    compare_with_clean(two)


def test_what_a_page_is_made_of_has_one_number_in_every_process(tmp_path: Path) -> None:
    """Whatever the order of a set, and also where a file has changed with its times put back."""
    files = [tmp_path / name for name in ("page.md", "one.txt", "two.txt")]
    for path in files:
        path.write_text(path.name, encoding="utf-8")

    def number(*included: str) -> int:
        env = SimpleNamespace(
            doc2path=lambda name: tmp_path / f"{name}.md",
            srcdir=tmp_path,
            dependencies={"page": included},
        )
        return _files(cast(BuildEnvironment, env), "page")

    before = number("one.txt", "two.txt")
    assert number("two.txt", "one.txt") == before
    assert number("one.txt") != before
    state = files[1].stat()
    files[1].write_text("1" + files[1].name[1:], encoding="utf-8")
    os.utime(files[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert number("one.txt", "two.txt") != before


def test_two_pages_that_are_exchanged_are_both_read(two: Site) -> None:
    first, second = two.root / "a.md", two.root / "b.md"
    first.rename(two.root / "c.md")
    second.rename(first)
    (two.root / "c.md").rename(second)
    compare_with_clean(two)


def test_a_result_may_move_to_a_page_that_is_read_before_its_old_one(two: Site) -> None:
    result = ":::{prf:definition} D\n:label: a-b\nIt is.\n:::\n\n(a-label)=\n## Part\n\nText.\n"
    two.write("b.md", f"# B\n\n{result}")
    assert two.build().code == 0
    two.write("a.md", f"# A\n\n{result}")
    two.write("b.md", "# B\n")
    compare_with_clean(two)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("index.md", ":caption: First", ":caption: Second"),
        ("index.md", "\na\n", "\nShort <a>\n"),
        ("index.md", ":caption: First", ":caption: First\n:hidden:"),
        ("a.md", "# A", "# *A*"),
    ],
)
def test_navigation_is_written_again_on_all_pages(
    two: Site, name: str, before: str, after: str
) -> None:
    path = two.root / name
    path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    compare_with_clean(two)


def test_compiled_code_of_the_same_size_and_second_is_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would take it for current."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    site.use_own_package()
    module = site.root / "package/llmref/value.py"

    def write(value: int) -> str:
        site.write("package/llmref/value.py", f"X = {value}\n")
        os.utime(module, (1_700_000_000, 1_700_000_000))
        built = site.build_cold()
        assert (built.code, built.warnings) == (0, "")
        return built.page("index")

    cell = "from llmref.value import X\nprint('X is', X)"
    site.write("index.md", f"# I\n\n```{{code-cell}} python\n{cell}\n```\n", executed=True)
    assert "X is 1" in write(1)
    assert "X is 2" in write(2)


def test_one_page_alone_must_be_a_page(two: Site) -> None:
    built = two.build("-D", "llmref_only=./a")
    assert built.code != 0
    assert "the site has no page ./a" in built.warnings


def test_one_page_alone_is_no_answer_to_new_pages(two: Site) -> None:
    """Contents have to lead to all pages, so all are read that Sphinx finds changed."""
    two.write("c.md", "# C\n")
    index = two.root / "index.md"
    index.write_text(
        index.read_text(encoding="utf-8").replace("\nb\n", "\nb\nc\n"), encoding="utf-8"
    )
    built = two.build("-D", "llmref_only=a")
    assert (built.code, built.warnings) == (0, "")
    compare_with_clean(two, cold=True)


def test_one_page_alone_is_no_answer_to_a_page_that_is_gone(two: Site) -> None:
    """Contents must not lead to it any more."""
    (two.root / "b.md").unlink()
    index = two.root / "index.md"
    index.write_text(index.read_text(encoding="utf-8").replace("\nb\n", "\n"), encoding="utf-8")
    built = two.build("-D", "llmref_only=a")
    assert (built.code, built.warnings) == (0, "")
    assert "b.html" not in built.page("index")
    compare_with_clean(two)


@pytest.mark.parametrize("setting", ["release=2.0", "html_title=small 2.0"])
def test_one_page_alone_is_no_answer_to_another_configuration(two: Site, setting: str) -> None:
    """Be it for what pages are read, or only for how they are written."""
    assert "small 2.0" not in two.build().page("b")
    built = two.build("-D", "llmref_only=a", "-D", setting)
    assert (built.code, built.warnings) == (0, "")
    assert "small 2.0" in built.page("b")


def test_one_page_alone_is_the_only_one_that_is_written(two: Site) -> None:
    two.write("c.md", "---\norphan: true\n---\n# C\n")  # else all pages would be written
    assert two.build().code == 0
    for name in ("a", "b"):
        two.write(f"{name}.md", f"# {name}\n\nEdited.\n")
    other = two.root / "_build/html/b.html"
    before = other.stat().st_mtime_ns
    built = two.build("-D", "llmref_only=a")
    assert "Edited" in built.page("a")
    assert "0 added, 1 changed, 0 removed" in built.status
    assert other.stat().st_mtime_ns == before


def test_one_page_alone_leaves_the_results_of_others_as_they_were(site: Site) -> None:
    site.configure(f"llmref_result_ids = {str(site.root / 'ids.txt')!r}")
    site.write("index.md", "# I\n\n```{toctree}\na\nb\n```\n")
    site.write("a.md", "# A\n")
    site.write("b.md", "# B\n\n:::{prf:definition} D\n:label: b-d\nIt is.\n:::\n")
    site.write("ids.txt", "b-d 1\n")
    assert site.build().code == 0
    site.write("ids.txt", "b-d 2\n")
    assert "0 added, 0 changed, 0 removed" in site.build("-D", "llmref_only=a").status
    assert "0 added, 1 changed, 0 removed" in site.build().status
    site.write("ids.txt", "b-old 1 -> b-d\nb-d 2\n")
    compare_with_clean(site)


def test_a_failed_page_is_stale_though_its_warning_is_forgotten(site: Site) -> None:
    site.write("index.md", "# I\n\n```{code-cell} python\n1 / 0\n```\n", executed=True)
    assert site.build().code == 1
    for remembered in (site.root / "_build").rglob("llmref.json"):
        remembered.unlink()
    again = site.build()
    assert again.code == 1
    assert "ZeroDivisionError" in again.warnings


def test_a_docstring_that_asks_runs_nothing(site: Site) -> None:
    site.use_own_package()
    site.write("package/llmref/value.py", '"""What is it?"""\n\nX = 1\n')
    cell = "from llmref.value import X\nprint(X)"
    site.write("index.md", f"# I\n\n```{{code-cell}} python\n{cell}\n```\n", executed=True)
    assert "running pages" in site.build().status
    site.write("package/llmref/value.py", '"""What is it, then?"""\n\nX = 1\n')
    assert "running pages" not in site.build().status
    Path(site.root / "package/llmref/value.py").write_text("X = 2\n", encoding="utf-8")
    assert "running pages" in site.build().status
