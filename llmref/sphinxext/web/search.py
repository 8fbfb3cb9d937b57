"""What the search finds, and in which order.

A result is found by the words of its title or by its id, at its own place; the page whose title is
asked for comes first (scorer.js).
Sphinx's index has no place of its own for an object whose display name is not its anchor: its
script takes the name for the anchor, and lands at the top of the page. It also escapes names that
the script escapes again, and cuts them at full stops.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.results.domain import ResultsDomain

_PRIORITY = 1  # as Sphinx's own objects
_SCORER = Path(__file__).parent / "scorer.js"


def point_at_results(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Give the index the results by title and id, each with its anchor."""
    indexer = getattr(app.builder, "indexer", None)
    if indexer is None:
        return []
    domain = app.env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    plain = indexer.get_objects

    def get_objects(pages: dict[str, int]) -> dict[str, list[Any]]:
        objects = plain(pages)
        types = {kind: n for (owner, kind), n in indexer._objtypes.items() if owner == domain.name}
        for prefix, entries in list(objects.items()):
            objects[prefix] = [entry for entry in entries if entry[1] not in types.values()]
        objects.setdefault("", []).extend(
            (pages[r.docname], types[r.kind], _PRIORITY, r.id, f"{r.title} ({r.id})")
            for _, r in sorted(domain.results.items())
            if r.docname in pages
        )
        return {prefix: entries for prefix, entries in objects.items() if entries}

    indexer.get_objects = get_objects
    return []


def score_pages(app: Sphinx, config: Config) -> None:
    """Put our order in the place of Sphinx's."""
    config.html_search_scorer = str(_SCORER)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the events; the second comes before the index is written."""
    app.connect("config-inited", score_pages)
    app.connect("html-collect-pages", point_at_results)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
