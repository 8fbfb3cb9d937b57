"""Exercises on attention with a sink, the gate from a log-sum-exp, and the gradient of a sink."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import heads, normal, number

_LOG3 = math.log(3)


def _all(T: int, S: int) -> Tensor:
    return torch.ones(T, S, dtype=torch.bool)


def _random(B: int, H: int, T: int, S: int, D: int, seed: int) -> tuple[Any, ...]:
    q, k = (2 * normal(B, H, n, D, seed=seed + n) for n in (T, S))
    mask = _all(T, S).tril(S - T)
    mask[0] &= seed % 2 == 0  # an odd seed leaves the first query without a key
    mask[-1, 1] = False  # between two keys that the last one reads
    return q, k, normal(B, H, S, 3, seed=seed), mask, 2 * normal(H, seed=seed + 1)


def _attention() -> list[tuple[Any, ...]]:
    one = heads(1)
    return [
        (one, heads(0), heads(8), _all(1, 1), number(_LOG3)),
        (one, heads(0), heads(8), ~_all(1, 1), number(0)),
        (one, heads(-2000), heads(8), _all(1, 1), number(-2000)),
        (one, heads(2000), heads(8), _all(1, 1), number(2000)),
        (one, heads(2000), heads(8), _all(1, 1), number(0)),
        (one, heads(0, _LOG3), heads(8, 4), _all(1, 2), number(0)),
        (one, heads(0, 2000), heads(8, 4), _all(1, 2), number(0)),
        (one, heads(-30000, 0), heads(8, 6), torch.tensor([[True, False]]), number(-30000)),
        (heads(1, 2000), heads(0, _LOG3), heads(8, 4), _all(2, 2), number(0)),
        _random(1, 2, 3, 3, 3, 1),
        _random(2, 3, 4, 6, 5, 2),
    ]


def _gated(B: int, H: int, T: int, seed: int) -> tuple[Any, ...]:
    return normal(B, H, T, 3, seed=seed), 3 * normal(B, H, T, seed=seed + 1), normal(H, seed=seed)


def _gates() -> list[tuple[Any, ...]]:
    return [
        (heads(8), number(0).view(1, 1, 1), number(_LOG3)),
        (heads(8), number(-2000).view(1, 1, 1), number(-2000)),
        (heads(0), number(-math.inf).view(1, 1, 1), number(2)),
        (heads(8), number(2000).view(1, 1, 1), number(0)),
        _gated(1, 2, 3, 1),
        _gated(2, 3, 3, 5),
    ]


def _gradients() -> list[tuple[Any, ...]]:
    return [(normal(*given[0].shape, seed=9), *given) for given in _gates()]


def _nothing_to_read(function: Function, *given: Any) -> bool:
    q, k, v, mask, sink = given
    out = function(q, k, v, mask & False, sink)
    return bool(out.isnan().any()) or apart(out, torch.zeros_like(q @ k.mT @ v))


def _one_more_key(function: Function, *given: Any) -> bool:
    q, k, v, mask, _ = given
    k, v = (torch.cat([x, torch.zeros_like(x[..., :1, :])], -2) for x in (k, v))
    none = torch.full_like(given[4], -1e4)
    mask = torch.cat([mask, torch.ones_like(mask[:, :1])], -1)
    return apart(function(*given[:4], 0 * none), function(q, k, v, mask, none))


def _with_all_scores(function: Function, out: Tensor, lse: Tensor, sink: Tensor) -> bool:
    return apart(function(out, lse + 5, sink + 5), function(out, lse, sink))


def _no_sink(function: Function, out: Tensor, lse: Tensor, sink: Tensor) -> bool:
    return apart(function(out, lse.clamp(min=-1e3), sink - 1e4), out)


def _takes_away(function: Function, grad: Tensor, out: Tensor, *given: Tensor) -> bool:
    return bool((function(out, out, *given) > 0).any())


def _far_below(function: Function, grad: Tensor, out: Tensor, lse: Tensor, sink: Tensor) -> bool:
    return apart(function(grad, out, lse, sink - 1e4), torch.zeros_like(sink))


_EXTRA = "p.sum(-1, keepdim=True) + torch.exp(z - m)"

SINK_ATTENTION = Exercise(
    name="sink_attention",
    topic="attention/sinks",
    level=2,
    task=(
        "Attention of q (B, H, T, D) to k, v (B, H, S, ...), True in mask (T, S) may attend, in "
        "which each head's softmax has one more logit, sink (H,), that has no value."
    ),
    inputs=_attention,
    definition="attention-sink",
    laws=(
        Law("A query that may attend to nothing reads 0.", "attention-sink-gate", _nothing_to_read),
        Law(
            "A sink of 0 is one more key of zeros, with a value of zeros.",
            "attention-sink-gate",
            _one_more_key,
        ),
    ),
    mistakes=(
        Mistake(
            "1 added after the maximum was subtracted",
            "What is relative to the maximum stays so: the sink's exponential is exp(z - m).",
            ((_EXTRA, "p.sum(-1, keepdim=True) + 1"),),
        ),
        Mistake(
            "the sink added to the scores",
            "One number on all scores of a row is not seen by a softmax: there is no sink then.",
            (
                (
                    "scores = scores.masked_fill",
                    "scores = (scores + sink[:, None, None]).masked_fill",
                ),
                (_EXTRA, "p.sum(-1, keepdim=True)"),
            ),
        ),
        Mistake(
            "the scale on the sink",
            "The sink is a logit, not a product of D entries: it comes after the scale.",
            (("z = sink[:, None, None]", "z = sink[:, None, None] / q.shape[-1] ** 0.5"),),
        ),
        Mistake(
            "the sink left out",
            "Then the weights of the keys sum to 1, and a head cannot say nothing.",
            ((_EXTRA, "p.sum(-1, keepdim=True)"),),
        ),
        Mistake(
            "a finite number for minus infinity",
            "Scores may lie below -10000, and then what is hidden has all the weight.",
            (("~mask, -torch.inf", "~mask, -1e4"),),
        ),
        Mistake(
            "the sink not in the maximum",
            "A sink far above all scores overflows, and a row without keys has no maximum.",
            (("torch.maximum(scores.amax(-1, keepdim=True), z)", "scores.amax(-1, keepdim=True)"),),
        ),
        Mistake(
            "one sink for each position",
            "A sink belongs to a head: its axis is that of the heads, not the last one but one.",
            (("z = sink[:, None, None]", "z = sink.repeat(q.shape[-2])[: q.shape[-2], None]"),),
        ),
    ),
    hints=(
        "It is a softmax over one column more, of which the weight is dropped.",
        "The sink takes part in the maximum and in the sum, and not in the sum of values.",
        "What does a row without an allowed key have as its maximum?",
    ),
    branches={
        "a row without a key": lambda q, k, v, mask, sink: not mask.any(-1).all(),
        "the sink above all scores": lambda q, k, v, mask, sink: bool(
            (sink > (q @ k.mT).amax((0, 2, 3))).any()
        ),
        "scores that overflow": lambda q, k, v, mask, sink: bool((k > 710).any()),
        "a sink that overflows": lambda q, k, v, mask, sink: bool((sink > 710).any()),
        "all underflow": lambda q, k, v, mask, sink: bool((sink < -750).all()),
        "several heads": lambda q, k, v, mask, sink: len(sink) > 1,
    },
)

APPLY_SINK = Exercise(
    name="apply_sink",
    topic="attention/sinks",
    level=1,
    task=(
        "What attention with a sink (H,) returns, from the output (B, H, T, Dv) of attention "
        "without, and the log-sum-exp lse (B, H, T) of its scores."
    ),
    inputs=_gates,
    definition="attention-sink-gate",
    laws=(
        Law(
            "The same number on all scores and on the sink changes nothing.",
            "attention-sink-breaks-shift",
            _with_all_scores,
        ),
        Law("A sink far below all scores changes nothing.", "attention-sink-gate", _no_sink),
    ),
    mistakes=(
        Mistake(
            "the share of the sink",
            "The output keeps what the keys keep: the sigmoid of lse minus the sink.",
            (("lse - sink[:, None]", "sink[:, None] - lse"),),
        ),
        Mistake(
            "lse in base 2",
            "Kernels that use exp2 may return it so; times log 2 it is in base e.",
            (("lse - sink", "lse / 0.6931471805599453 - sink"),),
        ),
        Mistake(
            "by exponentials",
            "The exponential of a large lse overflows; the sigmoid of a difference does not.",
            (
                (
                    "torch.sigmoid(lse - sink[:, None])",
                    "(lse.exp() / (lse.exp() + sink[:, None].exp()))",
                ),
            ),
        ),
        Mistake(
            "one sink for each position",
            "A sink belongs to a head, and its axis stands before that of the positions.",
            (("sink[:, None]", "sink.repeat(lse.shape[-1])[: lse.shape[-1]]"),),
        ),
    ),
    hints=(
        "With exponentials, the sum of the keys is exp(lse). Which share of the whole is it?",
        "A share of two exponentials is a sigmoid of a difference.",
    ),
    branches={
        "no key": lambda out, lse, sink: bool((lse == -math.inf).any()),
        "lse that overflows": lambda out, lse, sink: bool((lse > 710).any()),
        "lse that underflows": lambda out, lse, sink: bool((lse < -750).all()),
        "several heads": lambda out, lse, sink: len(sink) > 1,
    },
)

SINK_BACKWARD = Exercise(
    name="sink_backward",
    topic="attention/sinks",
    level=2,
    task=(
        "The gradient (H,) of the sinks, from the gradient of the output, the output with the "
        "sink (both (B, H, T, Dv)), the lse (B, H, T) of the scores, and the sinks."
    ),
    inputs=_gradients,
    definition="attention-sink-gradient",
    laws=(
        Law(
            "Where the loss grows with the output, a larger sink lowers it.",
            "attention-sink-gradient",
            _takes_away,
        ),
        Law("A sink far below all scores has gradient 0.", "attention-sink-gradient", _far_below),
    ),
    mistakes=(
        Mistake(
            "the sign",
            "A larger sink takes weight away from the output.",
            (("return -(", "return ("),),
        ),
        Mistake(
            "without the sink's share",
            "The derivative of sigmoid is sigmoid times one minus sigmoid; one is in the output.",
            (("taken * (", "("),),
        ),
        Mistake(
            "the share of the keys",
            "That factor is in the output already; the other one is the sink's share.",
            (("sink[:, None] - lse", "lse - sink[:, None]"),),
        ),
        Mistake(
            "the share of the keys once more",
            "The output with the sink is gated already; only the plain one needs that factor.",
            (("(taken * (", "(taken * (1 - taken) * ("),),
        ),
        Mistake(
            "the mean over the batch",
            "A sink that all rows share has the sum of their gradients.",
            ((".sum((0, 2))", ".mean((0, 2))"),),
        ),
    ),
    hints=(
        "The output is a sigmoid times something that does not depend on the sink.",
        "The derivative of log sigmoid(x) is 1 - sigmoid(x).",
        "Each row of a head has the same sink.",
    ),
    branches={
        "no key": lambda grad, out, lse, sink: bool((lse == -math.inf).any()),
        "several rows": lambda grad, out, lse, sink: lse[:, 0].numel() > 1,
        "several heads": lambda grad, out, lse, sink: len(sink) > 1,
    },
)

EXERCISES = (SINK_ATTENTION, APPLY_SINK, SINK_BACKWARD)
