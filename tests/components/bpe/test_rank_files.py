"""Rank files with tokens that are not the merge of two earlier ones, as Llama 3's."""

import base64
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.components import bpe
from llmref.components.bpe import BPETokenizer

SINGLE = {bytes([i]): i for i in range(256)}
RANKED = st.lists(st.binary(min_size=2, max_size=5).map(lambda b: bytes(97 + x % 3 for x in b)))


def by_definition(data: bytes, tokens: dict[bytes, int]) -> list[int]:
    """The whole piece, or else neighbours of lowest rank, leftmost first."""
    if data in tokens:
        return [tokens[data]]
    parts = [bytes([byte]) for byte in data]
    while True:
        joined = [(tokens.get(x + y), i) for i, (x, y) in enumerate(itertools.pairwise(parts))]
        found = [(rank, i) for rank, i in joined if rank is not None]
        if not found:
            return [tokens[part] for part in parts]
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def written(path: Path, tokens: dict[bytes, int]) -> Path:
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in tokens.items())
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture
def abc(tmp_path: Path) -> BPETokenizer:
    """The 256 bytes and abc, cut at spaces."""
    path = written(tmp_path / "ranks", SINGLE | {b"abc": 256})
    special = {"<s>": 300}
    return BPETokenizer.from_tiktoken(path, pattern=r"\S+|\s+", special_tokens=special)


def test_a_piece_that_is_a_token_is_this_token(abc: BPETokenizer) -> None:
    """Alone abc is 256; in abcd no two neighbours spell a token."""
    assert abc.encode("abc abcd") == [256, 32, *b"abcd"]
    assert abc.encode_bytes(b"abc") == [256]
    assert abc.encode("<s>abc", allowed_special="all") == [300, 256]
    assert abc.encode("<s>") == list(b"<s>")
    assert abc.decode([256, 300, 97]) == "abc<s>a"
    assert abc.token_bytes(256) == b"abc"
    assert abc.vocab_size == 301


def test_a_pair_of_later_tokens_makes_an_earlier_one(tmp_path: Path) -> None:
    """Here abc is 256 and ab 257: ab is merged first, then abc of it."""
    tokens = SINGLE | {b"abc": 256, b"ab": 257}
    ours = BPETokenizer.from_tiktoken(written(tmp_path / "ranks", tokens), pattern=None)
    assert ours.encode("abcd") == [256, ord("d")]
    assert ours.encode("abx") == [257, ord("x")]


def test_pairs_by_hand() -> None:
    tokens = SINGLE | {b"abc": 300, b"bc": 400}
    assert bpe.pairs_from_ranks(tokens) == {(97, 400): 300, (98, 99): 400}
    assert bpe.pairs_from_ranks(SINGLE | {b"": 300}) == {}  # nothing is no part of a token
    with pytest.raises(ValueError, match="all 256 bytes must be tokens, 1 lack, first b'a'"):
        bpe.pairs_from_ranks({token: rank for token, rank in SINGLE.items() if token != b"a"})
    with pytest.raises(ValueError, match=r"b'abc' \(rank 300\) is not the merge of two earlier"):
        bpe.merges_from_ranks(tokens)


@settings(deadline=None, max_examples=60)
@given(RANKED, st.text("abc", min_size=1, max_size=14))
def test_any_ranks_give_the_definition(words: list[bytes], text: str) -> None:
    tokens = SINGLE | {word: 256 + k for k, word in enumerate(dict.fromkeys(words))}
    data = text.encode()
    merged = bpe.merge_by_rank(data, bpe.pairs_from_ranks(tokens), range(256 + len(tokens)))
    assert ([tokens[data]] if data in tokens else merged) == by_definition(data, tokens)


def test_such_a_file_is_saved_as_ranks_alone(abc: BPETokenizer, tmp_path: Path) -> None:
    abc.save_tiktoken(tmp_path / "again")
    again = BPETokenizer.from_tiktoken(tmp_path / "again", pattern=abc.pattern)
    assert again.encode("abc abcd") == abc.encode("abc abcd")
    with pytest.raises(ValueError, match="save cannot express .* save_tiktoken can"):
        abc.save(tmp_path / "json")
    assert not (tmp_path / "json").exists()
    with pytest.raises(ValueError, match="a vocabulary from a file is not trained"):
        abc.train("a corpus", 300)
    assert abc.encode("abc") == [256]


def test_wrong_input_is_refused_as_ever(abc: BPETokenizer, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="encode_bytes needs bytes, got str"):
        abc.encode_bytes("a")  # type: ignore[arg-type]
    path = written(tmp_path / "ranks", SINGLE | {b"abc": 256})
    with pytest.raises(ValueError, match="ids are distinct integers >= 0, got 97 twice"):
        BPETokenizer.from_tiktoken(path, pattern=None, special_tokens={"<s>": 97})
    with pytest.raises(ValueError, match="not a regular expression"):
        BPETokenizer.from_tiktoken(path, pattern="(")
