"""What a corpus, a list of merges, a list of ranks and a vocabulary must satisfy."""

from collections.abc import Iterable, Mapping, Sequence

from llmref.components.bpe._text import compile_pattern, utf8
from llmref.components.bpe.index import Pair


def require_words(words: Mapping[tuple[int, ...], int]) -> None:
    """Raise ValueError for a word that is empty, not made of bytes, or does not occur."""
    for word, weight in words.items():
        if not word:
            raise ValueError("a word must hold at least one byte, got ()")
        if any(not 0 <= symbol < 256 for symbol in word):
            raise ValueError(f"words are made of bytes 0 to 255, got {word}")
        if weight < 1:
            raise ValueError(f"a word must occur at least once, got {weight} times {word}")


def require_vocabulary(
    ids: Sequence[int], size: int, special_tokens: Mapping[str, int], pattern: str | None
) -> None:
    """Raise ValueError for a pattern that does not compile, an empty name, or ids that clash."""
    if pattern is not None:
        compile_pattern(pattern)
        utf8(pattern)  # what cannot be saved is no pattern
    if len(ids) != size:
        raise ValueError(f"ids must number all {size} bytes and merges, got {len(ids)}")
    if any(not isinstance(name, str) or not name for name in special_tokens):
        raise ValueError(f"special tokens are non-empty str, got {list(special_tokens)}")
    used: set[int] = set()
    for token in (*ids, *special_tokens.values()):
        if not isinstance(token, int) or isinstance(token, bool) or token < 0 or token in used:
            raise ValueError(f"ids are distinct integers >= 0, got {token!r} twice or as an id")
        used.add(token)


class NoMergeError(ValueError):
    """A token of a rank file is not the merge of two earlier ones."""


def require_bytes(tokens: Mapping[bytes, int]) -> None:
    """Raise ValueError unless each byte is a token: without it some text has no ids."""
    single = [bytes([byte]) for byte in range(256)]
    if missing := [byte for byte in single if byte not in tokens]:
        raise ValueError(f"all 256 bytes must be tokens, {len(missing)} lack, first {missing[0]!r}")


def check_merges(merges: Iterable[Sequence[int]]) -> list[Pair]:
    """The merges as a list of pairs, if merge k uses earlier ids only and none comes twice.

    Raises: ValueError with the first merge that breaks the rule.
    """
    ranks: dict[Pair, int] = {}
    for k, pair in enumerate(merges):
        ids = isinstance(pair, (tuple, list)) and [
            x for x in pair if isinstance(x, int) and not isinstance(x, bool)
        ]
        if not ids or len(ids) != 2 or len(pair) != 2:
            raise ValueError(f"merge {k} must be a pair of ids, got {pair!r}")
        a, b = ids
        if not (0 <= a < 256 + k and 0 <= b < 256 + k):
            raise ValueError(f"merge {k} must use ids from 0 to {255 + k}, got ({a}, {b})")
        if (a, b) in ranks:
            raise ValueError(f"merge {k} repeats merge {ranks[a, b]}: ({a}, {b})")
        ranks[a, b] = k
    return list(ranks)
