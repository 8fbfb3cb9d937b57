"""The built site, as it is served below some path: every link and anchor leads somewhere."""

import json
import re
import struct
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

from .conftest import ROOT

BASE = "https://example.org/some/where/"
# What a browser fetches by itself, and what only a reader follows.
FETCHED = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src")}
FOLLOWED = {("a", "href"), ("form", "action")}


@dataclass
class Page(HTMLParser):
    """The links of a page, its anchors, and the text of its formulas."""

    name: str
    fetched: list[str] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    base: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.anchors.add(value)
            elif (tag, name) == ("base", "href"):
                self.base = value
            elif (tag, name) in FETCHED and ("rel", "canonical") not in attrs:
                self.fetched.append(value)
            elif (tag, name) in FOLLOWED:
                self.followed.append(value)

    def resolve(self, link: str) -> str:
        # A page with a base of its own is shown for any address, and leads home.
        return urljoin(BASE if self.base else BASE + self.name, link)


@pytest.fixture(scope="module")
def pages(html: Path) -> dict[str, Page]:
    found = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" in path.parts:
            continue  # the theme's templates
        page = Page(path.relative_to(html).as_posix())
        page.feed(path.read_text(encoding="utf-8"))
        found[page.name] = page
    return found


def is_external(link: str) -> bool:
    return urlsplit(link).scheme in ("http", "https", "mailto")


def test_there_are_pages_with_links(pages: dict[str, Page]) -> None:
    assert len(pages) > 20
    assert sum(len(page.followed) for page in pages.values()) > 2000


def test_every_internal_link_and_anchor_exists(html: Path, pages: dict[str, Page]) -> None:
    dead = []
    for page in pages.values():
        for link in {*page.followed, *page.fetched}:
            if is_external(link) or (page.base and link.startswith("#")):
                continue
            address, fragment = urldefrag(page.resolve(link))
            path = urlsplit(address).path.removeprefix(urlsplit(BASE).path)
            target = unquote(path) or "index.html"
            inside = address.startswith(BASE)
            there = inside and (html / target).is_file()
            if there and fragment and target in pages:
                there = unquote(fragment) in pages[target].anchors
            if not there:
                dead.append(f"{page.name}: {link}")
    assert not dead, dead[:20]


def test_no_page_fetches_anything_from_elsewhere(html: Path, pages: dict[str, Page]) -> None:
    assert not [link for page in pages.values() for link in page.fetched if is_external(link)]
    for sheet in html.rglob("*.css"):
        for link in re.findall(r"url\(\s*['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            if link.startswith("data:"):
                continue
            assert not is_external(link), f"{sheet.name}: {link}"
            assert (sheet.parent / urldefrag(link)[0].split("?")[0]).is_file(), (sheet, link)


def test_every_formula_is_typeset(html: Path) -> None:
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        boxes = re.findall(
            r'<(?:span|div) class="math notranslate nohighlight"(?: id="[^"]*")?>', text
        )
        assert text.count("<math ") >= len(boxes), path
        assert "katex-error" not in text, path


def test_every_result_is_at_its_permanent_link(html: Path, pages: dict[str, Page]) -> None:
    data = json.loads((html / "results.json").read_text(encoding="utf-8"))
    for result in data["results"]:
        for id_ in (result["id"], *result["formerly"]):
            assert id_ in pages[f"{result['page']}.html"].anchors, id_
        assert result["url"].endswith(f"/{result['page']}.html#{result['id']}")


def test_every_entry_for_other_sites_leads_to_its_place(html: Path, pages: dict[str, Page]) -> None:
    with (html / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, uri: uri)
    for kind in ("std:label", "std:doc", "prf:theorem", "py:function", "py:module", "py:method"):
        assert inventory[kind], kind
    assert "eq-kl-values" in inventory["std:label"]
    dead = []
    for kind, entries in inventory.items():
        for name, item in entries.items():
            page, _, anchor = item.uri.partition("#")
            there = page in pages and (not anchor or anchor in pages[page].anchors)
            if not there:
                dead.append(f"{kind} {name}: {item.uri}")
    assert not dead, dead[:20]


def test_each_page_has_one_title_and_a_description_of_its_own(
    html: Path, pages: dict[str, Page]
) -> None:
    descriptions = {}
    for path in (html / name for name in pages if name != "search.html"):
        text = path.read_text(encoding="utf-8")
        article = text.split("<article")[1].split("</article>")[0]
        assert len(re.findall(r"<h1[ >]", article)) == 1, path
        found = re.findall(r'<meta[^>]*name="description"[^>]*>', text)
        assert found, path
        assert not set("$\\") & set(found[0]), path
        descriptions[path] = found[0]
    assert len(set(descriptions.values())) == len(descriptions)


def test_each_page_says_what_a_preview_shows(html: Path, pages: dict[str, Page]) -> None:
    base = "https://llmref.github.io/llmref/"
    for name in pages:
        text = (html / name).read_text(encoding="utf-8").split("</head>")[0]
        found = dict(re.findall(r'<meta property="(og:[a-z_:]+)" content="([^"]*)"', text))
        assert {"og:title", "og:description", "og:image:alt"} <= set(found), name
        assert all(found.values()), name
        assert not [value for value in found.values() if set("$\\") & set(value)], (name, found)
        assert found["og:url"].removeprefix(base) == name
        assert found["og:image"].startswith(base)
        picture = html / found["og:image"].removeprefix(base)
        size = struct.unpack(">II", picture.read_bytes()[16:24])
        assert size == (int(found["og:image:width"]), int(found["og:image:height"]))
        assert found["og:site_name"] == "llmref"
        assert found["og:type"] in ("article", "website")
        assert '<meta name="twitter:card" content="summary_large_image"/>' in text
        assert f'<link rel="canonical" href="{base}{name}"' in text
        assert '<link rel="icon" ' in text
        assert text.count('name="viewport"') <= 2


def test_nothing_depends_on_where_the_site_was_built(html: Path) -> None:
    assert not (html / ".buildinfo").exists()  # a digest of Sphinx's settings, paths among them
    files = [path for path in html.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if str(ROOT).encode() in path.read_bytes()]


def test_the_sitemap_lists_the_pages(html: Path, pages: dict[str, Page]) -> None:
    listed = re.findall(r"<loc>[^<]*?/llmref/([^<]*)</loc>", (html / "sitemap.xml").read_text())
    assert set(listed) == set(pages) - {"404.html", "search.html"}
