"""The affine map of a linear layer, its gradients, and the module that holds the weights.

Leaves out: how the weights are drawn (see init).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from llmref.components.linear.init import activation_gain, init_std, uniform_bound


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each feature vector times the transposed weight, plus the bias.

    x (1, 2), weight rows (3, 4) and (5, 6), bias (0, 1): (11, 18).
    Shapes: x (..., in), weight (out, in), bias (out,) -> (..., out)
    Source: torch.nn.functional.linear, whose layout of the weight is used.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless all are floating point and of one dtype; ValueError if the shapes do
    not fit.
    """
    _check(x, weight)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias must be ({weight.shape[0]},), one number for each output, "
            f"got {tuple(bias.shape)}"
        )
    if bias is not None and bias.dtype != x.dtype:
        raise TypeError(f"needs one dtype, got x {x.dtype} and bias {bias.dtype}")
    y = _widen(x) @ _widen(weight).T  # eq. eq-linear
    return (y if bias is None else y + bias).to(x.dtype)


def linear_backward(
    grad_out: Tensor, x: Tensor, weight: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of input, weight and bias from the gradient of the output.

    Weight and bias sum over every leading axis; a mean in the loss is already in grad_out.
    Shapes: grad_out (..., out), x (..., in), weight (out, in) -> (..., in), (out, in), (out,) or
    None
    Source: Rumelhart, Hinton & Williams 1986.
    Raises: as linear; ValueError if grad_out is not (..., out).
    """
    _check(x, weight)
    expected = (*x.shape[:-1], weight.shape[0])
    if tuple(grad_out.shape) != expected:
        raise ValueError(f"grad_out must be {expected}, got {tuple(grad_out.shape)}")
    if grad_out.dtype != x.dtype:
        raise TypeError(f"needs one dtype, got x {x.dtype} and grad_out {grad_out.dtype}")
    grad, wide = _widen(grad_out), _widen(x)
    rows, inputs = grad.reshape(-1, grad.shape[-1]), wide.reshape(-1, wide.shape[-1])  # (m, ...)
    # eq. eq-linear-backward, line by line
    grad_x = grad @ _widen(weight)
    grad_weight = rows.T @ inputs
    grad_bias = rows.sum(0).to(weight.dtype) if has_bias else None
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias


class Linear(nn.Module):
    """A linear layer with weight (out, in), drawn uniformly.

    init names the standard deviation: 'torch' is the default of torch.nn.Linear, whose bias is
    drawn too; 'xavier' has gain 1, 'kaiming_in' and 'kaiming_out' the gain sqrt(2) of a ReLU, and
    their biases start at 0. A layer that feeds no ReLU (an output head) needs no such gain.
    Shapes: x (..., in) -> (..., out)
    Source: Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852.
    Raises: ValueError if a size is below 1 or init is unknown.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Literal["xavier", "kaiming_in", "kaiming_out", "torch"] = "torch",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        gain = activation_gain("relu") if init.startswith("kaiming") else 1.0
        self.std = init_std(in_features, out_features, init, gain)
        self.init = init
        weight = torch.empty(out_features, in_features, device=device, dtype=dtype)
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


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check(x: Tensor, weight: Tensor) -> None:
    if not x.is_floating_point() or x.dtype != weight.dtype:
        raise TypeError(
            f"needs floating-point tensors of one dtype, got x {x.dtype} and weight {weight.dtype}"
        )
    if weight.ndim != 2:
        raise ValueError(f"weight must be (out, in), got {tuple(weight.shape)}")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"the last axis of x {tuple(x.shape)} must be the last of weight (out, in) "
            f"{tuple(weight.shape)}"
        )
