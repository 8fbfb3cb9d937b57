"""What a corpus and a list of merges must satisfy."""

from collections.abc import Iterable, Mapping, Sequence

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
