"""What each directive becomes. A new one is a function here, or in boxes, and a line in _KNOWN."""

from pathlib import Path

from sphinx.util.nodes import split_explicit_title

from llmref.sphinxext.api.definitions import find_definition
from llmref.sphinxext.downloads import boxes
from llmref.sphinxext.downloads.blocks import (
    Code,
    Directive,
    Part,
    Translate,
    as_markdown,
    display,
    fenced,
    rewrite,
)
from llmref.sphinxext.downloads.citing import references
from llmref.sphinxext.downloads.inline import inline
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.downloads.writing import write_listing, write_report
from llmref.sphinxext.results.domain import KINDS
from llmref.sphinxext.topics.by_hand import code_of, home


def translate(page: Page, directive: Directive) -> list[Part]:
    """Return a directive as Markdown and code; one that is not known is a warning."""
    if directive.name in _KNOWN:
        return _KNOWN[directive.name](page, directive)
    page.warn(directive.line, "the downloads know no directive %s", directive.name)
    return []


def page_parts(page: Page, text: str, line: int) -> list[Part]:
    """Return a text of the page without anything that only the site understands."""
    return rewrite(page, text, line, translate)


def _body(page: Page, directive: Directive) -> list[Part]:
    return page_parts(page, directive.body, directive.line)


def _titled(page: Page, directive: Directive) -> list[Part]:
    """What the site folds or boxes under a line of its own."""
    return [f"**{_title(page, directive)}**", *_body(page, directive)]


def _title(page: Page, directive: Directive) -> str:
    return inline(page, directive.argument, directive.line)


def _result(page: Page, directive: Directive) -> list[Part]:
    statement = as_markdown(_body(page, directive))
    return [
        boxes.result(page, directive.options.get("label", ""), _title(page, directive), statement)
    ]


def _proof(page: Page, directive: Directive) -> list[Part]:
    return [boxes.proof(page, as_markdown(_body(page, directive)))]


def _question(page: Page, directive: Directive) -> list[Part]:
    asked = boxes.question(_title(page, directive), directive.options)
    return [asked, *_body(page, directive)]


def _admonition(page: Page, directive: Directive) -> list[Part]:
    title = _title(page, directive) or directive.name.capitalize()
    return [f"**{title}**", *_body(page, directive)]


def _symbols(page: Page, directive: Directive) -> list[Part]:
    return ["**Symbols**", *_body(page, directive)]


def _source(page: Page, directive: Directive) -> list[Part]:
    """The code of a function, to be read: cells import it from the package."""
    name = directive.argument
    definition = find_definition(name, page.root)
    first, last = definition.lines
    lines = definition.path.read_text(encoding="utf-8").splitlines()[first - 1 : last]
    path = definition.path.relative_to(page.root).as_posix()
    url = page.env.config.llmref_source_url.format(path=path, first=first, last=last)
    caption = f"`{name}` ([{path}, line {first}]({url}))"
    return [caption, fenced("\n".join(lines), "python")]


def _by_hand(page: Page, directive: Directive) -> list[Part]:
    """Code that stands alone: in a notebook it can be run and changed."""
    path = page.root / home(page.docname)
    if not path.is_file():  # the site has warned
        return []
    link = page.of_page(page.docname, directive.argument)
    return [f"**[Code by hand]({link})**", Code(code_of(path))]


def _code(page: Page, directive: Directive) -> list[Part]:
    return [fenced(directive.body.strip("\n"), directive.argument)]


def _formula(page: Page, directive: Directive) -> list[Part]:
    tex = "\n\n".join(filter(None, [directive.argument, directive.body.strip()]))
    label = directive.options.get("label", "")
    return [display(page, tex, label) or f"$$\n{tex}\n$$"]


def _picture(page: Page, directive: Directive) -> list[Part]:
    name = Path(directive.argument).name
    used = {Path(path).name: file for path, (_, file) in page.env.images.items()}
    picture = (
        f"![{directive.options.get('alt', '')}]({page.file(f'_images/{used.get(name, name)}')})"
    )
    return [picture, *_body(page, directive)]


def _contents(page: Page, directive: Directive) -> list[Part]:
    """The pages of a list of contents, as links."""
    lines = []
    for entry in directive.body.split("\n"):
        explicit, title, target = split_explicit_title(entry.strip())
        if docname := entry.strip() and page.named(target):
            title = title if explicit else page.env.titles[docname].astext()
            lines.append(f"- [{title}]({page.of_page(docname)})")
    caption = directive.options.get("caption", "")
    return [f"**{caption}**" if caption else "", "\n".join(lines)]


def _included(page: Page, directive: Directive) -> list[Part]:
    path = Path(page.env.doc2path(page.docname)).parent / directive.argument
    return page_parts(page, path.read_text(encoding="utf-8"), 1)


def _references(page: Page, directive: Directive) -> list[Part]:
    return [references(page)]


def _report(page: Page, directive: Directive) -> list[Part]:
    return [write_report(page, directive.name, directive.argument)]


def _listing(page: Page, directive: Directive) -> list[Part]:
    return [write_listing(page)]


def _drawn(page: Page, directive: Directive) -> list[Part]:
    return [f"The picture is on [the page]({page.of_page(page.docname)})."]


def _nothing(page: Page, directive: Directive) -> list[Part]:
    """What only says how the site looks, or is for a browser alone."""
    return []


_KNOWN: dict[str, Translate] = {
    **dict.fromkeys([f"prf:{kind}" for kind in KINDS], _result),
    "prf:proof": _proof,
    "question": _question,
    "symbols": _symbols,
    "source": _source,
    "by-hand": _by_hand,
    **dict.fromkeys(["code-block", "code", "code-cell", "sourcecode"], _code),
    "math": _formula,
    **dict.fromkeys(["figure", "image"], _picture),
    "toctree": _contents,
    "include": _included,
    "footbibliography": _references,
    **dict.fromkeys(
        ["agreement", "ledger", "mistakes", "practise", "showcase", "status", "totals"], _report
    ),
    **dict.fromkeys(["cheat-sheet", "interview"], _report),
    "api": _listing,
    "graph": _drawn,
    **dict.fromkeys(["dropdown", "tab-item", "card", "table", "grid-item-card"], _titled),
    **dict.fromkeys(["container", "tab-set", "grid", "grid-item", "div", "margin"], _body),
    **dict.fromkeys(
        (
            "admonition",
            "attention",
            "caution",
            "danger",
            "hint",
            "important",
            "note",
            "seealso",
            "tip",
            "warning",
        ),
        _admonition,
    ),
    **dict.fromkeys(["fold", "question-filter", "raw"], _nothing),
}
