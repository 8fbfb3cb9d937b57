// Shows the result or the equation that a link leads to, while the pointer or the keyboard is on
// the link. It only repeats what stands there: it holds nothing to follow, and a screen reader does
// not read it.
"use strict";
const SHOWN = ".result, div.math"; // what a preview shows
const NOT_SHOWN = "details.cite, details.path, .headerlink, .eqno";
const WAIT = 250; // milliseconds, so that a pointer that passes opens nothing
const GRACE = 200; // to move from the link onto the preview
const pages = new Map([[location.pathname, Promise.resolve(document)]]);
let card = null;
let link = null; // whose preview is shown or asked for
let title = "";
let opening = 0;
let closing = 0;

async function load(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function page(path) {
  if (!pages.has(path)) pages.set(path, load(path));
  return pages.get(path);
}

function copyOf(target) {
  const copy = document.importNode(target, true);
  for (const part of copy.querySelectorAll(NOT_SHOWN)) part.remove();
  for (const part of [copy, ...copy.querySelectorAll("[id], [href], [tabindex]")]) {
    for (const name of ["id", "href", "tabindex"]) part.removeAttribute(name);
  }
  return copy;
}

function hide() {
  clearTimeout(opening);
  clearTimeout(closing);
  if (card) card.remove();
  if (title) link.title = title;
  card = link = null;
  title = "";
}

// Below the link, or above it where there is more room.
function place(rect) {
  const { offsetWidth: width, offsetHeight: height } = card;
  const below = rect.bottom + height + 8 < innerHeight || rect.top < innerHeight / 2;
  card.style.left = Math.max(8, Math.min(rect.left, innerWidth - width - 8)) + scrollX + "px";
  card.style.top = (below ? rect.bottom + 4 : Math.max(8, rect.top - height - 4)) + scrollY + "px";
}

async function show(asked) {
  const { pathname, hash } = new URL(asked.href);
  // From a folder a browser reads no other file.
  if (location.protocol === "file:" && pathname !== location.pathname) return;
  let target = null;
  try {
    target = (await page(pathname)).getElementById(decodeURIComponent(hash.slice(1)));
  } catch {
    pages.delete(pathname); // no network just now: the link itself still leads there
  }
  if (link !== asked || !target || !target.matches(SHOWN)) return;
  card = document.createElement("div");
  card.className = "preview";
  card.setAttribute("aria-hidden", "true");
  card.append(copyOf(target));
  document.body.append(card);
  title = asked.title;
  asked.removeAttribute("title"); // else the browser shows that one above
  place(asked.getClientRects()[0]);
}

function ask(asked) {
  clearTimeout(closing);
  if (link === asked) return;
  hide();
  link = asked;
  opening = setTimeout(() => show(asked), WAIT);
}

for (const each of document.querySelectorAll("article a.reference.internal[href*='#']")) {
  each.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && ask(each));
  each.addEventListener("focus", () => each.matches(":focus-visible") && ask(each));
  each.addEventListener("blur", hide);
}
// It stays while the pointer is on the link or on the preview.
addEventListener("pointerover", ({ target }) => {
  if (!link || link.matches(":focus-visible")) return;
  clearTimeout(closing);
  if (!link.contains(target) && !(card && card.contains(target))) closing = setTimeout(hide, GRACE);
});
addEventListener("keydown", ({ key }) => key === "Escape" && hide());
addEventListener("beforeprint", hide);
