"""Links in listings: a comment that names an equation, `# eq. eq-rope-pair`, shows its number.

Leaves out: how a listing is coloured, which is Sphinx's.
"""

import html
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

_COMMENT = re.compile(r'<span class="c1">[^<]*\beq-[a-z0-9-]+[^<]*</span>')
_LABEL = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*")
_WORD = re.compile(r"\beqs?\. (?=<a )")


def visit_literal_block(self: HTML5Translator, node: nodes.literal_block) -> None:
    """Write a listing, with links to the equations that its comments name."""
    try:
        HTML5Translator.visit_literal_block(self, node)
    except nodes.SkipNode:
        self.body[-1] = _COMMENT.sub(lambda comment: _linked(self, comment[0]), self.body[-1])
        raise


def _linked(self: HTML5Translator, comment: str) -> str:
    """'# eq. eq-rope-pair' -> '# equation (4)', the number as a link to the equation."""
    equations = self.builder.env.domains.math_domain.equations

    def link(match: re.Match[str]) -> str:
        if match[0] not in equations:
            return match[0]
        docname, number = equations[match[0]]
        current = self.builder.current_docname
        page = "" if docname == current else self.builder.get_relative_uri(current, docname)
        target = f"{page}#{nodes.make_id(f'equation-{match[0]}')}"
        title = "" if not page else f" of {self.builder.env.titles[docname].astext()}"
        return f'<a href="{html.escape(target)}">({number})</a>{html.escape(title)}'

    return _WORD.sub("equation ", _LABEL.sub(link, comment))


def override_listing(app: Sphinx) -> None:
    """Put our listing in place of Sphinx's, late, as a theme may register its own."""
    app.add_node(
        nodes.literal_block,
        override=True,
        html=(visit_literal_block, HTML5Translator.depart_literal_block),
    )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the visitor."""
    app.connect("builder-inited", override_listing)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
