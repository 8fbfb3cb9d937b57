"""The HTML that docutils, myst-nb and the theme leave unfinished, on a small site in the theme."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmref.sphinxext.web.accessible import drawing_size
from tests.small_site import Built, Site

DRAWING = (
    '<?xml version="1.0"?>\n<svg xmlns="" width="345.6pt" height="15px" viewBox="0 0 9 9"></svg>'
)
PAGE = """
    # Page

    1. An item with a note.[^one]
    2. An item with another.[^two]
       - An item inside it, with a third.[^three]

    :::{prf:definition} A square
    :label: a-square
    It has a note.[^four]
    :::

    [^one]: The first note.
    [^two]: The second note.
    [^three]: The third note.
    [^four]: The fourth note.

    |     | torch | numpy |
    |-----|-------|-------|
    | sum |   1   |       |

    | name | value |
    |------|-------|
    | sum  |   1   |

    ![Nine circles](drawing.svg)

    ```{image} drawing.svg
    :alt: Nine circles, small
    :width: 50px
    ```

    ```{code-cell} python
    :tags: [hide-input]
    print(1)
    ```
"""


@pytest.fixture(scope="module")
def built(module_site: Callable[[], Site]) -> Built:
    site = module_site()
    site.configure('html_theme = "sphinx_book_theme"')
    site.write("drawing.svg", DRAWING)
    site.write("index.md", PAGE, executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    return built


def test_a_list_holds_nothing_but_items(built: Built) -> None:
    article = built.page("index").split("<article")[1].split("</article>")[0]
    for after in re.findall(r"<[uo]l\b[^>]*>\s*(<\w+)", article):
        assert after == "<li"
    assert not re.search(r"</li>\s*<(?!li\b|/)", article)


def test_a_note_is_listed_at_the_end_and_leads_back(built: Built) -> None:
    article = built.page("index").split("<article")[1].split("</article>")[0]
    links = dict(re.findall(r'href="#(\S+)" id="(\S+)" role="doc-noteref"', article))
    note = r'<aside class="footnote [^>]*id="(\S+)".*?href="#(\S+)"'
    notes = re.findall(note, article, re.DOTALL)
    assert len(notes) == 4
    assert dict(notes) == links


def test_an_empty_cell_of_a_head_is_no_heading(built: Built) -> None:
    head = built.page("index").split("<thead>")[1].split("</thead>")[0]
    assert re.findall(r"</?t[hd]\b", head) == ["<td", "</td", *["<th", "</th"] * 2]


def test_a_column_without_a_head_of_its_own_heads_the_rows(built: Built) -> None:
    with_a_corner, without = built.page("index").split("<tbody>")[1:]
    assert re.findall(r"<t[hd]\b", with_a_corner.split("</tbody>")[0]) == ["<th", "<td", "<td"]
    assert re.findall(r"<t[hd]\b", without.split("</tbody>")[0]) == ["<td", "<td"]


def test_a_drawing_has_its_size_in_pixels(built: Built) -> None:
    first, second = re.findall(r"<img [^>]*drawing.svg[^>]*>", built.page("index"))
    assert 'height="15"' in first
    assert 'width="461"' in first
    assert "height" not in second
    assert "50px" in second


def test_a_size_is_read_from_the_root_of_an_svg_only(tmp_path: Path) -> None:
    def size(name: str, text: str) -> dict[str, str]:
        (tmp_path / name).write_text(text)
        return drawing_size(tmp_path / name)

    assert size("a.svg", DRAWING) == {"width": "461", "height": "15"}
    assert size("b.svg", '<svg viewBox="0 0 9 9"><rect width="3" height="4"/></svg>') == {}
    assert size("c.svg", '<svg width="100%" stroke-width="2" height="7"></svg>') == {"height": "7"}
    assert size("d.png", DRAWING) == {}
    assert drawing_size(tmp_path / "none.svg") == {}


def test_a_hidden_cell_is_named_by_what_it_shows(built: Built) -> None:
    page = built.page("index")
    summary = page.split('<details class="admonition hide')[1].split("</summary>")[0]
    assert "<summary>" in summary
    assert "Show code cell source" in summary
    assert "Toggle hidden content" not in page


def test_logo_and_search_button_are_in_landmarks(built: Built) -> None:
    page = built.page("index")
    logo = page.split('<nav aria-label="Home">')[1].split("</nav>")[0]
    assert 'class="navbar-brand logo"' in logo
    search = page.split('<div role="search" aria-label="Search"')[1].split("</div>")[0]
    button = re.search("<button[^>]*>", search)[0]  # type: ignore[index]
    assert "search-button__button" in button
    assert "aria-label" not in button


def test_an_image_without_a_text_stops_a_strict_build(site: Site) -> None:
    site.write("drawing.svg", DRAWING)
    site.write("index.md", "# Page\n\nText.\n\n![](drawing.svg)\n")
    built = site.build()
    assert built.code != 0
    assert "index.md:5: WARNING: an image without an alternative text" in built.warnings


def test_light_colours_hold_where_no_script_has_chosen_the_dark_ones(built: Built) -> None:
    for name, rules in (("pygments.css", 50), ("styles/pydata-sphinx-theme.css", 5)):
        text = (built.html / "_static" / name).read_text(encoding="utf-8")
        assert text.count("html:not([data-theme=dark])") > rules
        assert not re.search('data-theme="?light', text)


def test_a_head_that_is_a_formula_alone_stops_a_strict_build(site: Site) -> None:
    """Words beside a formula are enough, an empty corner heads nothing, and a datum needs none."""
    table = "# Page\n\n| {} | width $d$ | {} |\n|---|---|---|\n| {} | 1 | $x$ |\n"
    site.write("index.md", table.format("", "$n$", "$a$"))
    built = site.build()
    assert built.code != 0
    said = [line for line in built.warnings.splitlines() if "headed by a formula alone" in line]
    assert [line.partition("alone: ")[2][0] for line in said] == ["n", "a"]
    assert all("index.md:3" in line for line in said)
    for corner, row in (("", "size $a$"), ("size", "$a$")):
        site.write("index.md", table.format(corner, "count $n$", row))
        assert site.build().code == 0
