"""Pages that show something of other pages are written again when it changes there."""

import json

from tests.small_site import Site, tree


def compare_after(site: Site, pages: dict[str, str]) -> dict[str, bytes]:
    """Build, replace pages, build again: the files are those of a clean build."""
    assert site.build_here().code == 0
    for name, text in pages.items():
        site.write(name, text)
    built = site.build_here()
    assert (built.code, built.warnings) == (0, "")
    incremental = tree(built.html)
    clean = tree(site.build_here("clean").html)
    assert [name for name in clean if incremental.get(name) != clean[name]] == []
    return clean


def test_the_number_of_an_equation_of_another_page_is_followed(site: Site) -> None:
    site.write("index.md", "# I\n\n```{toctree}\na\nb\n```\n")
    site.write("a.md", "# A\n\nSee {eq}`eq-b`.\n")
    site.write("b.md", "# B\n\n$$x$$ (eq-b)\n")
    assert site.build_here().page("a").count("(1)") == 1
    files = compare_after(site, {"b.md": "# B\n\n$$y$$ (eq-c)\n\n$$x$$ (eq-b)\n"})
    assert b"(2)" in files["a.html"]


def test_a_label_that_moves_to_another_page_is_followed(site: Site) -> None:
    label = "\n(moved)=\n## Part\n"
    site.write("index.md", "# I\n\n```{toctree}\na\nb\nc\n```\n")
    site.write("a.md", "# A\n")
    site.write("b.md", f"# B\n{label}")
    site.write("c.md", "# C\n\nSee {ref}`moved`.\n")
    files = compare_after(site, {"a.md": f"# A\n{label}", "b.md": "# B\n"})
    assert b'href="a.html#moved"' in files["c.html"]


def definition(page: str, *cited: str) -> str:
    """A page with a result that rests on others."""
    proof = " ".join(f"{{prf:ref}}`{other}-d`" for other in cited)
    return (
        f"# {page}\n\n:::{{prf:definition}} Of {page}\n:label: {page}-d\nIt is.\n:::\n\n"
        f":::{{prf:proof}}\nBy {proof or 'itself'}.\n:::\n"
    )


def test_what_a_result_rests_on_is_followed_over_several_pages(site: Site) -> None:
    """The way to the first result leads over all others, though it cites only the next one."""
    site.write("index.md", "# I\n\n```{toctree}\na\nb\nc\nd\n```\n")
    for page, cited in (("a", "b"), ("b", "c"), ("c", ""), ("d", "")):
        site.write(f"{page}.md", definition(page, *cited))
    files = compare_after(site, {"c.md": definition("c", "d")})
    assert b"d.html#d-d" in files["a.html"]


def test_a_link_to_a_script_follows_what_is_in_it(site: Site) -> None:
    """It holds a checksum, also where the script is an entry of its own."""
    site.configure("html_static_path = ['small.js']\nhtml_js_files = ['small.js']")
    site.write("index.md", "# I\n")
    site.write("small.js", "1;\n")
    compare_after(site, {"small.js": "2;\n"})


def test_the_comparisons_of_all_pages_follow_their_list(site: Site) -> None:
    row = {"topic": "a", "formula": "f", "library": "torch", "convention": ""}
    row |= {"allowed": 1e-12, "largest_difference": 0.0}
    site.configure("myst_heading_anchors = 3")
    site.write("index.md", "# I\n\n```{toctree}\na\nb\n```\n")
    site.write("b.md", "# B\n\n## All\n\n```{agreement} all\n```\n")
    site.write("a.md", "# A\n\n## In practice\n\n```{agreement}\n```\n")
    for version in ("1.0", "2.0"):
        site.write("agreement.json", json.dumps([row | {"version": version}]))
        built = site.build()
        assert (built.code, built.warnings) == (0, "")
        assert f"torch {version}" in built.page("b")
