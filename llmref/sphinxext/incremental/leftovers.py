"""What removed pages, static files and unused pictures leave in a site: Sphinx leaves it there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.execution.store import write_whole


def remove_outputs_of(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Remove the files of pages that are no more; Sphinx would leave them to be found."""
    for docname in removed if app.builder.format == "html" else ():
        for ending in (".html", ".md", ".ipynb", "-practice.ipynb"):
            (Path(app.outdir) / f"{docname}{ending}").unlink(missing_ok=True)
        (Path(app.outdir) / "_sources" / f"{docname}.md.txt").unlink(missing_ok=True)
    return []


def remove_old_static_files(app: Sphinx, builder: Builder) -> None:
    """Remove the copies of static files that are no more."""
    if builder.format != "html":
        return
    noted = Path(app.doctreedir) / f"static-{builder.name}.txt"
    names = sorted(_static_files(app))
    before = noted.read_text(encoding="utf-8").splitlines() if noted.is_file() else []
    for name in set(before) - set(names):
        (Path(app.outdir) / name).unlink(missing_ok=True)
    if names != before:
        write_whole(noted, "\n".join(names))


def _static_files(app: Sphinx) -> Iterator[str]:
    """Where in the site the files of the static and the extra paths are copied to."""
    for folder, entries in (
        ("_static/", app.config.html_static_path),
        ("", app.config.html_extra_path),
    ):
        for entry in entries:
            path = Path(app.confdir) / entry
            if path.is_file():
                yield folder + path.name
            for file in path.rglob("*"):
                if file.is_file():
                    yield folder + file.relative_to(path).as_posix()


def forget_words(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Drop the words of removed pages from the search index; Sphinx keeps them with no page."""
    indexer = getattr(app.builder, "indexer", None)
    for mapping in (indexer._mapping, indexer._title_mapping) if indexer else ():
        for word in [word for word, pages in mapping.items() if not pages]:
            del mapping[word]
    return []


def remove_unused_files(app: Sphinx, exception: Exception | None) -> None:
    """Remove the pictures that no page shows any more, and the files that none offers."""
    if exception is None and app.builder.format == "html":
        for folder, files in (("_images", app.env.images), ("_downloads", app.env.dlfiles)):
            used = {Path(name) for _, name in files.values()}
            top = Path(app.outdir) / folder
            for path in [path for path in top.rglob("*") if path.is_file()]:
                if path.relative_to(top) not in used:
                    path.unlink()
