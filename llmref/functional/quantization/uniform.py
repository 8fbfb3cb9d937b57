"""How is a real tensor mapped to integers on an evenly spaced grid, and back?

A code q stands for scale * (q - zero_point). Leaves out: how to choose a range narrower than the
data (clipping, calibration), float formats, and codes that are not evenly spaced
(nf4).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmref._require import (
    require_dim,
    require_floating,
    require_in,
    require_int,
    require_integers,
    require_shapes,
    require_size,
    require_wide_dtype,
)
from llmref.functional.quantization._grid import code_range, decoded_as, finite, grid_of


def affine_qparams(x: Tensor, bits: int = 8, *, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the grid that spans the data and 0 with all 2^bits codes.

    x = (-1, 2), 2 bits: scale 1, zero_point -1, codes (-2, 1).
    Shapes: x (...) -> scale (), zero_point () int32; with dim the range is taken along that axis,
    which is kept with size 1 (dim=-1 of (out, in): one scale for each output channel)
    Source: Jacob et al. 2017, arXiv:1712.05877.
    Differs: a range too small for a normal scale, all zeros above all, gets scale 1, zero_point 0.
    Raises: TypeError unless x is floating point; ValueError if x is empty or not finite, dim is no
    axis of it, or bits is outside 2 to 16.
    """
    q_min, q_max = code_range(bits)
    wide = finite(x)
    low = _extent(wide, dim, torch.amin).clamp(max=0)  # 0 is always in the range
    high = _extent(wide, dim, torch.amax).clamp(min=0)
    # eq. eq-affine-qparams. In halves: high - low can overflow where both are finite.
    scale, degenerate = _usable((high / 2 - low / 2) / ((q_max - q_min) / 2))
    zero_point = (q_min - (low / scale).round()).masked_fill(degenerate, 0)
    return scale, zero_point.to(torch.int32)


def symmetric_scale(x: Tensor, bits: int = 8, *, dim: int | None = None) -> Tensor:
    """Scale of the grid with zero point 0 that just holds the largest absolute value.

    x = (-3, 1), 3 bits: scale 1, codes (-3, 1); the code -4 is never used.
    Shapes: x (...) -> (); with dim the maximum is taken along that axis, kept with size 1
    Source: Jacob et al. 2017, arXiv:1712.05877 (weights).
    Differs: a slice too small for a normal scale, all zeros above all, gets scale 1.
    Raises: as affine_qparams.
    """
    _, q_max = code_range(bits)
    wide = finite(x)
    # eq. eq-symmetric-scale
    return _usable(_extent(wide.abs(), dim, torch.amax) / q_max)[0]


def quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int = 0, *, bits: int = 8
) -> Tensor:
    """Nearest code of each entry, ties to the even integer; what is off the grid gets the end code.

    x = (0.5, 1.5, 9), scale 1, 3 bits: (0, 2, 3).
    Shapes: x (...), scale and zero_point scalar or (...) with axes of size 1 -> (...) int8, or
    int16 above 8 bits
    Source: Jacob et al. 2017, arXiv:1712.05877.
    Raises: TypeError for an x that is not floating point or a zero_point that is not an integer;
    ValueError if x is not finite, the scale is not positive and finite, the zero_point is no code,
    or the shapes do not fit.
    """
    q_min, q_max = code_range(bits)
    wide = finite(x)
    steps, offset = grid_of(wide, scale, zero_point, wide.dtype, bits)
    # eq. eq-quantize. Conversion to an integer alone would truncate.
    codes = ((wide.to(steps.dtype) / steps).round() + offset).clamp(q_min, q_max)
    return codes.to(torch.int8 if bits <= 8 else torch.int16)


def dequantize(
    q: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | int = 0,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The real number that each code stands for.

    q = (-2, 1), scale 1/2, zero_point -1: (-1/2, 1).
    Shapes: q (...), scale and zero_point scalar or (...) with axes of size 1 -> (...)
    Source: Jacob et al. 2017, arXiv:1712.05877.
    Raises: TypeError unless q and zero_point are integers and dtype is floating point; ValueError
    if the scale is not positive and finite, the shapes do not fit, or a value overflows dtype.
    """
    require_integers(q=q)
    require_wide_dtype(dtype=dtype)
    steps, offset = grid_of(q, scale, zero_point, torch.promote_types(dtype, torch.float32))
    # eq. eq-dequantize. Widened first: int8 minus a scalar tensor stays int8 and wraps.
    return decoded_as(steps * (q.long() - offset), dtype)


def quantize_groupwise(x: Tensor, group_size: int, bits: int = 4) -> tuple[Tensor, Tensor]:
    """Symmetric codes with one scale for each run of `group_size` entries of the last axis.

    x = (1, -3, 0, 0), groups of 2, 3 bits: codes (1, -3, 0, 0), scales (1, 1).
    Shapes: x (..., C) -> codes (..., C) int8, scales (..., C / group_size)
    Source: Frantar et al. 2022, arXiv:2210.17323 (grouping).
    Differs: nearest codes; GPTQ lets later weights make up for the error of earlier ones.
    Raises: as symmetric_scale; ValueError if group_size is not positive or does not divide C;
    TypeError unless it is an int.
    """
    groups = _split_groups(x, group_size)
    scale = symmetric_scale(groups, bits, dim=-1)  # (..., C / group_size, 1)
    return quantize(groups, scale, bits=bits).flatten(-2), scale.squeeze(-1)


def quantize_groupwise_affine(
    x: Tensor, group_size: int, bits: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes from 0 to 2^bits - 1, with a scale and a zero point for each run of the last axis.

    x = (-1, 2, 1, 3), groups of 2, 2 bits: codes (0, 3, 1, 3), scales (1, 1), zero points (1, 0).
    pack_int4(codes.to(torch.int8) - 8) takes half a byte a code.
    Shapes: x (..., C) -> codes (..., C) uint8, scales and zero points (..., C / group_size), uint8
    Source: Frantar et al. 2022, arXiv:2210.17323, in the form of its code.
    Differs: nearest codes, as in quantize_groupwise; AWQ leaves 0 out of the range of a group of
    one sign, and so clips it.
    Raises: as affine_qparams and quantize_groupwise; ValueError if bits is outside 2 to 8.
    """
    require_int(bits=bits)
    require_in("[2, 8]", bits=bits)
    groups = _split_groups(x, group_size)
    scale, zero_point = affine_qparams(groups, bits, dim=-1)  # (..., C / group_size, 1)
    codes = quantize(groups, scale, zero_point, bits=bits)
    first = 1 << bits - 1  # eq. eq-group-affine: signed codes, counted from 0
    unsigned = ((it.to(torch.int16) + first).to(torch.uint8) for it in (codes, zero_point))
    codes, zero_point = unsigned
    return codes.flatten(-2), scale.squeeze(-1), zero_point.squeeze(-1)


def dequantize_groupwise(
    q: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The real numbers of codes that share a scale, and perhaps a zero point, along the last axis.

    Shapes: q (..., C), scale and zero_point (..., C / group_size) -> (..., C)
    Source: Frantar et al. 2022, arXiv:2210.17323 (grouping).
    Raises: as dequantize; ValueError if the scales do not divide the last axis of q, or there are
    not as many zero points.
    """
    require_integers(q=q)
    require_floating(scale=scale)
    if zero_point is not None:
        require_shapes("scale (...), zero_point (...)", scale=scale, zero_point=zero_point)
    if q.ndim == 0 or scale.shape[:-1] != q.shape[:-1] or not scale.numel():
        shapes = tuple(q.shape), tuple(scale.shape)
        raise ValueError(f"needs codes (..., C) and scales (..., C / group_size), got {shapes}")
    size, rest = divmod(q.shape[-1], scale.shape[-1])
    if rest:
        raise ValueError(f"{scale.shape[-1]} scales do not divide the last axis {q.shape[-1]}")
    groups = q.reshape(*scale.shape, size)
    offset = 0 if zero_point is None else zero_point.unsqueeze(-1)
    return dequantize(groups, scale.unsqueeze(-1), offset, dtype=dtype).flatten(-2)


def _extent(wide: Tensor, dim: int | None, extreme: Callable[..., Tensor]) -> Tensor:
    if wide.numel() == 0:
        raise ValueError(f"an empty tensor {tuple(wide.shape)} has no range")
    if dim is not None:
        require_dim(dim, x=wide)
    return extreme(wide) if dim is None else extreme(wide, dim=dim, keepdim=True)


def _usable(scale: Tensor) -> tuple[Tensor, Tensor]:
    """The scale with 1 in place of what is 0 or subnormal, and where that was."""
    degenerate = scale < torch.finfo(scale.dtype).tiny
    return scale.masked_fill(degenerate, 1), degenerate


def _split_groups(x: Tensor, group_size: int) -> Tensor:
    require_floating(x=x)
    require_size(1, group_size=group_size)
    if x.ndim == 0 or x.shape[-1] % group_size:
        raise ValueError(f"group_size {group_size} must divide the last axis of {tuple(x.shape)}")
    return x.reshape(
        *x.shape[:-1], x.shape[-1] // group_size, group_size
    )  # (..., C / group_size, group_size)
