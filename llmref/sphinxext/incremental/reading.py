"""Which unedited pages are read again, since something that they depend on has changed."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from llmref.records import read_published
from llmref.sphinxext.execution.keys import key_of, state_of_all
from llmref.sphinxext.execution.pages import EDITED
from llmref.sphinxext.results.directives import former_ids
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.single import of_interest, only_page

# Reading so few pages takes no longer in one process than in several.
_FEW = 2


def outdated_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the unedited pages whose outputs or results are no longer what they were."""
    changed.intersection_update(of_interest(app, changed))
    root, preloaded = Path(app.config.llmref_root), app.config.llmref_preload
    unedited = of_interest(app, env.found_docs - added - changed)
    keys = {name: key for name in unedited if (key := env.metadata[name].get("llmref_key"))}
    domain = env.domains["prf"]
    assert isinstance(domain, ResultsDomain)
    stale = of_interest(app, _renamed(app, domain))
    state = state_of_all(root, preloaded)
    if state == domain.data.get("code_state"):
        return sorted(stale | {name for name, key in keys.items() if key == EDITED})
    if not only_page(app):
        domain.data["code_state"] = state
    for name, key in keys.items():
        if key != key_of(env.metadata[name]["llmref_code"], root, preloaded):
            stale.add(name)
    return sorted(stale)


def _renamed(app: Sphinx, domain: ResultsDomain) -> set[str]:
    """Pages with a result that had other former ids when the page was read."""
    listed = app.config.llmref_result_ids
    published = read_published(Path(listed)) if listed else {}
    return {
        result.docname
        for result in domain.results.values()
        if result.former != former_ids(result.id, published)
    } & domain.env.found_docs


def read_few_pages_here(app: Sphinx) -> None:
    """Let Sphinx fork readers only for many pages: each one hands its whole environment back."""
    processes = app.parallel

    def before(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
        app.parallel = 1 if len(docnames) <= _FEW else processes

    def after(app: Sphinx, env: BuildEnvironment) -> list[str]:
        app.parallel = processes
        return []

    app.connect("env-before-read-docs", before)
    app.connect("env-updated", after)
