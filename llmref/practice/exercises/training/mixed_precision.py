"""Exercises on mixed precision: stochastic rounding, the loss scale, a step on master weights."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2**16, shape, generator=torch.Generator().manual_seed(seed))


def _rounded() -> list[tuple[Any, ...]]:
    return [
        (number(1.0), torch.tensor([65535])),
        (number(1.001), torch.tensor([57147])),
        (number(-1.001), torch.tensor([57150])),
        (number(1.001, 1.006), torch.tensor([30000, 65535])),
        (number(3.0, -1.75, 0.0), torch.tensor([65535, 40000, 65535])),
        (number(-2.01, 2.01, 1.93), torch.tensor([5000, 60000, 0])),
        (normal(5, 7, seed=1), _noise(5, 7)),
        (normal(4, 64, seed=2), _noise(4, 64, seed=1)),
    ]


_ALL = torch.arange(2**16)


def _mean(function: Function, x: Tensor, noise: Tensor) -> bool:
    one = x.flatten()[:1].float().double()
    return apart(function(one.expand(2**16).clone(), _ALL).double().mean(), one[0])


def _kept(function: Function, x: Tensor, noise: Tensor) -> bool:
    short = x.bfloat16().to(x.dtype)
    return apart(function(short, noise).double(), short.double())


def _odd(function: Function, x: Tensor, noise: Tensor) -> bool:
    return apart(function(-x, noise).double(), -function(x, noise).double())


def _steps() -> list[tuple[Any, ...]]:
    return [
        (8.0, 0, False, 2.0, 0.5, 3),
        (8.0, 1, False, 2.0, 0.5, 3),
        (8.0, 2, False, 2.0, 0.5, 3),
        (8.0, 2, True, 2.0, 0.5, 3),
        (8.0, 0, True, 4.0, 0.25, 3),
        (3.0, 0, False, 4.0, 0.25, 1),
        (3.0, 4, False, 1.5, 0.25, 5),
        (65536.0, 7, False, 2.0, 0.5, 2000),
        (65536.0, 1999, False, 2.0, 0.5, 2000),
    ]


def _scales(function: Function, overflows: list[bool], given: tuple[Any, ...]) -> list[float]:
    """The scale after each of these steps, from a count of 0."""
    scale, _, _, growth, backoff, interval = given
    steps, seen = 0, []
    for overflow in overflows:
        found = function(scale, steps, overflow, growth, backoff, interval)
        scale, steps = float(found[0]), int(found[1])
        seen.append(scale)
    return seen


def _falls(function: Function, *given: Any) -> bool:
    scale, steps, _, growth, backoff, interval = given
    found = function(scale, steps, True, growth, backoff, interval)
    return float(found[0]) != scale * backoff or int(found[1]) != 0


def _waits(function: Function, *given: Any) -> bool:
    growth, interval = given[3], min(given[5], 5)
    given = (*given[:5], interval)
    seen = _scales(function, [False] * 2 * interval, given)
    wanted = [given[0] * growth ** ((step + 1) // interval) for step in range(2 * interval)]
    return seen != wanted


def _starts_again(function: Function, *given: Any) -> bool:
    growth, backoff, interval = given[3], given[4], min(given[5], 5)
    given = (*given[:5], interval)
    seen = _scales(function, [False] * (interval - 1) + [True] + [False] * interval, given)
    return seen[-1] != given[0] * backoff * growth or any(
        it != seen[-2] for it in seen[interval - 1 : -1]
    )


def _updates() -> list[tuple[Any, ...]]:
    tiny = number(2.0**-10)
    return [
        ([number(0.0)], [tiny], 65536.0, 1000.0, 1.0),
        ([number(1.0)], [number(-12.0)], 8.0, 0.01, 1.0),
        ([number(2.0, 1.0)], [number(24.0, 32.0)], 8.0, 0.5, 1.0),
        ([number(2.0, 1.0)], [number(3.0, 4.0)], 8.0, 0.5, 1.0),
        ([number(2.0, 1.0)], [number(torch.inf, 4.0)], 8.0, 0.5, 1.0),
        ([number(2.0, 1.0)], [number(4.0, torch.nan)], 8.0, 0.5, 1.0),
        ([number(1.0), number(-0.75, 0.3)], [number(16.0), number(8.0, 40.0)], 4.0, 0.1, 2.0),
        (
            [normal(3, 5), normal(7, seed=1)],
            [normal(3, 5, seed=2), normal(7, seed=3)],
            16.0,
            0.1,
            9.0,
        ),
    ]


def _finite(grads: Any) -> bool:
    return all(bool(grad.isfinite().all()) for grad in grads)


def _scale_free(function: Function, master: Any, grads: Any, *rest: Any) -> bool:
    scale, lr, max_norm = rest
    one = function(master, grads, scale, lr, max_norm)[0]
    other = function(master, [4 * grad for grad in grads], 4 * scale, lr, max_norm)[0]
    return any(apart(a, b) for a, b in zip(one, other, strict=True))


def _skipped(function: Function, master: Any, grads: Any, *rest: Any) -> bool:
    broken = [torch.full_like(grads[0], torch.inf), *grads[1:]]
    kept = function(master, broken, *rest)[0]
    return not all(bool((a == b).all()) for a, b in zip(kept, master, strict=True))


def _copied(function: Function, master: Any, grads: Any, *rest: Any) -> bool:
    new, copies = function(master, grads, *rest)
    pairs = list(zip(copies, new, strict=True))
    return _finite(new) and any(
        bool(((a - b).abs() > 2**-11 * b.abs() + 2**-25).any()) for a, b in pairs
    )


_ADDED = "x.float().view(torch.int32) + noise.int()"
_CUT = "(bits & -(2**16))"

STOCHASTIC_ROUND = Exercise(
    name="stochastic_round",
    topic="training/mixed_precision",
    level=2,
    task="Round finite numbers, taken as float32, to one of their two neighbours in bfloat16: add "
    "the noise, an integer in 0..65535 for each of them, to their bits, and cut.",
    inputs=_rounded,
    definition="precision-stochastic-rounding",
    laws=(
        Law(
            "A number that bfloat16 has stays, whatever the noise.",
            "precision-stochastic-rounding",
            _kept,
        ),
        Law(
            "With the same noise -x is rounded to minus what x is rounded to.",
            "precision-stochastic-rounding",
            _odd,
        ),
        Law("The mean over all 65536 noises is x.", "precision-stochastic-rounding", _mean),
    ),
    mistakes=(
        Mistake(
            "truncated",
            "Without noise every number is moved towards zero, and small updates always vanish.",
            ((_ADDED, "x.float().view(torch.int32)"),),
        ),
        Mistake(
            "rounded to nearest",
            "The nearest neighbour does not depend on the noise, so small updates are always lost.",
            ((_CUT + ".view(torch.float32).bfloat16()", "x.bfloat16()"),),
        ),
        Mistake(
            "noise of one bit",
            "Up with probability one half, wherever the number lies between its neighbours.",
            ((_ADDED, "x.float().view(torch.int32) + (noise.int() % 2) * 2**16"),),
        ),
        Mistake(
            "noise of 15 bits",
            "16 bits are cut, so the noise must have 16: with 15 a number less than halfway never "
            "goes up.",
            ((_ADDED, "x.float().view(torch.int32) + noise.int() // 2"),),
        ),
        Mistake(
            "noise from 1 to 65536",
            "With 65536 a number that bfloat16 has is moved: the noise starts at 0.",
            ((_ADDED, _ADDED + " + 1"),),
        ),
        Mistake(
            "not cut",
            "Then the conversion rounds the noisy number a second time, to nearest.",
            ((_CUT, "bits"),),
        ),
        Mistake(
            "17 bits cut",
            "bfloat16 keeps the upper 16 of 32 bits.",
            ((_CUT, "(bits & -(2**17))"),),
        ),
        Mistake(
            "noise subtracted",
            "A borrow moves the number to a smaller one than its lower neighbour.",
            ((_ADDED, "x.float().view(torch.int32) - noise.int()"),),
        ),
        Mistake(
            "noise with the sign of x",
            "Sign and magnitude are stored apart: adding to the bits moves away from zero for "
            "either sign.",
            ((_ADDED, "x.float().view(torch.int32) + noise.int() * x.sign().int()"),),
        ),
        Mistake(
            "noise added to the value",
            "The gap between neighbours depends on the number; in the bits it is always 65536.",
            ((_ADDED, "(x + noise / 2**16).float().view(torch.int32)"),),
        ),
    ),
    conventions=(
        Convention(
            "up where the noise lies below the fraction",
            "torchao compares so; the probability is the same, for the opposite noises. To match, "
            "round up where fraction plus noise reach 65536, which adding to the bits does.",
            ((_ADDED, "x.float().view(torch.int32) + (65535 - noise.int())"),),
        ),
    ),
    hints=(
        "The upper 16 bits of a float32 are a bfloat16. What do the lower 16 say?",
        "They are the place between the two neighbours, in 65536ths.",
        "A sum of two numbers below 65536 carries with the right probability.",
    ),
    branches={
        "a negative number": lambda x, noise: bool((x < 0).any()),
        "a number that bfloat16 has": lambda x, noise: bool((x == x.bfloat16()).any()),
        "the largest noise": lambda x, noise: bool((noise == 65535).any()),
        "several axes": lambda x, noise: x.ndim > 1,
    },
)

UPDATE_LOSS_SCALE = Exercise(
    name="update_loss_scale",
    topic="training/mixed_precision",
    level=1,
    task="Return the next loss scale and the new count of steps without an overflow: after an "
    "overflow times backoff, after an interval of clean steps times growth.",
    inputs=_steps,
    definition="precision-dynamic-scale",
    laws=(
        Law(
            "An overflow lowers the scale at once, and the count is 0.",
            "precision-dynamic-scale",
            _falls,
        ),
        Law(
            "Without overflow the scale grows once in every interval.",
            "precision-dynamic-scale",
            _waits,
        ),
        Law(
            "After an overflow a whole interval passes before the scale grows.",
            "precision-dynamic-scale",
            _starts_again,
        ),
    ),
    mistakes=(
        Mistake(
            "count kept after growth",
            "Then the scale grows in every step once the first interval is over.",
            (("return scale * growth, 0", "return scale * growth, clean_steps"),),
        ),
        Mistake(
            "count kept after an overflow",
            "Then the scale can grow back in the very next step.",
            (("return scale * backoff, 0", "return scale * backoff, clean_steps"),),
        ),
        Mistake(
            "grows in every step",
            "The scale is to be tried upwards only now and then: each try may cost a step.",
            (("if clean_steps + 1 < interval:", "if False:"),),
        ),
        Mistake(
            "grows one step late",
            "The step that is reported now is clean too, and counts.",
            (("if clean_steps + 1 < interval:", "if clean_steps < interval:"),),
        ),
        Mistake(
            "never grows",
            "A scale that only falls ends where small gradients vanish again.",
            (("return scale * growth, 0", "return scale, 0"),),
        ),
        Mistake(
            "growth and backoff exchanged",
            "After an overflow the scale must fall.",
            (
                ("scale * backoff, 0", "scale * (growth), 0"),
                ("scale * growth, 0", "scale * backoff, 0"),
            ),
        ),
        Mistake(
            "divided by backoff",
            "The factor is below 1: it multiplies.",
            (("scale * backoff", "scale / backoff"),),
        ),
        Mistake(
            "overflow ignored",
            "A scale that is not lowered overflows in the next step too.",
            (("if overflow:", "if False:"),),
        ),
    ),
    hints=(
        "There are three cases: overflow, not yet, and grown.",
        "In which of them does the count start again?",
        "The step that is reported counts too.",
    ),
    branches={
        "an overflow": lambda scale, steps, overflow, *rest: overflow,
        "the last step of an interval": lambda scale, steps, overflow, growth, backoff, interval: (
            steps + 1 == interval
        ),
        "an interval of one step": lambda *given: given[5] == 1,
    },
)

_UNSCALED = "g.float() / scale"
_NEW = "w - rate * grads[i] for i, w"

MIXED_PRECISION_STEP = Exercise(
    name="mixed_precision_step",
    topic="training/mixed_precision",
    level=3,
    task="Return new float32 master weights and their float16 copies, two lists, after one step "
    "of SGD on gradients of a loss that was multiplied by the scale; clip them together to "
    "max_norm, and skip the step if one of them is infinite or NaN.",
    inputs=_updates,
    definition="precision-master-weights",
    laws=(
        Law(
            "Gradients and scale times 4 give the same weights.",
            "precision-loss-scale",
            _scale_free,
        ),
        Law(
            "An overflow leaves the master weights as they were.",
            "precision-dynamic-scale",
            _skipped,
        ),
        Law(
            "Each copy is its new master weight, rounded.",
            "precision-master-weights",
            _copied,
        ),
    ),
    mistakes=(
        Mistake(
            "clipped before it was unscaled",
            "The norm of scaled gradients is scale times too large, so nearly every step is cut "
            "down.",
            (("(max_norm / norm)", "(max_norm / (scale * norm))"),),
        ),
        Mistake(
            "unscaled with the updated scale",
            "The scale was raised before it was divided out: divide by the one that the loss saw.",
            ((_UNSCALED, "g.float() / (2 * scale)"),),
        ),
        Mistake(
            "not unscaled",
            "The step, or the clipping, then depends on the scale.",
            ((_UNSCALED, "g.float()"),),
        ),
        Mistake(
            "unscaled in float16",
            "What the scale has saved underflows when it is divided out in float16.",
            ((_UNSCALED, "(g.half() / scale).float()"),),
        ),
        Mistake(
            "step on the copy",
            "The 16-bit weight swallows small updates; the master weight exists to collect them.",
            ((_NEW, "w.half().float() - rate * grads[i] for i, w"),),
        ),
        Mistake(
            "overflow not looked for",
            "One infinite gradient makes the clipped step NaN, and the weights with it.",
            (("if norm.isfinite():", "if True:"),),
        ),
        Mistake(
            "zeros in place of an overflow",
            "The other gradients come from the same broken backward pass: skip the whole step.",
            ((_UNSCALED, "(g.float() / scale).nan_to_num(0, 0, 0)"),),
        ),
        Mistake(
            "each tensor clipped alone",
            "Clipping by one common factor keeps the direction of the step.",
            (
                (
                    _NEW,
                    "w - lr * (max_norm / grads[i].norm()).clamp(max=1) * grads[i] for i, w",
                ),
            ),
        ),
        Mistake(
            "short gradients made longer",
            "Clipping never enlarges a gradient.",
            ((".clamp(max=1)", ""),),
        ),
        Mistake(
            "uphill",
            "The step goes against the gradient.",
            ((_NEW, "w + rate * grads[i] for i, w"),),
        ),
        Mistake(
            "copies of the old weights",
            "The next forward pass must see the new weights.",
            (
                ("master = [w - rate", "old, master = master, [w - rate"),
                ("grads = [g.float()", "old = master; grads = [g.float()"),
                ("[w.half() for w in master]", "[w.half() for w in old]"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "bfloat16 copies",
            "Most language models are trained so, and then need no loss scale. To match, make the "
            "copies float16.",
            (("w.half()", "w.bfloat16()"),),
        ),
    ),
    hints=(
        "In which precision can the scale be divided out without losing what it saved?",
        "One number, the common norm, tells of an overflow anywhere and serves clipping.",
        "The step changes the float32 weights; the 16-bit ones are made from them.",
    ),
    branches={
        "an infinite gradient": lambda master, grads, *rest: not _finite(grads),
        "several tensors": lambda master, grads, *rest: len(grads) > 1,
        "a norm that is clipped": lambda master, grads, scale, lr, max_norm: (
            sum(float(grad.square().sum()) for grad in grads) ** 0.5 > scale * max_norm
        ),
    },
)

EXERCISES = (
    STOCHASTIC_ROUND,
    UPDATE_LOSS_SCALE,
    MIXED_PRECISION_STEP,
)
