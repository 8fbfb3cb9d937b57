"""What a mask and the causal rule together allow, for everything that computes scores.

True may attend; a floating-point mask is a bias on the scores. The last query is the last key's
token, so query i of T sees the keys up to i + S - T.
"""

import math

import torch
from torch import Tensor

from llmref._require import boolean_mask, require_floating, require_tensor


def expand_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask in the shape of the scores: a view, nothing is copied.

    Shapes: mask broadcastable to shape -> shape
    Raises: ValueError that names both shapes if it does not broadcast.
    """
    require_tensor(mask=mask)
    try:
        return mask.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"the mask {tuple(mask.shape)} does not broadcast to the scores {tuple(shape)}"
        ) from None


def require_heads_axis(mask: Tensor | None) -> None:
    """Refuse a mask of three axes: (B, T, S) would be read as one mask for each head when B is H.

    Raises: ValueError that says where the axis of the heads goes.
    """
    if mask is None:
        return
    require_tensor(attn_mask=mask)
    if mask.ndim == 3:
        raise ValueError(
            f"attn_mask {tuple(mask.shape)} has three axes: give (T, S), or four with the heads "
            "second, (B or 1, H or 1, T or 1, S)"
        )


def require_selection(**masks: Tensor) -> None:
    """Refuse a floating-point mask where pairs are selected: its zeros allow, and would forbid.

    Raises: TypeError that names the argument.
    """
    require_tensor(**masks)
    for name, mask in masks.items():
        if mask.is_floating_point():
            raise TypeError(
                f"{name} must select by booleans, or by integers 0 and 1, got {mask.dtype}: a "
                "floating-point mask is added to the scores as it is"
            )


def causal_offset(query_len: int, key_len: int, hint: str = "") -> int:
    """The position of the first query: S - T; `hint` ends the message of a refusal.

    Raises: ValueError if there are fewer keys than queries.
    """
    if query_len > key_len:
        raise ValueError(
            f"causal attention needs at least as many keys as queries, got {key_len} keys and "
            f"{query_len} queries: the last query is the last key's token{hint}"
        )
    return key_len - query_len


def position_distance(
    query_len: int, key_len: int, offset: int, device: torch.device | str | None
) -> Tensor:
    """Position of each query, the first of which is `offset`, minus that of each key.

    Shapes: -> (T, S); negative for keys in the future
    """
    queries = torch.arange(query_len, device=device)[:, None] + offset
    return queries - torch.arange(key_len, device=device)


def bias_and_allowed(
    attn_mask: Tensor | None, is_causal: bool, shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """What to add to the scores, and which pairs may attend; None for nothing and for all.

    Shapes: attn_mask broadcastable to shape (..., T, S) -> two that broadcast to it
    Raises: ValueError if the mask does not broadcast or selects by anything but 0 and 1, or for
    fewer keys than queries with is_causal.
    """
    bias = allowed = None
    if attn_mask is not None:
        expand_mask(attn_mask, shape)  # whether it fits; the mask itself stays small
        if attn_mask.is_floating_point():
            require_floating(attn_mask=attn_mask)
            bias = attn_mask
        else:
            allowed = boolean_mask(attn_mask)
    if is_causal:
        T, S = shape[-2:]
        causal = position_distance(T, S, causal_offset(T, S), device) >= 0
        allowed = causal if allowed is None else allowed & causal
    return bias, allowed


def one_mask(bias: Tensor | None, allowed: Tensor | None) -> Tensor | None:
    """The two as one mask: additive if there is a bias, with -inf where a pair may not attend.

    Shapes: bias and allowed, which broadcast -> their common shape
    """
    if bias is None or allowed is None:
        return allowed if bias is None else bias
    return torch.where(allowed, bias, -math.inf)
