"""Writes the site once more for programs: results.json, Markdown beside each page, llms.txt.

The form of results.json is docs/results.schema.json; `schema` in it is the number of that form.
"""

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

from llmref.sphinxext.published import Published, read_published
from llmref.sphinxext.results import ResultsDomain

SCHEMA = 1
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
    if exception is not None or app.builder.format != "html":
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


def write_markdown(app: Sphinx, exception: Exception | None) -> None:
    """Write PAGE.md beside each PAGE.html, and llms.txt, which lists them."""
    if exception is not None or app.builder.format != "html":
        return
    base = _base(app.config)
    lines = [f"# {app.config.project}", ""]
    for docname in sorted(app.env.found_docs):
        text = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
        match = _FRONT_MATTER.match(text)
        metadata = yaml.safe_load(match[1]) if match else {}
        # myst-nb keeps the executed pages here.
        executed = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
        path = Path(app.outdir) / f"{docname}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if metadata.get("file_format") != "mystnb":
            path.write_text(text[match.end() if match else 0 :].lstrip(), encoding="utf-8")
        elif not path.is_file() or path.stat().st_mtime < executed.stat().st_mtime:
            markdown = as_markdown(nbformat.read(executed, as_version=4))
            path.write_text(markdown, encoding="utf-8")
        about = metadata.get("myst", {}).get("html_meta", {}).get("description", "")
        title = app.env.titles[docname].astext()
        lines.append(f"- [{title}]({base}{docname}.md)" + (f": {about}" if about else ""))
    (Path(app.outdir) / "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


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
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
