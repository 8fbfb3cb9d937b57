"""Four-bit codes: two to a byte, and the levels of NF4.

Leaves out: quantised scales (see double) and FP4.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from llmref._numeric import wide_dtype
from llmref._require import (
    require_float_dtype,
    require_floating,
    require_in,
    require_integers,
    require_size,
    require_tensor,
    require_wide_dtype,
)
from llmref.functional.quantization._grid import decoded_as, finite


def pack_int4(q: Tensor) -> Tensor:
    """Two 4-bit codes in each byte, the first of the two in the low nibble.

    (1, -2) -> 0xE1: -2 is 0xE in four bits.
    Shapes: q (..., 2n) integers in [-8, 7] -> (..., n) uint8
    Source: two's complement.
    Differs: bitsandbytes puts the first of the two in the high nibble.
    Raises: TypeError unless q is an integer tensor; ValueError if the last axis is odd or a code is
    outside [-8, 7].
    """
    require_integers(q=q)
    if q.ndim == 0 or q.shape[-1] % 2:
        raise ValueError(f"the last axis must be even to pack pairs, got {tuple(q.shape)}")
    require_in("[-8, 7]", q=q)
    nibbles = q.to(torch.uint8) & 15  # a negative code keeps its low bits
    return nibbles[..., ::2] | (nibbles[..., 1::2] << 4)  # eq. eq-int4-pack


def unpack_int4(packed: Tensor) -> Tensor:
    """The signed 4-bit codes of each byte, low nibble first.

    0xE1 -> (1, -2).
    Shapes: packed (..., n) uint8 -> (..., 2n) int8 in [-8, 7]
    Source: two's complement.
    Raises: TypeError unless packed is uint8; ValueError for a scalar.
    """
    require_tensor(packed=packed)
    if packed.dtype != torch.uint8:
        raise TypeError(f"unpack_int4 needs bytes, torch.uint8, got {packed.dtype}")
    if packed.ndim == 0:
        raise ValueError("unpack_int4 needs an axis of bytes, got a scalar")
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).to(torch.int8)  # (..., n, 2)
    return ((nibbles ^ 8) - 8).flatten(-2)  # eq. eq-int4-unpack, which extends the sign


def nf4_codebook(dtype: torch.dtype = torch.float64) -> Tensor:
    """The 16 levels of NF4: quantiles of the normal distribution, 7 below 0, 0, and 8 above.

    Divided by the largest: -1, -0.6962, ..., 0, 0.0796, ..., 1, which is not symmetric.
    Shapes: -> (16,), ascending
    Source: Dettmers et al. 2023, arXiv:2305.14314; the offset is that of the reference code.
    """
    require_float_dtype(dtype=dtype)
    offset = 1 - (1 / 30 + 1 / 32) / 2  # eq. eq-nf4-codebook
    p_above, p_below = (torch.linspace(offset, 0.5, n, dtype=torch.float64)[:-1] for n in (9, 8))
    above, below = torch.special.ndtri(p_above), -torch.special.ndtri(p_below)
    levels = torch.cat([below, below.new_zeros(1), above.flip(0)])
    return (levels / levels[-1]).to(dtype)


def nf4_quantize(x: Tensor, block_size: int = 64) -> tuple[Tensor, Tensor]:
    """Index of the nearest NF4 level of each entry, after division by its block's largest |x|.

    Blocks are runs of the flattened tensor; the last may be shorter. A block of zeros has absmax 0
    and the index 7, the level 0. pack_int4(index.to(torch.int8) - 8) takes half a byte an entry.
    Shapes: x (...) with n entries -> index (n,) uint8 in [0, 15], absmax (ceil(n / block_size),)
    Source: Dettmers et al. 2023, arXiv:2305.14314.
    Raises: TypeError unless x is floating point and block_size an int; ValueError if x is not
    finite or block_size is not positive.
    """
    wide = finite(x).flatten()
    blocks = _blocks(wide.numel(), block_size)
    padded = functional.pad(wide.abs(), (0, blocks * block_size - wide.numel()))
    absmax = padded.reshape(blocks, block_size).amax(-1)  # (blocks,)
    scales = _spread(absmax, block_size, wide.numel())
    levels = nf4_codebook(wide.dtype).to(x.device)
    edges = (levels[1:] + levels[:-1]) / 2  # eq. eq-nf4-quantize
    normal = wide / torch.where(scales > 0, scales, 1)
    return torch.bucketize(normal, edges).to(torch.uint8), absmax


def nf4_dequantize(
    idx: Tensor,
    absmax: Tensor,
    shape: tuple[int, ...] | torch.Size,
    block_size: int = 64,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The level of each index times the absmax of its block.

    index (0, 7, 15), absmax (2,): (-2, 0, 2).
    Shapes: idx (n,), absmax (ceil(n / block_size),) -> shape, which has n entries
    Source: Dettmers et al. 2023, arXiv:2305.14314.
    Raises: TypeError unless idx is an integer tensor and block_size an int; ValueError if an index
    is outside [0, 15], an absmax is negative or not finite, the sizes do not fit one another, or a
    value overflows dtype.
    """
    require_integers(idx=idx)
    require_wide_dtype(dtype=dtype)
    _require_blocks(idx, absmax, shape, block_size)
    require_in("[0, 15]", idx=idx)
    require_in("[0, inf)", absmax=absmax)
    levels = nf4_codebook(wide_dtype(absmax)).to(idx.device)
    scales = _spread(absmax, block_size, idx.numel())
    return decoded_as((levels[idx.flatten().long()] * scales).reshape(shape), dtype)


def _spread(absmax: Tensor, block_size: int, n: int) -> Tensor:
    """(blocks,) -> (n,): each block's value for each of its entries."""
    return absmax.repeat_interleave(block_size)[:n]


def _blocks(n: int, block_size: int) -> int:
    require_size(1, block_size=block_size)
    return -(-n // block_size)


def _require_blocks(
    idx: Tensor, absmax: Tensor, shape: tuple[int, ...] | torch.Size, block_size: int
) -> None:
    require_floating(absmax=absmax)
    n, blocks = idx.numel(), _blocks(idx.numel(), block_size)
    if math.prod(shape) != n or absmax.shape != (blocks,):
        raise ValueError(
            f"{n} indices in blocks of {block_size} need {blocks} absmax and a shape with {n} "
            f"entries, got absmax {tuple(absmax.shape)} and shape {tuple(shape)}"
        )
