// Opens what a link points into, opens everything for printing, and lets the keyboard reach
// formulas and tables that are wider than the page. All content is there without it.
"use strict";
const opened = [];

function openAround(element) {
  for (let at = element; at; at = at.parentElement) {
    if (at.tagName === "DETAILS") at.open = true;
  }
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.closest("details")) {
    openAround(target);
    target.scrollIntoView();
  }
}

function makeWideBoxesReachable() {
  for (const box of document.querySelectorAll(".math-scroll, .table-scroll")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "wide content, scrolls sideways");
    } else {
      box.removeAttribute("tabindex");
      box.removeAttribute("role");
      box.removeAttribute("aria-label");
    }
  }
}

addEventListener("hashchange", openTarget);
addEventListener("resize", makeWideBoxesReachable);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("article details:not([open])")) {
    details.open = true;
    opened.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened.splice(0)) details.open = false;
});
document.addEventListener("toggle", makeWideBoxesReachable, true);
openTarget();
makeWideBoxesReachable();
