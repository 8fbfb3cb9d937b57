"""What token tensors must satisfy to be averaged: (N, T), one row a sequence, with a mask.

The mask is True where a token counts.
"""

from typing import Literal

from torch import Tensor

from llmref._require import boolean_mask, require_floating, require_shapes

Empty = Literal["raise", "skip"]


def token_mask(mask: Tensor, tokens: Tensor) -> Tensor:
    """Return the mask as booleans, once it fits `tokens` and holds nothing but zeros and ones.

    Shapes: mask (N, T), tokens (N, T) -> (N, T)
    Raises: ValueError, TypeError if `tokens` are not floating point.
    """
    require_shapes("tokens (N, T), mask (N, T)", tokens=tokens, mask=mask)
    require_floating(tokens=tokens)
    return boolean_mask(mask)


def require_rows(lengths: Tensor, *, empty: Empty = "raise") -> Tensor:
    """Return which rows count a token; raise ValueError where a mean over nothing would be taken.

    Shapes: lengths (N,) -> (N,)
    """
    filled = lengths > 0
    if not filled.any():
        raise ValueError("no token is counted: a mean over nothing does not exist")
    if empty == "raise" and not filled.all():
        rows = (~filled).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} count no token: drop them from the batch")
    return filled
