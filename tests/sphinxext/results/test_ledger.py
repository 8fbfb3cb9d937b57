"""The ledger's columns and the site's totals: from what the build has read, and from nothing else.

Leaves out: what rests on what, and counts of checks, which tests of the site have.
"""

import json
import re

import pytest

from tests.small_site import Site

RESULT = ":::{{prf:definition}} Of {0}\n:label: a-{0}\nIt is.\n:::\n\n"
ERRATA = """# Errata

## Before 0.2.0

:::{container} errata
| Result | Was said |
|---|---|
| {prf:ref}`a-one` | x |
| {prf:ref}`a-one`, {prf:ref}`a-two` | y |
:::

## Not yet

| Result | Is asked |
|---|---|
| {prf:ref}`a-three` | z |
"""
ROW = {"library": "trl", "version": "1.16.0", "convention": "", "allowed": 0, "formula": "f"}


@pytest.fixture
def kept(site: Site) -> Site:
    site.configure("myst_heading_anchors = 3")
    site.configure(f"llmref_result_ids = {str(site.root / 'ids.txt')!r}")
    site.write("ids.txt", "a-one 0.1.0\na-three 0.2.0\na-two 0.2.0\n")
    rows = [{**ROW, "topic": "part/page", "largest_difference": 0.0}] * 2
    site.write("agreement.json", json.dumps(rows))
    pages = "part/page\nerrata\nledger\nagreement\n"
    site.write("index.md", f"# I\n\n```{{totals}}\n```\n\n```{{toctree}}\n{pages}```\n")
    results = "".join(RESULT.format(name) for name in ("one", "two", "three"))
    site.write("part/page.md", f"# P\n\n{results}## In practice\n\nSo.\n")
    site.write("errata.md", ERRATA)
    site.write("ledger.md", "# L\n\n```{ledger}\n```\n")
    site.write("agreement.md", "# A\n\n```{agreement} all\n```\n")
    return site


def rows_of(page: str) -> dict[str, tuple[set[str], list[str]]]:
    """The classes and the cells of each result."""
    found = re.findall(r'<tr class="([^"]*group-[^"]*)">(.*?)</tr>', page, re.DOTALL)
    cells = {
        re.findall(r'href="[^"]*#(a-\w+)"', row)[0]: (set(classes.split()), row.split("</td>"))
        for classes, row in found
    }
    assert cells
    return cells


def test_a_row_says_since_when_and_how_often_it_was_mended(kept: Site) -> None:
    built = kept.build()
    assert (built.code, built.warnings) == (0, "")
    rows = rows_of(built.page("ledger"))
    told = {
        id_: [re.sub("<.*?>", "", c).strip() for c in row[5:7]] for id_, (_, row) in rows.items()
    }
    assert told == {
        "a-one": ["0.1.0", "2 mended"],
        "a-two": ["0.2.0", "1 mended"],
        "a-three": ["0.2.0", ""],
    }
    assert 'href="errata.html#before-0-2-0"' in rows["a-two"][1][6]
    assert {"since-0.1.0", "errata-mended"} <= rows["a-one"][0]
    assert {"since-0.2.0"} == {c for c in rows["a-three"][0] if c.startswith(("since", "errata"))}


def test_comparisons_are_of_a_page_not_of_a_result(kept: Site) -> None:
    section = kept.build().page("ledger").split('id="ledger-part-page"')[1]
    before = section.split("<table")[0]
    assert "Agrees with trl 1.16.0 in" in before
    assert 'href="part/page.html#in-practice"' in before
    assert "2 comparisons" in before


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("mutated_equations.json", "in what it displays"),
        ("mutated_functions.json", "of functions that its checks run"),
    ],
)
def test_changes_that_stop_the_build_are_told_and_followed(
    kept: Site, file: str, words: str
) -> None:
    """By the data of the site, which are there or not."""
    assert words not in kept.build().page("ledger")
    for stopped, told in ((3, "3 of 4 changes"), (1, "1 of 4 changes")):
        kept.write(file, json.dumps({"a-two": [stopped, 4], "gone": [1, 1]}))
        rows = rows_of(kept.build().page("ledger"))
        assert f"{told} {words}" in rows["a-two"][1][2]
        assert words not in rows["a-one"][1][2]


def test_totals_add_up_what_the_site_has(kept: Site) -> None:
    page = kept.build().page("index")
    line = re.search(r'<p class="page-status">(.*?)</p>', page, re.DOTALL)
    assert line
    assert re.sub("<.*?>", "", line[1]) == (
        "3 results, 0 checks executed, 0 mistakes rejected. "
        "Of the results, 3 are definitions, which need no check. "
        "1 library agrees in 2 comparisons. 2 errata so far."
    )
    assert 'href="agreement.html"' in line[1]
    assert 'href="errata.html"' in line[1]


def test_totals_do_not_speak_of_what_the_site_has_not(site: Site) -> None:
    site.write("index.md", "# I\n\n```{totals}\n```\n")
    page = site.build().page("index")
    assert '<p class="page-status">0 results, 0 checks executed, 0 mistakes rejected.</p>' in page


def test_another_displayed_equation_is_counted_at_once(kept: Site) -> None:
    """On the ledger, which was not edited, though it has no number that another page could cite."""
    assert "0 statements display" in kept.build().page("ledger")
    page = (kept.root / "part/page.md").read_text(encoding="utf-8")
    kept.write("part/page.md", page.replace("It is.", "It is.\n\n$$\na = b\n$$", 1))
    assert "1 statement displays" in kept.build().page("ledger")


def test_another_erratum_is_counted_at_once(kept: Site) -> None:
    """On pages that were not edited."""
    kept.build()
    line = "| {prf:ref}`a-three` | w |\n:::\n"
    kept.write("errata.md", ERRATA.replace(":::\n\n## Not", f"{line}\n## Not"))
    built = kept.build()
    assert (built.code, built.warnings) == (0, "")
    assert "3 errata" in built.page("index")
    assert "1 mended" in rows_of(built.page("ledger"))["a-three"][1][6]
    kept.write("errata.md", "# Errata\n\nNone.\n")
    built = kept.build()
    assert "errata so far" not in built.page("index")
    assert "mended" not in built.page("ledger")


def test_pages_that_are_read_side_by_side_count_the_same(kept: Site) -> None:
    for number in range(8):  # Sphinx reads in parallel from some number on
        kept.write(f"more{number}.md", f"---\norphan: true\n---\n# M{number}\n")
    page = kept.build_cold("-j", "2").page("index")
    assert "2 errata" in page


def test_a_line_of_the_errata_that_names_no_result_stops_the_build(kept: Site) -> None:
    kept.write("errata.md", ERRATA.replace("{prf:ref}`a-one` |", "All |"))
    built = kept.build()
    assert built.code != 0
    assert "this line of the errata names no result" in built.warnings
