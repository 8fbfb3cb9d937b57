"""A site with a page, a picture or a list that is missing, or only half there, is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sphinx.testing.util import SphinxTestApp

from llmref.sphinxext.incremental import complete
from llmref.sphinxext.incremental.complete import require_all
from llmref.sphinxext.topics.domain import Topic, TopicsDomain
from llmref.sphinxext.topics.practise import Exercise
from tests.small_site import Site

PAGE = "# P\n\n![A square](square.svg)\n\n```{code-cell} python\nprint(1)\n```\n"


def filled(site: Site) -> Site:
    site.write("index.md", "# I\n\n```{toctree}\npage\n```\n")
    site.write("page.md", PAGE, executed=True)
    site.write("square.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return site


@pytest.fixture(scope="module")
def built(module_site: Callable[[], Site]) -> SphinxTestApp:
    site = filled(module_site())
    app = SphinxTestApp("html", srcdir=site.root, builddir=site.root / "_build")
    app.build()
    app.cleanup()
    require_all(app, None)
    return app


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "page.html",
        "page.md",
        "index.md",
        "page.ipynb",
        "_images/square.svg",
        "search.html",
        "searchindex.js",
        "objects.inv",
        "results.json",
        "llms.txt",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_file_that_is_missing_or_empty_is_named(
    built: SphinxTestApp, name: str, damage: str
) -> None:
    path = Path(built.outdir) / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    try:
        named = path.name if name.startswith("_") else name.removesuffix(".html")
        with pytest.raises(Exception, match=f"not there, or not whole: {named}"):
            require_all(built, None)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["page.html", "searchindex.js"])
def test_a_file_that_ends_too_early_is_named(built: SphinxTestApp, name: str) -> None:
    path = Path(built.outdir) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(Exception, match=f"not whole: {name.removesuffix('.html')}"):
            require_all(built, None)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("names", "said"), [("abcde", "a, b, c, d, e"), ("abcdefg", "a, b, c, d, e and 2 more")]
)
def test_of_many_pages_the_first_are_named(names: str, said: str) -> None:
    with pytest.raises(Exception, match=f"this is gone: {said}$"):
        complete._refuse(list(names), "gone")


def test_every_build_looks(site: Site) -> None:
    site.configure(
        "import pathlib\ndef lose(app, error):\n"
        "    pathlib.Path(app.outdir, 'objects.inv').unlink(missing_ok=True)\n"
        "def setup(app):\n    app.connect('build-finished', lose, priority=997)"
    )
    site.write("index.md", "# I\n")
    with pytest.raises(Exception, match=r"not there, or not whole: objects\.inv"):
        site.build_here()


def test_a_picture_that_no_page_shows_any_more_is_removed(site: Site) -> None:
    built = filled(site).build_here()
    assert (built.html / "_images/square.svg").is_file()
    site.write("page.md", "# P\n")
    assert site.build_here().code == 0
    assert not (built.html / "_images/square.svg").exists()


def test_a_notebook_to_practise_on_that_is_missing_is_named(
    built: SphinxTestApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = built.env.domains["topic"]
    assert isinstance(topics, TopicsDomain)
    exercise = Exercise("square", "x", 1, "Multiply it with itself.", "square-definition")
    monkeypatch.setitem(topics.topics, "page", Topic("P", exercises=[exercise]))
    with pytest.raises(Exception, match=r"not whole: page-practice\.ipynb$"):
        require_all(built, None)


def test_a_page_that_is_not_listed_needs_no_text_of_its_own(site: Site) -> None:
    site.configure("llmref_unlisted = ['hidden']")
    site.write("index.md", "# I\n")
    site.write("hidden.md", "---\norphan: true\n---\n# Hidden\n")
    built = site.build_here()
    assert (built.code, built.warnings) == (0, "")
    assert not (built.html / "hidden.md").exists()


def test_a_page_that_is_written_within_a_tick_of_the_clock_is_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = 10**18
    monkeypatch.setattr(complete, "_now", lambda folder: tick)
    site.configure(
        "import os\ndef finished(app):\n"
        f"    os.utime(app.builder.get_output_path('index'), ns=({tick}, {tick}))\n"
        "def listen(app):\n    write = app.builder.write_documents\n"
        "    app.builder.write_documents = lambda names: (write(names), finished(app))\n"
        "def setup(app):\n    app.connect('builder-inited', listen, priority=1)"
    )
    site.write("index.md", "# I\n")
    assert site.build_here().code == 0


def test_looking_leaves_nothing_in_the_site(built: SphinxTestApp) -> None:
    hidden = {path.name for path in Path(built.outdir).rglob(".*")}
    assert hidden <= {".buildinfo", ".doctrees"}
