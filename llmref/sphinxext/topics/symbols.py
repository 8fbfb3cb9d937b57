"""The symbols of a page, folded: a table whose every row says in words what its letter means."""

import re
from typing import ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from llmref.sphinxext.results.nodes import Fold, FoldSummary

_WORD = re.compile(r"[^\W\d_]{2,}")


class SymbolsDirective(SphinxDirective):
    """`symbols`: one table with a column 'meaning', and text around it."""

    has_content = True
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Return the fold; refuse a row without words."""
        if "symbols" in self.state.document.ids:
            raise self.error("this page has a place named 'symbols' already")
        content = self.parse_content_to_nodes()
        tables = [table for node in content for table in node.findall(nodes.table)]
        if len(tables) != 1:
            raise self.error(f"symbols are one table, got {len(tables)}")
        head, *rows = tables[0].findall(nodes.row)
        heads = [entry.astext() for entry in head.findall(nodes.entry)]
        if "meaning" not in heads:
            raise self.error(f"the table of symbols needs a column 'meaning', got {heads}")
        if not rows:
            raise self.error("the table of symbols has no rows")
        for row in rows:
            cells = list(row.findall(nodes.entry))
            if not _WORD.search(_words(cells[heads.index("meaning")])):
                raise self.error(f"the symbol {cells[0].astext()} needs a meaning in words")
        fold = Fold("", FoldSummary("", "Symbols"), *content, classes=["symbols"], ids=["symbols"])
        self.set_source_info(fold)
        self.state.document.note_explicit_target(fold)
        return [fold]


def _words(entry: nodes.Element) -> str:
    """The text of a cell without formulas and code."""
    bare = entry.deepcopy()
    for part in [*bare.findall(nodes.math), *bare.findall(nodes.literal)]:
        part.parent.remove(part)
    return bare.astext()
