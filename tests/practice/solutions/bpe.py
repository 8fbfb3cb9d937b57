"""Right solutions on byte-pair encoding, each written in another way than the code by hand."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pair = tuple[int, int]


def merged(ids: list[int], pair: Pair, new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def train_loops(text: str, num_merges: int) -> list[Pair]:
    ids = [int(it) for it in text.encode("utf-8")]
    merges: list[Pair] = []
    for step in range(num_merges):
        counts: dict[Pair, int] = {}
        for a, b in pairwise(ids):
            counts[a, b] = counts.get((a, b), 0) + 1
        if not counts:
            break
        best, most = None, 0
        for pair, count in counts.items():
            if count > most:
                best, most = pair, count
        assert best is not None
        ids = merged(ids, best, 256 + step)
        merges.append(best)
    return merges


def train_characters(text: str, num_merges: int) -> list[list[int]]:
    """On a string, with a private character for each id."""
    data = text.encode("utf-8").decode("latin-1")
    merges: list[list[int]] = []
    while len(data) > 1 and len(merges) < num_merges:
        pairs = [data[i : i + 2] for i in range(len(data) - 1)]
        best = max(dict.fromkeys(pairs), key=pairs.count)
        data = data.replace(best, chr(256 + len(merges)))
        merges.append([ord(it) for it in best])
    return merges


def train_numpy(text: str, num_merges: int) -> tuple[Any, ...]:
    ids, merges = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64), []
    for step in range(num_merges):
        if len(ids) < 2:
            break
        codes = ids[:-1] * 10_000 + ids[1:]
        values, first, counts = np.unique(codes, return_index=True, return_counts=True)
        best = values[np.lexsort((first, -counts))[0]]
        pair = (best // 10_000, best % 10_000)
        ids = np.array(merged(list(ids), pair, 256 + step))
        merges.append(pair)
    return tuple(merges)


def encode_by_rank(text: str, merges: list[Pair]) -> list[int]:
    ids, ranks = list(text.encode("utf-8")), {tuple(pair): k for k, pair in enumerate(merges)}
    while len(ids) > 1:
        best = min(pairwise(ids), key=lambda it: ranks.get(it, 10**9))
        if best not in ranks:
            break
        ids = merged(ids, best, 256 + ranks[best])
    return ids


def encode_leftmost(text: str, merges: list[Pair]) -> Tensor:
    ids = list(text.encode("utf-8"))
    while True:
        found = [(merges.index(pair), i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        if not found:
            return torch.tensor(ids, dtype=torch.long)
        rank, i = min(found)
        ids[i : i + 2] = [256 + rank]


def encode_characters(text: str, merges: list[Pair]) -> tuple[int, ...]:
    data = text.encode("utf-8").decode("latin-1")
    for k, (a, b) in enumerate(merges):
        data = data.replace(chr(a) + chr(b), chr(256 + k))
    return tuple(map(ord, data))


SOLUTIONS = {
    "bpe_train": [train_loops, train_characters, train_numpy],
    "bpe_encode": [encode_by_rank, encode_leftmost, encode_characters],
}
