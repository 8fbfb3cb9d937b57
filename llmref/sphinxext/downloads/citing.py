"""Works that a page cites: 'Author (year)' in the text, and the list at its end."""

import re
from typing import Any, cast

from pybtex.backends.markdown import Backend
from pybtex.database import Entry
from pybtex.plugin import find_plugin
from pybtex.richtext import Text

from llmref.sphinxext.downloads.page import Page

_MARKUP = re.compile(r"[\\`*_\[\]<]")


class _Markdown(Backend):  # type: ignore[misc]
    """pybtex's Markdown, without a backslash before every full stop and hyphen."""

    def format_str(self, text: str) -> str:
        """Escape what would be markup in a list of works."""
        return _MARKUP.sub(r"\\\g<0>", text)


def cite(page: Page, form: str, content: str) -> str:
    """Return a citation: 't' names the author in the sentence, 'p' stands in parentheses."""
    cited = [_cited(page, key.strip(), form) for key in content.split(",")]
    if form.startswith("t"):
        return " and ".join(filter(None, [", ".join(cited[:-1]), cited[-1]]))
    return f"({'; '.join(cited)})"


def references(page: Page) -> str:
    """Return the list of the works that were cited since the last list."""
    style = find_plugin("pybtex.style.formatting", page.env.config.bibtex_default_style)()
    lines = []
    for key in page.cited:
        text = style.format_entry(label="", entry=_entry(page, key)).text.render(_Markdown())
        lines.append("- " + " ".join(text.split()))
    page.cited.clear()
    return "\n".join(lines)


def _entry(page: Page, key: str) -> Entry | None:
    domain = cast(Any, page.env.domains["cite"])
    return domain.bibdata.data.entries.get(key)


def _cited(page: Page, key: str, form: str) -> str:
    entry = _entry(page, key)
    if entry is None:  # the site has warned
        return f"`{key}`"
    if key not in page.cited:
        page.cited.append(key)
    authors, year = _authors(entry), entry.fields.get("year", "n.d.")
    text = f"{authors} ({year})" if form.startswith("t") else f"{authors}, {year}"
    link = _link(entry)
    return f"[{text}]({link})" if link else text


def _authors(entry: Entry) -> str:
    """'Su', 'Zhang and Sennrich', 'Ainslie et al.'"""
    persons = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [_plain(" ".join([*one.prelast_names, *one.last_names])) for one in persons]
    if len(names) > 2 or names[-1:] == ["others"]:
        return f"{names[0]} et al."
    return " and ".join(names) or _plain(entry.fields.get("title", ""))


def _plain(tex: str) -> str:
    return str(Text.from_latex(tex))


def _link(entry: Entry) -> str:
    if doi := entry.fields.get("doi"):
        return f"https://doi.org/{doi}"
    if eprint := entry.fields.get("eprint"):
        return f"https://arxiv.org/abs/{eprint}"
    return str(entry.fields.get("url", ""))
