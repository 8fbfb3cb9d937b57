"""Which pages are written again, though they were not read again.

Sphinx writes only what it has read, so that titles in the navigation, numbers of equations and
results cited from elsewhere would go stale.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.results.data import Shown
from llmref.sphinxext.results.domain import ResultsDomain


def pages_to_rewrite(app: Sphinx, env: BuildEnvironment) -> Iterator[str]:
    """Yield the pages that show something of other pages which has changed.

    Sphinx writes again only what it has read again, so that titles in the navigation, numbers of
    equations and results cited from elsewhere would go stale.
    """
    domain = env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    everywhere = _digest(
        sorted((docname, title.astext()) for docname, title in env.titles.items()),
        sorted(env.toctree_includes.items()),
        sorted(env.domains.math_domain.equations.items()),
        sorted(env.domains.standard_domain.labels.items()),
        sorted((result.id, result.rests_on) for result in domain.results.values()),
    )
    agreement = Path(env.srcdir) / "agreement.json"
    of_reports = _digest(
        sorted(map(repr, domain.results.values())),
        sorted(map(repr, domain.checks)),
        agreement.read_text(encoding="utf-8") if agreement.is_file() else "",
    )
    for docname in sorted(env.found_docs):
        shown = domain.shows.get(docname, Shown())
        cited = [domain.results.get(id_) for id_ in shown.cited]
        state = _digest(everywhere, cited, of_reports if shown.reports else "")
        if shown.state != state:
            shown.state = state
            domain.shows[docname] = shown
            yield docname


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
