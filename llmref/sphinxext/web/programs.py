"""What programs read of the site as a whole: results.json and sitemap.xml.

Leaves out: what a reader takes along (downloads). The form of results.json is
docs/results.schema.json; `schema` in it is the number of that form.
"""

import html
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

from llmref.records import Published, read_published
from llmref.sphinxext.results.domain import ResultsDomain

SCHEMA = 2


def _base(config: Config) -> str:
    return f"{config.html_baseurl.rstrip('/')}/" if config.html_baseurl else ""


def as_data(domain: ResultsDomain, published: dict[str, Published]) -> dict[str, Any]:
    """Return what the file holds, in an order that depends on the ids alone."""
    env = domain.env
    base = _base(env.config)
    formerly: dict[str, list[str]] = defaultdict(list)
    supports: dict[str, list[str]] = defaultdict(list)
    checks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for moved in published.values():
        formerly[moved.moved_to].append(moved.id)
    for id_, result in domain.results.items():
        for other in set(result.rests_on):
            supports[other].append(id_)
    for check in domain.checks:
        told = {key: value for key, value in check.record.items() if key != "result"}
        checks[check.record["result"]].append(told)
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
                "formerly": sorted(formerly[id_]),
                "rests_on": result.rests_on,
                "supports": sorted(supports[id_]),
                "checks": checks[id_],
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


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the events."""
    app.connect("build-finished", write_results)
    app.connect("build-finished", write_sitemap)
    app.connect("html-page-context", root_links)
    # Pages that are found by no list: the one that a server shows for a dead link.
    app.add_config_value("llmref_unlisted", (), "html", types=(tuple, list))
    # Where this very build will be served, if that is known; a local build is served anywhere.
    app.add_config_value("llmref_home", "", "html", types=(str,))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
