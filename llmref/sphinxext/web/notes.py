"""Notes in the margin: what the theme's own transform leaves undone."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.typing import ExtensionMetadata
from sphinx_book_theme.nodes import SideNoteNode


class LinkRepeatedNotes(SphinxPostTransform):
    """Leads further references to a note to its first one; the theme has moved the note there."""

    default_priority = 2  # right after the theme's own transform
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the references whose footnote is gone."""
        places: dict[str, str] = {}
        for note in self.document.findall(SideNoteNode):
            label = note["names"][0].rpartition("-")[2]
            if not note["ids"]:
                note["ids"] = [f"note-{label}"]
            places[label] = note["ids"][0]
        for reference in list(self.document.findall(nodes.footnote_reference)):
            label = reference.astext()
            if label in places:
                link = nodes.reference("", label, refid=places[label], internal=True)
                reference.replace_self(nodes.superscript("", "", link))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform."""
    app.add_post_transform(LinkRepeatedNotes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
