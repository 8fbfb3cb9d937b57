"""llms.txt is in the form of llmstxt.org: title, summary, sections of links, what is optional."""

from collections.abc import Callable

import pytest
from llms_txt import parse_llms_file

from tests.small_site import Built, Site

ABOUT = '---\nmyst:\n  html_meta:\n    description: "{}"\n---\n'


@pytest.fixture(scope="module")
def built(module_site: Callable[[], Site]) -> Built:
    site = module_site()
    site.configure('html_baseurl = "https://example.org"\nllmref_description = "In short."')
    site.configure('llmref_unlisted = ["gone"]\nllmref_optional = ["b/two", "four"]')
    contents = "".join(
        f"```{{toctree}}\n:caption: {caption}\n{pages}\n```\n\n"
        for caption, pages in (("B first", "b/two\nb/one"), ("A then", "three\nfour"))
    )
    site.write("index.md", f"# Home\n\n{contents}")
    site.write("b/one.md", ABOUT.format("What: one, holds.") + "# One [of two]\n")
    site.write("b/two.md", "# Two\n")
    site.write("three.md", "# Three\n")
    site.write("four.md", ABOUT.format("4") + "# Four\n")
    site.write("gone.md", "---\norphan: true\n---\n# Gone\n")
    return site.build()


def test_the_pages_stand_under_the_captions_of_the_contents(built: Built) -> None:
    assert (built.code, built.warnings) == (0, "")
    parsed = parse_llms_file((built.html / "llms.txt").read_text(encoding="utf-8"))
    assert (parsed.title, parsed.summary) == ("small", "In short.")
    assert "`.ipynb` its notebook" in parsed.info
    base = "https://example.org"
    found = {
        name: [(link.title, link.url, link.desc) for link in links]
        for name, links in parsed.sections.items()
    }
    assert list(found.items()) == [
        ("Pages", [("Home", f"{base}/index.md", None)]),
        ("B first", [("One (of two)", f"{base}/b/one.md", "What: one, holds.")]),
        ("A then", [("Three", f"{base}/three.md", None)]),
        ("Optional", [("Two", f"{base}/b/two.md", None), ("Four", f"{base}/four.md", "4")]),
    ]
