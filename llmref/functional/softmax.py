"""How do scores become probabilities, and what is the derivative of that?

Leaves out: masks (see attention.scaled_dot_product), temperature (pass x / tau; divide the Jacobian
by tau as well) and the one-pass form over blocks.
"""

import math

import torch
from torch import Tensor

from llmref._numeric import check_distribution, minus_max, widen
from llmref._require import require_dim, require_shapes


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Exponentials of the scores, divided by their sum.

    softmax((0, log 2, log 5)) = (1/8, 2/8, 5/8). An entry -inf gets probability 0.
    Shapes: x (..., n, ...) -> the same, n the size of axis dim
    Source: Bridle 1990.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless x is floating point; ValueError if dim is no axis of x, a slice is
    empty or its maximum is -inf (nothing to share the mass), +inf or NaN.
    """
    # eq. eq-softmax-stable
    weights = minus_max(x, dim, "softmax").exp()
    return (weights / weights.sum(dim, keepdim=True)).to(x.dtype)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Logarithm of the softmax, finite even where the probability underflows to 0.

    log_softmax((0, log 3)) = (-log 4, log 3 - log 4).
    Shapes: x (..., n, ...) -> the same, n the size of axis dim
    Source: Blanchard, Higham & Higham 2019, arXiv:1909.03469.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: as softmax.
    """
    # eq. eq-log-softmax. Not x - logsumexp(x): that rounds at the size of x, this at x - max.
    shifted = minus_max(x, dim, "log_softmax")
    return (shifted - _sum_beyond_one(shifted, dim).log1p()).to(x.dtype)


def logsumexp(x: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Logarithm of the sum of exponentials, without forming the exponentials.

    logsumexp((0, 0)) = log 2. A slice of -inf alone is an empty sum: -inf, with gradient 0.
    Shapes: x (..., n, ...) -> (..., ...), or (..., 1, ...) with keepdim
    Source: Blanchard, Higham & Higham 2019, arXiv:1909.03469.
    Differs: a slice with +inf gives +inf; there the gradient does not exist and autograd gives NaN.
    Raises: TypeError unless x is floating point; ValueError if dim is no axis of x, or x holds NaN.
    """
    wide = widen(x)
    require_dim(dim, x=x)
    if x.size(dim) == 0:
        return x.sum(dim, keepdim=keepdim) - math.inf
    peak = wide.detach().amax(dim, keepdim=True)
    if peak.isnan().any():
        raise ValueError(f"logsumexp of a tensor {tuple(x.shape)} that holds NaN")
    shift = torch.where(peak.isfinite(), peak, 0)  # inf - inf would be NaN
    beyond = _sum_beyond_one(wide - shift, dim)
    empty = peak == -math.inf
    # Filled before the log: its gradient at 0 is infinite, and inf * 0 is NaN even if discarded.
    lse = beyond.masked_fill(empty, 0).log1p() + shift  # eq. eq-lse-stable
    lse = lse.masked_fill(empty, -math.inf)
    return (lse if keepdim else lse.squeeze(dim)).to(x.dtype)


def softmax_jacobian(p: Tensor) -> Tensor:
    """Jacobian of softmax at the point where it returns p: diag(p) - p p^T.

    At p = (1/2, 1/2) it is ((1/4, -1/4), (-1/4, 1/4)).
    Shapes: p (..., n) -> (..., n, n)
    Source: Bridle 1990.
    Raises: TypeError unless p is floating point; ValueError if it is not a distribution over the
    last axis.
    """
    check_distribution(p)
    wide = widen(p)
    identity = torch.eye(p.shape[-1], dtype=wide.dtype, device=p.device)
    # eq. eq-softmax-entry: p (1 - p) on the diagonal, since p - p^2 cancels near p = 1.
    return (wide.unsqueeze(-1) * (identity - wide.unsqueeze(-2))).to(p.dtype)  # (..., n, n)


def softmax_vjp(p: Tensor, grad: Tensor) -> Tensor:
    """Gradient before the softmax from the gradient after it, in O(n), without the Jacobian.

    p = (1/4, 3/4), grad = (4, 0): the mean of grad under p is 1, so (1/4 * 3, 3/4 * -1).
    Shapes: p (..., n), grad (..., n) -> (..., n)
    Source: Bridle 1990.
    Raises: TypeError unless both are floating point; ValueError if p is not a distribution over the
    last axis, or grad has another shape.
    """
    require_shapes("p (...), grad (...)", p=p, grad=grad)
    check_distribution(p)
    wide, wide_grad = widen(p), widen(grad, "grad")
    mean = (wide * wide_grad).sum(-1, keepdim=True)  # (..., 1)
    return (wide * (wide_grad - mean)).to(p.dtype)  # eq. eq-softmax-vjp


def entropy(p: Tensor, dim: int = -1) -> Tensor:
    """Shannon entropy in nats, with 0 log 0 = 0.

    entropy((1/2, 1/4, 1/4)) = 1.5 log 2.
    Shapes: p (..., n, ...) -> (..., ...)
    Source: Shannon 1948.
    Differs: the gradient at an entry 0 is 0, not infinite, so that it passes back through a softmax
    (which multiplies it by that 0) without NaN.
    Raises: TypeError unless p is floating point; ValueError if dim is no axis of p, or p is not a
    distribution along it (logits are a common mistake).
    """
    check_distribution(p, dim)
    wide = widen(p)
    # eq. eq-entropy
    return (wide * -torch.where(wide > 0, wide, 1).log()).sum(dim).to(p.dtype)


def _sum_beyond_one(shifted: Tensor, dim: int) -> Tensor:
    """The sum of the exponentials without the 1 of one entry that is 0, in all their digits."""
    first = shifted.detach().argmax(dim, keepdim=True)
    one = torch.zeros_like(shifted).scatter(dim, first, 1)
    return (shifted.exp() - one).sum(dim, keepdim=True)  # eq. eq-log1p
