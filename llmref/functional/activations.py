"""How are the activations and their derivatives computed without overflow or cancellation?

Leaves out: softmax (see functional.softmax) and the layers that use a gate (see components.swiglu).
Every function takes and returns any shape, entry by entry, and a NaN stays a NaN. float16 and
bfloat16 are computed in float32 and rounded once.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen

Approximate = Literal["none", "tanh", "sigmoid"]
GELU_CUBIC = 0.044715
GELU_SIGMOID = 1.702


def sigmoid(x: Tensor) -> Tensor:
    """Logistic function 1 / (1 + exp(-x)), from exponentials of non-positive numbers only.

    sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4.
    Shapes: x (...) -> (...)
    Source: elementary; the softmax of (0, x), see functional.softmax.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x, "sigmoid")
    decay = _minus_abs(wide).exp()
    # eq. eq-sigmoid-stable
    return (torch.where(wide >= 0, 1, decay) / (1 + decay)).to(x.dtype)


def log_sigmoid(x: Tensor) -> Tensor:
    """Logarithm of the sigmoid, finite where the sigmoid underflows to 0.

    log_sigmoid(0) = -log 2, log_sigmoid(-1000) = -1000.
    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    return -softplus(-widen(x, "log_sigmoid")).to(x.dtype)  # eq. eq-log-sigmoid


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), whose derivative is the sigmoid.

    softplus(0) = log 2, softplus(1000) = 1000.
    Shapes: x (...) -> (...)
    Source: Dugas et al. 2000.
    Differs: no threshold above which x itself is returned.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x, "softplus")
    rectified = torch.where(wide >= 0, wide, 0)  # slope 1 at 0; the rest has -1/2
    # eq. eq-softplus-stable
    return (rectified + _minus_abs(wide).exp().log1p()).to(x.dtype)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, with full relative precision also near 0.

    tanh(log 3) = (9 - 1) / (9 + 1) = 4/5.
    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x, "tanh")
    drop = (2 * _minus_abs(wide)).expm1()  # in (-1, 0]
    magnitude = -drop / (2 + drop)
    # eq. eq-tanh-stable
    return torch.where(wide >= 0, magnitude, -magnitude).to(x.dtype)


def relu(x: Tensor) -> Tensor:
    """The positive part of x, with slope 0 at 0.

    Shapes: x (...) -> (...)
    Source: Nair & Hinton 2010.
    Raises: TypeError unless x is floating point.
    """
    return widen(x, "relu").masked_fill(x <= 0, 0).to(x.dtype)  # eq. eq-relu


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
    wide, beta = widen(x, "silu"), _positive(beta)
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
    wide = widen(x, "gelu")
    # eq. eq-gelu
    value = _with_limits(wide, relu(wide), lambda t: t * _gelu_gate(t, approximate))
    return value.to(x.dtype)


def d_sigmoid(x: Tensor) -> Tensor:
    """Derivative of the sigmoid: sigmoid(x) sigmoid(-x), at most 1/4.

    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x, "d_sigmoid")
    # eq. eq-sigmoid-derivative. Not s (1 - s): 0 as soon as s rounds to 1.
    return (sigmoid(wide) * sigmoid(-wide)).to(x.dtype)


def d_tanh(x: Tensor) -> Tensor:
    """Derivative of tanh: 1 - tanh^2, without the cancellation.

    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    # eq. eq-tanh-derivative
    return (4 * d_sigmoid(2 * widen(x, "d_tanh"))).to(x.dtype)


def d_relu(x: Tensor) -> Tensor:
    """Derivative of relu where it exists, and 0 at 0.

    Shapes: x (...) -> (...)
    Source: Nair & Hinton 2010.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x, "d_relu")
    return torch.where(wide.isnan(), wide, wide > 0).to(x.dtype)  # eq. eq-relu


def d_silu(x: Tensor, beta: float = 1.0) -> Tensor:
    """Derivative of silu: s + y s (1 - s) with y = beta x and s = sigmoid(y).

    d_silu(0) = 1/2.
    Shapes: x (...) -> (...)
    Source: Elfwing, Uchibe & Doya 2017, arXiv:1702.03118.
    Raises: as silu.
    """
    y = _positive(beta) * widen(x, "d_silu")
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
    wide = widen(x, "d_gelu")

    def slope(t: Tensor) -> Tensor:
        return _gelu_gate(t, approximate) + t * _gelu_gate_slope(t, approximate)

    # eq. eq-gelu-derivative
    return _with_limits(wide, d_relu(wide), slope).to(x.dtype)


def _gelu_gate(x: Tensor, approximate: Approximate) -> Tensor:
    if approximate == "none":
        return torch.erfc(-x / math.sqrt(2)) / 2  # eq. eq-gelu
    if approximate == "tanh":
        return sigmoid(_cubic(x)[0])  # eq. eq-gelu-tanh
    if approximate == "sigmoid":
        return sigmoid(GELU_SIGMOID * x)  # eq. eq-gelu-sigmoid
    raise ValueError(f"approximate must be 'none', 'tanh' or 'sigmoid', got {approximate!r}")


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


def _minus_abs(x: Tensor) -> Tensor:
    # Not -x.abs(): autograd gives that the slope 0 at 0, and sigmoid would inherit it.
    return torch.where(x >= 0, -x, x)


def _with_limits(x: Tensor, limits: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The function where x is finite, and its limits at -inf and inf, where it holds 0 * inf."""
    infinite = x.isinf()
    # Replaced on the way in as well: 0 * NaN in the backward pass would be NaN.
    return torch.where(infinite, limits, function(x.masked_fill(infinite, 0)))


def _positive(beta: float) -> float:
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    return beta
