"""How to cite one result: its link, and entries in BibTeX, Markdown and plain text.

Authors, title, version and year come from CITATION.cff, the rest from the result itself. A result
has two links: one that always leads to its latest statement, and one to the release that was read.
"""

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import latexcodec  # noqa: F401 (registers the codec)
import yaml

# What is no text in LaTeX, or what the codec does not know.
_TEX = {
    **{sign: f"\\{sign}" for sign in "#$%&_"},
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "{": "\\textbraceleft{}",
    "}": "\\textbraceright{}",
    "‖": "$\\Vert$",
}


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


def release_link(base: str, version: str, page: str, since: str) -> str:
    """Return where the release keeps a page for ever; '' if it has no such result, or no address.

    ('https://example.org/', '0.2.0', 'rl/kl.html#kl-k3', since '0.1.0') ->
    'https://example.org/v0.2.0/rl/kl.html#kl-k3'
    """
    if not base or _number(since) > _number(version):
        return ""
    return f"{base.rstrip('/')}/v{version}/{page}"


def _number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def citations(
    work: Work, id_: str, name: str, title: str, url: str, release: str = ""
) -> dict[str, str]:
    """Return the ways to cite a result, by name; each is meant to be copied whole.

    `title` may hold formulas between dollar signs; `release` is the link to the release, if any.
    """
    authors = ", ".join(work.authors)
    pinned = {f"Link to version {work.version}": release} if release else {}
    return {
        "Link": url,
        **pinned,
        "BibTeX": (
            f"@misc{{llmref-{id_},\n"
            f"  author = {{{' and '.join(f'{{{as_tex(author)}}}' for author in work.authors)}}},\n"
            f"  title = {{{{{as_tex(title)} (result {id_})}}}},\n"
            f"  howpublished = {{{as_tex(work.title)}, version {work.version}}},\n"
            f"  year = {{{work.year}}},\n"
            f"  url = {{{url}}},\n"
            + (f"  note = {{Permanent copy: \\url{{{release}}}}},\n" if release else "")
            + "}"
        ),
        "Markdown": f"[{title}]({url}) (llmref, `{id_}`)",
        "Plain text": (
            f"{authors}: {name.split()[0]} '{title.replace('$', '')}' ({id_}). "
            f"llmref, version {work.version}, {work.year}. {url}"
        ),
    }


def as_tex(text: str) -> str:
    r"""Return a text for LaTeX, in ASCII; what stands between dollar signs is TeX already.

    'Δ² of 50 % in $x^2$' -> '$\Delta$$^2$ of 50 \% in $x^2$'
    Raises: ValueError for a character that has no name in LaTeX.
    """
    parts = text.split("$")
    if len(parts) % 2 == 0:
        raise ValueError(f"a stray dollar sign in {text!r}")
    for index, part in enumerate(parts):
        if index % 2:
            inside = "".join(c if c.isascii() else _named(c).replace("$", "") for c in part)
            parts[index] = f"${inside}$"
        else:
            parts[index] = "".join(c if c.isalnum() and c.isascii() else _named(c) for c in part)
    return "".join(parts)


def _named(character: str) -> str:
    r"""'é' -> "\'e", 'ø' -> '{\o}': a name that ends in a letter must not run into the next."""
    if (tex := _TEX.get(character)) is not None:
        return tex
    if character.isascii():
        return character
    try:
        name = str(codecs.encode(character, "ulatex+ascii")).strip()
    except UnicodeEncodeError as error:
        raise ValueError(f"{character!r} has no name in LaTeX: write it as a formula") from error
    return f"{{{name}}}" if name[0] == "\\" and name[-1].isalpha() else name
