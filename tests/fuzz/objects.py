"""A valid construction of each public class, and a valid call of each of its public methods.

A method's arguments come with those of the constructor, so that both are replaced; what must happen
between the two is `before`. Not here: functions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmref import attention, components, functional, inference, norm, training
from llmref.components.lora import PeftLoraConfig
from tests.fuzz.functions import MERGES, SHAPE, WORDS
from tests.laws.calls import Call, call


@dataclass(frozen=True)
class Method:
    """A method or property, its valid arguments, and how its object comes about."""

    made: Call
    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Any], object] | None = None


@dataclass(frozen=True)
class File:
    """A file that is there when the call is made: its name stands for it."""

    name: str
    content: bytes

    def write(self) -> str:
        """Put it into the current folder."""
        Path(self.name).write_bytes(self.content)
        return self.name


def method(made: Call, name: str, *arguments: Any, before: Any = None, **options: Any) -> Method:
    return Method(made, name, arguments, options, before)


_drawn = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_drawn)


def tokenizer_json() -> bytes:
    """The smallest tokenizer.json of bytes that is read."""
    letters = "".join(map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]))
    letters += "".join(chr(256 + place) for place in range(68))
    vocab = ",".join(f'"{it}":{i}' for i, it in enumerate(letters)).replace('"\\"', '"\\\\"')
    vocab = vocab.replace('""":', '"\\"":')
    return (
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
        '"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,'
        '"use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel",'
        '"add_prefix_space":false,"trim_offsets":true,"use_regex":true},"model":'
        f'{{"type":"BPE","vocab":{{{vocab},"ab":256}},"merges":[["a","b"]]}}}}'
    ).encode()


def vocab_and_merges() -> tuple[File, File]:
    text = tokenizer_json().decode()
    vocab = text[text.index('"vocab":') + 8 : text.index(',"merges"')]
    return File("vocab.json", vocab.encode()), File("merges.txt", b"#version: 0.2\na b\n")


def written(write: str) -> bytes:
    """What a method of a tokenizer writes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        getattr(components.BPETokenizer(MERGES), write)(path)
        return path.read_bytes()


def of_attention() -> Iterator[Call | Method]:
    query, x = normal(2, 3, 8), normal(2, 3, 8)
    many = call(attention.MultiHeadAttention, 8, 2, vdim=6, dropout=0.0)
    yield many
    yield method(many, "forward", query, normal(2, 5, 8), normal(2, 5, 6), need_weights=True)
    yield method(many, "head_outputs", query, normal(2, 5, 8), normal(2, 5, 6))
    for circuit in ("qk_circuit", "ov_circuit"):
        yield method(call(attention.MultiHeadAttention, 8, 2, bias=False), circuit)
    yield call(attention.MultiHeadAttention.from_torch, nn.MultiheadAttention(8, 2))
    grouped = call(attention.GroupedQueryAttention, 8, 4, 2, head_dim=3)
    yield grouped
    yield method(grouped, "forward", x, is_causal=True)
    cached = call(attention.CachedAttention, 8, 4, 2, head_dim=4, qk_norm_eps=1e-5, window=2)
    yield cached
    yield method(cached, "forward", x)
    sizes = {"head_dim": 3, "rope_dim": 4, "value_dim": 5, "latent_dim": 6, "query_latent_dim": 7}
    latent = call(attention.LatentAttention, 8, 2, **sizes)
    yield latent
    yield method(latent, "forward", x, absorbed=True)
    yield method(latent, "up_projections")
    key, value = normal(2, 3, 2, 4), normal(2, 3, 2, 4)
    full = partial(_updated, key, value)
    caches = (
        call(attention.KVCache, 2, 3, 7, 4),
        call(attention.SlidingWindowKVCache, 2, 3, 5, 4, max_chunk=2),
    )
    for cache in caches:
        yield cache
        yield method(cache, "update", key, value, before=full)
        yield method(cache, "nbytes")
    yield method(caches[0], "max_len")
    yield method(caches[0], "truncate", 1, before=full)
    small = call(attention.LatentCache, 2, 7, 4, 2)
    parts = normal(2, 3, 4), normal(2, 3, 2)
    yield small
    yield method(small, "update", *parts, before=partial(_updated, *parts))
    yield method(small, "nbytes")
    yield method(small, "max_len")
    yield method(small, "truncate", 1, before=partial(_updated, *parts))
    yield call(attention.SoftmaxState, normal(2), normal(2).exp(), normal(2, 3))


def _updated(key: Tensor, value: Tensor, cache: Any) -> None:
    cache.update(key, value)


def of_bpe() -> Iterator[Call | Method]:
    bpe = call(components.BPETokenizer, MERGES, special_tokens={"<s>": 258})
    yield bpe
    yield method(bpe, "vocab_size")
    yield method(bpe, "train", ["ab ab", "abc abc"], 258, special_tokens=("<s>",), min_count=1)
    yield method(bpe, "encode", "abc <s>", allowed_special="all")
    yield method(bpe, "encode_bytes", b"abc")
    yield method(bpe, "token_bytes", 256)
    yield method(bpe, "decode_bytes", [97, 256, 257])
    yield method(bpe, "decode", [97, 256, 258], errors="strict")
    yield method(bpe, "save", "saved.json")
    yield method(bpe, "save_tiktoken", "saved.tiktoken")
    load, ranks = components.BPETokenizer.load, components.BPETokenizer.from_tiktoken
    yield call(load, File("tokenizer.json", written("save")))
    yield call(ranks, File("ranks.tiktoken", written("save_tiktoken")), pattern=None)
    yield call(components.BPETokenizer.from_vocab_and_merges, *vocab_and_merges(), pattern=None)
    yield call(components.BPETokenizer.from_tokenizer_json, File("hf.json", tokenizer_json()))
    for cls in (components.PairIndex, components.RecountedWords):
        yield call(cls, WORDS)
        yield method(call(cls, WORDS), "best")
        yield method(call(cls, WORDS), "merge", (97, 98), 256)


def of_components() -> Iterator[Call | Method]:
    x, ids = normal(2, 3, 8), torch.tensor([[1, 2, 3], [4, 5, 6]])
    options = {"rope_base": 1e4, "eps": 1e-5}
    model = call(components.Decoder, 11, 8, 2, 2, 1, 6, tied=False, max_len=9, **options)
    block = call(components.DecoderBlock, 8, 2, 1, 6, qk_norm=True, **options)
    yield from (model, method(model, "forward", ids))
    yield from (block, method(block, "forward", x))
    learned = call(components.LearnedPositions, 9, 8)
    yield from (learned, method(learned, "forward", x, torch.arange(3)))
    linear = call(components.Linear, 8, 5, init="xavier", dtype=torch.float64)
    yield from (linear, method(linear, "reset_parameters"), method(linear, "extra_repr"))
    yield method(linear, "forward", x.double())
    lora = call(components.LoRALinear, nn.Linear(8, 5), 2, 4.0)
    yield from (lora, method(lora, "forward", x), method(lora, "merge", True))
    yield method(lora, "unmerge", before=lambda it: it.merge())
    for name in ("merged_weight", "to_linear", "extra_repr"):
        yield method(lora, name)
    peft = call(PeftLoraConfig, 2, 4.0, ("q",), rank_pattern={"0.q": 3}, alpha_pattern={})
    yield peft
    for name in ("rank", "alpha", "scaling", "is_target", "is_saved"):
        yield method(peft, name, "layers.0.q")
    rope = call(components.RotaryEmbedding, 8, 1e4, layout="half")
    heads = normal(2, 3, 5, 8), normal(2, 1, 5, 8)
    yield from (rope, method(rope, "inv_freq"), method(rope, "forward", *heads, torch.arange(5)))
    experts = call(components.SparseMoE, 8, 6, 4, 2, router=components.top_k_softmax, num_shared=1)
    yield from (experts, method(experts, "logits", x), method(experts, "forward", x))
    swiglu = call(components.SwiGLU, 8, 6)
    yield from (swiglu, method(swiglu, "forward", x))


def of_inference() -> Iterator[Call | Method]:
    pool = call(inference.BlockPool, 5, 4, 3, 2)
    yield pool
    key, value = normal(2, 3, 2), normal(2, 3, 2)
    used: dict[str, Any] = {"before": lambda it: it.allocate()}
    for name in ("free_blocks", "num_free", "allocate"):
        yield method(pool, name)
    for name in ("references", "share", "release", "copy"):
        yield method(pool, name, 0, **used)
    yield method(pool, "write", 0, 1, key, value, **used)
    paged = call(inference.PagedKVCache, inference.BlockPool(5, 4, 3, 2), [], 0)
    yield paged
    yield method(paged, "append", key, value)
    for name in ("block_table", "read", "fork", "free"):
        yield method(paged, name, before=lambda it: it.append(key, value))
    best = torch.tensor([1, 2]), torch.tensor(-1.0), torch.tensor(-0.5), torch.tensor(-3.0)
    yield call(inference.BeamResult, *best, 0.6, 3)


def of_norm() -> Iterator[Call | Method]:
    x = normal(2, 3, 4)
    for layer in (
        call(norm.LayerNorm, (3, 4), eps=1e-5),
        call(norm.RMSNorm, 4, eps=1e-6, zero_centered=True),
        call(norm.ResidualBlock, norm.LayerNorm(4, eps=1e-5), nn.Linear(4, 4), "pre"),
    ):
        yield from (layer, method(layer, "forward", x))
    yield method(call(norm.LayerNorm, (3, 4), eps=1e-5), "extra_repr")
    yield method(call(norm.RMSNorm, 4, eps=None), "extra_repr")
    yield method(call(norm.RMSNorm, 4, eps=None), "gain")


def objects() -> list[Call | Method]:
    """All of this module, and the tuples that have names and no methods of their own."""
    packed = (
        torch.tensor([[1, 2]]),
        torch.tensor([[True, True]]),
        *torch.tensor([[[0, 0]], [[0, 1]]]),
    )
    return [
        *(*of_attention(), *of_bpe(), *of_components(), *of_inference(), *of_norm()),
        call(functional.PackedBatch, *packed),
        call(training.AdamState, normal(3), normal(3), normal(3).square()),
        call(training.DecoderShape, *SHAPE),
        call(training.MuonState, normal(3, 2), normal(3, 2)),
    ]
