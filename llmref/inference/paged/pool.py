"""Who owns a block: counts of references, and a copy before a write to a block that is shared.

Everything is checked before the first write, so a call that raises leaves pool and caches as they
were. One object holds one layer. Leaves out: eviction, and what to do when no block is free.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmref._require import (
    require_constant,
    require_float_dtype,
    require_int,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.inference.paged.slots import blocks_needed, gather_blocks


class BlockPool:
    """Blocks of slots for keys and values, and how many block tables name each.

    Shapes: key and value are (num_blocks, block_size, num_kv_heads, head_dim)
    Source: Kwon et al. 2023, arXiv:2309.06180, sections 4.2 to 4.4.
    Raises: ValueError if a size is below 1; TypeError if it is no int, or dtype not floating point.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        require_size(1, num_blocks=num_blocks, block_size=block_size)
        require_size(1, num_kv_heads=num_kv_heads, head_dim=head_dim)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        require_float_dtype(dtype=dtype)
        shape = (num_blocks, block_size, num_kv_heads, head_dim)
        self.key = torch.zeros(shape, dtype=dtype, device=device)
        self.value = torch.zeros(shape, dtype=dtype, device=device)
        self.block_size = block_size
        self._references = [0] * num_blocks
        self._free = list(range(num_blocks))[::-1]

    @property
    def free_blocks(self) -> tuple[int, ...]:
        """Blocks that nobody uses; the last one is handed out next."""
        return tuple(self._free)

    @property
    def num_free(self) -> int:
        """How many blocks nobody uses."""
        return len(self._free)

    def references(self, block: int) -> int:
        """How many tables name the block; 0 if it is free.

        Raises: ValueError if the pool has no such block; TypeError unless it is an int.
        """
        require_int(block=block)
        if not 0 <= block < len(self._references):
            raise ValueError(f"block must be in [0, {len(self._references)}), got {block}")
        return self._references[block]

    def allocate(self) -> int:
        """Hand out a free block, with one reference; what it holds is not cleared.

        Raises: MemoryError if none is free.
        """
        self._require_free(1)
        block = self._free.pop()
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """Count one table more that names the block.

        Raises: ValueError if the block is free, or the pool has no such block.
        """
        self._require_used(block)
        self._references[block] += 1

    def release(self, block: int) -> None:
        """Count one table less; without any, the block is free.

        Raises: ValueError if it is free already, or the pool has no such block.
        """
        self._require_used(block)
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free.append(block)

    def copy(self, block: int) -> int:
        """Hand out a block with the same content; the references of the old one stay.

        Raises: ValueError if the block is free; MemoryError if no other is.
        """
        self._require_used(block)
        new = self.allocate()
        self.key[new] = self.key[block]
        self.value[new] = self.value[block]
        return new

    def write(self, block: int, offset: int, key: Tensor, value: Tensor) -> None:
        """Write tokens into the slots of one block, from `offset` on.

        Shapes: key and value (t, G, D)
        Raises: ValueError if the block is free or more than one table names it, or the tokens do
        not fit, have other sizes, another device or require grad; TypeError for another dtype.
        """
        self._check(key, value)
        require_size(0, offset=offset)
        if self.references(block) != 1:
            raise ValueError(
                f"block {block} must have one reference to be written to, "
                f"got {self._references[block]}"
            )
        stop = offset + len(key)
        if stop > self.block_size:
            raise ValueError(f"a block has {self.block_size} slots, got tokens up to slot {stop}")
        self.key[block, offset:stop] = key
        self.value[block, offset:stop] = value

    def _check(self, key: Tensor, value: Tensor) -> None:
        require_tensor(key=key, value=value)
        axes = "pool (N, b, G, D), key (t, G, D), value (t, G, D)"
        require_shapes(axes, pool=self.key, key=key, value=value)
        require_constant(key=key, value=value)
        for name, x in (("key", key), ("value", value)):
            if x.dtype != self.key.dtype:
                raise TypeError(f"{name} must be {self.key.dtype} as the pool is, got {x.dtype}")
            if x.device != self.key.device:
                raise ValueError(f"{name} must be on {self.key.device} as the pool is")

    def _require_used(self, block: int) -> None:
        if not self.references(block):
            raise ValueError(f"block {block} is free: nobody may share, copy or release it")

    def _require_free(self, count: int) -> None:
        if count > self.num_free:
            raise MemoryError(f"{count} blocks are needed, {self.num_free} are free")


class PagedKVCache:
    """Keys and values of one sequence, in blocks of a pool that it may share with others.

    With a table it starts from blocks that are in use, such as those of an equal prefix, and counts
    as one more reader of each.
    Shapes: keys and values are (length, G, D)
    Source: Kwon et al. 2023, arXiv:2309.06180, sections 4.3 and 4.4.
    Raises: ValueError if a block of the table is free or named twice, or the table does not have
    the blocks that hold `length` tokens; TypeError unless all are ints.
    """

    def __init__(
        self, pool: BlockPool, block_table: Sequence[int] | Tensor = (), length: int = 0
    ) -> None:
        table = block_table.tolist() if isinstance(block_table, Tensor) else list(block_table)
        needed = blocks_needed(length, pool.block_size)
        if len(table) != needed or len(set(table)) != needed:
            raise ValueError(f"{length} tokens need {needed} different blocks, got {table}")
        for block in table:
            pool._require_used(block)
        for block in table:
            pool.share(block)
        self.pool, self.length, self._table = pool, length, table

    @property
    def block_table(self) -> Tensor:
        """The block of each piece of block_size tokens.

        Shapes: -> (M,) int64
        """
        return torch.tensor(self._table, dtype=torch.int64, device=self.pool.key.device)

    def append(self, key: Tensor, value: Tensor) -> None:
        """Write tokens after the last one; a block that others read is copied first.

        Shapes: key and value (t, G, D)
        Raises: as BlockPool.write; MemoryError if too few blocks are free. Nothing is then changed.
        """
        pool, size = self.pool, self.pool.block_size
        pool._check(key, value)
        length = self.length + len(key)
        shared = len(key) > 0 and self.length % size > 0 and pool.references(self._table[-1]) > 1
        pool._require_free(blocks_needed(length, size) - len(self._table) + shared)
        if shared:
            old = self._table[-1]
            self._table[-1] = pool.copy(old)
            pool.release(old)
        while self.length < length:
            offset = self.length % size
            if offset == 0:
                self._table.append(pool.allocate())
            done = len(key) - (length - self.length)
            count = min(size - offset, length - self.length)
            part = slice(done, done + count)
            pool.write(self._table[-1], offset, key[part], value[part])
            self.length += count

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, as a copy.

        Shapes: -> (length, G, D) twice
        """
        key, value = (
            gather_blocks(x, self.block_table, self.length)
            for x in (self.pool.key, self.pool.value)
        )
        return key, value

    def fork(self) -> "PagedKVCache":
        """A second sequence with the same tokens: no key is copied."""
        return PagedKVCache(self.pool, self._table, self.length)

    def free(self) -> None:
        """Give all blocks back; the sequence is then empty, and may be used again."""
        for block in self._table:
            self.pool.release(block)
        self._table, self.length = [], 0
