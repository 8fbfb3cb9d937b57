"""What each role of MyST becomes: a link to the site, or what Markdown itself has for it."""

import re
from collections.abc import Callable

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.ext.intersphinx import (
    resolve_reference_detect_inventory,
    resolve_reference_in_inventory,
)
from sphinx.util.nodes import split_explicit_title

from llmref.sphinxext.downloads.citing import cite
from llmref.sphinxext.downloads.page import Page

_PYTHON = ("attr", "class", "const", "data", "exc", "func", "meth", "mod", "obj")
# Role -> domain and type of the reference.
_REFERENCES = {
    "doc": ("std", "doc"),
    "eq": ("math", "eq"),
    "numref": ("std", "numref"),
    "prf:ref": ("prf", "ref"),
    "ref": ("std", "ref"),
    "term": ("std", "term"),
    **{f"py:{kind}": ("py", kind) for kind in _PYTHON},
}
# Intersphinx: external:py:func, or external+python:py:func for one site.
_EXTERNAL = re.compile(r"external(?:\+(?P<site>[^:]+))?:(?:(?P<domain>\w+):)?(?P<role>\w+)")
_PLAIN: dict[str, Callable[[str], str]] = {
    "code": lambda text: f"`{text}`",
    "kbd": lambda text: f"`{text}`",
    "math": lambda text: f"${text}$",
    "sub": lambda text: f"<sub>{text}</sub>",
    "sup": lambda text: f"<sup>{text}</sup>",
}


def as_text(page: Page, name: str, content: str, line: int) -> str:
    """Return a role as Markdown; one that is not known is a warning."""
    if name in _REFERENCES:
        return _reference(page, *_REFERENCES[name], content)
    if name.startswith("footcite:"):
        return cite(page, name.partition(":")[2], content)
    if external := _EXTERNAL.fullmatch(name):
        return _elsewhere(
            page, external["site"], external["domain"] or "std", external["role"], content
        )
    if name in _PLAIN:
        return _PLAIN[name](content)
    page.warn(line, "the downloads know no role %s", name)
    return f"`{content}`"


def _reference(page: Page, domain: str, role: str, content: str) -> str:
    """A link; where the site has found no target it has warned, and the text stays."""
    explicit, text, target = split_explicit_title(content)
    if domain == "py":
        text = text if explicit else f"{target.rpartition('.')[2] if target[0] == '~' else target}"
        text, target = f"`{text}`", target.lstrip("~.")
    elif domain == "std" and role != "doc":
        target = target.lower()
    address, shown = page.resolve(domain, role, target, text if explicit else "")
    text = text if explicit or domain == "py" else shown or f"`{target}`"
    return f"[{text}]({address})" if address else text


def _elsewhere(page: Page, site: str | None, domain: str, role: str, content: str) -> str:
    """A link to another site, as intersphinx finds it."""
    explicit, text, target = split_explicit_title(content)
    shown = nodes.inline("", text)
    node = pending_xref(
        "", shown, refdomain=domain, reftype=role, reftarget=target, refexplicit=explicit
    )
    found = (
        resolve_reference_in_inventory(page.env, site, node, shown)
        if site
        else resolve_reference_detect_inventory(page.env, node, shown)
    )
    text = found.astext() if found is not None else text
    text = text if explicit or domain != "py" else f"`{text}`"
    return f"[{text}]({found['refuri']})" if found is not None else text
