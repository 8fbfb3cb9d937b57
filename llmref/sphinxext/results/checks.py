"""The check that a cell has returned, as a node on the page."""

from typing import ClassVar

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.util import logging

from llmref.records import MIME_TYPE, seal
from llmref.sphinxext.results.nodes import check_node

logger = logging.getLogger(__name__)


class CheckRenderer:
    """Turns the output of a check into a node that holds its record."""

    mime_priority_overrides: ClassVar = [("*", MIME_TYPE, 0)]

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """Return the check's node for our MIME type, and leave all others to myst-nb."""
        if data.mime_type != MIME_TYPE or inline:
            return None
        assert isinstance(data.content, dict)
        line = (data.line or 2) - 1  # myst-nb counts one too many
        record = {key: value for key, value in data.content.items() if key != "seal"}
        if data.content.get("seal") != seal(record):
            logger.warning(
                "a record that no check has made: show what a function of llmref.verify returns",
                location=(renderer.renderer.document.settings.env.docname, line),
                type="llmref",
                subtype="record",
            )
            return []
        node = check_node(record)
        node.line = line
        return [node]
