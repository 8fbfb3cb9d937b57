"""Which two features form a pair, and how do weights move from one convention to the other?

Leaves out: whole checkpoints (names, fused projections); it reorders one tensor.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._require import require_choice, require_size, require_tensor
from llmref.components.rope._pairs import require_rotary_dim

# Which two coordinates form pair i of R: (i, i + R/2), or (2i, 2i + 1).
Layout = Literal["half", "interleaved"]


def rope_permutation(dim: int) -> Tensor:
    """The order p in which half layout lists the interleaved features: x_half = x_interleaved[p].

    dim 6: (0, 2, 4, 1, 3, 5). The inverse is p.argsort(), which differs from p when dim > 4.

    Shapes: -> (dim,) int64
    Source: Black et al. 2022, arXiv:2204.06745, for the half layout.
    Raises: ValueError if dim is odd or below 2; TypeError if dim is not an int.
    """
    require_rotary_dim(dim=dim)
    return torch.arange(dim).view(dim // 2, 2).T.reshape(dim)  # eq. eq-rope-permutation


def convert_qk_weight(
    weight: Tensor, num_heads: int, *, to: Layout, rotary_dim: int | None = None
) -> Tensor:
    """Reorder the rows of a query or key projection, head by head, for the other layout.

    For W_q with the query heads, for W_k with the key/value heads; also for their biases, for
    per-channel gains of a norm on q or k, and for lora_B. Never for W_v or W_o.
    `rotary_dim` None means that all of the head is rotated.

    Shapes: weight (H D, in) or (H D,) -> same
    Source: the permutation of rope_permutation, applied to each head.
    Raises: ValueError if the rows do not split into heads, what is rotated is odd, below 2 or
        larger than the head, or `to` is unknown; TypeError unless the sizes are ints.
    """
    require_choice(Layout, to=to)
    D, R = _sizes(weight, num_heads, rotary_dim)
    order = rope_permutation(R)
    order = order if to == "half" else order.argsort()
    order = torch.cat([order, torch.arange(R, D)]).to(weight.device)  # (D,)
    heads = weight.reshape(num_heads, D, *weight.shape[1:])
    return heads[:, order].reshape(weight.shape)  # eq. eq-rope-conversion


def _sizes(weight: Tensor, num_heads: int, rotary_dim: int | None) -> tuple[int, int]:
    """The size of a head, and how much of it is rotated."""
    require_tensor(weight=weight)
    if weight.ndim not in (1, 2):
        raise ValueError(f"weight must be (H D, in) or (H D,), got {tuple(weight.shape)}")
    require_size(1, num_heads=num_heads)
    if weight.shape[0] % num_heads:
        raise ValueError(f"{weight.shape[0]} rows do not split into {num_heads} heads")
    D = weight.shape[0] // num_heads
    R = D if rotary_dim is None else rotary_dim
    require_rotary_dim(**{"the head size" if rotary_dim is None else "rotary_dim": R})
    if R > D:
        raise ValueError(f"rotary_dim {R} is larger than the head size {D}")
    return D, R
