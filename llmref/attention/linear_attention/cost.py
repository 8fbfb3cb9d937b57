"""What do the three forms of linear attention cost, in floating-point operations?

Counts matrix products alone, two operations for each multiply-add, for one sequence and one head.
Leaves out: decays and exponentials, and pairs that the mask hides, which dense products compute.
"""

from llmref._require import require_size


def linear_attention_flops(
    length: int, key_dim: int, value_dim: int, chunk_size: int
) -> dict[str, int]:
    """Operations on T tokens as one product, token by token, and in chunks.

    T = 5, Dk = 2, Dv = 3, chunks of 2, 2 and 1: parallel 2 * 25 * 5 = 250, recurrent 4 * 5 * 6 =
    120, chunked 2 * (4 + 4 + 1) * 5 + 120 = 210.
    Shapes: integers -> {"parallel", "recurrent", "chunked"}
    Source: by counting.
    Raises: ValueError if length is negative or another size below 1; TypeError unless all are ints.
    """
    require_size(0, length=length)
    require_size(1, key_dim=key_dim, value_dim=value_dim, chunk_size=chunk_size)
    full, rest = divmod(length, chunk_size)
    pairs = full * chunk_size**2 + rest**2
    state = 4 * length * key_dim * value_dim  # eq. eq-linear-attention-flops
    return {
        "parallel": 2 * length**2 * (key_dim + value_dim),
        "recurrent": state,
        "chunked": 2 * pairs * (key_dim + value_dim) + state,
    }
