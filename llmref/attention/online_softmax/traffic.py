"""How many numbers does an attention kernel move to and from its slow memory?

Counts elements, each read and each write. Leaves out: masks, dropout, the backward pass, caches.
"""

from llmref._require import require_size


def hbm_elements(query_len: int, key_len: int, head_dim: int, value_dim: int, block_q: int) -> int:
    """Elements that the tiled forward pass moves: keys and values once for each tile of queries.

    T = S = 4, D = Dv = 2, tiles of 2: 4 * 4 + 2 * 4 + 2 * 4 * 4 = 56.
    Shapes: integers T, S, D, Dv -> an integer
    Source: Dao et al. 2022, arXiv:2205.14135, theorem 2, for its order.
    Differs: exact for flash_attention of this package without mask, which writes m and log l of
    each row; the tiles of keys do not count.
    Raises: ValueError if a size is below 1; TypeError unless the sizes are ints.
    """
    T, S, D, Dv = query_len, key_len, head_dim, value_dim
    require_size(1, query_len=T, key_len=S, head_dim=D, value_dim=Dv, block_q=block_q)
    tiles = -(-T // block_q)
    return T * (D + Dv) + 2 * T + tiles * S * (D + Dv)  # eq. eq-flash-io


def standard_hbm_elements(query_len: int, key_len: int, head_dim: int, value_dim: int) -> int:
    """Elements that attention moves at least if scores and weights are stored.

    T = S = 4, D = Dv = 2: 4 * 16 + 8 + 16 + 8 = 96.
    Shapes: integers T, S, D, Dv -> an integer
    Source: Dao et al. 2022, arXiv:2205.14135, section 2.2.
    Differs: charges queries, keys and values once, which is generous.
    Raises: ValueError if a size is below 1; TypeError unless the sizes are ints.
    """
    T, S, D, Dv = query_len, key_len, head_dim, value_dim
    require_size(1, query_len=T, key_len=S, head_dim=D, value_dim=Dv)
    return 4 * T * S + T * D + S * (D + Dv) + T * Dv  # eq. eq-standard-io
