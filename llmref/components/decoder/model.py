"""How do embedding, attention, feed-forward layers, norms and head make one decoder?

Leaves out: the parts, which are those of their own topics; where weights come from (see weights).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from llmref._require import (
    require_at_least,
    require_axis,
    require_ids,
    require_number,
    require_positive,
    require_size,
)
from llmref.attention.kv_cache import CachedAttention, KVCache
from llmref.components.linear import linear
from llmref.components.swiglu import SwiGLU
from llmref.norm.rms_norm import RMSNorm

Scaling = Callable[[int, float], Tensor | tuple[Tensor, float]]


class DecoderBlock(nn.Module):
    """One layer: attention and a SwiGLU, each of a normed copy of the stream, added to the stream.

    Shapes: h (B, T, C) -> (B, T, C), C = dim
    Source: Touvron et al. 2023, arXiv:2302.13971.
    Raises: as CachedAttention, SwiGLU and RMSNorm; ValueError unless eps is at least 0 and finite.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        hidden_dim: int,
        *,
        head_dim: int | None = None,
        rope_base: float,
        rope_scaling: Scaling | None = None,
        eps: float,
        qk_norm: bool = False,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        require_number(eps=eps)
        require_at_least(0, eps=eps)
        self.input_layernorm = RMSNorm(dim, eps=eps, cast="before_weight")
        self.self_attn = CachedAttention(
            dim,
            num_heads,
            num_kv_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            qk_norm_eps=eps if qk_norm else None,
            rope_base=rope_base,
            rope_scaling=rope_scaling,
        )
        self.post_attention_layernorm = RMSNorm(dim, eps=eps, cast="before_weight")
        self.mlp = SwiGLU(dim, hidden_dim)

    def forward(self, h: Tensor, cache: KVCache | None = None) -> Tensor:
        """The stream after the layer; the tokens follow those that the cache holds."""
        h = h + self.self_attn(self.input_layernorm(h), cache)  # eq. eq-decoder
        return h + self.mlp(self.post_attention_layernorm(h))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A decoder as in Llama, Qwen and Mistral; its weights have the names of transformers.

    rope_base, eps and tied have no default: models differ in them, and a wrong one runs. A tied
    decoder has no lm_head: its head is the embedding. qk_norm is Qwen3's, qkv_bias Qwen2's. Weights
    start as torch draws them, embeddings N(0, 1), until they are loaded or drawn anew.
    Shapes: ids (B, T) -> logits (B, T, V)
    Source: Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783.
    Raises: as DecoderBlock; ValueError if a size is below 1; TypeError unless the sizes are ints.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        hidden_dim: int,
        *,
        head_dim: int | None = None,
        rope_base: float,
        rope_scaling: Scaling | None = None,
        eps: float,
        tied: bool,
        qk_norm: bool = False,
        qkv_bias: bool = False,
        max_len: int,
    ) -> None:
        super().__init__()
        require_size(1, vocab_size=vocab_size, dim=dim, num_layers=num_layers, max_len=max_len)
        require_positive(rope_base=rope_base)
        self.max_len = max_len
        self.embed_tokens = nn.Embedding(vocab_size, dim)
        blocks = [
            DecoderBlock(
                dim,
                num_heads,
                num_kv_heads,
                hidden_dim,
                head_dim=head_dim,
                rope_base=rope_base,
                rope_scaling=rope_scaling,
                eps=eps,
                qk_norm=qk_norm,
                qkv_bias=qkv_bias,
            )
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(blocks)
        attention = blocks[0].self_attn
        self.num_kv_heads, self.head_dim = attention.num_kv_heads, attention.head_dim
        self.norm = RMSNorm(dim, eps=eps, cast="before_weight")
        self.lm_head = None if tied else nn.Linear(dim, vocab_size, bias=False)

    def forward(self, ids: Tensor, cache: list[KVCache] | None = None) -> Tensor:
        """Logits of the token after each; ids follow the tokens that the cache holds.

        An empty list is filled with one KVCache of max_len positions for each layer; it then
        belongs to this batch. Without a cache max_len does not bind.
        Shapes: ids (B, T) -> (B, T, V)
        Raises: TypeError unless ids are integers; ValueError for an id outside the vocabulary,
        T = 0, a list of other caches, or more tokens than fit. The cache is then unchanged.
        """
        require_axis("T", 1, "ids (B, T)", ids=ids)
        require_ids(self.embed_tokens.num_embeddings, ids=ids)
        with self._unchanged_on_error(cache, len(ids)):
            h = self.embed_tokens(ids.long())  # (B, T, C)
            for place, layer in enumerate(self.layers):
                h = layer(h, cache[place] if cache is not None else None)
            head = self.embed_tokens if self.lm_head is None else self.lm_head
            return linear(self.norm(h), head.weight)  # eq. eq-decoder-logits

    @contextmanager
    def _unchanged_on_error(self, cache: list[KVCache] | None, batch: int) -> Iterator[None]:
        """Fill an empty list; put all back if a layer raises after others wrote."""
        if cache is None:
            yield
            return
        lengths = self._require_caches(cache)
        if not cache:
            sizes = batch, self.num_kv_heads, self.max_len, self.head_dim
            weight = self.embed_tokens.weight
            cache.extend(
                KVCache(*sizes, dtype=weight.dtype, device=weight.device) for _ in self.layers
            )
        try:
            yield
        except BaseException:
            for held, length in zip(cache, lengths, strict=False):
                held.truncate(length)
            del cache[len(lengths) :]
            raise

    def _require_caches(self, cache: list[KVCache]) -> list[int]:
        """The lengths of the caches: none, or one for each layer, all equal."""
        for held in cache:
            if not isinstance(held, KVCache):
                raise TypeError(f"cache must hold a KVCache for each layer, got {type(held)}")
        lengths = [held.length for held in cache]
        if len(cache) not in (0, len(self.layers)) or len(set(lengths)) > 1:
            raise ValueError(
                f"cache must be empty or hold {len(self.layers)} layers of one length, "
                f"got lengths {lengths}"
            )
        return lengths
