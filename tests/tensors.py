"""Tensors for tests: seeded, in float64, and compared entry by entry."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

F64 = torch.float64


def f64(*rows: Any) -> Tensor:
    """A vector of numbers, a matrix of tuples."""
    return torch.tensor(rows, dtype=F64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = F64) -> Tensor:
    """Normal entries, drawn in float64 and then rounded, so that dtypes hold the same numbers."""
    return (scale * torch.randn(*shape, dtype=F64, generator=generator(seed))).to(dtype)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    """Every entry, without a relative tolerance."""
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of the sum of what `function` returns."""
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]
