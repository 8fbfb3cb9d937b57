"""The precision that formulas compute in, and distributions that are some."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which sums over `tensor` are taken."""
    return torch.promote_types(tensor.dtype, torch.float32)


def widen(x: Tensor, name: str) -> Tensor:
    """The tensor in float32 at least, in which the functions of this group compute.

    Shapes: x (...) -> (...)
    Raises: TypeError that names the function, unless x is floating point.
    """
    if not x.is_floating_point():
        raise TypeError(f"{name} needs a floating-point tensor, got {x.dtype}")
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_distribution(p: Tensor, dim: int = -1) -> None:
    """Refuse anything that is not a probability distribution along dim.

    Shapes: p (..., n, ...)
    Raises: TypeError unless p is floating point; ValueError if an entry is negative or NaN, or a
    sum differs from 1 by more than 1e-4 (or one unit in the last place, where that is coarser).
    """
    total = widen(p, "a distribution").detach().sum(dim)
    if not (p >= 0).all():
        raise ValueError(f"probabilities must be >= 0, got a smallest entry of {p.min().item():g}")
    error = (total - 1).abs()
    if not (error <= max(1e-4, torch.finfo(p.dtype).eps)).all():
        worst = total.flatten()[error.argmax()].item()
        raise ValueError(f"probabilities must sum to 1 along dim {dim}, got a sum of {worst:g}")


def minus_max(x: Tensor, dim: int, name: str) -> Tensor:
    """Each slice minus its maximum, in float32 at least: exponentials of it are at most 1.

    Shapes: x (..., n, ...) -> the same
    Raises: as softmax, with the name of the function.
    """
    wide = widen(x, name)
    if x.size(dim) == 0:
        raise ValueError(f"{name} along dim {dim} of a tensor {tuple(x.shape)}: no entries")
    peak = wide.detach().amax(dim, keepdim=True)  # the shift cancels, so it carries no gradient
    if not peak.isfinite().all():
        bad = (~peak.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{name} along dim {dim} of a tensor {tuple(x.shape)} needs a finite maximum, "
            f"got {peak[tuple(bad)].item()} in the slice through {bad}"
        )
    return wide - peak
