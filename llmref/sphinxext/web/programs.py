"""Writes the site once more for programs: results.json, llms.txt, sitemap.xml, and beside each page
its Markdown and, where it was executed, its notebook.

The form of results.json is docs/results.schema.json; `schema` in it is the number of that form.
"""

import contextlib
import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

from llmref.records import Published, read_published
from llmref.sphinxext.results.domain import ResultsDomain

SCHEMA = 2
_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


def _base(config: Config) -> str:
    return f"{config.html_baseurl.rstrip('/')}/" if config.html_baseurl else ""


def as_data(domain: ResultsDomain, published: dict[str, Published]) -> dict[str, Any]:
    """Return what the file holds, in an order that depends on the ids alone."""
    env = domain.env
    base = _base(env.config)
    results = []
    for id_, result in sorted(domain.results.items()):
        entry = published.get(id_)
        results.append(
            {
                "id": id_,
                "kind": result.kind,
                "name": result.name,
                "title": result.title,
                "page": result.docname,
                "url": f"{base}{result.docname}.html#{id_}",
                "since": entry.version if entry else "",
                "formerly": sorted(p.id for p in published.values() if p.moved_to == id_),
                "rests_on": result.rests_on,
                "supports": sorted(
                    other.id for other in domain.results.values() if id_ in other.rests_on
                ),
                "checks": [
                    {key: value for key, value in check.record.items() if key != "result"}
                    for check in domain.checks
                    if check.record["result"] == id_
                ],
            }
        )
    return {
        "schema": SCHEMA,
        "project": env.config.project,
        "version": env.config.release,
        "results": results,
    }


def write_results(app: Sphinx, exception: Exception | None) -> None:
    """Write results.json into the built site."""
    if exception is not None or app.builder.name != "html":
        return
    domain = app.env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    listed = app.config.llmref_result_ids
    published = read_published(Path(listed)) if listed else {}
    text = json.dumps(as_data(domain, published), indent=1, ensure_ascii=False)
    (Path(app.outdir) / "results.json").write_text(text + "\n", encoding="utf-8")


def as_markdown(notebook: NotebookNode) -> str:
    """Return an executed page as plain Markdown: prose, code, and what the code printed."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        printed = "\n".join(filter(None, map(_printed, cell.get("outputs", []))))
        if printed:
            parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def to_download(notebook: NotebookNode, origin: str, project: str) -> None:
    """Turn an executed page into a notebook that says where it is from and what it needs."""
    about = f"From {origin}. It needs `pip install {project} matplotlib`."
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(about, id="about"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """Write sitemap.xml, if it is known where the site is at home."""
    base = _base(app.config)
    if exception is not None or app.builder.name != "html" or not base:
        return
    pages = sorted(app.env.found_docs - set(app.config.llmref_unlisted))
    lines = [f"  <url><loc>{html.escape(base + page)}.html</loc></url>" for page in pages]
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    head += '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    text = "\n".join([head, *lines, "</urlset>", ""])
    (Path(app.outdir) / "sitemap.xml").write_text(text, encoding="utf-8")


def root_links(app: Sphinx, pagename: str, _: str, context: dict[str, Any], __: Any) -> None:
    """Let the page for dead links lead home from whatever address it is shown at."""
    if pagename in app.config.llmref_unlisted and (home := app.config.llmref_home):
        context["metatags"] = f'<base href="{html.escape(home)}">' + context.get("metatags", "")


def write_markdown(app: Sphinx, exception: Exception | None) -> None:
    """Write PAGE.md beside each PAGE.html, and llms.txt, which lists them."""
    if exception is not None or app.builder.name != "html":
        return
    base = _base(app.config)
    lines = [f"# {app.config.project}", ""]
    for docname in sorted(app.env.found_docs - set(app.config.llmref_unlisted)):
        # A page that is no UTF-8, or has no good front matter, has been warned of.
        text = Path(app.env.doc2path(docname)).read_text(encoding="utf-8-sig", errors="replace")
        match = _FRONT_MATTER.match(text)
        metadata = _metadata(match[1]) if match else {}
        # myst-nb keeps the executed pages here.
        executed = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
        path = Path(app.outdir) / f"{docname}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if metadata.get("file_format") != "mystnb":
            path.write_text(text[match.end() if match else 0 :].lstrip(), encoding="utf-8")
        elif _older(path, executed) or _older(path.with_suffix(".ipynb"), executed):
            notebook = nbformat.read(executed, as_version=4)
            path.write_text(as_markdown(notebook), encoding="utf-8")
            title = app.env.titles[docname].astext()
            to_download(notebook, f"[{title}]({base}{docname}.html)", app.config.project)
            nbformat.write(notebook, path.with_suffix(".ipynb"))
        about = metadata.get("myst", {}).get("html_meta", {}).get("description", "")
        title = app.env.titles[docname].astext()
        lines.append(f"- [{title}]({base}{docname}.md)" + (f": {about}" if about else ""))
    (Path(app.outdir) / "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _older(path: Path, than: Path) -> bool:
    return not path.is_file() or path.stat().st_mtime < than.stat().st_mtime


def _metadata(text: str) -> dict[str, Any]:
    with contextlib.suppress(yaml.YAMLError):
        metadata = yaml.safe_load(text)
        return metadata if isinstance(metadata, dict) else {}
    return {}


def _printed(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text).rstrip()
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    return str(output.data.get("text/plain", "")).rstrip()


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the events."""
    app.connect("build-finished", write_results)
    app.connect("build-finished", write_markdown)
    app.connect("build-finished", write_sitemap)
    app.connect("html-page-context", root_links)
    # Pages that are found by no list: the one that a server shows for a dead link.
    app.add_config_value("llmref_unlisted", (), "html", types=(tuple, list))
    # Where this very build will be served, if that is known; a local build is served anywhere.
    app.add_config_value("llmref_home", "", "html", types=(str,))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
