"""A page that is being written as Markdown, and the addresses that lead from it to the site."""

from dataclasses import dataclass, field
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import urljoin

from docutils import nodes
from markdown_it import MarkdownIt
from sphinx.addnodes import pending_xref
from sphinx.builders import Builder
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

from llmref.sphinxext.results.domain import ResultsDomain

logger = logging.getLogger(__name__)


@dataclass
class Page:
    """A page, and what its parts have to know of the site."""

    docname: str
    env: BuildEnvironment
    builder: Builder
    parser: MarkdownIt
    doctree: nodes.document
    cited: list[str] = field(default_factory=list)  # keys of the bibliography, in order

    @property
    def root(self) -> Path:
        """The folder that holds the package."""
        return Path(self.env.config.llmref_root)

    @property
    def results(self) -> ResultsDomain:
        """All results."""
        domain = self.env.domains["prf"]
        assert isinstance(domain, ResultsDomain)
        return domain

    def warn(self, line: int, message: str, *values: object) -> None:
        """Warn of a place on the page; a strict build stops."""
        logger.warning(message, *values, location=(self.docname, line), type="llmref")

    def address(self, uri: str) -> str:
        """Return an address that is seen from the page as it is seen from everywhere.

        'kl.html#kl-k3' -> 'https://llmref.github.io/llmref/rl/kl.html#kl-k3'. Where nobody knows
        where the site is at home it stays as it is: the Markdown stands beside the page.
        """
        base = self.env.config.html_baseurl
        if not base and (not uri or uri.startswith("#")):
            return Path(self._uri(self.docname)).name + uri
        if not base:
            return uri
        return urljoin(f"{base.rstrip('/')}/{self._uri(self.docname)}", uri)

    def file(self, name: str) -> str:
        """Return the address of a file of the site: '_images/a.svg'."""
        return self.address(relative_uri(self._uri(self.docname), name))

    def of_page(self, docname: str, anchor: str = "") -> str:
        """Return the address of another page, or of a place on it."""
        uri = relative_uri(self._uri(self.docname), self._uri(docname))
        return self.address((uri or Path(self._uri(docname)).name) + (anchor and f"#{anchor}"))

    def named(self, path: str) -> str:
        """Return the page that a path names, as seen from this one; '' if there is none."""
        path = path.removesuffix(".md")
        here = self.docname.rpartition("/")[0]
        docname = path[1:] if path.startswith("/") else normpath(join(here, path))
        return docname if docname in self.env.found_docs else ""

    def resolve(self, domain: str, role: str, target: str, text: str = "") -> tuple[str, str]:
        """Return the address and the text of a reference, ('', '') if it leads nowhere.

        Without a text of its own it gets the one that the site gives it, 'Theorem 3'.
        """
        content = nodes.inline("", text or target)
        node = pending_xref(
            "",
            content,
            refdomain=domain,
            reftype=role,
            reftarget=target,
            refexplicit=bool(text),
            refdoc=self.docname,
        )
        found = self.env.domains[domain].resolve_xref(
            self.env, self.docname, self.builder, role, target, node, content
        )
        if found is None:  # another site may have it
            found = self.env.events.emit_firstresult("missing-reference", self.env, node, content)
        if not isinstance(found, nodes.reference):
            return "", ""
        return self.link_of(found), found.astext()

    def link_of(self, reference: nodes.reference) -> str:
        """Return the address that a resolved reference leads to."""
        uri = f"#{reference['refid']}" if "refid" in reference else reference.get("refuri", "")
        return self.address(uri)

    def _uri(self, docname: str) -> str:
        return self.builder.get_target_uri(docname)
