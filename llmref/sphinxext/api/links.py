"""Links between the API and the pages, which are known only when all pages are read.

A name in the API leads to its equations and to the pages that show its source; a source that a
page shows leads to the API. Leaves out: what else the API says of a name (listing).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata

from llmref.sphinxext.api.entries import Entry, read_entry, state
from llmref.sphinxext.single import of_interest, only_page
from llmref.sphinxext.transforms import LinkingTransform

logger = logging.getLogger(__name__)


class ApiLinks(nodes.General, nodes.Element):
    """A place for the links of a name: its equations, the pages that show it, its source."""


def shown_on(env: BuildEnvironment, defined: str) -> dict[str, str]:
    """Return the pages that show the source of a definition, or a part of it, with anchors."""
    found: dict[str, str] = {}
    for docname in sorted(env.found_docs):
        for name, anchor in env.metadata[docname].get("llmref_sources", {}).items():
            if name == defined or name.startswith(f"{defined}."):
                found.setdefault(docname, anchor)
    return found


class WriteLinks(LinkingTransform):
    """Fills in the links."""

    def run(self, **kwargs: Any) -> None:
        """Replace each place by its links."""
        for node in list(self.document.findall(ApiLinks)):
            parts: list[list[nodes.Node]]
            parts = [self._equations(node), self._pages(node), self._source(node)]
            paragraph = nodes.paragraph(classes=["api-links"])
            for part in filter(None, parts):
                paragraph += [nodes.Text(" · "), *part] if len(paragraph) else part
            node.replace_self(paragraph)

    def _equations(self, node: ApiLinks) -> list[nodes.Node]:
        known = self.env.domains.math_domain.equations
        numbered = [(label, *known[label]) for label in node["equations"] if label in known]
        words = ["Equation", *["equation"] * len(numbered)]
        links = [
            self._link(docname, nodes.make_id(f"equation-{label}"), f"{word} ({number})")
            for word, (label, docname, number) in zip(words, numbered, strict=False)
        ]
        return list(_listed(links))

    def _pages(self, node: ApiLinks) -> list[nodes.Node]:
        links = [
            self._link(docname, anchor, self.env.titles[docname].astext())
            for docname, anchor in shown_on(self.env, node["name"]).items()
        ]
        return (
            [nodes.Text("Page: " if len(links) == 1 else "Pages: "), *_listed(links)]
            if links
            else []
        )

    def _source(self, node: ApiLinks) -> list[nodes.Node]:
        text = f"{node['file'].rpartition('/')[2]}, lines {node['lines']}"
        link = nodes.reference("", text, refuri=node["url"], internal=False)
        return [nodes.Text("Source: "), link]

    def _link(self, docname: str, anchor: str, text: str) -> nodes.reference:
        return make_refnode(self.builder, self.env.docname, docname, anchor, nodes.inline("", text))


def _listed(links: list[nodes.reference]) -> Iterator[nodes.Node]:
    for index, link in enumerate(links):
        yield from [nodes.Text(", "), link] if index else [link]


def leave_without_entry(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """A source that is shown may have no entry in the API; then its name is no link."""
    return content if node.get("llmref_optional") else None


def note_names(app: Sphinx, document: nodes.document) -> None:
    """Remember which names a page refers to: it is written again when they move."""
    links = document.findall(pending_xref)
    names = {link["reftarget"] for link in links if link.get("refdomain") == "py"}
    app.env.metadata[app.env.docname]["llmref_names"] = sorted(names)


def listings_to_read(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the listings of groups that have other topics, or other titles, than they had."""
    root, docs = Path(app.config.llmref_root), Path(env.srcdir)
    return [
        docname
        for docname in sorted(of_interest(app, env.found_docs))
        if (before := env.metadata[docname].get("llmref_api")) is not None
        and before != state(env.metadata[docname]["llmref_api_group"], root, docs)
    ]


def pages_to_write(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the pages whose links to the API, or from it, lead elsewhere than they did."""
    objects = env.domains.python_domain.objects
    sources = [env.metadata[docname].get("llmref_sources") for docname in sorted(env.found_docs)]
    found = []
    for docname in sorted(of_interest(app, env.found_docs)):
        metadata = env.metadata[docname]
        names = [objects.get(name) for name in metadata.get("llmref_names", ())]
        seen = repr((names, sources if "llmref_api" in metadata else ()))
        digest = hashlib.sha256(seen.encode()).hexdigest()
        if metadata.get("llmref_links") != digest:
            metadata["llmref_links"] = digest
            found.append(docname)
    return found


def to_check(entry: Entry, root: Path) -> tuple[str, ...]:
    """Return what a listing notes of a name: itself, kind, definition, file, line, equations."""
    path = entry.definition.path.relative_to(root).as_posix()
    inner = (label for member in entry.members for label in member.equations)
    labels = dict.fromkeys([*entry.equations, *inner])
    return (
        entry.name,
        entry.kind,
        entry.definition.name,
        path,
        str(entry.definition.lines[0]),
        *labels,
    )


def check_entries(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of equations that no page has, and, if asked to, of functions that no page shows."""
    root = Path(app.config.llmref_root)
    for docname in sorted(env.found_docs):
        for noted in env.metadata[docname].get("llmref_api_entries", ()):
            faults = list(_faults(app, env, noted))
            if faults and only_page(app):  # the listing may be older than the module
                faults = list(_faults(app, env, _noted_now(noted[0], root)))
            for fault, where in faults:
                logger.warning("%s", fault, location=where)


def _faults(
    app: Sphinx, env: BuildEnvironment, noted: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """What is wrong with a name that a listing has noted, and where."""
    if not noted:
        return
    name, kind, defined, path, line, *labels = noted
    where = f"{Path(app.config.llmref_root) / path}:{line}"
    for label in labels:
        if label not in env.domains.math_domain.equations:
            yield f"{name} names no equation: {label}", where
    callable_ = kind in ("function", "class")
    if app.config.llmref_show_all and callable_ and not shown_on(env, defined):
        yield f"{name} is on no page: show it, or make it private", where


def _noted_now(name: str, root: Path) -> tuple[str, ...]:
    """What a listing would note of a name if it were read now; nothing if the name is gone."""
    try:
        return to_check(read_entry(name, root), root)
    except (LookupError, SyntaxError):
        return ()


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the links, and what keeps them fresh."""
    app.setup_extension("llmref.sphinxext.single")
    app.add_config_value("llmref_show_all", False, "env", types=(bool,))
    app.add_node(ApiLinks)
    WriteLinks.register(app)
    app.connect("missing-reference", leave_without_entry)
    app.connect("doctree-read", note_names)
    app.connect("env-get-outdated", listings_to_read)
    app.connect("env-updated", pages_to_write)
    app.connect("env-check-consistency", check_entries)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
