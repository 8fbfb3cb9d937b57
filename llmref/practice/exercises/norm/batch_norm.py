"""Exercises on BatchNorm."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows, table

_TINY = 1e-12  # for eps = 0, which F.batch_norm refuses in training


def _forward() -> list[tuple[Any, ...]]:
    column = table([1.0], [7.0], [4.0])
    return [
        (table([5.0]), number(2.0), number(1.0), number(1.0), number(3.0), False, 0.25, 1.0),
        (column[:2], number(1.0), number(0.0), number(0.0), number(1.0), True, 0.25, 7.0),
        (column, number(3.0), number(2.0), number(1.0), number(2.0), True, 0.5, _TINY),
        (column, number(3.0), number(2.0), number(1.0), number(2.0), False, 0.5, 2.0),
        (
            table([1.0, 7.0], [2.0, -2.0], [3.0, 4.0]),
            number(2.0, -1.0),
            number(1.0, 0.0),
            number(0.0, 2.0),
            number(1.0, 4.0),
            True,
            0.1,
            0.5,
        ),
        (*_random(5, 3, seed=0), False, 0.1, 1e-5),
        (*_random(7, 4, seed=1), True, 0.3, 1e-3),
    ]


def _random(m: int, features: int, seed: int) -> tuple[Tensor, ...]:
    x, weight, bias, mean, root = (
        rows(*shape, seed=10 * seed + place)
        for place, shape in enumerate([(m, features), *[(features,)] * 4])
    )
    return x, weight, bias, mean, root.square() + 0.1


def _backward() -> list[tuple[Any, ...]]:
    return [
        (table([1.0], [0.0]), table([1.0], [7.0]), number(2.0), 7.0),
        (
            table([4.0], [0.0], [0.0], [0.0]),
            table([1.0], [1.0], [7.0], [7.0]),
            number(3.0),
            _TINY,
        ),
        (rows(3, 2, seed=6), rows(3, 2, seed=7), rows(2, seed=8), 0.1),
        (rows(7, 4, seed=9), rows(7, 4, seed=10), rows(4, seed=11), 1e-3),
    ]


def _standardised(function: Function, x: Tensor, *rest: Any) -> bool:
    if len(x) < 2:
        return False
    weight, bias, mean, var = rest[:4]
    y = function(x, torch.ones_like(weight), 0 * bias, mean, var, True, 0.1, _TINY)[0]
    return apart(y.mean(0), 0 * bias) or apart(y.square().mean(0), torch.ones_like(bias))


def _by_itself(function: Function, x: Tensor, *rest: Any) -> bool:
    *state, _, momentum, eps = rest
    together = function(x, *state, False, momentum, eps)[0]
    return apart(together[:1], function(x[:1], *state, False, momentum, eps)[0])


def _kept(function: Function, x: Tensor, *rest: Any) -> bool:
    *state, _, momentum, eps = rest
    _, mean, var = function(x, *state, False, momentum, eps)
    return apart(mean, state[2]) or apart(var, state[3])


def _replaced(function: Function, x: Tensor, *rest: Any) -> bool:
    """With a momentum of 1 nothing old is left."""
    if len(x) < 2:
        return False
    *state, _, _, eps = rest
    _, mean, var = function(x, *state, True, 1.0, eps)
    return apart(mean, x.mean(0)) or apart(var, x.var(0))


def _shifted(function: Function, x: Tensor, *rest: Any) -> bool:
    if len(x) < 2:
        return False
    *state, _, momentum, eps = rest
    moved = function(x + 3, *state, True, momentum, eps)[0]
    return apart(moved, function(x, *state, True, momentum, eps)[0])


def _far(function: Function, x: Tensor, *rest: Any) -> bool:
    """In float32 the square of 4096 has no digits left for a variance of 1."""
    if len(x) < 2:
        return False
    _, bias, mean, var, _, momentum, _ = rest
    state = [it.float() for it in (torch.ones_like(bias), 0 * bias, mean, var)]
    near, far = (function((x + far).float(), *state, True, momentum, 0.1)[0] for far in (0, 4096))
    return not bool(((near - far).abs() < 0.05).all())


def _gains(function: Function, x: Tensor, *rest: Any) -> bool:
    weight, bias, mean, var, training, momentum, eps = rest
    one = function(x, torch.ones_like(weight), 0 * bias, mean, var, training, momentum, eps)[0]
    return apart(
        function(x, weight, bias, mean, var, training, momentum, eps)[0], weight * one + bias
    )


def _eps_in_evaluation(function: Function, x: Tensor, *rest: Any) -> bool:
    weight, bias, mean, var, _, momentum, _ = rest
    inside = function(x, weight, bias, mean, var, False, momentum, 0.5)[0]
    return apart(inside, function(x, weight, bias, mean, var + 0.5, False, momentum, 0.0)[0])


def _eps_in_training(function: Function, x: Tensor, *rest: Any) -> bool:
    if len(x) < 2:
        return False
    weight, bias, mean, var, _, momentum, _ = rest
    y = function(x, torch.ones_like(weight), 0 * bias, mean, var, True, momentum, 0.5)[0]
    variance = x.var(0, correction=0)
    return apart(y.square().mean(0), variance / (variance + 0.5))


def _held(function: Function, x: Tensor, *rest: Any) -> bool:
    """Mean and variance carry a gradient too: without it the two sums are not 0."""
    if len(x) < 2:
        return False
    weight, bias, mean, var = rest[:4]
    leaf = x.clone().requires_grad_()
    y = function(leaf, weight, bias, mean, var, True, 0.1, _TINY)[0]
    upstream = torch.cos(torch.arange(y.numel(), dtype=x.dtype)).view_as(y)
    (slope,) = torch.autograd.grad(y, leaf, upstream)
    return apart(torch.stack([slope.sum(0), (slope * x).sum(0)]), torch.zeros(2, len(bias)).to(x))


def _gain_in_its_gradient(
    function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float
) -> bool:
    _, of_gain, of_bias = function(grad, x, weight, eps)
    other = function(grad, x, 3 * weight, eps)[1]
    return apart(of_bias, grad.sum(0)) or apart(of_gain, other)


def _no_sum(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    return apart(function(grad, x, weight, eps)[0].sum(0), torch.zeros_like(weight))


def _orthogonal(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    grad_x = function(grad, x, weight, _TINY)[0]
    return apart((grad_x * x).sum(0), torch.zeros_like(weight))


def _summed(function: Function, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> bool:
    twice = function(torch.cat([grad, grad]), torch.cat([x, x]), weight, eps)
    once = function(grad, x, weight, eps)
    return apart(twice[1], 2 * once[1]) or apart(twice[2], 2 * once[2])


_VARIANCE = "(wide - mean).square().mean(0)"
_SCALED = "weight * (wide - mean) * torch.rsqrt(var + eps) + bias"

BATCH_NORM = Exercise(
    name="batch_norm",
    topic="norm/batch_norm",
    level=2,
    task=(
        "x is (m, C), one row per token; normalise each feature over the rows (the variance "
        "divides by m, and eps is added to it), times weight, plus bias. Return the output and "
        "the new running mean and variance: momentum is the share of this batch, and the variance "
        "that is stored divides by m - 1. In evaluation use the running statistics, and leave "
        "them. Change no argument."
    ),
    inputs=_forward,
    definition="norm-batch",
    laws=(
        Law(
            "In training with eps = 0, gain 1 and no bias each feature has the mean 0 and the "
            "mean square 1.",
            "norm-batch",
            _standardised,
        ),
        Law(
            "In evaluation a row is normalised without a look at the others.",
            "norm-batch-eval",
            _by_itself,
        ),
        Law("Evaluation leaves the running statistics.", "norm-batch-eval", _kept),
        Law(
            "With a momentum of 1 the mean of the batch is stored, and its variance with m - 1.",
            "norm-batch-running",
            _replaced,
        ),
        Law(
            "In training a number added to a feature in every row changes no output.",
            "norm-batch-rows",
            _shifted,
        ),
        Law(
            "In float32 and training 4096 added to a feature in every row changes almost nothing.",
            "norm-batch-rows",
            _far,
        ),
        Law("The gain multiplies, and then the bias is added.", "norm-batch", _gains),
        Law(
            "In evaluation eps acts as if it were added to the running variance.",
            "norm-batch-eval",
            _eps_in_evaluation,
        ),
        Law(
            "In training with gain 1 and no bias the mean square is the variance over itself "
            "plus eps.",
            "norm-batch",
            _eps_in_training,
        ),
        Law(
            "In training at eps = 0 the gradient of a feature sums to 0, and is orthogonal to it.",
            "norm-batch-backward",
            _held,
        ),
    ),
    mistakes=(
        Mistake(
            "the unbiased variance normalises",
            "torch.var divides by m - 1. The variance that normalises divides by m.",
            (
                (
                    _SCALED,
                    "weight * (wide - mean) * torch.rsqrt((unbiased if training else var) "
                    "+ eps) + bias",
                ),
            ),
        ),
        Mistake(
            "the biased variance is stored",
            "Evaluation estimates the variance of the data, so what is stored divides by m - 1.",
            (("momentum * unbiased", "momentum * var.detach()"),),
        ),
        Mistake(
            "statistics over the features",
            "That is LayerNorm: here each feature is averaged over the rows.",
            (
                ("wide.mean(0)", "wide.mean(-1, keepdim=True)"),
                (_VARIANCE, "(wide - mean).square().mean(-1, keepdim=True)"),
                ("momentum * mean.detach()", "momentum * wide.mean(0).detach()"),
                (
                    "var.detach() * (m / (m - 1))",
                    "(wide - wide.mean(0)).square().mean(0).detach() * (m / (m - 1))",
                ),
            ),
        ),
        Mistake(
            "statistics of the batch in evaluation",
            "In evaluation an output would still depend on the rest of the batch.",
            (
                (
                    _SCALED,
                    "weight * (wide - wide.mean(0)) * torch.rsqrt((wide - wide.mean(0))"
                    ".square().mean(0) + eps) + bias",
                ),
            ),
        ),
        Mistake(
            "running statistics in training",
            "In training the batch is normalised by itself; the averages are only written.",
            ((_SCALED, "weight * (wide - running_mean) * torch.rsqrt(running_var + eps) + bias"),),
        ),
        Mistake(
            "frozen, but still updated",
            "Evaluation reads the running statistics and does not write them.",
            (
                ("if training:", "if len(wide) > 1:"),
                (
                    "mean, var = running_mean, running_var  # (C,)",
                    "old = mean, var = running_mean, running_var",
                ),
                (
                    f"y = {_SCALED}",
                    f"mean, var = (mean, var) if training else old\n    y = {_SCALED}",
                ),
            ),
        ),
        Mistake(
            "eps outside the root",
            "It is added to the variance, before the root.",
            (("torch.rsqrt(var + eps)", "1 / (var.sqrt() + eps)"),),
        ),
        Mistake(
            "bias before the gain",
            "The bias is added last, and is not multiplied by the gain.",
            ((_SCALED, "weight * ((wide - mean) * torch.rsqrt(var + eps) + bias)"),),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "the mean of the squares minus the square of the mean",
            "Where the mean is large both are, and in float32 their difference has no digits "
            "left: subtract the mean first, and square then.",
            ((_VARIANCE, "wide.square().mean(0) - mean.square()"),),
        ),
        Mistake(
            "mean and variance held fixed",
            "They depend on every row: with their part the gradient of a feature sums to 0.",
            (
                ("mean = wide.mean(0)\n", "mean = wide.mean(0).detach()\n"),
                (_VARIANCE, f"{_VARIANCE}.detach()"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "momentum of the old statistics",
            "In TensorFlow and Keras momentum is what the average keeps, 0.99 by default; torch's "
            "is the share of the new batch, and in Keras the variance that is stored divides by m.",
            (
                (
                    "(1 - momentum) * running_mean + momentum * mean",
                    "momentum * running_mean + (1 - momentum) * mean",
                ),
                (
                    "(1 - momentum) * running_var + momentum * unbiased",
                    "momentum * running_var + (1 - momentum) * unbiased",
                ),
            ),
        ),
        Convention(
            "momentum of the old statistics, and their variance divided by m",
            "So it is in Keras. To match torch, exchange momentum and 1 - momentum, and store the "
            "variance that divides by m - 1.",
            (
                (
                    "(1 - momentum) * running_mean + momentum * mean",
                    "momentum * running_mean + (1 - momentum) * mean",
                ),
                (
                    "(1 - momentum) * running_var + momentum * unbiased",
                    "momentum * running_var + (1 - momentum) * unbiased",
                ),
                ("var.detach() * (m / (m - 1))", "var.detach()"),
            ),
        ),
    ),
    hints=(
        "Which mean and variance are used depends on the mode; the formula is the same.",
        "There are two variances in training: one normalises and divides by m.",
        "The other is stored and divides by m - 1, since evaluation estimates that of the data.",
    ),
    branches={
        "evaluation": lambda x, w, b, mean, var, training, momentum, eps: not training,
        "several features": lambda x, *_: x.shape[1] > 1,
        "eps almost 0": lambda *given: given[-1] == _TINY,
    },
    fixed=("running_mean", "running_var"),
)

BATCH_NORM_BACKWARD = Exercise(
    name="batch_norm_backward",
    topic="norm/batch_norm",
    level=3,
    task=(
        "Return the gradients of BatchNorm in training (grad and x are (m, C), eps is added to "
        "the variance) with respect to x, weight (C,) and bias (C,), given grad, that of its "
        "output."
    ),
    inputs=_backward,
    definition="norm-batch-backward",
    laws=(
        Law("The gradient of a feature sums to 0 over the rows.", "norm-batch-backward", _no_sum),
        Law(
            "With eps = 0 the gradient of a feature is orthogonal to the feature.",
            "norm-batch-backward",
            _orthogonal,
        ),
        Law("The gradients of gain and bias are sums over rows.", "norm-batch-backward", _summed),
        Law(
            "The gradient of the bias is the sum of grad, and that of the gain does not depend on "
            "the gain.",
            "norm-batch-backward",
            _gain_in_its_gradient,
        ),
    ),
    mistakes=(
        Mistake(
            "mean held constant",
            "The mean of the batch depends on every row, so the mean of grad is subtracted too.",
            (("grad - grad.mean(0) - x_hat", "grad - x_hat"),),
        ),
        Mistake(
            "deviation held constant",
            "The standard deviation depends on every row too.",
            ((" - x_hat * along)", ")"),),
        ),
        Mistake(
            "gradient of evaluation",
            "With running statistics gain over deviation is all; in training two means go.",
            (("(grad - grad.mean(0) - x_hat * along)", "grad"),),
        ),
        Mistake(
            "variance divided by m - 1",
            "The variance that normalises divides by m.",
            (("centred.square().mean(0)", "centred.var(0)"),),
        ),
        Mistake(
            "gain forgotten",
            "The gradient passes the gain before it meets the normalised entries.",
            (("grad_x = weight * rstd", "grad_x = rstd"),),
        ),
        Mistake(
            "eps ignored",
            "It stands in the deviation, backwards as forwards.",
            (("centred.square().mean(0) + eps", "centred.square().mean(0)"),),
        ),
        Mistake(
            "not divided by the deviation",
            "The output scales with the inverse of the deviation, and so does the gradient.",
            (("grad_x = weight * rstd", "grad_x = weight"),),
        ),
        Mistake(
            "means over the features",
            "That is the gradient of LayerNorm; here the means run over the rows.",
            (
                ("grad.mean(0)", "grad.mean(-1, keepdim=True)"),
                ("(grad * x_hat).mean(0)", "(grad * x_hat).mean(-1, keepdim=True)"),
            ),
        ),
        Mistake(
            "sums for the two means",
            "What is subtracted are averages over the rows, not sums.",
            (("grad - grad.mean(0)", "grad - grad.sum(0)"), ("x_hat).mean(0)", "x_hat).sum(0)")),
        ),
        Mistake(
            "gradients of gain and bias averaged over rows",
            "A parameter that is used in every row collects a sum.",
            (("(grad * x_hat).sum(0), grad.sum(0)", "(grad * x_hat).mean(0), grad.mean(0)"),),
        ),
    ),
    hints=(
        "It is LayerNorm's backward pass along the other axis.",
        "Which two directions of a feature's column change nothing? Both parts of grad have to go.",
        "The gain is one number along the means, so it may stand before them.",
    ),
    branches={
        "several features": lambda grad, x, weight, eps: x.shape[1] > 1,
        "eps almost 0": lambda grad, x, weight, eps: eps == _TINY,
    },
)

EXERCISES = (
    BATCH_NORM,
    BATCH_NORM_BACKWARD,
)
