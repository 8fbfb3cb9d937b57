"""Exercises on byte-pair encoding."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake

_Pair = tuple[int, int]


def _texts() -> list[tuple[Any, ...]]:
    return [
        ("", 1),
        ("a", 1),
        ("ab", 2),
        ("aaa", 2),
        ("abba", 1),
        ("babab", 2),
        ("ab ab", 2),
        ("bcaaaabc", 1),
        ("aaaab", 3),
        ("abcbcab", 3),
        ("é, é!", 2),
        ("cabbage bag", 4),
        ("low lower lowest", 5),
        ("aaabdaaabacaaaa", 6),
        ("ein Beispiel, zwei Beispiele", 9),
    ]


def _merges() -> list[tuple[Any, ...]]:
    words = [(108, 111), (256, 119), (257, 101), (32, 258), (259, 115), (260, 116)]
    return [
        ("", [(97, 98)]),
        ("ab", [(97, 98)]),
        ("aaa", [(97, 97)]),
        ("abc", [(98, 99), (97, 98)]),
        ("abc", [(97, 98), (98, 99)]),
        ("abcd", [(98, 99), (97, 98), (256, 100)]),
        ("baab", [(97, 97), (98, 256), (257, 98)]),
        ("abcab", [(97, 98), (256, 99)]),
        ("é, é!", [(195, 169), (256, 44)]),
        ("aaaaaaa", [(97, 97), (256, 256), (257, 256)]),
        ("low lower lowest", words),
        ("abcdbcda", [(99, 100), (98, 99), (97, 98), (98, 256), (258, 256)]),
    ]


def _replaced(ids: list[int], pair: _Pair, new: int) -> list[int]:
    place, out = 0, []
    while place < len(ids):
        fits = tuple(ids[place : place + 2]) == pair
        out.append(new if fits else ids[place])
        place += 2 if fits else 1
    return out


def _steps(function: Function, text: str, num_merges: int) -> Iterator[tuple[list[_Pair], _Pair]]:
    """All pairs of neighbours before each merge, and the pair that was merged."""
    ids = list(text.encode("utf-8"))
    for number, (left, right) in enumerate(function(text, num_merges)):
        pair = int(left), int(right)
        yield list(pairwise(ids)), pair
        ids = _replaced(ids, pair, 256 + number)


def _rare(function: Function, text: str, num_merges: int) -> bool:
    return any(
        pairs.count(pair) < max(map(pairs.count, pairs), default=1)
        for pairs, pair in _steps(function, text, num_merges)
    )


def _later_of_ties(function: Function, text: str, num_merges: int) -> bool:
    return any(
        pair != max(pairs, key=pairs.count, default=None)
        for pairs, pair in _steps(function, text, num_merges)
    )


def _grows(function: Function, text: str, num_merges: int) -> bool:
    counts = [pairs.count(pair) for pairs, pair in _steps(function, text, num_merges)]
    return any(later > earlier for earlier, later in pairwise(counts))


def _unknown(function: Function, text: str, num_merges: int) -> bool:
    merges = [(int(left), int(right)) for left, right in function(text, num_merges)]
    return any(max(pair) >= 256 + k for k, pair in enumerate(merges)) or len(set(merges)) < len(
        merges
    )


def _spelled(index: int, merges: list[_Pair]) -> bytes:
    if index < 256:
        return bytes([index])
    return b"".join(_spelled(it, merges) for it in merges[index - 256])


def _lossy(function: Function, text: str, merges: list[_Pair]) -> bool:
    ids = [int(it) for it in function(text, merges)]
    known = all(0 <= it < 256 + len(merges) for it in ids)
    return not known or b"".join(_spelled(it, merges) for it in ids) != text.encode("utf-8")


def _left_over(function: Function, text: str, merges: list[_Pair]) -> bool:
    return any(pair in merges for pair in pairwise(int(it) for it in function(text, merges)))


def _from_the_right(function: Function, text: str, merges: list[_Pair]) -> bool:
    return [int(it) for it in function("aaaaa", [(97, 97)])] != [256, 256, 97]


def _out_of_order(function: Function, text: str, merges: list[_Pair]) -> bool:
    return [int(it) for it in function("abc", [(98, 99), (97, 98)])] != [97, 256]


_PAIR = "max(counts, key=counts.get)"
_REPLACE = "replace(ids, pair, 256 + len(merges))"
_SPELL = "spell = lambda i: bytes([i]) if i < 256 else b''.join(map(spell, merges[i - 256]))\n"
_ENCODE = "replace(ids, tuple(pair), 256 + k)"
_LOOP = (
    "    for k, pair in enumerate(merges):  # in the order in which they were learned\n"
    f"        ids = {_ENCODE}\n"
    "    return ids"
)

BPE_TRAIN = Exercise(
    name="bpe_train",
    topic="components/bpe",
    level=2,
    task="Learn num_merges merges from the UTF-8 bytes of a text, not cut into words, and "
    "return the list of merged pairs of ids: each step takes the most frequent pair of "
    "neighbours (overlaps count), of equally frequent ones the one seen first, and replaces "
    "it from left to right by 256, 257, ...; stop early when one token is left.",
    inputs=_texts,
    definition="bpe-training",
    laws=(
        Law("No pair is more frequent than the one that is merged.", "bpe-training", _rare),
        Law(
            "Of equally frequent pairs the one that is seen first is merged.",
            "bpe-training",
            _later_of_ties,
        ),
        Law(
            "A merged pair is no more frequent than the one before it was.",
            "bpe-count-monotone",
            _grows,
        ),
        Law(
            "Merge k holds ids below 256 + k, counted from 0, and no pair is merged twice.",
            "bpe-encode-equivalence",
            _unknown,
        ),
    ),
    mistakes=(
        Mistake(
            "the rarest pair",
            "The most frequent pair saves the most tokens.",
            ((_PAIR, "min(counts, key=counts.get)"),),
        ),
        Mistake(
            "ties to the pair seen last",
            "A loop with >= in place of > keeps the last of equally frequent pairs.",
            ((_PAIR, "max(reversed(counts), key=counts.get)"),),
        ),
        Mistake(
            "pairs counted side by side",
            "Each place begins a pair, not every second one.",
            (("pairwise(ids)", "zip(ids[::2], ids[1::2])"),),
        ),
        Mistake(
            "overlaps counted once",
            "That is how many tokens a merge saves; here a a a holds the pair a a twice.",
            (
                (
                    "Counter(pairwise(ids))",
                    "Counter({it: replace(ids, it, -1).count(-1) for it in pairwise(ids)})",
                ),
            ),
        ),
        Mistake(
            "cut at spaces, which are dropped",
            "Many tokenizers cut a text into words first; here it is one piece, spaces included.",
            (
                (
                    "counts = Counter(pairwise(ids))",
                    "counts = Counter(it for it in pairwise(ids) if 32 not in it)\n"
                    "        if not counts:\n"
                    "            break",
                ),
            ),
        ),
        Mistake(
            "cut before each space",
            "GPT-2 cuts so, and each word begins with its space; here the text is one piece.",
            (
                (
                    "counts = Counter(pairwise(ids))",
                    f"{_SPELL}        found = pairwise(ids)\n"
                    "        counts = Counter(it for it in found if spell(it[1])[:1] != b' ')\n"
                    "        if not counts:\n"
                    "            break",
                ),
            ),
        ),
        Mistake(
            "ties to the largest ids",
            "max of (count, pair) compares the ids next; here the pair that is seen first wins.",
            ((_PAIR, "max(counts, key=lambda p: (counts[p], p))"),),
        ),
        Mistake(
            "runs replaced from the right",
            "Of a a a the first two are replaced.",
            ((_REPLACE, "replace(ids[::-1], pair[::-1], 256 + len(merges))[::-1]"),),
        ),
        Mistake(
            "only the first occurrence replaced",
            "All occurrences become the new token, from left to right.",
            (
                (
                    _REPLACE,
                    "[256 + len(merges) if i == list(pairwise(ids)).index(pair) else x "
                    "for i, x in enumerate(ids) if i != list(pairwise(ids)).index(pair) + 1]",
                ),
            ),
        ),
        Mistake(
            "pairs counted once, at the start",
            "After each merge there are new neighbours, and fewer of the old ones.",
            (
                (
                    "counts = Counter(pairwise(ids))",
                    "found = pairwise(text.encode())\n"
                    "        counts = Counter(it for it in found if it not in merges)\n"
                    "        if not counts:\n"
                    "            break",
                ),
            ),
        ),
        Mistake(
            "new ids from 257 on",
            "The bytes have the ids 0 to 255, so the first new one is 256.",
            ((_REPLACE, "replace(ids, pair, 257 + len(merges))"),),
        ),
        Mistake(
            "characters, not bytes",
            "A character beyond ASCII has several bytes in UTF-8.",
            (('list(text.encode("utf-8"))', "list(map(ord, text))"),),
        ),
    ),
    conventions=(
        Convention(
            "ties to the smallest ids",
            "Tokenizers by Hugging Face and this library's trainer do so. To match, take the "
            "pair that is seen first.",
            ((_PAIR, "max(counts, key=lambda p: (counts[p], -p[0], -p[1]))"),),
        ),
        Convention(
            "a dictionary from pair to new id",
            "minbpe returns it. To match, return the list of its keys.",
            (("return merges", "return {pair: 256 + k for k, pair in enumerate(merges)}"),),
        ),
        Convention(
            "pairs of bytes",
            "The file merges.txt of GPT-2 spells them so. To match, return the pairs of ids.",
            (
                (
                    "    return merges",
                    f"    {_SPELL}    return [(spell(a), spell(b)) for a, b in merges]",
                ),
            ),
        ),
        Convention(
            "pairs of bytes, ties to the greater pair",
            "The course CS336 asks for it. To match, take the pair that is seen first and "
            "return ids.",
            (
                (
                    "    return merges",
                    f"    {_SPELL}    return [(spell(a), spell(b)) for a, b in merges]",
                ),
                (
                    f"pair = {_PAIR}",
                    f"{_SPELL}        pair = max(counts, key=lambda p: "
                    "(counts[p], spell(p[0]), spell(p[1])))",
                ),
            ),
        ),
        Convention(
            "no merge of a pair that occurs once",
            "subword-nmt stops there. To match, go on as long as there are two tokens.",
            (
                (
                    _PAIR,
                    f"{_PAIR}\n        if counts[pair] < 2:\n            break",
                ),
            ),
        ),
    ),
    hints=(
        "The state is one list of ids; the result grows by one pair at each step.",
        "Count neighbours anew after each replacement.",
        "A dictionary remembers the order in which pairs were seen.",
    ),
    branches={
        "one token left": lambda text, num: (
            len(text.encode()) > 1 and len(set(text)) < 3 and num > 1
        ),
        "a run": lambda text, num: "aaa" in text,
        "several bytes in a character": lambda text, num: not text.isascii(),
        "no pair at all": lambda text, num: len(text) < 2,
    },
)

BPE_ENCODE = Exercise(
    name="bpe_encode",
    topic="components/bpe",
    level=2,
    task="Turn a text, as one piece, into a list of ids: begin with its UTF-8 bytes, and apply "
    "the merges, a list of pairs of ids in the order in which they were learned; merge k, "
    "counted from 0, makes the id 256 + k.",
    inputs=_merges,
    definition="bpe-encode-equivalence",
    laws=(
        Law("Decoded, the ids give the text.", "bpe-roundtrip", _lossy),
        Law("No pair of the list is left over.", "bpe-encode-equivalence", _left_over),
        Law(
            "The merge that was learned first is done first: with bc before ab, abc is a, bc.",
            "bpe-encode-equivalence",
            _out_of_order,
        ),
        Law(
            "A run is merged from the left: aaaaa is aa, aa, a.",
            "bpe-training",
            _from_the_right,
        ),
    ),
    mistakes=(
        Mistake(
            "merges from the last to the first",
            "A later merge needs the tokens that earlier ones made.",
            (("enumerate(merges)", "reversed(list(enumerate(merges)))"),),
        ),
        Mistake(
            "one pass from the left",
            "Each merge has a pass of its own: later pairs need tokens that earlier passes made.",
            (
                (
                    _LOOP,
                    "    data, ids, pairs = ids, [], list(map(tuple, merges))\n"
                    "    while data:\n"
                    "        fits = tuple(data[:2]) in pairs\n"
                    "        ids.append(256 + pairs.index(tuple(data[:2])) if fits else data[0])\n"
                    "        data = data[2 if fits else 1 :]\n"
                    "    return ids",
                ),
            ),
        ),
        Mistake(
            "the leftmost pair first",
            "The merge that was learned first goes first, wherever its pair stands.",
            (
                (
                    _LOOP,
                    "    i, pairs = 0, list(map(tuple, merges))\n"
                    "    while i < len(ids) - 1:\n"
                    "        pair, i = tuple(ids[i : i + 2]), i + 1\n"
                    "        if pair in pairs:\n"
                    "            ids[i - 1 : i + 1], i = [256 + pairs.index(pair)], 0\n"
                    "    return ids",
                ),
            ),
        ),
        Mistake(
            "ids from 257 on",
            "The bytes have the ids 0 to 255, so the first new one is 256.",
            ((_ENCODE, "replace(ids, tuple(pair), 257 + k)"),),
        ),
        Mistake(
            "ids from 0 on",
            "The ids 0 to 255 are the bytes.",
            ((_ENCODE, "replace(ids, tuple(pair), k)"),),
        ),
        Mistake(
            "runs replaced from the right",
            "Of a a a the first two are replaced.",
            ((_ENCODE, "replace(ids[::-1], tuple(pair)[::-1], 256 + k)[::-1]"),),
        ),
        Mistake(
            "each merge once",
            "A merge replaces all occurrences of its pair.",
            (
                (
                    _ENCODE,
                    "[256 + k if i == [*pairwise(ids), pair].index(pair) and i + 1 < len(ids) "
                    "else x for i, x in enumerate(ids) "
                    "if i != [*pairwise(ids), pair].index(pair) + 1]",
                ),
            ),
        ),
        Mistake(
            "one merge short",
            "The last merge of the list belongs to it.",
            (("enumerate(merges)", "enumerate(merges[:-1])"),),
        ),
        Mistake(
            "the longest token first",
            "The order of training decides, not the length: encoding is no longest match.",
            (
                (
                    _LOOP,
                    "    words = {bytes([i]): i for i in range(256)}\n"
                    "    for k, (a, b) in enumerate(merges):\n"
                    "        both = {i: word for word, i in words.items()}\n"
                    "        words[both[a] + both[b]] = 256 + k\n"
                    "    data, ids = bytes(ids), []\n"
                    "    while data:\n"
                    "        n = max(n for n in range(1, len(data) + 1) if data[:n] in words)\n"
                    "        ids.append(words[data[:n]])\n"
                    "        data = data[n:]\n"
                    "    return ids",
                ),
            ),
        ),
        Mistake(
            "characters, not bytes",
            "A character beyond ASCII has several bytes in UTF-8.",
            (('list(text.encode("utf-8"))', "list(map(ord, text))"),),
        ),
    ),
    hints=(
        "No search is needed: the merges say what to do, and in which order.",
        "One pass from left to right for each merge.",
    ),
    branches={
        "a run": lambda text, merges: "aaa" in text,
        "several bytes in a character": lambda text, merges: not text.isascii(),
        "merges that compete": lambda text, merges: (98, 99) in merges and (97, 98) in merges,
    },
)

EXERCISES = (
    BPE_TRAIN,
    BPE_ENCODE,
)
