"""Quantised scales: what do the scales of quantised weights cost, and how are they stored smaller?

Leaves out: the weights themselves (see uniform and nf4).
"""

import torch
from torch import Tensor

from llmref._numeric import wide_dtype
from llmref._require import (
    require_at_least,
    require_finite,
    require_float_dtype,
    require_floating,
    require_in,
    require_integers,
    require_shapes,
    require_size,
    require_wide_dtype,
)
from llmref.functional.quantization._grid import decoded_as, finite


def bits_per_weight(
    bits: float, group_size: int, *, scale_bits: float, zero_point_bits: float = 0
) -> float:
    """Memory of a weight: its code, and its share of what its group stores.

    bits_per_weight(4, 128, scale_bits=16, zero_point_bits=4) = 4 + 20 / 128 = 4.15625.
    With scales that are quantised in turn, scale_bits is bits_per_weight(8, 256, scale_bits=32).
    Shapes: numbers -> bits per weight
    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3 (double quantisation).
    Differs: the one mean that double quantisation keeps for a tensor is not counted.
    Raises: TypeError unless group_size is an int; ValueError if it is below 1, or a number of bits
    is negative or not finite.
    """
    require_size(1, group_size=group_size)
    require_at_least(0, bits=bits, scale_bits=scale_bits, zero_point_bits=zero_point_bits)
    return bits + (scale_bits + zero_point_bits) / group_size  # eq. eq-bits-per-weight


def dynamic_codebook(dtype: torch.dtype = torch.float64) -> Tensor:
    """The 256 levels of the 8-bit dynamic code: in each decade of [-1, 1] twice those below it.

    From 1e-7 to 1: 1, 2, 4, ..., 64 levels a decade, the middles of equal cells, with both signs;
    and 0 and 1, but not -1.
    Shapes: -> (256,), ascending
    Source: Dettmers 2015, arXiv:1511.04561, in the form of bitsandbytes.
    """
    require_float_dtype(dtype=dtype)
    decades = []
    for e in range(7):
        middles = (torch.arange(1 << e, dtype=torch.float64) + 0.5) / (1 << e)
        decades.append((0.1 + 0.9 * middles) * 10.0 ** (e - 6))  # eq. eq-dynamic-codebook
    positive = torch.cat(decades)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cat([-positive, positive, ends]).sort().values.to(dtype)


def double_quantize(absmax: Tensor, block_size: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Scales in 8 bits: their mean, and the nearest dynamic level of each deviation from it.

    Scales are positive, and their deviations have both signs, as the levels have. A block holds
    `block_size` scales, the last perhaps fewer, and keeps its largest |deviation|.
    Shapes: absmax (n,) -> index (n,) uint8, mean (), peak (ceil(n / block_size),)
    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    Raises: TypeError unless absmax is floating point; ValueError if it is empty, not one axis,
    negative or not finite, or block_size is below 1.
    """
    require_shapes("absmax (n,)", absmax=absmax)
    wide = finite(absmax, "absmax")
    require_in("[0, inf)", absmax=wide)
    require_size(1, block_size=block_size)
    if not wide.numel():
        raise ValueError("absmax must hold a scale at least, got none")
    mean = wide.mean()
    deviations = wide - mean
    padding = -len(wide) % block_size
    blocks = torch.nn.functional.pad(deviations, (0, padding)).view(-1, block_size)
    peak = blocks.abs().amax(1)
    size = torch.where(peak > 0, peak, 1)
    share = blocks / size.unsqueeze(1)
    levels = dynamic_codebook(wide.dtype).to(wide.device)
    between = (levels[1:] + levels[:-1]) / 2
    index = torch.bucketize(share.flatten()[: len(wide)], between)
    return index.to(torch.uint8), mean, peak


def double_dequantize(
    index: Tensor,
    mean: Tensor,
    peak: Tensor,
    block_size: int = 256,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The scales: the mean plus each level times the peak of its block.

    Shapes: index (n,), mean (), peak (ceil(n / block_size),) -> (n,)
    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    Differs: a scale that would come out negative, which would turn signs of weights, is 0.
    Raises: TypeError unless index holds integers, and dtype is floating point; ValueError if an
    index is outside [0, 255], the sizes do not fit, mean or peak is negative or not finite, or a
    value overflows dtype.
    """
    require_integers(index=index)
    require_wide_dtype(dtype=dtype)
    require_in("[0, 255]", index=index)
    require_size(1, block_size=block_size)
    require_floating(mean=mean, peak=peak)
    require_in("[0, inf)", mean=mean, peak=peak)
    require_finite(mean=mean, peak=peak)
    require_shapes("index (n,), mean ()", index=index, mean=mean)
    blocks = -(-len(index) // block_size)
    if peak.shape != (blocks,):
        raise ValueError(
            f"{len(index)} scales in blocks of {block_size} need {blocks} peaks, "
            f"got {tuple(peak.shape)}"
        )
    wide = wide_dtype(mean, peak)
    levels = dynamic_codebook(wide).to(index.device)[index.long()]
    scales = mean + levels * peak.repeat_interleave(block_size)[: len(index)]
    return decoded_as(scales.clamp(min=0), dtype)  # eq. eq-double-quantization
