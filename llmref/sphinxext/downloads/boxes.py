"""Results, proofs and questions in words: what a box shows on the site stands in bold."""

from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.downloads.parsing import ends_with_text, starts_with_text


def result(page: Page, id_: str, title: str, statement: str) -> str:
    """'**[Theorem 3](its permanent link) (its title).** Its statement.'"""
    found = page.results.results.get(id_)
    if found is None:  # the site has warned
        return f"**{title}.**\n\n{statement}"
    name = f"[{found.name}]({page.of_page(found.docname, id_)})"
    return _joined(page, f"**{name} ({title}).**", statement)


def proof(page: Page, body: str) -> str:
    """'*Proof.* Its text. ∎'"""
    end = " ∎" if ends_with_text(page.parser.parse(body)) else "\n\n∎"
    return _joined(page, "*Proof.*", body) + end


def question(title: str, options: dict[str, str]) -> str:
    """'**Question (level 1, explain).** Why is k3 non-negative?'"""
    level = f"level {options['level']}" if options.get("level") else ""
    said = ", ".join(filter(None, [level, str(options.get("kind", ""))]))
    return f"**Question{f' ({said})' if said else ''}.** {title}"


def _joined(page: Page, mark: str, text: str) -> str:
    """A mark in front of a text, on its first line if that is one of words."""
    separator = " " if starts_with_text(page.parser.parse(text)) else "\n\n"
    return f"{mark}{separator}{text}"
