"""Which unedited pages are read again, since something that they depend on has changed."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from llmref.sphinxext.execution.imports import package_files
from llmref.sphinxext.execution.keys import digest_of, key_of
from llmref.sphinxext.execution.pages import EDITED

# Reading so few pages takes no longer in one process than in several.
_FEW = 2


def outdated_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the unedited pages whose key has changed with a module or a package."""
    root = Path(app.config.llmref_root)
    unedited = env.found_docs - added - changed
    keys = {name: key for name in unedited if (key := env.metadata[name].get("llmref_key"))}
    # The key of a page without code that imports everything: while it stays, so do all others.
    common = digest_of([], package_files(root), root)
    before, env.llmref_common_key = getattr(env, "llmref_common_key", ""), common  # type: ignore[attr-defined]
    if common == before:
        return sorted(name for name, key in keys.items() if key == EDITED)
    return sorted(
        name for name, key in keys.items() if key != key_of(env.metadata[name]["llmref_code"], root)
    )


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
