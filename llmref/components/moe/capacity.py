"""How many tokens does an expert get, how many does it take, and which?"""

import math
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from llmref._require import (
    boolean_mask,
    require_choice,
    require_ids,
    require_positive,
    require_shapes,
    require_size,
)
from llmref.components.moe._sizes import require_k

Priority = Literal["token", "choice"]


def expert_load(experts: Tensor, num_experts: int, mask: Tensor | None = None) -> Tensor:
    """How many choices each expert got; tokens outside the mask do not count.

    Shapes: experts (..., k), mask (...) -> (E), int64
    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 5, times the number of tokens.
    Raises: TypeError unless experts are integers; ValueError for an expert that is not there, or a
    mask of another shape.
    """
    require_size(1, num_experts=num_experts)
    require_ids(num_experts, experts=experts)
    require_shapes("experts (..., k), mask (...)", experts=experts, mask=mask)
    counted = experts if mask is None else experts[boolean_mask(mask)]
    return torch.bincount(counted.long().flatten(), minlength=num_experts)


def expert_capacity(
    num_tokens: int, num_experts: int, k: int, *, factor: int | float | Fraction
) -> int:
    """The choices that each expert takes: the factor times the mean load, rounded up.

    A float is read as the decimal that it is written as: a factor of 1.1 with a mean load of 50
    gives 55, where the product of floats is above 55 and its ceiling 56.
    Shapes: integers -> an integer
    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 3, for k = 1.
    Raises: TypeError unless sizes are ints and factor an int, float or Fraction; ValueError for
    negative sizes, k > E, or a factor that is not positive and finite.
    """
    require_size(0, num_tokens=num_tokens)
    require_k(k, num_experts)
    if isinstance(factor, bool) or not isinstance(factor, int | float | Fraction):
        raise TypeError(f"factor must be an int, a float or a Fraction, got {factor!r}")
    require_positive(factor=factor)  # type: ignore[arg-type]
    exact = Fraction(str(float(factor))) if isinstance(factor, float) else Fraction(factor)
    return math.ceil(exact * num_tokens * k / num_experts)  # eq. eq-moe-capacity


def capacity_mask(
    experts: Tensor,
    num_experts: int,
    capacity: int,
    *,
    priority: Priority,
    mask: Tensor | None = None,
) -> Tensor:
    """True for the choices that their expert still takes: the first `capacity` of them.

    "token": in the order of tokens. "choice": all first choices before any second one. Tokens
    outside the mask take no place, and none of their choices is kept. Weights times the mask drop
    what does not fit: it adds 0.
    Shapes: experts (N, k), mask (N) -> (N, k), boolean
    Source: "choice" is the order of GShard (Lepikhin et al. 2020, arXiv:2006.16668), as DeepSpeed
    and NLLB-MoE in transformers have it.
    Raises: TypeError unless experts are integers; ValueError for an expert that is not there, a
    negative capacity, another priority or a mask of another shape.
    """
    require_size(1, num_experts=num_experts)
    require_size(0, capacity=capacity)
    require_choice(Priority, priority=priority)
    require_ids(num_experts, experts=experts)
    require_shapes("experts (N, k), mask (N)", experts=experts, mask=mask)
    takes = one_hot(experts.long(), num_experts)  # (N, k, E)
    if mask is not None:
        takes = takes * boolean_mask(mask)[:, None, None]
    if priority == "choice":
        takes = takes.transpose(0, 1)  # (k, N, E)
    shape = takes.shape
    takes = takes.reshape(-1, num_experts)
    place = takes.cumsum(0)  # of each choice in its expert's queue, from 1
    kept = (takes.bool() & (place <= capacity)).any(-1).view(shape[:2])
    return kept.mT if priority == "choice" else kept
