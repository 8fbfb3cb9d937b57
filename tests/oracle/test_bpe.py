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

from . import tokenizer_files

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


def stand_in_text(text: str) -> str:
    return "".join(map(unicode_of_bytes().__getitem__, text.encode()))


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


# Files that users bring

STYLES: dict[str, tuple[Callable[[str], Any], str]] = {
    "Llama 3": (
        lambda prose: tokenizer_files.llama3_style(prose, stand_in_text),
        "ignore_merges, several merges a token",
    ),
    "Qwen": (tokenizer_files.qwen_style, "NFC by Python's Unicode, theirs is an older one"),
    "DeepSeek": (tokenizer_files.deepseek_style, "three Splits in a row"),
    "DeepSeek Coder": (tokenizer_files.deepseek_coder_style, "five Splits, Digits"),
    "Llama 2": (tokenizer_files.llama2_style, "Prepend and Replace, byte_fallback"),
    "GPT-2": (tokenizer_files.gpt2_style, "Digits, ByteLevel with its own cuts and a space"),
    "unknown token": (lambda prose: tokenizer_files.unknown_style(prose, False), "no bytes"),
    "unknown tokens fused": (lambda prose: tokenizer_files.unknown_style(prose, True), "fuse_unk"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_tokenizer_json_gives_the_ids_of_tokenizers(
    style: str, text: str, tmp_path: Path, agreement: Callable[..., None]
) -> None:
    """Whatever the text: added tokens found or hidden; and what the ids decode to."""
    make, convention = STYLES[style]
    theirs = make(text)
    pairs = style != "GPT-2"
    path = tokenizer_files.save(theirs, tmp_path / "tokenizer.json", pairs)
    ours = BPETokenizer.from_tokenizer_json(path)
    assert ours.special_tokens
    names = (*ours.special_tokens, *ours.added_tokens, "cafés")
    texts = tokenizer_files.mixed_texts(6000, text, assigned(), names)
    if style == "Qwen":
        # Marks that Unicode got lately have no order in the tables of tokenizers.
        alike = [t for t in texts if unicodedata.normalize("NFC", t) == nfc_of_tokenizers(t)]
        assert len(alike) > 0.98 * len(texts)
        texts = alike
    for allowed in ("all", "none"):
        theirs.encode_special_tokens = allowed == "none"
        ids = [ours.encode(t, allowed_special=allowed) for t in texts]
        expected = [row.ids for row in theirs.encode_batch(texts, add_special_tokens=False)]
        agreement(
            f"tokenizer.json, {style} form",
            "tokenizers",
            flat(ids),
            flat(expected),
            atol=0,
            convention=f"{convention}; add_special_tokens=False",
        )
    draw = random.Random(9)
    every = sorted(theirs.get_vocab().values())
    loose = [draw.choices(every[: 300 * (1 + i % 9)], k=i % 12) for i in range(3000)]
    # They read the é of an added token as the stand-in of a byte.
    wrong = ours.added_tokens.get("cafe\u0301s")
    rows = [row for row in (*ids, *loose) if wrong not in row]
    decoded = theirs.decode_batch(rows, skip_special_tokens=False)
    assert [ours.decode(row) for row in rows] == decoded
    if wrong:
        assert ours.decode([wrong]) == "cafe\u0301s"
        assert theirs.decode([wrong], skip_special_tokens=False) == "cafe\u0301s".replace(
            "e\u0301", "\ufffd"
        )
    comes_back = {
        "Llama 3": lambda t: t,
        "Qwen": lambda t: unicodedata.normalize("NFC", t),
        "DeepSeek": lambda t: t,
        "DeepSeek Coder": lambda t: t,
        "Llama 2": lambda t: t.replace("▁", " "),
    }
    if style in comes_back:
        names = (*ours.added_tokens, "cafés")
        plain = [t for t in texts if not any(name in t for name in names)]
        assert len(plain) > 0.7 * len(texts)
        for t in plain:
            assert ours.decode(ours.encode(t), errors="strict") == comes_back[style](t)


def nfc_of_tokenizers(text: str) -> str:
    from tokenizers import normalizers

    return normalizers.NFC().normalize_str(text)


def test_the_forms_are_not_the_same_by_chance(text: str) -> None:
    """Each part of a file matters on these texts: without it other ids come out."""

    def without(style: str, **changes: Any) -> int:
        theirs = STYLES[style][0](text)

        def change(content: dict[str, Any]) -> None:
            for name, value in changes.items():
                target = content["model"] if name in content["model"] else content
                target[name] = value(target[name])

        texts = tokenizer_files.mixed_texts(1000, text, assigned())
        other = tokenizer_files.changed(theirs, change)
        return sum(theirs.encode(t).ids != other.encode(t).ids for t in texts)

    def last_split_alone(given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "pretokenizers": given["pretokenizers"][2:]}

    assert without("Llama 3", ignore_merges=lambda _: False) > 20
    assert without("Qwen", normalizer=lambda _: None) > 20
    assert without("DeepSeek", pre_tokenizer=last_split_alone) > 20
    assert without("Llama 2", byte_fallback=lambda _: False) > 20
    assert without("Llama 2", normalizer=lambda _: None) > 20
    assert without("unknown tokens fused", fuse_unk=lambda _: False) > 20


def test_patterns_that_are_read_cut_as_in_tokenizers(agreement: Callable[..., None]) -> None:
    """Characters of all of Unicode between signs, and runs of a few."""
    from tokenizers import Regex, pre_tokenizers

    from llmref.components.bpe._patterns import portable_pattern
    from llmref.components.bpe._text import isolate

    patterns = [
        tokenizer_files.LLAMA3_PATTERN,
        tokenizer_files.QWEN_PATTERN,
        *tokenizer_files.DEEPSEEK_PATTERNS,
        r"[^\r\n\p{L}\p{N}]?[\p{Lt}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}",
        r"(?<=\p{L})\p{P}++|\p{Han}+?|\S\d*|(?:a|b){2}|.(?=\s)",
        r"\s+$|a$|.$",
        r"b?",
        tokenizer_files.GPT4O_PATTERN,
    ]
    draw = random.Random(3)
    # The category of ʕ has changed; and these texts hold what cuts contractions and classes.
    characters = draw.sample([c for c in assigned() if c != "ʕ"], 30_000)
    texts = ["".join(f"{c}a 1{c}'s{c}! " for c in characters)]
    texts += [
        "".join(draw.choices("aB'sSſlLİ ,!&[]^-\n\r\t\u00a012²中あア\u0301", k=30))
        for _ in range(3000)
    ]
    for pattern in patterns:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        compiled = portable_pattern(pattern, "test")
        agreement(
            "cuts by a pattern of tokenizer.json",
            "tokenizers",
            lengths([isolate(t, compiled) for t in texts]),
            lengths([[piece for piece, _ in split.pre_tokenize_str(t)] for t in texts]),
            atol=0,
            convention="patterns on which regex and Oniguruma may differ are refused",
        )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\s^", " \n"),
        (r"\p{N}{1,3}+", "12345"),
        (r"(?i:ss)", "xß"),
        (r"(?i:st)", "xﬆ"),
        (r"(?i:i)", "xİ"),
        (r"\w+", "x²"),
        (r"\h", "xa"),
        (r"[a&&b]", "xab"),
        (r"[a[b]]", "a]b"),
    ],
)
def test_patterns_that_are_refused_cut_otherwise_in_tokenizers(pattern: str, text: str) -> None:
    import regex
    from tokenizers import Regex, pre_tokenizers

    from llmref.components.bpe._patterns import portable_pattern
    from llmref.components.bpe._text import isolate

    with pytest.raises(ValueError, match="engines differ"):
        portable_pattern(pattern, "test")
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    theirs = [piece for piece, _ in split.pre_tokenize_str(text)]
    assert isolate(text, regex.compile(pattern, regex.MULTILINE)) != theirs


def test_vocab_and_merges_give_the_ids_of_tokenizers(
    text: str, tmp_path: Path, agreement: Callable[..., None]
) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    theirs = tokenizer_files.byte_level((tokenizer_files.QWEN_PATTERN,))
    tokenizer_files.trained(theirs, text, 2000, ["<|endoftext|>"])
    vocab, merges = theirs.model.save(str(tmp_path))
    again = tokenizers.Tokenizer(models.BPE.from_file(vocab, merges))
    again.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    again.decoder = decoders.ByteLevel()
    ours = BPETokenizer.from_vocab_and_merges(
        vocab, merges, pattern=bpe.GPT2_PATTERN, special_tokens=["<|endoftext|>"]
    )
    texts = tokenizer_files.mixed_texts(6000, text, assigned())
    ids = [ours.encode(t) for t in texts]
    agreement(
        "vocab.json and merges.txt, then encode",
        "tokenizers",
        flat(ids),
        flat([row.ids for row in again.encode_batch(texts)]),
        atol=0,
        convention="models.BPE.from_file, ByteLevel(add_prefix_space=False)",
    )
    assert [ours.decode(row) for row in ids] == again.decode_batch(ids) == texts


def test_rank_files_with_tokens_that_no_merge_makes_are_those_of_tiktoken(
    text: str, tmp_path: Path, agreement: Callable[..., None]
) -> None:
    """As in Llama 3's file: a piece that is a token is this token, whatever its parts."""
    import tiktoken

    theirs = tokenizer_files.llama3_style(text, stand_in_text)
    byte_of = {character: byte for byte, character in enumerate(unicode_of_bytes())}
    vocabulary = {
        bytes(byte_of[c] for c in token): rank
        for token, rank in theirs.get_vocab(with_added_tokens=False).items()
    }
    lines = [base64.b64encode(t) + b" %d\n" % r for t, r in vocabulary.items()]
    (tmp_path / "ranks").write_bytes(b"".join(lines))
    special = {"<|begin_of_text|>": 5000, "<|eot_id|>": 5001}
    encoding = tiktoken.Encoding(
        "file",
        pat_str=bpe.GPT4_PATTERN,
        mergeable_ranks=vocabulary,
        special_tokens=special,
    )
    ours = BPETokenizer.from_tiktoken(
        tmp_path / "ranks", pattern=bpe.GPT4_PATTERN, special_tokens=special
    )
    texts = tokenizer_files.mixed_texts(6000, text, assigned(), tuple(special))
    ids = [ours.encode(t) for t in texts]
    with pytest.raises(ValueError, match="is not the merge of two earlier"):
        bpe.merges_from_ranks(vocabulary)
    agreement(
        "rank file with tokens that no merge makes, then encode",
        "tiktoken",
        flat([*ids, *(ours.encode(t, allowed_special="all") for t in texts)]),
        flat(
            [
                *map(encoding.encode_ordinary, texts),
                *(encoding.encode(t, allowed_special="all") for t in texts),
            ]
        ),
        atol=0,
        convention="a piece that is a token is this token; else neighbours of lowest rank",
    )
    assert [ours.decode(row) for row in ids] == [encoding.decode(row) for row in ids] == texts
    ours.save_tiktoken(tmp_path / "again")
    again = BPETokenizer.from_tiktoken(tmp_path / "again", pattern=bpe.GPT4_PATTERN)
    assert [again.encode(t) for t in texts] == ids


def test_any_ranks_give_the_ids_of_tiktoken(agreement: Callable[..., None]) -> None:
    """Random tokens: some are no merge, and some are made only by a pair of later ones."""
    import tiktoken

    draw = random.Random(12)
    ours, theirs = [], []
    late = 0
    for _ in range(200):
        words = {bytes(draw.choices(b"abc", k=draw.randint(2, 6))) for _ in range(25)}
        tokens = {bytes([i]): i for i in range(256)}
        tokens |= {word: 256 + i for i, word in enumerate(draw.sample(sorted(words), len(words)))}
        encoding = tiktoken.Encoding(
            "random", pat_str=r"\s+|\S+", mergeable_ranks=tokens, special_tokens={}
        )
        pairs = bpe.pairs_from_ranks(tokens)
        late += sum(max(pair) > rank for pair, rank in pairs.items())
        for _ in range(40):
            data = bytes(draw.choices(b"abc", k=draw.randint(1, 20)))
            whole = [tokens[data]] if data in tokens else None
            ours.append(whole or bpe.merge_by_rank(data, pairs, range(256 + len(words))))
            theirs.append(encoding._encode_single_piece(data))
    assert late > 100
    agreement("pairs_from_ranks, merge_by_rank", "tiktoken", flat(ours), flat(theirs), atol=0)


def test_where_tokenizers_differs_it_loses_text_or_sorts_marks_as_of_old(tmp_path: Path) -> None:
    """The differences that the docstring of from_tokenizer_json names, on the library itself."""
    import tokenizers
    from tokenizers import decoders, models

    theirs = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    theirs.decoder = decoders.Fuse()
    ours = BPETokenizer.from_tokenizer_json(tokenizer_files.save(theirs, tmp_path / "t.json"))
    assert theirs.encode("aba").ids == [0, 0]
    with pytest.raises(ValueError, match="the vocabulary has no token for 'b'"):
        ours.encode("aba")
    late = "\u20db\u08d3"  # the second mark came with Unicode 11, and belongs first
    assert nfc_of_tokenizers(late) == late
    assert unicodedata.normalize("NFC", late) == late[::-1]


def test_any_list_of_merges_gives_the_ids_of_tokenizers(
    tmp_path: Path, agreement: Callable[..., None]
) -> None:
    """Random merges in any order: one may use a later one, and several may make one token."""
    import tokenizers
    from tokenizers import decoders, models

    draw = random.Random(13)
    ours: list[list[int]] = []
    theirs: list[list[int]] = []
    shared = 0
    for i in range(300):
        words = {"".join(draw.choices("abc", k=draw.randint(2, 5))) for _ in range(25)}
        names = draw.sample(["a", "b", "c", "?", *sorted(words)], 4 + len(words))
        vocabulary = {name: 3 * k for k, name in enumerate(names)}
        merges = tokenizer_files.all_merges(vocabulary)
        shared += len({left + right for left, right in merges}) < len(merges)
        options = {"fuse_unk": i % 2 == 0, "ignore_merges": i % 3 == 0}
        model = models.BPE(vocabulary, draw.sample(merges, len(merges)), unk_token="?", **options)
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.decoder = decoders.Fuse()
        path = tokenizer_files.save(tokenizer, tmp_path / "tokenizer.json")
        here = BPETokenizer.from_tokenizer_json(path)
        texts = ["".join(draw.choices("aaabbbcccx", k=draw.randint(1, 20))) for _ in range(30)]
        texts += sorted(words)
        ours += [here.encode(t) for t in texts]
        theirs += [tokenizer.encode(t).ids for t in texts]
    assert shared > 200
    agreement(
        "tokenizer.json, random merges",
        "tokenizers",
        flat(ours),
        flat(theirs),
        atol=0,
        convention="any order, several merges a token, unknown characters",
    )
