"""What stands inside a line: roles and links, replaced in the text around them."""

from urllib.parse import unquote

from markdown_it.token import Token

from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.downloads.roles import as_text

Edit = tuple[int, int, str]


def inline(page: Page, text: str, line: int) -> str:
    """Return a line of Markdown, such as a title, without roles."""
    (token,) = page.parser.parseInline(text)
    return rewritten(page, token, line)


def rewritten(page: Page, token: Token, line: int) -> str:
    """Return the text of an inline token with its roles and links replaced."""
    text = token.content
    for start, end, new in reversed(list(_edits(page, token, line))):
        text = text[:start] + new + text[end:]
    return text


def _edits(page: Page, token: Token, line: int) -> list[Edit]:
    found: list[Edit] = []
    for child in token.children or ():
        if child.type not in ("myst_role", "link_open"):
            continue
        start, end = child.meta["at"]
        at = line + token.content.count("\n", 0, start)
        if child.type == "link_open":
            found += _link(page, token.content, child)
        else:
            new = as_text(page, child.meta["name"], child.content, at)
            # A citation that the site sets as a superscript stands right behind its word.
            before = token.content[:start][-1:]
            if child.meta["name"].startswith("footcite:p") and before and not before.isspace():
                new = f" {new}"
            # The text keeps its lines, though a role may have taken two.
            breaks = token.content.count("\n", start, end)
            found.append((start, end, "\n" * breaks + new))
    return sorted(found)


def _link(page: Page, text: str, link: Token) -> list[Edit]:
    """The new target of a link to another page, or to a place on one; others stay."""
    target = str(link.attrs.get("href", ""))
    path, _, anchor = target.removeprefix("project:").partition("#")
    if "//" in path or (docname := page.named(path) if path else page.docname) == "":
        return []
    anchor = unquote(anchor)  # the parser encodes what is not ASCII, as in '#α'
    place = page.env.metadata[docname].get("myst_slugs", {}).get(anchor, (0, anchor, ""))
    address = page.of_page(docname, place[1])
    start, end = link.meta["at"]
    title = place[2] or page.env.titles[docname].astext()
    if "label_end" not in link.meta:  # <project:other.md>
        return [(start, end, f"[{title}]({address})")]
    label_end = link.meta["label_end"]
    return [(label_end, end, f"{'' if label_end > start + 1 else title}]({address})")]
