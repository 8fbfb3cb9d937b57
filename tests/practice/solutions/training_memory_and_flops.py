"""Right solutions on counts of a decoder, each written in another way than the code by hand."""

from fractions import Fraction
from math import prod

import numpy as np
import torch


def shapes_of_matrices(
    L: int, C: int, H: int, G: int, D: int, F: int, V: int, tied: bool
) -> list[tuple[int, ...]]:
    heads = [(H * D, C), (G * D, C), (G * D, C), (C, H * D)]
    layer = [*heads, (F, C), (F, C), (C, F), (C,), (C,)]
    return [*(L * layer), (C,), (V, C), *([] if tied else [(V, C)])]


def parameters_listed(L: int, C: int, H: int, G: int, D: int, F: int, V: int, tied: bool) -> int:
    return sum(map(prod, shapes_of_matrices(L, C, H, G, D, F, V, tied)))


def parameters_made(L: int, C: int, H: int, G: int, D: int, F: int, V: int, tied: bool) -> int:
    shapes = shapes_of_matrices(L, C, H, G, D, F, V, tied)
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


def parameters_factored(
    L: int, C: int, H: int, G: int, D: int, F: int, V: int, tied: bool
) -> np.int64:
    width = 2 * (H + G) * D + 3 * F + 2
    return np.int64(C) * (L * width + 1 + (2 - tied) * V)


def flops_by_position(L: int, C: int, H: int, G: int, D: int, F: int, V: int, T: int) -> Fraction:
    total = 0
    for position in range(1, T + 1):
        total += 6 * (L * C * (2 * (H + G) * D + 3 * F) + V * C) + 12 * L * H * D * position
    return Fraction(total, T)


def flops_of_products(L: int, C: int, H: int, G: int, D: int, F: int, V: int, T: int) -> float:
    forward = 0.0
    for rows, columns in (
        *(L * [(H * D, C), (G * D, C), (G * D, C), (C, H * D), (F, C), (F, C), (C, F)]),
        (V, C),
    ):
        forward += 2 * rows * columns
    pairs = T * (T + 1) / 2
    forward += L * H * (2 * pairs * D + 2 * pairs * D) / T
    return forward + 2 * forward


def flops_in_one_line(
    L: int, C: int, H: int, G: int, D: int, F: int, V: int, T: int
) -> torch.Tensor:
    n = C * (L * (2 * H * D + 2 * G * D + 3 * F) + V)
    return torch.tensor(6 * n + 6 * L * H * D * (T + 1), dtype=torch.float64)


def bytes_by_part(N: int, ranks: int, stage: int) -> float:
    parts = [(12, 1), (2, 2), (2, 3)]  # bytes, and the stage that divides them
    return sum(size * N / (ranks if stage >= first else 1) for size, first in parts)


def bytes_by_case(N: int, ranks: int, stage: int) -> float:
    per_parameter = {
        0: 16.0,
        1: 4 + 12 / ranks,
        2: 2 + 14 / ranks,
        3: 16 / ranks,
    }[stage]
    return N * per_parameter


def bytes_by_shards(N: int, ranks: int, stage: int) -> float:
    bits = torch.tensor([16, 16, 32, 32, 32], dtype=torch.float64)
    divided = torch.tensor([stage > 2, stage > 1, *[stage > 0] * 3])
    return float((bits / 8 * N / torch.where(divided, ranks, 1)).sum())


SOLUTIONS = {
    "decoder_parameters": [parameters_listed, parameters_made, parameters_factored],
    "decoder_flops_per_token": [flops_by_position, flops_of_products, flops_in_one_line],
    "zero_bytes": [bytes_by_part, bytes_by_case, bytes_by_shards],
}
