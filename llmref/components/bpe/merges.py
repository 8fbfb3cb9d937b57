"""How are merges learned, and how are they applied?

Words are tuples of ids: a byte is 0 to 255, and merge k makes id 256 + k. Leaves out: text (see
words), whole vocabularies (see tokenizer).
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from llmref._require import require_choice, require_int, require_size
from llmref.components.bpe._merges import NoMergeError, require_bytes, require_words
from llmref.components.bpe.index import Pair, PairIndex

Method = Literal["naive", "incremental"]
Progress = Callable[[int, int], None]


def count_pairs(words: Mapping[tuple[int, ...], int]) -> dict[Pair, int]:
    """How often each pair of neighbours occurs inside the words.

    count_pairs({(1, 1, 1): 2, (1, 2): 5}) = {(1, 1): 4, (1, 2): 5}: overlaps count.
    Source: Sennrich, Haddow & Birch 2015, arXiv:1508.07909, Algorithm 1.
    """
    counts: dict[Pair, int] = {}
    for word, weight in words.items():
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + weight  # eq. eq-bpe-count
    return counts


def merge_pair(seq: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace the pair from left to right; occurrences that overlap a replaced one stay.

    merge_pair((1, 1, 1, 1, 1), (1, 1), 9) = [9, 9, 1].
    """
    out: list[int] = []
    i = 0
    while i < len(seq):
        if tuple(seq[i : i + 2]) == tuple(pair):
            out.append(new_id)
            i += 2
        else:
            out.append(seq[i])
            i += 1
    return out


def learn_merges(
    words: Mapping[tuple[int, ...], int],
    num_merges: int,
    *,
    min_count: int = 1,
    method: Method = "incremental",
    progress: Progress | None = None,
) -> list[Pair]:
    """Merge the most frequent pair, again and again; among equals the smallest pair of ids.

    learn_merges({(97, 97, 97, 97): 1}, 2) = [(97, 97), (256, 256)].
    Stops early when no pair occurs min_count times. progress(done, wanted) is called after each
    merge; what it raises ends the training.
    Source: Sennrich, Haddow & Birch 2015, arXiv:1508.07909, Algorithm 1; the index after Larsson &
    Moffat 1999.
    Differs: bytes in place of characters, no end-of-word sign; the paper leaves ties open.
    Raises: ValueError for an empty word, an id that is no byte, a weight or min_count < 1,
    num_merges < 0, or an unknown method; TypeError unless the two numbers are ints.
    """
    require_words(words)
    require_size(0, num_merges=num_merges)
    require_size(1, min_count=min_count)
    require_choice(Method, method=method)
    corpus = PairIndex(words) if method == "incremental" else RecountedWords(words)
    merges: list[Pair] = []
    while len(merges) < num_merges and (found := corpus.best()):
        pair, count = found
        if count < min_count:
            break
        corpus.merge(pair, 256 + len(merges))
        merges.append(pair)
        if progress:
            progress(len(merges), num_merges)
    return merges


class RecountedWords:
    """The definition of training: every step counts all pairs again."""

    def __init__(self, words: Mapping[tuple[int, ...], int]) -> None:
        self.words = dict(words)

    def best(self) -> tuple[Pair, int] | None:
        """The pair to merge next and its count; None when no two neighbours are left."""
        counts = count_pairs(self.words)
        if not counts:
            return None
        pair = min(counts, key=lambda pair: (-counts[pair], pair))  # eq. eq-bpe-argmax
        return pair, counts[pair]

    def merge(self, pair: Pair, new_id: int) -> None:
        """Replace the pair in every word."""
        require_int(new_id=new_id)
        self.words = {
            tuple(merge_pair(word, pair, new_id)): weight for word, weight in self.words.items()
        }


def apply_merges(symbols: Iterable[int], merges: Iterable[Pair]) -> list[int]:
    """Encoding by definition: all merges, one after the other, each over the whole sequence.

    apply_merges(b"aaaa", [(97, 97), (256, 256)]) = [257].
    Source: Sennrich, Haddow & Birch 2015, arXiv:1508.07909.
    """
    out = list(symbols)
    for k, pair in enumerate(merges):
        out = merge_pair(out, pair, 256 + k)  # eq. eq-bpe-encode
    return out


def merge_by_rank(
    symbols: Iterable[int], ranks: Mapping[Pair, int], made: Sequence[int] | None = None
) -> list[int]:
    """Encoding as it is done: the leftmost pair of lowest rank first, from a heap.

    The same ids as apply_merges, in O(n log n) for n symbols whatever the number of merges.
    Rank k makes the id 256 + k, or made[k]: in published files several pairs may make one token.
    """
    tokens = list(symbols)
    size = len(tokens)
    before, after = list(range(-1, size - 1)), list(range(1, size + 1))
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, i = heapq.heappop(heap)
        j = after[i]
        # An entry is stale if a neighbour was merged after it was pushed.
        if j == size or ranks.get((tokens[i], tokens[j])) != rank:
            continue
        tokens[i], tokens[j] = 256 + rank if made is None else made[rank], -1
        after[i] = after[j]
        if after[i] < size:
            before[after[i]] = i
            if (right := ranks.get((tokens[i], tokens[after[i]]))) is not None:
                heapq.heappush(heap, (right, i))
        if before[i] >= 0 and (left := ranks.get((tokens[before[i]], tokens[i]))) is not None:
            heapq.heappush(heap, (left, before[i]))
    return [token for token in tokens if token >= 0]


def merges_from_ranks(tokens: Mapping[bytes, int]) -> tuple[list[Pair], list[int]]:
    """The merge that made each token, and the ids: first the bytes, then the tokens by rank.

    Encoding a token with the merges before its own must leave two parts: they are its pair.
    Source: the pairwise rule of tiktoken, solved for the pair.
    Differs: tiktoken looks up a whole piece first, so its files may hold tokens that no merge
    makes, and Llama 3's does: see pairs_from_ranks.
    Raises: ValueError if a byte is missing, or a token is not the merge of two earlier ones.
    """
    require_bytes(tokens)
    single = [bytes([byte]) for byte in range(256)]
    longer = sorted((token for token in tokens if len(token) > 1), key=tokens.__getitem__)
    ranks: dict[Pair, int] = {}
    for token in longer:
        parts = merge_by_rank(token, ranks)  # eq. eq-bpe-recover
        if len(parts) != 2:
            raise NoMergeError(
                f"token {token!r} (rank {tokens[token]}) is not the merge of two earlier tokens, "
                f"but {len(parts)} of them: no list of merges gives these ranks"
            )
        ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks), [tokens[token] for token in (*single, *longer)]


def pairs_from_ranks(tokens: Mapping[bytes, int]) -> dict[Pair, int]:
    """All pairs of tokens whose joined bytes are a token, by ids, with the id that they make.

    The id is the rank, and `merge_by_rank(data, pairs, made)` with made[k] = k is tiktoken's rule
    for a piece that is no token itself, whether or not the tokens are merges of earlier ones.
    Source: tiktoken 0.14, byte_pair_merge.
    Raises: ValueError if a byte is missing.
    """
    require_bytes(tokens)
    pairs: dict[Pair, int] = {}
    for token, rank in tokens.items():
        for cut in range(1, len(token)):
            left, right = tokens.get(token[:cut]), tokens.get(token[cut:])
            if left is not None and right is not None:
                pairs[left, right] = rank  # eq. eq-bpe-joined
    return pairs
