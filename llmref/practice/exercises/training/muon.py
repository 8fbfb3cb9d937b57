"""Exercises on Muon: the iteration, and one step."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table


def _matrices() -> list[tuple[Any, ...]]:
    return [
        (table([8.0]), 1),
        (table([0.5, 0.0]), 1),
        (table([0.0], [0.0]), 2),
        (table([3.0], [4.0]),),
        (table([0.25, 0.5], [-1.0, 0.5]), 2),
        (table([0.1, -0.3, 0.2], [0.25, 0.05, 0.15]),),
        (normal(5, 3, seed=1),),
        (4 * normal(4, 7, seed=2), 3),
    ]


def _rotation(size: int, seed: int) -> Tensor:
    q: Tensor = torch.linalg.qr(normal(size, size, seed=seed))[0]
    return q


def _turned(function: Function, g: Tensor, *steps: int) -> bool:
    left, right = _rotation(g.shape[0], 5), _rotation(g.shape[1], 6)
    return apart(function(left @ g @ right, 1), left @ function(g, 1) @ right)


def _scaled(function: Function, g: Tensor, *steps: int) -> bool:
    return apart(function(3 * g, *steps), function(g, *steps))


def _in_band(function: Function, g: Tensor, *steps: int) -> bool:
    """A matrix whose singular values are 1, 2, ... has all of them in the band after five."""
    size = max(g.shape) + 1
    values = torch.arange(1.0, size + 1, dtype=g.dtype)
    done = function(_rotation(size, 7) * values @ _rotation(size, 8), 5)
    found = torch.linalg.svdvals(done)
    return bool((found < 0.681).any() or (found > 1.203).any())


def _composed(function: Function, g: Tensor, *steps: int) -> bool:
    """Entries on a diagonal, whose squares sum to 1, go through the polynomial one by one."""
    x = number(0.6, 0.8)
    expected = x * (3.4445 - 4.7750 * x**2 + 2.0315 * x**4)
    wide = torch.cat([torch.diag(x), torch.zeros(2, g.shape[1], dtype=x.dtype)], 1)
    return apart(function(wide, 1)[:, :2], torch.diag(expected))


_SCALED = "x = g / (g.abs().max() or 1)"
_NORMED = "x = x / x.norm().clamp(min=1)"
_STEP = "a * x + (b * s + c * s @ s) @ x"
_COEFFICIENTS = "3.4445, -4.7750, 2.0315"
_BACK = "return x.T if tall else x"

NEWTON_SCHULZ = Exercise(
    name="newton_schulz",
    topic="training/muon",
    level=2,
    task="Bring the singular values of a matrix near 1 by matrix products alone: divide by the "
    "Frobenius norm, then take steps X <- aX + bXX'X + cXX'XX'X with a, b, c = 3.4445, -4.7750, "
    "2.0315, five unless told otherwise. A matrix of zeros stays.",
    inputs=_matrices,
    definition="muon-step",
    laws=(
        Law(
            "Singular values go through the polynomial one by one.",
            "muon-singular-values",
            _composed,
        ),
        Law("A matrix 3 times as large gives the same result.", "muon-equivariance", _scaled),
        Law(
            "Rotations of rows and of columns come out of the function.",
            "muon-equivariance",
            _turned,
        ),
        Law(
            "After five steps every singular value that was not tiny is in [0.681, 1.203].",
            "muon-steps",
            _in_band,
        ),
    ),
    mistakes=(
        Mistake(
            "not normalised",
            "Singular values beyond 1.27 grow without bound.",
            ((_SCALED, "x = g"), (_NORMED, "x = x / 1")),
        ),
        Mistake(
            "divided by the largest entry alone",
            "Entries of 1 do not make singular values of 1.",
            ((_NORMED, "x = x / 1"),),
        ),
        Mistake(
            "each row divided by its norm",
            "One factor for the matrix keeps its singular vectors; one per row does not.",
            (("x.norm().clamp(min=1)", "x.norm(dim=1, keepdim=True).clamp(min=1e-9)"),),
        ),
        Mistake(
            "divided by the squared norm",
            "Then the scale does not cancel.",
            (("x.norm().clamp(min=1)", "(x * x).sum().clamp(min=1)"),),
        ),
        Mistake(
            "transposed and not back",
            "The update must have the shape of the weight.",
            ((_BACK, "return x"),),
        ),
        Mistake(
            "b and c exchanged",
            "b belongs to the cube, c to the fifth power.",
            (("b * s + c * s @ s", "c * s + b * s @ s"),),
        ),
        Mistake(
            "c times the cube",
            "The fifth power needs the square of the Gram matrix.",
            (("c * s @ s", "c * s"),),
        ),
        Mistake(
            "linear term without a",
            "a = 3.4445 is what lifts small singular values.",
            ((_STEP, "x + (b * s + c * s @ s) @ x"),),
        ),
        Mistake(
            "b with a plus",
            "The cube is subtracted: else nothing holds large singular values back.",
            (("-4.7750", "4.7750"),),
        ),
        Mistake(
            "entries in place of singular values",
            "The polynomial acts on singular values, which products of matrices do.",
            ((_STEP, "a * x + b * x**3 + c * x**5"),),
        ),
        Mistake(
            "square of the Gram matrix entry by entry",
            "`@` multiplies matrices, `*` multiplies entries.",
            (("c * s @ s", "c * s * s"),),
        ),
        Mistake(
            "one step short",
            "The first step is counted too.",
            (("range(steps)", "range(steps - 1)"),),
        ),
    ),
    conventions=(
        Convention(
            "the cubic of Newton and Schulz",
            "3/2, -1/2 and no fifth power: it converges to U V', from small values slowly. To "
            "match, take the coefficients of torch.optim.Muon.",
            ((_COEFFICIENTS, "1.5, -0.5, 0.0"),),
        ),
        Convention(
            "the quintic that converges",
            "15/8, -10/8, 3/8: it converges to U V'. To match, take the coefficients of "
            "torch.optim.Muon.",
            ((_COEFFICIENTS, "1.875, -1.25, 0.375"),),
        ),
        Convention(
            "U V' by SVD",
            "That is what the iteration aims at and does not reach. To match, use products alone.",
            ((_BACK, "u, d, v = g.svd()\n    return u * (d > 0) @ v.T"),),
        ),
    ),
    hints=(
        "How large can a singular value be if the squares of all entries sum to 1?",
        "X X' has the squares of the singular values: an odd polynomial needs it and its square.",
        "The smaller of the two Gram matrices is cheaper: what changes if the matrix is tall?",
    ),
    branches={
        "tall": lambda g, *steps: g.shape[0] > g.shape[1],
        "wide": lambda g, *steps: g.shape[0] < g.shape[1],
        "zeros": lambda g, *steps: not g.any(),
        "five steps": lambda g, *steps: not steps,
    },
    tolerance=2e-5,
    fixed=("g",),
)


def _steps() -> list[tuple[Any, ...]]:
    return [
        (table([2.0]), table([-4.0]), table([0.0]), 0.5, 0.5, 0.0),
        (table([1.0], [2.0]), table([3.0], [4.0]), table([8.0], [-6.0]), 0.1, 0.5, 0.5),
        (*_state(2, 3), 0.1, 0.9, 0.0),
        (*_state(5, 3, seed=4), 0.02, 0.95, 0.3),
        (*_state(4, 7, seed=9), 0.02, 0.95, 0.1),
    ]


def _state(*shape: int, seed: int = 0) -> tuple[Tensor, ...]:
    """A weight, a gradient, and the momentum of earlier ones."""
    w, g, m = (normal(*shape, seed=seed + place) for place in range(3))
    return w, g, 2 * m


def _moved(function: Function, w: Tensor, *rest: Any) -> Tensor:
    moved: Tensor = function(w, *rest)[0] - w
    return moved


def _factor(function: Function, w: Tensor, g: Tensor, m: Tensor, *rest: Any) -> bool:
    lr, mu, _ = rest
    return apart(
        _moved(function, w, 4 * g, 4 * m, lr, mu, 0.0), _moved(function, w, g, m, *rest[:2], 0.0)
    )


def _decays(function: Function, w: Tensor, g: Tensor, m: Tensor, *rest: Any) -> bool:
    lr, mu, wd = rest
    zero = torch.zeros_like(g)
    return apart(function(w, zero, zero, lr, mu, wd + 1)[0], (1 - lr * (wd + 1)) * w)


def _root_mean_square(function: Function, w: Tensor, g: Tensor, m: Tensor, *rest: Any) -> bool:
    """One row: the only singular value becomes 0.7024, the polynomial of 1 five times over."""
    row, value = g[:1] + 3, 1.0
    for _ in range(5):
        value *= 3.4445 - 4.7750 * value**2 + 2.0315 * value**4
    zero = torch.zeros_like(row)
    step = _moved(function, zero, row, zero, rest[0], rest[1], 0.0)
    expected = torch.full((), 0.2 * rest[0] * value, dtype=step.dtype)
    return apart(step.square().mean().sqrt(), expected)


_UPDATE = "update = newton_schulz(g + mu * m)"
_BUFFER = "m = mu * m + g"

MUON_STEP = Exercise(
    name="muon_step",
    topic="training/muon",
    level=2,
    task=(
        "One step of Muon on the matrix w with the gradient g: return the new w and the momentum "
        "m, which adds up gradients and starts at 0. Nesterov momentum, five steps of "
        "newton_schulz, which you may call, the factor that matches AdamW's root mean square, "
        "decay wd times lr."
    ),
    inputs=_steps,
    definition="muon-step",
    laws=(
        Law("g and m 4 times as large give the same step.", "muon-equivariance", _factor),
        Law("Without gradients w is multiplied by 1 - lr * wd.", "muon-step", _decays),
        Law(
            "The first step of one row has the root mean square 0.2 lr, times the singular value "
            "that five steps make of 1.",
            "muon-rms",
            _root_mean_square,
        ),
    ),
    mistakes=(
        Mistake(
            "orthogonalised before momentum",
            "A sum of polar factors is none: its singular values depend on how far the gradients "
            "agree.",
            (
                (_BUFFER, "m = mu * m + newton_schulz(g)"),
                (_UPDATE, "update = newton_schulz(g) + mu * m"),
            ),
        ),
        Mistake(
            "momentum forgotten",
            "The gradient of one batch is noisy in all its small directions.",
            ((_UPDATE, "update = newton_schulz(g)"),),
        ),
        Mistake(
            "mean in m, sum in the direction",
            "If m averages, g must be multiplied by 1 - mu in both places.",
            ((_BUFFER, "m = mu * m + (1 - mu) * g"),),
        ),
        Mistake(
            "scaled by the shorter side",
            "The root mean square of r orthonormal rows of n is 1 / sqrt(max(m, n)).",
            (("max(g.shape)", "min(g.shape)"),),
        ),
        Mistake(
            "scaled by the number of entries",
            "The squared norm of the update is the rank, not 1.",
            (("max(g.shape)", "g.numel()"),),
        ),
        Mistake(
            "not scaled",
            "Without a factor the steps of large matrices are small.",
            (("0.2 * max(g.shape) ** 0.5", "1.0"),),
        ),
        Mistake(
            "decay in the gradient",
            "The decay shrinks w directly: orthogonalised, its size would be lost.",
            ((_BUFFER, "m = mu * m + g + wd * w"), ("(1 - lr * wd) * w", "w")),
        ),
        Mistake(
            "decay scaled too",
            "The factor belongs to the update: the decay is lr * wd for every shape.",
            (("(1 - lr * wd)", "(1 - lr * scale * wd)"),),
        ),
        Mistake("no decay", "It is given.", (("(1 - lr * wd) * w", "w"),)),
        Mistake("uphill", "The step goes against the gradient.", (("w - lr", "w + lr"),)),
    ),
    conventions=(
        Convention(
            "no Nesterov momentum",
            "torch.optim.Muon(nesterov=False) does so. To match, look ahead with g + mu * m.",
            ((_UPDATE, "update = newton_schulz(m)"),),
        ),
        Convention(
            "m as a mean",
            "torch.optim.Muon averages, with the same update. To match, add g itself.",
            (
                (_BUFFER, "m = mu * m + (1 - mu) * g"),
                (_UPDATE, "update = newton_schulz((1 - mu) * g + mu * m)"),
            ),
        ),
        Convention(
            "scaled by sqrt(max(1, out / in))",
            "The default of torch.optim.Muon. To match, take its rule 'match_rms_adamw'.",
            (("0.2 * max(g.shape) ** 0.5", "max(1, g.shape[0] / g.shape[1]) ** 0.5"),),
        ),
    ),
    hints=(
        "Which comes first, the momentum or the orthogonalisation?",
        "What is the root mean square of a matrix with m orthonormal rows of n entries?",
        "Which learning rate does the decay see: with the factor of the shape, or without?",
    ),
    branches={
        "momentum of earlier steps": lambda w, g, m, *rest: bool(m.any()),
        "decay": lambda *given: given[-1] > 0,
        "tall": lambda w, *rest: w.shape[0] > w.shape[1],
        "wide": lambda w, *rest: w.shape[0] < w.shape[1],
    },
    tolerance=2e-5,
    fixed=("w", "g", "m"),
)

EXERCISES = (NEWTON_SCHULZ, MUON_STEP)
