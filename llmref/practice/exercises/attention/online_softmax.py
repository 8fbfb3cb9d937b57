"""Exercises on softmax in one pass and on attention over blocks of keys."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, wider

_LOG3 = math.log(3)


def _scores() -> list[tuple[Any, ...]]:
    return [
        (number(2.0),),
        (number(0.0, _LOG3),),
        (number(_LOG3, 0.0),),
        (number(1000.0, 1001.0),),
        (number(-30000.0, -30000.0),),
        (number(-torch.inf, 0.0),),
        (number(0.0, -torch.inf, 1.0),),
        (torch.tensor([[0.0, 1.0], [1000.0, 1001.0]]).double(),),
        (torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, -1.0]]).double(),),
        (3 * normal(2, 3, 5),),
    ]


def _column(*entries: float) -> Tensor:
    return number(*entries)[:, None]


def _random(T: int, S: int, D: int, Dv: int, block: int, *lead: int) -> tuple[Any, ...]:
    q, k = normal(*lead, T, D, seed=S), normal(*lead, S, D, seed=S + 1)
    return 2 * q, k, normal(*lead, S, Dv, seed=S + 2), block


def _blocks() -> list[tuple[Any, ...]]:
    values = _column(8, 4)
    return [
        (_column(1), _column(5), values[:1], 1),
        (_column(1), _column(0, _LOG3), values, 1),
        (_column(1), _column(_LOG3, 0), values, 1),
        (_column(1), _column(-30000, -30000), values, 2),
        (_column(1, 1000), _column(0, _LOG3), values, 1),
        (_column(1), _column(0, 0, _LOG3), _column(8, 8, 4), 2),
        (_column(1), _column(0, 800, -800), _column(8, 4, 2), 1),
        (_column(1), _column(0, 800, -800), _column(8, 4, 2), 2),
        (number(2, 0, 0, 0)[None], torch.eye(2, 4).double() * _LOG3, values, 1),
        _random(2, 3, 4, 5, 64),
        _random(3, 8, 4, 5, 2, 2),
        _random(4, 7, 5, 6, 3, 2, 3),
    ]


def _sums(function: Function, x: Tensor) -> bool:
    return apart(function(x).sum(-1), torch.ones_like(x[..., 0]))


def _order(function: Function, x: Tensor) -> bool:
    return apart(function(x.flip(-1)), function(x).flip(-1))


def _far(function: Function, x: Tensor) -> bool:
    return any(not bool(function(x + far).isfinite().all()) for far in (2000, -2000))


def _any_block(function: Function, q: Tensor, k: Tensor, v: Tensor, block: int) -> bool:
    results = [function(q, k, v, size) for size in (1, 2, block, k.shape[-2])]
    return any(apart(results[-1], it) for it in results)


def _any_order(function: Function, q: Tensor, k: Tensor, v: Tensor, block: int) -> bool:
    return apart(function(q, k, v, block), function(q, k.flip(-2), v.flip(-2), block))


def _average(function: Function, q: Tensor, k: Tensor, v: Tensor, block: int) -> bool:
    out = function(q, k, torch.ones_like(v), block)
    return bool(out.isnan().any()) or apart(out, torch.ones_like(out))


def _scale(function: Function, q: Tensor, k: Tensor, v: Tensor, block: int) -> bool:
    return apart(function(wider(q), wider(k), v, block), function(q / 2, k, v, block))


_SUM = "total * torch.exp(m - m_new)"
_START = "torch.full_like(x[..., 0], torch.finfo(x.dtype).min)"

ONLINE_SOFTMAX = Exercise(
    name="online_softmax",
    topic="attention/online_softmax",
    level=2,
    task=(
        "Softmax of each row (last axis), with the largest score and the sum kept in one pass "
        "over the scores (the result is judged, not the pass); they have any size, and some, "
        "even the first, are minus infinity."
    ),
    inputs=_scores,
    definition="attention-online-recurrence",
    laws=(
        Law(
            "The order of the scores does not matter.",
            "attention-online-monoid",
            _order,
        ),
        Law("The probabilities of each row sum to 1.", "attention-online-exact", _sums),
        Law(
            "Scores that are all large, or all far below 0, give numbers.",
            "attention-online-exact",
            _far,
        ),
    ),
    mistakes=(
        Mistake(
            "sum not rescaled",
            "What was summed is relative to the old maximum, and has to move to the new one.",
            ((_SUM, "total"),),
        ),
        Mistake(
            "rescaled with the other sign",
            "The sum shrinks when the maximum grows: the exponent is the old minus the new.",
            ((_SUM, "total * torch.exp(m_new - m)"),),
        ),
        Mistake(
            "m starts too high",
            "At 0 or at -10000 it may be above all scores: then each exponential is 0, and so is "
            "the sum.",
            ((_START, "torch.zeros_like(x[..., 0])"),),
        ),
        Mistake(
            "m starts at minus infinity",
            "If the first score is minus infinity too, their difference is not a number.",
            ((_START, "torch.full_like(x[..., 0], -torch.inf)"),),
        ),
        Mistake(
            "the last score for the largest",
            "The sum is relative to the largest score, so the numerators must be too.",
            (("torch.exp(x - m[..., None])", "torch.exp(x - x[..., -1:])"),),
        ),
        Mistake(
            "no maximum at all",
            "The exponential of 710 is beyond float64, that of 89 beyond float32.",
            (("torch.maximum(m, score)", "torch.zeros_like(m)"),),
        ),
    ),
    hints=(
        "Keep two numbers for each row: the largest score so far, and a sum relative to it.",
        "When a larger score comes, what was summed is relative to the old one.",
        "Which start is below every score, and still a number?",
    ),
    branches={
        "the largest score first": lambda x: bool((x[..., 0] == x.amax(-1)).all()),
        "a score larger than those before": lambda x: bool((x[..., 1:] > x[..., :1]).any()),
        "minus infinity first": lambda x: bool(x[..., 0].isneginf().any()),
        "scores that overflow": lambda x: bool((x > 710).any()),
        "scores that underflow": lambda x: bool((x < -750).all()),
        "several rows": lambda x: x.ndim > 1,
    },
)

FLASH_ATTENTION = Exercise(
    name="flash_attention",
    topic="attention/online_softmax",
    level=3,
    task=(
        "Attention of q (..., T, D) to k (..., S, D) and v (..., S, Dv) without a mask, that "
        "reads `block` keys at a time, whatever the size of the scores; that it never stores "
        "all of them is not judged."
    ),
    inputs=_blocks,
    definition="attention-online-exact",
    laws=(
        Law("The size of a block changes nothing.", "attention-online-exact", _any_block),
        Law(
            "The order of keys with their values changes nothing.",
            "attention-online-monoid",
            _any_order,
        ),
        Law("If all values are 1, so are all outputs.", "attention-online-exact", _average),
        Law(
            "Four times as many features, the new ones 0, halve all scores.",
            "attention-online-exact",
            _scale,
        ),
    ),
    mistakes=(
        Mistake(
            "sums not rescaled",
            "Both sums are relative to the old maximum, and have to move to the new one.",
            (("rescale = torch.exp(m - m_new)", "rescale = torch.ones_like(m)"),),
        ),
        Mistake(
            "only l rescaled",
            "The sum of values is relative to the old maximum as much as the sum of weights.",
            (("rescale * out", "out"),),
        ),
        Mistake(
            "only o rescaled",
            "The sum of weights is relative to the old maximum as much as the sum of values.",
            (("rescale * total", "total"),),
        ),
        Mistake(
            "no scale",
            "Scores are divided by the root of the number of features.",
            (("q = q / q.shape[-1] ** 0.5", "q = q.clone()"),),
        ),
        Mistake(
            "the last, shorter block left out",
            "Keys need not be a multiple of the block; a slice beyond the end is just shorter.",
            (("range(0, k.shape[-2], block)", "range(0, k.shape[-2] - block + 1, block)"),),
        ),
        Mistake(
            "not divided by l",
            "The sum of the values is relative to m; the weights sum to l, not to 1.",
            (("return out / total", "return out"),),
        ),
        Mistake(
            "divided in each step and at the end",
            "Either keep an average and move it, or keep a sum and divide it once at the end.",
            (("        m = m_new", "        out, m = out / total, m_new"),),
        ),
        Mistake(
            "no maximum at all",
            "The exponential of 710 is beyond float64, that of 89 beyond float32.",
            (("torch.maximum(m, scores.amax(-1, keepdim=True))", "torch.zeros_like(m)"),),
        ),
        Mistake(
            "m starts too high",
            "At 0 or at -10000 it may be above all scores: then each exponential is 0, and so are "
            "both sums.",
            (
                (
                    "torch.full_like(q[..., :1], torch.finfo(q.dtype).min)",
                    "torch.zeros_like(q[..., :1])",
                ),
            ),
        ),
    ),
    hints=(
        "Keep three things for each query: the largest score, a sum of weights, a sum of values.",
        "When the largest score grows, both sums are relative to the old one.",
        "Divide one sum by the other, once, after the last block.",
    ),
    branches={
        "a last, shorter block": lambda q, k, v, block: k.shape[-2] % block > 0,
        "a block longer than all keys": lambda q, k, v, block: block > k.shape[-2],
        "several blocks": lambda q, k, v, block: block < k.shape[-2],
        "scores far below 0": lambda q, k, v, block: bool((k < -750).all()),
        "scores 800 apart": lambda q, k, v, block: bool((k.amax() - k.amin()) > 750),
        "several heads": lambda q, k, v, block: q.ndim == 4,
    },
)

EXERCISES = (
    ONLINE_SOFTMAX,
    FLASH_ATTENTION,
)
