"""What takes lines of its own: directives, formulas, targets and comments, replaced in their lines.

A part is Markdown or code that a reader is meant to run. Leaves out: what becomes of a directive
(directives).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml
from markdown_it.token import Token

from llmref.sphinxext.downloads.inline import rewritten
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.web.katex import for_katex

_OPTION = re.compile(r":([\w-]+):(?: (.*))?")
_NAME = re.compile(r"\{([^}]+)\}\s*(.*)", re.DOTALL)
# What only says how a page is cut or reached.
_SILENT = {"myst_target", "myst_line_comment", "myst_block_break"}


@dataclass(frozen=True)
class Code:
    """Code that a reader can run: a cell in a notebook, a block in Markdown."""

    source: str


Part = str | Code
Translate = Callable[[Page, "Directive"], list[Part]]


@dataclass
class Directive:
    """A directive as it stands on a page; `line` is that of its body."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    line: int


@dataclass
class _Lines:
    """The lines of a text, and what replaces some of them: (first, after the last, parts)."""

    lines: list[str]
    replaced: list[tuple[int, int, list[Part]]] = field(default_factory=list)
    columns: dict[int, int] = field(default_factory=dict)  # where cells of a table were replaced

    def prefix(self, start: int, mark: str) -> str:
        """What stands before a block in a list or a quotation; later lines are indented by it."""
        line = self.lines[start]
        return line[: max(line.find(mark), 0)]

    def put(self, number: int, old: str, new: str) -> bool:
        """Replace a text in a line, behind what was replaced there; say whether it was found."""
        behind = self.columns.get(number, 0)
        for text, by in ((old, new), (old.replace("|", "\\|"), new.replace("|", "\\|"))):
            column = self.lines[number].find(text.strip(), behind)
            if column >= 0:
                line, by = self.lines[number], by.strip()
                self.lines[number] = line[:column] + by + line[column + len(text.strip()) :]
                self.columns[number] = column + len(by)
                return True
        return False

    def parts(self) -> list[Part]:
        """The text in order: Markdown, and code between."""
        found: list[Part] = []
        at = 0
        for start, end, new in sorted(self.replaced, key=lambda replaced: replaced[0]):
            found += ["\n".join(self.lines[at:start]), *new]
            at = end
        return merged([*found, "\n".join(self.lines[at:])])


def rewrite(page: Page, text: str, line: int, translate: Translate) -> list[Part]:
    """Return a text with all that only the site understands in plain Markdown.

    `line` is the number of its first line on the page; `translate` knows the directives.
    """
    lines = _Lines(text.splitlines())
    for token in page.parser.parse(text):
        if token.map is None:
            continue
        start, end = token.map
        if token.type == "inline":
            _put_inline(page, lines, token, line)
        elif token.type in _SILENT:
            lines.replaced.append((start, end, []))
        elif token.type.startswith("math_block"):
            if (new := display(page, token.content, token.info)) is not None:
                prefix = lines.prefix(start, "$$")
                lines.replaced.append((start, end, [_indented(new, prefix)]))
        elif token.type in ("fence", "colon_fence") and token.info.strip().startswith("{"):
            prefix = lines.prefix(start, token.markup)
            parts = translate(page, read_directive(token, line + start))
            if prefix:
                parts = [_indented(as_markdown(parts), prefix)]
            lines.replaced.append((start, end, parts))
    return lines.parts()


def read_directive(token: Token, line: int) -> Directive:
    """Return the directive that a fence is; `line` is where the fence stands."""
    match = _NAME.match(token.info.strip())
    assert match is not None
    body = token.content.splitlines()
    options: dict[str, str] = {}
    count = 0
    if body and body[0].strip() == "---":
        count = 1 + next((n for n, text in enumerate(body[1:], 1) if text.strip() == "---"), 0)
        options = yaml.safe_load("\n".join(body[1 : count - 1])) or {}
    else:
        while count < len(body) and (option := _OPTION.fullmatch(body[count].strip())):
            options[option[1]] = option[2] or ""
            count += 1
    return Directive(match[1], match[2].strip(), options, "\n".join(body[count:]), line + 1 + count)


def display(page: Page, tex: str, label: str = "") -> str | None:
    """Return a displayed formula with its number as a tag, None if it can stay as it is.

    MathJax, unlike Sphinx, wants `split` around lines that are aligned.
    """
    equations = for_katex(tex)
    known = page.env.domains.math_domain.equations.get(label)
    if not label and equations == [tex.strip()]:
        return None
    if known:
        equations[0] += f"\n\\tag{{{known[1]}}}"
    return "\n\n".join(f"$$\n{equation}\n$$" for equation in equations)


def merged(parts: list[Part]) -> list[Part]:
    """Return the parts with neighbouring texts as one, an empty line between them."""
    found: list[Part] = []
    for part in parts:
        part = part.strip("\n") if isinstance(part, str) else part
        if isinstance(part, str) and found and isinstance(found[-1], str) and part:
            found[-1] += f"\n\n{part}"
        elif part:
            found.append(part)
    return found


def as_markdown(parts: list[Part]) -> str:
    """Return all parts as Markdown."""
    return "\n\n".join(
        fenced(part.source, "python") if isinstance(part, Code) else part for part in merged(parts)
    )


def fenced(code: str, language: str = "") -> str:
    """Return a block of code whose fence is longer than any inside."""
    longest = max(map(len, re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _indented(text: str, prefix: str) -> str:
    rest = prefix if ">" in prefix else " " * len(prefix)
    return prefix + text.replace("\n", f"\n{rest}")


def _put_inline(page: Page, lines: _Lines, token: Token, line: int) -> None:
    """Replace the text of a paragraph, a heading or a cell of a table where it stands."""
    assert token.map is not None
    start = token.map[0]
    new = rewritten(page, token, line + start)
    if new == token.content:
        return
    for number, pair in enumerate(
        zip(token.content.split("\n"), new.split("\n"), strict=True), start
    ):
        if not lines.put(number, *pair):
            page.warn(line + number, "the downloads do not find this text again: %s", pair[0])
