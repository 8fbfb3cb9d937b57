"""The precision that formulas compute in, kinks with a known gradient, means of rows.

The gradients of torch's own clamp, minimum and maximum at a tie differ between its versions.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from llmref._require import require_choice, require_dim, require_floating

Reduction = Literal["mean", "sum", "none"]


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype that formulas of these tensors compute in: the widest, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def widen(x: Tensor, name: str = "x") -> Tensor:
    """The tensor in float32 at least.

    Shapes: x (...) -> (...)
    Raises: TypeError that names the argument, unless x is floating point.
    """
    require_floating(**{name: x})
    return x.to(wide_dtype(x))


def as_rows(x: Tensor) -> Tensor:
    """All leading axes as one; sizes may be 0, which reshape(-1, n) refuses.

    Shapes: x (..., n) -> (m, n)
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_distribution(p: Tensor, dim: int = -1, *, name: str = "p") -> None:
    """Refuse anything that is not a probability distribution along dim, by its name.

    Shapes: p (..., n, ...)
    Raises: TypeError unless p is floating point; ValueError if dim is no axis of it, an entry is
    negative or NaN, or a sum differs from 1 by more than 1e-4 and what rounding the entries to the
    dtype of p can add up to.
    """
    wide = widen(p, name)
    require_dim(dim, **{name: p})
    total = wide.detach().sum(dim)
    if not (p >= 0).all():
        raise ValueError(f"{name} must hold probabilities >= 0, got {p.min().item():g}")
    error = (total - 1).abs()
    unit = torch.finfo(p.dtype)
    subnormal = unit.tiny * unit.eps  # entries below tiny are rounded to multiples of it
    if not (error <= max(1e-4, unit.eps) + subnormal * p.shape[dim] / 2).all():
        worst = total.flatten()[error.argmax()].item()
        raise ValueError(f"{name} must sum to 1 along dim {dim}, got a sum of {worst:g}")


def minus_max(x: Tensor, dim: int, function: str, *, name: str = "x") -> Tensor:
    """Each slice minus its maximum, in float32 at least: exponentials of it are at most 1.

    Shapes: x (..., n, ...) -> the same
    Raises: as softmax, with the names of the function and of its argument.
    """
    wide = widen(x, name)
    require_dim(dim, **{name: x})
    if x.size(dim) == 0:
        raise ValueError(f"{function} along dim {dim} of a tensor {tuple(x.shape)}: no entries")
    peak = wide.detach().amax(dim, keepdim=True)  # the shift cancels, so it carries no gradient
    if not peak.isfinite().all():
        bad = (~peak.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{function} along dim {dim} of a tensor {tuple(x.shape)} needs a finite maximum, "
            f"got {peak[tuple(bad)].item()} in the slice through {bad}"
        )
    return wide - peak


def reduce_rows(losses: Tensor, reduction: Reduction) -> Tensor:
    """The losses of independent rows as one number: their mean or sum; or, for "none", themselves.

    Shapes: losses (...) -> (), or (...) with "none"
    Raises: ValueError for another reduction, or a mean over nothing.
    """
    require_choice(Reduction, reduction=reduction)
    if reduction == "none":
        return losses
    if reduction == "mean" and not losses.numel():
        raise ValueError("there is no row: a mean over nothing does not exist")
    return losses.mean() if reduction == "mean" else losses.sum()


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """The nearest number from low to high; the gradient is 1 there, the ends included, else 0.

    Shapes: x (...) -> (...)
    """
    limit = torch.finfo(x.dtype).max  # an end beyond it is one that nothing reaches
    low, high = (end if abs(end) <= limit else math.copysign(math.inf, end) for end in (low, high))
    return torch.where(x < low, low, torch.where(x > high, high, x))


def minimum(first: Tensor, second: Tensor) -> Tensor:
    """The less of two numbers; of equal ones the first, with the whole gradient.

    Shapes: first (...), second (...) -> (...)
    """
    return torch.where(second < first, second, first)


def maximum(first: Tensor, second: Tensor) -> Tensor:
    """The greater of two numbers; of equal ones the first, with the whole gradient.

    Shapes: first (...), second (...) -> (...)
    """
    return torch.where(second > first, second, first)
