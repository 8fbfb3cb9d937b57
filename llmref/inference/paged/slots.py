"""Where does a position lie in a pool of blocks, and how is it read from there?"""

import torch
from torch import Tensor

from llmref._require import (
    require_axis,
    require_ids,
    require_in,
    require_integers,
    require_one_dtype,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.attention.grouped_query import grouped_query_attention


def blocks_needed(length: int, block_size: int) -> int:
    """Blocks that hold `length` tokens: the quotient, rounded up.

    blocks_needed(10, 4) = 3, and two slots of the third stay empty.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.
    Raises: ValueError if length is negative or block_size below 1; TypeError unless both are ints.
    """
    require_size(0, length=length)
    require_size(1, block_size=block_size)
    return -(-length // block_size)  # eq. eq-paged-waste


def slot_index(block_table: Tensor, positions: Tensor, *, block_size: int) -> Tensor:
    """Slot of each position, if the slots of all blocks are counted one after another.

    Table (5, 2), blocks of 4: position 6 is slot 2 of block 2, so 10.
    Shapes: block_table (M,), positions (T,) -> (T,) int64
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.
    Raises: ValueError unless the positions lie in [0, M block_size) and their blocks are not
    negative (-1 is none), or block_size is below 1; TypeError unless all are integers.
    """
    require_shapes("block_table (M,), positions (T,)", block_table=block_table, positions=positions)
    require_size(1, block_size=block_size)
    require_integers(block_table=block_table)
    held = len(block_table) * block_size
    require_ids(held, positions=positions, hint=f": {len(block_table)} blocks of {block_size}")
    logical, offset = positions.long() // block_size, positions.long() % block_size
    blocks = block_table.long()[logical]
    require_ids(torch.iinfo(torch.int64).max // block_size, block_table=blocks)
    return blocks * block_size + offset  # eq. eq-paged-slot


def gather_blocks(pool: Tensor, block_table: Tensor, length: int) -> Tensor:
    """The first `length` entries of a sequence, in the order of their positions.

    Slots that the sequence does not use are not read, so they may hold anything, a NaN too.
    Shapes: pool (N, block_size, ...), block_table (M,) -> (length, ...)
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.
    Raises: ValueError if length is negative or more than M blocks hold, or a block that it needs is
    not in [0, N); TypeError unless block_table holds integers and length is an int.
    """
    require_tensor(pool=pool, block_table=block_table)
    require_shapes("block_table (M,)", block_table=block_table)
    if pool.ndim < 2 or pool.shape[1] < 1:
        raise ValueError(
            f"pool must be (N, block_size, ...) with block_size >= 1, got {tuple(pool.shape)}"
        )
    num_blocks, block_size = pool.shape[:2]
    require_size(0, length=length)
    used = blocks_needed(length, block_size)
    if used > len(block_table):
        raise ValueError(
            f"{length} tokens need {used} blocks of {block_size}, block_table has "
            f"{len(block_table)}"
        )
    require_ids(num_blocks, block_table=block_table[:used])
    positions = torch.arange(length, device=block_table.device)
    slots = slot_index(block_table, positions, block_size=block_size)
    return pool.flatten(0, 1)[slots]


def paged_attention(
    query: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    block_tables: Tensor,
    lengths: Tensor,
    scale: float | None = None,
) -> Tensor:
    """Attention of the newest token of each sequence over the keys that its block table names.

    A sequence of length 0 reads 0. Entries of a table after its last block, such as -1, are not
    read; neither are unused slots of that block. Keys are rotated before they are written, by their
    position and not by their slot.
    Shapes: query (B, H, 1, D), key_pool (N, b, G, D), value_pool (N, b, G, Dv), block_tables (B, M)
    and lengths (B,) -> (B, H, 1, Dv)
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.1.
    Differs: each sequence is gathered first, so that no bit depends on where its blocks lie.
    Raises: as gather_blocks and grouped_query_attention; ValueError if the shapes differ from
    these; TypeError unless query and pools are of one floating-point dtype.
    """
    axes = (
        "query (B, H, 1, D), key_pool (N, b, G, D), value_pool (N, b, G, Dv), "
        "block_tables (B, M), lengths (B,)"
    )
    pools = {"key_pool": key_pool, "value_pool": value_pool}
    tables = {"block_tables": block_tables, "lengths": lengths}
    require_shapes(axes, query=query, **pools, **tables)
    require_one_dtype(query=query, **pools)
    require_integers(**tables)
    require_axis("b", 1, "key_pool (N, b, G, D)", key_pool=key_pool)
    if query.shape[2] != 1:
        raise ValueError(f"query must be (B, H, 1, D), got {tuple(query.shape)}")
    require_in("[0, inf)", lengths=lengths)
    out = query.new_empty(*query.shape[:3], value_pool.shape[-1])
    rows = []
    for one, table, length in zip(query, block_tables, lengths.tolist(), strict=True):
        key, value = (
            gather_blocks(pool, table, length).transpose(0, 1) for pool in (key_pool, value_pool)
        )
        rows.append(grouped_query_attention(one[None], key[None], value[None], scale=scale))
    return torch.cat(rows) if rows else out  # eq. eq-paged-attention
