"""Byte-pair encoding against tokenizers and tiktoken: merges, ids and pieces, all exact.

Nothing is downloaded: the vocabularies are trained here, on the documentation of the standard
library and on random text.
"""

import base64
import functools
import random
import string
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmref.components import bpe
from llmref.components.bpe import BPETokenizer

TOPIC = "components/bpe"
ALPHABET = "ab cdé中😀\n\t 12²'sS.,!_\u00a0\u3000\x1c\u0085ſ"


def documentation() -> str:
    """About 300 kB of English and code."""
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    root = Path(string.__file__).parent
    files = [root / f"{name}.py" for name in names]
    return "".join(f.read_text("utf-8") for f in files if f.is_file())[:300_000]


@functools.cache
def assigned() -> list[str]:
    """The characters of Python's version of Unicode: of later ones, libraries know some or none."""
    return [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs")]


def random_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    texts = ["".join(draw.choices(ALPHABET, k=draw.randrange(40))) for _ in range(count)]
    return texts + ["".join(draw.choices(assigned(), k=20)) for _ in range(count // 4)]


def flat(lists: list[list[int]]) -> Tensor:
    """All ids, each list after its length, so that no cut can move unseen."""
    return torch.tensor([x for ids in lists for x in (len(ids), *ids)])


def lengths(pieces: list[list[str]]) -> Tensor:
    """Pieces as their lengths in bytes: equal if and only if the cuts are."""
    return flat([[len(piece.encode()) for piece in row] for row in pieces])


def unicode_of_bytes() -> list[str]:
    """The printable stand-in that GPT-2's files use for each byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b if b in printable else 256 + others.index(b)) for b in range(256)]


def hugging_face(tokenizer: BPETokenizer, use_regex: bool = True) -> Any:
    """The same merges and ids in `tokenizers`."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    stand_in = unicode_of_bytes()

    def spell(token: int) -> str:
        return "".join(stand_in[byte] for byte in tokenizer.token_bytes(token))

    size = 256 + len(tokenizer.merges)
    theirs = tokenizers.Tokenizer(
        models.BPE(
            {spell(i): i for i in range(size)}, [(spell(a), spell(b)) for a, b in tokenizer.merges]
        )
    )
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    theirs.decoder = decoders.ByteLevel()
    return theirs


def tiktoken(tokenizer: BPETokenizer, pattern: str) -> Any:
    import tiktoken

    size = 256 + len(tokenizer.merges)
    return tiktoken.Encoding(
        "ours",
        pat_str=pattern,
        mergeable_ranks={tokenizer.token_bytes(i): i for i in range(size)},
        special_tokens=tokenizer.special_tokens,
    )


@pytest.fixture(scope="module")
def text() -> str:
    return documentation()


@pytest.fixture(scope="module")
def gpt2(text: str) -> BPETokenizer:
    return BPETokenizer().train(text, 2000, special_tokens=["<|endoftext|>", "<|end|>"])


@pytest.fixture(scope="module")
def gpt4(text: str) -> BPETokenizer:
    return BPETokenizer(pattern=bpe.GPT4_PATTERN).train(text, 1500)


def test_training_gives_the_merges_of_tokenizers(text: str, agreement: Callable[..., None]) -> None:
    """Its ids of bytes follow the stand-ins of GPT-2, so ties fall in that order."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    stand_in = unicode_of_bytes()
    order = sorted(range(256), key=stand_in.__getitem__)
    place = {byte: i for i, byte in enumerate(order)}
    corpora = [text, *("\n".join(random_texts(60, seed)) for seed in range(10))]
    for corpus in corpora:
        theirs = tokenizers.Tokenizer(models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=700,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        theirs.train_from_iterator([corpus], trainer)
        words = bpe.count_words(corpus, bpe.GPT2_PATTERN)
        permuted = {tuple(place[b] for b in word): n for word, n in words.items()}
        merges = bpe.learn_merges(permuted, 700 - 256, min_count=2)
        # In the order of bytes ties fall differently, and with them later merges.
        unpermuted = bpe.learn_merges(words, 700 - 256, min_count=2)
        number = [*map(place.__getitem__, range(256)), *range(256, 700)]
        assert merges != [(number[a], number[b]) for a, b in unpermuted]
        spelled = [stand_in[byte] for byte in order]
        for a, b in merges:
            spelled.append(spelled[a] + spelled[b])
        vocabulary = theirs.get_vocab()
        assert set(spelled) == set(vocabulary)
        agreement(
            "training",
            "tokenizers",
            torch.arange(len(spelled)),
            torch.tensor([vocabulary[token] for token in spelled]),
            atol=0,
            convention="ids of bytes follow GPT-2's printable stand-ins; ties fall in that order",
        )


def test_ids_are_those_of_tokenizers(
    gpt2: BPETokenizer, text: str, agreement: Callable[..., None]
) -> None:
    theirs = hugging_face(gpt2)
    texts = [text[:100_000], *random_texts(2000)]
    agreement(
        "encode",
        "tokenizers",
        flat([gpt2.encode(t) for t in texts]),
        flat([theirs.encode(t).ids for t in texts]),
        atol=0,
        convention="ByteLevel(add_prefix_space=False)",
    )
    assert [theirs.decode(gpt2.encode(t)) for t in texts] == texts


@pytest.mark.parametrize("name", ["gpt2", "gpt4"])
def test_ids_are_those_of_tiktoken(
    name: str, text: str, request: pytest.FixtureRequest, agreement: Callable[..., None]
) -> None:
    tokenizer = request.getfixturevalue(name)
    theirs = tiktoken(tokenizer, tokenizer.pattern)
    texts = [text[:100_000], *random_texts(2000)]
    ids = [tokenizer.encode(t) for t in texts]
    agreement(
        f"encode, {'GPT-2' if name == 'gpt2' else 'GPT-4'} pattern",
        "tiktoken",
        flat(ids),
        flat([theirs.encode_ordinary(t) for t in texts]),
        atol=0,
        convention="ranks of the bytes of tokens in place of merges",
    )
    assert [theirs.decode(row) for row in ids] == [tokenizer.decode(row) for row in ids] == texts


def test_special_tokens_are_those_of_tiktoken(
    gpt2: BPETokenizer, agreement: Callable[..., None]
) -> None:
    theirs = tiktoken(gpt2, bpe.GPT2_PATTERN)
    draw = random.Random(4)
    parts = ["<|endoftext|>", "<|end|>", "<|end", "|>", " a", "b\n"]
    texts = ["".join(draw.choices(parts, k=6)) for _ in range(300)]
    for allowed, mine in (("all", "all"), (set(), "none"), ({"<|end|>"}, {"<|end|>"})):
        agreement(
            "encode, special tokens",
            "tiktoken",
            flat([gpt2.encode(t, allowed_special=mine) for t in texts]),
            flat([theirs.encode(t, allowed_special=allowed, disallowed_special=()) for t in texts]),
            atol=0,
            convention="by default its encode raises where the text names a special token",
        )
    with pytest.raises(ValueError, match="disallowed special token"):
        theirs.encode("a<|end|>")


def test_rank_files_are_those_of_tiktoken(
    gpt4: BPETokenizer, text: str, tmp_path: Path, agreement: Callable[..., None]
) -> None:
    """Ids of bytes in another order and a gap, as the published vocabularies have them."""
    from tiktoken.load import load_tiktoken_bpe

    ids = [*random.Random(5).sample(range(256), 256), *range(300, 300 + len(gpt4.merges))]
    source = BPETokenizer(gpt4.merges, pattern=bpe.GPT4_PATTERN, ids=ids)
    source.save_tiktoken(tmp_path / "ranks")
    ranks = load_tiktoken_bpe(str(tmp_path / "ranks"))
    theirs = __import__("tiktoken").Encoding(
        "file", pat_str=bpe.GPT4_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    lines = [base64.b64encode(t) + b" %d\n" % r for t, r in sorted(ranks.items())]
    (tmp_path / "shuffled").write_bytes(b"".join(lines))
    ours = BPETokenizer.from_tiktoken(tmp_path / "shuffled", pattern=bpe.GPT4_PATTERN)
    texts = [text[:50_000], *random_texts(1000)]
    agreement(
        "rank file, then encode",
        "tiktoken",
        flat([ours.encode(t) for t in texts]),
        flat([theirs.encode_ordinary(t) for t in texts]),
        atol=0,
    )


def test_bytes_without_a_pattern_are_those_of_tiktoken(
    gpt2: BPETokenizer, agreement: Callable[..., None]
) -> None:
    """Its private function takes bytes; this is what invalid UTF-8 needs."""
    theirs = tiktoken(gpt2, bpe.GPT2_PATTERN)
    draw = random.Random(6)
    pool = [draw.randbytes(1 + i % 30) for i in range(300)]
    pool += [b"the test of " * (i % 5) + bytes([255 - i]) + b"import" for i in range(100)]
    agreement(
        "encode_bytes",
        "tiktoken",
        flat([gpt2.encode_bytes(data) for data in pool]),
        flat([theirs._encode_single_piece(data) for data in pool]),
        atol=0,
    )


def test_pieces_are_those_of_tokenizers(agreement: Callable[..., None]) -> None:
    from tokenizers import Regex, pre_tokenizers

    texts = [*random_texts(3000, seed=7), *(f"a{c}a 1{c}1 !{c}! " for c in assigned())]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert pre_tokenizers.ByteLevel().pre_tokenize_str("a")[0][0] == "Ġa"
    agreement(
        "pretokenize, GPT-2",
        "tokenizers",
        lengths([bpe.pretokenize(t) for t in texts]),
        flat([[len(p) for p, _ in byte_level.pre_tokenize_str(t)] for t in texts]),
        atol=0,
        convention="one printable stand-in a byte",
    )
    published = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(Regex(published), behavior="isolated")
    assert bpe.pretokenize("\n ", bpe.GPT4_PATTERN) == ["\n "]
    assert [p for p, _ in split.pre_tokenize_str("\n ")] == ["\n", " "]
    texts = [text + "x" for text in texts[::4]]  # the two forms differ at the end of a text alone
    agreement(
        "pretokenize, GPT-4",
        "tokenizers",
        lengths([bpe.pretokenize(t, bpe.GPT4_PATTERN) for t in texts]),
        lengths([[p for p, _ in split.pre_tokenize_str(t)] for t in texts]),
        atol=0,
        convention="the published form, which cuts whitespace at the end of a text in two",
    )
