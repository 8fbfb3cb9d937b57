"""How is text cut into pieces before any merge, so that nothing is lost?

Leaves out: normalisation of Unicode (a byte-level tokenizer needs none, and it would lose text).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import regex  # the standard library's re has neither \p{L} nor Unicode's own \s

# Contractions, letters, numbers, other signs, each with at most one space before it; whitespace
# without its last character where a word follows, and what is left of it.
GPT2_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)
# Contractions in any case, any one sign before letters, numbers of at most three digits, line
# breaks with the signs or the whitespace before them.
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)


def pretokenize(text: str, pattern: str | None = GPT2_PATTERN) -> list[str]:
    """Pieces of the text, in order, that concatenate to it; no merge crosses a cut.

    pretokenize("it's 12 o'clock") = ["it", "'s", " 12", " o", "'", "clock"].
    Shapes: a string of n characters -> at most n pieces; pattern None -> the text as one piece
    Source: Radford et al. 2019 (GPT-2), section 2.2.
    Differs: the form that tiktoken 0.14 uses; it cuts as the published pattern does.
    Raises: TypeError unless text is str; ValueError if the pattern does not compile or leaves a
    character out.
    """
    if not isinstance(text, str):
        raise TypeError(f"pretokenize needs str, got {type(text).__name__}")
    if pattern is None:
        return [text] if text else []
    pieces, end = [], 0
    for match in compile_pattern(pattern).finditer(text):
        if match.start() != end:
            break
        if match.end() > end:
            pieces.append(match.group())
        end = match.end()
    if end != len(text):  # eq. eq-bpe-partition
        raise ValueError(f"the pattern leaves out {text[end : end + 10]!r} at character {end}")
    return pieces


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled (`regex` keeps the most recent ones).

    Raises: ValueError if it is not a regular expression.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"not a regular expression: {pattern!r} ({error})") from None


def split_special(text: str, special: Iterable[str]) -> list[str]:
    """Ordinary text at even places, special tokens at odd places; the longest one wins.

    split_special("a<b>c", ["<b>"]) = ["a", "<b>", "c"].
    """
    names = sorted(special, key=lambda name: (-len(name), name))
    if not names:
        return [text]
    parts: list[str] = regex.split("(" + "|".join(map(regex.escape, names)) + ")", text)
    return parts


def utf8(text: str) -> bytes:
    """The bytes of the text.

    Raises: ValueError for a lone surrogate: half of a pair is not a character and has no bytes.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got the lone surrogate U+{ord(text[error.start]):04X} "
            f"at character {error.start}; for arbitrary bytes use encode_bytes"
        ) from None


def count_words(
    corpus: str | Iterable[str], pattern: str | None, special: Sequence[str] = ()
) -> dict[tuple[int, ...], int]:
    """How often each pre-token occurs, as bytes; special tokens are cut out first.

    count_words("aa aa", " ?a+") = {(97, 97): 1, (32, 97, 97): 1}.
    Raises: TypeError unless the corpus is str, or str all through; ValueError as pretokenize.
    """
    documents = [corpus] if isinstance(corpus, str) else corpus
    pieces: Counter[str] = Counter()
    for document in documents:
        if not isinstance(document, str):
            raise TypeError(f"a corpus holds str, got {type(document).__name__}")
        utf8(document)  # an error that names the place in the document, not in a piece
        for text in split_special(document, special)[::2]:
            pieces.update(pretokenize(text, pattern))
    return {tuple(utf8(piece)): count for piece, count in pieces.items()}
