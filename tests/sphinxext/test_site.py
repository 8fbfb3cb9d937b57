"""Pages with results, checks and sources: what a good site shows, and how a bad one fails."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from sphinx.util.inventory import InventoryFile

from llmref.sphinxext import setup, version
from tests.small_site import Built, Site

ROOT = Path(__file__).parents[2]

GOOD = """
    # A topic

    $$
    (a + b)^2 &= a^2 + 2ab + b^2 \\\\ &= c
    $$ (eq-square)

    ```{status}
    ```

    :::{prf:definition} Square of a *sum*
    :label: topic-square
    It is {eq}`eq-square`.
    :::

    :::{prf:theorem} Shift
    :label: topic-shift
    For all real $x$:

    $$
    (x+1)^2 &= x^2\\\\
    &+ 2x + 1 .
    $$ (eq-shift)
    :::

    :::{prf:proof}
    :fold:
    By {prf:ref}`topic-square` and {prf:ref}`other-lemma`, and {prf:ref}`that <topic-square>`.
    :::

    ```{code-cell} python
    import sympy as sp
    from llmref import verify
    x = sp.Symbol("x", real=True)
    verify.identity("topic-shift", (x + 1)**2, x**2 + 2*x + 1, wrong={"lost term": x**2 + 1},
                    note="any real x")
    ```

    ```{code-cell} python
    verify.exact("topic-shift", [1, 4], [1, 4], wrong={"<b>": [1, 2], "zero": [0, 0]},
                 note="x = 1 & x = 2")
    ```

    ```{code-cell} python
    verify.statement("topic-shift", r"(x+1)^2 = x^2 + 2x + 1", {"x": x},
                     note="any real x")
    ```

    ```{source} llmref.verify.symbolic.vanishes
    ```

    ## Mistakes

    ```{mistakes}
    ```

    ## Further results

    ```{fold} Show them
    ```

    ### Inside

    :::{prf:lemma} Folded
    :label: topic-folded
    True.
    :::

    ```{code-cell} python
    verify.exact("topic-folded", [1], [1], wrong={"two": [2]}, note="the one case")
    ```
"""
OTHER = """
    # Another

    :::{prf:lemma} Elsewhere
    :label: other-lemma
    Cited by {prf:ref}`topic-shift`.
    :::

    ```{code-cell} python
    from llmref import verify
    verify.exact("other-lemma", [1], [1], wrong={"two": [2]}, note="the one case")
    ```

    ```{showcase} topic-shift
    ```
"""
INDEX = """
    # Small

    ```{toctree}
    topic
    other
    ```
"""


@pytest.fixture(scope="module")
def good(module_site: Callable[[], Site]) -> Built:
    site = module_site()
    site.write("index.md", INDEX + "\n    ```{ledger}\n    ```\n\n    ```{graph}\n    ```\n")
    site.write("topic.md", GOOD, executed=True)
    site.write("other.md", OTHER, executed=True)
    return site.build()


def test_a_good_site_builds_without_a_warning(good: Built) -> None:
    assert (good.code, good.warnings) == (0, "")


def test_a_result_has_its_id_as_anchor_and_as_permalink(good: Built) -> None:
    page = good.page("topic")
    assert 'class="result result-theorem" id="topic-shift"' in page
    assert '<a class="result-id" href="#topic-shift"' in page
    assert "Theorem 2. Shift" in page
    assert "Definition 1. Square of a <em>sum</em>" in page


def test_references_name_the_result_and_the_page_only_from_elsewhere(good: Built) -> None:
    page = good.page("topic")
    assert 'href="#topic-square" title="Square of a sum"' in page
    assert ">Definition 1</span></a>" in page
    assert ">Lemma 1 of Another</span></a>" in page
    assert ">that</span></a>" in page
    assert ">Theorem 2 of A topic</span></a>" in good.page("other")


def test_a_check_shows_its_kind_figure_equation_and_mistakes(good: Built) -> None:
    page = good.page("topic")
    bar = page.split('id="checks-topic-shift"')[1].split("</details>")[0]
    assert "3 checks" in bar.split("</summary>")[0]
    assert ": difference simplifies to 0.</p>" in bar
    assert "<em>lost term</em>: they differ by" in bar
    assert "<em>&lt;b&gt;</em>: 1 of 2 cases differ" in bar
    assert "katex-display" in bar.split("they differ by")[0]
    alone = good.page("other").split('<details open="open" class="check check-identity">')[1]
    assert "read from the statement" in alone.split("</summary>")[0]
    assert "the statement with any one of its 3 signs flipped" in bar


def test_the_status_line_counts_what_the_page_holds(good: Built) -> None:
    assert "3 results, 4 checks executed, 4 mistakes and 3 sign flips rejected." in good.page(
        "topic"
    )


def test_mistakes_are_listed_from_the_checks(good: Built) -> None:
    listed = (
        good.page("topic")
        .split("4 mistakes rejected by the checks above")[1]
        .split("</details>")[0]
    )
    for name in ("lost term", "&lt;b&gt;", "zero", "two"):
        assert name in listed
    assert "flip" not in listed


def test_a_folded_section_is_complete_and_in_the_contents(good: Built) -> None:
    page = good.page("topic")
    folded = page.split("Show them</summary>")[1].split("</details>\n</section>")[0]
    assert 'id="topic-folded"' in folded
    assert 'id="checks-topic-folded"' in folded
    assert 'href="#inside"' in page


def test_the_ledger_shows_every_result_with_what_it_rests_on(good: Built) -> None:
    ledger = good.page("index")
    assert "4 results, 5 checks executed, 5 mistakes and 3 sign flips rejected." in ledger
    assert "Of the results, 1 is a definition, which needs no check." in ledger
    assert "The checks by kind: 3 exact, 2 identity." in ledger
    assert 'href="topic.html#topic-shift"' in ledger
    rows = re.findall(r'<tr class="([^"]*)">(.*?)</tr>', ledger, re.DOTALL)
    shift = next((c, r) for c, r in rows if 'href="topic.html#topic-shift"' in r.split("</td>")[0])
    classes = shift[0].split()
    assert {"group-topic", "kind-theorem", "check-identity", "check-exact"} <= set(classes)
    cells = shift[1].split("</td>")
    assert "the sides agree</p>" in cells[1]
    assert "3 mistakes and 3 sign flips" in cells[2]
    assert "topic-square" in cells[3]
    assert "other-lemma" in cells[3]
    square = next(r for _, r in rows if 'href="topic.html#topic-square"' in r.split("</td>")[0])
    assert "topic-shift" in square.split("</td>")[4]
    assert "definition" in square.split("</td>")[1]
    assert re.sub("<.*?>", "", square.split("</td>")[2]).strip() == ""  # nothing was tried


def test_a_result_says_what_to_read_to_prove_it_from_scratch(good: Built) -> None:
    page = good.page("topic")
    box = page.split('id="topic-shift"')[1]
    path = box.split("<summary>Rests on 2 results</summary>")[1].split("</details>")[0]
    assert re.findall(r'href="([^"]*)"', path) == ["other.html#other-lemma", "#topic-square"]
    assert "Rests on" not in page.split('id="topic-square"')[1].split("</div>")[0]


def test_the_ledger_says_how_many_statements_a_check_has_read(good: Built) -> None:
    assert "1 statement displays an equation, and for 1 result a check reads" in good.page("index")


def test_another_page_can_show_a_result_with_its_check(good: Built) -> None:
    shown = (
        good.page("other").split('<div class="result result-theorem">')[1].split("</details>")[0]
    )
    assert '<a class="reference internal" href="topic.html#topic-shift"' in shown
    assert '<span class="n">statement</span>' in shown  # of its cell
    assert '<details open="open" class="check check-identity">' in shown
    assert "the statement with any one of its 3 signs flipped" in shown
    assert 'id="topic-shift"' not in good.page("other")


def test_a_result_whose_statement_no_check_reads_is_not_shown_elsewhere(site: Site) -> None:
    site.write("index.md", "# Index\n\n```{showcase} no-such\n```\n")
    built = site.build()
    assert built.code != 0
    assert "no check reads the statement of no-such" in built.warnings


def test_the_graph_is_drawn_with_links_and_text(good: Built) -> None:
    svg = good.page("index").split("<svg")[1].split("</svg>")[0]
    assert svg.count("<path") == 2
    assert svg.count("<rect") == 3
    assert '<a href="topic.html#topic-shift">' in svg
    assert ">topic-square</text>" in svg
    assert "topic-folded" not in svg
    assert "4 results, 2 edges; 1 result without an edge here." in good.page("index")


def test_source_is_shown_with_a_link_to_its_lines(good: Built) -> None:
    page = good.page("topic")
    assert 'href="https://example.org/llmref/verify/symbolic.py#L' in page
    assert 'class="nf">vanishes</span>' in page


def test_formulas_are_typeset_and_numbered_by_sphinx(good: Built) -> None:
    page = good.page("topic")
    block = page.split('id="equation-eq-square"')[1].split("</div>\n")[0]
    assert '<span class="eqno">(1)' in block
    assert "katex-display" in block
    assert (good.html / "_static/katex/katex.min.css").is_file()
    assert list((good.html / "_static/katex/fonts").glob("*.woff2"))
    assert not re.findall(r'(?:src|href)="[^"]*mathjax[^"]*"', page.lower())


def test_results_are_in_the_inventory_for_any_other_site(good: Built) -> None:
    with (good.html / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "https://example.org", lambda a, b: f"{a}/{b}")
    item = inventory["prf:theorem"]["topic-shift"]
    assert item.uri == "https://example.org/topic.html#topic-shift"
    assert item.display_name == "Shift"
    assert inventory["std:label"]["topic-shift"].uri == item.uri
    equation = inventory["std:label"]["eq-square"]
    assert equation.uri == "https://example.org/topic.html#equation-eq-square"
    assert equation.display_name == "Equation (1)"


def test_an_index_that_is_not_written_is_in_no_inventory(site: Site) -> None:
    site.write("index.md", "# I\n")
    for line, gone in (("", False), ("html_use_index = html_domain_indices = False", True)):
        site.configure(line)
        with (site.build("-E").html / "objects.inv").open("rb") as file:
            labels = InventoryFile.load(file, "", lambda a, b: b)["std:label"]
        assert ({"genindex", "modindex", "py-modindex"} & set(labels) == set()) == gone
        assert "search" in labels


BAD = """
    # Bad

    :::{prf:theorem} Unchecked
    :label: bad-unchecked
    Rests on {prf:ref}`no-such-result`.
    :::

    :::{prf:theorem} Unproved
    :label: bad-unproved
    Nothing.
    :::

    :::{prf:lemma} No label
    Nameless.
    :::

    :::{prf:lemma} Bad label
    :label: Bad_Label
    Misnamed.
    :::

    ```{code-cell} python
    from llmref import verify
    verify.exact("bad-unknown", [1], [1], wrong={"two": [2]}, note="the one case")
    ```

    ```{code-cell} python
    verify.exact("bad-unchecked", [1], [2], wrong={"three": [3]}, note="the one case")
    ```

    ```{code-cell} python
    verify.exact("bad-unchecked", [1], [1], wrong={"three": [3]})
    ```

    $2x = 3x - x$ is no statement, and the statement of the first has no formula.

    ```{code-cell} python
    import sympy
    verify.statement("bad-unchecked", "2x = 3x - x", {"x": sympy.Symbol("x")}, note="any x")
    ```

    ```{code-cell} python
    :tags: [remove-output]
    1 / 0
    ```

    ```{code-cell} python
    :tags: [raises-exception]
    raise KeyError("this page shows an error on purpose")
    ```

    $$
    \\nosuchmacro
    $$ (eq-bad)

    ```{source} llmref.verify.symbolic.gone
    ```

    A dead [link](nowhere.md).

    Some *text with a stray $ sign*.

    And `$` in code, which is none.
"""
WORSE = """
    # Worse

    ```{code-cell} python
    raise RuntimeError("the second page fails too")
    ```

    :::{prf:lemma} Taken
    :label: bad-unchecked
    The id is taken.
    :::

    :::{prf:proof}
    Of nothing.
    :::
"""


@pytest.fixture(scope="module")
def bad(module_site: Callable[[], Site]) -> tuple[Site, Built]:
    site = module_site()
    site.write("index.md", "# Index\n\n```{toctree}\nbad\nworse\n```\n")
    site.write("bad.md", BAD, executed=True)
    site.write("worse.md", WORSE, executed=True)
    return site, site.build()


@pytest.mark.parametrize(
    ("page", "at", "message"),
    [
        ("bad.md", "{prf:theorem} Unproved", "the theorem bad-unproved has no check"),
        ("bad.md", "Rests on", "no result has the id no-such-result"),
        ("bad.md", "{prf:lemma} No label", "a lemma needs a :label: in kebab-case, got ''"),
        ("bad.md", "{prf:lemma} Bad label", "in kebab-case, got 'Bad_Label'"),
        ("bad.md", "from llmref import verify", "this check names no result of the site: bad-unk"),
        (
            "bad.md",
            "import sympy",
            "the statement of bad-unchecked does not show the equation that",
        ),
        ("bad.md", '[1], [2], wrong={"three"', "CheckFailedError: bad-unchecked: 1 of 1 cases"),
        ("bad.md", '[1], [1], wrong={"three"', "MissingScopeError: bad-unchecked: say in a few"),
        ("bad.md", ":tags: [remove-output]", "the tag remove-output would hide a failing cell"),
        ("bad.md", "\\nosuchmacro", "KaTeX: KaTeX parse error: Undefined control sequence"),
        ("bad.md", "symbolic.gone", "symbolic.py defines no gone"),
        ("bad.md", "A dead [link]", "nowhere.md"),
        ("bad.md", "stray $", "a stray dollar sign, so a formula shows as TeX"),
        ("worse.md", "raise RuntimeError", "RuntimeError: the second page fails too"),
        ("worse.md", "{prf:lemma} Taken", "the id bad-unchecked is taken by a theorem in bad"),
        ("worse.md", "Of nothing", "a proof without a result before it"),
    ],
)
def test_every_failure_of_every_page_is_reported_with_its_line(
    bad: tuple[Site, Built], page: str, at: str, message: str
) -> None:
    site, built = bad
    assert built.code != 0
    reported = [line for line in built.warnings.splitlines() if message in line]
    assert reported, f"not reported: {message}\n{built.warnings}"
    line = site.line(page, at)
    # A cell or a block is reported at its fence or one or two lines further, a text at its line.
    near = {f"{page}:{n}:" for n in range(line - 2, line + 3)}
    assert any(place in text for text in reported for place in near), (line, reported)


def test_an_announced_exception_is_no_failure(bad: tuple[Site, Built]) -> None:
    assert "on purpose" not in bad[1].warnings


def test_proofs_that_rest_on_each_other_fail(site: Site) -> None:
    each = """
    :::{{prf:definition}} D
    :label: {}
    D.
    :::

    :::{{prf:proof}}
    By {{prf:ref}}`{}`.
    :::
    """
    cells = "".join(
        each.format(a, b)
        for a, b in [("a-1", "b-2"), ("b-2", "c-3"), ("c-3", "a-1"), ("d-4", "a-1")]
    )
    site.write("index.md", "    # I\n" + cells)
    built = site.build()
    assert built.code != 0
    assert "index.md:3: WARNING: these proofs rest on each other: " in built.warnings
    assert "d-4" not in built.warnings


def test_an_id_that_has_moved_keeps_its_link(site: Site) -> None:
    site.write("ids.txt", "topic-new 0.2.0\ntopic-old 0.1.0 -> topic-new\n")
    site.configure(f"llmref_result_ids = {str(site.root / 'ids.txt')!r}")
    site.write("index.md", "# I\n\n:::{prf:definition} A\n:label: topic-new\nB.\n:::\n")
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert 'id="topic-old"' in built.page("index")
    assert "Formerly topic-old." in built.page("index")
    with (built.html / "objects.inv").open("rb") as file:
        labels = InventoryFile.load(file, "", lambda a, b: b)["std:label"]
    assert labels["topic-old"].uri == "index.html#topic-old"
    results = json.loads((built.html / "results.json").read_text(encoding="utf-8"))["results"]
    assert [(r["id"], r["since"], r["formerly"]) for r in results] == [
        ("topic-new", "0.2.0", ["topic-old"])
    ]
    site.write("ids.txt", "topic-new 0.2.0\ntopic-old 0.1.0 -> topic-lost\n")
    built = site.build()
    assert built.code != 0
    assert "topic-old is missing from the site, and so is topic-lost, where it moved" in (
        built.warnings
    )


def test_results_json_holds_everything_in_its_documented_form(good: Built) -> None:
    data = json.loads((good.html / "results.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "docs/results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema)
    nothing_rejected = json.loads(json.dumps(data))
    nothing_rejected["results"][0]["checks"][0]["rejected"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(nothing_rejected, schema)
    results = {result["id"]: result for result in data["results"]}
    assert list(results) == ["other-lemma", "topic-folded", "topic-shift", "topic-square"]
    shift = results["topic-shift"]
    assert shift["rests_on"] == ["topic-square", "other-lemma"]
    assert results["topic-square"]["supports"] == ["topic-shift"]
    assert [check["kind"] for check in shift["checks"]] == [
        "identity",
        "exact",
        "identity",
    ]
    assert shift["checks"][0]["rejected"].keys() == {"lost term"}
    assert [check["turned"] for check in shift["checks"]] == [0, 0, 3]
    assert shift["checks"][2]["rejected"] == {}
    assert shift["url"] == "topic.html#topic-shift"


def test_a_page_for_dead_links_leads_home_and_is_in_no_list(site: Site) -> None:
    site.configure('html_baseurl = "https://example.org/here/"')
    site.configure('llmref_home = "https://example.org/there/"')
    site.configure('llmref_unlisted = ["404"]')
    site.write("index.md", "# Home\n\n```{toctree}\nother\n```\n")
    site.write("other.md", "# Other\n")
    site.write("404.md", "---\norphan: true\n---\n# Not found\n\n[Home](index.md)\n")
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert '<base href="https://example.org/there/">' in built.page("404")
    assert "<base" not in built.page("other")
    assert not (built.html / "404.md").exists()
    assert "404" not in (built.html / "llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"<loc>(.*)</loc>", (built.html / "sitemap.xml").read_text())
    assert listed == [f"https://example.org/here/{page}.html" for page in ("index", "other")]


def test_another_site_cites_three_results_through_intersphinx(good: Built, site: Site) -> None:
    """A plain Sphinx site, without our extension."""
    (site.root / "conf.py").write_text(
        "extensions = ['myst_parser', 'sphinx.ext.intersphinx']\n"
        "intersphinx_mapping = {'llmref': ('https://example.org', "
        f"{str(good.html / 'objects.inv')!r})}}\n"
    )
    cited = ("topic-shift", "topic-square", "other-lemma")
    site.write("index.md", "# I\n\n" + "\n".join(f"{{external+llmref:ref}}`{c}`" for c in cited))
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    for page, id_ in zip(("topic", "topic", "other"), cited, strict=True):
        assert f'href="https://example.org/{page}.html#{id_}"' in built.page("index")
    assert "Theorem 2 (Shift)" in built.page("index")


def test_an_id_that_is_not_published_or_has_vanished_fails(site: Site) -> None:
    site.write("ids.txt", "topic-here 0.1.0\ntopic-gone 0.1.0\n")
    site.configure(f"llmref_result_ids = {str(site.root / 'ids.txt')!r}")
    for_each = "\n:::{{prf:definition}} A\n:label: {}\nB.\n:::\n"
    site.write("index.md", "# I\n" + for_each.format("topic-here") + for_each.format("topic-new"))
    built = site.build()
    assert built.code != 0
    assert "the published id topic-gone is missing from the site" in built.warnings
    assert "index.md:8: WARNING: the id topic-new is not in" in built.warnings
    assert "topic-here" not in built.warnings


def test_an_edit_of_the_machinery_has_all_pages_read_again(tmp_path: Path) -> None:
    """Sphinx compares the number. What is copied as it is has no part in any page."""
    (tmp_path / "static").mkdir()
    for name in ("static/a.css", "static/a.js", "book.css"):
        (tmp_path / name).write_text("p {}", encoding="utf-8")
    for name in ("b.py", "page.html"):
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    numbers = [version(tmp_path)]
    (tmp_path / "b.pyc").write_bytes(b"compiled")
    (tmp_path / "static" / "a.css").write_text("q {}", encoding="utf-8")
    (tmp_path / "static" / "a.js").unlink()
    (tmp_path / "book.css").write_text("q {}", encoding="utf-8")
    assert version(tmp_path) == numbers[0]
    for name in ("b.py", "page.html"):
        (tmp_path / name).write_text("x = 2\n", encoding="utf-8")
        numbers.append(version(tmp_path))
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    numbers.append(version(tmp_path))
    assert len(set(numbers)) == 4
    app: Any = SimpleNamespace(setup_extension=lambda name: None)
    assert setup(app)["env_version"] == version() == version()


def test_a_page_without_comparisons_says_how_to_make_them(site: Site) -> None:
    site.write("index.md", "# I\n\n```{agreement}\n```\n")
    built = site.build()
    assert re.search(
        r"index\.md: WARNING: no comparison is recorded for this page: "
        r"run make agreement T=tests/oracle/test_index\.py",
        built.warnings,
    )


def test_a_result_rests_on_what_all_its_proofs_cite(site: Site) -> None:
    definition = ":::{{prf:definition}} D\n:label: {0}\nIt is.\n:::\n"
    proof = ":::{{prf:proof}}\nBy {{prf:ref}}`{0}`.\n:::\n"
    site.write(
        "index.md",
        "# I\n\n"
        + definition.format("a-a")
        + definition.format("b-b")
        + definition.format("c-c")
        + proof.format("a-a")
        + "Or:\n\n"
        + proof.format("b-b"),
    )
    assert site.build().warnings == ""
    results = json.loads((site.root / "_build/html/results.json").read_text(encoding="utf-8"))
    assert results["results"][2]["rests_on"] == ["a-a", "b-b"]


def test_the_search_index_leads_to_results(site: Site) -> None:
    """By title and id, unescaped and uncut; the anchor is the id."""
    title = "A. Bell's theorem <holds>"
    site.write("index.md", f"# I\n\n:::{{prf:definition}} {title}\n:label: a-b\nIt is.\n:::\n")
    assert site.build().warnings == ""
    index = (site.root / "_build/html/searchindex.js").read_text(encoding="utf-8")
    objects = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["objects"]
    entries = [entry for entries in objects.values() for entry in entries]
    assert [entry[3:] for entry in entries] == [["a-b", f"{title} (a-b)"]]
