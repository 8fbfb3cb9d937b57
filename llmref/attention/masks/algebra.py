"""How are masks combined, checked, and turned into something to add to the scores?

True may attend. Leaves out: which pairs a mask allows (see `masks`), and the softmax itself.
"""

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from llmref._require import (
    boolean_mask,
    require_in,
    require_int,
    require_wide_dtype,
)
from llmref.attention._masking import require_selection
from llmref.attention.masks._rows import require_rows


def check_mask(
    mask: Tensor, query_len: int, key_len: int, *, allow_empty_rows: bool = False
) -> Tensor:
    """The boolean mask, after a check that it fits and that every query may attend to something.

    Shapes: mask (T, S) or (..., T or 1, S) -> the same
    Source: a convention of this package: an empty row is nearly always a misaligned mask.
    Raises: ValueError if the last axes are not (T or 1, S), an entry is neither 0 nor 1, or a row
    is empty and allow_empty_rows is False.
    """
    allowed = boolean_mask(mask)
    require_int(query_len=query_len, key_len=key_len)
    if mask.ndim < 2 or mask.shape[-1] != key_len or mask.shape[-2] not in (1, query_len):
        raise ValueError(
            f"a mask for {query_len} queries and {key_len} keys must end in "
            f"({query_len} or 1, {key_len}), got {tuple(mask.shape)}"
        )
    return allowed if allow_empty_rows else require_rows(allowed)


def and_masks(*masks: Tensor | None, allow_empty_rows: bool = False) -> Tensor:
    """A pair may attend where every mask allows it; None allows every pair.

    Shapes: masks (T, S) or (B or 1, H or 1, T or 1, S) -> their common shape
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3, for the masks themselves.
    Raises: ValueError if no mask is given, the shapes do not fit, an entry is neither 0 nor 1, or a
    row is empty and allow_empty_rows is False.
    """
    return _combine(
        [mask for mask in masks if mask is not None], torch.logical_and, allow_empty_rows
    )


def or_masks(*masks: Tensor, allow_empty_rows: bool = False) -> Tensor:
    """A pair may attend where at least one mask allows it. Causality is lost if one is not causal.

    Shapes: masks (T, S) or (B or 1, H or 1, T or 1, S) -> their common shape
    Source: Raffel et al. 2019, arXiv:1910.10683: a prefix mask is causal or inside the prefix.
    Raises: as and_masks; TypeError for None, which would allow every pair.
    """
    if any(mask is None for mask in masks):
        raise TypeError("or_masks takes no None: it allows every pair, and so would the result")
    return _combine(list(masks), torch.logical_or, allow_empty_rows)


def additive_mask(
    mask: Tensor, dtype: torch.dtype = torch.float32, value: float = -math.inf
) -> Tensor:
    """What to add to the scores: 0 where a pair may attend, `value` elsewhere.

    Shapes: mask (...) -> (...), in dtype
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3 (minus infinity).
    Raises: TypeError unless dtype is floating point, or if mask is: it is additive already, and its
    zeros allow; ValueError unless value is negative and minus infinity or within the range of
    dtype, or if an entry of the mask is neither 0 nor 1.
    """
    require_wide_dtype(dtype=dtype)
    require_selection(mask=mask)
    least = -math.inf if value == -math.inf else torch.finfo(dtype).min
    require_in(f"[{least}, 0)", value=value)
    allowed = boolean_mask(mask)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, value)


def _combine(
    masks: list[Tensor], operation: Callable[[Tensor, Tensor], Tensor], allow_empty_rows: bool
) -> Tensor:
    if not masks:
        raise ValueError("there is no mask to combine")
    allowed = [boolean_mask(mask) for mask in masks]
    shapes = [tuple(mask.shape) for mask in allowed]
    if not _fit(shapes):
        raise ValueError(
            "masks must be (T, S) or (B or 1, H or 1, T or 1, S) with one T and S, got "
            + " and ".join(str(shape) for shape in shapes)
        )
    combined = reduce(operation, allowed)
    return combined if allow_empty_rows else require_rows(combined)


def _fit(shapes: list[tuple[int, ...]]) -> bool:
    """Whether the masks mean the same axes; broadcasting alone would let more through."""
    ranks = {len(shape) for shape in shapes}
    # (B, T, S) beside (B, H, T, S): the batch would be read as heads.
    if min(ranks) < 2 or len(ranks - {2}) > 1:
        return False
    aligned = [(1,) * (max(ranks) - len(shape)) + shape for shape in shapes]
    axes = [set(sizes) for sizes in zip(*aligned, strict=True)]
    # One row of a (T, S) mask is one query, not every query; one key is never every key.
    rows = {shape[0] for shape in shapes if len(shape) == 2}
    one_size = all(len(axis - {1}) <= 1 for axis in axes)
    return one_size and len(axes[-1]) == 1 and rows <= {max(axes[-2])}
