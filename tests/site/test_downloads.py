"""What readers of the built site take along speaks plain Markdown, is complete, and leads back."""

import html as html_
import json
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urldefrag

import pytest
from bs4 import BeautifulSoup
from llms_txt import parse_llms_file
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pybtex.database import parse_string

from llmref.sphinxext.web.katex import Katex

from .conftest import ROOT

HOME = "https://llmref.github.io/llmref/"
# What MyST alone understands, at the end of a text before code, and at the start of a line.
ROLE = re.compile(r"\{[a-zA-Z][\w:+-]*\}$")
LINE = re.compile(r":{3,}|\([\w-]+\)=|% |\+\+\+|:[a-z-]+: ")


def parse(text: str) -> list[Token]:
    """What a reader with plain Markdown and formulas sees."""
    return (
        MarkdownIt("commonmark")
        .enable("table")
        .use(dollarmath_plugin, allow_labels=False)
        .parse(text)
    )


def leaks(text: str) -> list[str]:
    """Whatever of MyST's own syntax a text shows."""
    found = []
    for token in parse(text):
        if token.type == "fence" and token.info.startswith("{"):
            found.append(token.info)
        if token.type != "inline":
            continue
        found += [line for line in token.content.split("\n") if LINE.match(line)]
        children = token.children or []
        for before, child in pairwise(children):
            if child.type == "code_inline" and ROLE.search(before.content):
                found.append(f"{before.content}`{child.content}`")
    return found


@pytest.fixture(scope="module")
def texts(html: Path) -> dict[str, str]:
    """All pages as Markdown, by name."""
    found = {
        path.relative_to(html).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(html.rglob("*.md"))
    }
    assert len(found) > 35
    return found


def prose(html: Path, page: str) -> list[str]:
    notebook = json.loads((html / f"{page}.ipynb").read_text(encoding="utf-8"))
    cells = notebook["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize(
    "text",
    ["a {prf:ref}`b`", "```{source} a\n```", ":::{note}\nb\n:::", "(a)=\n# B", "% remark", "+++"],
)
def test_what_leaks_is_seen(text: str) -> None:
    assert leaks(text)
    assert not leaks(f"````text\n{text}\n````")


def test_no_page_shows_what_only_the_site_understands(html: Path, texts: dict[str, str]) -> None:
    assert {name: found for name, text in texts.items() if (found := leaks(text))} == {}
    for name in texts:
        if (html / f"{name}.ipynb").is_file():
            assert not [found for text in prose(html, name) if (found := leaks(text))], name


def test_every_link_back_leads_somewhere(html: Path, texts: dict[str, str]) -> None:
    anchors: dict[str, str] = {}
    dead, count = [], 0
    for name, text in texts.items():
        targets = {
            str(child.attrs.get("href") or child.attrs.get("src"))
            for token in parse(text)
            for child in token.children or ()
            if child.type in ("link_open", "image")
        }
        for target in sorted(targets):
            page, anchor = urldefrag(target)
            if not target.startswith(HOME):
                assert target.startswith("http"), (name, target)
                continue
            count += 1
            path = html / (page.removeprefix(HOME) or "index.html")
            if anchor and str(path) not in anchors:
                anchors[str(path)] = path.read_text(encoding="utf-8") if path.is_file() else ""
            if not path.is_file() or (anchor and f'id="{anchor}"' not in anchors[str(path)]):
                dead.append(f"{name}: {target}")
    assert count > 1000
    assert not dead, dead[:20]


def test_every_formula_is_one_with_the_number_of_the_site(
    html: Path, texts: dict[str, str]
) -> None:
    engine = Katex()
    for name, text in texts.items():
        blocks = [token.content for token in parse(text) if token.type == "math_block"]
        refused = [tex for tex in blocks if "html" not in engine.render(tex, display=True)]
        assert not refused, (name, refused[:1])
        tags = [int(tag) for tex in blocks for tag in re.findall(r"\\tag\{(\d+)\}", tex)]
        page = (html / f"{name}.html").read_text(encoding="utf-8")
        assert tags == [int(n) for n in re.findall(r'<span class="eqno">\((\d+)\)', page)], name
    engine.close()


def test_the_code_of_every_function_that_a_page_shows_is_there(texts: dict[str, str]) -> None:
    shown = 0
    for name, text in texts.items():
        page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for function in re.findall(r"^```\{source\} (?:\S+\.)?(\w+)$", page, re.MULTILINE):
            shown += 1
            assert re.search(rf"^ *(?:def|class) {function}\b|^{function}\b", text, re.MULTILINE)
    assert shown > 200


def test_every_result_and_every_proof_is_there(html: Path, texts: dict[str, str]) -> None:
    results = json.loads((html / "results.json").read_text(encoding="utf-8"))["results"]
    for result in results:
        end = "**" if result["kind"] == "by-hand" else " ("
        assert f"**[{result['name']}]({result['url']}){end}" in texts[result["page"]]
    pages = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in texts]
    proofs = sum(len(re.findall(r"^:{3,}\{prf:proof\}", page, re.MULTILINE)) for page in pages)
    assert sum(text.count("*Proof.*") for text in texts.values()) == proofs > 300
    assert sum(text.count("∎") for text in texts.values()) >= proofs


def test_every_citation_is_a_good_entry_of_bibtex(html: Path) -> None:
    results = json.loads((html / "results.json").read_text(encoding="utf-8"))["results"]
    seen = set()
    for page in {result["page"] for result in results}:
        soup = BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        for block in soup.select("details.cite .highlight-bibtex pre"):
            text = html_.unescape(block.get_text())
            assert text.isascii()
            ((key, entry),) = parse_string(text, "bibtex").entries.items()
            seen.add(key.removeprefix("llmref-"))
            assert entry.fields["url"].endswith(f"#{key.removeprefix('llmref-')}")
            assert f"{HOME}v" in entry.fields["note"]
            outside = "".join(entry.fields["title"].split("$")[::2])
            assert not re.search(r"(?<!\\)[_^#&%~]", outside), outside
    assert seen == {result["id"] for result in results if result["kind"] != "by-hand"}


def test_the_list_for_language_models_has_every_page(html: Path, texts: dict[str, str]) -> None:
    parsed = parse_llms_file((html / "llms.txt").read_text(encoding="utf-8"))
    assert parsed.title == "llmref"
    assert parsed.summary
    assert list(parsed.sections)[-1] == "Optional"
    links = [link for section in parsed.sections.values() for link in section]
    assert all(link.desc for link in links)
    assert sorted(link.url for link in links) == sorted(f"{HOME}{name}.md" for name in texts)
