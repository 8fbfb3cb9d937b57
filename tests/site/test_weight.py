"""What a page weighs, whether it moves while it loads, and which scripts it does without."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.bench.site_weight import DESKTOP, PHONE, Profile, serve, visit

PAGES = ("rl/kl.html", "functional/softmax.html", "components/rope.html")
IDLE = ("fontawesome", "jquery", "underscore", "design-tabs", "MathJax", "searchindex")


@pytest.fixture(scope="module")
def address(html: Path) -> Iterator[str]:
    with serve(html) as address:
        yield address


@pytest.mark.parametrize("profile", [DESKTOP, PHONE], ids=lambda profile: profile.name)
@pytest.mark.parametrize("page", PAGES)
def test_a_derivation_is_light_and_stands_still(
    browser: Browser, address: str, page: str, profile: Profile
) -> None:
    seen = visit(browser, address + page, profile)
    assert seen.formulas >= 48
    assert 100 < seen.kilobytes <= 450
    assert 10 < seen.scripts <= 60
    assert seen.shift <= 0.01


@pytest.mark.parametrize("profile", [DESKTOP, PHONE], ids=lambda profile: profile.name)
@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "ledger.html",
        "agreement.html",
        "graph.html",
        "search.html",
        "search.html?q=softmax",
    ],
)
def test_no_other_page_moves_either(
    browser: Browser, address: str, page: str, profile: Profile
) -> None:
    assert visit(browser, address + page, profile).shift <= 0.01


def test_the_first_paint_holds_the_first_formulas(browser: Browser, address: str) -> None:
    """The fonts of the first screen are asked for by the head, not by a style sheet."""
    page = browser.new_page(viewport={"width": DESKTOP.width, "height": DESKTOP.height})
    page.goto(address + PAGES[0], wait_until="load")
    late = page.evaluate("""() => {
      const preloaded = [...document.querySelectorAll("link[rel=preload][as=font]")];
      const names = new Set(preloaded.map((link) => link.href));
      const visible = [...document.querySelectorAll(".katex-html span")].filter((span) =>
        span.children.length === 0 && span.textContent.trim()
        && span.getBoundingClientRect().bottom < innerHeight);
      const families = new Set(visible.map((span) => getComputedStyle(span).fontFamily.split(",")[0]
        .replaceAll('"', "")));
      const wanted = [...families].filter((family) => family.startsWith("KaTeX"));
      return {
        wanted,
        late: wanted.filter((family) => ![...names].some((name) => name.includes(family))),
      };
    }""")
    page.close()
    assert "KaTeX_Main" in late["wanted"]
    assert late["late"] == []


def test_nothing_is_preloaded_in_vain(browser: Browser, address: str) -> None:
    """What a page asks for ahead of time, it shows: fonts by style, the rest as Chromium says.

    A font that is asked for counts as used for Chromium, whatever is drawn.
    """
    for name in ("index.html", *PAGES):
        page = browser.new_page()
        warned: list[str] = []
        page.on("console", lambda message, to=warned: to.append(message.text))
        page.goto(address + name, wait_until="load")
        seen = page.evaluate("""() => {
          const styles = [...document.querySelectorAll(".katex-html span")]
            .filter((it) => it.children.length === 0 && it.textContent.trim())
            .map((it) => getComputedStyle(it))
            .map((it) => it.fontFamily.split(",")[0].replaceAll('"', "") + "-"
              + (+it.fontWeight > 500 ? "Bold" : "") + (it.fontStyle === "italic" ? "Italic" : ""));
          const links = [...document.querySelectorAll("link[rel=preload][as=font]")];
          const names = links.map((it) => it.href.match(/KaTeX_[^.]*/)[0].replace("Regular", ""));
          return { names, vain: names.filter((it) => !styles.includes(it)) };
        }""")
        page.wait_for_timeout(4500)  # until Chromium warns
        page.close()
        assert len(seen["names"]) >= 2, name
        assert not seen["vain"], name
        assert not [text for text in warned if "preload" in text], name


def test_no_page_loads_a_script_that_does_nothing(html: Path) -> None:
    for path in html.rglob("*.html"):
        if "_static" in path.parts or path.name == "search.html":
            continue
        text = path.read_text(encoding="utf-8")
        sources = re.findall(r'<script[^>]*\bsrc="([^"]*)"', text)
        assert sources, path
        assert not [source for source in sources for name in IDLE if name in source], path
        if "preview.js" in "".join(sources):
            assert "katex.min.css" in text, path
            assert "#" in "".join(re.findall(r'class="reference internal" href="([^"]*)"', text)), (
                path
            )
        assert ("clipboard" in "".join(sources)) == ('<div class="highlight' in text), path


def test_each_icon_is_drawn_without_a_font(html: Path) -> None:
    drawn = set(re.findall(r"\.fa-([a-z-]+) \{", (html / "_static/icons.css").read_text()))
    used = set()
    for path in html.rglob("*.html"):
        for classes in re.findall(
            r'class="([^"]*\b(?:fas|fab|far|fa-solid)\b[^"]*)"', path.read_text()
        ):
            used |= {name.removeprefix("fa-") for name in classes.split() if "fa-" in name}
    sizes = {"solid", "lg", "fw"}
    assert len(used - sizes) >= 10
    assert used - sizes <= drawn
    theme = (html / "_static/styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
    assert "fontawesome/webfonts" not in theme
    assert theme.count("--fa:") < 10
