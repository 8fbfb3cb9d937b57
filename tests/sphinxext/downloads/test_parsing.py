"""The site's parser says where a role or a link stands, and reads as it does without that."""

import pytest
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from llmref.sphinxext.downloads.parsing import ends_with_text, site_parser, starts_with_text

CONFIG = MdParserConfig(enable_extensions={"colon_fence", "dollarmath"})
TEXT = r"""
**Bold {a}`b`**, \{c}`d`, `{e}` and [a {f}`g` label](h.md "title"), <project:i.md>, ![{j}`k`](l)
then ``{m}`n` `` and {o}``p`q`` at the end {r}`s
t`.
"""


def test_roles_and_links_are_where_they_were_found() -> None:
    (token,) = (token for token in site_parser(CONFIG).parse(TEXT) if token.type == "inline")
    found = [
        (child.type, token.content[slice(*child.meta["at"])])
        for child in token.children or ()
        if "at" in child.meta
    ]
    assert found == [
        ("myst_role", "{a}`b`"),
        ("link_open", '[a {f}`g` label](h.md "title")'),
        ("myst_role", "{f}`g`"),
        ("link_open", "<project:i.md>"),
        ("myst_role", "{o}``p`q``"),
        ("myst_role", "{r}`s\nt`"),
    ]


def test_nothing_is_read_otherwise() -> None:
    assert site_parser(CONFIG).render(TEXT) == create_md_parser(CONFIG, RendererHTML).render(TEXT)


@pytest.mark.parametrize(
    ("text", "starts", "ends"),
    [
        ("a", True, True),
        ("$$\na\n$$\n\nb", False, True),
        ("a\n\n- b", True, False),
        ("", False, False),
    ],
)
def test_whether_a_text_starts_and_ends_with_words(text: str, starts: bool, ends: bool) -> None:
    tokens = site_parser(CONFIG).parse(text)
    assert (starts_with_text(tokens), ends_with_text(tokens)) == (starts, ends)
