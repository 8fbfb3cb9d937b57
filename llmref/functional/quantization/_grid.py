"""The grid of codes: its ends, and scales and zero points that fit a tensor."""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_finite,
    require_floating,
    require_in,
    require_int,
    require_integers,
    require_number_or_tensor,
    require_positive,
)


def code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed code, (-2^(bits - 1), 2^(bits - 1) - 1).

    Raises: TypeError unless bits is an int; ValueError outside 2 to 16.
    """
    require_int(bits=bits)
    require_in("[2, 16]", bits=bits)
    return -(1 << bits - 1), (1 << bits - 1) - 1


def finite(x: Tensor, name: str = "x") -> Tensor:
    """The tensor in at least float32, refused if it holds an infinity or a NaN.

    Shapes: x (...) -> (...)
    Raises: TypeError unless x is floating point; ValueError if an entry is not finite.
    """
    require_floating(**{name: x})
    require_finite(**{name: x})
    return widen(x, name)


def grid_of(
    values: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | int,
    dtype: torch.dtype,
    bits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scale and zero point as tensors beside `values`, in `dtype` or the wider one of the scale.

    Shapes: scale, zero_point scalar or with the axes of values, each of its size or of size 1
    Raises: TypeError, ValueError as quantize; without bits any integer may be the zero point.
    """
    require_number_or_tensor(scale=scale, zero_point=zero_point)
    wide = torch.promote_types(dtype, scale.dtype) if isinstance(scale, Tensor) else dtype
    steps = torch.as_tensor(scale, dtype=wide, device=values.device)
    offset = torch.as_tensor(zero_point, device=values.device)
    require_integers(zero_point=offset)
    require_positive(scale=steps)
    if bits is not None:
        low, high = code_range(bits)
        require_in(f"[{low}, {high}]", zero_point=offset)
    _require_axes("scale", steps, values)
    _require_axes("zero_point", offset, values)
    return steps, offset.long()


def decoded_as(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Decoded values in another dtype, refused where they do not fit into it.

    Shapes: values (...) -> (...)
    Raises: ValueError if a value overflows the dtype.
    """
    result = values.to(dtype)
    if not result.isfinite().all():
        largest = values.detach().abs().max().item()
        raise ValueError(f"decoded values must fit into {dtype}, got {largest:g} in size")
    return result


def _require_axes(name: str, given: Tensor, values: Tensor) -> None:
    pairs = zip(given.shape, values.shape, strict=False)
    fits = given.ndim == values.ndim and all(size in (1, full) for size, full in pairs)
    # As many axes, not just broadcastable: (n,) against (n, n) would scale the wrong axis.
    if given.ndim and not fits:
        raise ValueError(
            f"{name} {tuple(given.shape)} must be a scalar or have the axes of "
            f"{tuple(values.shape)}, each of that size or of size 1"
        )
