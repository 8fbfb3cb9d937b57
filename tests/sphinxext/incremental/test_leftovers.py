"""What is no more leaves nothing in the site: pages, static files, words of the search."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sphinx.application import Sphinx
from sphinx.builders import Builder

from llmref.sphinxext.incremental.leftovers import remove_old_static_files
from tests.small_site import Site, tree


def test_a_page_that_is_gone_leaves_no_file(site: Site) -> None:
    site.write("index.md", "# I\n\n```{toctree}\na/b\n```\n")
    site.write("a/b.md", "# Unrepeatable\n\n```{code-cell} python\n1\n```\n", executed=True)
    built = site.build_here()
    assert (built.html / "a/b.ipynb").is_file()
    (built.html / "a/b-practice.ipynb").touch()  # as of a page with exercises
    (site.root / "a/b.md").unlink()
    site.write("index.md", "# I\n")
    after = tree(site.build_here().html)
    assert [name for name in after if name.startswith(("a/", "_sources/a/"))] == []
    assert b"unrepeat" not in after["searchindex.js"].lower()
    assert after == tree(site.build_here("clean").html)


def test_a_file_that_no_page_offers_any_more_is_removed(site: Site) -> None:
    site.write("data.txt", "Old.\n")
    site.write("index.md", "# I\n\n{download}`data.txt`\n")
    (copy,) = (site.build_here().html / "_downloads").rglob("data.txt")
    site.write("index.md", "# I\n\nNothing.\n")
    assert tree(site.build_here().html) == tree(site.build_here("clean").html)
    assert not copy.exists()


@pytest.mark.parametrize(
    ("file", "copy"),
    [
        ("static/deep/one.svg", "_static/deep/one.svg"),
        ("alone.svg", "_static/alone.svg"),
        ("extra/two.txt", "two.txt"),
    ],
)
def test_a_static_file_that_is_gone_is_removed(site: Site, file: str, copy: str) -> None:
    site.configure(
        "html_static_path = ['static'] + [p for p in ['alone.svg'] if pathlib.Path(p).exists()]\n"
        "html_extra_path = ['extra']\nexclude_patterns += ['extra']"
    )
    conf = site.root / "conf.py"
    conf.write_text("import pathlib\n" + conf.read_text(encoding="utf-8"), encoding="utf-8")
    site.write("index.md", "# I\n")
    for name in ("static/kept.svg", "static/deep/one.svg", "alone.svg", "extra/two.txt"):
        site.write(name, "<svg/>")
    assert (site.build_here().html / copy).is_file()
    (site.root / file).unlink()
    html = site.build_here().html
    assert not (html / copy).exists()
    assert (html / "_static/kept.svg").is_file()


def test_each_builder_removes_its_own_copies_of_static_files(tmp_path: Path) -> None:
    """Two that share what was read: what one has removed, the other one still has."""
    (tmp_path / "static").mkdir()
    config = SimpleNamespace(html_static_path=["static"], html_extra_path=[])

    def build(name: str) -> list[str]:
        out = tmp_path / name
        app = SimpleNamespace(outdir=out, confdir=tmp_path, doctreedir=tmp_path, config=config)
        builder = SimpleNamespace(name=name, format="html")
        remove_old_static_files(cast(Sphinx, app), cast(Builder, builder))
        shutil.copytree(tmp_path / "static", out / "_static", dirs_exist_ok=True)
        return sorted(path.name for path in (out / "_static").iterdir())

    one, two = (tmp_path / "static" / name for name in ("one.css", "two.css"))
    one.touch()
    assert build("html") == build("epub") == ["one.css"]
    two.touch()
    assert build("html") == build("epub") == ["one.css", "two.css"]
    two.unlink()
    assert build("html") == build("epub") == ["one.css"]
