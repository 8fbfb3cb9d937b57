"""What folds that is no single node: the rest of a section, cells included."""

from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from llmref.sphinxext.results.nodes import Fold, FoldMarker, FoldSummary


class FoldDirective(SphinxDirective):
    """`fold` SUMMARY: folds the rest of its section, executed cells included."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Mark the place; cells are no directive's content, so they are folded in at the end."""
        return [FoldMarker("", summary=self.arguments[0])]


class FoldSections(SphinxPostTransform):
    """Moves what follows a fold marker into a fold; late, so that contents lists see sections."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        """Fold to the end of the marker's section."""
        for marker in list(self.document.findall(FoldMarker)):
            parent = marker.parent
            assert isinstance(parent, nodes.Element)
            index = parent.index(marker)
            inside = parent[index + 1 :]
            del parent[index:]
            parent += Fold("", FoldSummary("", marker["summary"]), *inside)
