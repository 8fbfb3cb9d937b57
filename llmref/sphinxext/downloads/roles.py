"""What each role of MyST becomes: a link to the site, or what Markdown itself has for it."""

from collections.abc import Callable

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
