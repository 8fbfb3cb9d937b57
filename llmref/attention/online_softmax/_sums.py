"""What sums of exponentials are relative to, and whether these sums can be stored."""

import math

import torch
from torch import Tensor

# How much the rounding of a log-sum-exp may change the weights of its row, by one common factor.
_RESOLUTION = 1e-3


class SumOverflowError(ValueError):
    """A sum of finite values is not representable; their average may be."""


def reference_point(m: Tensor) -> Tensor:
    """m, or 0 where there is no key: then every exponential is exp(-inf - 0) = 0, not NaN.

    Shapes: m (...) -> (...)
    """
    return m.masked_fill(m == -math.inf, 0)


def require_sums(o: Tensor, *given: Tensor) -> None:
    """Refuse a sum that overflows though all that it sums is finite.

    Raises: SumOverflowError, a ValueError.
    """
    if not o.isfinite().all() and all(x.isfinite().all() for x in given):
        raise SumOverflowError(
            f"o overflows {o.dtype}: the values are so large that their sum is not representable; "
            "divide them by the number of keys, and multiply the output by it"
        )


def require_resolved(remedy: str, /, **sums: Tensor) -> None:
    """Refuse a log-sum-exp that holds NaN, or is so large that its rounding shows in the weights.

    Raises: ValueError that names the argument and the remedy.
    """
    for name, lse in sums.items():
        if lse.isnan().any():
            raise ValueError(f"{name} holds NaN; a query without keys has lse -inf")
        largest = 2 * _RESOLUTION / torch.finfo(lse.dtype).eps
        size = lse.detach().masked_fill(lse.isinf(), 0).abs()
        if (size > largest).any():
            raise ValueError(
                f"{name} must be at most {largest:.3g} in size in {lse.dtype}, got "
                f"{size.max().item():g}: its rounding changes weights by more than 0.1 %; {remedy}"
            )
