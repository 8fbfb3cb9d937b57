"""Which pages are written again, though they were not read again.

Sphinx writes only what it has read, so that titles in the navigation, numbers of equations, results
and headings that are cited from elsewhere, and the versions of style sheets would go stale.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.addnodes import toctree as toctree_
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.results.data import Result, Shown
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.results.ledger import CHANGES
from llmref.sphinxext.results.reports import showcase_code
from llmref.sphinxext.single import of_interest
from llmref.sphinxext.topics.domain import TopicsDomain

# Reports on the whole site, and on all topics; the others are on the page itself, or on one result.
_OF_SITE = {"graph", "ledger", "totals"}
_OF_TOPICS = {"cheat-sheet", "interview"}


def pages_to_rewrite(app: Sphinx, env: BuildEnvironment) -> Iterator[str]:
    """Yield the pages that show something of other pages which has changed."""
    domain = env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    everywhere = _digest(
        sorted((docname, title.pformat()) for docname, title in env.titles.items()),
        [_contents(env, docname) for docname in sorted(env.tocs)],
        sorted(env.domains.math_domain.equations.items()),
        [sorted(other.get_objects()) for other in env.domains.sorted()],
        sorted((result.id, result.rests_on) for result in domain.results.values()),
        _linked_files(app),
    )
    data = ("agreement.json", *CHANGES)
    measured = _digest(*(_content(Path(env.srcdir) / name) for name in data))
    of_site = _digest(
        sorted(map(repr, map(_shown, domain.results.values()))),
        sorted(repr((check.docname, check.record)) for check in domain.checks),
        sorted(map(repr, domain.errata)),
        measured,
    )
    topics = env.domains["topic"]
    assert isinstance(topics, TopicsDomain)
    of_topics = _digest(sorted((name, topic.shown()) for name, topic in topics.topics.items()))
    of_all = {**dict.fromkeys(_OF_SITE, of_site), **dict.fromkeys(_OF_TOPICS, of_topics)}
    for docname in sorted(of_interest(app, env.found_docs)):
        shown = domain.shows.get(docname, Shown())
        state = _digest(
            everywhere,
            [_shown(domain.results.get(id_)) for id_ in shown.cited],
            [_heading(env, *link) for link in shown.linked],
            [
                of_all.get(report) or (measured, _showcase(domain, report, argument))
                for report, argument in shown.reports
            ],
        )
        if shown.state != state:
            shown.state = state
            domain.shows[docname] = shown
            yield docname


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _contents(env: BuildEnvironment, docname: str) -> list[list[tuple[str, object]]]:
    """The lists of contents on a page, with captions, titles and options, as navigation shows."""
    return [sorted(toctree.attributes.items()) for toctree in env.tocs[docname].findall(toctree_)]


def _shown(result: Result | None) -> dict[str, Any]:
    """A result but for its line, which moves at every edit above it, and which no page shows."""
    return {**vars(result), "line": 0} if result else {}


def _heading(env: BuildEnvironment, docname: str, anchor: str) -> tuple[str, ...]:
    """What a link to a heading shows and needs: not its line, which comes first."""
    slugs = env.metadata[docname].get("myst_slugs", {})
    return tuple(map(str, slugs.get(anchor, ())[1:]))


def _showcase(domain: ResultsDomain, report: str, id_: str) -> object:
    result = domain.results.get(id_)
    if report != "showcase" or result is None:
        return None
    records = [check.record for check in domain.checks if check.record["result"] == id_]
    return _shown(result), records, showcase_code(domain.env, result.docname, id_)


def _linked_files(app: Sphinx) -> list[tuple[str, str]]:
    """Style sheets and scripts, whose links hold a checksum of them."""
    found = []
    for entry in app.config.html_static_path:
        path = Path(app.confdir) / entry
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in {".css", ".js"}:
                found.append((file.name, _digest(file.read_bytes())))
    return found


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
