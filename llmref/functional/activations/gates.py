"""The input times a gate that depends on it: relu, silu and gelu, with their derivatives.

Leaves out: the gate of the sigmoid itself (see logistic).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_choice, require_number, require_positive
from llmref.functional.activations.logistic import d_sigmoid, sigmoid

Approximate = Literal["none", "tanh", "sigmoid"]
GELU_CUBIC = 0.044715
GELU_SIGMOID = 1.702


def relu(x: Tensor) -> Tensor:
    """The positive part of x, with slope 0 at 0.

    Shapes: x (...) -> (...)
    Source: Nair & Hinton 2010.
    Raises: TypeError unless x is floating point.
    """
    return widen(x).masked_fill(x <= 0, 0).to(x.dtype)  # eq. eq-relu


def silu(x: Tensor, beta: float = 1.0) -> Tensor:
    """The input times its own sigmoid; Swish with slope beta.

    silu(log 3) = 0.75 log 3.
    Shapes: x (...) -> (...)
    Source: Elfwing, Uchibe & Doya 2017, arXiv:1702.03118; beta: Ramachandran, Zoph & Le
    2017, arXiv:1710.05941.
    Differs: defined at -inf (0) and inf (inf), gradients included.
    Raises: TypeError unless x is floating point; ValueError unless beta is positive and
    finite.
    """
    wide = widen(x)
    beta = _finite_slope(beta, wide)
    value = _with_limits(wide, relu(wide), lambda t: t * sigmoid(beta * t))  # eq. eq-silu
    return value.to(x.dtype)


def gelu(x: Tensor, approximate: Approximate = "none") -> Tensor:
    """The input times the probability that a standard normal variable is below it.

    Shapes: x (...) -> (...)
    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, with its two approximations.
    Differs: erfc in place of 1 + erf, so that the left tail keeps its digits; defined at
    -inf (0) and inf (inf), gradients included.
    Raises: TypeError unless x is floating point; ValueError for an unknown approximation.
    """
    require_choice(Approximate, approximate=approximate)
    wide = widen(x)
    # eq. eq-gelu
    value = _with_limits(wide, relu(wide), lambda t: t * _gelu_gate(t, approximate))
    return value.to(x.dtype)


def d_relu(x: Tensor) -> Tensor:
    """Derivative of relu where it exists, and 0 at 0.

    Shapes: x (...) -> (...)
    Source: Nair & Hinton 2010.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x)
    return torch.where(wide.isnan(), wide, wide > 0).to(x.dtype)  # eq. eq-relu


def d_silu(x: Tensor, beta: float = 1.0) -> Tensor:
    """Derivative of silu: s + y s (1 - s) with y = beta x and s = sigmoid(y).

    d_silu(0) = 1/2.
    Shapes: x (...) -> (...)
    Source: Elfwing, Uchibe & Doya 2017, arXiv:1702.03118.
    Raises: as silu.
    """
    wide = widen(x)
    y = _finite_slope(beta, wide) * wide
    # eq. eq-silu-derivative
    slope = _with_limits(y, d_relu(y), lambda t: sigmoid(t) + t * d_sigmoid(t))
    return slope.to(x.dtype)


def d_gelu(x: Tensor, approximate: Approximate = "none") -> Tensor:
    """Derivative of gelu or of one of its approximations: gate(x) + x gate'(x).

    d_gelu(0) = 1/2 for all three.
    Shapes: x (...) -> (...)
    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    Raises: as gelu.
    """
    require_choice(Approximate, approximate=approximate)
    wide = widen(x)

    def slope(t: Tensor) -> Tensor:
        return _gelu_gate(t, approximate) + t * _gelu_gate_slope(t, approximate)

    # eq. eq-gelu-derivative
    return _with_limits(wide, d_relu(wide), slope).to(x.dtype)


def _finite_slope(beta: float, x: Tensor) -> float:
    """A positive slope, as large at most as the dtype of x can hold: 0 times infinity is NaN."""
    require_number(beta=beta)
    require_positive(beta=beta)
    return min(beta, torch.finfo(x.dtype).max)


def _gelu_gate(x: Tensor, approximate: Approximate) -> Tensor:
    if approximate == "none":
        return torch.erfc(-x / math.sqrt(2)) / 2  # eq. eq-gelu
    if approximate == "tanh":
        return sigmoid(_cubic(x)[0])  # eq. eq-gelu-tanh
    return sigmoid(GELU_SIGMOID * x)  # eq. eq-gelu-sigmoid


def _gelu_gate_slope(x: Tensor, approximate: Approximate) -> Tensor:
    if approximate == "none":
        return (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
    if approximate == "tanh":
        value, slope = _cubic(x)
        return d_sigmoid(value) * slope
    return GELU_SIGMOID * d_sigmoid(GELU_SIGMOID * x)


def _cubic(x: Tensor) -> tuple[Tensor, Tensor]:
    """The argument of the sigmoid in the tanh form of gelu, and its derivative."""
    # Beyond 25 the gate is 0 or 1 in float64 too; without the clamp x^3 overflows, and the
    # gradient is 0 * inf.
    x = x.clamp(-25, 25)
    scale = 2 * math.sqrt(2 / math.pi)
    return scale * (x + GELU_CUBIC * x**3), scale * (1 + 3 * GELU_CUBIC * x**2)


def _with_limits(x: Tensor, limits: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The function where x is finite, and its limits at -inf and inf, where it holds 0 * inf."""
    infinite = x.isinf()
    # Replaced on the way in as well: 0 * NaN in the backward pass would be NaN.
    return torch.where(infinite, limits, function(x.masked_fill(infinite, 0)))
