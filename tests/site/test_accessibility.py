"""The built site for readers with a keyboard, a screen reader, or little patience for motion."""

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from llmref.hosting.browser import chromium

from .test_browser import NARROW, OPEN_ALL, WIDE, visiting

AXE = Path(sys.prefix) / "llmref-axe/node_modules/axe-core/axe.min.js"
# A page is tested light and dark, wide and narrow, in two states that differ in both; the pages of
# IN_FOUR in all four. Axe looks at each part of each formula, a minute for a long derivation, so
# that of the topics one stands for all, unless LLMREF_AXE_ALL asks for every page in every state.
OPPOSITE = (("light", WIDE), ("dark", NARROW))
FOUR = (*OPPOSITE, ("light", NARROW), ("dark", WIDE))
IN_FOUR = {"404", "index", "rl/gspo", "search"}
# Pages in folders that stand for their kind.
IN_TWO = {"api/norm", "rl/index"}
ALL_IN_FOUR = "LLMREF_AXE_ALL" in os.environ

RUN = """async () => {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap((it) => it.nodes.map((node) => `${it.id}: ${node.html.slice(0, 200)}`));
}"""


def start(page: Page, address: str) -> None:
    # Without motion nothing is measured half-way through a transition.
    page.emulate_media(reduced_motion="reduce")
    page.goto(address)
    page.evaluate(AXE.read_text(encoding="utf-8"))


def violations(page: Page, address: str, states: Any) -> dict[str, list[str]]:
    start(page, address)
    page.evaluate(OPEN_ALL)
    found = {}
    for scheme, size in states:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        if wrong := page.evaluate(RUN):
            found[f"{scheme}, {size['width']} px"] = wrong
    return found


def test_axe_sees_what_is_wrong(browser: Browser, served: str) -> None:
    with visiting(browser) as page:
        start(page, served + "search.html")
        page.evaluate("document.querySelector('main').append(document.createElement('img'))")
        assert page.evaluate(RUN) == ["image-alt: <img>"]


def test_axe_finds_no_violation(served: str, names: list[str], html: Path) -> None:
    """On two cores, two browsers take half the time; the largest pages go first."""
    some = [
        name for name in names if ALL_IN_FOUR or "/" not in name or name[:-5] in IN_FOUR | IN_TWO
    ]
    todo = sorted(some, key=lambda name: (html / name).stat().st_size)

    def work(_: int) -> dict[str, Any]:
        found = {}
        with chromium() as browser:
            while todo:
                name = todo.pop()
                states = FOUR if ALL_IN_FOUR or name[:-5] in IN_FOUR else OPPOSITE
                with visiting(browser) as page:
                    if wrong := violations(page, served + name, states):
                        found[name] = wrong
        return found

    with ThreadPoolExecutor(2) as pool:
        found = {name: it for part in pool.map(work, range(2)) for name, it in part.items()}
    assert not found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_legible_without_scripts(browser: Browser, served: str, scheme: Any) -> None:
    """Axe itself needs JavaScript, so here it is on, but the page comes without its scripts."""

    def strip(route: Route) -> None:
        answer = route.fetch()
        text = re.sub(r"<script\b.*?</script>", "", answer.text(), flags=re.DOTALL)
        route.fulfill(response=answer, body=text)

    with visiting(browser, color_scheme=scheme) as page:
        page.route("**/*.html", strip)
        start(page, served + "rl/gspo.html")
        page.evaluate(OPEN_ALL)
        assert page.evaluate("document.documentElement.dataset.theme") == "auto"
        assert (
            page.evaluate(
                RUN.replace("{ resultTypes", "{ runOnly: ['color-contrast'], resultTypes")
            )
            == []
        )
        link = "getComputedStyle(document.querySelector('article p a.reference')).color"
        text = "getComputedStyle(document.querySelector('article p')).color"
        assert page.evaluate(link) != page.evaluate(text)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visiting(browser, reduced_motion="reduce") as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("size", "control", "shown"),
    [
        (WIDE, ".search-button__button", "#pst-search-dialog input"),
        (NARROW, ".article-header-buttons .search-button__button", "#pst-search-dialog input"),
        (NARROW, ".primary-toggle", "#pst-primary-sidebar-modal .bd-docs-nav"),
        (NARROW, ".secondary-toggle", "#pst-secondary-sidebar-modal .page-toc a"),
        (WIDE, ".theme-switch-button", ".theme-change-button"),
        (WIDE, ".dropdown-source-buttons button", ".btn-source-issues-button"),
    ],
)
def test_axe_finds_no_violation_in_what_a_control_opens(
    page: Page, served: str, size: Any, control: str, shown: str, scheme: Any
) -> None:
    start(page, served + "rl/gspo.html")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    page.locator(control).locator("visible=true").first.click()
    page.locator(shown).locator("visible=true").first.wait_for()
    assert page.evaluate(RUN) == []


# The element in focus, and whether it looks other than without.
FOCUS = """() => {
  const it = document.activeElement;
  if (it === document.body) return null;
  const looks = () => {
    const boxes = [it, ...document.querySelectorAll(`label[for="${it.id}"]`)];
    return boxes.map((box) => {
      const style = getComputedStyle(box);
      return [style.outlineStyle, style.outlineWidth, style.boxShadow].join();
    }).join();
  };
  const box = it.getBoundingClientRect();
  it.stop ??= Math.random();
  const after = looks();
  it.blur();
  const before = looks();
  it.focus({ focusVisible: true, preventScroll: true });
  return {
    stop: it.stop,
    html: it.outerHTML.slice(0, 100),
    kind: it.closest(".skip-link") ? "skip" : it.closest("[role=search]") ? "search"
      : it.closest("nav.bd-docs-nav") ? "navigation" : it.tagName === "SUMMARY" ? "fold"
      : it.closest("article") && it.tagName === "A" ? "link"
      : it.closest("article") && it.tabIndex === 0 && !it.matches("a, button, input, select")
        ? "box" : "other",
    visible: box.width > 0 && box.height > 0
      && it.checkVisibility({ visibilityProperty: true, opacityProperty: true }),
    marked: after !== before,
  };
}"""


STOPS = """() => [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
  .filter((it) => it.tabIndex >= 0 && it.checkVisibility({ visibilityProperty: true })).length"""


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
    page: Page, served: str, size: Any
) -> None:
    page.set_viewport_size(size)
    page.goto(served + "rl/gspo.html")
    expected_stops = page.evaluate(STOPS)
    stops: list[dict[str, Any]] = []
    for _ in range(1000):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None or (stops and stop["stop"] == stops[0]["stop"]):
            break
        stops.append(stop)
    assert len(stops) < 1000
    assert len({stop["stop"] for stop in stops}) == len(stops) == expected_stops > 50
    assert [stop["html"] for stop in stops if not (stop["visible"] and stop["marked"])] == []
    kinds = list(dict.fromkeys(stop["kind"] for stop in stops))
    expected = ["skip", "search", "navigation"] if size == WIDE else ["skip"]
    assert [kind for kind in kinds if kind != "other"][: len(expected)] == expected
    assert {"link", "fold"} <= set(kinds)
    equations = page.locator(".eqno").locator("visible=true").count()
    permalinks = [stop for stop in stops if "Link to this equation" in stop["html"]]
    assert len(permalinks) == equations > 3
    folds = page.locator("article summary").locator("visible=true").count()
    assert [stop["kind"] for stop in stops].count("fold") == folds > 10


def test_a_fold_and_the_skip_link_work_by_keyboard(page: Page, served: str) -> None:
    page.goto(served + "rl/gspo.html")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("Boolean(document.activeElement.closest('main'))")
    summary = page.locator("article summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("(it) => it.parentElement.open")


# Boxes that scroll but are no stop of the keyboard, and stops that neither scroll nor act.
BOXES = """async () => {
  await new Promise((done) => setTimeout(done, 500)); // the theme looks again after 300 ms
  const shown = [...document.querySelectorAll("article *")].filter((it) => it.checkVisibility());
  const free = (it) => ["auto", "scroll"].includes(getComputedStyle(it).overflowX);
  const scrolls = (it) => free(it)
    && (it.scrollWidth > it.clientWidth || it.scrollHeight > it.clientHeight);
  const control = (it) => it.matches("a, button, input, select, summary");
  const describe = (it) => it.outerHTML.slice(0, 100);
  return {
    scrolling: shown.filter(scrolls).length,
    unreachable: shown.filter((it) => scrolls(it) && it.tabIndex !== 0).map(describe),
    pointless: shown.filter((it) => it.tabIndex === 0 && !control(it) && !scrolls(it))
      .map(describe),
  };
}"""


# The page looks again when the frame is drawn, which a busy machine does late.
DRAWN = """async () => {
  await document.fonts.ready;
  for (const _ of [1, 2]) await new Promise((drawn) => requestAnimationFrame(drawn));
}"""


@pytest.mark.parametrize("name", ["components/rope", "rl/kl", "graph", "ledger", "contributing"])
def test_a_box_is_a_stop_exactly_when_it_scrolls(page: Page, served: str, name: str) -> None:
    page.goto(f"{served}{name}.html")
    page.evaluate(OPEN_ALL)
    for size in (WIDE, NARROW, WIDE):
        page.set_viewport_size(size)
        page.evaluate(DRAWN)
        boxes = page.evaluate(BOXES)
        assert boxes["unreachable"] == boxes["pointless"] == []
    page.set_viewport_size(NARROW)
    assert page.evaluate(BOXES)["scrolling"] > 0


def test_what_is_folded_is_not_laid_out_to_look_for_what_scrolls(page: Page, served: str) -> None:
    """The theme would ask each box for its size, and mark it: most of a page's start on a phone."""
    page.goto(f"{served}rl/kl.html", wait_until="load")
    page.wait_for_timeout(500)
    folded = page.locator("details:not([open]) pre")
    assert folded.count() > 50
    assert not page.locator("details:not([open]) pre[tabindex]").count()


MOVING = """() => [...document.querySelectorAll("*")].flatMap((it) => ["", "::before", "::after"]
  .map((part) => getComputedStyle(it, part))
  .filter((style) => style.scrollBehavior === "smooth"
    || `${style.transitionDuration}, ${style.animationDuration}`.split(", ")
      .some((time) => parseFloat(time) > 0))
  .map(() => it.outerHTML.slice(0, 100)))"""


@pytest.mark.parametrize("name", ["index", "rl/gspo", "ledger", "agreement"])
def test_nothing_moves_for_who_asked_for_rest(browser: Browser, served: str, name: str) -> None:
    with visiting(browser) as page:
        page.goto(f"{served}{name}.html")
        page.evaluate(OPEN_ALL)
        assert page.evaluate(MOVING), "this sees no motion at all"
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(MOVING) == []
