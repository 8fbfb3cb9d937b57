"""Writes results.json: all results and checks of the site, for programs.

Its form is docs/results.schema.json; `schema` in the file is the number of that form.
"""

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.published import Published, read_published
from llmref.sphinxext.results import ResultsDomain

SCHEMA = 1


def as_data(domain: ResultsDomain, published: dict[str, Published]) -> dict[str, Any]:
    """Return what the file holds, in an order that depends on the ids alone."""
    env = domain.env
    base = env.config.html_baseurl.rstrip("/") + "/" if env.config.html_baseurl else ""
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


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the event."""
    app.connect("build-finished", write_results)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
