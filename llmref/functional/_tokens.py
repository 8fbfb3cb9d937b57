"""What token tensors must satisfy to be averaged: (N, T), one row a sequence, with a mask.

The mask is True where a token counts.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._require import boolean_mask, require_floating, require_shapes

Empty = Literal["raise", "skip"]


def token_mask(mask: Tensor | None, /, **tokens: Tensor) -> Tensor:
    """Return the mask as booleans, once it fits the tokens and holds nothing but zeros and ones.

    The tokens go by the names that the caller's arguments have; without a mask all of them count.
    Shapes: mask (N, T), each of tokens (N, T) -> (N, T)
    Raises: ValueError, TypeError if the tokens are not floating point.
    """
    axes = "".join(f"{name} (N, T), " for name in tokens)
    require_shapes(f"{axes}mask (N, T)", mask=mask, **tokens)
    require_floating(**tokens)
    if mask is None:
        return torch.ones_like(next(iter(tokens.values())), dtype=torch.bool)
    return boolean_mask(mask)


def require_rows(lengths: Tensor, *, empty: Empty = "raise", hint: str = "") -> Tensor:
    """Return which rows count a token; raise ValueError where a mean over nothing would be taken.

    `hint` ends the message that names the rows.

    Shapes: lengths (N,) -> (N,)
    """
    filled = lengths > 0
    if not filled.any():
        raise ValueError("no token is counted: a mean over nothing does not exist")
    if empty == "raise" and not filled.all():
        rows = (~filled).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} count no token: drop them from the batch{hint}")
    return filled
