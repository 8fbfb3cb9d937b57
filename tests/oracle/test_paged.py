"""Paged caches against continuous batching in transformers: indices, blocks, keys and reuse.

Its allocator is called without a model, on a table and a size of blocks.
"""

import itertools
import random
from types import SimpleNamespace

import torch

from llmref.inference.paged import block_hashes, blocks_needed, reusable_blocks, slot_index

TOPIC = "inference/paged"


def allocator(table, block_size, layers=1):
    """One group of full attention layers, whose blocks have keys and values of all of them."""
    from transformers.generation.continuous_batching.cache_allocators import (
        FullAttentionCacheAllocator as Theirs,
    )

    stub = SimpleNamespace(rows_per_token=Theirs.rows_per_token, supports_block_sharing=True)
    Theirs._before_cache_tensor_init(stub, 0, list(range(layers)), block_size, 1, True)
    stub.block_table = {"text": table}
    return stub


def cases():
    draw = random.Random(0)
    for count, size, layers in itertools.product(range(1, 7), range(1, 6), (1, 3)):
        new = draw.randint(1, size)
        table = draw.sample(range(30), count)
        yield table, size, layers, (count - 1) * size + draw.randint(1, size), new


def test_slots_are_where_transformers_reads_and_writes(agreement):
    from transformers.generation.continuous_batching.cache_allocators import (
        FullAttentionCacheAllocator as Theirs,
    )

    read, written, ours_read, ours_written = [], [], [], []
    for table, size, layers, length, new in cases():
        stub, past = allocator(table, size, layers), max(0, length - new)
        read += Theirs.get_read_indices(stub, "text", past, length - past)
        written += Theirs.get_write_indices(stub, "text", past, length - past)
        slots = slot_index(torch.tensor(table), torch.arange(length), block_size=size)
        stride = 2 * layers * size  # from block to block
        where = slots // size * stride + slots % size
        ours_read += where.tolist()
        ours_written += where[past:].tolist()
    for name, ours, theirs in (("read", ours_read, read), ("write", ours_written, written)):
        agreement(
            f"slots that are {'read' if name == 'read' else 'written'}",
            "transformers",
            torch.tensor(ours),
            torch.tensor(theirs),
            atol=0.0,
            convention="a block holds keys and values of all layers: its stride is 2 L b",
        )


def test_as_many_blocks_as_transformers_asks_for(agreement):
    from transformers.generation.continuous_batching.cache_allocators import (
        FullAttentionCacheAllocator as Theirs,
    )

    sizes = list(itertools.product(range(1, 40), range(1, 9)))
    theirs = [Theirs._compute_blocks_needed(allocator([], b), 0, n - 1, 1) for n, b in sizes]
    agreement(
        "blocks of a sequence",
        "transformers",
        torch.tensor([blocks_needed(n, b) for n, b in sizes]),
        torch.tensor(theirs),
        atol=0.0,
    )


def test_keys_are_equal_where_those_of_transformers_are(agreement):
    from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
        compute_block_hash,
    )

    def theirs(text):
        keys, parent = [], None
        for end in range(2, len(text) + 1, 2):
            parent = compute_block_hash(parent, list(text[end - 2 : end]))
            keys.append(parent)
        return keys

    texts = list(itertools.product(range(3), repeat=4))
    pairs = list(itertools.combinations(texts, 2))

    def equal(key):
        found = {text: key(text) for text in texts}
        return torch.tensor(
            [[a == b for a, b in zip(found[x], found[y], strict=True)] for x, y in pairs]
        )

    ours = equal(lambda text: block_hashes(text, 2))
    assert ours.any()
    agreement(
        "which blocks have one key",
        "transformers",
        ours.long(),
        equal(theirs).long(),
        atol=0.0,
        convention="64 bits, tokens alone; here 128 bits, and whatever else the layers see",
    )


def test_as_much_of_a_prompt_is_reused_as_in_transformers(agreement):
    from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
        BlockLedger,
        CacheAllocator,
    )

    theirs, ours = [], []
    for length, size in itertools.product(range(1, 30), range(1, 7)):
        text = list(range(length))
        blocks = length // size
        stub = allocator(list(range(blocks)), size)
        stub.ledger = BlockLedger()
        CacheAllocator.mark_complete_blocks(stub, "text", text, blocks)
        theirs.append(len(CacheAllocator.match_prefix_blocks(stub, text)))
        ours.append(reusable_blocks(length, size))
    agreement(
        "blocks of a known prompt that are reused",
        "transformers",
        torch.tensor(ours),
        torch.tensor(theirs),
        atol=0.0,
    )


def test_transformers_copies_a_shared_last_block_at_the_fork():
    """The page says so: a copy even if nobody writes."""
    from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
        BlockLedger,
        CacheAllocator,
    )

    stub = allocator([4, 2, 7], 4)
    stub.ledger, stub.use_block_sharing, stub.index = BlockLedger(), True, 0
    stub.pool = SimpleNamespace(get_free_blocks=lambda index, count: [9][:count])
    stub.count_shareable_blocks = lambda source, past: CacheAllocator.count_shareable_blocks(
        stub, source, past
    )
    copied = CacheAllocator.fork_blocks(stub, "text", "other", 10)
    assert stub.block_table["other"] == [4, 2, 9]
    assert copied == ([7], [9])
