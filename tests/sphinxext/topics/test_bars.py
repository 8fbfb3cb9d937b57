"""The checks of a result stand in one bar: what is in it, in which order, what stays outside."""

import re
from collections.abc import Callable

import pytest

from tests.small_site import Built, Site

PAGE = """
    # A topic

    ## Derivation

    ```{code-cell} python
    from llmref import verify
    helper = 7  # set up
    ```

    A sentence for the reader.

    ### First

    :::{prf:lemma} One
    :label: topic-one
    One.
    :::

    :::{prf:proof}
    Clear.
    :::

    Why it matters.

    ```{code-cell} python
    verify.exact("topic-one", [1], [1], wrong={"two": [2], "three": [3]}, note="the number one")
    ```

    Between two cells.

    ```{code-cell} python
    verify.exact("topic-one", [helper], [7], wrong={"eight": [8]}, note="the value of helper")
    ```

    What it is good for.

    :::{prf:lemma} Two
    :label: topic-two
    Two.
    :::

    ```{code-cell} python
    print("printed in the bar")
    verify.exact("topic-two", [2], [2], wrong={"one": [1]}, note="the number two")
    ```

    ```{code-cell} python
    :tags: [outside]
    print("for the reader")
    ```

    ## Run it

    ```{code-cell} python
    print("run by the reader")
    ```
"""


@pytest.fixture(scope="module")
def page(module_site: Callable[[], Site]) -> str:
    site = module_site()
    site.write("index.md", PAGE, executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    return built.page("index")


def bar(page: str, id_: str) -> str:
    return page.split(f'id="checks-{id_}"')[1].split("</details>")[0]


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).strip()


def test_a_bar_counts_the_checks_and_says_what_they_compared(page: str) -> None:
    summary = words(bar(page, "topic-one").split("</summary>")[0].split(">", 1)[1])
    assert summary == "2 checks: the number one; the value of helper; 3 mistakes rejected"


def test_what_was_found_comes_before_the_code(page: str) -> None:
    found, code = bar(page, "topic-one").split('class="bar-code"')
    for name in ("two", "three", "eight"):
        assert f"<em>{name}</em>" in found
    assert "verify" in code
    assert "verify" not in found
    assert "<em>two</em>" not in code


def test_all_between_the_first_cell_and_the_last_is_inside(page: str) -> None:
    assert "Between two cells." in bar(page, "topic-one")
    for outside in ("Why it matters.", "What it is good for.", "A sentence for the reader."):
        assert page.count(outside) == 1
        assert outside not in bar(page, "topic-one")


def test_the_bar_stands_just_below_the_proof(page: str) -> None:
    before = page.split('<details class="bar" id="checks-topic-one"')[0]
    assert words(before).endswith("Clear.")


def test_imports_above_the_first_result_go_into_its_bar_first(page: str) -> None:
    code = bar(page, "topic-one").split('class="bar-code"')[1]
    assert "set up" in code.split("the number one")[0]
    assert page.count("set up") == 1


def test_what_a_cell_prints_stays_with_it(page: str) -> None:
    assert "printed in the bar" in bar(page, "topic-two").split('class="bar-code"')[1]


def test_a_cell_can_stay_outside_and_other_sections_have_no_bars(page: str) -> None:
    after = page.split('id="checks-topic-two"')[1].split("</details>")[1]
    assert "for the reader" in after.split("<h2>")[0]
    assert page.count('class="bar"') == 2
    assert "run by the reader" in page.split('id="run-it"')[1]


def test_long_lists_of_scopes_end_in_an_ellipsis(site: Site) -> None:
    cells = "\n\n".join(
        "```{code-cell} python\n"
        f'verify.exact("topic-one", [1], [1], wrong={{"two": [2]}}, note="{n} {"x" * 60}")\n```'
        for n in range(3)
    )
    text = (
        "# A\n\n:::{prf:lemma} One\n:label: topic-one\n1\n:::\n\n"
        "```{code-cell} python\nfrom llmref import verify\n```\n\n"
    )
    site.write("index.md", text + cells, executed=True)
    summary = bar(site.build().page("index"), "topic-one").split("</summary>")[0]
    assert "0 xxx" in summary
    assert "1 xxx" in summary
    assert "2 xxx" not in summary
    assert "; …" in summary


def test_a_check_below_no_result_stops_the_build(site: Site) -> None:
    stray = (
        "\n\n### Elsewhere\n\n```{code-cell} python\n"
        'verify.exact("topic-one", [1], [1], wrong={"two": [2]}, note="the number one")\n```\n'
    )
    text = "\n".join(line[4:] for line in PAGE.splitlines())
    site.write("index.md", text + stray, executed=True)
    built: Built = site.build()
    fence = site.line("index.md", "### Elsewhere") + 2
    assert built.code != 0
    # A cell is reported at its fence or one or two lines further.
    assert any(f"index.md:{fence + n}: " in built.warnings for n in range(3))
    assert "this check stands below no result of its section: topic-one" in built.warnings


def lemma(name: str) -> str:
    return f":::{{prf:lemma}} {name}\n:label: topic-{name}\n1\n:::\n\n"


def check(name: str, *, tag: str = "keep") -> str:
    return (
        f"```{{code-cell}} python\n:tags: [{tag}]\nfrom llmref import verify\n"
        f'verify.exact("topic-{name}", [1], [1], wrong={{"two": [2]}}, note="the number one")\n'
        "```\n\n"
    )


def test_a_proof_between_two_cells_stays_on_the_page(site: Site) -> None:
    proofs = [f":::{{prf:proof}}\nProof {name}.\n:::\n\n" for name in ("A", "B")]
    text = "# A\n\n" + lemma("one") + check("one") + proofs[0] + check("one") + proofs[1]
    site.write("index.md", text, executed=True)
    built = site.build()
    page = built.page("index")
    assert (built.code, built.warnings) == (0, "")
    assert "2 checks" in bar(page, "topic-one")
    places = [page.index(part) for part in ("Proof A.", 'id="checks-topic-one"', "Proof B.")]
    assert places == sorted(places)
    assert "Proof A." not in bar(page, "topic-one")


@pytest.mark.parametrize("tag", ["remove-input", "hide-output"])
def test_a_cell_of_which_nothing_but_its_check_is_shown(site: Site, tag: str) -> None:
    site.write("index.md", "# A\n\n" + lemma("one") + check("one", tag=tag), executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert "1 check" in bar(built.page("index"), "topic-one")
    assert "Hide code cell output" not in built.page("index")


def test_a_check_below_another_result_stops_the_build(site: Site) -> None:
    text = "# A\n\n" + lemma("one") + check("one") + lemma("two") + check("two") + check("one")
    site.write("index.md", text, executed=True)
    built = site.build()
    line = max(i for i, at in enumerate(text.splitlines(), 8) if "topic-one" in at)
    assert built.code != 0
    assert "this check stands below topic-two, not its own result: topic-one" in built.warnings
    assert any(f"index.md:{line + n}: " in built.warnings for n in range(-3, 1)), built.warnings
