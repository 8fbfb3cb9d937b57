"""What does BatchNorm do in training, what in evaluation, and what does it couple?

Leaves out: masks (entries of padding count like all others), groups, and the communication between
ranks. The features are axis 1, and all other axes are the batch. Functions are pure: running
statistics are returned, not written.
"""

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import (
    require_at_least,
    require_axis,
    require_finite,
    require_floating,
    require_in,
    require_integers,
    require_number,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.norm.layer_norm import layer_norm, layer_norm_stats


def batch_norm_train(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each feature by its mean and variance over the batch; return these too.

    batch_norm_train of the column (0, 0, 6, 6), eps=0: (-1, -1, 1, 1), mean 3, variance 9.
    The variance divides by the number m of entries; `update_running` stores another one.
    Shapes: x (N, C, ...), weight and bias (C,) -> the shape of x, and mean and variance (C,), in
    float32 at least
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
    Raises: TypeError unless all are floating point; ValueError for shapes that do not fit, eps < 0,
    fewer than two entries of a feature, a constant feature with eps = 0, or a variance that
    overflows.
    """
    rows = _rows("batch_norm_train", x, eps, weight=weight, bias=bias)
    m = rows.size(1)
    x_hat = layer_norm(rows, m, eps=eps)  # the rows are features: LayerNorm along the other axis
    mean, _ = layer_norm_stats(rows, m, eps=eps)  # right where the sum of a row overflows
    centred = rows - mean
    centred = centred - centred.mean(1, keepdim=True)  # the mean is rounded at its own size
    variance = centred.square().mean(1)
    require_finite(" (the variance of a feature over the batch)", variance=variance)
    y = _affine(_back(x_hat, x), weight, bias)  # eq. eq-batch-norm
    return y.to(x.dtype), mean.squeeze(1), variance


def batch_norm_eval(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
) -> Tensor:
    """Normalise each feature by given statistics: a fixed affine map, entry by entry.

    Shapes: x (N, C, ...), all others (C,) -> the shape of x
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
    Raises: TypeError unless x is floating point; ValueError for shapes that do not fit, eps < 0, a
    negative variance, or one of 0 with eps = 0.
    """
    named = {"running_mean": running_mean, "running_var": running_var}
    wide = _checked(x, eps, **named, weight=weight, bias=bias)
    mean, rstd = _running(running_mean, running_var, eps, wide.dtype)
    shape = (-1, *[1] * (x.ndim - 2))
    x_hat = (wide - mean.view(shape)) * rstd.view(shape)
    return _affine(x_hat, weight, bias).to(x.dtype)  # eq. eq-batch-norm-eval


def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    count: int,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Running statistics after a batch: `momentum` is the share of the new one.

    mean and variance are those of `batch_norm_train` over `count` entries; the variance divides by
    count, and what is stored divides by count - 1. Nothing returned carries a gradient.
    Shapes: four of (C,) -> two of (C,)
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1 (the unbiased variance).
    Differs: averages that forget, as is the default in libraries. Keras' momentum is 1 minus this
    one, and the variance that it stores divides by count.
    Raises: TypeError unless count is an int and all tensors are floating point; ValueError for
    shapes that do not fit, count < 2, or momentum outside [0, 1].
    """
    named = {"running_mean": running_mean, "running_var": running_var}
    new = {"mean": mean, "variance": variance}
    require_shapes("running_mean (C,), running_var (C,), mean (C,), variance (C,)", **named, **new)
    require_size(2, count=count)
    require_number(momentum=momentum)
    momentum = momentum.item() if isinstance(momentum, Tensor) else float(momentum)
    require_in("[0, 1]", momentum=momentum)
    require_in("[0, inf)", variance=variance)
    unbiased = widen(variance, "variance").detach() * (count / (count - 1))
    stored = []
    for (name, old), seen in zip(
        named.items(), (widen(mean, "mean").detach(), unbiased), strict=True
    ):
        kept = (1 - momentum) * widen(old, name).detach()
        stored.append((kept + momentum * seen).to(old.dtype))  # eq. eq-batch-norm-running
    return stored[0], stored[1]


def batch_norm_backward(
    grad_output: Tensor, x: Tensor, weight: Tensor | None = None, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias in training, from the gradient of the output.

    Shapes: grad_output and x (N, C, ...), weight (C,) -> that of x, and twice (C,)
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.
    Raises: as batch_norm_train; ValueError if grad_output has another shape than x, or if the
    reciprocal of the standard deviation overflows.
    """
    require_shapes("x (...), grad_output (...)", x=x, grad_output=grad_output)
    rows = _rows("batch_norm_backward", x, eps, weight=weight)
    m = rows.size(1)
    x_hat = layer_norm(rows, m, eps=eps)
    _, rstd = layer_norm_stats(rows, m, eps=eps)
    require_finite(" (1 / standard deviation: a feature is too small for a gradient)", rstd=rstd)
    dy = _as_rows(widen(grad_output, "grad_output"))
    # eq. eq-batch-norm-backward: the gain is one number along the means, and stands before them.
    along = (dy * x_hat).mean(1, keepdim=True)
    dx = rstd * (dy - dy.mean(1, keepdim=True) - x_hat * along)
    dtype = x.dtype if weight is None else weight.dtype
    grads = _affine(_back(dx, x), weight, None), (dy * x_hat).sum(1), dy.sum(1)
    return grads[0].to(x.dtype), grads[1].to(dtype), grads[2].to(dtype)


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    gamma: Tensor,
    beta: Tensor | None,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer before, with BatchNorm in evaluation taken into them.

    Of a linear layer or a convolution that is not transposed: its rows, weight[c], are scaled.
    Shapes: weight (C, ...), all others (C,) -> that of weight, (C,)
    Source: folklore of deployment; stated and proved as norm-batch-eval.
    Raises: as batch_norm_eval; ValueError if weight has not C rows.
    """
    named = {"running_mean": running_mean, "running_var": running_var}
    axes = "running_mean (C,), running_var (C,), gamma (C,), beta (C,), bias (C,)"
    require_floating(weight=weight, gamma=gamma, **named)
    require_shapes(axes, **named, gamma=gamma, beta=beta, bias=bias)
    if weight.shape[:1] != running_mean.shape:
        shape, C = tuple(weight.shape), len(running_mean)
        raise ValueError(f"weight must be (C, ...) with C = {C} rows, got {shape}")
    wide = widen(weight, "weight")
    mean, rstd = _running(running_mean, running_var, eps, wide.dtype)
    scale = gamma * rstd
    shift = -mean if bias is None else bias - mean
    folded = scale * shift if beta is None else scale * shift + beta
    # eq. eq-batch-norm-fold: rows, where a norm before the layer scales columns.
    rows = scale.view(-1, *[1] * (weight.ndim - 1)) * wide
    return rows.to(weight.dtype), folded.to(weight.dtype)


def merge_batch_stats(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the whole batch, from those of its K parts.

    The variances divide by the numbers of entries, before and after.
    Shapes: means and variances (K, C), counts (K,) -> two of (C,), in float32 at least
    Source: the sum of squares, split; stated and proved as norm-batch-parts.
    Raises: TypeError unless means and variances are floating point and counts are integers;
    ValueError for shapes that do not fit, no part, a count below 1, a negative variance, or a
    result that is not finite.
    """
    named = {"means": means, "variances": variances, "counts": counts}
    require_tensor(counts=counts)
    require_floating(means=means, variances=variances)
    require_axis("K", 1, "means (K, C), variances (K, C), counts (K,)", **named)
    require_integers(counts=counts)
    if not (counts >= 1).all():
        raise ValueError(f"counts must be at least 1, got {counts.min().item()}")
    dtype = wide_dtype(means, variances)
    wide, spread = widen(means, "means").to(dtype), widen(variances, "variances").to(dtype)
    require_in("[0, inf)", variances=spread)
    weights = (counts.double() / counts.double().sum()).to(dtype)[:, None]
    far = wide - wide[:1]  # means that are large beside their spread keep their digits
    shift = (weights * far).sum(0)
    # eq. eq-batch-norm-parts: the spread within the parts, and that of their means.
    variance = (weights * (spread + (far - shift).square())).sum(0)
    require_finite(" (of the whole batch, from means and variances)", variance=variance)
    return wide[0] + shift, variance


def _checked(x: Tensor, eps: float, **parameters: Tensor | None) -> Tensor:
    """The input in float32 at least, after its axes and those of the parameters."""
    require_number(eps=eps)
    require_at_least(0, eps=eps)
    require_floating(x=x)
    if x.ndim < 2:
        raise ValueError(f"x must be (N, C, ...), got {tuple(x.shape)}")
    require_floating(**{name: value for name, value in parameters.items() if value is not None})
    for name, value in parameters.items():
        if value is not None and value.shape != x.shape[1:2]:
            seen = f"{tuple(value.shape)} beside x {tuple(x.shape)}"
            raise ValueError(f"{name} must be (C,) with C = {x.size(1)}, got {seen}")
    return widen(x)


def _rows(name: str, x: Tensor, eps: float, **parameters: Tensor | None) -> Tensor:
    """One row for each feature, of all its entries in the batch.

    Shapes: x (N, C, ...) -> (C, m)
    """
    rows = _as_rows(_checked(x, eps, **parameters))
    if rows.size(1) < 2:
        raise ValueError(
            f"{name} needs two entries of each feature at least, got an input {tuple(x.shape)}: "
            "the only entry of a feature is its own mean"
        )
    if eps == 0 and (rows.amax(1) == rows.amin(1)).any():
        raise ValueError(f"{name} of a constant feature with eps = 0 is 0/0: give eps > 0")
    return rows


def _as_rows(x: Tensor) -> Tensor:
    """Shapes: x (N, C, ...) -> (C, m)."""
    return x.transpose(0, 1).flatten(1)


def _back(rows: Tensor, x: Tensor) -> Tensor:
    """Shapes: rows (C, m), x (N, C, ...) -> the shape of x."""
    return rows.reshape(x.size(1), x.size(0), *x.shape[2:]).transpose(0, 1)


def _affine(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Shapes: x_hat (N, C, ...), weight and bias (C,) -> (N, C, ...)."""
    shape = (-1, *[1] * (x_hat.ndim - 2))
    y = x_hat if weight is None else weight.view(shape) * x_hat
    return y if bias is None else y + bias.view(shape)


def _running(
    mean: Tensor, variance: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The mean, and the reciprocal of the root of variance plus eps."""
    require_number(eps=eps)
    require_at_least(0, eps=eps)
    require_in("[0, inf)", running_var=variance)
    dtype = torch.promote_types(dtype, wide_dtype(mean, variance))
    total = widen(variance, "running_var").to(dtype) + eps
    if (total == 0).any():
        raise ValueError("a running variance of 0 with eps = 0 is x/0: give eps > 0")
    return widen(mean, "running_mean").to(dtype), total.rsqrt()
