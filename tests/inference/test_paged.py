"""Paged caches: slots, attention through tables, blocks that are shared, keys and steps."""

import hashlib
import itertools
import math
import random as rng

import pytest
import torch

from llmref.attention.grouped_query import grouped_query_attention
from llmref.inference.paged import (
    BlockPool,
    PagedKVCache,
    block_hashes,
    blocks_needed,
    decode_steps,
    gather_blocks,
    paged_attention,
    reusable_blocks,
    slot_index,
)
from tests.tensors import F64, close, f64, random

G, H, D, SIZE = 2, 6, 4, 3


def ids(*values):
    return torch.tensor(values)


def tokens(count, seed=0, dtype=F64):
    """Keys and values of so many tokens."""
    return random(count, G, D, seed=seed, dtype=dtype), random(
        count, G, D, seed=seed + 1, dtype=dtype
    )


def pool_of(blocks=8, filler=None, **options):
    pool = BlockPool(blocks, SIZE, G, D, dtype=F64, **options)
    if filler is not None:
        pool.key.fill_(filler)
        pool.value.fill_(filler)
    return pool


def state(pool):
    counts = [pool.references(block) for block in range(len(pool.key))]
    return counts, pool.free_blocks, pool.key.clone(), pool.value.clone()


def same_state(one, other):
    return one[:2] == other[:2] and torch.equal(one[2], other[2]) and torch.equal(one[3], other[3])


# Slots


def test_position_6_in_blocks_of_4_is_the_third_slot_of_the_second_block():
    """Block 2 begins at slot 8, so 8 + 2 = 10."""
    assert slot_index(ids(5, 2), ids(0, 3, 6), block_size=4).tolist() == [20, 23, 10]


def test_slots_as_a_loop_over_random_tables():
    draw = rng.Random(0)
    for size in range(1, 6):
        table = draw.sample(range(20), 4)
        positions = [draw.randrange(4 * size) for _ in range(9)]
        wanted = [table[t // size] * size + t % size for t in positions]
        assert slot_index(ids(*table), ids(*positions), block_size=size).tolist() == wanted


def test_slots_of_8_bit_tables_do_not_wrap():
    table, positions = ids(120, 100).to(torch.int8), ids(16, 1).to(torch.uint8)
    found = slot_index(table, positions, block_size=16)
    assert found.dtype == torch.int64
    assert found.tolist() == [1600, 1921]


def test_blocks_of_ten_tokens_in_fours():
    """10 tokens are 4 + 4 + 2; no token needs no block."""
    assert [blocks_needed(n, 4) for n in (0, 1, 4, 5, 10)] == [0, 1, 1, 2, 3]


def test_gathered_entries_come_in_the_order_of_positions():
    pool = torch.arange(12).view(4, 3)
    assert gather_blocks(pool, ids(2, 0), 5).tolist() == [6, 7, 8, 0, 1]
    assert gather_blocks(pool, ids(2, -1), 3).tolist() == [6, 7, 8]
    assert gather_blocks(pool, ids(-1), 0).shape == (0,)


def test_gathering_has_its_gradient_in_the_slots_that_are_read():
    pool = random(4, 3, 2).requires_grad_()
    gather_blocks(pool, ids(2, 0), 4).sum().backward()
    wanted = torch.zeros(4, 3, 2, dtype=F64)
    wanted[2] = wanted[0, 0] = 1
    assert torch.equal(pool.grad, wanted)


# Attention


def tabled(filler, seed, lengths=(5, 0, 9, 3)):
    """Texts in a pool with its own order of blocks; the slots between hold the filler."""
    pool, order = pool_of(12, filler), list(range(12))
    rng.Random(seed).shuffle(order)
    tables = torch.full((len(lengths), 4), -1)
    for row, length in enumerate(lengths):
        key, value = tokens(length, seed=10 * row)
        for t in range(length):
            if t % SIZE == 0:
                tables[row, t // SIZE] = order.pop()
            block = tables[row, t // SIZE]
            pool.key[block, t % SIZE], pool.value[block, t % SIZE] = key[t], value[t]
    return pool, tables, ids(*lengths)


def test_attention_through_a_table_is_that_over_each_text():
    query = random(4, H, 1, D, seed=99)
    pool, tables, lengths = tabled(math.nan, 0)
    found = paged_attention(query, pool.key, pool.value, tables, lengths)
    for row, length in enumerate(lengths.tolist()):
        key, value = (x.transpose(0, 1)[None] for x in tokens(length, seed=10 * row))
        close(found[row], grouped_query_attention(query[row : row + 1], key, value)[0], 1e-14)
    assert (found[1] == 0).all()


def test_no_bit_depends_on_where_the_blocks_lie():
    query = random(4, H, 1, D, seed=99)
    results = []
    for seed, filler in ((0, math.nan), (1, 0.0), (2, math.inf)):
        pool, tables, lengths = tabled(filler, seed)
        results.append(paged_attention(query, pool.key, pool.value, tables, lengths, scale=0.3))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_attention_of_no_sequence_is_empty():
    pool = pool_of(2)
    none = torch.zeros(0, 3, dtype=torch.int64)
    found = paged_attention(random(0, H, 1, D), pool.key, pool.value, none, none[:, 0])
    assert found.shape == (0, H, 1, D)


def test_gradient_of_attention_through_a_table():
    def out(query, key, value):
        return paged_attention(query, key, value, ids((1, 0)), ids(2))

    leaves = [random(*shape).requires_grad_() for shape in ((1, 2, 1, 1), (2, 1, 1, 1))]
    value = random(2, 1, 1, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(out, (*leaves, value), fast_mode=True)


# Pool and caches


def test_first_writer_copies_and_the_last_one_keeps_the_block():
    pool = pool_of()
    first = PagedKVCache(pool)
    first.append(*tokens(5))
    second, third = first.fork(), first.fork()
    assert pool.num_free == 6
    for cache, block in ((second, 2), (first, 3), (third, 1)):
        cache.append(*tokens(1))
        assert cache.block_table.tolist() == [0, block]
    assert [pool.references(block) for block in range(5)] == [3, 1, 1, 1, 0]


def test_full_blocks_are_shared_without_a_copy():
    pool = pool_of()
    first = PagedKVCache(pool)
    first.append(*tokens(6))
    second = first.fork()
    second.append(*tokens(1))
    assert second.block_table.tolist() == [0, 1, 2]
    assert pool.references(1) == 2


def test_random_traces_read_what_private_lists_hold():
    for seed in range(6):
        draw, pool = rng.Random(seed), pool_of(40, math.nan)
        caches, lists = [PagedKVCache(pool)], [torch.zeros(2, 0, G, D, dtype=F64)]
        for step in range(25):
            which = draw.randrange(len(caches))
            what = draw.choice(["append", "append", "fork", "free"])
            if what == "append":
                new = torch.stack(tokens(draw.randrange(5), seed=step))
                caches[which].append(*new)
                lists[which] = torch.cat([lists[which], new], 1)
            elif what == "fork" and len(caches) < 5:
                caches.append(caches[which].fork())
                lists.append(lists[which])
            elif what == "free":
                caches[which].free()
                lists[which] = lists[which][:, :0]
            for cache, text in zip(caches, lists, strict=True):
                assert torch.equal(torch.stack(cache.read()), text)
            named = [block for it in caches for block in it.block_table.tolist()]
            for block in range(40):
                assert pool.references(block) == named.count(block)
                assert (block in pool.free_blocks) == (block not in named)


def test_a_prefix_that_is_held_is_shared_by_its_table():
    pool = pool_of()
    first = PagedKVCache(pool)
    first.append(*tokens(8))
    prefix = first.block_table.tolist()[:2]
    second = PagedKVCache(pool, prefix, 6)
    second.append(*tokens(1, seed=5))
    assert torch.equal(second.read()[0][:6], first.read()[0][:6])
    assert pool.references(0) == 2
    first.free()
    assert pool.references(0) == 1


def test_a_pool_that_runs_dry_leaves_all_as_it_was():
    pool = pool_of(3)
    first = PagedKVCache(pool)
    first.append(*tokens(4))
    second = first.fork()
    for cache, count in ((second, 6), (first, 9)):  # with the copy one block too many
        before = state(pool)
        with pytest.raises(MemoryError, match=r"blocks are needed, 1 are free"):
            cache.append(*tokens(count))
        assert cache.length == 4
        assert same_state(state(pool), before)
    second.append(*tokens(2))
    assert pool.num_free == 0
    with pytest.raises(MemoryError, match=r"1 blocks are needed, 0 are free"):
        pool.allocate()


def test_nothing_appended_copies_nothing():
    pool = pool_of()
    first = PagedKVCache(pool)
    first.append(*tokens(1))
    first.fork().append(*tokens(0))
    assert pool.num_free == 7


def test_a_cache_that_was_freed_is_empty_and_may_be_used_again():
    pool = pool_of(2)
    cache = PagedKVCache(pool)
    cache.append(*tokens(5))
    cache.free()
    cache.free()
    assert (cache.length, pool.num_free, len(cache.block_table)) == (0, 2, 0)
    cache.append(*tokens(6))
    assert torch.equal(cache.read()[1], tokens(6)[1])


def test_a_copy_holds_the_same_and_leaves_the_old_count():
    pool = pool_of()
    block = pool.allocate()
    pool.write(block, 1, *tokens(2))
    new = pool.copy(block)
    assert torch.equal(pool.value[new], pool.value[block])
    assert (pool.references(block), pool.references(new)) == (1, 1)


# Keys and steps


def test_a_key_by_hand():
    """blake2b of 16 bytes: first of block size 2, then of that and tokens 1 and 2 in 8 bytes."""
    one, two = (n.to_bytes(8, "little") for n in (1, 2))
    root = hashlib.blake2b(b"2", digest_size=16).digest()
    assert block_hashes([1, 2, 3], 2) == [
        hashlib.blake2b(root + one + two, digest_size=16).digest()
    ]
    root = hashlib.blake2b(two + b"ab" + one + b"c" + b"1", digest_size=16).digest()
    largest = (2**63 - 1).to_bytes(8, "little")
    assert block_hashes([2**63 - 1], 1, extra=("ab", "c")) == [
        hashlib.blake2b(root + largest, digest_size=16).digest()
    ]


def test_keys_are_equal_if_and_only_if_all_before_is():
    texts = list(itertools.product(range(3), repeat=4))
    extras = [(), ("a",), ("a", "bc"), ("ab", "c"), ("",), ("\ud800",)]
    seen = {}
    for extra, text in itertools.product(extras, texts):
        for place, key in enumerate(block_hashes(text, 2, extra=extra)):
            seen.setdefault(key, set()).add((extra, text[: 2 * place + 2]))
    assert all(len(prefixes) == 1 for prefixes in seen.values())
    assert len(seen) == len(extras) * (9 + 81)


def test_blocks_of_other_sizes_have_other_keys():
    assert block_hashes([1, 2], 1)[0] != block_hashes([1], 1)[0][:15]
    assert not set(block_hashes([1, 2, 3, 4], 2)) & set(block_hashes([1, 2, 3, 4], 4))


def test_the_last_token_is_never_reused():
    assert [reusable_blocks(p, 4) for p in (1, 4, 5, 8, 9)] == [0, 0, 1, 1, 2]


def test_steps_of_four_requests_on_two_places():
    """Static 3 + 2. Continuous: the third starts after step 1, the fourth after step 2."""
    assert decode_steps([1, 3, 1, 2], 2, continuous=False) == 5
    assert decode_steps([1, 3, 1, 2], 2, continuous=True) == 4
    assert decode_steps([], 2, continuous=True) == decode_steps([], 2, continuous=False) == 0


def test_steps_lie_in_their_bounds():
    draw = rng.Random(0)
    for _ in range(100):
        lengths = [draw.randint(1, 9) for _ in range(draw.randint(1, 12))]
        places, longest = draw.randint(1, 5), max(lengths)
        steps = decode_steps(lengths, places, continuous=True)
        assert max(longest, -(-sum(lengths) // places)) <= steps
        assert steps * places <= sum(lengths) - longest + longest * places
        assert steps <= decode_steps(lengths, places, continuous=False)


# Errors


def test_slots_that_are_not_held_are_refused():
    with pytest.raises(ValueError, match=r"positions holds the id 8, outside \[0, 8\): 2 blocks"):
        slot_index(ids(5, 2), ids(8), block_size=4)
    with pytest.raises(ValueError, match=r"positions holds the id -1"):
        slot_index(ids(5, 2), ids(-1), block_size=4)
    with pytest.raises(ValueError, match=r"block_table holds the id -1"):
        slot_index(ids(5, -1), ids(0, 4), block_size=4)
    with pytest.raises(ValueError, match=r"block_table holds the id 4611"):
        slot_index(ids(2**62), ids(0), block_size=4)
    with pytest.raises(ValueError, match=r"block_size must be at least 1, got 0"):
        slot_index(ids(5), ids(0), block_size=0)
    with pytest.raises(ValueError, match=r"block_table must be"):
        slot_index(ids((5, 2)), ids(0), block_size=4)
    with pytest.raises(TypeError, match="block_table must hold integers"):
        slot_index(f64(5.0), ids(0), block_size=4)
    with pytest.raises(TypeError, match="positions must hold integers"):
        slot_index(ids(5), f64(0.0), block_size=4)


def test_gathering_refuses_what_no_block_holds():
    pool = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"7 tokens need 3 blocks of 3, block_table has 2"):
        gather_blocks(pool, ids(2, 0), 7)
    with pytest.raises(ValueError, match=r"block_table holds the id 4, outside \[0, 4\)"):
        gather_blocks(pool, ids(4), 1)
    with pytest.raises(ValueError, match=r"block_table holds the id -1"):
        gather_blocks(pool, ids(2, -1), 4)
    with pytest.raises(ValueError, match="length must be at least 0, got -1"):
        gather_blocks(pool, ids(2), -1)
    with pytest.raises(ValueError, match=r"pool must be \(N, block_size, ...\)"):
        gather_blocks(torch.zeros(4), ids(2), 1)
    with pytest.raises(ValueError, match=r"with block_size >= 1, got \(4, 0\)"):
        gather_blocks(torch.zeros(4, 0), ids(2), 1)
    assert gather_blocks(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 0).shape == (0,)
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        blocks_needed(3, 0)


def test_attention_refuses_other_shapes_and_dtypes():
    pool, tables, lengths = tabled(0.0, 0)
    query = random(4, H, 1, D)
    with pytest.raises(ValueError, match=r"query must be \(B, H, 1, D\), got \(4, 6, 2, 4\)"):
        paged_attention(random(4, H, 2, D), pool.key, pool.value, tables, lengths)
    with pytest.raises(ValueError, match="lengths must be"):
        paged_attention(query, pool.key, pool.value, tables, lengths[:3])
    with pytest.raises(ValueError, match=r"lengths must be in \[0, inf\), got -1"):
        paged_attention(query, pool.key, pool.value, tables, lengths - 1)
    with pytest.raises(ValueError, match="18 tokens need 6 blocks of 3, block_table has 4"):
        paged_attention(query, pool.key, pool.value, tables, lengths + 13)
    with pytest.raises(ValueError, match=r"key_pool must be .* with b >= 1"):
        paged_attention(query, pool.key[:, :0], pool.value[:, :0], tables, lengths)
    with pytest.raises(TypeError, match="one dtype"):
        paged_attention(query.float(), pool.key, pool.value, tables, lengths)
    with pytest.raises(TypeError, match="lengths must hold integers"):
        paged_attention(query, pool.key, pool.value, tables, lengths.double())


def test_a_free_block_is_nobody_s():
    pool = pool_of()
    for function in (pool.share, pool.release, pool.copy):
        with pytest.raises(ValueError, match="block 3 is free"):
            function(3)
        with pytest.raises(ValueError, match=r"block must be in \[0, 8\), got -1"):
            function(-1)
    with pytest.raises(TypeError, match="block must be an int"):
        pool.references(True)
    with pytest.raises(ValueError, match="one reference to be written to, got 0"):
        pool.write(3, 0, *tokens(1))


def test_two_writers_of_one_block_are_refused():
    pool = pool_of()
    block = pool.allocate()
    pool.share(block)
    with pytest.raises(ValueError, match="block 0 must have one reference to be written to, got 2"):
        pool.write(block, 0, *tokens(1))


def test_tokens_that_do_not_fit_are_refused_before_anything_is_written():
    pool = pool_of()
    cache = PagedKVCache(pool)
    cache.append(*tokens(2))
    cache.fork()
    key, value = tokens(2)
    before = state(pool)
    other = pool_of()
    block = other.allocate()
    with pytest.raises(ValueError, match="a block has 3 slots, got tokens up to slot 4"):
        other.write(block, 2, key, value)
    with pytest.raises(ValueError, match="key must be"):
        cache.append(key[..., :3], value)
    with pytest.raises(TypeError, match=r"value must be torch.float64 as the pool is"):
        cache.append(key, value.float())
    with pytest.raises(ValueError, match="value must not require grad"):
        cache.append(key, value.clone().requires_grad_())
    with pytest.raises(ValueError, match="key must be on cpu as the pool is"):
        cache.append(key.to("meta"), value)
    assert same_state(state(pool), before)


def test_a_table_must_hold_its_tokens():
    pool = pool_of()
    pool.allocate()
    pool.allocate()
    for table, length in (([0], 4), ([0, 1], 3), ([0, 0], 5)):
        with pytest.raises(ValueError, match=r"tokens need . different blocks, got"):
            PagedKVCache(pool, table, length)
    with pytest.raises(ValueError, match="block 5 is free"):
        PagedKVCache(pool, [0, 5], 5)
    assert [pool.references(block) for block in (0, 1, 5)] == [1, 1, 0]


def test_sizes_and_tokens_are_checked():
    with pytest.raises(ValueError, match="num_blocks must be at least 1, got 0"):
        BlockPool(0, 1, 1, 1)
    with pytest.raises(ValueError, match="head_dim must be at least 1, got 0"):
        BlockPool(1, 1, 1, 0)
    with pytest.raises(TypeError, match="dtype must be floating point"):
        BlockPool(1, 1, 1, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="prompt_length must be at least 1, got 0"):
        reusable_blocks(0, 4)
    with pytest.raises(ValueError, match=r"a token must be in \[0, 2\^63\), got -1"):
        block_hashes([-1], 1)
    with pytest.raises(TypeError, match="token must be an int"):
        block_hashes([1.0], 1)
    with pytest.raises(TypeError, match="extra must be a sequence of texts, got 'ab'"):
        block_hashes([1], 1, extra="ab")
    for extra in ((1,), (it for it in ["a"]), {"adapter": "a"}, {"a", "b"}):
        with pytest.raises(TypeError, match="extra must be a sequence of texts"):
            block_hashes([1], 1, extra=extra)
    with pytest.raises(ValueError, match=r"a token must be in \[0, 2\^63\), got -5"):
        block_hashes([1, 2, -5], 2)  # after the last full block
    with pytest.raises(ValueError, match=r"a token must be in \[0, 2\^63\), got 9223\d+8$"):
        block_hashes([2**63], 1)
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        block_hashes([1], 0)
    assert len(block_hashes([1], 10**30)) == 0


def test_lengths_may_be_read_once() -> None:
    assert decode_steps(iter([3, 4]), 2, continuous=True) == 4


def test_a_table_is_taken_as_it_is_given() -> None:
    pool = BlockPool(4, 2, 1, 1)
    first = PagedKVCache(pool)
    first.append(torch.ones(3, 1, 1), torch.ones(3, 1, 1))
    second = PagedKVCache(pool, first.block_table, first.length)
    assert second.block_table.tolist() == first.block_table.tolist()
    assert [pool.references(block) for block in first.block_table.tolist()] == [2, 2]
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        decode_steps([1, 0], 2, continuous=True)
    with pytest.raises(ValueError, match="places must be at least 1, got 0"):
        decode_steps([1], 0, continuous=True)
