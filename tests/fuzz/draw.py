"""Which arguments of a call are replaced: one to three of them, the same ones for the same number.

Call 0, and as many as there are valid calls, changes nothing. Leaves out: by what (see values).
"""

import copy
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from tests.fuzz.targets import MADE, Target, Valid
from tests.fuzz.values import is_replaceable, replaced


@dataclass(frozen=True)
class Drawn:
    """A call with replaced arguments: `changes` says by name what stands in place of what."""

    name: str
    number: int
    valid: Valid
    values: dict[str, Any]
    changes: dict[str, str]

    def __str__(self) -> str:
        shown = "; ".join(f"{name}: {change}" for name, change in self.changes.items())
        return f"python -m tests.fuzz {self.name} --call {self.number}  ({shown or 'valid'})"


def draw(target: Target, number: int) -> Drawn:
    """The call of a target that has this number."""
    rng = Random(f"{target.name} {number}")
    valid = target.valid[number % len(target.valid)]
    values, changes = copied(valid.values), dict[str, str]()
    if number >= len(target.valid) and values:
        if rng.random() < 0.15 and any(isinstance(it, Tensor) for it in values.values()):
            dtype = rng.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
            values = in_dtype(values, dtype)
            changes["all"] = str(dtype)
        names = [it for it, value in values.items() if is_replaceable(value, valid.hints.get(it))]
        for name in _some(names, rng.choice([1, 1, 1, 2, 2, 3]), rng):
            changes[name], other = replaced(values[name], valid.hints.get(name), rng)
            values[name] = copied(other)
    return Drawn(target.name, number, valid, values, changes)


def _some(names: list[str], count: int, rng: Random) -> list[str]:
    """Some of the names; of those of a constructor, in the call of a method, fewer."""
    names = [it for it in names if not it.endswith("device")]  # which torch judges
    own = [it for it in names if not it.startswith(MADE)]
    weighed = own * 5 + [it for it in names if it not in own]
    found: list[str] = []
    while len(found) < min(count, len(names)):
        name = rng.choice(weighed)
        if name not in found:
            found.append(name)
    return found


def copied(value: Any) -> Any:
    """The arguments again: nothing of them is shared, but what strides and gradients say stays."""
    if isinstance(value, Tensor):
        twin = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
        shared = value.numel() > 0 and 0 in value.stride()
        twin = value.detach() if shared else twin.copy_(value.detach())
        return twin.requires_grad_(value.requires_grad)
    return mapped(value, copied, copy.deepcopy)


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """All floating-point tensors in another dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, nn.Module):
        return value.to(dtype)
    return mapped(value, lambda it: in_dtype(it, dtype), lambda it: it)


def mapped(value: Any, change: Any, otherwise: Any) -> Any:
    """The same nesting, each item changed; `otherwise` is for what holds no items."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if type(value) in (list, tuple):
        return type(value)(map(change, value))
    if type(value) is dict:
        return {name: change(item) for name, item in value.items()}
    return otherwise(value)
