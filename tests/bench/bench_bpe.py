"""Training against recounting and against Hugging Face's trainer; encoding against its length.

The text is generated: 1 MB of words that follow Zipf's law, from a seeded generator.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from llmref.components.bpe import BPETokenizer

SIZE, VOCABULARY = 1_000_000, 1256
LETTERS = "eeeeettttaaaooiinnsshhrrdlucmfwygpbvkqjxz"


def words(draw: random.Random) -> Iterator[str]:
    """Words by Zipf's law: the word of rank r comes with weight 1 / r, as long as log r allows."""
    lexicon = [
        "".join(draw.choices(LETTERS, k=2 + draw.randrange(1 + r.bit_length())))
        for r in range(1, 40_000)
    ]
    weights = [1 / (r + 2) for r in range(len(lexicon))]
    while True:
        yield from draw.choices(lexicon, weights, k=10_000)


def generated_text(size: int) -> str:
    draw, parts, length = random.Random(0), [], 0
    for word in words(draw):
        parts.append(word + draw.choice([" ", " ", " ", " ", ", ", ".\n", " 42 "]))
        length += len(parts[-1])
        if length >= size:
            return "".join(parts)[:size]
    raise AssertionError


def seconds(function: Callable[[], object], repeat: int = 1) -> float:
    """The median, in seconds of wall clock."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@pytest.fixture(scope="module")
def text() -> str:
    return generated_text(SIZE)


@pytest.fixture(scope="module")
def trained(text: str) -> BPETokenizer:
    return BPETokenizer().train(text, VOCABULARY)


def test_incremental_training_is_20_times_faster_than_recounting(text, trained, report) -> None:
    kept: dict[str, BPETokenizer] = {}

    def train(method: str) -> None:
        kept[method] = BPETokenizer().train(text, VOCABULARY, method=method)

    fast = seconds(lambda: train("incremental"), 3)
    slow = seconds(lambda: train("naive"))
    assert kept["incremental"].merges == kept["naive"].merges == trained.merges
    report("bpe: training 1 MB, 1000 merges / recounting", fast / slow, 1 / 20, "times")


def test_training_is_within_30_times_of_the_rust_trainer(text, trained, report) -> None:
    tokenizers = pytest.importorskip("tokenizers")

    def rust() -> None:
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            min_frequency=2,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(text.splitlines(keepends=True), trainer)
        assert model.get_vocab_size() == VOCABULARY

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    ours = seconds(lambda: BPETokenizer().train(text, VOCABULARY), 3)
    report("bpe: training 1 MB, 1000 merges / tokenizers", ours / seconds(rust, 3), 30, "times")


def test_encoding_is_linear_in_the_text(text, trained, report) -> None:
    """With a pattern pieces are short; one piece of n bytes costs n log n, from its heap."""
    short, long = text[: SIZE // 8], text
    for name, tokenizer, limit in (
        ("encode", trained, 1.5),
        ("encode as one piece", BPETokenizer(trained.merges, pattern=None), 2.5),
    ):
        few = seconds(lambda t=tokenizer: t.encode(short), 3)
        many = seconds(lambda t=tokenizer: t.encode(long), 3)
        report(f"bpe: {name}, time of 8 n / (8 times the time of n)", many / few / 8, limit)
    report("bpe: encode", seconds(lambda: trained.encode(long), 3), 10, "s / MB")
