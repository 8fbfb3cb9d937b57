"""How does a layer make queries and latents, and what of them may it keep?"""

import torch
from torch import Tensor, nn

from llmref._require import require_floating, require_shapes, require_size
from llmref.attention._heads import merge_heads, split_heads
from llmref.attention._masking import bias_and_allowed, require_heads_axis
from llmref.attention.latent.forms import absorbed_latent_attention, latent_attention
from llmref.attention.latent.storage import LatentCache
from llmref.components.rope import Layout, RotaryEmbedding
from llmref.norm.rms_norm import RMSNorm


class LatentAttention(nn.Module):
    """Causal multi-head latent attention with a rotary part, in one pass or chunk by chunk.

    The weights have the names of transformers, so a state dict of its DeepSeek layers loads.
    query_latent_dim=None makes queries by one map; rope_dim 0 is a layer without positions.
    Shapes: x (B, T, C) -> (B, T, C), C = embed_dim
    Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
    Differs: no biases; norms and rotations in the dtype of x, float32 at least, where transformers
    forms them in float32 always.
    Raises: ValueError if rope_dim is negative or odd, or another size below 1, or eps is negative;
    TypeError unless the sizes are ints.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        head_dim: int,
        rope_dim: int,
        value_dim: int,
        latent_dim: int,
        query_latent_dim: int | None = None,
        rope_base: float = 10000.0,
        rope_layout: Layout = "interleaved",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        require_size(1, embed_dim=embed_dim, num_heads=num_heads, head_dim=head_dim)
        require_size(1, value_dim=value_dim, latent_dim=latent_dim)
        require_size(0, rope_dim=rope_dim)
        if rope_dim % 2:
            raise ValueError(f"rope_dim must be even (rotations act on pairs), got {rope_dim}")
        self.num_heads, self.head_dim, self.value_dim = num_heads, head_dim, value_dim
        self.latent_dim, self.rope_dim = latent_dim, rope_dim
        self.rope = RotaryEmbedding(rope_dim, rope_base, layout=rope_layout) if rope_dim else None
        query_size = num_heads * (head_dim + rope_dim)
        self.query_latent_dim = query_latent_dim
        if query_latent_dim is None:
            self.q_proj = nn.Linear(embed_dim, query_size, bias=False)
        else:
            require_size(1, query_latent_dim=query_latent_dim)
            self.q_a_proj = nn.Linear(embed_dim, query_latent_dim, bias=False)
            self.q_a_layernorm = RMSNorm(query_latent_dim, eps=eps)
            self.q_b_proj = nn.Linear(query_latent_dim, query_size, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(embed_dim, latent_dim + rope_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(latent_dim, eps=eps)
        self.kv_b_proj = nn.Linear(latent_dim, num_heads * (head_dim + value_dim), bias=False)
        self.o_proj = nn.Linear(num_heads * value_dim, embed_dim, bias=False)

    def forward(
        self,
        x: Tensor,
        cache: LatentCache | None = None,
        attn_mask: Tensor | None = None,
        *,
        absorbed: bool,
    ) -> Tensor:
        """Outputs of the tokens x, which follow the cache.length tokens that the cache holds.

        absorbed chooses the form, not the result: it is cheaper for few new tokens.
        attn_mask further restricts the causal rule (True may attend) or is added to the scores; its
        last axis counts positions from the first token on, past ones included.
        Shapes: x (B, T, C), attn_mask broadcastable to (B, H, T, cache.length + T) -> (B, T, C)
        Raises: as the cache's update and latent_attention; ValueError if the mask has three axes or
        does not broadcast. The cache is then unchanged.
        """
        require_floating(x=x)
        require_shapes("weight (_, C), x (B, T, C)", weight=self.kv_a_proj_with_mqa.weight, x=x)
        require_heads_axis(attn_mask)
        past = 0 if cache is None else cache.length
        query, query_rope = self._queries(x)
        latent, key_rope = self._latents(x)
        if self.rope is not None:
            positions = torch.arange(past, past + x.shape[1], device=x.device)  # never from 0
            query_rope, shared = self.rope(query_rope, key_rope.unsqueeze(1), positions)
            key_rope = shared.squeeze(1)
        shape = (*query.shape[:3], past + x.shape[1])
        bias_and_allowed(attn_mask, False, shape, x.device)  # whether it fits, before any write
        attend = absorbed_latent_attention if absorbed else latent_attention
        try:
            if cache is not None:
                latent, key_rope = cache.update(latent, key_rope)
            heads = attend(
                *(query, query_rope, latent, key_rope, *self.up_projections()),
                attn_mask,
                is_causal=True,
            )
        except Exception:
            if cache is not None:
                cache.truncate(past)  # a NaN is found after the write
            raise
        return self.o_proj(merge_heads(heads))  # type: ignore[no-any-return]

    def up_projections(self) -> tuple[Tensor, Tensor]:
        """The maps from latents to keys and to values; head by head, keys first, in kv_b_proj.

        Shapes: -> (H, D, Dc), (H, Dv, Dc), views
        """
        blocks = self.kv_b_proj.weight.view(self.num_heads, -1, self.latent_dim)
        key_up, value_up = torch.split(blocks, [self.head_dim, self.value_dim], 1)
        return key_up, value_up

    def _queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of the queries, (B, H, T, D) and (B, H, T, Dr), not rotated."""
        if self.query_latent_dim is None:
            queries = self.q_proj(x)
        else:
            queries = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        heads = split_heads(queries, self.num_heads)
        query, rope = torch.split(heads, [self.head_dim, self.rope_dim], -1)
        return query, rope

    def _latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normed latents (B, T, Dc), and the key parts (B, T, Dr), not normed, not rotated."""
        both = self.kv_a_proj_with_mqa(x)
        latent, rope = torch.split(both, [self.latent_dim, self.rope_dim], -1)
        return self.kv_a_layernorm(latent), rope  # eq. eq-mla-latent
