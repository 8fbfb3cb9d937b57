// Puts the pages of the site into one document to be printed. All is called by book.py:
// assembleBook(what the title page says), then fitFormulas(). book.py adds the page numbers.
"use strict";

// What is for the screen, or would be printed twice.
const LEFT_OUT = new Set(["agreement.html", "contributing.html", "graph.html", "interview.html", "ledger.html"]);
// Of no use on paper; code that only sets up, draws or checks, and the mistakes, which stand at the
// checks.
const USELESS = ".headerlink, .cite, .katex-mathml, .ledger-filter, .question-filter, "
  + ".sd-summary-state-marker, .bar-code, details.hide, details.mistakes, input, script, .d-n";

const slug = (page) => page.replace(/\.html$/, "").replace(/[/_]/g, "-");

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function load(page) {
  const text = await (await fetch("/" + page)).text();
  return new DOMParser().parseFromString(text, "text/html");
}

// The parts of the book and their pages, in the order of the site's sidebar.
function readParts(index) {
  const parts = [{ title: "", pages: ["index.html"] }];
  for (const at of index.querySelectorAll("nav.bd-links .caption-text, nav.bd-links li > a")) {
    if (at.matches(".caption-text")) {
      parts.push({ title: at.textContent, pages: [] });
    } else if (!LEFT_OUT.has(at.getAttribute("href"))) {
      parts.at(-1).pages.push(at.getAttribute("href"));
    }
  }
  return parts;
}

function mendLinks(article, page, pages, site) {
  for (const link of article.querySelectorAll("a[href]")) {
    const href = link.getAttribute("href");
    if (link.matches(".result-id")) {
      link.href = site + page + href;
    } else if (!/^[a-z]+:/.test(href)) {
      const at = new URL(href, "http://book/" + page);
      const target = at.pathname.slice(1);
      const anchor = decodeURIComponent(at.hash.slice(1));
      link.setAttribute("href", pages.has(target)
        ? "#" + slug(target) + (anchor ? "--" + anchor : "")
        : site + target + at.hash);
    }
  }
  for (const image of article.querySelectorAll("img[src]")) {
    image.setAttribute("src", new URL(image.getAttribute("src"), "http://book/" + page).pathname);
  }
}

// One page of the site as a chapter: nothing folded, ids unique in the book, headings one deeper.
function makeChapter(article, page, pages, site) {
  for (const formula of article.querySelectorAll(".katex")) {
    const tex = formula.querySelector("annotation")?.textContent ?? "";
    formula.setAttribute("role", "img");
    formula.setAttribute("aria-label", tex.trim());
  }
  article.querySelectorAll(USELESS).forEach((at) => at.remove());
  mendLinks(article, page, pages, site);
  for (const at of article.querySelectorAll("[id]")) at.id = `${slug(page)}--${at.id}`;
  for (const at of article.querySelectorAll("details, summary")) {
    const { class: class_ = "", id } = Object.fromEntries([...at.attributes].map((a) => [a.name, a.value]));
    const open = element("div", { class: `${class_} ${at.localName === "summary" ? "summary" : ""}`.trim() });
    if (id) open.id = id;
    open.append(...at.childNodes);
    at.replaceWith(open);
  }
  for (const level of [5, 4, 3, 2, 1]) {
    for (const heading of article.querySelectorAll("h" + level)) {
      heading.replaceWith(element("h" + (level + 1), {}, ...heading.childNodes));
    }
  }
  return element("section", { class: "chapter", id: slug(page) }, ...article.childNodes);
}

function lineOfContents(anchor, class_, ...children) {
  return element("p", { class: class_ },
    element("a", { href: "#" + anchor }, ...children));
}

const copies = (heading) => [...heading.cloneNode(true).childNodes];

function makeContents(chapters) {
  const contents = element("nav", { class: "contents", id: "contents" }, element("h1", {}, "Contents"));
  for (const chapter of chapters) {
    const part = chapter.querySelector("h1");
    if (part) contents.append(element("p", { class: "part" }, part.textContent));
    contents.append(lineOfContents(chapter.id, "of-chapter", ...copies(chapter.querySelector("h2"))));
  }
  contents.append(lineOfContents("results", "of-chapter", "Results by id"));
  return contents;
}

function makeIndexOfResults() {
  const index = element("section", { class: "chapter results", id: "results" },
    element("h1", {}, "Results by id"),
    element("p", {}, "The id of a result is its permanent link: it never changes, whatever its number."));
  const boxes = [...document.querySelectorAll(".result[id]")];
  const name = (box) => box.id.split("--").slice(1).join("--");
  boxes.sort((a, b) => (name(a) < name(b) ? -1 : 1));
  for (const box of boxes) {
    const title = box.querySelector(".result-title").cloneNode(true);
    title.querySelector(".result-id").remove();
    const code = element("code", {}, name(box));
    index.append(lineOfContents(box.id, "of-result", code, " ", ...title.childNodes));
  }
  return index;
}

// Each chapter has pages of its own name, and so its title above them.
function addRunningHeads(chapters) {
  const rules = chapters.map((chapter, number) => {
    const heading = chapter.querySelector("h2") ?? chapter.querySelector("h1");
    const title = heading.textContent.replace(/["\\\n]/g, "");
    return `#${chapter.id} { page: chapter${number} }
      @page chapter${number} { @top-right { content: "${title}" } @top-left { content: "llmref" }
        @bottom-center { content: counter(page) } }`;
  });
  document.head.append(element("style", {}, rules.join("\n")));
}

async function assembleBook(front) {
  const index = await load("index.html");
  const site = index.querySelector("link[rel=canonical]").href.replace(/index\.html$/, "");
  const parts = readParts(index);
  const pages = new Set(parts.flatMap((part) => part.pages));
  const chapters = [];
  for (const part of parts) {
    for (const page of part.pages) {
      const article = (await load(page)).querySelector("article.bd-article");
      const chapter = makeChapter(article, page, pages, site);
      if (part.title && page === part.pages[0]) {
        chapter.prepend(element("h1", { class: "part" }, part.title));
      }
      chapters.push(chapter);
    }
  }
  chapters[0].querySelector("h2").textContent = "About this book";
  document.body.append(element("header", { class: "front" },
    element("p", { class: "title" }, "llmref"),
    ...front.map((line) => element("p", {}, line)),
    element("p", {}, element("a", { href: site }, site))));
  document.body.append(makeContents(chapters), ...chapters);
  const results = makeIndexOfResults();
  document.body.append(results);
  addRunningHeads([...chapters, results]);
  await Promise.all([...document.images].map((image) => image.decode()));
  await document.fonts.ready;
}

// What is wider than the page is made smaller: paper does not scroll.
function fitFormulas() {
  const wide = [];
  for (const box of document.querySelectorAll(".math-scroll")) {
    if (box.scrollWidth > box.clientWidth) wide.push([box, box.clientWidth / box.scrollWidth]);
  }
  for (const [box, ratio] of wide) box.style.fontSize = `${Math.floor(ratio * 98)}%`;
  return wide.length;
}
