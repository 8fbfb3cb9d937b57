"""A comment that names an equation leads to it; nothing else in a listing is touched."""

import re
from collections.abc import Callable

import pytest

from tests.small_site import Site

PAGE = """
    # Here

    $$x$$ (eq-here)

    ```python
    y = x  # eq. eq-here
    z = "eq-here"  # eqs. eq-here, eq-there and eq-nowhere
    ```

    ```text
    # eq. eq-here
    ```
"""


@pytest.fixture(scope="module")
def listing(module_site: Callable[[], Site]) -> tuple[str, str]:
    site = module_site()
    site.write("index.md", "# Small\n\n```{toctree}\npart/here\nthere\n```\n")
    site.write("part/here.md", PAGE)
    site.write("there.md", "# There\n\n$$a$$ (eq-first)\n\n$$b$$ (eq-there)\n")
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    first, second = re.findall(r"<pre>(.*?)</pre>", built.page("part/here"), re.DOTALL)
    return first, second


def test_a_label_shows_its_number_and_leads_to_the_equation(listing: tuple[str, str]) -> None:
    assert '# equation <a href="#equation-eq-here">(1)</a></span>' in listing[0]


def test_an_equation_of_another_page_is_named_with_its_page(listing: tuple[str, str]) -> None:
    assert '<a href="../there.html#equation-eq-there">(2)</a> of There and eq-nowhere' in listing[0]


def test_what_is_no_comment_of_code_is_left_as_it_is(listing: tuple[str, str]) -> None:
    assert listing[0].count("eq-here") == 3  # two links and the string
    assert "<a " not in listing[1]
    assert "# eq. eq-here" in listing[1]
