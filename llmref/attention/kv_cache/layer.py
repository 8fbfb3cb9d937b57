"""How does a layer attend to a cache, chunk by chunk, and give what one pass over all would?

Leaves out: how a cache stores what it is given (see storage).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmref._require import (
    require_axis,
    require_floating,
    require_integers,
    require_shapes,
    require_size,
)
from llmref.attention._heads import heads_per_group, merge_heads, require_head_dim, split_heads
from llmref.attention._masking import (
    bias_and_allowed,
    expand_mask,
    one_mask,
    require_heads_axis,
)
from llmref.attention.grouped_query import grouped_query_attention
from llmref.attention.kv_cache._undo import unchanged_on_error
from llmref.attention.kv_cache.storage import KVCache, SlidingWindowKVCache
from llmref.components.rope import RotaryEmbedding
from llmref.norm.rms_norm import RMSNorm


class CachedAttention(nn.Module):
    """Causal grouped-query self-attention with rotary positions, in one pass or chunk by chunk.

    `window` counts the token itself: query i sees the keys i - window + 1 to i; None is no limit.
    `bias` is on all four projections; `qkv_bias` alone leaves o_proj without (Qwen2). With
    `qk_norm_eps` each query and key head goes through an RMSNorm of its D features before it is
    rotated (Qwen3). `rope_scaling` is the `scaling` of RotaryEmbedding.
    Shapes: x (B, T, C) -> (B, T, C), C = embed_dim
    Source: Pope et al. 2022, arXiv:2211.05102; the window: Jiang et al. 2023, arXiv:2310.06825.
    Raises: ValueError if num_kv_heads does not divide num_heads, num_heads does not divide
    embed_dim while head_dim is not given, the head size is odd, or window is below 1; TypeError
    unless the sizes are ints.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        *,
        head_dim: int | None = None,
        bias: bool = False,
        qkv_bias: bool = False,
        qk_norm_eps: float | None = None,
        window: int | None = None,
        rope_base: float = 10000.0,
        rope_scaling: Callable[[int, float], Tensor | tuple[Tensor, float]] | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        heads_per_group(num_heads, num_kv_heads)  # raises unless the one divides the other
        head_dim = require_head_dim(embed_dim, num_heads, head_dim)
        if window is not None:
            require_size(1, hint=": it counts the token itself", window=window)
        if head_dim % 2:
            raise ValueError(f"head_dim must be even (rotations act on pairs), got {head_dim}")
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.window = window
        self.rope = RotaryEmbedding(head_dim, rope_base, scaling=rope_scaling)
        self.q_proj = nn.Linear(embed_dim, num_heads * head_dim, bias=bias or qkv_bias)
        self.k_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias or qkv_bias)
        self.v_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias or qkv_bias)
        self.o_proj = nn.Linear(num_heads * head_dim, embed_dim, bias=bias)
        self.q_norm = self.k_norm = None
        if qk_norm_eps is not None:
            self.q_norm, self.k_norm = (
                RMSNorm(head_dim, eps=qk_norm_eps, cast="before_weight") for _ in range(2)
            )

    def forward(
        self,
        x: Tensor,
        cache: KVCache | SlidingWindowKVCache | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Outputs of the tokens x, which follow the cache.length tokens that the cache holds.

        attn_mask further restricts the causal rule (True may attend) or is added to the scores;
        its last axis counts positions from the first token on, past ones included.
        Shapes: x (B, T, C), attn_mask broadcastable to (B, H, T, cache.length + T) -> (B, T, C)
        Raises: as the cache's update and grouped_query_attention; ValueError if a ring's window is
        not the layer's, or the mask has three axes or does not broadcast. The cache is then
        unchanged.
        """
        require_floating(x=x)
        require_shapes("weight (_, C), x (B, T, C)", weight=self.q_proj.weight, x=x)
        require_heads_axis(attn_mask)
        past = 0 if cache is None else cache.length
        positions = torch.arange(past, past + x.shape[1], device=x.device)  # never from 0
        query = split_heads(self.q_proj(x), self.num_heads)  # (B, H, T, D)
        key = split_heads(self.k_proj(x), self.num_kv_heads)  # (B, G, T, D)
        value = split_heads(self.v_proj(x), self.num_kv_heads)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)  # before they are rotated
        query, key = self.rope(query, key, positions)
        total = past + x.shape[1]
        shape = (*query.shape[:3], total)
        bias, selected = bias_and_allowed(attn_mask, False, shape, x.device)  # before any write
        with unchanged_on_error(cache, x.shape[1]):  # a NaN is found after the write
            key, value, key_positions = self._extend(cache, key, value)
            # Slots of a ring are not in order of time, so the rule is about positions.
            distance = positions[:, None] - key_positions  # (T, S), eq. eq-cache-mask
            allowed = (distance >= 0) & (distance < (total if self.window is None else self.window))
            if selected is not None:
                allowed = allowed & expand_mask(selected, shape)[..., key_positions]
            if bias is not None:
                bias = expand_mask(bias, shape)[..., key_positions]
            out = grouped_query_attention(query, key, value, one_mask(bias, allowed))
        return self.o_proj(merge_heads(out))  # type: ignore[no-any-return]

    def _extend(
        self, cache: KVCache | SlidingWindowKVCache | None, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(cache, SlidingWindowKVCache):
            if cache.window != self.window:
                raise ValueError(
                    f"the cache keeps a window of {cache.window}, the layer needs {self.window}"
                )
            return cache.update(key, value)
        if cache is not None:
            key, value = cache.update(key, value)
        return key, value, torch.arange(key.shape[2], device=key.device)


@torch.no_grad()
def generate_greedy(
    model: Callable[..., Tensor],
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    use_cache: bool = True,
) -> Tensor:
    """Append the most probable token, max_new_tokens times.

    With use_cache the model is called with the whole prompt once, then with one token at a time.
    It is then given `cache`, a list that is empty at first and that the model fills and keeps up to
    date (one KVCache for each layer, say). Without, it is called with all tokens at every step.
    Shapes: input_ids (B, T), model(ids (B, t), cache=None) -> logits (B, t, V) -> (B, T +
    max_new_tokens)
    Source: Pope et al. 2022, arXiv:2211.05102 (prefill, then decoding).
    Differs: no end-of-text token stops it; of equal logits the first wins.
    Raises: ValueError if input_ids is not (B, T) with T >= 1, max_new_tokens is negative, or the
    logits are not (B, t, V) or hold a NaN; TypeError unless input_ids are integers and
    max_new_tokens is an int.
    """
    require_integers(input_ids=input_ids)
    require_axis("T", 1, "input_ids (B, T)", input_ids=input_ids)
    require_size(0, max_new_tokens=max_new_tokens)
    cache: list[Any] = []
    ids = unseen = input_ids
    for _ in range(max_new_tokens):
        logits = model(unseen, cache=cache) if use_cache else model(ids)
        given = unseen if use_cache else ids
        require_shapes("ids (B, t), logits (B, t, V)", ids=given, logits=logits)
        if logits[:, -1].isnan().any():
            raise ValueError("a logit is NaN: no token is the most probable")
        unseen = logits[:, -1].argmax(-1, keepdim=True).to(ids.dtype)  # (B, 1)
        ids = torch.cat([ids, unseen], dim=1)
    return ids
