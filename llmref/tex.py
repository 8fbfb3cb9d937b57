"""What two pieces of TeX have in common: their tokens, without spaces and layout.

Used to read an equation (verify.statement) and to find it again in a page. Imports nothing heavy.
"""

import re
from collections.abc import Collection, Sequence

# One token each: an environment's edges, words, and letters in a given alphabet.
_TOKEN = re.compile(
    r"\\(?:begin|end)\{[a-z*]+\}"
    r"|\\text(?:rm|bf)?\{[^{}]*\}"
    r"|\\(?:operatorname\*?|mathbb|mathbf|mathrm|mathcal|boldsymbol)\s*(?:\{[^{}]*\}|[A-Za-z0-9]|\\[a-z]+)"
    r"|\\[A-Za-z]+|\\.|\S",
    re.DOTALL,
)
_ALPHABET = re.compile(r"(\\[a-z]+\*?)\s*\{?([^{}]*)\}?", re.DOTALL)
_LAYOUT = re.compile(r"\\(?:[,;:! ]|left|right|[bB]igg?[lr]?|(?:display|text)style)|[&~]")
_GAP = re.compile(r"\\\\\[[^\]]*\]")  # a line break with its height
_SAME = {r"\tfrac": r"\frac", r"\dfrac": r"\frac"}
LINE_BREAK = r"\\"
_SEPARATORS = frozenset((",", ".", ";", ":", r"\quad", r"\qquad", r"\implies", r"\iff"))
_INDENTS = (r"\quad", r"\qquad")  # at the beginning of a line
_OPERATORS = frozenset(
    ("+", "-", "/", "^", "_", "!", r"\cdot", r"\times", r"\odot", r"\pm", r"\mp", r"\circ", r"\ast")
)
_OPENING = frozenset(("(", "[", "{", r"\{", r"\lfloor", r"\lceil", r"\langle"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\rfloor", r"\rceil", r"\rangle"))
_RELATIONS = frozenset(("=", "<", ">", r"\le", r"\ge", r"\leq", r"\geq", r"\approx", r"\to"))


def tokens(text: str, *, aligned: bool = False) -> list[str]:
    r"""Split TeX into tokens: `\tfrac12 x_{i}` gives \frac 1 2 x _ i.

    `aligned` keeps each &, which tells a case from its condition.
    """
    found = []
    for token in _TOKEN.findall(_GAP.sub(r"\\\\", text)):
        if _LAYOUT.fullmatch(token) and not (aligned and token == "&"):
            continue
        if token.startswith((r"\operatorname", r"\math", r"\boldsymbol")):
            token = _ALPHABET.sub(lambda m: f"{m[1]}{{{m[2].strip()}}}", token)
        found.append(_SAME.get(token, token))
    return _without_single_braces(found)


def shows(text: str, equation: str) -> bool:
    """Whether `equation` stands in `text` as a whole: between separators, relations or ends.

    A line ends an equation unless the next one goes on with it: with an operator, or without a
    relation of its own.
    """
    return found_in(*without_layout(text), without_layout(equation)[0]) is not None


def without_layout(text: str) -> tuple[list[str], set[int]]:
    """The tokens of `text` without line breaks, and before which of them a line begins."""
    present: list[str] = []
    breaks = {0}
    for token in tokens(text):
        if token == LINE_BREAK or token.startswith((r"\begin{", r"\end{")):
            breaks.add(len(present))
        elif token not in _INDENTS or len(present) not in breaks:
            present.append(token)
    return present, breaks


def found_in(present: Sequence[str], breaks: Collection[int], wanted: Sequence[str]) -> int | None:
    """Where an equation begins that stands there as a whole, or None."""
    depths = _depths(present)
    if any(_depths(wanted)[-1:]) or min(_depths(wanted), default=0) < 0:
        return None
    edges = _SEPARATORS | _RELATIONS

    def is_edge(place: int) -> bool:
        return present[place] in edges or present[place].startswith(r"\text")

    def begins(start: int) -> bool:
        if start == 0:
            return True
        if start in breaks:
            return present[start - 1] not in _OPERATORS
        return is_edge(start - 1)

    def ends(end: int) -> bool:
        if end == len(present) or is_edge(end):
            return True
        if end not in breaks or present[end] in _OPERATORS:
            return False
        following = min((place for place in breaks if place > end), default=len(present))
        return any(present[place] in _RELATIONS for place in range(end, following))

    places = (
        start
        for start in range(len(present) - len(wanted) + 1)
        if list(present[start : start + len(wanted)]) == list(wanted)
        and not depths[start]
        and begins(start)
        and ends(start + len(wanted))
    )
    return next(places, None)


def _depths(found: Sequence[str]) -> list[int]:
    """How many brackets are open before each token, and at the end."""
    depths = [0]
    for token in found:
        depths.append(depths[-1] + (token in _OPENING) - (token in _CLOSING))
    return depths


def _without_single_braces(found: list[str]) -> list[str]:
    """Drop the braces of `_{i}` and `^{2}`, which are the same as `_i` and `^2`."""
    kept: list[str] = []
    index = 0
    while index < len(found):
        kept.append(found[index])
        index += 1
        single = found[index : index + 1] == ["{"] and found[index + 2 : index + 3] == ["}"]
        if kept[-1] in "_^" and single:
            kept.append(found[index + 1])
            index += 3
    return kept
