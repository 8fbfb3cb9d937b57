"""What removed pages and unused pictures leave in a site, and Sphinx does not clear away."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def remove_outputs_of(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Remove the files of pages that are no more; Sphinx would leave them to be found."""
    for docname in removed if app.builder.format == "html" else ():
        for ending in (".html", ".md", ".ipynb"):
            (Path(app.outdir) / f"{docname}{ending}").unlink(missing_ok=True)
        (Path(app.outdir) / "_sources" / f"{docname}.md.txt").unlink(missing_ok=True)
    return []


def forget_words(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Drop the words of removed pages from the search index; Sphinx keeps them with no page."""
    indexer = getattr(app.builder, "indexer", None)
    for mapping in (indexer._mapping, indexer._title_mapping) if indexer else ():
        for word in [word for word, pages in mapping.items() if not pages]:
            del mapping[word]
    return []


def remove_unused_images(app: Sphinx, exception: Exception | None) -> None:
    """Remove the pictures that no page shows any more."""
    if exception is None and app.builder.format == "html":
        used = {name for _, name in app.env.images.values()}
        for path in (Path(app.outdir) / "_images").glob("*"):
            if path.name not in used:
                path.unlink()
