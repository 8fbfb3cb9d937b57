"""Exercises on a decoder: one block, the whole of it, and its number of parameters."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, rows, table

Weights = tuple[Tensor, ...]
Cache = tuple[Tensor, Tensor] | None


def _weights(C: int, H: int, G: int, D: int, F: int, seed: int = 0) -> Weights:
    """Gains, and matrices that make scores and branches of the size of the stream."""
    shapes = [(H * D, C), (G * D, C), (G * D, C), (C, H * D), (F, C), (F, C), (C, F)]
    q, k, v, o, gate, up, down = (
        normal(*shape, seed=seed + place) * shape[1] ** -0.5
        for place, shape in enumerate(shapes, start=1)
    )
    first, second = (rows(C, seed=seed + place).abs() + 0.25 for place in (8, 9))
    return first, q, k, v, o, second, gate, up, down


def _cache(B: int, G: int, old: int, D: int, seed: int) -> Cache:
    if not old:
        return None
    return normal(B, G, old, D, seed=seed), normal(B, G, old, D, seed=seed + 1)


def _block(
    B: int, T: int, C: int, H: int, G: int, D: int, F: int, old: int, seed: int, eps: float = 1e-2
) -> tuple[Any, ...]:
    h = normal(B, T, C, seed=seed)
    return h, _weights(C, H, G, D, F, seed), H, G, 100.0, eps, _cache(B, G, old, D, seed + 10)


def _small() -> Weights:
    """Two features, one head, matrices of zeros and ones."""
    one, swap = table([1.0, 0.0], [0.0, 1.0]), table([0.0, 1.0], [1.0, 0.0])
    up, down = table([1.0, 1.0]), table([1.0], [0.0])
    return number(1, 1), one, one, one, swap, number(1, 2), table([2.0, 0.0]), up, down


def _blocks() -> list[tuple[Any, ...]]:
    return [
        (table([[3.0, 4.0]]), _small(), 1, 1, 100.0, 0.5, None),
        (table([[1.0, 0.0], [0.0, 2.0]]), _small(), 1, 1, 100.0, 0.0, None),
        _block(1, 1, 3, 2, 1, 2, 4, 2, 20),
        _block(1, 3, 4, 2, 2, 4, 3, 0, 40),
        _block(2, 1, 5, 4, 2, 4, 3, 3, 60, 0.0),
        _block(2, 3, 6, 4, 2, 4, 5, 2, 80),
    ]


def _still(function: Function, h: Tensor, w: Weights, *rest: Any) -> bool:
    silent = (*w[:4], 0 * w[4], *w[5:8], 0 * w[8])
    return apart(function(h, silent, *rest)[0], h)


def _later(function: Function, h: Tensor, w: Weights, *rest: Any) -> bool:
    changed = torch.cat([h[:, :-1], h[:, -1:].flip(-1) + 1], 1)
    return apart(function(h, w, *rest)[0][:, :-1], function(changed, w, *rest)[0][:, :-1])


def _divided(function: Function, h: Tensor, w: Weights, *rest: Any) -> bool:
    *options, cache = rest
    whole, parts = function(h, w, *options, cache)[0], []
    for place in range(h.shape[1]):
        out, cache = function(h[:, place : place + 1], w, *options, cache)
        parts.append(out)
    return apart(whole, torch.cat(parts, 1))


def _scaled(function: Function, h: Tensor, w: Weights, *rest: Any) -> bool:
    H, G, base, _, cache = rest
    loud = (*w[:4], 8 * w[4], *w[5:8], 8 * w[8])
    out = function(8 * h, loud, H, G, base, 0.0, cache)[0]
    return apart(out, 8 * function(h, w, H, G, base, 0.0, cache)[0])


_ROPE = "rope(q, start, base), rope(k, start, base)"

DECODER_BLOCK = Exercise(
    name="decoder_block",
    topic="components/decoder",
    level=3,
    task="One layer of Llama on the stream h (B, T, C), rotations in the half layout. w holds the "
    "first gain, q, k, v, o, the second gain, gate, up and down; matrices are (out, in). cache is "
    "None or the rotated keys and the values (B, G, S, D) of earlier tokens; return the stream and "
    "the longer pair.",
    inputs=_blocks,
    definition="decoder-forward",
    laws=(
        Law("With wo and w_down 0 nothing is added to the stream.", "decoder-forward", _still),
        Law("A later token changes no earlier output.", "decoder-causal", _later),
        Law("A chunk gives what its tokens give one by one.", "decoder-causal", _divided),
        Law(
            "Without eps, h, wo and w_down times 8 give 8 times the output.",
            "decoder-stream-scale",
            _scaled,
        ),
    ),
    mistakes=(
        Mistake(
            "norm after the sum",
            "That is the first Transformer. Here branches read a normed copy, and the stream "
            "itself is never normed.",
            (
                ("x = rms(h, g1, eps)", "x = h"),
                (
                    "h = h + a.transpose(1, 2).flatten(2) @ wo.T",
                    "h = rms(h + a.transpose(1, 2).flatten(2) @ wo.T, g1, eps)",
                ),
                ("x = rms(h, g2, eps)", "x = h"),
                ("return h, (k, v)", "return rms(h, g2, eps), (k, v)"),
            ),
        ),
        Mistake(
            "the two norms exchanged",
            "Both gains have the shape (C,): post_attention_layernorm is the one before the "
            "feed-forward layer.",
            (("g1, wq, wk, wv, wo, g2,", "g2, wq, wk, wv, wo, g1,"),),
        ),
        Mistake(
            "norm before attention forgotten",
            "Every branch reads a normed copy.",
            (("x = rms(h, g1, eps)", "x = h"),),
        ),
        Mistake(
            "the second branch reads the old norm",
            "It is normed anew: attention has written to the stream.",
            (("x = rms(h, g2, eps)", "x = x"),),
        ),
        Mistake(
            "interleaved pairs",
            "Weights of transformers are stored for the half layout; all shapes fit, and the text "
            "is nonsense.",
            (
                (
                    f"q, k = {_ROPE}",
                    "q, k = (rope(z.unflatten(-1, (-1, 2)).mT.flatten(-2), start, base)"
                    ".unflatten(-1, (2, -1)).mT.flatten(-2) for z in (q, k))",
                ),
            ),
        ),
        Mistake(
            "positions from 0 with a cache",
            "The new tokens follow those in the cache.",
            ((_ROPE, "rope(q, 0, base), rope(k, 0, base)"),),
        ),
        Mistake(
            "query not rotated",
            "Both are rotated, then their score depends on the distance alone.",
            ((_ROPE, "q, rope(k, start, base)"),),
        ),
        Mistake(
            "no causal mask",
            "A prompt is one chunk: its tokens would read later ones.",
            ((".tril(start)", ""),),
        ),
        Mistake(
            "mask aligned at the upper left",
            "The chunk is at the end of what is held: its first token sees all of that.",
            ((".tril(start)", ".tril()"),),
        ),
        Mistake(
            "one token ahead",
            "A token sees itself and what came before.",
            ((".tril(start)", ".tril(start + 1)"),),
        ),
        Mistake(
            "heads cut without the transpose",
            "Positions and heads are mixed up, and the shape is the same.",
            (
                ("(x @ wq.T).view(B, T, H, -1).transpose(1, 2)", "(x @ wq.T).view(B, H, T, -1)"),
                ("(x @ m.T).view(B, T, G, -1).transpose(1, 2)", "(x @ m.T).view(B, G, T, -1)"),
            ),
        ),
        Mistake(
            "attention not added",
            "A branch adds to the stream; it does not replace it.",
            (("h = h + a.", "h = a."),),
        ),
        Mistake(
            "gate and up exchanged",
            "Both have the same shape; silu acts on the gate.",
            (("silu(x @ w_gate.T) * (x @ w_up.T)", "silu(x @ w_up.T) * (x @ w_gate.T)"),),
        ),
        Mistake(
            "two matrices in the feed-forward layer",
            "SwiGLU has three: the gate is multiplied by up.",
            (("silu(x @ w_gate.T) * (x @ w_up.T)", "silu(x @ w_gate.T)"),),
        ),
        Mistake(
            "eps ignored",
            "It is given, and differs between models.",
            (("rms(h, g1, eps)", "rms(h, g1, 0.0)"), ("rms(h, g2, eps)", "rms(h, g2, 0.0)")),
        ),
    ),
    conventions=(
        Convention(
            "attention and feed-forward in parallel",
            "GPT-NeoX has both branches read the same stream, GPT-J with one norm for the two. To "
            "match, let the second branch read what attention has written.",
            (
                ("h = h + a.", "added = h + a."),
                ("h = h + (silu", "h = added + (silu"),
            ),
        ),
        Convention(
            "gain 1 + w",
            "Gemma stores gains minus 1. To match, multiply by w itself.",
            (
                ("rms(h, g1, eps)", "rms(h, 1 + g1, eps)"),
                ("rms(h, g2, eps)", "rms(h, 1 + g2, eps)"),
            ),
        ),
    ),
    hints=(
        "Two lines of the same form: the stream, plus what a branch computes from its norm.",
        "How many tokens came before? Rotations and the mask both need that number.",
        "Rotate keys before they enter the cache; values are never rotated.",
    ),
    branches={
        "a cache": lambda h, w, H, G, base, eps, cache: cache is not None,
        "heads that share keys": lambda h, w, H, G, *rest: G < H,
        "several new tokens": lambda h, *rest: h.shape[1] > 1,
        "a chunk after a cache": lambda h, *rest: h.shape[1] > 1 and rest[-1] is not None,
        "a head size that is not C / H": lambda h, w, H, *rest: len(w[1]) != h.shape[-1],
    },
)


def _model(
    B: int, T: int, V: int, L: int, old: int, seed: int, *, tied: bool = False, eps: float = 1e-2
) -> tuple[Any, ...]:
    C, H, G, D, F = 4, 2, 1, 4, 3
    ids = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    layers = [_weights(C, H, G, D, F, seed + 20 * place) for place in range(L)]
    embedding, head = (normal(V, C, seed=seed + place) for place in (100, 101))
    caches = [_cache(B, G, old, D, seed + 10 * place) for place in range(L)] if old else None
    return (
        *(ids, embedding, layers, rows(C, seed=seed + 102)),
        *(None if tied else head, H, G, 100.0, eps, caches),
    )


def _models() -> list[tuple[Any, ...]]:
    two, three = table([1.0, 0.0], [0.0, 2.0]), table([0.0, 1.0], [1.0, 1.0], [2.0, 0.0])
    return [
        (torch.tensor([[1]]), two, [_small()], number(1, 1), None, 1, 1, 100.0, 0.5, None),
        (torch.tensor([[1]]), two, [_small()], number(1, 1), three, 1, 1, 100.0, 0.0, None),
        _model(1, 2, 3, 1, 0, 200),
        _model(2, 3, 5, 1, 1, 300, tied=True),
        _model(2, 3, 7, 2, 2, 400),
    ]


def _later_id(function: Function, ids: Tensor, embedding: Tensor, *rest: Any) -> bool:
    changed = torch.cat([ids[:, :-1], (ids[:, -1:] + 1) % len(embedding)], 1)
    before, after = (function(it, embedding, *rest)[0][:, :-1] for it in (ids, changed))
    return apart(before, after)


def _untied(given: tuple[Any, ...]) -> list[Any]:
    """The same with a head of its own."""
    out = list(given)
    if out[4] is None:
        out[4] = out[1].flip(0) + 1
    return out


def _linear_head(function: Function, *given: Any) -> bool:
    one = _untied(given)
    twice = [*one[:4], 2 * one[4], *one[5:]]
    return apart(function(*twice)[0], 2 * function(*one)[0])


def _loud(function: Function, *given: Any) -> bool:
    """Without eps, embedding, wo and w_down times 8."""
    one = _untied(given)
    one[8] = 0.0
    layers = [(*w[:4], 8 * w[4], *w[5:8], 8 * w[8]) for w in one[2]]
    loud = [one[0], 8 * one[1], layers, *one[3:]]
    return apart(function(*loud)[0], function(*one)[0])


def _divided_ids(function: Function, ids: Tensor, *rest: Any) -> bool:
    *options, caches = rest
    whole, parts = function(ids, *options, caches)[0], []
    for place in range(ids.shape[1]):
        logits, caches = function(ids[:, place : place + 1], *options, caches)
        parts.append(logits)
    return apart(whole, torch.cat(parts, 1))


DECODER = Exercise(
    name="decoder",
    topic="components/decoder",
    level=3,
    task="Logits (B, T, V) of a whole decoder for ids (B, T), and the list of its caches, which "
    "is None at first; layers are the w of decoder_block, which you write too. gain is that of the "
    "final norm; head is (V, C), or None where it is tied.",
    inputs=_models,
    definition="decoder-forward",
    laws=(
        Law("A head of twice the size gives twice the logits.", "decoder-forward", _linear_head),
        Law("A later token changes no earlier logit.", "decoder-causal", _later_id),
        Law("A chunk gives what its tokens give one by one.", "decoder-causal", _divided_ids),
        Law(
            "Without eps and untied, embedding, wo and w_down times 8 change no logit.",
            "decoder-stream-scale",
            _loud,
        ),
    ),
    mistakes=(
        Mistake(
            "no final norm",
            "The head reads a normed copy of the stream too.",
            (("rms(h, gain, eps) @", "h @"),),
        ),
        Mistake(
            "untied head left out",
            "A checkpoint with a head of its own is to be read with it; with the embedding it "
            "gives fluent nonsense.",
            (("embedding if head is None else head", "embedding"),),
        ),
        Mistake(
            "the cache of the first layer for all",
            "Every layer has keys and values of its own.",
            (("caches[i] if", "caches[0] if"),),
        ),
        Mistake(
            "caches ignored",
            "Then every chunk is a text of its own.",
            (("caches[i] if caches else None", "None"),),
        ),
        Mistake(
            "eps of the final norm ignored",
            "All norms have the same eps.",
            (("rms(h, gain, eps)", "rms(h, gain, 0.0)"),),
        ),
        Mistake(
            "layers in reverse",
            "The first layer reads the embedding.",
            (("enumerate(layers)", "enumerate(layers[::-1])"),),
        ),
        Mistake(
            "ids in reverse",
            "Positions count from the first token; a later one is never seen.",
            (
                ("embedding[ids], []", "embedding[ids.flip(1)], []"),
                ("rms(h, gain, eps)", "rms(h.flip(1), gain, eps)"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "embedding times the root of C",
            "Gemma does so, because its embedding is tied to the head. To match, leave the rows as "
            "they are.",
            (("embedding[ids], []", "embedding[ids] * embedding.shape[1] ** 0.5, []"),),
        ),
        Convention(
            "gain 1 + w",
            "Gemma stores gains minus 1. To match, multiply by the gain itself.",
            (("rms(h, gain, eps)", "rms(h, 1 + gain, eps)"),),
        ),
        Convention(
            "tied logits over the root of C",
            "T5 does so where head and embedding are tied. To match, leave them as they are.",
            (
                (
                    "head = embedding if head is None",
                    "head = embedding * len(gain) ** -0.5 if head is None",
                ),
            ),
        ),
    ),
    hints=(
        "Look up, run the layers in turn, normalise once more, multiply by the head.",
        "Each layer takes its own cache and gives a longer one back: collect them.",
        "What is the head of a tied model?",
    ),
    branches={
        "a head of its own": lambda *given: given[4] is not None,
        "two layers": lambda ids, embedding, layers, *rest: len(layers) > 1,
        "caches": lambda *given: given[-1] is not None,
    },
)


EXERCISES = (DECODER_BLOCK, DECODER)
