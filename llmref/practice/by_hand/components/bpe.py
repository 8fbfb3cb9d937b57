"""Byte-pair encoding without a pattern: learning the merges of a text, encoding and decoding."""

from collections import Counter
from itertools import pairwise


def replace(ids, pair, new):
    out = []
    for token in ids:
        if out and (out[-1], token) == pair:
            out[-1] = new  # from left to right: a a a becomes new a
        else:
            out.append(token)
    return out


def bpe_train(text, num_merges):
    ids, merges = list(text.encode("utf-8")), []
    while len(merges) < num_merges and len(ids) > 1:
        counts = Counter(pairwise(ids))  # a a a holds a a twice
        pair = max(counts, key=counts.get)  # a tie goes to the pair seen first
        ids = replace(ids, pair, 256 + len(merges))
        merges.append(pair)
    return merges


def bpe_encode(text, merges):
    ids = list(text.encode("utf-8"))
    for k, pair in enumerate(merges):  # in the order in which they were learned
        ids = replace(ids, tuple(pair), 256 + k)
    return ids


def bpe_decode(ids, merges):
    spelled = [bytes([i]) for i in range(256)]
    for a, b in merges:
        spelled.append(spelled[a] + spelled[b])  # merge k makes the token 256 + k
    return b"".join(spelled[i] for i in ids).decode("utf-8", errors="replace")
