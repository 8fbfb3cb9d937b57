"""Byte-pair encoding: hand-worked merges, definitions against fast forms, laws, files, errors."""

import base64
import contextlib
import heapq
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.components import bpe
from llmref.components.bpe import BPETokenizer, _files, _text
from llmref.components.bpe._merges import check_merges

FEW = settings(deadline=None, max_examples=40)
TEXT = (
    "the cat sat on the mat, the other cat didn't; 1234 cats and 12 mats\n"
    "über-naïve café é中😀 \\d+ (re.sub) <|endoftext|> $ aaaaaaaa  \n\n  tab\there "
) * 3
WORDS = st.dictionaries(
    st.lists(st.integers(97, 100), min_size=1, max_size=12).map(tuple),
    st.integers(1, 6),
    min_size=1,
    max_size=8,
)


def lists_of_merges(draw: random.Random, size: int, letters: str = "ab") -> list[tuple[int, int]]:
    """Any well-formed list: no corpus has to give it."""
    ids = [ord(letter) for letter in letters]
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < size:
        pair = (draw.choice(ids), draw.choice(ids))
        if pair not in pairs:
            pairs[pair] = None
            ids.append(255 + len(pairs))
    return list(pairs)


def lowest_rank_everywhere(symbols: bytes, merges: list[tuple[int, int]]) -> list[int]:
    """Again and again, all occurrences of the lowest-rank pair that is present."""
    out = list(symbols)
    while True:
        present = [(merges.index(p), p) for p in itertools.pairwise(out) if p in merges]
        if not present:
            return out
        rank, pair = min(present)
        out = bpe.merge_pair(out, pair, 256 + rank)


@pytest.fixture(scope="module")
def trained() -> BPETokenizer:
    return BPETokenizer().train(TEXT, 320, special_tokens=["<|endoftext|>", "<|end|>"])


# Training


def test_training_by_hand() -> None:
    """Sennrich's corpus: low 5, lower 2, newest 6, widest 3.

    es, st: 9 each; e < s, so es (256). Then (256, t) 9. lo 7 and ow 7: l < o, so lo. Then low: 7.
    """
    words = {
        tuple(w.encode()): c for w, c in (("low", 5), ("lower", 2), ("newest", 6), ("widest", 3))
    }
    e, s, t, lo, o, w = b"estlow"
    assert bpe.count_pairs(words)[e, s] == bpe.count_pairs(words)[s, t] == 9
    for method in ("naive", "incremental"):
        merges = bpe.learn_merges(words, 4, method=method)
        assert merges == [(e, s), (256, t), (lo, o), (258, w)]


def test_all_bytes_may_be_in_a_word() -> None:
    assert bpe.learn_merges({(0, 255): 2}, 1) == [(0, 255)]


def test_a_run_of_64_halves_six_times() -> None:
    words = {(97,) * 64: 1}
    expected = [(97, 97), (256, 256), (257, 257), (258, 258), (259, 259), (260, 260)]
    for method in ("naive", "incremental"):
        assert bpe.learn_merges(words, 99, method=method) == expected


def test_overlaps_are_counted_but_not_replaced() -> None:
    """a^5 has four pairs and room for two replacements."""
    assert bpe.count_pairs({(1,) * 5: 3}) == {(1, 1): 12}
    assert bpe.merge_pair((1,) * 5, (1, 1), 9) == [9, 9, 1]
    assert bpe.merge_pair((), (1, 1), 9) == []


def test_ties_go_to_the_smallest_pair_of_ids() -> None:
    words = {(99, 100): 2, (97, 98): 2, (97, 97): 1}
    for method in ("naive", "incremental"):
        assert bpe.learn_merges(words, 1, method=method) == [(97, 98)]


@FEW
@given(WORDS, st.integers(0, 30), st.integers(1, 3))
def test_incremental_training_is_naive_training(words, size, min_count) -> None:
    naive, fast = (
        bpe.learn_merges(words, size, min_count=min_count, method=method)
        for method in ("naive", "incremental")
    )
    assert fast == naive


@FEW
@given(WORDS)
def test_the_index_stays_exact_and_its_places_sorted(words) -> None:
    index, slow = bpe.PairIndex(words), dict(words)
    for new in range(256, 270):
        found = index.best()
        counts = bpe.count_pairs(slow)
        assert {pair: n for pair, n in index.counts.items() if n} == counts
        assert all(places == sorted(set(places)) for places in index.places.values())
        if found is None:
            assert not counts
            break
        index.merge(found[0], new)
        slow = {tuple(bpe.merge_pair(word, found[0], new)): n for word, n in slow.items()}


def test_incremental_training_changes_at_most_four_counts_a_replacement() -> None:
    draw = random.Random(0)
    words = {tuple(draw.choices(b"abcd", k=draw.randrange(1, 30))): 1 for _ in range(40)}
    symbols = sum(map(len, words))
    index = bpe.PairIndex(words)
    changed, step = 0, 0
    while found := index.best():
        before = dict(index.counts)
        index.merge(found[0], 256 + step)
        step += 1
        changed += sum(index.counts.get(pair, 0) != n for pair, n in before.items())
    assert changed <= 4 * (symbols - 1)
    assert index.pushes <= 5 * symbols


def test_a_place_has_neighbours_in_its_word_alone() -> None:
    """Places 0 to 2 are one word, 3 is another, 4 and 5 a third."""
    index = bpe.PairIndex({(97, 98, 99): 1, (97,): 1, (98, 97): 2})
    assert index.before == [-1, 0, 1, -1, -1, 4]
    assert index.after == [1, 2, -1, -1, 5, -1]


def test_pushes_counts_every_entry_that_comes_into_the_heap(monkeypatch) -> None:
    came: list[str] = []

    def counted(name: str, real: Callable[[list, tuple], Any]) -> Callable[[list, tuple], Any]:
        def call(heap: list, entry: tuple) -> Any:
            came.append(name)
            return real(heap, entry)

        return call

    for name in ("heappush", "heapreplace"):
        monkeypatch.setattr(heapq, name, counted(name, getattr(heapq, name)))
    index = bpe.PairIndex({tuple(b"abcabcdab"): 2, tuple(b"bcdbcabd"): 3})
    first, new = len(index.heap), 256
    while found := index.best():
        index.merge(found[0], new)
        new += 1
    assert set(came) == {"heappush", "heapreplace"}
    assert index.pushes == first + len(came)


@FEW
@given(WORDS, st.randoms(use_true_random=False))
def test_the_order_of_the_words_does_not_matter(words, draw) -> None:
    items = list(words.items())
    draw.shuffle(items)
    assert bpe.learn_merges(dict(items), 20) == bpe.learn_merges(words, 20)


def test_training_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from llmref.components.bpe import BPETokenizer;"
        f"print(BPETokenizer().train({TEXT!r}, 290).merges)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


def test_no_pair_crosses_a_pre_token_or_a_document() -> None:
    tokenizer = BPETokenizer()
    with pytest.warns(UserWarning, match="only 0 of 4 merges: no other pair occurs 2 times") as w:
        tokenizer.train(["a", "b"] * 9, 260)
    assert w[0].filename == __file__  # the line that trains
    with pytest.warns(UserWarning, match="only 2 of 4 merges"):
        tokenizer.train("x y x y x y", 260)  # ' y' comes 3 times, ' x' 2 times
    assert tokenizer.merges == [(32, 121), (32, 120)]


def test_special_tokens_are_never_learnt(trained: BPETokenizer) -> None:
    bodies = [trained.token_bytes(i) for i in range(256, 256 + len(trained.merges))]
    assert not any(b"endo" in body or b"<|" in body for body in bodies)
    assert trained.special_tokens == {"<|endoftext|>": 318, "<|end|>": 319}
    assert trained.vocab_size == 320


def test_progress_is_called_after_each_merge_and_may_stop_the_training(trained) -> None:
    seen: list[tuple[int, int]] = []
    bpe.learn_merges({(97,) * 9: 2}, 3, progress=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    merges = list(trained.merges)

    def stop(done: int, wanted: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.train("another corpus, another corpus", 270, progress=stop)
    assert trained.merges == merges


# Encoding


@FEW
@given(st.randoms(use_true_random=False), st.text("abc", max_size=25))
def test_the_three_ways_to_encode_agree_for_any_well_formed_list(draw, text) -> None:
    merges = lists_of_merges(draw, draw.randrange(1, 15), "abc")
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    data = text.encode()
    by_order = bpe.apply_merges(data, merges)
    assert bpe.merge_by_rank(data, ranks) == by_order
    assert lowest_rank_everywhere(data, merges) == by_order


@FEW
@given(WORDS, st.integers(1, 25))
def test_training_words_encode_to_their_segmentation_and_tokens_to_themselves(words, size) -> None:
    merges = bpe.learn_merges(words, size)
    corpus = bpe.PairIndex(words)
    for k, pair in enumerate(merges):
        corpus.merge(pair, 256 + k)
    tokenizer = BPETokenizer(merges, pattern=None)
    encoded = [id_ for word in words for id_ in tokenizer.encode_bytes(bytes(word))]
    assert encoded == [symbol for symbol in corpus.symbols if symbol >= 0]
    for token in range(256 + len(merges)):
        assert tokenizer.encode_bytes(tokenizer.token_bytes(token)) == [token]


def test_encoding_is_neither_longest_match_nor_shortest() -> None:
    """ab, bc, (bc)d on abcd: ab comes first, so (ab)cd; a(bcd) would be two tokens."""
    a, b, c, d = b"abcd"
    assert BPETokenizer([(a, b), (b, c), (257, d)]).encode("abcd") == [256, c, d]
    assert BPETokenizer([(b, c), (a, b)]).encode("abc") == [a, 256]


def test_the_cut_of_the_text_changes_the_ids() -> None:
    tokenizer = BPETokenizer([(97, 98)])
    assert tokenizer.encode("ab") == [256]
    assert tokenizer.encode("a") + tokenizer.encode("b") == [97, 98]


def test_a_long_piece_is_encoded_in_seconds() -> None:
    """A quadratic encoder would need minutes for one pre-token of 200 000 letters."""
    merges = [(97, 97), (256, 256), (257, 257)]
    assert BPETokenizer(merges).encode("a" * 200_000) == [258] * 25_000


# Round trips


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_every_text_comes_back(text) -> None:
    for pattern in (bpe.GPT2_PATTERN, bpe.GPT4_PATTERN, None):
        tokenizer = BPETokenizer([(195, 169), (32, 97), (240, 159)], pattern=pattern)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, errors="strict") == text
        assert tokenizer.decode_bytes(ids) == text.encode()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_come_back_valid_utf8_or_not(data) -> None:
    tokenizer = BPETokenizer([(255, 254), (0, 0), (256, 0)])
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_all_byte_strings_of_length_two_come_back(trained: BPETokenizer) -> None:
    for pair in itertools.product(range(256), repeat=2):
        assert trained.decode_bytes(trained.encode_bytes(bytes(pair))) == bytes(pair)


def test_every_character_of_unicode_comes_back(trained: BPETokenizer) -> None:
    scalars = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    assert trained.decode(trained.encode(scalars), errors="strict") == scalars


def test_bytes_are_joined_before_they_are_read() -> None:
    tokenizer = BPETokenizer()
    ids = tokenizer.encode("é中😀")
    assert len(ids) == 9
    assert tokenizer.decode(ids) == "é中😀"
    assert "".join(tokenizer.decode([i]) for i in ids) == "\ufffd" * 9


def test_half_a_character_is_replaced_or_refused() -> None:
    assert BPETokenizer().decode([195]) == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        BPETokenizer().decode([195], errors="strict")


# Pre-tokenisation


def test_gpt2_pieces_by_hand() -> None:
    assert bpe.pretokenize("it's 12 o'clock,  sir!\n\n ok  ") == [
        *("it", "'s", " 12", " o", "'", "clock", ",", " ", " sir", "!", "\n\n", " ok", "  ")
    ]


def test_gpt4_pieces_by_hand() -> None:
    assert bpe.pretokenize("IT'S 12345 (ok)...\n\n x  \n", bpe.GPT4_PATTERN) == [
        *("IT", "'S", " ", "123", "45", " (", "ok", ")...\n\n", " x", "  \n")
    ]


def test_the_gpt2_pattern_cuts_as_published() -> None:
    published = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    draw = random.Random(1)
    for _ in range(3000):
        text = "".join(draw.choices("ab'sl e\n\t 1²é中\u3000\u00a0\x1c.😀", k=draw.randrange(20)))
        assert bpe.pretokenize(text) == bpe.pretokenize(text, published)


@FEW
@given(st.text(max_size=50))
def test_pieces_concatenate_to_the_text(text) -> None:
    for pattern in (bpe.GPT2_PATTERN, bpe.GPT4_PATTERN):
        assert "".join(bpe.pretokenize(text, pattern)) == text


def test_without_a_pattern_the_text_is_one_piece() -> None:
    assert bpe.pretokenize("a b", None) == ["a b"]
    assert bpe.pretokenize("", None) == bpe.pretokenize("") == []


def test_a_pattern_with_groups_or_empty_matches_still_cuts_the_text() -> None:
    assert bpe.pretokenize("aab", "(a)(a)|b?") == ["aa", "b"]


def test_a_pattern_that_leaves_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match="the pattern leaves out '1a' at character 2"):
        bpe.pretokenize("aa1a", "a+")
    with pytest.raises(ValueError, match="the pattern leaves out '11' at character 2"):
        bpe.pretokenize("aa11", "a+")


def test_words_are_counted_over_documents() -> None:
    assert bpe.count_words(iter(["aa aa", "aa"]), bpe.GPT2_PATTERN) == {
        (97, 97): 2,
        (32, 97, 97): 1,
    }


# Special tokens


def test_special_tokens_are_text_unless_allowed(trained: BPETokenizer) -> None:
    text = "hi<|endoftext|>you<|end|>"
    plain = trained.encode(text)
    assert not set(plain) & {318, 319}
    assert trained.decode(plain) == text
    marked = trained.encode(text, allowed_special="all")
    assert marked == [*trained.encode("hi"), 318, *trained.encode("you"), 319]
    assert trained.decode(marked) == text
    some = trained.encode(text, allowed_special={"<|end|>"})
    assert 319 in some
    assert 318 not in some


def test_the_longest_special_token_wins() -> None:
    tokenizer = BPETokenizer(special_tokens={"<s>": 256, "<s><s>": 257, "a.c": 258})
    assert tokenizer.encode("<s><s><s>abc", allowed_special="all") == [257, 256, *b"abc"]


def test_the_leftmost_special_token_wins_before_a_longer_one() -> None:
    """In abcd, ab begins before bcd; abc begins with ab and is longer."""
    tokenizer = BPETokenizer(special_tokens={"ab": 256, "bcd": 257})
    assert tokenizer.encode("abcd", allowed_special="all") == [256, *b"cd"]
    assert _text.split_special("abcd", ["ab", "bcd", "abc"]) == ["", "abc", "d"]


def test_no_merge_crosses_a_special_token() -> None:
    tokenizer = BPETokenizer([(97, 98)], special_tokens={"|": 300})
    assert tokenizer.encode("a|b", allowed_special="all") == [97, 300, 98]
    assert tokenizer.vocab_size == 301


# Files


def test_saving_and_loading_gives_the_same_tokenizer(trained: BPETokenizer, tmp_path: Path) -> None:
    spaced = BPETokenizer().train("a b  c  \u2028 <|x|>" * 9, 264, special_tokens=["<| ü|>"])
    permuted = BPETokenizer([(97, 98)], pattern=None, ids=[*reversed(range(256)), 400])
    for i, tokenizer in enumerate((trained, BPETokenizer(), spaced, permuted)):
        path = tmp_path / f"{i}.json"
        tokenizer.save(path)
        again = BPETokenizer.load(path)
        for name in ("merges", "pattern", "special_tokens", "ids", "vocab_size"):
            assert getattr(again, name) == getattr(tokenizer, name)
        assert again.encode(TEXT, allowed_special="all") == tokenizer.encode(
            TEXT, allowed_special="all"
        )
        first = path.read_bytes()
        again.save(path)
        assert path.read_bytes() == first


def test_equal_tokenizers_have_equal_files_that_can_be_read(tmp_path: Path) -> None:
    for name, special in (("a", {"<é>": 256, "<a>": 257}), ("b", {"<a>": 257, "<é>": 256})):
        BPETokenizer(special_tokens=special).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "<é>" in (tmp_path / "a").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_new_file_may_be_read_by_all_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for mode in (0o644, 0o641, 0o600):
        if path.exists():
            path.chmod(mode)
        BPETokenizer().save(path)
        assert path.stat().st_mode & 0o777 == mode


def test_every_damaged_byte_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    special = {"<x>": 258}
    BPETokenizer([(97, 98), (256, 99)], special_tokens=special).save(path)
    whole = path.read_bytes()
    whole_content = BPETokenizer.load(path)._content()
    for cut in range(len(whole) - 1):  # the last byte is the line break
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"t\.json"):
            BPETokenizer.load(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        loaded = None
        with contextlib.suppress(ValueError):
            loaded = BPETokenizer.load(path)
        # What loads is another way to write the same.
        assert loaded is None or loaded._content() == whole_content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format must be 'llmref-bpe', got 'other'"),
        ({"version": 2}, "this reads version 1, got 2"),
        ({"merges": None}, "field 'merges' is missing or of the wrong type, got NoneType"),
        ({"merges": [[97, 256]]}, r"merge 0 must use ids from 0 to 255, got \(97, 256\)"),
        ({"merges": [[97, 98], [97, 98]]}, r"merge 1 repeats merge 0: \(97, 98\)"),
        ({"merges": [[97, 98, 99]]}, "merge 0 must be a pair of ids"),
        ({"merges": ["ab"]}, "merge 0 must be a pair of ids, got 'ab'"),
        ({"pattern": "("}, "not a regular expression"),
        ({"special_tokens": {"<x>": 97}}, "ids are distinct integers >= 0, got 97"),
        ({"special_tokens": {"<x>": "97"}}, "ids are distinct integers >= 0, got '97'"),
        ({"ids": [1, 2]}, "ids must number all 257 bytes and merges, got 2"),
        ({"merges": [[97, 99]]}, "is damaged: its content does not have the checksum"),
    ],
)
def test_a_foreign_or_changed_file_is_refused(change, message, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    BPETokenizer([(97, 98)]).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as error:
        BPETokenizer.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[1, 2]", b"#version: 0.2\na b\n", b"[" * 10**5]
)
def test_a_file_of_another_kind_is_refused(data, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.json is not a tokenizer"):
        BPETokenizer.load(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "t.json"
    BPETokenizer([(97, 98)]).save(path)

    def interrupt(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_files.os, "replace", interrupt)
    with pytest.raises(OSError, match="disk full"):
        BPETokenizer().save(path)
    assert BPETokenizer.load(path).merges == [(97, 98)]
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_rank_file_gives_back_the_merges(trained: BPETokenizer, tmp_path: Path) -> None:
    path = tmp_path / "t.tiktoken"
    trained.save_tiktoken(path)
    again = BPETokenizer.from_tiktoken(
        path, pattern=trained.pattern, special_tokens=trained.special_tokens
    )
    assert again.merges == trained.merges
    assert again.encode(TEXT) == trained.encode(TEXT)


def test_a_rank_file_may_number_bytes_in_any_order_and_leave_gaps(tmp_path: Path) -> None:
    path = tmp_path / "t.tiktoken"
    tokenizer = BPETokenizer([(97, 98), (256, 99)], ids=[*range(255, -1, -1), 300, 407])
    tokenizer.save_tiktoken(path)
    again = BPETokenizer.from_tiktoken(path, pattern=None)
    assert again.encode("zabcab") == [255 - ord("z"), 407, 300]
    assert again.vocab_size == 408
    assert again.decode(again.encode("zabcab")) == "zabcab"


def test_a_rank_file_refuses_what_it_cannot_express(tmp_path: Path) -> None:
    a, b = b"ab"
    path = tmp_path / "t.tiktoken"
    with pytest.raises(ValueError, match=r"cannot express token 258, b'bba': its bytes encode to"):
        BPETokenizer([(b, b), (b, a), (b, 257)]).save_tiktoken(path)
    with pytest.raises(ValueError, match="cannot express ids that do not rise with the merges"):
        BPETokenizer([(a, a), (b, b)], ids=[*range(256), 300, 299]).save_tiktoken(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"YQ== x"], "line 257: no base-64 token and rank"),
        ([b"YQ==", b"YWI= 256"], "line 257: no base-64 token and rank"),
        ([b"Y*WI= 256"], "line 257: no base-64 token and rank"),
        ([b"YWI= -1"], "line 257: no base-64 token and rank"),
        ([b"YWI= 256", b"YWI= 257"], "line 258: repeats a token or a rank"),
        ([b"YWI= 97"], "line 257: repeats a token or a rank"),
    ],
)
def test_a_damaged_rank_file_is_refused(lines, message, tmp_path: Path) -> None:
    path = tmp_path / "t.tiktoken"
    single = [base64.b64encode(bytes([i])) + b" %d" % i for i in range(256)]
    path.write_bytes(b"\n".join([*single, *lines]))
    with pytest.raises(ValueError, match=message) as error:
        BPETokenizer.from_tiktoken(path, pattern=None)
    assert str(error.value).count("t.tiktoken") == 1


def test_a_rank_file_without_all_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.tiktoken"
    path.write_bytes(b"YQ== 0\n\nYg== 1\n")
    with pytest.raises(ValueError, match=r"all 256 bytes must be tokens, 254 lack, first b'\\x00'"):
        BPETokenizer.from_tiktoken(path, pattern=None)


# Errors


def test_wrong_input_is_refused(trained: BPETokenizer) -> None:
    with pytest.raises(ValueError, match=r"got the lone surrogate U\+D800 at character 1"):
        trained.encode("a\ud800")
    with pytest.raises(ValueError, match=r"got the lone surrogate U\+DC00 at character 0"):
        BPETokenizer().train("\udc00", 256)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPETokenizer(special_tokens={"\ud800": 256})
    with pytest.raises(TypeError, match="encode needs str, got bytes; see encode_bytes"):
        trained.encode(b"a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="encode_bytes needs bytes, got str"):
        trained.encode_bytes("a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pretokenize needs str, got bytes"):
        bpe.pretokenize(b"a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no token has the id 320; vocab_size is 320"):
        trained.decode([97, 320])
    with pytest.raises(ValueError, match="no token has the id -1"):
        trained.decode_bytes([-1])
    with pytest.raises(TypeError, match="integer"):
        trained.token_bytes(97.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="errors must be 'strict' or 'replace', got 'ignore'"):
        trained.decode([97], errors="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed_special: 'all', 'none' or a set, got 'some'"):
        trained.encode("a", allowed_special="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"allowed_special names no special token: \['<x>'\]"):
        trained.encode("a", allowed_special={"<x>"})


def test_wrong_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"merge 1 must use ids from 0 to 256, got \(257, 97\)"):
        BPETokenizer([(97, 98), (257, 97)])
    with pytest.raises(ValueError, match="merge 0 must use ids from 0 to 255"):
        check_merges([(-1, 97)])
    with pytest.raises(ValueError, match="merge 0 must be a pair of ids"):
        check_merges([(True, 97)])
    with pytest.raises(ValueError, match="ids are distinct integers >= 0, got 256"):
        BPETokenizer([(97, 98)], special_tokens={"<x>": 256})
    with pytest.raises(ValueError, match="special tokens are non-empty str"):
        BPETokenizer(special_tokens={"": 256})
    with pytest.raises(ValueError, match="not a regular expression"):
        BPETokenizer(pattern="[")


def test_wrong_training_is_refused() -> None:
    tokenizer = BPETokenizer()
    with pytest.raises(ValueError, match="must hold 256 bytes and 1 special tokens, got 256"):
        tokenizer.train("a", 256, special_tokens=["<x>"])
    with pytest.raises(ValueError, match="special_tokens must be distinct"):
        tokenizer.train("a", 300, special_tokens=["<x>", "<x>"])
    with pytest.raises(ValueError, match="special_tokens must be distinct, got 'abc'"):
        tokenizer.train("a", 300, special_tokens="abc")
    with pytest.raises(TypeError, match="a corpus holds str, got bytes"):
        tokenizer.train([b"a"], 300)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a corpus holds str, got int"):
        tokenizer.train(b"a", 300)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="words are made of bytes 0 to 255"):
        bpe.learn_merges({(256, 1): 1}, 1)
    with pytest.raises(ValueError, match="a word must occur at least once, got 0 times"):
        bpe.learn_merges({(1, 1): 0}, 1)
    with pytest.raises(ValueError, match=r"a word must hold at least one byte, got \(\)"):
        bpe.learn_merges({(): 1, (97, 97): 1}, 1)
    with pytest.raises(TypeError, match="special must be a sequence of str, got the str '<s>'"):
        bpe.count_words("a<s>bs", None, "<s>")
    with pytest.raises(ValueError, match=r"pair must occur in the words, got \(3, 4\)"):
        bpe.PairIndex({(1, 2): 1}).merge((3, 4), 256)
    with pytest.raises(ValueError, match="num_merges must be at least 0, got -1"):
        bpe.learn_merges({(1, 1): 1}, -1)
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        bpe.learn_merges({(1, 1): 1}, 1, min_count=0)
    with pytest.raises(
        ValueError, match=r"method must be one of \['naive', 'incremental'\], got 'fast'"
    ):
        bpe.learn_merges({(1, 1): 1}, 1, method="fast")  # type: ignore[arg-type]


def test_splitting_keeps_every_character() -> None:
    names = ["<a>", "<a><b>", "("]
    draw = random.Random(2)
    for _ in range(300):
        text = "".join(draw.choices([*names, "<", "x", ")"], k=8))
        parts = _text.split_special(text, names)
        assert "".join(parts) == text
        assert set(parts[1::2]) <= set(names)
        assert Counter(part in names for part in parts[::2])[True] == 0
