"""Exercises on LayerNorm."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows


def _forward() -> list[tuple[Any, ...]]:
    return [
        (number(3.0), number(1.0), number(0.0), 1.0),
        (number(1.0, 7.0), number(1.0, 1.0), number(0.0, 0.0), 0.0),
        (number(1.0, 7.0), number(1.0, 3.0), number(2.0, 0.0), 0.0),
        (number(1.0, 3.0), number(1.0, 1.0), number(0.0, 0.0), 3.0),
        (
            torch.tensor([[1.0, 7.0, 4.0], [2.0, -2.0, 3.0]]).double(),
            number(2.0, 1.0, -1.0),
            number(1.0, 0.0, 0.0),
            0.5,
        ),
        (rows(2, 3, 5), rows(5, seed=1), rows(5, seed=2), 0.1),
        (rows(4, 7, seed=3), rows(7, seed=4), rows(7, seed=5), 1e-5),
    ]


def _backward() -> list[tuple[Any, ...]]:
    return [
        (number(1.0), number(3.0), number(2.0), 0.5),
        (number(4.0, 0.0), number(1.0, 7.0), number(1.0, 1.0), 1.0),
        (number(4.0, 0.0, 0.0, 0.0), number(1.0, 1.0, 7.0, 7.0), number(1.0, 3.0, 1.0, 1.0), 0.0),
        (rows(2, 3, seed=6), rows(2, 3, seed=7), rows(3, seed=8), 0.1),
        (rows(2, 3, 5, seed=9), rows(2, 3, 5, seed=10), rows(5, seed=11), 1e-3),
    ]


def _alone(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    flat = x.reshape(-1, x.shape[-1])
    together = function(x, weight, bias, eps).reshape(flat.shape)
    return apart(together[:1], function(flat[:1], weight, bias, eps))


def _shifted(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    return apart(function(x + 3, weight, bias, eps), function(x, weight, bias, eps))


def _far(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    """In float32 the square of 4096 has no digits left for a variance of 1."""
    gains = [torch.ones_like(weight).float(), torch.zeros_like(bias).float()]
    near, far = (function((x + far).float(), *gains, 0.1) for far in (0, 4096))
    return not bool(((near - far).abs() < 0.05).all())


def _scaled(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    return apart(function(4 * x, weight, bias, 0.0), function(x, weight, bias, 0.0))


def _sphere(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    out = function(x, torch.ones_like(weight), torch.zeros_like(bias), 0.0)
    return apart(out.mean(-1), torch.zeros_like(out[..., 0])) or apart(
        out.square().mean(-1), torch.ones_like(out[..., 0])
    )


def _bias(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    return apart(
        function(x, weight, bias, eps) - function(x, weight, torch.zeros_like(bias), eps),
        bias.expand(x.shape),
    )


def _halved(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    row, none = x.reshape(-1, x.shape[-1])[0], torch.zeros_like(bias)
    thrice = 3 * float(row.var(correction=0))
    return apart(function(row, weight, none, thrice), function(row, weight, none, 0.0) / 2)


def _gains(function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    none = torch.zeros_like(bias)
    plain = function(x, torch.ones_like(weight), none, eps)
    return apart(function(x, weight, none, eps), plain * weight)


def _no_sum(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    grad_x = function(grad, x, weight, eps)[0]
    return apart(grad_x.sum(-1), torch.zeros_like(grad_x[..., 0]))


def _orthogonal(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    grad_x = function(grad, x, weight, 0.0)[0]
    return apart((grad_x * x).sum(-1), torch.zeros_like(x[..., 0]))


def _summed(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    twice = function(torch.stack([grad, grad]), torch.stack([x, x]), weight, eps)
    once = function(grad, x, weight, eps)
    return apart(twice[1], 2 * once[1]) or apart(twice[2], 2 * once[2])


_VARIANCE = "centred.square().mean(-1, keepdim=True)"
_ROOT = "torch.rsqrt(variance + eps)"

LAYER_NORM = Exercise(
    name="layer_norm",
    topic="norm/layer_norm",
    level=1,
    task=(
        "Each row (last axis) of x (..., n) minus its mean, over the root of its variance plus "
        "eps, times weight (n,), plus bias (n,); the variance divides by n."
    ),
    inputs=_forward,
    definition="norm-layer",
    laws=(
        Law("Each row is normalised by itself.", "norm-layer", _alone),
        Law("A number added to all features changes nothing.", "norm-layer-invariance", _shifted),
        Law(
            "With eps = 0 a row and four times the row give the same.",
            "norm-layer-invariance",
            _scaled,
        ),
        Law(
            "With eps = 0, gains of 1 and no bias a row has the mean 0 and the mean square 1.",
            "norm-layer-sphere",
            _sphere,
        ),
        Law("The bias is added to the rest, as it is.", "norm-layer", _bias),
        Law("With eps three times the variance a row is halved.", "norm-layer", _halved),
        Law("A gain multiplies its own feature.", "norm-layer", _gains),
        Law(
            "In float32 too 4096 added to all features changes almost nothing.",
            "norm-layer-invariance",
            _far,
        ),
    ),
    mistakes=(
        Mistake(
            "mean not subtracted",
            "Dividing alone is RMSNorm when the mean is 0, and nothing known otherwise.",
            (("weight * (centred * ", "weight * (wide * "),),
        ),
        Mistake(
            "eps outside the root",
            "It is added to the variance, before the root.",
            ((_ROOT, "1 / (variance.sqrt() + eps)"),),
        ),
        Mistake(
            "eps ignored",
            "It is given: models differ in it.",
            ((_ROOT, "torch.rsqrt(variance)"),),
        ),
        Mistake(
            "gain forgotten",
            "Each feature has a gain of its own.",
            ((f"weight * (centred * {_ROOT})", f"(centred * {_ROOT})"),),
        ),
        Mistake(
            "divided by the variance",
            "The variance has the unit of a square; its root has that of a feature.",
            ((_ROOT, "1 / (variance + eps)"),),
        ),
        Mistake(
            "sum in place of the mean of squares",
            "The variance does not grow with the number of features.",
            ((_VARIANCE, "centred.square().sum(-1, keepdim=True)"),),
        ),
        Mistake(
            "statistics over all rows",
            "A mean without an axis runs over the whole tensor.",
            (
                ("wide.mean(-1, keepdim=True)", "wide.mean()"),
                (_VARIANCE, "centred.square().mean()"),
            ),
        ),
        Mistake(
            "bias forgotten",
            "It moves each feature after the gain.",
            ((f"(weight * (centred * {_ROOT}) + bias)", f"(weight * (centred * {_ROOT}))"),),
        ),
        Mistake(
            "bias before the gain",
            "The bias is added last, and is not multiplied by the gain.",
            (
                (
                    f"(weight * (centred * {_ROOT}) + bias)",
                    f"(weight * (centred * {_ROOT} + bias))",
                ),
            ),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "the mean of the squares minus the square of the mean",
            "Where the mean is large both are, and in float32 their difference has no digits "
            "left: subtract the mean first, and square then.",
            ((_VARIANCE, "wide.square().mean(-1, keepdim=True) - (wide - centred).square()"),),
        ),
    ),
    conventions=(
        Convention(
            "variance divided by n - 1",
            "torch.var does so by default, LayerNorm does not. To match, divide by n.",
            (
                (
                    _VARIANCE,
                    "centred.square().sum(-1, keepdim=True) / max(x.shape[-1] - 1, 1)",
                ),
            ),
        ),
    ),
    hints=(
        "Two numbers per row are enough: which?",
        "Take the squares of what is left after the mean is subtracted.",
        "The variance divides by the number of features, not by one less.",
    ),
    branches={
        "several rows": lambda x, weight, bias, eps: x.ndim > 1,
        "eps = 0": lambda x, weight, bias, eps: eps == 0,
        "a gain and a bias that meet": lambda x, weight, bias, eps: bool((bias * weight).any()),
    },
)

LAYER_NORM_BACKWARD = Exercise(
    name="layer_norm_backward",
    topic="norm/layer_norm",
    level=3,
    task=(
        "Return the gradients of LayerNorm (eps is added to the variance) with respect to x (..., "
        "n), weight (n,) and bias (n,), given that of its output."
    ),
    inputs=_backward,
    definition="norm-layer-backward",
    laws=(
        Law("The gradient of a row sums to 0.", "norm-layer-jacobian", _no_sum),
        Law(
            "With eps = 0 the gradient of a row is orthogonal to the row.",
            "norm-layer-jacobian",
            _orthogonal,
        ),
        Law("The gradients of gain and bias are sums over rows.", "norm-layer-backward", _summed),
    ),
    mistakes=(
        Mistake(
            "mean held constant",
            "The mean depends on every feature, so the mean of g is subtracted too.",
            (("(g - g.mean(-1, keepdim=True) - x_hat * along)", "(g - x_hat * along)"),),
        ),
        Mistake(
            "deviation held constant",
            "The standard deviation depends on every feature too.",
            ((" - x_hat * along)", ")"),),
        ),
        Mistake(
            "gain forgotten",
            "The gradient passes the gain before it meets the normalised row.",
            (("g = weight * grad", "g = grad"),),
        ),
        Mistake(
            "eps ignored",
            "It stands in the deviation, backwards as forwards.",
            (
                (
                    "torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)",
                    "torch.rsqrt(centred.square().mean(-1, keepdim=True))",
                ),
            ),
        ),
        Mistake(
            "not divided by the deviation",
            "The output scales with the inverse of the deviation, and so does the gradient.",
            (("grad_x = rstd * (", "grad_x = ("),),
        ),
        Mistake(
            "sum in place of the mean",
            "Both means over the features keep their factor 1/n.",
            (("(g * x_hat).mean(-1", "(g * x_hat).sum(-1"),),
        ),
        Mistake(
            "gain in its own gradient",
            "The output is linear in the gain, so the gain does not stand in this gradient.",
            (("(grad * x_hat).reshape", "(g * x_hat).reshape"),),
        ),
        Mistake(
            "gain in the gradient of the bias",
            "The bias is added after the gain, so its gradient has none.",
            (("grad_bias = grad.", "grad_bias = g."),),
        ),
        Mistake(
            "gradient of the bias averaged over rows",
            "A parameter that is used in every row collects a sum.",
            (("grad.reshape(-1, x.shape[-1]).sum(0)", "grad.reshape(-1, x.shape[-1]).mean(0)"),),
        ),
        Mistake(
            "gradient of the gain averaged over rows",
            "A parameter that is used in every row collects a sum.",
            (
                (
                    "(grad * x_hat).reshape(-1, x.shape[-1]).sum(0)",
                    "(grad * x_hat).reshape(-1, x.shape[-1]).mean(0)",
                ),
            ),
        ),
    ),
    hints=(
        "Let g be the gradient with respect to the normalised row.",
        "Two directions of a row change nothing: which? Both parts of g have to go.",
        "Gain and bias collect over all rows; the bias needs the gradient alone.",
    ),
    branches={
        "several rows": lambda grad, x, weight, eps: x.ndim > 1,
        "eps = 0": lambda grad, x, weight, eps: eps == 0,
    },
)

EXERCISES = (
    LAYER_NORM,
    LAYER_NORM_BACKWARD,
)
