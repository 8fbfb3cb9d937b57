"""Files of tokenizers in the forms that published models have, trained here; and texts for them.

Nothing is downloaded: what is published are the patterns and the form of the files.
"""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

Ranks = dict[str, int]

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_PATTERNS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
DEEPSEEK_CODER_PATTERNS = (
    r"[\r\n]",
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳΆΈ-ΊΌΎ-ΡΣ-ϵА-ҁ]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
)
GPT4O_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Whole pieces that no training makes.
HAND_MADE = (" Việt", ".:.:", "日本語", "café", "\n\n\n\n\n", " naïveté")
SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz ABCXYZ",
    "àâçéèêëîïôûùüÿœæñãõßøåıİſ",
    "абвгдежзийклмнопрстуфхцчшщыэюяё",
    "αβγδεζηθικλμνξοπρστυφχψωάέή",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي ًٌٍَُِّْ",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह ािीुूेैोौ्ंः",
    "กขคงจฉชซญฎฏฐณดตถทธนบปผฝพฟภมยรลวศษสหอฮะาิีึืุูเแโใไ่้๊๋",
    "가나다라마바사아자차카타파하한국어각힣ᄀ\u1161\u11a8",
    "日本語中文字漢字简体字々〆一龥",
    "ひらがなカタカナー・ぁゟ゠ヿ",
    "e\u0301a\u0308\u0323o\u0302\u0301n\u0303\u212b\u2126ﬁ",
)
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»“”…—¿§€£¥±×÷√∞≠²½Ⅷ①٣०"
EMOJI = ("😀", "👩‍👩‍👧", "👍🏽", "🇫🇷", "❤️", "🏳️‍🌈", "1️⃣")
SPACES = (
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n ",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x85",
)
CODE = (
    "def f(x):\n    return x+1\n",
    "<br/>",
    "a->b;",
    "x[i] += 10_000",
    "'s",
    "'LL",
    "'ſ",
    "don't",
)


def fragment(draw: random.Random, assigned: list[str]) -> str:
    """A word, a number, signs, whitespace, an emoji, code, bytes, or any characters."""
    kind = draw.randrange(10)
    if kind < 3:
        return "".join(draw.choices(draw.choice(SCRIPTS), k=draw.randint(1, 9)))
    if kind == 3:
        return str(draw.randrange(10 ** draw.randint(1, 8)))
    if kind == 4:
        return "".join(draw.choices(SIGNS, k=draw.randint(1, 5)))
    if kind == 5:
        return draw.choice(SPACES) * draw.randint(1, 4)
    if kind == 6:
        return draw.choice(EMOJI)
    if kind == 7:
        return draw.choice((*CODE, *HAND_MADE))
    if kind == 8:
        data = draw.randbytes(draw.randint(1, 9))
        return data.decode(draw.choice(("latin-1", "utf-8")), "replace")
    return "".join(draw.choices(assigned, k=draw.randint(1, 5)))


def mixed_texts(
    count: int, prose: str, assigned: list[str], names: tuple[str, ...] = (), seed: int = 0
) -> list[str]:
    """Random texts of all kinds, names of tokens among them, and parts of the prose."""
    draw = random.Random(seed)
    texts = []
    for i in range(count):
        parts = [fragment(draw, assigned) for _ in range(draw.randint(0, 12))]
        if names and i % 4 == 0:
            parts.insert(draw.randint(0, len(parts)), draw.choice(names))
        if i % 5 == 0:
            start = draw.randrange(len(prose))
            parts.append(prose[start : start + 80])
        texts.append(draw.choice(("", " ")).join(parts))
    return texts


def training_texts(prose: str) -> list[str]:
    """Prose of code and English, and words of all scripts."""
    draw = random.Random(11)
    words = ["".join(draw.choices(s[:12], k=draw.randint(2, 4))) for s in SCRIPTS * 150]
    return [*prose.splitlines(keepends=True), " ".join(words), *EMOJI * 20, *CODE * 5]


def trained(theirs: Any, prose: str, size: int, special: list[Any] | None = None) -> None:
    """Learn a vocabulary with the pre-tokenizer that is set."""
    alphabet = pre_tokenizers.ByteLevel.alphabet() if theirs.decoder else []
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        special_tokens=special or [],
        show_progress=False,
    )
    theirs.train_from_iterator(training_texts(prose), trainer)


def all_merges(vocabulary: Ranks) -> list[tuple[str, str]]:
    """Each pair of tokens that spells a token, by the rank of that: several make one token."""
    return [
        (token[:cut], token[cut:])
        for token in sorted(vocabulary, key=vocabulary.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]


def byte_level(patterns: tuple[str, ...]) -> Any:
    """No tokens yet; cut by the patterns one after the other, then as bytes."""
    theirs = tokenizers.Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    theirs.decoder = decoders.ByteLevel()
    return theirs


def changed(theirs: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """The tokenizer of the changed file."""
    content = json.loads(theirs.to_str())
    change(content)
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def llama3_style(prose: str, stand_in: Callable[[str], str]) -> Any:
    """ignore_merges, tokens that no merge reaches, several merges a token."""
    theirs = byte_level((LLAMA3_PATTERN,))
    trained(theirs, prose, 1500)

    def change(content: dict[str, Any]) -> None:
        model = content["model"]
        for token in HAND_MADE:
            model["vocab"].setdefault(stand_in(token), len(model["vocab"]))
        model["merges"] = all_merges(model["vocab"])
        model["ignore_merges"] = True

    theirs = changed(theirs, change)
    theirs.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    return theirs


def qwen_style(prose: str) -> Any:
    """NFC, single digits; added tokens that are not special, one of them sought after NFC."""
    theirs = byte_level((QWEN_PATTERN,))
    trained(theirs, prose, 1500)
    theirs.normalizer = normalizers.NFC()
    theirs.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    theirs.add_tokens([AddedToken("<tool_call>", normalized=False)])
    theirs.add_tokens([AddedToken("cafe\u0301s", normalized=True), "<|im"])
    return theirs


def deepseek_style(prose: str) -> Any:
    """A chain of Splits; no normaliser in a sequence; added tokens of full-width signs."""
    theirs = byte_level(DEEPSEEK_PATTERNS)
    trained(theirs, prose, 1500)
    theirs.normalizer = normalizers.Sequence([])
    theirs.add_special_tokens([AddedToken("<｜begin▁of▁sentence｜>", normalized=True)])
    theirs.add_special_tokens(["<｜User｜>"])
    theirs.add_tokens([AddedToken("<think>", normalized=False)])
    return theirs


def deepseek_coder_style(prose: str) -> Any:
    """A longer chain, with the end of a line in a pattern, and single digits."""
    theirs = byte_level(DEEPSEEK_CODER_PATTERNS)
    content = json.loads(theirs.to_str())
    chain = content["pre_tokenizer"]["pretokenizers"]
    chain.insert(-1, {"type": "Digits", "individual_digits": True})
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    trained(theirs, prose, 1500)
    theirs.add_special_tokens(["<｜begin▁of▁sentence｜>"])
    return theirs


def llama2_style(prose: str) -> Any:
    """SentencePiece's form: spaces as signs, one before the text, bytes for other characters."""
    theirs = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    names = ["<unk>", "<s>", "</s>"]
    trained(theirs, prose, 1500, names + [f"<0x{byte:02X}>" for byte in range(256)])
    theirs.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )

    def change(content: dict[str, Any]) -> None:
        content["added_tokens"] = content["added_tokens"][:3]
        words = {t: i for t, i in content["model"]["vocab"].items() if i >= 259}
        content["model"]["merges"] = all_merges(words)
        # Half of the characters are left to the bytes.
        rare = [t for t in words if len(t) == 1 and not t.isascii() and t != "▁"][::2]
        model = content["model"]
        kept = [m for m in model["merges"] if not any(c in "".join(m) for c in rare)]
        names = [t for t in model["vocab"] if t[:3] == "<0x" or not any(c in t for c in rare)]
        model["merges"], model["vocab"] = kept, {t: i for i, t in enumerate(names)}

    return changed(theirs, change)


def gpt2_style(prose: str) -> Any:
    """ByteLevel's own cuts with a space before the text, after single digits."""
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    )
    theirs.decoder = decoders.ByteLevel()
    trained(theirs, prose, 1200)
    theirs.add_special_tokens(["<|endoftext|>"])
    return theirs


def unknown_style(prose: str, fuse: bool) -> Any:
    """Characters with an unknown token and no bytes, and a pattern that is replaced."""
    theirs = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse))
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), "▁"), normalizers.Prepend("▁")]
    )
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "isolated"), pre_tokenizers.Digits(individual_digits=False)]
    )
    trained(theirs, prose[:60_000], 700, ["<unk>"])
    theirs.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return theirs


def save(theirs: Any, path: Path, pairs: bool = True) -> Path:
    """The file; merges as pairs of tokens, or as strings with a space between, as older ones."""
    content = json.loads(theirs.to_str())
    if not pairs:
        merges = content["model"]["merges"]
        assert not any(" " in token for token in itertools.chain(*merges))
        content["model"]["merges"] = [" ".join(merge) for merge in merges]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
