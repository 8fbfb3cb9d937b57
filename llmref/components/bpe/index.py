"""How can training cost O(N log N) for a corpus of N symbols, whatever the number of merges?

Leaves out: sorting pairs by count in buckets, which saves the logarithm.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

from llmref._require import require_int

Pair = tuple[int, int]


class PairIndex:
    """The words of a corpus as one linked list, with counts and places of all pairs.

    A merge visits only the places of its pair. `counts` is exact; the heap is lazy: an entry may be
    too high, and is put right when it comes to the top.
    Source: Larsson & Moffat 1999 (Re-Pair), with a heap in place of buckets.
    """

    def __init__(self, words: Mapping[tuple[int, ...], int]) -> None:
        self.symbols: list[int] = []
        # The neighbours of each place in its word; -1 where there is none.
        self.before: list[int] = []
        self.after: list[int] = []
        self.weight: list[int] = []
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        # Places only ever come in from left to right, so that the lists are sorted as they stand:
        # all places of a pair come in the step that makes the newer of its two tokens.
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)
        for word, weight in words.items():
            if weight != weight:
                raise ValueError(f"words must map to how often they occur, got {weight}")
            start, end = len(self.symbols), len(self.symbols) + len(word)
            self.symbols += word
            self.weight += [weight] * len(word)
            self.before += [-1, *range(start, end)][: len(word)]
            self.after += [*range(start + 1, end), -1][: len(word)]
            for place, pair in enumerate(pairwise(word), start):
                self.counts[pair] += weight
                self.places[pair].append(place)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        self.pushes = len(self.heap)
        heapq.heapify(self.heap)

    def best(self) -> tuple[Pair, int] | None:
        """The pair to merge next and its count; None when no two neighbours are left."""
        while self.heap:
            negative, pair = self.heap[0]
            count = self.counts.get(pair, 0)
            if count == -negative:  # eq. eq-bpe-argmax: exact, and no entry is too low
                return pair, count
            if count:
                self.pushes += 1
                heapq.heapreplace(self.heap, (-count, pair))
            else:
                heapq.heappop(self.heap)
        return None

    def merge(self, pair: Pair, new_id: int) -> None:
        """Replace the pair at its places, from left to right, and count its neighbours anew.

        Raises: ValueError if the pair never occurred, or was merged before.
        """
        require_int(new_id=new_id)
        if pair not in self.places:
            raise ValueError(f"pair must occur in the words, got {pair}")
        a, b = pair
        symbols, before, after, weight = self.symbols, self.before, self.after, self.weight
        counts, places = self.counts, self.places
        fresh: set[Pair] = set()
        for i in places.pop(pair):
            j = after[i]
            if symbols[i] != a or j < 0 or symbols[j] != b:
                continue  # an earlier merge took one of the two
            left, right = before[i], after[j]
            if left >= 0:
                counts[symbols[left], a] -= weight[i]
                made = (symbols[left], new_id)
                counts[made] += weight[i]
                places[made].append(left)
                fresh.add(made)
            if right >= 0:
                counts[b, symbols[right]] -= weight[i]
                made = (new_id, symbols[right])
                counts[made] += weight[i]
                places[made].append(i)
                fresh.add(made)
                before[right] = i
            symbols[i], symbols[j], after[i] = new_id, -1, right
        del counts[pair]
        for made in fresh:
            if counts[made]:
                self.pushes += 1
                heapq.heappush(self.heap, (-counts[made], made))
