"""How is text cut into pieces before any merge, so that nothing is lost?

Leaves out: normalisation of Unicode (a byte-level tokenizer needs none, and it would lose text).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from llmref.components.bpe._text import compile_pattern, split_special, utf8

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


def count_words(
    corpus: str | Iterable[str], pattern: str | None, special: Sequence[str] = ()
) -> dict[tuple[int, ...], int]:
    """How often each pre-token occurs, as bytes; special tokens are cut out first.

    count_words("aa aa", " ?a+") = {(97, 97): 1, (32, 97, 97): 1}.
    Raises: TypeError unless the corpus is str, or str all through, or if special is one str;
    ValueError as pretokenize.
    """
    if isinstance(special, str):
        raise TypeError(f"special must be a sequence of str, got the str {special!r}")
    if not isinstance(corpus, Iterable):
        raise TypeError(f"corpus must be str or an iterable of str, got {corpus!r}")
    documents = [corpus] if isinstance(corpus, str) else corpus
    pieces: Counter[str] = Counter()
    for document in documents:
        if not isinstance(document, str):
            raise TypeError(f"a corpus holds str, got {type(document).__name__}")
        utf8(document)  # an error that names the place in the document, not in a piece
        for text in split_special(document, special)[::2]:
            pieces.update(pretokenize(text, pattern))
    return {tuple(utf8(piece)): count for piece, count in pieces.items()}
