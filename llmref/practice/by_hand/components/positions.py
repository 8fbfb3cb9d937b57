"""The sinusoidal code of positions, and the bias that ALiBi adds to the scores."""

import math

import torch


def sinusoidal_embedding(pos, dim, base):  # pos: (T,)
    freq = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # (dim / 2,)
    angle = pos[:, None] * freq  # (T, dim / 2), in float64
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (T, dim)


def alibi_bias(num_heads, T, S):
    n = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    slopes += [2 ** (-4 * (h + 1) / n) for h in range(0, 2 * (num_heads - n), 2)]
    query = torch.arange(S - T, S)[:, None]  # the last query is the last key's token
    distance = (query - torch.arange(S)).abs()  # (T, S)
    return -torch.tensor(slopes)[:, None, None] * distance  # (H, T, S)
