"""How do H query heads share G key and value heads, and what does the sharing save?

G = H is multi-head attention, G = 1 is multi-query attention. Leaves out: positions and the cache
(see kv_cache), dropout, and the split of heads over devices.
"""

import torch
from torch import Tensor, nn

from llmref._numeric import widen
from llmref._require import (
    require_floating,
    require_positive,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.attention._heads import heads_per_group, merge_heads, require_head_dim, split_heads
from llmref.attention._masking import bias_and_allowed, expand_mask, one_mask, require_heads_axis
from llmref.attention.scaled_dot_product import (
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)


def kv_head_index(num_heads: int, num_kv_heads: int) -> Tensor:
    """Key/value head that each query head reads: neighbours share.

    kv_head_index(6, 2) = (0, 0, 0, 1, 1, 1).
    Shapes: -> (H,), int64
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    Raises: ValueError unless num_kv_heads divides num_heads and both are at least 1; TypeError
    unless they are ints.
    """
    ratio = heads_per_group(num_heads, num_kv_heads)
    return torch.arange(num_heads) // ratio  # eq. eq-gqa-index


def repeat_kv(x: Tensor, n_rep: int) -> Tensor:
    """Copy each key/value head n_rep times, the copies of one head side by side.

    Heads (a, b) with n_rep 3 become (a, a, a, b, b, b). It copies memory: to read, not to run.
    Shapes: x (B, G, T, D) -> (B, G * n_rep, T, D)
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    Raises: ValueError if x is not (B, G, T, D) or n_rep is below 1; TypeError unless that is an
    int.
    """
    require_tensor(x=x)
    require_shapes("x (B, G, T, D)", x=x)
    require_size(1, n_rep=n_rep)
    return x.repeat_interleave(n_rep, dim=1)


def grouped_query_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    softcap: float | None = None,
) -> Tensor:
    """Attention in which the H / G query heads of a group read one key/value head.

    No key or value is copied: the queries of a group are laid one after another and become one
    longer list of queries of their common head.
    Shapes: query (B, H, T, D), key (B, G, S, D), value (B, G, S, Dv), attn_mask broadcastable to
    (B, H, T, S), but not of three axes -> (B, H, T, Dv)
    Source: Ainslie et al. 2023, arXiv:2305.13245; G = 1: Shazeer 2019, arXiv:1911.02150.
    Raises: as scaled_dot_product_attention; ValueError if a tensor is not 4-dimensional, key and
    value differ in G, G does not divide H, or the mask has three axes: (B, T, S) would be read as
    one mask for each head when B is H.
    """
    folded, mask = _fold(query, key, value, attn_mask, is_causal)
    out = scaled_dot_product_attention(  # (B, G, r * T, Dv)
        folded, key, value, mask, scale=scale, softcap=softcap
    )
    return out.reshape(*query.shape[:-1], value.shape[-1])  # eq. eq-gqa


def grouped_query_attention_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries, keys and values; a shared head collects those of its readers.

    Shapes: grad_output (B, H, T, Dv), the others as in grouped_query_attention -> the shapes of
    query, key and value
    Source: the transpose of a copy is a sum; Dao et al. 2022, arXiv:2205.14135 for one head.
    Raises: as grouped_query_attention; ValueError if grad_output is not (B, H, T, Dv).
    """
    folded, mask = _fold(query, key, value, attn_mask, is_causal)
    require_tensor(grad_output=grad_output)
    axes = "query (B, H, T, D), value (B, G, S, Dv), grad_output (B, H, T, Dv)"
    require_shapes(axes, query=query, value=value, grad_output=grad_output)
    grad = grad_output.reshape(*folded.shape[:-1], value.shape[-1])
    # A product over the r * T queries of a group sums over its heads: eq. eq-gqa-backward
    grad_query, grad_key, grad_value = scaled_dot_product_attention_backward(
        grad, folded, key, value, mask, scale=scale, softcap=softcap
    )
    return grad_query.reshape(query.shape), grad_key, grad_value


class GroupedQueryAttention(nn.Module):
    """Projections around grouped_query_attention; num_kv_heads=None is multi-head attention.

    Shapes: x (B, T, C), attn_mask broadcastable to (B, H, T, T) -> (B, T, C), C = embed_dim
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    Raises: ValueError if num_kv_heads does not divide num_heads, or num_heads does not divide
    embed_dim while head_dim is not given, or the mask has three axes; TypeError unless the sizes
    are ints.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        *,
        head_dim: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        heads_per_group(num_heads, num_kv_heads)
        head_dim = require_head_dim(embed_dim, num_heads, head_dim)
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.q_proj = nn.Linear(embed_dim, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, embed_dim, bias=bias)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Self-attention of x (B, T, C)."""
        require_floating(x=x)
        require_shapes("weight (_, C), x (B, T, C)", weight=self.q_proj.weight, x=x)
        require_heads_axis(attn_mask)
        query = split_heads(self.q_proj(x), self.num_heads)  # (B, H, T, D)
        key = split_heads(self.k_proj(x), self.num_kv_heads)  # (B, G, T, D)
        value = split_heads(self.v_proj(x), self.num_kv_heads)
        out = grouped_query_attention(query, key, value, attn_mask, is_causal)
        return self.o_proj(merge_heads(out))  # type: ignore[no-any-return]


def tie_kv_weight(weight: Tensor, num_kv_heads: int, num_heads: int) -> Tensor:
    """Weight of the multi-head layer that computes what the grouped layer does.

    Shapes: weight (G * D, C), or a bias (G * D,) -> (H * D, C), or (H * D,); H blocks of D rows
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    Raises: ValueError unless num_kv_heads divides num_heads and the rows of the weight; TypeError
    unless the sizes are ints.
    """
    require_tensor(weight=weight)
    index = kv_head_index(num_heads, num_kv_heads).to(weight.device)
    return _head_blocks(weight, num_kv_heads)[index].flatten(0, 1)


def mean_pool_kv_weight(weight: Tensor, num_heads: int, num_kv_heads: int) -> Tensor:
    """Mean of the key (or value) weights of the heads of each group: a starting point to train.

    Shapes: weight (H * D, C), or a bias (H * D,) -> (G * D, C), or (G * D,)
    Source: Ainslie et al. 2023, arXiv:2305.13245, section 2.1.
    Raises: TypeError unless weight is floating point; ValueError unless num_kv_heads divides
    num_heads and num_heads divides the rows of the weight.
    """
    ratio = heads_per_group(num_heads, num_kv_heads)
    wide = _head_blocks(widen(weight, "weight"), num_heads)  # (H, D, C)
    groups = wide.reshape(num_kv_heads, ratio, *wide.shape[1:])  # (G, r, D, C)
    pooled = groups.mean(1)  # (G, D, C), eq. eq-gqa-mean-pool
    return pooled.flatten(0, 1).to(weight.dtype)


def decode_intensity(num_heads: int, num_kv_heads: int, bytes_per_element: int) -> float:
    """FLOP per byte of keys and values read, in the attention part of one decoding step.

    decode_intensity(32, 8, 2) = 4; a multi-head model in bfloat16 has 1.
    Shapes: -> FLOP / byte
    Source: Shazeer 2019, arXiv:1911.02150, and Pope et al. 2022, arXiv:2211.05102, by counting.
    Raises: ValueError unless num_kv_heads divides num_heads and bytes_per_element is positive;
    TypeError unless the numbers of heads are ints.
    """
    ratio = heads_per_group(num_heads, num_kv_heads)
    require_positive(bytes_per_element=bytes_per_element)
    return 2 * ratio / bytes_per_element  # eq. eq-gqa-intensity


def _fold(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool
) -> tuple[Tensor, Tensor | None]:
    """The queries as (B, G, r * T, D), and one mask for all of them."""
    require_heads_axis(attn_mask)
    named = {"query": query, "key": key, "value": value}
    require_tensor(**named)
    require_shapes("query (B, H, T, D), key (B, G, S, D), value (B, G, S, Dv)", **named)
    B, H, T, D = query.shape
    G, S = key.shape[1:3]
    ratio = heads_per_group(H, G)
    mask = one_mask(*bias_and_allowed(attn_mask, is_causal, (B, H, T, S), query.device))
    if mask is not None:
        mask = expand_mask(mask, (B, H, T, S)).reshape(B, G, ratio * T, S)
    return query.reshape(B, G, ratio * T, D), mask


def _head_blocks(weight: Tensor, heads: int) -> Tensor:
    if weight.ndim not in (1, 2) or weight.shape[0] % heads:
        raise ValueError(
            f"needs a weight (heads * D, C) or a bias (heads * D,) of {heads} heads, "
            f"got {tuple(weight.shape)}"
        )
    return weight.reshape(heads, weight.shape[0] // heads, *weight.shape[1:])
