"""Exercise on multi-head latent attention."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, table, wider
from llmref.practice.exercises._laws import without_maximum

_LOG3 = math.log(3)
_ALL = torch.tensor([[True, True]])


def _small(q: float, rope: float, *keys: tuple[float, float, float]) -> tuple[Any, ...]:
    """One query of three features and a rotary one, scale 1/2; keys as latent and rotary part.

    The head's key is the first entry of the latent, its value the second.
    """
    return (
        table([q, 0, 0])[None, None],
        table([rope])[None, None],
        table(*[list(key[:2]) for key in keys])[None],
        table(*[[key[2]] for key in keys])[None],
        table([1, 0], [0, 0], [0, 0])[None],
        table([0, 1])[None],
    )


def _random(
    B: int, H: int, T: int, S: int, D: int, R: int, M: int, V: int, seed: int
) -> tuple[Any, ...]:
    shapes = [(B, H, T, D), (B, H, T, R), (B, S, M), (B, S, R), (H, D, M), (H, V, M)]
    return tuple(normal(*shape, seed=seed + i) for i, shape in enumerate(shapes))


def _inputs() -> list[tuple[Any, ...]]:
    by_latent = _small(2, 0, (0, 8, 0), (_LOG3, 4, 0))
    causal = torch.ones(4, 6).tril(2) > 0
    some = causal.clone()
    some[0] = False
    some[3, 1:3] = False
    return [
        (*by_latent, _ALL),
        (*_small(0, 2, (0, 8, 0), (0, 4, _LOG3)), _ALL),
        (*_small(2, 2, (_LOG3, 8, 0), (0, 4, _LOG3)), _ALL),
        (*by_latent, torch.tensor([[True, False]])),
        (*by_latent, torch.tensor([[False, False]])),
        (*_small(2, 0, (200, 8, 0), (800, 4, 0)), _ALL),
        (
            *_small(2, 0, (-30000, 8, 0), (-30000, 4, 0), (0, 2, 0)),
            torch.tensor([[True, True, False]]),
        ),
        (*(torch.cat([it, 1000 * it], 2) for it in by_latent[:2]), *by_latent[2:], _ALL[[0, 0]]),
        (*_random(1, 2, 1, 3, 3, 1, 2, 2, 0), torch.ones(1, 3) > 0),
        (*_random(1, 2, 4, 6, 3, 0, 4, 5, 40), causal),
        (*_random(2, 3, 1, 5, 4, 2, 6, 7, 10), torch.ones(1, 5) > 0),
        (*_random(2, 3, 4, 6, 5, 2, 5, 3, 20), causal),
        (*_random(2, 3, 4, 6, 5, 2, 7, 8, 30), some),
    ]


def _scale(function: Function, *given: Tensor) -> bool:
    q, rope, c, k_rope, up_k, up_v, mask = given
    wide = wider(up_k.mT).mT
    after = function(wider(q), wider(rope), c, wider(k_rope), wide, up_v, mask)
    return apart(after, function(q / 2, rope / 2, c, k_rope, up_k, up_v, mask))


def _unread(function: Function, *given: Tensor) -> bool:
    q, rope, c, k_rope, up_k, up_v, mask = given
    longer = torch.cat([c, normal(*c.shape[:-1], 3, seed=1)], -1)
    maps = [torch.cat([w, w.new_zeros(*w.shape[:-1], 3)], -1) for w in (up_k, up_v)]
    return apart(function(*given), function(q, rope, longer, k_rope, *maps, mask))


def _moved(function: Function, *given: Tensor) -> bool:
    """The rotary part written into the latent, where each head's map copies it to the key."""
    q, rope, c, k_rope, up_k, up_v, mask = given
    H, D, M = up_k.shape
    R = rope.shape[-1]
    key_map = up_k.new_zeros(H, D + R, M + R)
    key_map[:, :D, :M] = up_k
    key_map[:, D:, M:] = torch.eye(R, dtype=up_k.dtype)
    value_map = torch.cat([up_v, up_v.new_zeros(*up_v.shape[:-1], R)], -1)
    joined = torch.cat([q, rope], -1), rope[..., :0], torch.cat([c, k_rope], -1), k_rope[..., :0]
    return apart(function(*given), function(*joined, key_map, value_map, mask))


def _own(function: Function, *given: Tensor) -> bool:
    q, rope, c, k_rope, up_k, up_v, mask = given
    before = function(*given)
    for head in range(len(up_k)):
        others = [h for h in range(len(up_k)) if h != head]
        keys, values = up_k.clone(), up_v.clone()
        keys[head] += 1
        values[head] -= 1
        after = function(q, rope, c, k_rope, keys, values, mask)
        if apart(before[:, others], after[:, others]):
            return True
    return False


def _hidden(function: Function, *given: Tensor) -> bool:
    q, rope, c, k_rope, up_k, up_v, mask = given
    before = function(*given)
    for key in range(c.shape[1]):
        one = (torch.arange(c.shape[1]) == key).double()[:, None]
        after = function(q, rope, c + 2 * one, k_rope - one, up_k, up_v, mask)
        rows = ~mask[:, key] & mask.any(-1)
        if apart(before[..., rows, :], after[..., rows, :]):
            return True
    return False


def _nothing(function: Function, *given: Tensor) -> bool:
    return bool((function(*given)[..., ~given[-1].any(-1), :] != 0).any())


_UP = "q_nope @ w_uk"
_SIZES = "q_nope.shape[-1] + q_rope.shape[-1]"
_SCORES = "(scale * q @ k.transpose(-2, -1))"
_FILLED = ".masked_fill(~(mask | empty), -math.inf)"
_SOFTMAX = "torch.softmax(scores, dim=-1).masked_fill(empty, 0.0)"
_JOINED = "torch.cat([w_uk, w_uv], 1).flatten(0, 1)"

MLA_DECODE = Exercise(
    name="mla_decode",
    topic="attention/latent",
    level=2,
    task=(
        "Latent attention without forming any head's keys or values: queries q_nope (B, H, T, D) "
        "and rotated q_rope (B, H, T, Dr), normed latents c (B, S, Dc) and rotated k_rope "
        "(B, S, Dr), maps w_uk (H, D, Dc) and w_uv (H, Dv, Dc) from latents to keys and values; "
        "mask (T, S) is True where a query may read, a query that may read nothing gets 0, and "
        "scores may be large."
    ),
    inputs=_inputs,
    definition="attention-mla",
    laws=(
        Law(
            "Four times as many features of queries and keys, the new ones 0, halve all scores.",
            "attention-mla",
            _scale,
        ),
        Law(
            "Entries of the latent that no head reads change nothing, not even the scale.",
            "attention-mla-absorb",
            _unread,
        ),
        Law(
            "The rotary part may stand in the latent instead, if each head copies it to its key.",
            "attention-mla",
            _moved,
        ),
        Law("The maps of a head change its own output only.", "attention-mla", _own),
        Law("A key that the mask hides changes nothing.", "attention-mla-absorb", _hidden),
        Law("A query that may read nothing gets 0.", "attention-mla-absorb", _nothing),
    ),
    mistakes=(
        Mistake(
            "scale 1/sqrt(Dc + Dr)",
            "The absorbed query is longer, but its product with the latent is the old score: the "
            "scale is that of the key before absorption.",
            ((_SIZES, "q.shape[-1]"),),
        ),
        Mistake(
            "scale 1/sqrt(D)",
            "The score is a sum over D + Dr products.",
            ((_SIZES, "q_nope.shape[-1]"),),
        ),
        Mistake(
            "rotary part lost",
            "Without it no score knows a position.",
            (("[q_nope @ w_uk, q_rope]", "[q_nope @ w_uk, 0 * q_rope]"),),
        ),
        Mistake(
            "w_uk viewed as (Dc, D)",
            "Absorbing multiplies by the transpose of the map, which q @ w_uk does; a view in the "
            "other order is no transpose, and fits all shapes.",
            ((_UP, "q_nope @ w_uk.reshape(len(w_uk), -1, q_nope.shape[-1]).transpose(-2, -1)"),),
        ),
        Mistake(
            "all keys first, then all values",
            "The rows of the joint map go head by head, the keys and then the values of each; "
            "halves have the right shapes.",
            (
                (_UP, f"q_nope @ {_JOINED}[: w_uk.shape[0] * w_uk.shape[1]].view_as(w_uk)"),
                (
                    "w_uv.transpose",
                    f"{_JOINED}[w_uk.shape[0] * w_uk.shape[1] :].view_as(w_uv).transpose",
                ),
            ),
        ),
        Mistake(
            "the latent normed once more",
            "The cache holds the latent after its norm; only a gain of 1 would make it harmless.",
            (
                (
                    "[c, k_rope]",
                    "[c * (c.square().mean(-1, keepdim=True) + 1e-6) ** -0.5, k_rope]",
                ),
            ),
        ),
        Mistake(
            "two softmaxes multiplied, not renormalised",
            "The two parts of a score are added before one softmax; a product of two softmaxes "
            "does not sum to 1.",
            (
                (
                    _SOFTMAX,
                    "math.prod("
                    f"torch.softmax((scale * a @ b.transpose(-2, -1)){_FILLED}, dim=-1) "
                    "for a, b in ((q_nope @ w_uk, c[:, None]), (q_rope, k_rope[:, None]))"
                    ").masked_fill(empty, 0.0)",
                ),
            ),
        ),
        Mistake(
            "the key map of one head for all",
            "The key is shared only after each head's own map has gone to its query.",
            ((_UP, "q_nope @ w_uk[:1]"),),
        ),
        Mistake(
            "the value map of one head for all",
            "Heads share the latents, and each makes its own values of them.",
            (("w_uv.transpose", "w_uv[:1].transpose"),),
        ),
        Mistake(
            "masked after the softmax",
            "The hidden keys took part in the sum, so what is left does not sum to 1.",
            (
                (_FILLED, ""),
                (_SOFTMAX, "torch.softmax(scores, dim=-1) * mask"),
            ),
        ),
        Mistake(
            "-inf, empty row NaN",
            "A row of minus infinities alone has no largest entry to subtract.",
            (("~(mask | empty)", "~mask"), (".masked_fill(empty, 0.0)", "")),
        ),
        Mistake(
            "an empty row reads the mean of all values",
            "Where nothing is allowed nothing is read: the weights are 0.",
            ((".masked_fill(empty, 0.0)", ""),),
        ),
        Mistake(
            "a finite number for minus infinity",
            "Scores may be below -10000, and then what is hidden has all the weight.",
            (("-math.inf", "-1e4"),),
        ),
        without_maximum(
            (
                (
                    _SOFTMAX,
                    "scores.exp().masked_fill(empty, 0.0); "
                    "weights = weights / weights.sum(-1, keepdim=True).masked_fill(empty, 1.0)",
                ),
            )
        ),
    ),
    conventions=(
        Convention(
            "True for blocked",
            "nn.MultiheadAttention takes boolean masks so. To match, invert the mask.",
            (
                ("~mask.any(", "mask.all("),
                ("~(mask | empty)", "mask & ~empty"),
            ),
        ),
        Convention(
            "scale of a YaRN checkpoint",
            "DeepSeek-V3 stretches its context by 40 and multiplies the scale by the square of "
            "0.1 log 40 + 1. To match, leave the factor out.",
            ((") ** -0.5", ") ** -0.5 * (0.1 * math.log(40) + 1) ** 2"),),
        ),
    ),
    hints=(
        "The score of a head is a product with its map in the middle: let the query have the map.",
        "Then all heads score one key, the latent beside its rotary part, and the value is the "
        "latent.",
        "Which size had the key that the scale was made for?",
    ),
    branches={
        "the rotary part alone decides": lambda q, rope, c, k_rope, *_: bool(
            (q == 0).all() and (rope != 0).any()
        ),
        "a query that may read nothing": lambda *given: bool((~given[-1].any(-1)).any()),
        "a key that is hidden": lambda *given: bool((~given[-1]).any()),
        "scores that overflow": lambda q, rope, c, *_: bool((c > 710).any()),
        "scores below -20000": lambda q, rope, c, *_: bool((c < -20000).any()),
        "a latent as long as the key": lambda *given: given[4].shape[1] == given[4].shape[2],
        "a latent that is longer": lambda *given: given[4].shape[1] < given[4].shape[2],
        "no rotary part": lambda q, rope, *_: rope.shape[-1] == 0,
        "several heads and queries": lambda q, *_: q.shape[1] > 1 and q.shape[2] > 1,
    },
)

EXERCISES = (MLA_DECODE,)
