"""Rotary position embedding in the half layout, that of Llama."""

import torch


def rope(x, positions, base):
    D = x.shape[-1]  # x (..., T, D), positions (T,)
    exponents = torch.arange(0, D, 2, dtype=torch.float64, device=x.device) / D  # 2i / D
    angles = positions[:, None] * base**-exponents  # (T, D / 2); bfloat16 would read 1028 as 1024
    cos, sin = angles.cos(), angles.sin()
    u, v = x[..., : D // 2], x[..., D // 2 :]  # pair i is (x_i, x_{i + D/2})
    turned = torch.cat([u * cos - v * sin, u * sin + v * cos], dim=-1)  # (..., T, D)
    return turned.to(x.dtype)
