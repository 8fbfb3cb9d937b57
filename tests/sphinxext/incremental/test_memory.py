"""A failing site fails again until it is mended, and then is what a clean build gives."""

import json
import shutil

import pytest

from tests.small_site import Site, tree

CELL = "# P\n\n```{code-cell} python\n%s\n```\n"
# A page with a fault, and the same page without it.
FAULTS = {
    "cell": (CELL % "1 / 0", CELL % "1 / 1"),
    "formula": ("# P\n\n$\\nosuchmacro$\n", "# P\n\n$x$\n"),
    "reference": ("# P\n\n{ref}`nowhere`\n", "# P\n\nnowhere\n"),
    "toctree": ("# P\n\n```{toctree}\nnone\n```\n", "# P\n"),
    "unchecked": (
        "# P\n\n:::{prf:lemma} L\n:label: a-b\nIt is.\n:::\n",
        "# P\n\n:::{prf:definition} L\n:label: a-b\nIt is.\n:::\n",
    ),
}


def failing_site(site: Site) -> None:
    """Two pages that will stay as they are, and a third."""
    site.configure(f"llmref_cache = {str(site.root / 'cache')!r}")
    site.write("index.md", "# I\n\n```{toctree}\nother\nfault\n```\n")
    site.write("other.md", "# O\n\nProse.\n")
    site.write("fault.md", "# P\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_site_fails_again_until_it_is_mended(site: Site, fault: str) -> None:
    wrong, right = FAULTS[fault]
    failing_site(site)
    assert site.build_here().code == 0
    executed = "code-cell" in wrong
    site.write("fault.md", wrong, executed=executed)
    first = site.build_here()
    again = site.build_here()
    assert first.code == again.code == 1
    assert "fault.md" in again.warnings
    assert again.warnings == first.warnings
    assert "0 added, 1 changed, 0 removed" in again.status
    site.write("fault.md", right, executed=executed)
    mended = site.build_here()
    assert (mended.code, mended.warnings) == (0, "")
    assert "0 added, 1 changed, 0 removed" in mended.status  # the other pages are as they were
    assert "0 added, 0 changed, 0 removed" in site.build_here().status
    files = tree(mended.html)
    assert files == tree(site.build_here("clean").html)


def test_a_warning_that_names_no_page_comes_again(site: Site) -> None:
    failing_site(site)
    site.configure(
        "from sphinx.util import logging\ndef warn(app, tree):\n"
        "    if app.env.docname == 'other':\n"
        "        logging.getLogger('sphinx.x').warning('of nobody')\n"
        "def setup(app):\n    app.connect('doctree-read', warn)"
    )
    for _ in range(2):
        built = site.build_here()
        assert built.code == 1
        assert "WARNING: of nobody" in built.warnings


def test_a_published_id_that_is_missing_is_missed_again(site: Site) -> None:
    failing_site(site)
    ids = site.root / "ids.txt"
    ids.write_text("a-b 0.1\n", encoding="utf-8")
    site.configure(f"llmref_result_ids = {str(ids)!r}")
    for _ in range(2):
        built = site.build_here()
        assert built.code == 1
        assert "the published id a-b is missing" in built.warnings
    assert "0 added, 0 changed, 0 removed" in built.status


@pytest.mark.parametrize("left", ["half a fi", "[1]"])
def test_after_a_build_that_was_killed_all_pages_are_read_again(site: Site, left: str) -> None:
    failing_site(site)
    assert site.build_here().code == 0
    (state,) = (site.root / "_build").rglob("llmref.json")
    assert json.loads(state.read_text(encoding="utf-8"))["ended"]
    state.write_text(left, encoding="utf-8")
    assert "3 added, 0 changed, 0 removed" in site.build_here().status


def test_a_build_of_one_page_forgets_no_warning_of_another(site: Site) -> None:
    failing_site(site)
    site.write("fault.md", FAULTS["formula"][0])
    assert site.build_here().code == 1
    site.write("other.md", "# O\n\nEdited.\n")
    assert site.build_here(llmref_only="other").code == 0
    assert site.build_here().code == 1
    site.write("fault.md", FAULTS["formula"][1])
    assert site.build_here(llmref_only="fault").code == 0
    mended = site.build_here()
    assert mended.code == 0
    assert "0 added, 0 changed, 0 removed" in mended.status


def test_a_build_of_one_page_neither_tells_nor_forgets_what_the_site_as_a_whole_lacks(
    site: Site,
) -> None:
    """Be it known already, or not yet."""
    failing_site(site)
    ids = site.root / "ids.txt"
    ids.write_text("", encoding="utf-8")
    site.configure(f"llmref_result_ids = {str(ids)!r}")
    assert site.build_here().code == 0
    ids.write_text("a-b 0.1\n", encoding="utf-8")
    for _ in range(2):
        assert site.build_here(llmref_only="other").code == 0
        assert "the published id a-b is missing" in site.build_here().warnings


def test_a_page_that_is_gone_takes_its_warning_with_it(site: Site) -> None:
    failing_site(site)
    site.write("fault.md", FAULTS["formula"][0])
    assert site.build_here().code == 1
    (site.root / "fault.md").unlink()
    site.write("index.md", "# I\n\n```{toctree}\nother\n```\n")
    assert site.build_here().code == 0


def test_a_warning_that_is_suppressed_reads_no_page_again(site: Site) -> None:
    failing_site(site)
    site.configure("suppress_warnings = ['myst.header']")
    site.write("fault.md", "# P\n\n### Too deep\n")
    assert site.build_here().code == 0
    assert "0 added, 0 changed, 0 removed" in site.build_here().status


def test_a_warning_after_the_last_page_comes_again_with_its_page(site: Site) -> None:
    failing_site(site)
    site.configure(
        "def warn(app, error):\n    from sphinx.util import logging\n"
        "    if any(app.env.metadata[page].pop('read', 0) for page in ('fault',)):\n"
        "        logging.getLogger('sphinx.x').warning('too late', location='fault')\n"
        "def read(app, tree):\n    app.env.metadata[app.env.docname]['read'] = True\n"
        "def setup(app):\n    app.connect('build-finished', warn, priority=997)\n"
        "    app.connect('doctree-read', read)"
    )
    for _ in range(2):
        built = site.build_here()
        assert "fault.md: WARNING: too late" in built.warnings
    assert "0 added, 1 changed, 0 removed" in built.status


def test_a_build_that_was_killed_while_it_wrote_leaves_nothing_stale(site: Site) -> None:
    failing_site(site)
    site.configure(
        "import os\ndef end(app, page, *_):\n    if (app.srcdir / 'killed').exists():\n"
        "        os.kill(os.getpid(), 9)\n"
        "def setup(app):\n    app.connect('html-page-context', end)"
    )
    assert site.build().code == 0
    site.write("fault.md", "# Another title\n")
    (site.root / "killed").touch()
    assert site.build().code == -9
    (site.root / "killed").unlink()
    again = tree(site.build().html)
    shutil.rmtree(site.root / "_build")
    assert again == tree(site.build().html)


def test_a_build_that_broke_off_while_it_wrote_leaves_nothing_stale(site: Site) -> None:
    """The environment knows already what the pages that were not written should show."""
    failing_site(site)
    site.configure(
        "def fail(app, page, *_):\n    if (app.srcdir / 'fails').exists():\n"
        "        raise KeyError(page)\n"
        "def setup(app):\n    app.connect('html-page-context', fail)"
    )
    assert site.build_here().code == 0
    site.write("fault.md", "# Another title\n")
    (site.root / "fails").touch()
    with pytest.raises(Exception, match="fault|index|other"):
        site.build_here()
    (site.root / "fails").unlink()
    assert tree(site.build_here().html) == tree(site.build_here("clean").html)
