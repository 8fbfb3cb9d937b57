"""The affine map of a linear layer, its gradients, and the module that holds the weights.

Leaves out: how the weights are drawn (see init).
"""

import torch
from torch import Tensor, nn

from llmref._numeric import as_rows, widen
from llmref._require import (
    require_choice,
    require_finite,
    require_floating,
    require_one_dtype,
    require_shapes,
    require_size,
)
from llmref.components.linear.init import Scheme, activation_gain, init_std, uniform_bound


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each feature vector times the transposed weight, plus the bias.

    x (1, 2), weight rows (3, 4) and (5, 6), bias (0, 1): (11, 18).
    Shapes: x (..., in), weight (out, in), bias (out,) -> (..., out)
    Source: torch.nn.functional.linear, whose layout of the weight is used.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless all are floating point and of one dtype; ValueError if the shapes do
    not fit, or the result overflows or is NaN.
    """
    named = {"x": x, "weight": weight} if bias is None else {"x": x, "weight": weight, "bias": bias}
    require_one_dtype(**named)
    require_shapes("weight (out, in), x (..., in), bias (out,)", **({"bias": None} | named))
    y = widen(x) @ widen(weight).T  # eq. eq-linear
    y = (y if bias is None else y + bias).to(x.dtype)
    require_finite(y=y)
    return y


def linear_backward(
    grad_out: Tensor, x: Tensor, weight: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of input, weight and bias from the gradient of the output.

    Weight and bias sum over every leading axis; a mean in the loss is already in grad_out.
    Shapes: grad_out (..., out), x (..., in), weight (out, in) -> (..., in), (out, in), (out,) or
    None
    Source: Rumelhart, Hinton & Williams 1986.
    Raises: as linear, also for the gradients; ValueError if grad_out is not (..., out).
    """
    named = {"x": x, "weight": weight, "grad_out": grad_out}
    require_one_dtype(**named)
    require_shapes("weight (out, in), x (..., in), grad_out (..., out)", **named)
    rows, inputs = as_rows(widen(grad_out)), as_rows(widen(x))  # (m, out), (m, in)
    # eq. eq-linear-backward, line by line
    grad_x = (widen(grad_out) @ widen(weight)).to(x.dtype)
    grad_weight = (rows.T @ inputs).to(weight.dtype)
    require_finite(grad_x=grad_x, grad_weight=grad_weight)
    if not has_bias:
        return grad_x, grad_weight, None
    grad_bias = rows.sum(0).to(weight.dtype)
    require_finite(grad_bias=grad_bias)
    return grad_x, grad_weight, grad_bias


class Linear(nn.Module):
    """A linear layer with weight (out, in), drawn uniformly.

    init names the standard deviation: 'torch' is the default of torch.nn.Linear, whose bias is
    drawn too; 'xavier' has gain 1, 'kaiming_in' and 'kaiming_out' the gain sqrt(2) of a ReLU, and
    their biases start at 0. A layer that feeds no ReLU (an output head) needs no such gain.
    Shapes: x (..., in) -> (..., out)
    Source: Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852.
    Raises: ValueError if a size is below 1 or init is unknown; TypeError unless the sizes are ints
    and dtype is floating point.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Scheme = "torch",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require_size(1, in_features=in_features, out_features=out_features)
        require_choice(Scheme, init=init)
        gain = activation_gain("relu") if init.startswith("kaiming") else 1.0
        self.std = init_std(in_features, out_features, init, gain)
        self.init = init
        weight = torch.empty(out_features, in_features, device=device, dtype=dtype)
        require_floating(dtype=weight)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and, where there is one, set the bias."""
        bound = uniform_bound(self.std)
        nn.init.uniform_(self.weight, -bound, bound)
        # A Parameter of more than one entry has no truth value: ask for None.
        if self.bias is not None and self.init == "torch":
            nn.init.uniform_(self.bias, -bound, bound)
        elif self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer. Shapes: x (..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes and initialisation, for print."""
        out, size = self.weight.shape
        has_bias = self.bias is not None
        return f"in_features={size}, out_features={out}, bias={has_bias}, init={self.init!r}"
