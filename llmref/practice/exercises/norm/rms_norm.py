"""Exercises on RMSNorm."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows


def _forward() -> list[tuple[Any, ...]]:
    return [
        (number(3.0), number(1.0), 0.0),
        (number(1.0, 7.0), number(1.0, 1.0), 0.0),
        (number(1.0, 7.0), number(1.0, 3.0), 0.0),
        (number(1.0, 1.0), number(1.0, 1.0), 3.0),
        (torch.tensor([[1.0, 7.0, 4.0], [2.0, -2.0, 1.0]]).double(), number(2.0, 1.0, -1.0), 0.5),
        (rows(2, 3, 5), rows(5, seed=1), 0.1),
        (rows(4, 7, seed=2), rows(7, seed=3), 1e-5),
    ]


def _backward() -> list[tuple[Any, ...]]:
    return [
        (number(1.0), number(3.0), number(1.0), 0.5),
        (number(5.0, 0.0), number(1.0, 7.0), number(1.0, 1.0), 0.0),
        (number(5.0, 1.0), number(1.0, 7.0), number(1.0, 3.0), 1.0),
        (rows(2, 3, seed=4), rows(2, 3, seed=5), rows(3, seed=6), 0.1),
        (rows(2, 3, 5, seed=7), rows(2, 3, 5, seed=8), rows(5, seed=9), 1e-3),
    ]


def _scaled(function: Function, x: Tensor, weight: Tensor, eps: float) -> bool:
    return apart(function(4 * x, weight, 0.0), function(x, weight, 0.0))


def _alone(function: Function, x: Tensor, weight: Tensor, eps: float) -> bool:
    flat = x.reshape(-1, x.shape[-1])
    together = function(x, weight, eps).reshape(flat.shape)
    return apart(together[:1], function(flat[:1], weight, eps))


def _sphere(function: Function, x: Tensor, weight: Tensor, eps: float) -> bool:
    out = function(x, torch.ones_like(weight), 0.0)
    return apart(out.square().mean(-1), torch.ones_like(out[..., 0]))


def _halved(function: Function, x: Tensor, weight: Tensor, eps: float) -> bool:
    row = x.reshape(-1, x.shape[-1])[0]
    thrice = 3 * float(row.square().mean())
    return apart(function(row, weight, thrice), function(row, weight, 0.0) / 2)


def _gains(function: Function, x: Tensor, weight: Tensor, eps: float) -> bool:
    plain = function(x, torch.ones_like(weight), eps)
    return apart(function(x, weight, eps), plain * weight)


def _orthogonal(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    grad_x = function(grad, x, weight, 0.0)[0]
    return apart((grad_x * x).sum(-1), torch.zeros_like(x[..., 0]))


def _summed(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    twice = (torch.stack([it, it]) for it in (grad, x))
    once = function(grad, x, weight, eps)[1]
    return apart(function(*twice, weight, eps)[1], 2 * once)


_MEAN = "wide.square().mean(-1, keepdim=True)"

RMS_NORM = Exercise(
    name="rms_norm",
    topic="norm/rms_norm",
    level=1,
    task=(
        "Divide each row (last axis) of x (..., n) by its root mean square (eps inside the root), "
        "times weight (n,)."
    ),
    inputs=_forward,
    definition="norm-rms",
    laws=(
        Law("Each row is normalised by itself, whatever stands beside it.", "norm-rms", _alone),
        Law(
            "With eps = 0 a row and four times the row give the same.",
            "norm-rms-invariance",
            _scaled,
        ),
        Law("With eps = 0 and gains of 1 a row has the mean square 1.", "norm-rms", _sphere),
        Law("With eps three times the mean square a row is halved.", "norm-rms", _halved),
        Law("A gain multiplies its own feature.", "norm-rms", _gains),
    ),
    mistakes=(
        Mistake(
            "norm in place of the root mean square",
            "The length of a row is the root of a sum, and grows with the number of features.",
            ((_MEAN, "wide.square().sum(-1, keepdim=True)"),),
        ),
        Mistake(
            "eps outside the root",
            "It is added to the mean of the squares, before the root.",
            (("torch.rsqrt(" + _MEAN + " + eps)", "1 / (" + _MEAN + ".sqrt() + eps)"),),
        ),
        Mistake(
            "root forgotten",
            "The mean of the squares is not yet the root mean square.",
            (("torch.rsqrt(" + _MEAN + " + eps)", "1 / (" + _MEAN + " + eps)"),),
        ),
        Mistake(
            "eps added to the sum of squares",
            "The mean of the squares comes first: so eps means the same for rows of any length.",
            ((_MEAN + " + eps", "(wide.square().sum(-1, keepdim=True) + eps) / x.shape[-1]"),),
        ),
        Mistake(
            "one mean for all rows",
            "A mean without an axis runs over the whole tensor.",
            ((_MEAN, "wide.square().mean()"),),
        ),
        Mistake(
            "gain forgotten",
            "Each feature has a gain of its own.",
            (("weight * (wide * rrms)", "wide * rrms"),),
        ),
        Mistake(
            "standard deviation in place of the root mean square",
            "It is the root of the mean of the squares themselves: no mean is subtracted first.",
            ((_MEAN, "wide.var(-1, correction=0, keepdim=True)"),),
        ),
        Mistake(
            "eps ignored",
            "It is given: models differ in it.",
            ((_MEAN + " + eps", _MEAN),),
        ),
        Mistake(
            "mean over the rows",
            "The mean runs over the features of one row, the last axis.",
            ((_MEAN, "wide.square().mean(0, keepdim=True)"),),
        ),
        Mistake(
            "gain below the line",
            "The gain multiplies; only the root mean square divides.",
            (("weight * (wide * rrms)", "wide * rrms / weight"),),
        ),
        Mistake(
            "multiplied by the root mean square",
            "The row is divided by its root mean square, that is multiplied by the inverse root.",
            (("weight * (wide * rrms)", "weight * (wide / rrms)"),),
        ),
        Mistake(
            "mean subtracted",
            "That is LayerNorm without its bias; RMSNorm leaves the mean in.",
            (("wide = x.to(", "x = x - x.mean(-1, keepdim=True); wide = x.to("),),
        ),
    ),
    conventions=(
        Convention(
            "gains stored as 1 + w",
            "Gemma stores w and multiplies by 1 + w. To match, multiply by the gain itself.",
            (("weight * (wide * rrms)", "(1 + weight) * (wide * rrms)"),),
        ),
    ),
    hints=(
        "Which numbers does one row need beside itself? One: its root mean square.",
        "The mean of the squares keeps the axis, so that it divides the row.",
        "Where eps stands decides what a row of zeros gives.",
    ),
    branches={
        "several rows": lambda x, weight, eps: x.ndim > 1 and x.shape[0] > 1,
        "eps = 0": lambda x, weight, eps: eps == 0,
        "eps as large as the squares": lambda x, weight, eps: eps > 1,
        "a gain that differs between features": lambda x, weight, eps: weight.unique().numel() > 1,
    },
)

RMS_NORM_BACKWARD = Exercise(
    name="rms_norm_backward",
    topic="norm/rms_norm",
    level=3,
    task=(
        "Return the gradients of RMSNorm (eps inside the root) with respect to x (..., n) and "
        "weight (n,), given that of its output."
    ),
    inputs=_backward,
    definition="norm-rms-backward",
    laws=(
        Law(
            "With eps = 0 the gradient of a row is orthogonal to the row.",
            "norm-rms-jacobian",
            _orthogonal,
        ),
        Law("The gradient of the gain is a sum over all rows.", "norm-rms-backward", _summed),
    ),
    mistakes=(
        Mistake(
            "r held constant",
            "The root mean square depends on every feature of the row.",
            (("(g - x_hat * (g * x_hat).mean(-1, keepdim=True))", "g"),),
        ),
        Mistake(
            "gain forgotten",
            "The gradient passes the gain before it meets the normalised row.",
            (("g = weight * grad", "g = grad"),),
        ),
        Mistake(
            "gain multiplied after the projection",
            "The gradient passes the gain first; the projection is that of the normalised row.",
            (
                ("g = weight * grad", "g = grad"),
                ("grad_x = rrms * (", "grad_x = weight * rrms * ("),
            ),
        ),
        Mistake(
            "mean of g subtracted too",
            "That is LayerNorm's gradient: RMSNorm subtracts no mean.",
            (("(g - x_hat", "(g - g.mean(-1, keepdim=True) - x_hat"),),
        ),
        Mistake(
            "sum in place of the mean",
            "The mean square has a factor 1/n.",
            (("(g * x_hat).mean(-1", "(g * x_hat).sum(-1"),),
        ),
        Mistake(
            "eps ignored",
            "It stands in the root mean square, backwards as forwards.",
            ((_MEAN + " + eps", _MEAN),),
        ),
        Mistake(
            "not divided by r",
            "The output scales with 1/r, and so does its gradient.",
            (("grad_x = rrms * (", "grad_x = ("),),
        ),
        Mistake(
            "gain in its own gradient",
            "The output is linear in the gain, so the gain does not stand in this gradient.",
            (("(grad * x_hat).reshape", "(g * x_hat).reshape"),),
        ),
        Mistake(
            "gradient of the gain averaged over rows",
            "A parameter that is used in every row collects a sum.",
            ((".sum(0)", ".mean(0)"),),
        ),
    ),
    hints=(
        "Let g be the gradient with respect to the normalised row.",
        "Moving along the row itself changes nothing: what of g has to go?",
        "What is left is divided by the root mean square; the gain collects over rows.",
    ),
    branches={
        "several rows": lambda grad, x, weight, eps: x.ndim > 1 and x.shape[0] > 1,
        "eps = 0": lambda grad, x, weight, eps: eps == 0,
    },
)

EXERCISES = (
    RMS_NORM,
    RMS_NORM_BACKWARD,
)
