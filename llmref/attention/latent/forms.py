"""What do the heads read if their keys and values are linear maps of one latent vector?

Two forms with one result: keys and values made for every head (expanded), or the key map moved to
the query and the value map behind the average (absorbed). Norms and rotations come before both.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_axis, require_finite, require_one_dtype, require_shapes
from llmref.attention._masking import require_heads_axis
from llmref.attention.grouped_query import grouped_query_attention
from llmref.attention.scaled_dot_product import scaled_dot_product_attention


def latent_attention(
    query: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    key_rope: Tensor,
    key_up: Tensor,
    value_up: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention in H heads, with the keys and values of each head made from the latents.

    Positions are part of query_rope and key_rope, which are rotated, and of nothing else; the
    latents are normed, if the layer norms them. scale=None is 1 / sqrt(D + Dr).
    Shapes: query (B, H, T, D), query_rope (B, H, T, Dr), latent (B, S, Dc), key_rope (B, S, Dr),
    key_up (H, D, Dc), value_up (H, Dv, Dc), attn_mask broadcastable to (B, H, T, S), but not of
    three axes -> (B, H, T, Dv); Dr may be 0. A query that may attend to nothing reads 0.
    Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
    Raises: TypeError unless all are floating point and of one dtype; ValueError for shapes that do
    not fit, a mask of three axes, keys that overflow, and as scaled_dot_product_attention. A key_up
    that is transposed within its heads fits where D = Dc, and is then not noticed.
    """
    q, q_rope, c, k_rope, up_k, up_v = _prepared(
        query, query_rope, latent, key_rope, key_up, value_up, attn_mask
    )
    keys = c.unsqueeze(1) @ up_k.mT  # (B, H, S, D), eq. eq-mla-heads
    require_finite(" once key_up is applied", latent=keys)
    shared = k_rope.unsqueeze(1).expand(-1, len(up_k), -1, -1)  # (B, H, S, Dr)
    out = scaled_dot_product_attention(
        torch.cat([q, q_rope], -1),
        torch.cat([keys, shared], -1),
        c.unsqueeze(1) @ up_v.mT,
        attn_mask,
        is_causal=is_causal,
        scale=_scale(query, query_rope, scale),
    )
    return out.to(query.dtype)


def absorbed_latent_attention(
    query: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    key_rope: Tensor,
    key_up: Tensor,
    value_up: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same as latent_attention; no head's keys or values are formed.

    It is multi-query attention over the latents: one shared key [latent, key_rope], whose value is
    the latent. scale=None is 1 / sqrt(D + Dr), of the key before absorption.
    Shapes: as latent_attention -> (B, H, T, Dv)
    Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
    Differs: rounds at other places than latent_attention, so the two are not bitwise equal.
    Raises: as latent_attention; ValueError if the absorbed query overflows.
    """
    q, q_rope, c, k_rope, up_k, up_v = _prepared(
        query, query_rope, latent, key_rope, key_up, value_up, attn_mask
    )
    absorbed = q @ up_k  # (B, H, T, Dc), eq. eq-mla-absorb
    require_finite(" once key_up is absorbed", query=absorbed)
    average = grouped_query_attention(  # (B, H, T, Dc)
        torch.cat([absorbed, q_rope], -1),
        torch.cat([c, k_rope], -1).unsqueeze(1),
        c.unsqueeze(1),
        attn_mask,
        is_causal,
        _scale(query, query_rope, scale),
    )
    return (average @ up_v.mT).to(query.dtype)


def _prepared(
    query: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    key_rope: Tensor,
    key_up: Tensor,
    value_up: Tensor,
    attn_mask: Tensor | None,
) -> list[Tensor]:
    """The six tensors in float32 at least, once they fit each other."""
    named = {"query": query, "query_rope": query_rope, "latent": latent}
    named |= {"key_rope": key_rope, "key_up": key_up, "value_up": value_up}
    require_one_dtype(**named)
    axes = (
        "query (B, H, T, D), query_rope (B, H, T, Dr), latent (B, S, Dc), key_rope (B, S, Dr), "
        "key_up (H, D, Dc), value_up (H, Dv, Dc)"
    )
    require_shapes(axes, **named)
    require_axis("D", 1, "query (B, H, T, D)", query=query)
    require_axis("Dc", 1, "latent (B, S, Dc)", latent=latent)
    require_heads_axis(attn_mask)
    return [widen(tensor) for tensor in named.values()]


def _scale(query: Tensor, query_rope: Tensor, scale: float | None) -> float:
    # eq. eq-mla-scores: the size of the key before absorption, in both forms
    return (query.shape[-1] + query_rope.shape[-1]) ** -0.5 if scale is None else scale
