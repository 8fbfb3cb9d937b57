"""Exercise on AdamW."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, rows


def _steps() -> list[tuple[Any, ...]]:
    none = number(0.0)
    return [
        (number(1.0), number(0.5), none, none, 1, 0.1, 0.5, 0.75, 0.0, 0.0),
        (number(2.0), none, none, none, 1, 0.1, 0.5, 0.75, 1e-8, 0.5),
        (number(2.0), number(3.0), number(1.0), number(4.0), 2, 0.1, 0.5, 0.75, 1.0, 0.5),
        (
            number(4.0, -2.0),
            number(0.5, -1.0),
            number(0.25, 0.5),
            number(1.0, 0.25),
            3,
            *(0.1, 0.5, 0.75, 0.5, 0.2),
        ),
        (*_state(2, 3), 7, 0.02, 0.9, 0.95, 1e-3, 0.1),
        (*_state(3, 5, seed=4), 1000, 3e-3, 0.9, 0.999, 1e-8, 0.3),
    ]


def _state(*shape: int, seed: int = 0) -> tuple[Tensor, ...]:
    """A parameter, a gradient, and moments of earlier ones."""
    p, g, m = (normal(*shape, seed=seed + place) for place in range(3))
    return p, g, 0.3 * m, rows(*shape, seed=seed + 3).square() + 0.1


def _moved(function: Function, p: Tensor, *rest: Any) -> Tensor:
    """How far a step takes the parameter."""
    moved: Tensor = function(p, *rest)[0] - p
    return moved


def _constant(
    function: Function, p: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, *rest: Any
) -> bool:
    """Three steps on one gradient, from moments of 0, without eps and decay."""
    g, m, v = g + 2, torch.zeros_like(m), torch.zeros_like(v)
    (b1, b2, *_), start = rest, p
    for step in (1, 2, 3):
        p, m, v = function(p, g, m, v, step, lr, b1, b2, 0.0, 0.0)
    return apart(p, start - 3 * lr * g.sign())


def _scaled(function: Function, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> bool:
    t, lr, b1, b2, _, wd = rest
    rest = (t, lr, b1, b2, 0.0, wd)
    v = v + 1
    return apart(
        _moved(function, p, 8 * g, 8 * m, 64 * v, *rest), _moved(function, p, g, m, v, *rest)
    )


def _decays(function: Function, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> bool:
    t, lr, b1, b2, eps, wd = rest
    zero = torch.zeros_like(g)
    rest = (t, lr, b1, b2, eps + 1, wd)
    return apart(function(p, zero, zero, zero, *rest)[0], (1 - lr * wd) * p)


def _halved(function: Function, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> bool:
    """Without decay, at step 1, and with an eps that is the size of every gradient."""
    _, lr, b1, b2, _, _ = rest
    size, zero = torch.full_like(g, 3.0), torch.zeros_like(g)
    return apart(
        _moved(function, p, size, zero, zero, 1, lr, b1, b2, 3.0, 0.0), torch.full_like(p, -lr / 2)
    )


_LAST = "return p - lr * m_hat / (v_hat.sqrt() + eps), m, v"

ADAMW_STEP = Exercise(
    name="adamw_step",
    topic="training/adam",
    level=2,
    task=(
        "One step of AdamW on p with the gradient g, of one shape with m and v: return the new p, "
        "m and v. t counts the steps from 1, m and v are 0 before the first one, and the decay wd "
        "is multiplied by lr."
    ),
    inputs=_steps,
    definition="adam-step",
    laws=(
        Law(
            "Without eps and decay, each of the first steps on one gradient is lr times its sign.",
            "adam-bias-correction",
            _constant,
        ),
        Law(
            "Without eps, 8 times larger gradients (m times 8, v times 64) give the same step.",
            "adam-scale-invariance",
            _scaled,
        ),
        Law(
            "With eps as large as the gradient the first step is lr / 2.",
            "adam-first-step",
            _halved,
        ),
        Law(
            "Without gradients, p is multiplied by 1 - lr * wd.",
            "adam-decoupled-decay",
            _decays,
        ),
    ),
    mistakes=(
        Mistake(
            "no bias correction",
            "The means start at 0, so that of t steps has weights that sum to 1 - b**t.",
            (("m / (1 - b1**t)", "m"), ("v / (1 - b2**t)", "v")),
        ),
        Mistake(
            "only m corrected",
            "Both means start at 0, and both are divided by the sum of their weights.",
            (("v / (1 - b2**t)", "v"),),
        ),
        Mistake(
            "steps counted from 0",
            "After the first gradient t is 1: the correction divides by 1 - b.",
            (("1 - b1**t", "1 - b1 ** (t - 1)"), ("1 - b2**t", "1 - b2 ** (t - 1)")),
        ),
        Mistake(
            "corrected without the power of t",
            "The weights of t gradients sum to 1 - b**t, which grows to 1.",
            (("1 - b1**t", "1 - b1"), ("1 - b2**t", "1 - b2")),
        ),
        Mistake(
            "v corrected with b1",
            "Each mean is corrected with its own beta.",
            (("1 - b2**t", "1 - b1**t"),),
        ),
        Mistake(
            "m corrected with b2",
            "Each mean is corrected with its own beta.",
            (("1 - b1**t", "1 - b2**t"),),
        ),
        Mistake(
            "square forgotten",
            "v is a mean of squares: only then has its root the unit of a gradient.",
            (("* g * g", "* g.abs()"),),
        ),
        Mistake(
            "square of the mean",
            "v is the mean of the squares; the square of m loses the noise.",
            (("* g * g", "* m * m"),),
        ),
        Mistake(
            "root forgotten",
            "Divided by a mean of squares, large gradients would give small steps.",
            (("v_hat.sqrt()", "v_hat"),),
        ),
        Mistake(
            "eps in the root",
            "eps is added to the root; inside, 1e-8 acts as 1e-4.",
            (("v_hat.sqrt() + eps", "(v_hat + eps).sqrt()"),),
        ),
        Mistake(
            "eps ignored",
            "It is given, and it decides for small gradients.",
            (("v_hat.sqrt() + eps", "v_hat.sqrt()"),),
        ),
        Mistake(
            "decay in the numerator alone",
            "The decay shrinks p directly: it is not divided by the root.",
            (
                ("p = p * (1 - lr * wd)", "old = p"),
                ("lr * m_hat /", "lr * (m_hat + wd * old) /"),
            ),
        ),
        Mistake(
            "decay after the step",
            "p is shrunk before it is moved: the decay is that of the old p.",
            (
                ("p = p * (1 - lr * wd)", "keep = 1 - lr * wd"),
                (
                    "p - lr * m_hat / (v_hat.sqrt() + eps)",
                    "keep * (p - lr * m_hat / (v_hat.sqrt() + eps))",
                ),
            ),
        ),
        Mistake(
            "no decay",
            "It is given, and needs no gradient.",
            (("p = p * (1 - lr * wd)", "p = p + 0"),),
        ),
        Mistake(
            "weights of the mean exchanged",
            "The old mean keeps the share b1, the new gradient has the rest.",
            (("b1 * m + (1 - b1) * g", "(1 - b1) * m + b1 * g"),),
        ),
        Mistake(
            "gradient not weighted",
            "That is the buffer of SGD with momentum, 1 / (1 - b1) times as large.",
            (("(1 - b1) * g\n", "g\n"),),
        ),
        Mistake(
            "uphill",
            "The step goes against the mean gradient.",
            (("p - lr * m_hat", "p + lr * m_hat"),),
        ),
        Mistake(
            "gradient in place of its mean",
            "That is RMSProp: the momentum is lost.",
            (("m_hat = m / (1 - b1**t)", "m_hat = g"),),
        ),
    ),
    conventions=(
        Convention(
            "decay in the gradient (L2)",
            "torch.optim.Adam(weight_decay=) does so. To match, shrink p by 1 - lr * wd and leave "
            "the gradient alone.",
            (("p = p * (1 - lr * wd)", "g = g + wd * p"),),
        ),
        Convention(
            "eps before the correction",
            "TensorFlow and Keras do so, the 'epsilon hat' of the paper. To match, correct v first "
            "and add eps to its root.",
            (("v_hat.sqrt() + eps", "v_hat.sqrt() + eps / (1 - b2**t) ** 0.5"),),
        ),
        Convention(
            "decay without the learning rate",
            "Algorithm 2 of the paper on AdamW multiplies it by the factor of the schedule alone. "
            "To match, multiply it by lr.",
            (("1 - lr * wd", "1 - wd"),),
        ),
        Convention(
            "Nesterov momentum (NAdam)",
            "NAdam looks one step ahead with the gradient just seen (with a constant b1, as in "
            "Optax). To match, take the corrected mean itself.",
            (
                (
                    "m_hat = m / (1 - b1**t)",
                    "m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)",
                ),
            ),
        ),
    ),
    hints=(
        "Two running means: one of the gradient, one of its square. What do their weights sum to "
        "after t steps?",
        "Divide each mean by the sum of its weights, and only then take the root and add eps.",
        "The decay has nothing to do with the means: what does a weight without a gradient do?",
    ),
    branches={
        "the first step": lambda p, g, m, v, t, *rest: t == 1,
        "a gradient of 0": lambda p, g, *rest: bool((g == 0).any()),
        "an eps of the size of the gradient": lambda p, g, m, v, t, lr, b1, b2, eps, wd: eps > 0.1,
        "decay": lambda *given: given[-1] > 0,
    },
    fixed=("p", "g", "m", "v"),
)

EXERCISES = (ADAMW_STEP,)
