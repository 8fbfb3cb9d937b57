"""The parser that reads the site, with one addition: it notes where roles and links stand.

markdown-it gives blocks their lines, but what is inside a line has no place. Two of its rules are
wrapped here, so that a role or a link can be replaced and everything around it stays as it was.
"""

from collections.abc import Callable

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline, autolink, link
from markdown_it.token import Token
from mdit_py_plugins.myst_role.index import myst_role
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

Rule = Callable[[StateInline, bool], bool]

# The rules that are wrapped, and the token that each of them leaves.
_NOTED: dict[str, tuple[Rule, str]] = {
    "myst_role": (myst_role, "myst_role"),
    "link": (link, "link_open"),
    "autolink": (autolink, "link_open"),
}


def site_parser(config: MdParserConfig) -> MarkdownIt:
    """Return MyST's parser; `meta["at"]` of a role or a link is its start and its end.

    They count in the text of the inline token that holds them. A link's `meta["label_end"]` is
    where its label ends; an autolink has none.
    """
    parser = create_md_parser(config, RendererHTML)
    for name, (rule, kind) in _NOTED.items():
        parser.inline.ruler.at(name, _noting(rule, kind))
    return parser


def _noting(rule: Rule, kind: str) -> Rule:
    def noted(state: StateInline, silent: bool) -> bool:
        start, before = state.pos, len(state.tokens)
        if not rule(state, silent):
            return False
        if not silent:
            token = next(token for token in state.tokens[before:] if token.type == kind)
            token.meta = {**token.meta, "at": (start, state.pos)}
            if kind == "link_open" and state.src[start] == "[":
                token.meta["label_end"] = state.md.helpers.parseLinkLabel(state, start)
        return True

    return noted


def starts_with_text(tokens: list[Token]) -> bool:
    """Whether a word put before the text would be part of its first paragraph."""
    return bool(tokens) and tokens[0].type == "paragraph_open"


def ends_with_text(tokens: list[Token]) -> bool:
    """Whether a sign put after the text would be part of its last paragraph."""
    return bool(tokens) and tokens[-1].type == "paragraph_close"
