"""The built site in Chromium: every page is complete and quiet, with scripts and without."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
RESULT = ("rl/kl.html", "kl-k3-heavy-tail")  # folded with the further results of its page

OPEN_ALL = "() => document.querySelectorAll('details').forEach((it) => { it.open = true; })"
# What a reader sees of a page whose folds are open.
LOOK = r"""() => {
  const describe = (it) => it.outerHTML.slice(0, 120);
  const shown = (it) => it.checkVisibility({ visibilityProperty: true });
  const PARTS = ["::before", "::after"];
  const verbatim = "pre, code, kbd, script, style, noscript, .katex";
  const raw = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const box = node.parentElement;
    if (/\\[a-zA-Z]{2}|\\[()[\]]|\$/.test(node.data) && !box.closest(verbatim) && shown(box)) {
      raw.push(node.data.trim().slice(0, 80));
    }
  }
  const formulas = [...document.querySelectorAll(".math.notranslate")];
  const typeset = (it) => {
    const size = it.querySelector(".katex .katex-html")?.getBoundingClientRect();
    return size && size.width > 0 && size.height > 0;
  };
  const article = document.querySelector("article, .bd-search-container");
  // The drawings of buttons and icons are no pictures: the button has the name.
  const pictures = [...article.querySelectorAll("img, svg")]
    .filter((it) => !it.closest("button, [aria-hidden=true]") && !it.parentElement.closest("svg"));
  return {
    raw,
    formulas: formulas.length,
    untypeset: formulas.filter((it) => !typeset(it)).map(describe),
    headings: [...article.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((it) => +it.tagName[1]),
    // A drawing that holds links is a group, else a reader of the screen would not find them.
    alternatives: pictures.map((it) =>
      (it.tagName === "IMG" ? it.alt : ["img", "group"].includes(it.role) && it.ariaLabel) || ""),
    sizeless: pictures
      .filter((it) => !+it.getAttribute("width") || !+it.getAttribute("height")).map(describe),
    // Letters of a private use area: an icon of a font that is not there.
    unknown: [...document.querySelectorAll("*:not(.katex *)")].flatMap((it) => PARTS
      .filter((part) => /[\uE000-\uF8FF]/.test(getComputedStyle(it, part).content))
      .map((part) => describe(it) + part)),
    notOwnIds: [...document.querySelectorAll("[id]")].map((it) => it.id)
      .filter((id, index, all) => all.indexOf(id) !== index),
  };
}"""
# How far a page can be scrolled sideways, and the elements that reach out.
SIDEWAYS = """() => {
  const width = document.documentElement.clientWidth;
  const over = document.documentElement.scrollWidth - width;
  if (over <= 0) return [];
  const wide = [...document.querySelectorAll("main *")]
    .filter((it) => it.getBoundingClientRect().right > width + 1);
  return [over, ...wide.slice(0, 3).map((it) => it.outerHTML.slice(0, 120))];
}"""


@dataclass(repr=False)
class Visit:
    """What a page did and how it looked."""

    seen: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)
    sideways: list[Any] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on(
            "console", lambda message: message.type == "error" and self.said.append(message.text)
        )
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.requested.add(request.url))
        page.on("requestfailed", self.note_failure)
        page.on("response", lambda answer: answer.status >= 400 and self.failed.append(answer.url))

    def note_failure(self, request: Request) -> None:
        # With JavaScript off, Chromium drops the scripts that a page wants ahead of time.
        dropped = request.failure in ("net::ERR_ABORTED", "csp")
        if not (dropped and request.resource_type == "script"):
            self.failed.append(f"{request.url} {request.failure}")


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Page]:
    context = browser.new_context(viewport=WIDE, **options)
    try:
        yield context.new_page()
    finally:
        context.close()


def look(page: Page, address: str) -> Visit:
    """Visit a page wide, open everything, then make it narrow."""
    visit = Visit()
    visit.watch(page)
    page.set_viewport_size(WIDE)
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.evaluate(OPEN_ALL)
    # As where notes stand in the margin.
    page.evaluate("document.querySelector('.bd-sidebar-secondary')?.classList.add('hide')")
    visit.seen = page.evaluate(LOOK)
    page.set_viewport_size(NARROW)
    visit.sideways = page.evaluate(SIDEWAYS)
    return visit


def visit_all(browser: Browser, served: str, names: list[str], **options: Any) -> dict[str, Visit]:
    visits = {}
    for name in names:
        with visiting(browser, **options) as page:
            visits[name] = look(page, served + name)
    return visits


@pytest.fixture(scope="module")
def scripted(browser: Browser, served: str, names: list[str]) -> dict[str, Visit]:
    return visit_all(browser, served, names)


@pytest.fixture(scope="module")
def kinds(names: list[str], html: Path) -> list[str]:
    """One page of each kind: in each folder the largest, its index, and all that are in none."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    largest = {max(of, key=lambda name: (html / name).stat().st_size) for of in folders.values()}
    return [
        name for name in names if "/" not in name or name in largest or name.endswith("/index.html")
    ]


@pytest.fixture(scope="module")
def plain(browser: Browser, served: str, kinds: list[str]) -> dict[str, Visit]:
    """A page of each kind with JavaScript off; what is typeset in a page does not depend on it."""
    return visit_all(browser, served, kinds, java_script_enabled=False)


@pytest.fixture(params=["scripted", "plain"])
def visits(request: pytest.FixtureRequest) -> dict[str, Visit]:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def found(visits: dict[str, Visit], what: Callable[[Visit], Any]) -> dict[str, Any]:
    return {name: it for name, visit in visits.items() if (it := what(visit))}


def test_no_page_reports_an_error(visits: dict[str, Visit]) -> None:
    assert len(visits) > 25
    assert not found(visits, lambda visit: visit.said)


def test_every_request_is_answered(visits: dict[str, Visit]) -> None:
    assert not found(visits, lambda visit: visit.failed)


def test_nothing_is_requested_from_elsewhere(visits: dict[str, Visit], served: str) -> None:
    inside = (served, "data:", "blob:")
    assert not found(
        visits, lambda visit: [url for url in visit.requested if not url.startswith(inside)]
    )
    assert all(len(visit.requested) > 5 for visit in visits.values())


def test_every_formula_is_typeset(visits: dict[str, Visit]) -> None:
    assert sum(visit.seen["formulas"] for visit in visits.values()) > 3000
    assert not found(visits, lambda visit: visit.seen["untypeset"])
    assert not found(visits, lambda visit: visit.seen["raw"])


def test_no_page_scrolls_sideways_on_a_phone(visits: dict[str, Visit]) -> None:
    assert not found(visits, lambda visit: visit.sideways)


def test_headings_are_in_order(visits: dict[str, Visit]) -> None:
    def jumps(visit: Visit) -> list[int]:
        levels = visit.seen["headings"]
        steps = zip([0, *levels], levels, strict=False)
        return [after for before, after in steps if after > before + 1]

    assert not found(visits, jumps)
    assert not found(visits, lambda visit: visit.seen["headings"].count(1) != 1)


def test_every_picture_has_a_text_and_a_size(scripted: dict[str, Visit]) -> None:
    name = re.compile(r"^\W*$|^\S*/\S*$|^[\w-]{20,}$|\.(svg|png|jpe?g|gif|webp)\b")
    texts = [text for visit in scripted.values() for text in visit.seen["alternatives"]]
    assert len(texts) > 25
    assert not found(
        scripted, lambda visit: [text for text in visit.seen["alternatives"] if name.search(text)]
    )
    assert not found(scripted, lambda visit: visit.seen["sizeless"])


def test_every_letter_can_be_drawn(visits: dict[str, Visit]) -> None:
    assert not found(visits, lambda visit: visit.seen["unknown"])


def test_every_id_is_given_once(scripted: dict[str, Visit]) -> None:
    assert not found(scripted, lambda visit: visit.seen["notOwnIds"])


def test_the_site_is_complete_in_a_folder(browser: Browser, html: Path, kinds: list[str]) -> None:
    """As a reader opens it who has built it: nothing serves it."""
    visits = {}
    for name in [*kinds, "search.html?q=softmax"]:
        visits[name] = visit = Visit()
        with visiting(browser) as page:
            visit.watch(page)
            page.goto(f"{html.as_uri()}/{name}", wait_until="load")
            if "?" in name:
                assert hits(page).count() > 10
            fonts = page.evaluate("document.fonts.ready.then((it) => [...it].map((f) => f.status))")
            visit.seen = {"formulas": page.locator(".katex").count(), "fonts": fonts}
    assert not found(visits, lambda visit: visit.said + visit.failed)
    assert not found(
        visits, lambda visit: visit.seen["formulas"] > 5 and "loaded" not in visit.seen["fonts"]
    )


@pytest.fixture
def page(browser: Browser, served: str) -> Iterator[Page]:
    with visiting(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["search.html", "rl/ppo.html"])
def test_the_icon_of_a_search_field_does_not_cover_its_text(
    page: Page, served: str, size: Any, name: str
) -> None:
    page.set_viewport_size(size)
    page.goto(served + name)
    page.keyboard.press("Control+k")
    field = page.locator("input[type=search]:focus")
    places = [it.bounding_box() for it in (field, field.locator("xpath=preceding-sibling::*"))]
    assert all(places)
    text, icon = places
    assert icon["x"] + icon["width"] <= text["x"]  # type: ignore[index]


def hits(page: Page) -> Locator:
    page.wait_for_selector("#search-results .search-summary:has-text('found')")
    return page.locator("#search-results li a")


@pytest.mark.parametrize(
    "asked", ["kl-k3-heavy-tail", "k3 can have any variance", "importance-weight"]
)
def test_search_finds_a_result_by_its_id_and_title(page: Page, served: str, asked: str) -> None:
    page.goto(served + "rl/ppo.html")
    page.keyboard.press("Control+k")
    page.keyboard.type(asked)
    page.keyboard.press("Enter")
    found = hits(page).evaluate_all("(links) => links.map((link) => link.href)")
    assert any(url.startswith(served + RESULT[0]) for url in found), found


def test_search_by_words_of_a_title_leads_to_the_result_itself(
    page: Page, served: str, html: Path
) -> None:
    """Ten results from all over the site: their own anchors are among the hits."""
    results = json.loads((html / "results.json").read_text(encoding="utf-8"))["results"]
    for result in results[:: len(results) // 10][:10]:
        words = re.findall(r"[a-z]{3,}", result["title"].lower())
        page.goto(f"{served}search.html?q={'+'.join(words)}")
        found = hits(page).evaluate_all("(links) => links.map((link) => [link.href, link.text])")
        target = f"{served}{result['page']}.html#{result['id']}"
        (text,) = [text for address, text in found if address == target]
        assert text == f"{result['title']} ({result['id']})"
        page.goto(target)
        box = page.locator(f"#{result['id']}").bounding_box()
        assert box
        assert abs(box["y"]) < 800


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("MHA", "attention/multi_head"),
        ("GQA", "attention/grouped_query"),
        ("SDPA", "attention/scaled_dot_product"),
        ("RoPE", "components/rope"),
        ("LoRA", "components/lora"),
        ("BPE", "components/bpe"),
        ("CE", "functional/cross_entropy"),
        ("SFT", "functional/sft"),
        ("k3", "rl/kl"),
        ("GRPO", "rl/grpo"),
        ("DPO", "rl/dpo"),
        ("PPO", "rl/ppo"),
        ("NF4", "functional/quantization"),
        ("DAPO", "rl/grpo"),
        ("RLOO", "rl/policy_gradient"),
        ("min-p", "functional/sampling"),
        ("MLA", "attention/latent"),
        ("MoE", "components/moe"),
    ],
)
def test_search_by_an_acronym_finds_its_page_first(
    page: Page, served: str, asked: str, found: str
) -> None:
    page.goto(f"{served}search.html?q={asked}")
    assert hits(page).first.evaluate("(link) => link.href") == f"{served}{found}.html"


def test_pages_that_list_others_come_last(page: Page, served: str) -> None:
    """Behind results, functions, and all other pages."""
    page.goto(f"{served}search.html?q=k3+unbiased")
    found = hits(page).evaluate_all("(links) => links.map((link) => link.href)")
    names = [url.removeprefix(served) for url in found]
    last = re.compile(r"(agreement|ledger|api/\w+)\.html")
    lists = [bool(last.fullmatch(name)) for name in names]
    assert any(lists)
    assert lists == sorted(lists)
    assert names[0].startswith("rl/kl.html")


def clipboard(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_code_is_copied_by_its_button(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html")
    page.evaluate(OPEN_ALL)
    block = page.locator("div.highlight", has_text="def kl_estimate(").first
    block.hover()
    block.get_by_role("button").click()
    copied = clipboard(page)
    assert copied.startswith("def kl_estimate")
    assert copied.rstrip() == block.locator("pre").inner_text().rstrip()


def test_a_result_is_cited_by_its_control(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html")
    cite = page.locator("#kl-direction details.cite")
    assert not cite.locator("pre").first.is_visible()
    cite.locator("summary").click()
    for start in ("https://", "@misc{llmref-kl-direction,", "[", "The llmref authors: Lemma"):
        block = cite.locator("div.highlight").filter(has_text=start).first
        block.hover()
        block.get_by_role("button").click()
        assert clipboard(page).startswith(start)
        assert "rl/kl.html#kl-direction" in clipboard(page)


def test_a_link_into_a_fold_opens_it(page: Page, served: str) -> None:
    name, id_ = RESULT
    page.goto(served + name)
    target = page.locator(f"#{id_}")
    assert not target.is_visible()
    page.evaluate(f"location.hash = '{id_}'")
    page.wait_for_function(
        "(id) => document.getElementById(id).getBoundingClientRect().height > 0", arg=id_
    )
    assert page.evaluate("scrollY") > 100
    page.goto("about:blank")
    page.goto(f"{served}{name}#{id_}")
    assert target.is_visible()
    top = target.evaluate("(it) => it.getBoundingClientRect().top")
    assert 0 <= top < WIDE["height"] / 2


def test_the_switch_shows_the_checks_of_all_results_and_is_remembered(
    page: Page, served: str
) -> None:
    page.goto(served + "rl/kl.html")
    bars, switch = page.locator("details.bar"), page.get_by_role("button", name="Show checks")
    opened = "(bars) => bars.filter((bar) => bar.open).length"
    assert bars.count() > 15
    assert bars.evaluate_all(opened) == 0
    switch.click()
    assert switch.get_attribute("aria-pressed") == "true"
    assert bars.evaluate_all(opened) == bars.count()
    page.goto(served + "attention/multi_head.html")
    assert bars.evaluate_all(opened) == bars.count() > 5
    switch.click()
    page.reload()
    assert bars.evaluate_all(opened) == 0
    page.goto(served + "index.html")
    assert switch.count() == 0


def test_a_link_to_the_checks_of_a_result_opens_them(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html#checks-kl-grad-k3")
    assert page.locator("#checks-kl-grad-k3 .bar-code").is_visible()
    assert not page.locator("#checks-kl-grad-k2 .bar-code").is_visible()


def test_code_leads_to_the_equation_that_it_computes(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html")
    page.evaluate(OPEN_ALL)
    link = page.locator("details.source a[href='#equation-eq-kl-estimators']")
    number = page.locator("#equation-eq-kl-estimators .eqno").inner_text().strip("\u00b6#")
    assert link.inner_text() == number
    link.click()
    page.wait_for_function("location.hash === '#equation-eq-kl-estimators'")


def test_questions_are_narrowed_by_level_kind_and_words(page: Page, served: str) -> None:
    page.goto(served + "interview.html")
    questions = page.locator("details.question:visible")
    total = questions.count()
    page.get_by_label("Level").select_option("level-1")
    level_one = questions.count()
    assert 0 < level_one < total
    page.get_by_label("Words").fill("k3 negative")
    assert 0 < questions.count() < level_one
    assert page.locator(".topic-name:visible").count() < 5
    page.get_by_label("Words").fill("no such words anywhere")
    assert questions.count() == 0
    assert page.locator("output").inner_text().startswith("0 of ")


def test_the_ledger_is_narrowed_by_words(page: Page, served: str) -> None:
    page.goto(served + "ledger.html")
    page.get_by_label("Words").fill("kl-grad-k3")
    rows = page.locator("tr[class*='group-']:visible")
    assert 0 < rows.count() < 20
    assert rows.first.inner_text()


def test_comparisons_are_narrowed_by_library_difference_and_words(page: Page, served: str) -> None:
    page.goto(served + "agreement.html")
    rows = page.locator("tr[class*='group-']:visible")
    every = rows.count()
    page.get_by_label("Library").select_option("library-trl")
    of_trl = rows.count()
    assert 0 < of_trl < every
    assert all("trl" in text for text in rows.all_inner_texts())
    page.get_by_label("Difference").select_option("difference-0")
    assert 0 < rows.count() < of_trl
    page.get_by_label("Words").fill("no such words anywhere")
    assert rows.count() == 0
    assert page.get_by_label("Words").is_visible()  # though nothing is left below it
    # What an entry of another page would have is no choice here.
    assert page.get_by_label("Check").count() == 0


def test_the_same_link_opens_a_fold_again(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html#checks-kl-by-hand")
    bar = page.locator("#checks-kl-by-hand")
    assert bar.get_attribute("open") is not None
    bar.evaluate("(it) => { it.open = false; }")
    bar.evaluate("""(it) => {
      const link = document.createElement("a");
      link.href = `#${it.id}`;
      it.before(link);
      link.click();
    }""")
    assert bar.get_attribute("open") is not None


@pytest.mark.parametrize("place", ["in-the-library", "common-mistakes", "interview"])
def test_the_switch_opens_all_checks_and_leaves_the_reader_where_they_are(
    page: Page, served: str, place: str
) -> None:
    page.goto(served + "rl/kl.html")
    page.wait_for_load_state("networkidle")  # fonts that arrive move the text
    target = page.locator(f"#{place}")
    target.evaluate("(it) => it.scrollIntoView({ behavior: 'instant' })")
    top = "(it) => it.getBoundingClientRect().top"
    before = target.evaluate(top)
    page.locator(".checks-switch").dispatch_event("click")  # `click` would scroll to the header
    assert page.locator("details.bar:not([open])").count() == 0
    assert abs(target.evaluate(top) - before) < 2
    page.goto(served + "norm/rms_norm.html")
    assert page.locator("details.bar:not([open])").count() == 0
    assert page.locator(".checks-switch").get_attribute("aria-pressed") == "true"


def test_the_filter_of_questions_hides_what_it_empties(page: Page, served: str) -> None:
    page.goto(served + "interview.html")
    headings = page.locator("article h2:visible")
    groups = headings.count()
    page.fill(".question-filter input", "rotary")
    shown = page.locator("details.question:visible").count()
    assert 0 < shown < page.locator("details.question").count()
    assert 0 < headings.count() < groups
    page.fill(".question-filter input", "no such words")
    assert headings.count() == 0
    assert page.locator(".topic-name:visible").count() == 0


def test_printing_opens_the_folds_and_closes_them_again(page: Page, served: str) -> None:
    page.goto(served + "rl/kl.html")
    count = "() => document.querySelectorAll('article details:not([open], .cite, .path)').length"
    closed = page.evaluate(count)
    assert closed > 20
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.onPaper = ({count})(); }})")
    page.pdf()
    assert page.evaluate("window.onPaper") == 0
    assert page.evaluate(count) == closed


def previewed(page: Page) -> Locator:
    return page.locator("body > .preview")


def open_grpo(page: Page, base: str) -> None:
    page.goto(base + "rl/grpo.html")
    page.evaluate(OPEN_ALL)


@pytest.mark.parametrize(
    "target", ["#grpo-advantage", "#equation-eq-grpo-loss", "policy_gradient.html#pg-score-zero"]
)
def test_a_link_shows_where_it_leads(page: Page, served: str, target: str) -> None:
    open_grpo(page, served)
    link = page.locator(f"article a.internal[href='{target}']").first
    title = link.get_attribute("title")
    link.hover()
    preview = previewed(page)
    preview.wait_for()
    formula = preview.locator(".katex-html").first
    shown = " ".join(preview.inner_text().split())
    assert formula.is_visible()
    box, own = preview.bounding_box(), formula.bounding_box()
    assert box
    assert own
    assert box["width"] >= own["width"] > 5
    assert not preview.locator("[id], [href], [tabindex], button, details").count()
    assert preview.get_attribute("aria-hidden") == "true"
    assert not title or title in shown
    preview.hover()  # to read it, or to scroll in it
    page.wait_for_timeout(500)
    assert preview.is_visible()
    page.mouse.move(1, 1)
    preview.wait_for(state="detached")
    assert link.get_attribute("title") == title


def test_the_keyboard_sees_previews_and_dismisses_them(page: Page, served: str) -> None:
    open_grpo(page, served)
    link = page.locator("article a.internal[href='#grpo-advantage']").first
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert link.evaluate("(it) => it === document.activeElement")
    previewed(page).wait_for()
    page.keyboard.press("Escape")
    assert not previewed(page).count()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    previewed(page).wait_for()
    page.keyboard.press("Tab")
    previewed(page).wait_for(state="detached")


def test_a_preview_that_cannot_be_had_leaves_a_link(page: Page, html: Path) -> None:
    """From a folder a browser reads no other page."""
    visit = Visit()
    visit.watch(page)
    open_grpo(page, html.as_uri() + "/")
    page.locator("article a.internal[href='policy_gradient.html#pg-score-zero']").first.hover()
    page.wait_for_timeout(600)
    assert not previewed(page).count()
    assert not visit.said + visit.failed
    page.locator("article a.internal[href='#grpo-advantage']").first.hover()
    previewed(page).wait_for()


@pytest.fixture
def plain_page(browser: Browser) -> Iterator[Page]:
    with visiting(browser, java_script_enabled=False) as page:
        yield page


POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'"
)


def test_the_site_works_under_the_policy_that_we_name(
    browser: Browser, served: str, html: Path
) -> None:
    """A host may send it, says docs/building.md: nothing is blocked by it."""
    assert POLICY in (html / "building.md").read_text(encoding="utf-8")
    with visiting(browser) as page:
        visit = Visit()
        visit.watch(page)

        def answer(route: Any) -> None:
            response = route.fetch()
            headers = {**response.headers, "content-security-policy": POLICY}
            route.fulfill(response=response, headers=headers)

        page.route("**/*", answer)
        for name in ("rl/kl.html", "search.html?q=RoPE"):
            page.goto(served + name)
            page.wait_for_load_state("networkidle")
        assert hits(page).count() > 0
        assert visit.said == []


def test_an_address_that_cannot_be_decoded_is_no_error(browser: Browser, served: str) -> None:
    """What the script does after it has looked for the target is still done."""
    with visiting(browser) as page:
        visit = Visit()
        visit.watch(page)
        page.set_viewport_size(NARROW)
        page.goto(f"{served}rl/kl.html#100%")
        # Formulas that are wider than a phone, which our script alone lets the keyboard reach.
        page.wait_for_selector("main .math-scroll[tabindex='0'][role='group']", state="attached")
        assert visit.said == []


def test_folds_open_without_scripts(plain_page: Page, served: str) -> None:
    plain_page.goto(served + RESULT[0])
    target = plain_page.locator(f"#{RESULT[1]}")
    assert not target.is_visible()
    plain_page.locator("details.fold > summary", has_text="rounding").click()
    assert target.is_visible()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_links_lead_on_without_scripts(plain_page: Page, served: str, size: Any) -> None:
    plain_page.set_viewport_size(size)
    plain_page.goto(served + "rl/kl.html")
    plain_page.locator(".right-next").click()
    assert plain_page.url == served + "rl/policy_gradient.html"
    plain_page.locator("nav.bd-docs-nav a").get_by_text("RMSNorm", exact=True).click()
    assert plain_page.url == served + "norm/rms_norm.html"


@pytest.mark.parametrize("name", ["index", "rl/kl", "ledger", "search", "404"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_control_is_dead_without_scripts(
    plain_page: Page, served: str, size: Any, name: str
) -> None:
    """A button or a field does nothing where no script answers it."""
    plain_page.set_viewport_size(size)
    plain_page.goto(f"{served}{name}.html")
    controls = plain_page.locator("button, select, input:not(.margin-toggle), [role=button]")
    shown = [it.evaluate("(it) => it.outerHTML") for it in controls.all() if it.is_visible()]
    assert not shown
    empty = plain_page.locator("main :is(div, p, aside):not(:has(*)):empty")
    drawn = "(all) => all.filter((it) => it.offsetHeight > 1).map((it) => it.outerHTML)"
    assert not empty.evaluate_all(drawn)
