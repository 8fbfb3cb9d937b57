"""Numbers that exercises are judged by: a few that one can follow, and rows of any size."""

from typing import Any

import torch
from torch import Tensor


def rows(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers with a mean that is not 0, the same in each run."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.randn(*shape, generator=generator, dtype=torch.float64)


def number(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(*lines: list[Any]) -> Tensor:
    """Lines of numbers, or of lines, in float64."""
    return torch.tensor(lines, dtype=torch.float64)
