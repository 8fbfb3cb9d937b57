"""The sigmoid, its logarithm, softplus and tanh, with two derivatives.

Leaves out: what is multiplied by a gate (see gates).
"""

import torch
from torch import Tensor

from llmref._numeric import widen


def sigmoid(x: Tensor) -> Tensor:
    """Logistic function 1 / (1 + exp(-x)), from exponentials of non-positive numbers only.

    sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4.
    Shapes: x (...) -> (...)
    Source: elementary; the softmax of (0, x), see functional.softmax.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x)
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
    return -softplus(-widen(x)).to(x.dtype)  # eq. eq-log-sigmoid


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), whose derivative is the sigmoid.

    softplus(0) = log 2, softplus(1000) = 1000.
    Shapes: x (...) -> (...)
    Source: Dugas et al. 2000.
    Differs: no threshold above which x itself is returned.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x)
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
    wide = widen(x)
    drop = (2 * _minus_abs(wide)).expm1()  # in (-1, 0]
    magnitude = -drop / (2 + drop)
    # eq. eq-tanh-stable
    return torch.where(wide >= 0, magnitude, -magnitude).to(x.dtype)


def d_sigmoid(x: Tensor) -> Tensor:
    """Derivative of the sigmoid: sigmoid(x) sigmoid(-x), at most 1/4.

    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    wide = widen(x)
    # eq. eq-sigmoid-derivative. Not s (1 - s): 0 as soon as s rounds to 1.
    return (sigmoid(wide) * sigmoid(-wide)).to(x.dtype)


def d_tanh(x: Tensor) -> Tensor:
    """Derivative of tanh: 1 - tanh^2, without the cancellation.

    Shapes: x (...) -> (...)
    Source: elementary.
    Raises: TypeError unless x is floating point.
    """
    # eq. eq-tanh-derivative
    return (4 * d_sigmoid(2 * widen(x))).to(x.dtype)


def _minus_abs(x: Tensor) -> Tensor:
    # Not -x.abs(): autograd gives that the slope 0 at 0, and sigmoid would inherit it.
    return torch.where(x >= 0, -x, x)
