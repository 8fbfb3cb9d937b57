"""Rows divided by their root mean square, whatever the size of their entries."""

import math

import torch
from torch import Tensor


def divide_by_rms(x: Tensor, axes: tuple[int, ...], eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The rows over the root of mean square plus eps, and the reciprocal of that root.

    No square overflows: the rows are divided by a power of 2 first, which changes no digit.
    Shapes: x (...) in float32 at least, eps scalar or (..., 1, ...) -> (...), (..., 1, ...)
    """
    power = power_of_two(largest_entry(x, axes), eps)
    scaled = x / power
    root = (scaled.square().mean(axes, keepdim=True) + eps / power / power).rsqrt()
    return scaled * root, root / power


def largest_entry(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest absolute value of each row, without a gradient.

    Shapes: x (...) -> (..., 1, ...)
    """
    return x.detach().abs().amax(axes, keepdim=True)


def power_of_two(largest: Tensor, eps: float | Tensor) -> Tensor:
    """The power of 2 just below the larger of an entry and the root of eps; never subnormal.

    Shapes: largest (...), eps scalar or (...) -> (...)
    """
    root = eps.sqrt() if isinstance(eps, Tensor) else math.sqrt(eps)
    smallest = torch.finfo(largest.dtype).tiny
    _, exponent = torch.frexp(largest.clamp_min(root).clamp_min(smallest))
    return torch.ldexp(torch.ones_like(largest), exponent - 1)


def require_finite(reciprocal: Tensor, name: str) -> None:
    """Raise ValueError if 1 over the size of a row overflows, and with it a gradient."""
    if reciprocal.isinf().any():
        raise ValueError(f"{name} overflows {reciprocal.dtype}: a row is too small for a gradient")
