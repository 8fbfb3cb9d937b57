"""Right solutions on positions, each written in another way than the code by hand."""

import math

import torch
from torch import Tensor


def by_a_loop(pos: Tensor, dim: int, base: float) -> Tensor:
    rows = []
    for t in pos.tolist():
        row = []
        for i in range(dim // 2):
            angle = t / base ** (2 * i / dim)
            row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return torch.tensor(rows)


def by_slices(pos: Tensor, dim: int, base: float) -> Tensor:
    out = torch.zeros(len(pos), dim)
    divisor = torch.exp(torch.arange(0, dim, 2).double() * (-math.log(base) / dim))
    out[:, 0::2] = torch.sin(pos.unsqueeze(1) * divisor)
    out[:, 1::2] = torch.cos(pos.unsqueeze(1) * divisor)
    return out


def by_complex_numbers(pos: Tensor, dim: int, base: float) -> Tensor:
    exponent = torch.arange(dim // 2).double() * 2 / dim
    waves = torch.exp(1j * torch.outer(pos.double(), base**-exponent))
    return torch.stack([waves.imag, waves.real], -1).reshape(len(pos), dim)


def _slopes(num_heads: int) -> list[float]:
    def of_a_power(n: int) -> list[float]:
        first = 2.0 ** (-(2.0 ** (3 - math.log2(n))))
        return [first ** (h + 1) for h in range(n)]

    power = 1
    while 2 * power <= num_heads:
        power *= 2
    return of_a_power(power) + of_a_power(2 * power)[::2][: num_heads - power]


def alibi_by_a_loop(num_heads: int, T: int, S: int) -> Tensor:
    rows = [
        [[-m * abs(i + S - T - j) for j in range(S)] for i in range(T)] for m in _slopes(num_heads)
    ]
    return torch.tensor(rows)


def alibi_by_the_whole(num_heads: int, T: int, S: int) -> Tensor:
    index = torch.arange(S)
    whole = (index.unsqueeze(0) - index.unsqueeze(1)).abs().neg()
    return torch.einsum("h,ts->hts", torch.tensor(_slopes(num_heads)), whole[S - T :].double())


def alibi_by_two_sides(num_heads: int, T: int, S: int) -> Tensor:
    i, j = torch.meshgrid(torch.arange(T) + (S - T), torch.arange(S), indexing="ij")
    bias = torch.minimum(i - j, j - i)
    return torch.stack([m * bias for m in _slopes(num_heads)])


SOLUTIONS = {
    "sinusoidal_embedding": [by_a_loop, by_slices, by_complex_numbers],
    "alibi_bias": [alibi_by_a_loop, alibi_by_the_whole, alibi_by_two_sides],
}
