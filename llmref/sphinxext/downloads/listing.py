"""Writes llms.txt: what the site is, and its pages by group, each with what it says of itself.

Its form is that of llmstxt.org: a title, a summary, and sections of links; what is under 'Optional'
can be left out where there is little room.
"""

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

_REST = "Pages"
_DETAILS = (
    "Each page is here as Markdown; with `.html` in place of `.md` it is the page itself, and with "
    "`.ipynb` its notebook, if it runs code. `results.json` lists every result with its permanent "
    "link, its checks and what it rests on."
)


def write_listing(app: Sphinx, exception: Exception | None) -> None:
    """Write llms.txt into the built site."""
    if exception is None and app.builder.name == "html":
        text = "\n".join(_lines(app)) + "\n"
        (Path(app.outdir) / "llms.txt").write_text(text, encoding="utf-8")


def _lines(app: Sphinx) -> Iterator[str]:
    env, config = app.env, app.config
    summary = config.llmref_description or _description(env, config.root_doc) or config.project
    yield from (f"# {config.project}", "", f"> {summary}", "", _DETAILS)
    base = f"{config.html_baseurl.rstrip('/')}/" if config.html_baseurl else ""
    for caption, docnames in sections(app).items():
        yield from ("", f"## {caption}", "")
        for docname in docnames:
            about = _description(env, docname)
            title = _inside(env.titles[docname].astext())
            yield f"- [{title}]({base}{docname}.md)" + (f": {about}" if about else "")


def sections(app: Sphinx) -> dict[str, list[str]]:
    """Return the pages by the captions of the contents; the optional ones come last."""
    optional = set(app.config.llmref_optional)
    left = app.env.found_docs - set(app.config.llmref_unlisted)
    found: dict[str, list[str]] = {_REST: []}
    for contents in app.env.tocs[app.config.root_doc].findall(toctree):
        listed = [docname for _, docname in contents["entries"] if docname in left - optional]
        found.setdefault(contents.get("caption") or _REST, []).extend(listed)
        left -= set(listed)
    found[_REST] = sorted(left - optional) + found[_REST]
    found["Optional"] = sorted(left & optional)
    return {caption: docnames for caption, docnames in found.items() if docnames}


def note_description(app: Sphinx, document: nodes.document) -> None:
    """Keep what a page says of itself, so that no later build has to read it for that."""
    for meta in document.findall(nodes.meta):
        if meta.get("name") == "description":
            said = " ".join(str(meta["content"]).split())
            app.env.metadata[app.env.docname]["llmref_about"] = said


def _description(env: BuildEnvironment, docname: str) -> str:
    return str(env.metadata[docname].get("llmref_about", ""))


def _inside(title: str) -> str:
    """A title that may stand between brackets."""
    return title.replace("[", "(").replace("]", ")")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the event."""
    # Pages that a reader with little room can do without.
    app.add_config_value("llmref_optional", (), "html", types=(tuple, list))
    app.connect("doctree-read", note_description)
    app.connect("build-finished", write_listing)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
