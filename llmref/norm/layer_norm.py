"""What does LayerNorm keep of its input, and what is its gradient?

Leaves out: normalisation over the batch or over time, and fused kernels. Statistics are computed in
float32 at least, whatever the input, and the result is rounded once.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from llmref._require import (
    require_at_least,
    require_axis,
    require_choice,
    require_floating,
    require_one_dtype,
    require_shapes,
)
from llmref.norm._scale import divide_by_rms, largest_entry, power_of_two, require_finite
from llmref.norm._shape import Shape, prepare, shape_tuple

Placement = Literal["pre", "post"]


def layer_norm(
    x: Tensor,
    normalized_shape: Shape,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
) -> Tensor:
    """Subtract the mean of the features, divide by their standard deviation, scale and shift.

    layer_norm((1, 2, 3), 3, eps=0) = (-1, 0, 1) * sqrt(3/2).
    Shapes: x (..., *normalized_shape), weight and bias normalized_shape -> the shape of x
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.
    Differs: eps is inside the root, as in every library; the paper has none. Right for rows of any
    size, and for rows whose mean is large against their deviation.
    Raises: TypeError unless x is floating point; ValueError for a shape that does not fit, eps < 0,
    or a constant row with eps = 0.
    """
    y, _, _ = _normalize(x, normalized_shape, eps, "layer_norm", weight=weight, bias=bias)
    y = y if weight is None else weight * y
    return (y if bias is None else y + bias).to(x.dtype)


def layer_norm_stats(x: Tensor, normalized_shape: Shape, *, eps: float) -> tuple[Tensor, Tensor]:
    """Mean, and reciprocal of the root of variance plus eps, of each row.

    The variance divides by n, and is taken from the differences to the mean.
    Shapes: x (..., *normalized_shape) -> two tensors (..., 1, ...) in float32 at least
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.
    Raises: as layer_norm.
    """
    _, mean, rstd = _normalize(x, normalized_shape, eps, "layer_norm_stats")
    return mean, rstd


def layer_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor | None = None,
    normalized_shape: Shape | None = None,
    *,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from the gradient of the output.

    normalized_shape defaults to the shape of weight, or else to the last axis.
    Shapes: grad_output and x (..., *normalized_shape) -> that of x, and twice normalized_shape
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450 (the forward formula, differentiated).
    Raises: as layer_norm; ValueError if grad_output has another shape than x, or if the reciprocal
    of the standard deviation overflows.
    """
    require_floating(x=x, grad_output=grad_output)
    require_shapes("x (...), grad_output (...)", x=x, grad_output=grad_output)
    shape = normalized_shape
    if shape is None:
        shape = x.shape[-1:] if weight is None else weight.shape
    axes = tuple(range(-len(shape_tuple(shape)), 0))
    x_hat, _, rstd = _normalize(x, shape, eps, "layer_norm_backward", weight=weight)
    require_finite(rstd, "1 / standard deviation")
    dy = grad_output.to(x_hat.dtype)
    g = dy if weight is None else weight * dy
    # eq. eq-layer-norm-backward: one mean for the centring, one for the scale.
    along = (g * x_hat).mean(axes, keepdim=True)
    dx = rstd * (g - g.mean(axes, keepdim=True) - x_hat * along)
    rows = tuple(range(x.dim() - len(axes)))
    dtype = x.dtype if weight is None else weight.dtype
    dweight, dbias = ((dy * f).sum(rows) if rows else dy * f for f in (x_hat, 1))
    return dx.to(x.dtype), dweight.to(dtype), dbias.to(dtype)


def layer_norm_jacobian(x: Tensor, *, eps: float) -> Tensor:
    """Jacobian of the normalised row (weight 1, bias 0); symmetric.

    Shapes: x (..., n) -> (..., n, n)
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450 (the forward formula, differentiated).
    Raises: as layer_norm; ValueError if the reciprocal of the standard deviation overflows.
    """
    require_floating(x=x)
    require_axis("n", 1, "x (..., n)", x=x)
    n = x.size(-1)
    x_hat, _, rstd = _normalize(x, n, eps, "layer_norm_jacobian")
    require_finite(rstd, "1 / standard deviation")
    centred = torch.eye(n, dtype=x_hat.dtype, device=x.device) - 1 / n
    outer = x_hat.unsqueeze(-1) * x_hat.unsqueeze(-2)
    return (rstd.unsqueeze(-1) * (centred - outer / n)).to(x.dtype)  # eq. eq-layer-norm-jacobian


def fold_layer_norm(
    weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the next linear map, with LayerNorm's own taken into them.

    Shapes: weight (out, n), bias (out,), gamma and beta (n,) -> (out, n), (out,)
    Source: folklore of quantisation and pruning; stated and proved as norm-layer-fold.
    Raises: TypeError unless all have one dtype; ValueError for shapes that do not fit.
    """
    named = {"weight": weight, "bias": bias, "gamma": gamma, "beta": beta}
    require_shapes("weight (out, n), bias (out,), gamma (n,), beta (n,)", **named)
    require_one_dtype(**{name: it for name, it in named.items() if it is not None})
    shift = weight.new_zeros(len(weight)) if bias is None else bias
    # eq. eq-layer-norm-fold: gamma scales the columns.
    return weight * gamma, shift if beta is None else shift + weight @ beta


class LayerNorm(nn.Module):
    """`layer_norm` with its parameters; the names are those of torch, so its weights load.

    Shapes: (..., *normalized_shape) -> the same
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.
    Raises: as layer_norm.
    """

    def __init__(
        self,
        normalized_shape: Shape,
        *,
        eps: float,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_at_least(0, eps=eps)
        self.normalized_shape, self.eps = shape_tuple(normalized_shape), eps
        shape = self.normalized_shape
        self.weight = nn.Parameter(torch.ones(shape)) if elementwise_affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the trailing axes."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Shape, eps and which parameters there are, for print."""
        affine, bias = self.weight is not None, self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={bias}"


class ResidualBlock(nn.Module):
    """A sublayer with its residual connection, and the norm before it or after the sum.

    Shapes: (..., n) -> (..., n)
    Source: Xiong et al. 2020, arXiv:2002.04745.
    Raises: ValueError for another placement.
    """

    def __init__(self, norm: nn.Module, sublayer: nn.Module, placement: Placement) -> None:
        super().__init__()
        require_choice(Placement, placement=placement)
        self.norm, self.sublayer, self.placement = norm, sublayer, placement

    def forward(self, x: Tensor) -> Tensor:
        """Return x + F(norm(x)), or norm(x + F(x))."""
        pre = self.placement == "pre"
        y: Tensor = x + self.sublayer(self.norm(x)) if pre else self.norm(x + self.sublayer(x))
        return y


def _normalize(
    x: Tensor, normalized_shape: Shape, eps: float, name: str, **parameters: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised rows in float32 at least, their mean, and 1 / standard deviation."""
    wide, axes = prepare(x, normalized_shape, eps, name, **parameters)
    if eps == 0 and (wide.amax(axes) == wide.amin(axes)).any():
        raise ValueError(f"{name} of a constant row with eps = 0 is 0/0: give eps > 0")
    largest = largest_entry(wide, axes)
    power = power_of_two(largest, eps)  # no sum of a row over it overflows
    # A quarter of a row that is so large that a difference from the mean could overflow.
    part = torch.where(largest > torch.finfo(wide.dtype).max / 4, 0.25, 1.0).to(wide.dtype)
    mean = (wide.detach() * part / power).mean(axes, keepdim=True) * power
    # Its gradient is that of a mean, from which the power, which could overflow in it, cancels.
    mean = mean + part * (wide - wide.detach()).mean(axes, keepdim=True)
    centred = wide * part - mean
    # The mean is rounded at its own size; what is left of it shows beside the deviations.
    rest = (centred.detach() / power).mean(axes, keepdim=True) * power
    x_hat, rstd = divide_by_rms(centred - rest, axes, eps * part * part)  # eq. eq-layer-norm
    return x_hat, (mean + rest) / part, rstd * part
