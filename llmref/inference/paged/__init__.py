"""How does one pool of equal blocks hold the caches of many sequences, none of them contiguous?

slots: where a position lies, and attention that reads it there. pool: blocks that are handed out,
shared, and copied before a write. prefix: which blocks of an earlier text may be used again.
batching: the steps of many requests on a few places.
Leaves out: kernels, swapping blocks to other memory, and which sequence gives way if none is free.
"""

from llmref.inference.paged.batching import decode_steps
from llmref.inference.paged.pool import BlockPool, PagedKVCache
from llmref.inference.paged.prefix import block_hashes, reusable_blocks
from llmref.inference.paged.slots import (
    blocks_needed,
    gather_blocks,
    paged_attention,
    slot_index,
)

__all__ = [
    "BlockPool",
    "PagedKVCache",
    "block_hashes",
    "blocks_needed",
    "decode_steps",
    "gather_blocks",
    "paged_attention",
    "reusable_blocks",
    "slot_index",
]
