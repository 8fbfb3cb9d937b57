"""Exercise on attention with a cache of keys and values."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import heads, normal, number, wider
from llmref.practice.exercises._laws import LawOfForms, without_maximum

Cache = tuple[Tensor, Tensor] | None
_LOG3 = math.log(3)


def _random(B: int, H: int, chunk: int, old: int, D: int, seed: int) -> tuple[Any, ...]:
    q, k, v = (normal(B, H, chunk, D, seed=seed + i) for i in range(3))
    if not old:
        return q, k, v, None
    return q, k, v, (normal(B, H, old, D, seed=seed + 3), normal(B, H, old, D, seed=seed + 4))


def _one_token(first: float, second: float) -> Tensor:
    return number(first, second, 0, 0).reshape(1, 1, 1, 4)


def _inputs() -> list[tuple[Any, ...]]:
    return [
        (heads(1), heads(2), heads(8), None),
        (heads(1), heads(_LOG3), heads(4), (heads(0), heads(8))),
        (heads(1), heads(800), heads(4), (heads(200), heads(8))),
        (heads(1, 1), heads(0, _LOG3), heads(8, 4), None),
        (heads(1, 1), heads(-30000, -29940), heads(8, 4), None),
        (heads(1, 1000), heads(_LOG3, 0), heads(8, 4), None),
        (heads(1, 1), heads(_LOG3, 0), heads(4, 10), (heads(0), heads(8))),
        (
            _one_token(2, 0),
            _one_token(_LOG3, 0),
            _one_token(4, 0),
            (_one_token(0, 1), _one_token(8, 0)),
        ),
        _random(1, 2, 2, 1, 4, 0),
        _random(2, 3, 1, 5, 4, 5),
        _random(2, 3, 4, 0, 5, 10),
        _random(2, 3, 4, 2, 5, 15),
    ]


def _divided(function: Function, q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> bool:
    whole = function(q, k, v, cache)[0]
    parts = []
    for i in range(q.shape[-2]):
        now = slice(i, i + 1)
        out, cache = function(q[..., now, :], k[..., now, :], v[..., now, :], cache)
        parts.append(out)
    return apart(whole, torch.cat(parts, -2))


def _later(function: Function, q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> bool:
    last = (torch.arange(k.shape[-2]) == k.shape[-2] - 1).double()[:, None]
    before, after = (function(q, k + it, v + it, cache)[0] for it in (0 * last, last))
    return apart(before[..., :-1, :], after[..., :-1, :])


def _kept(function: Function, q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> bool:
    keys, values = function(q, k, v, cache)[1]
    old = cache[0].shape[-2] if cache else 0
    if keys.shape[-2] != old + k.shape[-2]:
        return True
    began = cache is not None and (
        apart(keys[..., :old, :], cache[0]) or apart(values[..., :old, :], cache[1])
    )
    return began or apart(keys[..., old:, :], k) or apart(values[..., old:, :], v)


def _alone(function: Function, q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> bool:
    out = function(q, k, v, None)[0][..., 0, :]
    return not bool(out.isfinite().all()) or apart(out, v[..., 0, :])


def _scale(function: Function, q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> bool:
    wide = None if cache is None else tuple(map(wider, cache))
    out = function(wider(q), wider(k), wider(v), wide)[0]
    return apart(out[..., : v.shape[-1]], function(q / 2, k, v, cache)[0])


_KEYS, _VALUES = "torch.cat([cache[0], k], dim=-2)", "torch.cat([cache[1], v], dim=-2)"

KV_CACHE_STEP = Exercise(
    name="kv_cache_step",
    topic="attention/kv_cache",
    level=2,
    task=(
        "Causal attention of a chunk of new tokens, each of q, k and v (B, H, c, D), that "
        "extends a cache: None, or the pair of the keys and values of all earlier tokens; "
        "return the output and the longer cache; scores may be large, of both signs."
    ),
    inputs=_inputs,
    definition="attention-cache-exact",
    laws=(
        LawOfForms(
            "The new cache is the old one, followed by the keys and values of the chunk.",
            "attention-cache-exact",
            _kept,
        ),
        Law("A later token changes no earlier output.", "attention-cache-exact", _later),
        Law("A chunk gives what its tokens give one by one.", "attention-cache-exact", _divided),
        Law("Without a cache the first token reads itself alone.", "attention-cache-exact", _alone),
        Law(
            "Four times as many features, the new ones 0, halve all scores.",
            "attention-cache-exact",
            _scale,
        ),
    ),
    mistakes=(
        Mistake(
            "no causal mask",
            "One token needs none, but in a longer chunk a token would read later ones.",
            (("triu(T - c + 1)", "triu(T)"),),
        ),
        Mistake(
            "mask aligned at the upper left",
            "The chunk is at the end: its first token reads all of the cache and itself.",
            (("triu(T - c + 1)", "triu(1)"),),
        ),
        Mistake(
            "the token does not see itself",
            "The key of a token is in the cache when its query is answered.",
            (("triu(T - c + 1)", "triu(T - c)"),),
        ),
        Mistake(
            "a finite number for minus infinity",
            "Scores may be below -30 and below -10000, and then what is hidden has all the weight.",
            (("-torch.inf", "-30.0"),),
        ),
        Mistake(
            "masked after the softmax",
            "The hidden keys took part in the sum, so what is left does not sum to 1.",
            (
                (
                    "torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)",
                    "torch.softmax(scores, dim=-1).masked_fill(future, 0.0)",
                ),
            ),
        ),
        Mistake(
            "mask inverted",
            "True marks what is hidden here, and masked_fill fills where it is True.",
            (("masked_fill(future", "masked_fill(~future"),),
        ),
        Mistake(
            "new keys put before the old ones",
            "The mask goes by order, and the next step adds to the end.",
            (
                (_KEYS, "torch.cat([k, cache[0]], dim=-2)"),
                (_VALUES, "torch.cat([v, cache[1]], dim=-2)"),
            ),
        ),
        Mistake(
            "the cache replaced by the new chunk",
            "Later tokens need the keys and values of all earlier ones.",
            (("(k, v)", "(k[..., T - c :, :], v[..., T - c :, :])"),),
        ),
        Mistake(
            "old values taken for old keys",
            "The cache is the pair of keys and values, in this order.",
            (("cache[0], k", "cache[1], k"),),
        ),
        Mistake(
            "no scale",
            "Scores are divided by the root of the size of a head.",
            ((" / q.shape[-1] ** 0.5", ""),),
        ),
        without_maximum(
            (
                (
                    "torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)",
                    "torch.exp(scores.masked_fill(future, -torch.inf)); "
                    "weights = weights / weights.sum(-1, keepdim=True)",
                ),
            )
        ),
    ),
    hints=(
        "Put new keys and values after the old ones; then it is attention with a mask.",
        "There are fewer queries than keys: at which position does the first one stand?",
        "The first token of the chunk reads the whole cache and itself.",
    ),
    branches={
        "no cache": lambda q, k, v, cache: cache is None,
        "one token after others": lambda q, k, v, cache: cache is not None and q.shape[-2] == 1,
        "a chunk after a cache": lambda q, k, v, cache: cache is not None and q.shape[-2] > 1,
        "scores that overflow": lambda q, k, v, cache: bool((k > 710).any()),
        "scores below -20000": lambda q, k, v, cache: bool((k < -20000).any()),
        "a chunk longer than the cache": lambda q, k, v, cache: (
            cache is not None and q.shape[-2] > cache[0].shape[-2]
        ),
    },
)

EXERCISES = (KV_CACHE_STEP,)
