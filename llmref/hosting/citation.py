"""How to cite one result: its link, and entries in BibTeX, Markdown and plain text.

Authors, title, version and year come from CITATION.cff, the rest from the result itself.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Work:
    """What a result is cited as a part of."""

    title: str
    authors: tuple[str, ...]
    version: str
    released: str

    @property
    def year(self) -> str:
        """Of the release."""
        return self.released[:4]


@lru_cache(maxsize=8)
def read_work(path: Path) -> Work:
    """Read a CITATION.cff."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    authors = (
        author.get("name") or f"{author['given-names']} {author['family-names']}"
        for author in data["authors"]
    )
    return Work(
        title=data["title"],
        authors=tuple(authors),
        version=str(data["version"]),
        released=str(data["date-released"]),
    )


def citations(work: Work, id_: str, name: str, title: str, url: str) -> dict[str, str]:
    """Return the ways to cite a result, by name; each is meant to be copied whole.

    `title` may hold formulas between dollar signs, which BibTeX and Markdown understand.
    """
    statement = f"{title} (result {id_})"
    authors = ", ".join(work.authors)
    return {
        "Link": url,
        "BibTeX": (
            f"@misc{{llmref-{id_},\n"
            f"  author = {{{' and '.join(f'{{{author}}}' for author in work.authors)}}},\n"
            f"  title = {{{{{statement}}}}},\n"
            f"  howpublished = {{{work.title}, version {work.version}}},\n"
            f"  year = {{{work.year}}},\n"
            f"  url = {{{url}}},\n"
            "}"
        ),
        "Markdown": f"[{title}]({url}) (llmref, `{id_}`)",
        "Plain text": (
            f"{authors}: {name.split()[0]} '{title.replace('$', '')}' ({id_}). "
            f"llmref, version {work.version}, {work.year}. {url}"
        ),
    }
