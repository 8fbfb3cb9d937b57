"""Numbers that exercises are judged by: a few that one can follow, and rows of any size."""

from typing import Any

import torch
from torch import Tensor


def rows(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers with a mean that is not 0, the same in each run."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.randn(*shape, generator=generator, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers with the mean 0, the same in each run."""
    return rows(*shape, seed=seed) - 1


def number(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def heads(*positions: float) -> Tensor:
    """One sequence of one head with one feature: (1, 1, T, 1)."""
    return number(*positions).reshape(1, 1, -1, 1)


def wider(x: Tensor) -> Tensor:
    """Four times as many features, the new ones 0."""
    return torch.cat([x, torch.zeros_like(x).repeat_interleave(3, -1)], -1)


def counted(*lines: str) -> Tensor:
    """A mask, such as "1.11.": a dot does not count, also between others, as what a tool says."""
    return torch.tensor([[it == "1" for it in line] for line in lines])


def table(*lines: list[Any]) -> Tensor:
    """Lines of numbers, or of lines, in float64."""
    return torch.tensor(lines, dtype=torch.float64)
