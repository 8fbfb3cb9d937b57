"""Symmetric integers for a tensor, with one scale, and back."""

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
