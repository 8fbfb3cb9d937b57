"""Symmetric integers for a tensor, with one scale, and back; and NF4 for blocks of weights."""

import torch


def quantize_symmetric(x, bits):
    top = 2 ** (bits - 1) - 1  # 127 for 8 bits; the code -128 is not used
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = wide.abs().max() / top
    scale = torch.where(scale > 0, scale, 1)  # zeros: the code 0, not 0 / 0
    codes = (wide / scale).round()  # (...), at most top in size: nothing is clipped
    return codes.to(torch.int8 if bits <= 8 else torch.int16), scale


def dequantize(codes, scale):
    return scale * codes


def quantize_nf4(blocks, levels):  # (n, 64) weights; the 16 levels of NF4, from -1 to 1
    absmax = blocks.abs().amax(dim=1, keepdim=True)  # (n, 1), one number for each block
    gaps = (blocks / absmax).unsqueeze(-1) - levels  # (n, 64, 16)
    return gaps.abs().argmin(dim=-1), absmax  # 4 bits each; back: absmax * levels[index]
