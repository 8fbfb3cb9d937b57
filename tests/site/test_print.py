"""What comes out of a printer: all of the text, black on white, and nothing but the text."""

import pytest
from playwright.sync_api import Browser, Page

# A4 without its margins, in the browser's pixels.
PAPER = {"width": 672, "height": 980}
HIDDEN = (
    ".bar-code, details.hide, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, "
    ".prev-next-footer, details.mistakes"
)
# The cells of checks, what draws a figure, and the list that repeats the bars are left to the site.
FOLDED = (
    "article details:not(.cite, .path, .hide, .mistakes, .bar-code *)"
    ":not(:is(.cite, .path, .mistakes) *)"
    " > :not(summary, .bar-code)"
)


def printed(browser: Browser, served: str, *, scripts: bool) -> Page:
    context = browser.new_context(viewport=PAPER, color_scheme="dark", java_script_enabled=scripts)
    page = context.new_page()
    page.goto(served + "rl/kl.html", wait_until="load")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    return page


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_nothing_is_folded_and_nothing_leads_elsewhere(
    browser: Browser, served: str, scripts: bool
) -> None:
    page = printed(browser, served, scripts=scripts)
    folded = page.locator(FOLDED)
    assert folded.count() > 40
    seen = "(found) => found.map((e) => e.checkVisibility({contentVisibilityAuto: true}))"
    assert all(folded.evaluate_all(seen))
    assert page.locator("details.bar > .bar-code").count() > 10
    assert page.locator("details.hide").count() > 0
    assert page.locator(HIDDEN).count() > 3
    assert not any(page.locator(HIDDEN).evaluate_all(seen))
    page.context.close()


def test_paper_is_white_even_from_the_dark(browser: Browser, served: str) -> None:
    page = printed(browser, served, scripts=True)
    colours = """() => [
      getComputedStyle(document.querySelector("article p")).color,
      getComputedStyle(document.querySelector("article pre")).backgroundColor,
      getComputedStyle(document.body).backgroundColor,
    ].map((colour) => colour.match(/[0-9.]+/g).slice(0, 3).reduce((sum, x) => sum + +x, 0) / 3)"""
    ink, code, paper = page.evaluate(colours)
    assert ink < 60
    assert min(code, paper) > 235
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("article details[open]").count() == 0
    page.context.close()


def test_nothing_is_wider_than_the_paper(browser: Browser, served: str) -> None:
    page = printed(browser, served, scripts=True)
    wide = """(found) => found.filter((e) => e.getBoundingClientRect().width > 0)
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
      .map((e) => e.textContent.slice(0, 80))"""
    for part in (".katex-html .katex-base", "article pre", "article table", "article img"):
        assert page.locator(part).count() > 1, part
        assert page.locator(part).evaluate_all(wide) == [], part
    page.context.close()
