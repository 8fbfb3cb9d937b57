"""What does attention over latents cost, in floating-point operations?

Counts matrix products alone, two operations for each multiply-add, for one sequence and one layer.
Leaves out: the projections of the new tokens, which all forms share, the softmax, and pairs that a
causal mask hides, which dense products compute too.
"""

from llmref._require import require_size


def latent_attention_flops(
    num_heads: int,
    head_dim: int,
    value_dim: int,
    latent_dim: int,
    rope_dim: int,
    query_len: int,
    key_len: int,
) -> dict[str, int]:
    """Operations of T queries on S keys: heads that are held, made from latents, or absorbed.

    H = 1, D = Dv = 2, Dc = 3, Dr = 0, T = S = 1: cached_heads 2 * 4 = 8, expanded 8 + 2 * 3 * 4 =
    32, absorbed 2 * 6 + 2 * 3 * 4 = 36.
    Shapes: integers -> {"cached_heads", "expanded", "absorbed"}
    Source: by counting.
    Raises: ValueError if rope_dim is negative or another size below 1; TypeError unless the sizes
    are ints.
    """
    require_size(1, num_heads=num_heads, head_dim=head_dim, value_dim=value_dim)
    require_size(1, latent_dim=latent_dim, query_len=query_len, key_len=key_len)
    require_size(0, rope_dim=rope_dim)
    H, T, S = num_heads, query_len, key_len
    maps = 2 * H * latent_dim * (head_dim + value_dim)  # W_UK and W_UV, for one token
    cached_heads = 2 * H * T * S * (head_dim + rope_dim + value_dim)
    return {  # eq. eq-mla-flops
        "cached_heads": cached_heads,
        "expanded": cached_heads + S * maps,
        "absorbed": 2 * H * T * S * (2 * latent_dim + rope_dim) + T * maps,
    }
