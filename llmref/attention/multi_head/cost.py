"""What does an attention layer cost: how many parameters, how many floating-point operations?

Counts matrix products alone, two operations for each multiply-add. Leaves out: the softmax, biases
in the operation count, memory traffic, and the backward pass.
"""

from llmref._require import require_size
from llmref.attention._heads import heads_per_group, require_head_dim
from llmref.attention._masking import causal_offset


def attention_parameters(
    embed_dim: int,
    num_heads: int,
    *,
    head_dim: int | None = None,
    num_kv_heads: int | None = None,
    bias: bool = False,
) -> int:
    """Entries of the four projections: 2 C H D for queries and output, 2 C G D for keys and values.

    C = 8, H = 2, D = 4: 4 * 8^2 = 256; biases add 3 * 8 + 8 = 32.
    Shapes: integers -> an integer
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    Raises: ValueError if a size is below 1, num_heads does not divide embed_dim without head_dim,
    or num_kv_heads does not divide num_heads; TypeError unless the sizes are ints.
    """
    H, G, D = _head_sizes(embed_dim, num_heads, head_dim, num_kv_heads)
    weights = 2 * embed_dim * H * D + 2 * embed_dim * G * D  # eq. eq-attention-parameters
    return weights + (H * D + 2 * G * D + embed_dim if bias else 0)


def attention_flops(
    batch: int,
    query_len: int,
    key_len: int,
    embed_dim: int,
    num_heads: int,
    *,
    head_dim: int | None = None,
    num_kv_heads: int | None = None,
    causal: bool = False,
) -> dict[str, int]:
    """Floating-point operations of one forward pass, by matrix product, and their total.

    B = 1, T = S = 2, C = 4, H = 2: each projection 2 * 2 * 4 * 4 = 64, scores and weighted sum
    2 * 2 * 2 * 4 = 32 each, total 4 * 64 + 2 * 32 = 320.
    Shapes: integers -> {"query", "key", "value", "scores", "weighted_sum", "output", "total"}
    Source: Kaplan et al. 2020, arXiv:2001.08361, which counts per token.
    Differs: every key is projected, as without a cache; causal counts the pairs that may attend,
    where a dense product computes all of them.
    Raises: as attention_parameters; ValueError if causal and query_len > key_len.
    """
    require_size(1, batch=batch, query_len=query_len, key_len=key_len)
    H, G, D = _head_sizes(embed_dim, num_heads, head_dim, num_kv_heads)
    T, S = query_len, key_len
    pairs = T * causal_offset(T, S) + T * (T + 1) // 2 if causal else T * S
    flops = {  # eq. eq-attention-flops
        "query": 2 * batch * T * embed_dim * H * D,
        "key": 2 * batch * S * embed_dim * G * D,
        "value": 2 * batch * S * embed_dim * G * D,
        "scores": 2 * batch * H * pairs * D,
        "weighted_sum": 2 * batch * H * pairs * D,
        "output": 2 * batch * T * H * D * embed_dim,
    }
    return {**flops, "total": sum(flops.values())}


def _head_sizes(
    embed_dim: int, num_heads: int, head_dim: int | None, num_kv_heads: int | None
) -> tuple[int, int, int]:
    D = require_head_dim(embed_dim, num_heads, head_dim)
    G = num_heads if num_kv_heads is None else num_kv_heads
    heads_per_group(num_heads, G)
    return num_heads, G, D
