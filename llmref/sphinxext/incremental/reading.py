"""Which unedited pages are read again, since something that they depend on has changed."""

import os
from functools import lru_cache
from pathlib import Path
from zlib import crc32

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from llmref.records import read_published
from llmref.sphinxext.execution.keys import key_of, state_of_all
from llmref.sphinxext.execution.pages import EDITED
from llmref.sphinxext.results.directives import former_ids, since
from llmref.sphinxext.results.domain import ResultsDomain
from llmref.sphinxext.single import of_interest, only_page

# Reading so few pages takes no longer in one process than in several.
_FEW = 8


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
    stale |= {
        name for name in unedited if env.metadata[name].get("llmref_files") != _files(env, name)
    }
    state = state_of_all(root, preloaded)
    if state == domain.data.get("code_state"):
        return sorted(stale | {name for name, key in keys.items() if key == EDITED})
    if not only_page(app):
        domain.data["code_state"] = state
    for name, key in keys.items():
        if key != key_of(env.metadata[name]["llmref_code"], root, preloaded):
            stale.add(name)
    return sorted(stale)


def forget_pages(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Forget all pages that will be read before the first one is.

    Without workers Sphinx forgets one after the other: a label that has moved from a later page to
    an earlier one would be there twice.
    """
    for docname in docnames:
        app.events.emit("env-purge-doc", env, docname)
        env.clear_doc(docname)


def note_files(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Note what the pages that will be read are made of, once they have been."""

    def note(app: Sphinx, env: BuildEnvironment) -> list[str]:
        app.disconnect(listener)
        for docname in docnames:
            env.metadata[docname]["llmref_files"] = _files(env, docname)
        return []

    listener = app.connect("env-updated", note)


def _files(env: BuildEnvironment, docname: str) -> int:
    """A number for the contents of a page and of all that it includes.

    Sphinx looks at times alone, and asks only whether a file is newer: one that is moved over a
    page, or restored with its time, is not.
    """
    paths = [
        env.doc2path(docname),
        *(Path(env.srcdir) / name for name in env.dependencies[docname]),
    ]
    number = 0
    for path in sorted(map(str, paths)):
        number = crc32(_contents(path, *_state(path)), number)
    return number


def _state(path: str) -> tuple[int, ...]:
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


@lru_cache(maxsize=4096)
def _contents(path: str, *state: int) -> bytes:
    """A short digest of a file, looked up by its size and times within one build."""
    return str(crc32(Path(path).read_bytes())).encode() if state else b""


def _renamed(app: Sphinx, domain: ResultsDomain) -> set[str]:
    """Pages with a result that had other former ids, or came otherwise, when the page was read."""
    listed = app.config.llmref_result_ids
    published = read_published(Path(listed)) if listed else {}
    return {
        result.docname
        for result in domain.results.values()
        if (result.former, result.since)
        != (former_ids(result.id, published), since(result.id, published))
    }


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
