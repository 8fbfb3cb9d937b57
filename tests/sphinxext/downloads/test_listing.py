"""llms.txt has the form of llmstxt.org: a title, a summary, sections of links, the optional last.

The pattern below is that of its reference parser for a link: `[title](url): description`.
"""

import re
from collections.abc import Callable

import pytest

from tests.small_site import Built, Site

LINK = re.compile(r"- \[(?P<title>[^\]]+)\]\((?P<url>[^)]+)\)(?:: (?P<about>.+))?")
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


def parse(text: str) -> dict[str, list[tuple[str, str, str]]]:
    """The links of each section; whatever is not of the form is an error."""
    head, *sections = text.split("\n## ")
    assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+\n", head)
    found = {}
    for section in sections:
        name, _, links = section.partition("\n\n")
        matches = [LINK.fullmatch(line) for line in links.strip().split("\n")]
        assert all(matches), section
        found[name] = [(m["title"], m["url"], m["about"] or "") for m in matches if m]
    return found


def test_the_pages_stand_under_the_captions_of_the_contents(built: Built) -> None:
    assert (built.code, built.warnings) == (0, "")
    text = (built.html / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# small\n\n> In short.\n\n## Pages\n\n- [Home](")
    base = "https://example.org"
    assert list(parse(text).items()) == [
        ("Pages", [("Home", f"{base}/index.md", "")]),
        ("B first", [("One (of two)", f"{base}/b/one.md", "What: one, holds.")]),
        ("A then", [("Three", f"{base}/three.md", "")]),
        ("Optional", [("Two", f"{base}/b/two.md", ""), ("Four", f"{base}/four.md", "4")]),
    ]
