"""Refuses a build that has not written all it should: a site with pages missing is never published.

It knows nothing of why a page may be missing: it looks at what is there.
"""

from collections.abc import Iterator, Set
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.errors import ExtensionError

from llmref.sphinxext.single import to_write
from llmref.sphinxext.topics.domain import TopicsDomain
from llmref.sphinxext.topics.practise import notebook_of

_ALWAYS = ("search.html", "searchindex.js", "objects.inv", "results.json", "llms.txt")
_AT_MOST = 5  # named in the message


def require_written(app: Sphinx) -> None:
    """Have each page that Sphinx sets out to write be looked at when all are written."""
    builder = app.builder
    if builder.format != "html":
        return
    write = builder.write_documents

    def write_and_look(docnames: Set[str]) -> None:
        docnames = to_write(app, set(docnames))
        started = _now(Path(app.outdir))
        if docnames:
            write(docnames)
        builder.current_docname = ""  # type: ignore[attr-defined]  # no page is in hand any more
        old = [
            docname
            for docname in sorted(docnames)
            if not (path := _path(builder, docname)).is_file() or path.stat().st_mtime_ns < started
        ]
        _refuse(old, "not written")

    builder.write_documents = write_and_look  # type: ignore[method-assign]


def require_all(app: Sphinx, exception: Exception | None) -> None:
    """Look for every file that the site must have, and whether it has an end."""
    if exception is None and app.builder.name == "html":
        _refuse(list(_missing(app)), "not there, or not whole")


def _missing(app: Sphinx) -> Iterator[str]:
    folder = Path(app.outdir)
    for docname in sorted(app.env.found_docs):
        if not _ends_with(_path(app.builder, docname), b"</html>"):
            yield docname
    for docname in sorted(app.env.found_docs - set(app.config.llmref_unlisted)):
        executed = "llmref_key" in app.env.metadata[docname]
        for ending in (".md", ".ipynb") if executed else (".md",):
            if not _ends_with(folder / f"{docname}{ending}"):
                yield f"{docname}{ending}"
    topics = app.env.domains["topic"]
    assert isinstance(topics, TopicsDomain)
    for docname, topic in sorted(topics.topics.items()):
        if topic.exercises and not _ends_with(folder / notebook_of(docname)):
            yield notebook_of(docname)
    yield from (name for name in _ALWAYS if not _ends_with(folder / name))
    if not _ends_with(folder / "searchindex.js", b")"):
        yield "searchindex.js"
    pictures = {name for _, name in app.env.images.values()}
    yield from (name for name in sorted(pictures) if not _ends_with(folder / "_images" / name))


def _path(builder: Builder, docname: str) -> Path:
    return Path(builder.get_output_path(docname))  # type: ignore[attr-defined]


def _ends_with(path: Path, end: bytes = b"") -> bool:
    """Whether a file is there, not empty, and closes as it should."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), 2)
        return file.read().rstrip().endswith(end)


def _now(folder: Path) -> int:
    """The time as the file system has it."""
    probe = folder / ".llmref-started"
    probe.touch()
    started = probe.stat().st_mtime_ns
    probe.unlink()
    return started


def _refuse(names: list[str], why: str) -> None:
    if names:
        more = f" and {len(names) - _AT_MOST} more" if len(names) > _AT_MOST else ""
        listed = ", ".join(names[:_AT_MOST])
        raise ExtensionError(f"of the site, this is {why}: {listed}{more}")
