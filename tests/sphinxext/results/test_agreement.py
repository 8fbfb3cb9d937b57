"""The comparisons with libraries: those of a page, those of all pages, and rows of no page."""

import json
import re

import pytest

from tests.small_site import Site

ROWS = [
    {
        "topic": "b/kl",
        "formula": "k3",
        "library": "trl",
        "version": "1.16.0",
        "convention": "<per token>",
        "allowed": 1e-12,
        "largest_difference": 0.0,
    },
    {
        "topic": "b/kl",
        "formula": "k3, gradient",
        "library": "open_clip_torch",
        "version": "3.3.0",
        "convention": "",
        "allowed": 1e-6,
        "largest_difference": 2.5e-7,
    },
    {
        "topic": "a/rms",
        "formula": "rms_norm",
        "library": "trl",
        "version": "1.16.0",
        "convention": "",
        "allowed": 1e-12,
        "largest_difference": 4.4e-16,
    },
]
TOPIC = "# {}\n\n## In practice\n\n```{{agreement}}\n```\n"


@pytest.fixture
def compared(site: Site) -> Site:
    site.configure("myst_heading_anchors = 3")
    site.write("agreement.json", json.dumps(ROWS))
    site.write("index.md", "# I\n\n```{toctree}\nagreement\nb/kl\na/rms\n```\n")
    site.write("agreement.md", "# Agreement\n\n## All\n\n```{agreement} all\n```\n")
    site.write("b/kl.md", TOPIC.format("KL"))
    site.write("a/rms.md", TOPIC.format("RMS"))
    return site


def test_all_comparisons_are_on_one_page_by_topic(compared: Site) -> None:
    built = compared.build()
    assert (built.code, built.warnings) == (0, "")
    page = built.page("agreement")
    assert "3 comparisons with 2 libraries on 2 pages; 1 of them found no difference" in page
    assert '<div class="ledger-filter docutils container">' in page
    rows = re.findall(r'<tr class="([^"]*group-[^"]*)">(.*?)</tr>', page, re.DOTALL)
    classes = [set(row[0].split()) - {"row-even", "row-odd"} for row in rows]
    assert classes == [
        {"group-a", "library-trl", "difference-below_1e-12"},
        {"group-b", "library-trl", "difference-0"},
        {"group-b", "library-open-clip-torch", "difference-below_1e-6"},
    ]
    kl = rows[2][1]
    for text in ("k3, gradient", "open_clip_torch 3.3.0", "2.5e-07 (allowed 1e-06)"):
        assert f"<p>{text}</p>" in kl
    assert "<p>0 (allowed 1e-12)</p>" in rows[0][1] + rows[1][1]
    assert "&lt;per token&gt;" in rows[1][1]
    section = page.split('id="agreement-b-kl"')[1]
    assert 'href="b/kl.html#in-practice"' in section.split("<table")[0]


def test_versions_are_listed_with_what_was_compared(compared: Site) -> None:
    table = compared.build().page("agreement").split("</table>")[0]
    cells = [re.findall(r"<p>(.*?)</p>", row) for row in table.split("<tr")[2:]]
    assert cells == [["open_clip_torch", "3.3.0", "1", "1"], ["trl", "1.16.0", "2", "2"]]


def test_a_page_shows_its_own_comparisons_folded(compared: Site) -> None:
    page = compared.build().page("b/kl")
    fold = page.split("2 comparisons with open_clip_torch and trl</summary>")[1]
    assert "k3, gradient" in fold
    assert "rms_norm" not in page
    assert "group-b" not in page  # there is nothing to choose from


def test_rows_of_no_page_stop_the_build(compared: Site) -> None:
    rows = [*ROWS, {**ROWS[0], "topic": "b/gone"}]
    compared.write("agreement.json", json.dumps(rows))
    built = compared.build()
    assert built.code != 0
    assert "agreement.md: WARNING: agreement.json has rows of b/gone, which is no page" in (
        built.warnings
    )


def test_a_page_that_does_not_say_where_libraries_differ_stops_the_build(compared: Site) -> None:
    compared.write("b/kl.md", TOPIC.format("KL").replace("In practice", "Elsewhere"))
    built = compared.build()
    assert built.code != 0
    assert "local id not found in doc 'b/kl': 'in-practice'" in built.warnings


def test_another_number_is_shown_at_once(compared: Site) -> None:
    compared.build()
    compared.write("agreement.json", json.dumps([*ROWS[:2], {**ROWS[2], "version": "1.17.0"}]))
    built = compared.build()
    assert (built.code, built.warnings) == (0, "")
    assert "trl 1.17.0" in built.page("agreement")
    assert "trl 1.17.0" in built.page("a/rms")


def test_the_markdown_of_the_page_has_the_rows(compared: Site) -> None:
    built = compared.build()
    text = (built.html / "agreement.md").read_text(encoding="utf-8")
    assert "| k3, gradient | open\\_clip\\_torch 3.3.0 |  | 2.5e-07 (allowed 1e-06) |" in text
    assert "[In practice](b/kl.html#in-practice)" in text
