// Opens what a link points into, opens everything for printing, shows all checks on demand, and lets
// the keyboard reach formulas and tables that are wider than the page. All content is there without it.
"use strict";
const opened = [];

function openAround(element) {
  for (let at = element; at; at = at.parentElement) {
    if (at.tagName === "DETAILS") at.open = true;
  }
}

// The id that an address names; a stray '%' in it stands for itself.
function named(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return hash.slice(1);
  }
}

function openTarget() {
  const target = document.getElementById(named(location.hash));
  if (target && target.closest("details")) {
    openAround(target);
    target.scrollIntoView();
  }
}

// A box that scrolls can be reached by the keyboard, one that does not is no stop on its way.
const WIDE = "pre, .math-scroll, .table-scroll, .graph-scroll, .pst-scrollable-table-container, "
  + ".cell_output > .output, .cell_output figure";

function makeReachableIfWide(boxes) {
  // First all that is asked of the layout, then all that changes the page: else each box lays it out.
  const scrolls = boxes.map((box) => {
    const { overflowX, overflowY } = getComputedStyle(box);
    return (overflowX === "auto" && box.scrollWidth > box.clientWidth)
      || (overflowY === "auto" && box.scrollHeight > box.clientHeight);
  });
  boxes.forEach((box, index) => {
    const attributes = { tabindex: 0 };
    // A preformatted text or a figure is named by itself or by its caption.
    if (box.tagName === "DIV") Object.assign(attributes, { role: "group", "aria-label": "wide content, scrolls" });
    for (const [name, value] of Object.entries(attributes)) {
      if (scrolls[index]) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  });
}

// Paper is white, shows what is folded, and cannot scroll: a formula that is wider becomes smaller.
const paper = 48; // its width, in letters
let theme = "light";

function preparePrint() {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  for (const details of document.querySelectorAll("article details:not([open], .cite, .path)")) {
    details.open = true;
    opened.push(details);
  }
  const boxes = [...document.querySelectorAll(".math-scroll")];
  const widths = boxes.map((box) => box.scrollWidth / parseFloat(getComputedStyle(box).fontSize));
  boxes.forEach((box, index) => box.style.setProperty("--llmref-fit", Math.min(1, paper / widths[index])));
}

function undoPrint() {
  document.documentElement.dataset.theme = theme;
  for (const details of opened.splice(0)) details.open = false;
}

// A list that can be narrowed: by words, and by classes of its items such as 'level-2'.
// What is left empty by that, a heading or a topic, is not shown either.
function addFilter(place, items, choices, noun) {
  const controls = [];
  const add = (label, control) => {
    const box = document.createElement("label");
    box.append(label + " ", control);
    place.append(box);
    controls.push(control);
    return control;
  };
  const words = add("Words", document.createElement("input"));
  words.type = "search";
  const classes = items.map((item) => [...item.classList]);
  const selects = Object.entries(choices).flatMap(([name, label]) => {
    const found = classes.map((list) => list.filter((value) => value.startsWith(name + "-")));
    const values = [...new Set(found.flat())].sort();
    // What all items have alike, or none has, is no choice.
    if (!values.length || (values.length === 1 && found.every((list) => list.length))) return [];
    const select = add(label, document.createElement("select"));
    select.add(new Option("all", ""));
    for (const value of values) {
      select.add(new Option(value.slice(name.length + 1).replaceAll("_", " "), value));
    }
    return [select];
  });
  const parts = [...document.querySelectorAll("article section section, .topic-questions")]
    .filter((part) => !part.contains(place) && items.some((item) => part.contains(item)));
  const count = document.createElement("output");
  place.append(count);
  const apply = () => {
    const chosen = selects.map((select) => select.value).filter(Boolean);
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of items) {
      const text = item.textContent.toLowerCase();
      item.hidden = !chosen.every((value) => item.classList.contains(value))
        || !asked.every((word) => text.includes(word));
    }
    for (const part of parts) part.hidden = !items.some((item) => !item.hidden && part.contains(item));
    const shown = items.filter((item) => !item.hidden).length;
    count.textContent = `${shown} of ${items.length} ${noun}`;
  };
  place.addEventListener("input", apply);
  apply();
}

// A switch in the header opens the checks of all results, on this page and on those that follow.
const CHECKS = "llmref-checks";

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function addCheckSwitch(bars) {
  const place = document.querySelector(".article-header-buttons");
  if (!bars.length || !place) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-sm checks-switch";
  button.textContent = "Show checks";
  const show = (open) => {
    for (const bar of bars) bar.open = open;
    button.setAttribute("aria-pressed", open);
  };
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    // What the reader looks at stays where it is, though folds above it open. What is folded itself
    // has a place too, and nobody looks at it.
    const seen = [...document.querySelectorAll("article h2, article h3, .result, .bar > summary")]
      .filter((element) => !element.closest("details:not([open], .bar)"))
      .find((element) => element.getBoundingClientRect().bottom > 80);
    const top = seen?.getBoundingClientRect().top;
    show(open);
    if (seen) scrollBy({ top: seen.getBoundingClientRect().top - top, behavior: "instant" });
    try {
      localStorage.setItem(CHECKS, open ? "open" : "");
    } catch { /* then only this page remembers */ }
  });
  show(remembered(CHECKS) === "open");
  place.prepend(button);
}

addEventListener("hashchange", openTarget);
// A second click on the same link changes no address, but what it leads to may be folded again.
addEventListener("click", ({ target }) => {
  if (target.closest("a[href]")?.href === location.href) openTarget();
});
addEventListener("beforeprint", preparePrint);
addEventListener("afterprint", undoPrint);
for (const place of document.querySelectorAll(".ledger-filter")) {
  const rows = [...document.querySelectorAll("tr[class*='group-']")];
  const choices = {
    group: "Group", kind: "Result", check: "Check", since: "Since", errata: "Errata",
    library: "Library", difference: "Difference",
  };
  addFilter(place, rows, choices, "entries");
}
for (const place of document.querySelectorAll(".question-filter")) {
  const questions = [...document.querySelectorAll("details.question")];
  addFilter(place, questions, { level: "Level", kind: "Kind" }, "questions");
}
addCheckSwitch(document.querySelectorAll("article details.bar"));
openTarget();
// Called when a box gets another size: with the window, and when a fold around it is opened.
const sizes = new ResizeObserver((entries) => makeReachableIfWide(entries.map(({ target }) => target)));
const wide = [...document.querySelectorAll(WIDE)];
wide.forEach((box) => sizes.observe(box));
// A font changes how wide a formula is, not its box; one that only a fold needs comes when that opens.
// What is folded has no size yet, and asking for it would lay it out.
const measureShown = () => makeReachableIfWide(wide.filter((box) => !box.closest("details:not([open])")));
document.fonts.ready.then(measureShown);
document.fonts.addEventListener("loadingdone", measureShown);
