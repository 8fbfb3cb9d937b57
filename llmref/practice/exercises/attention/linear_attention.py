"""Exercises on linear attention with decay and on the delta rule, both in chunks."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table

_HALF = math.log(0.5)


def _column(*entries: float) -> Tensor:
    return table(*[[entry] for entry in entries])


def _random(T: int, Dk: int, Dv: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and log decays between -1.5 and 0."""
    decay = -1.5 * torch.sigmoid(normal(T, seed=seed + 3))
    shapes = [(T, Dk), (T, Dk), (T, Dv)]
    q, k, v = (normal(*shape, seed=seed + i) for i, shape in enumerate(shapes))
    return q, k, v, decay


def _with(decay: Tensor, at: int, value: float) -> Tensor:
    decay = decay.clone()
    decay[at] = value
    return decay


def _tokens() -> list[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    one = (_column(1, 1), _column(1, 1), _column(4, 8), number(0, _HALF))
    three = (_column(1, 1, 1), _column(1, 1, 1), _column(4, 8, 16), number(_HALF, _HALF, _HALF))
    q, k, v, g = _random(7, 3, 2, 10)
    wide = _random(8, 5, 3, 20)
    return [
        (_column(2), _column(3), _column(5), number(_HALF), 1),
        (*one, 1),
        (*one, 2),
        (*three, 2),
        (*three[:3], number(0, 0, 0), 3),
        (*three[:3], number(_HALF, -math.inf, _HALF), 2),
        (q, k, v, torch.zeros(7, dtype=torch.float64), 3),
        (q, k, v, g, 3),
        (q, k, v, _with(g, 1, -1e9), 20),
        (q, k, v, _with(g, 4, -math.inf), 4),
        (*wide, 1),
        (*wide, 4),
    ]


def _chunks(function: Function, *given: Any) -> bool:
    *tokens, size = given
    out, state = function(*tokens, size)
    for other in (1, 2, len(tokens[0]) + 1):
        found = function(*tokens, other)
        if apart(out, found[0]) or apart(state, found[1]):
            return True
    return False


def _last(function: Function, q: Tensor, *given: Any) -> bool:
    out, state = function(q, *given)
    return apart(out[-1], q[-1] @ state)


def _later(function: Function, q: Tensor, k: Tensor, v: Tensor, *given: Any) -> bool:
    before = function(q, k, v, *given)[0]
    for t in range(1, len(q)):
        one = (torch.arange(len(q)) >= t).double()[:, None]
        if apart(before[:t], function(q, k + one, v - one, *given)[0][:t]):
            return True
    return False


def _reset(function: Function, *given: Any) -> bool:
    *tokens, size = given
    for t in range(1, len(tokens[0])):
        reset = [*tokens[:-1], _with(tokens[-1], t, -math.inf)]
        whole, alone = function(*reset, size), function(*(each[t:] for each in reset), size)
        if apart(whole[0][t:], alone[0]) or apart(whole[1], alone[1]):
            return True
    return False


def _recalled(function: Function, *given: Any) -> bool:
    q, k, v, beta, g, size = given
    k, beta = k.clone(), beta.clone()
    k[-1] = k[-1] / k[-1].norm()
    beta[-1] = 1
    return apart(k[-1] @ function(q, k, v, beta, g, size)[1], v[-1])


def _unwritten(function: Function, *given: Any) -> bool:
    q, k, v, beta, g, size = given
    out, state = function(q, k, v, 0 * beta, g, size)
    return bool((out != 0).any() or (state != 0).any())


_READ = "(Q @ K.T * pair) @ "
_TAIL = "(pair[-1][:, None] * K)"
_PAIR = "g[:, None].repeat(1, len(g)).tril(-1).cumsum(0).exp().tril()"
_SINCE = "g.cumsum(0).exp()[:, None]"
_UNIT = "torch.nn.functional.normalize({}, dim=-1)"

_SHARED_LAWS = (
    Law("The size of the chunks changes nothing.", "attention-linear-chunk", _chunks),
    Law("Later tokens do not change an output.", "attention-linear", _later),
    Law(
        "The last output is the last query read from the state.",
        "attention-linear-recurrence",
        _last,
    ),
    Law(
        "A log decay of minus infinity forgets all that came before.",
        "attention-linear-recurrence",
        _reset,
    ),
)


def _shared_mistakes(written: str) -> tuple[Mistake, ...]:
    """Those of both rules; `written` is what the keys carry, V or U."""
    return (
        Mistake(
            "Q(K'V), the mask lost",
            "The brackets may be moved only where nothing stands between the products, and the "
            "mask does.",
            ((_READ + written, f"Q @ (K.T @ {written})"),),
        ),
        Mistake(
            "a token does not read itself",
            "The state is written before it is read, so the mask keeps its diagonal.",
            ((_READ + written, f"(Q @ K.T * pair).tril(-1) @ {written}"),),
        ),
        Mistake(
            "the new write decayed too",
            "The decay of a step acts on what was there before it.",
            (("tril(-1).cumsum(0)", "tril().cumsum(0)"),),
        ),
        Mistake(
            "incoming state read without decay",
            "At row t the state of the earlier chunks has faded by all decays up to t.",
            (("since * (Q @ state)", "Q @ state"),),
        ),
        Mistake(
            "incoming state kept without decay",
            "The whole chunk's decay acts on the state that came in.",
            (("since[-1] * state", "state"),),
        ),
        Mistake(
            "writes not decayed to the end of the chunk",
            "An early write of the chunk has faded when the next chunk reads it.",
            ((_TAIL, "K"),),
        ),
        Mistake(
            "decay of the chunk's first step lost",
            "The sum over the chunk starts with its first step, which acts on the incoming state.",
            ((_SINCE, "torch.cat([g.new_zeros(1), g[1:]]).cumsum(0).exp()[:, None]"),),
        ),
        Mistake(
            "each chunk starts anew",
            "The state is what later chunks know of the earlier ones.",
            (("since[-1] * state + ", ""),),
        ),
        Mistake(
            "differences of cumulated log decays",
            "After a strong decay both sums are huge and the later decays are rounded away; after "
            "minus infinity the difference is NaN. Sum the decays between the two.",
            ((_PAIR, "(g.cumsum(0)[:, None] - g.cumsum(0)).exp().tril()"),),
        ),
        Mistake(
            "exp(b) times exp(-b)",
            "The second factor overflows: in float32 once the decays sum to less than -88.73.",
            ((_PAIR, "(g.cumsum(0).exp()[:, None] * (-g.cumsum(0)).exp()).tril()"),),
        ),
    )


_SHARED_CONVENTIONS = (
    Convention(
        "query scaled by 1/sqrt(Dk)",
        "The delta rule of Qwen3-Next in transformers does so inside. To match, leave it out.",
        (("in (q, k, v,", "in (q / q.shape[-1] ** 0.5, k, v,"),),
    ),
    Convention(
        "keys of unit length",
        "Models with the delta rule normalise keys, some inside the kernel. To match, leave it "
        "out.",
        (("in (q, k, v,", f"in (q, {_UNIT.format('k')}, v,"),),
    ),
    Convention(
        "queries and keys of unit length, query scaled",
        "transformers' Qwen3-Next with use_qk_l2norm_in_kernel. To match, leave both out.",
        (
            (
                "in (q, k, v,",
                f"in ({_UNIT.format('q')} / q.shape[-1] ** 0.5, {_UNIT.format('k')}, v,",
            ),
        ),
    ),
    Convention(
        "state with values in rows",
        "Papers on fast weights write v k'. To match, return the transpose.",
        (("return out, state", "return out, state.T"),),
    ),
)

LINEAR_ATTENTION = Exercise(
    name="linear_attention",
    topic="attention/linear_attention",
    level=2,
    task=(
        "Causal linear attention of one head in chunks of `size` tokens: queries and keys (T, Dk), "
        "values (T, Dv), log_decay (T,), at most 0; the state is multiplied by exp(log_decay[t]) "
        "before token t is written, and minus infinity forgets all. No scale. Returns the outputs "
        "(T, Dv) and the last state (Dk, Dv); the last chunk may be shorter."
    ),
    inputs=_tokens,
    definition="attention-linear",
    laws=_SHARED_LAWS,
    mistakes=_shared_mistakes("V"),
    conventions=_SHARED_CONVENTIONS,
    hints=(
        "Three sums: what the state of earlier chunks gives, what this chunk gives, the new state.",
        "Between a write at j and a reading at t lie the decays j+1 to t; a lower triangle of "
        "sums.",
        "A write fades to the end of its chunk, the incoming state through all of it.",
    ),
    branches={
        "one token": lambda q, *_: len(q) == 1,
        "no decay": lambda q, k, v, g, size: bool((g == 0).all()),
        "a reset": lambda q, k, v, g, size: bool(g.isinf().any()),
        "a strong decay": lambda q, k, v, g, size: bool(((g < -1e8) & g.isfinite()).any()),
        "a shorter last chunk": lambda q, k, v, g, size: len(q) % size > 0 and len(q) > size,
        "one chunk": lambda q, k, v, g, size: size >= len(q) > 1,
        "several chunks": lambda q, k, v, g, size: size < len(q) and size > 1,
    },
)


def _writes() -> list[tuple[Any, ...]]:
    """The same tokens, with strengths of writing that differ from step to step."""
    found = []
    for place, (q, k, v, g, size) in enumerate(_tokens()):
        beta = 1.2 * torch.sigmoid(normal(len(q), seed=40 + place))
        beta = number(0.5, 0.25, 1.0)[: len(q)] if q.shape[-1] == 1 else beta
        found.append((q, k, v, beta, g, size))
    return found


_SOLVE = "torch.linalg.solve_triangular(A, error, upper=False, unitriangular=True)"
_SYSTEM = "b[:, None] * (K @ K.T) * pair"

DELTA_RULE = Exercise(
    name="delta_rule",
    topic="attention/linear_attention",
    level=3,
    task=(
        "The gated delta rule of one head in chunks of `size` tokens: queries and keys (T, Dk), "
        "values (T, Dv), strengths beta (T,), log_decay (T,), at most 0. Token t multiplies the "
        "state by exp(log_decay[t]), then adds beta[t] times its key times the error, the value "
        "less what the decayed state returns for the key; then it reads. Nothing is scaled or "
        "normalised. Returns the outputs (T, Dv) and the last state (Dk, Dv)."
    ),
    inputs=_writes,
    definition="attention-linear-delta",
    laws=(
        *_SHARED_LAWS,
        Law(
            "With a key of length 1 and beta 1 the state returns just that value.",
            "attention-linear-delta",
            _recalled,
        ),
        Law("With beta 0 nothing is written.", "attention-linear-delta", _unwritten),
    ),
    mistakes=(
        *_shared_mistakes("U"),
        Mistake(
            "minus in the solve",
            "The system is I + A: each write lacks what earlier writes put under its key.",
            (("A = b[:, None]", "A = -b[:, None]"),),
        ),
        Mistake(
            "beta on the columns",
            "Row t of the system is the error of step t, which its own beta multiplies.",
            ((_SYSTEM, "b * (K @ K.T) * pair"),),
        ),
        Mistake(
            "no beta in the system",
            "beta multiplies the whole error, also what the chunk itself has written.",
            ((_SYSTEM, "(K @ K.T) * pair"),),
        ),
        Mistake(
            "no beta on the right",
            "beta multiplies the whole error, the value included.",
            (("b[:, None] * (V -", "(V -"),),
        ),
        Mistake(
            "diagonal kept in the solve",
            "A write does not read itself: on the diagonal stands 1, not beta |k|^2.",
            (("unitriangular=True", "unitriangular=False"),),
        ),
        Mistake(
            "first order only",
            "I - A is the inverse of I + A for chunks of one or two tokens, in general not for "
            "more.",
            ((_SOLVE, "error - A.tril(-1) @ error"),),
        ),
        Mistake(
            "decay left out of the solve",
            "What an earlier step wrote has faded when the error is taken.",
            ((_SYSTEM, "b[:, None] * (K @ K.T)"),),
        ),
        Mistake(
            "state not subtracted",
            "The error is the value less what the state returns, that of earlier chunks too.",
            (("(V - since * (K @ state))", "V"),),
        ),
        Mistake(
            "state subtracted without its decay",
            "The decay acts before the error is taken.",
            (("(V - since * (K @ state))", "(V - K @ state)"),),
        ),
        Mistake(
            "values added, not replaced",
            "That is linear attention with values beta v.",
            ((_SOLVE, "b[:, None] * V"),),
        ),
    ),
    conventions=(
        *_SHARED_CONVENTIONS,
        Convention(
            "error before the decay",
            "Another model than the published one: it takes the error of the state as it was. To "
            "match, decay the state first.",
            (
                (
                    "(V - since * (K @ state))",
                    "(V - torch.cat([torch.ones_like(since[:1]), since[:-1]]) * (K @ state))",
                ),
                (_SYSTEM, "b[:, None] * (K @ K.T) * torch.cat([pair[:1], pair[:-1]])"),
            ),
        ),
    ),
    hints=(
        "As linear attention in chunks, with other rows in place of the values: what each step "
        "really writes.",
        "What step t writes is beta times its value less the incoming state's answer and less the "
        "answers of the earlier writes of the chunk.",
        "That is a triangular system with ones on the diagonal.",
    ),
    branches={
        "one token": lambda q, *_: len(q) == 1,
        "no decay": lambda q, k, v, beta, g, size: bool((g == 0).all()),
        "a reset": lambda q, k, v, beta, g, size: bool(g.isinf().any()),
        "a strong decay": lambda q, k, v, beta, g, size: bool(((g < -1e8) & g.isfinite()).any()),
        "a shorter last chunk": lambda q, k, v, beta, g, size: len(q) % size > 0 and len(q) > size,
        "strengths that differ": lambda q, k, v, beta, g, size: bool((beta != beta[0]).any()),
        "three writes or more in a chunk": lambda q, k, v, beta, g, size: min(len(q), size) > 2,
    },
)

EXERCISES = (LINEAR_ATTENTION, DELTA_RULE)
