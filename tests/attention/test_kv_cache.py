"""KV cache: decoding in chunks equals one pass, the ring keeps enough, and the counts are true."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmref.attention.grouped_query import grouped_query_attention, repeat_kv
from llmref.attention.kv_cache import (
    CachedAttention,
    KVCache,
    SlidingWindowKVCache,
    attention_pairs,
    generate_greedy,
    kv_cache_bytes,
)
from llmref.components.rope import apply_rope, rope_cos_sin, rope_inv_freq
from tests.tensors import close, random

B, G, D, C, H = 2, 3, 4, 10, 6
F64 = torch.float64
law = settings(deadline=None, max_examples=25)


def chunk(length, seed=0, dtype=F64):
    return random(B, G, length, D, seed=seed, dtype=dtype), random(
        B, G, length, D, seed=seed + 1, dtype=dtype
    )


def layer(window=None, dtype=F64, **options):
    torch.manual_seed(0)
    return CachedAttention(C, H, G, head_dim=D, window=window, **options).to(dtype)


def in_chunks(module, x, cache, sizes):
    with torch.no_grad():
        return torch.cat([module(part, cache) for part in x.split(sizes, dim=1)], dim=1)


# The plain cache


def test_update_returns_everything_in_order():
    cache = KVCache(B, G, 7, D, dtype=F64)
    key, value = chunk(7)
    parts = zip(key.split([2, 1, 4], 2), value.split([2, 1, 4], 2), strict=True)
    for stop, (k, v) in zip((2, 3, 7), parts, strict=True):
        keys, values = cache.update(k, v)
        assert cache.length == stop
        assert torch.equal(keys, key[:, :, :stop])
        assert torch.equal(values, value[:, :, :stop])


def test_what_is_returned_is_a_view_not_a_copy():
    cache = KVCache(B, G, 7, D, dtype=F64)
    first, _ = cache.update(*chunk(2))
    second, _ = cache.update(*chunk(2))
    assert first.data_ptr() == second.data_ptr()


def test_an_empty_chunk_changes_nothing():
    cache = KVCache(B, G, 7, D, dtype=F64)
    cache.update(*chunk(2))
    keys, _ = cache.update(*chunk(0))
    assert keys.shape == (B, G, 2, D)


def test_truncate_restores_the_state_before():
    cache = KVCache(B, G, 7, D, dtype=F64)
    before = [x.clone() for x in cache.update(*chunk(3))]
    cache.update(*chunk(4, seed=7))
    cache.truncate(3)
    assert cache.length == 3
    again = cache.update(*chunk(0))
    assert all(torch.equal(a, b) for a, b in zip(again, before, strict=True))
    key, value = chunk(4, seed=9)
    keys, values = cache.update(key, value)
    assert torch.equal(keys[:, :, 3:], key)
    assert torch.equal(values[:, :, 3:], value)


def test_bytes_count_both_buffers():
    """2 * (2 * 3 * 7 * 4) elements of 2 bytes: 672."""
    assert KVCache(B, G, 7, D, dtype=torch.bfloat16).nbytes() == 672
    assert KVCache(B, G, 7, D, dtype=F64).nbytes() == 4 * 672


def test_dtype_defaults_to_that_of_torch():
    keys, _ = KVCache(1, 1, 1, 2).update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert keys.dtype == torch.get_default_dtype()


def state(cache):
    return cache.length, cache._key.clone(), cache._value.clone()


def caches():
    return [
        KVCache(B, G, 5, D, dtype=F64),
        SlidingWindowKVCache(B, G, 3, D, max_chunk=3, dtype=F64),
    ]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (
            chunk(1)[0][0],
            chunk(1)[1],
            ValueError,
            r"key must be \(B, G, t, D\) beside buffer \(2, 3, 5, 4\), got \(3, 1, 4\)",
        ),
        (chunk(1)[0][:1], chunk(1)[1], ValueError, r"got \(1, 3, 1, 4\)"),
        (chunk(1)[0], chunk(1)[1][:, :2], ValueError, r"value must be .* got \(2, 2, 1, 4\)"),
        (chunk(1)[0][..., :2], chunk(1)[1], ValueError, r"got \(2, 3, 1, 2\)"),
        (
            chunk(1)[0],
            chunk(2)[1],
            ValueError,
            r"value must be \(B, G, t, D\) = \(2, 3, 1, 4\) beside buffer \(2, 3, 5, 4\)",
        ),
        (chunk(1)[0].float(), chunk(1)[1], TypeError, "key must be torch.float64 as the cache is"),
        (chunk(1)[0], chunk(1)[1].long(), TypeError, "value must be torch.float64 .* torch.int64"),
        (chunk(1)[0].to("meta"), chunk(1)[1], ValueError, "key must be on cpu .* got meta"),
        (*chunk(4), ValueError, "the cache holds 2 of 5|max_chunk = 3 positions, got 4"),
    ],
)
def test_a_refused_chunk_leaves_the_cache_as_it_was(index, key, value, error, message):
    cache = caches()[index]
    cache.update(*chunk(2, seed=5))
    before = state(cache)
    with pytest.raises(error, match=message):
        cache.update(key, value)
    assert cache.length == before[0]
    assert torch.equal(cache._key, before[1])
    assert torch.equal(cache._value, before[2])
    cache.update(*chunk(3, seed=8))  # and it goes on working


def test_capacity_is_named():
    cache = KVCache(B, G, 5, D, dtype=F64)
    cache.update(*chunk(5))
    with pytest.raises(ValueError, match="the cache holds 5 of 5 positions: 1 more do not fit"):
        cache.update(*chunk(1))
    assert cache.max_len == 5


def test_truncation_outside_what_is_held_is_refused():
    cache = KVCache(B, G, 5, D, dtype=F64)
    cache.update(*chunk(2))
    for length in (-1, 3):
        with pytest.raises(ValueError, match=rf"length must be in \[0, 2\], got {length}"):
            cache.truncate(length)
    assert cache.length == 2


def test_wrong_sizes_of_caches_are_named():
    with pytest.raises(ValueError, match="num_kv_heads must be at least 1, got 0"):
        KVCache(2, 0, 5, 4)
    with pytest.raises(ValueError, match="max_len must be at least 1, got 0"):
        KVCache(2, 3, 0, 4)
    with pytest.raises(TypeError, match="dtype must be floating point, got torch.int8"):
        KVCache(2, 3, 5, 4, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"max_len must be an int, got 5\.0"):
        KVCache(2, 3, 5.0, 4)
    with pytest.raises(TypeError, match=r"length must be an int, got 0\.0"):
        KVCache(2, 3, 5, 4).truncate(0.0)
    with pytest.raises(ValueError, match="window must be at least 1, got 0: it counts the token"):
        SlidingWindowKVCache(2, 3, 0, 4)
    with pytest.raises(ValueError, match="max_chunk must be at least 1, got 0"):
        SlidingWindowKVCache(2, 3, 4, 4, max_chunk=0)
    with pytest.raises(ValueError, match="head_dim must be at least 1, got 0"):
        SlidingWindowKVCache(2, 3, 4, 0)


def test_gradients_through_one_chunk_are_true_and_through_an_overwritten_buffer_refused():
    module, x = layer(), random(B, 4, C)
    out = module(x, KVCache(B, G, 8, D, dtype=F64))
    actual = torch.autograd.grad(out.square().sum(), list(module.parameters()))
    expected = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for a, b in zip(actual, expected, strict=True):
        close(a, b)
    cache = KVCache(B, G, 8, D, dtype=F64)
    first, _ = module(x, cache), module(x, cache)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.sum().backward()


def test_in_bfloat16_the_gradients_of_an_overwritten_buffer_are_true():
    """Attention computes in float32 there, so the backward pass holds copies of the buffer."""
    module, x = layer(dtype=torch.bfloat16), random(B, 4, C, dtype=torch.bfloat16)
    cache = KVCache(B, G, 8, D, dtype=torch.bfloat16)
    first, _ = module(x, cache), module(x, cache)
    parameters = list(module.parameters())
    actual = torch.autograd.grad(first.sum(), parameters)
    expected = torch.autograd.grad(module(x).sum(), parameters)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


# The ring


def test_ring_says_which_position_lies_in_which_slot():
    """Size 3 + 2 - 1 = 4. After positions 0 to 5, slot 0 holds 4, slot 1 holds 5, then 2, 3."""
    cache = SlidingWindowKVCache(B, G, 3, D, max_chunk=2, dtype=F64)
    key, value = chunk(6)
    seen = []
    for k, v in zip(key.split(2, 2), value.split(2, 2), strict=True):
        keys, values, positions = cache.update(k, v)
        assert torch.equal(keys, key[:, :, positions])
        assert torch.equal(values, value[:, :, positions])
        seen.append(positions.tolist())
    assert seen == [[0, 1], [0, 1, 2, 3], [4, 5, 2, 3]]


@law
@given(window=st.integers(1, 5), most=st.integers(1, 4), data=st.data())
def test_ring_holds_the_last_positions_and_every_key_that_a_query_needs(window, most, data):
    cache = SlidingWindowKVCache(1, 1, window, 1, max_chunk=most, dtype=F64)
    sizes = data.draw(st.lists(st.integers(1, most), min_size=1, max_size=9))
    start = 0
    for size in sizes:
        time = torch.arange(start, start + size, dtype=F64).reshape(1, 1, -1, 1)
        keys, values, positions = cache.update(time, -time)
        start += size
        assert keys.flatten().tolist() == positions.tolist()
        assert values.flatten().tolist() == [-p for p in positions.tolist()]
        assert set(positions.tolist()) == set(range(max(0, start - window - most + 1), start))
        needed = range(max(0, start - size - window + 1), start)
        assert set(needed) <= set(positions.tolist())


def test_a_ring_has_window_slots_and_takes_one_token_at_a_time_unless_told_otherwise():
    cache = SlidingWindowKVCache(B, G, 4, D, dtype=F64)
    assert cache.nbytes() == 2 * B * G * 4 * D * 8
    with pytest.raises(ValueError, match="max_chunk = 1 positions, got 2"):
        cache.update(*chunk(2))


def test_bytes_of_a_ring_do_not_grow_with_the_text():
    cache = SlidingWindowKVCache(B, G, 4, D, max_chunk=3, dtype=F64)
    assert cache.nbytes() == 2 * B * G * 6 * D * 8
    for seed in range(5):
        cache.update(*chunk(3, seed=seed))
    assert cache.nbytes() == 2 * B * G * 6 * D * 8
    assert cache.length == 15


# The layer


def layer_as_a_loop(module, x, window=None):
    """Token by token from the definition: repeated heads, one softmax a query, no mask."""
    B, T, _ = x.shape
    r = module.num_heads // module.num_kv_heads
    cos, sin = rope_cos_sin(torch.arange(T), rope_inv_freq(D), dtype=F64)
    q = apply_rope((x @ module.q_proj.weight.T).view(B, T, H, D).transpose(1, 2), cos, sin)
    k = apply_rope((x @ module.k_proj.weight.T).view(B, T, G, D).transpose(1, 2), cos, sin)
    v = (x @ module.v_proj.weight.T).view(B, T, G, D).transpose(1, 2)
    k, v = repeat_kv(k, r), repeat_kv(v, r)
    rows = []
    for t in range(T):
        old = 0 if window is None else max(0, t - window + 1)
        scores = (q[:, :, t, None] * k[:, :, old : t + 1]).sum(-1) / math.sqrt(D)
        rows.append((scores.softmax(-1)[..., None] * v[:, :, old : t + 1]).sum(-2))
    return torch.stack(rows, 1).flatten(2) @ module.o_proj.weight.T


@pytest.mark.parametrize("window", [None, 1, 3])
def test_layer_equals_the_definition_written_as_a_loop(window):
    module, x = layer(window), random(B, 7, C)
    close(module(x), layer_as_a_loop(module, x, window))


@law
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_every_division_into_chunks_gives_the_full_pass(sizes):
    module, x = layer(), random(B, sum(sizes), C)
    close(in_chunks(module, x, KVCache(B, G, sum(sizes), D, dtype=F64), sizes), module(x))


@law
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=8), window=st.integers(1, 5))
def test_windowed_layer_with_a_ring_gives_the_full_pass(sizes, window):
    module, x = layer(window), random(B, sum(sizes), C)
    ring = SlidingWindowKVCache(B, G, window, D, max_chunk=3, dtype=F64)
    close(in_chunks(module, x, ring, sizes), module(x))
    whole = KVCache(B, G, sum(sizes), D, dtype=F64)
    close(in_chunks(module, x, whole, sizes), module(x))


def test_three_layers_with_norm_and_residual_step_by_step():
    torch.manual_seed(0)
    layers = nn.ModuleList([CachedAttention(C, H, G, head_dim=D) for _ in range(3)]).double()

    def model(x, stack):
        for module, cache in zip(layers, stack, strict=True):
            x = x + module(torch.nn.functional.rms_norm(x, (C,)), cache).tanh()
        return x

    x = random(B, 12, C)
    with torch.no_grad():
        full = model(x, [None] * 3)
        for sizes in ([1] * 12, [5, 1, 4, 2]):
            stack = [KVCache(B, G, 12, D, dtype=F64) for _ in range(3)]
            close(torch.cat([model(part, stack) for part in x.split(sizes, 1)], 1), full)


def test_forgetting_the_offset_is_seen():
    """Positions from 0 in every step: far from the full pass."""
    module, x = layer(), random(B, 5, C)
    full = module(x)

    class Forgetful(KVCache):
        held = 0

        def update(self, key, value):
            self.length = self.held
            result = super().update(key, value)
            self.held, self.length = self.length, 0
            return result

    wrong = in_chunks(module, x, Forgetful(B, G, 5, D, dtype=F64), [1] * 5)
    assert (wrong - full).abs().max() > 0.01


def test_a_mask_counts_past_positions_in_a_buffer_and_in_a_ring():
    valid = torch.tensor([[False, False] + [True] * 5, [True] * 7])[:, None, None]  # (B, 1, 1, S)
    for window in (None, 3):
        module, x = layer(window), random(B, 7, C)
        full = module(x, attn_mask=valid)
        cache = (
            KVCache(B, G, 7, D, dtype=F64)
            if window is None
            else SlidingWindowKVCache(B, G, window, D, max_chunk=2, dtype=F64)
        )
        parts = []
        for start in range(0, 7, 2):
            stop = min(start + 2, 7)
            parts.append(module(x[:, start:stop], cache, valid[..., :stop]))
        close(torch.cat(parts, 1), full)
        additive = torch.zeros(valid.shape, dtype=F64).masked_fill(~valid, -math.inf)
        close(module(x, attn_mask=additive), full)
        close(module(x, attn_mask=valid.long()), full)


def test_left_padding_with_its_mask_equals_no_padding():
    module, x = layer(), random(1, 7, C)
    valid = torch.tensor([False, False] + [True] * 5)
    close(module(x, attn_mask=valid)[:, 2:], module(x[:, 2:]))


def test_an_additive_mask_is_added_to_the_scores():
    module, x = layer(), random(B, 5, C)
    mask = random(B, H, 5, 5)
    cos, sin = rope_cos_sin(torch.arange(5), rope_inv_freq(D), dtype=F64)
    q, k, v = (
        projection(x).view(B, 5, heads, D).transpose(1, 2)
        for projection, heads in ((module.q_proj, H), (module.k_proj, G), (module.v_proj, G))
    )
    out = grouped_query_attention(
        apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, mask, is_causal=True
    )
    close(module(x, attn_mask=mask), module.o_proj(out.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_lower_precision(dtype, atol):
    module, x = layer(dtype=dtype), random(B, 6, C, dtype=dtype)
    out = in_chunks(module, x, KVCache(B, G, 6, D, dtype=dtype), [4, 1, 1])
    assert out.dtype == dtype
    close(out.double(), layer().double()(x.double()), atol=10 * atol)


def test_a_bias_enters_every_projection():
    module = CachedAttention(16, 4, bias=True)
    assert all(getattr(module, f"{name}_proj").bias is not None for name in "qkvo")
    assert module.k_proj.weight.shape == (16, 16)


def test_a_bias_of_q_k_and_v_alone_leaves_the_output_without():
    module = CachedAttention(16, 4, qkv_bias=True)
    assert all(getattr(module, f"{name}_proj").bias is not None for name in "qkv")
    assert module.o_proj.bias is None


def test_queries_and_keys_are_normed_per_head_before_they_are_rotated():
    """Two layers: with the norms, and one whose q and k are replaced by their normed ones."""
    module, x = layer(qk_norm_eps=0.1), random(B, 6, C)
    for place, norm in enumerate((module.q_norm, module.k_norm)):
        norm.weight.data = 1 + random(D, seed=place)
    plain = layer()
    plain.load_state_dict(module.state_dict(), strict=False)

    def normed(norm):
        def change(projection, given, out):
            heads = out.unflatten(-1, (-1, D))
            r = (heads.square().mean(-1, keepdim=True) + 0.1).sqrt()
            return (norm.weight * heads / r).flatten(-2)

        return change

    plain.q_proj.register_forward_hook(normed(module.q_norm))
    plain.k_proj.register_forward_hook(normed(module.k_norm))
    out = module(x)
    close(out, plain(x))
    close(out, in_chunks(module, x, KVCache(B, G, 6, D, dtype=F64), [2, 3, 1]))


def test_scaled_frequencies_are_those_of_the_rotation():
    slow, x = layer(rope_scaling=lambda dim, base: rope_inv_freq(dim, base) / 4), random(B, 6, C)
    given = []
    slow.rope.register_forward_pre_hook(lambda rope, arguments: given.append(arguments))
    slow(x)
    q, k, positions = given[0]
    for one, other in zip(
        slow.rope(q, k, positions), layer().rope(q, k, positions.double() / 4), strict=True
    ):
        close(one, other)


def test_a_layer_that_raises_leaves_the_cache_as_it_was():
    module, x = layer(), random(B, 6, C)
    ring = SlidingWindowKVCache(B, G, 3, D, max_chunk=4, dtype=F64)
    cases = [
        (KVCache(B, G, 5, D, dtype=F64), None, ValueError, "3 more do not fit"),
        (
            KVCache(B, G, 9, D, dtype=F64),
            torch.ones(3, 3).bool(),
            ValueError,
            "does not broadcast to the scores",
        ),
        (
            KVCache(B, G, 9, D, dtype=F64),
            torch.full((3, 6), 2),
            ValueError,
            "a mask holds zeros and ones only, got 2",
        ),
        (ring, None, ValueError, "a window of 3, the layer needs None"),
    ]
    for cache, mask, error, message in cases:
        if cache is not ring:
            module(x[:, :3], cache)
        before = state(cache)
        with pytest.raises(error, match=message):
            module(x[:, 3:], cache, mask)
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(state(cache), before, strict=True)
        )
    with pytest.raises(TypeError, match="key must be torch.float32 as the cache is"):
        module(x, KVCache(B, G, 9, D, dtype=torch.float32))


@pytest.mark.parametrize("window", [None, 3])
def test_a_number_that_no_softmax_can_take_leaves_the_cache_as_it_was(window):
    """It is found after the write: a ring has then lost older keys, unless they are put back.

    The chunk is longer than B and C, so that every slot of it is looked at.
    """
    T = max(B, C) + 1
    module, x = layer(window), random(B, 2 * T, C)
    cache = (
        KVCache(B, G, 2 * T, D, dtype=F64)
        if window is None
        else SlidingWindowKVCache(B, G, window, D, max_chunk=T, dtype=F64)
    )
    full = module(x)
    module(x[:, :T], cache)
    before = state(cache)
    poisoned = x[:, T:].clone()
    poisoned[0, 1, 0] = math.nan
    infinite = torch.zeros(T, 2 * T, dtype=F64)
    infinite[1, T + 1] = math.inf
    for part, mask in ((poisoned, None), (x[:, T:], infinite)):
        with pytest.raises(ValueError, match="inf or NaN"):
            module(part, cache, mask)
        assert cache.length == T
        assert torch.equal(cache._key, before[1])
        assert torch.equal(cache._value, before[2])
    close(module(x[:, T:], cache), full[:, T:])


def test_a_mask_of_three_axes_is_refused():
    """With B = H = 2, (B, T, S) would be read as one mask for each head."""
    module = CachedAttention(8, 2).double()
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"attn_mask \(2, 3, 3\) has three axes"):
        module(random(2, 3, 8), attn_mask=mask)
    assert module(random(2, 3, 8), attn_mask=mask[:, None]).shape == (2, 3, 8)


def test_wrong_sizes_of_layers_are_named():
    with pytest.raises(ValueError, match="num_kv_heads 4 must divide num_heads 6"):
        CachedAttention(12, 6, 4)
    with pytest.raises(ValueError, match="embed_dim 10 is not divisible by num_heads 6"):
        CachedAttention(10, 6, 3)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        CachedAttention(12, 6, 3, window=0)
    with pytest.raises(ValueError, match="head_dim must be even"):
        CachedAttention(12, 4)


# Generation


class Tiny(nn.Module):
    """One layer that fills the list it is given, and counts the tokens it is called with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, C)
        self.attention = CachedAttention(C, H, G, head_dim=D)
        self.calls = []

    def forward(self, ids, cache=None):
        self.calls.append(ids.shape[1])
        if cache is not None and not cache:
            cache.append(KVCache(ids.shape[0], G, 20, D, dtype=F64))
        x = self.embedding(ids)
        x = x + self.attention(x, cache[0] if cache else None)
        return x @ self.embedding.weight.T.roll(3, 1)


def test_generation_with_the_cache_feeds_one_token_at_a_time():
    model, ids = Tiny().double(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    out = generate_greedy(model, ids, 4)
    assert model.calls == [3, 1, 1, 1]
    assert out.shape == (2, 7)
    assert torch.equal(out[:, :3], ids)
    model.calls.clear()
    assert torch.equal(generate_greedy(model, ids, 4, use_cache=False), out)
    assert model.calls == [3, 4, 5, 6]


def test_generation_takes_the_most_probable_token():
    def next_is_double(ids, cache=None):
        return torch.nn.functional.one_hot(ids * 2 % 7, 7).double()

    assert generate_greedy(next_is_double, torch.tensor([[1]]), 4).tolist() == [[1, 2, 4, 1, 2]]
    assert generate_greedy(next_is_double, torch.tensor([[3]]), 0).tolist() == [[3]]


def test_of_equal_logits_the_first_wins():
    def flat(ids, cache=None):
        return torch.zeros(*ids.shape, 5)

    assert generate_greedy(flat, torch.tensor([[3]]), 2).tolist() == [[3, 0, 0]]


def test_generation_keeps_no_graph():
    enabled = []

    def model(ids, cache=None):
        enabled.append(torch.is_grad_enabled())
        return torch.zeros(*ids.shape, 5)

    generate_greedy(model, torch.tensor([[1, 2]]), 2)
    assert enabled == [False, False]
    assert torch.is_grad_enabled()


def test_wrong_calls_of_generation_are_named():
    ids = torch.tensor([[1, 2]])
    with pytest.raises(TypeError, match=r"input_ids must hold integers, got torch\.float32"):
        generate_greedy(Tiny(), ids.float(), 1)
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\), got \(2,\)"):
        generate_greedy(Tiny(), ids[0], 1)
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\) with T >= 1, got \(1, 0\)"):
        generate_greedy(Tiny(), ids[:, :0], 1)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, got -1"):
        generate_greedy(Tiny(), ids, -1)
    with pytest.raises(
        ValueError, match=r"logits must be \(B, t, V\) beside ids \(1, 2\), got \(1, 5\)"
    ):
        generate_greedy(lambda ids, cache=None: torch.zeros(1, 5), ids, 1)
    with pytest.raises(ValueError, match="a logit is NaN"):
        generate_greedy(lambda ids, cache=None: torch.full((1, 2, 5), math.nan), ids, 1)
    at_the_end = torch.tensor([0.0, math.nan]).view(1, 2, 1).expand(1, 2, 5)
    with pytest.raises(ValueError, match="a logit is NaN"):
        generate_greedy(lambda ids, cache=None: at_the_end, ids, 1)


# Counts


def test_bytes_of_known_models():
    """Llama-2 7B: 2 * 32 * 32 * 128 * 2 = 524288 a token, 2 GiB at 4096. Llama-3 8B: a quarter."""
    assert kv_cache_bytes(32, 32, 128, 1) == 524288
    assert kv_cache_bytes(32, 32, 128, 4096) == 2 * 2**30
    assert kv_cache_bytes(32, 8, 128, 1) == 131072
    assert kv_cache_bytes(80, 8, 128, 131072, 3, 1) == 3 * 20 * 2**30
    assert kv_cache_bytes(1, 1, 1, 0) == 0


def test_bytes_equal_those_of_the_buffers():
    for dtype, width in ((torch.bfloat16, 2), (torch.float32, 4)):
        held = sum(KVCache(B, G, 7, D, dtype=dtype).nbytes() for _ in range(5))
        assert kv_cache_bytes(5, G, D, 7, B, width) == held


def pairs_by_loop(prompt, generated, cached):
    lengths = range(prompt, prompt + generated)  # tokens known at each forward pass
    count = 0
    for step, length in enumerate(lengths):
        first = length - 1 if cached and step else 0
        count += sum(1 for i, j in itertools.product(range(first, length), range(length)) if j <= i)
    return count


def test_pairs_by_hand():
    """Prompt 2: pairs (0,0), (1,0), (1,1); the third token reads 3 keys, or all 6 pairs again."""
    assert attention_pairs(2, 1, cached=True) == attention_pairs(2, 1, cached=False) == 3
    assert attention_pairs(2, 2, cached=True) == 6
    assert attention_pairs(2, 2, cached=False) == 9


@law
@given(prompt=st.integers(1, 9), generated=st.integers(1, 9), cached=st.booleans())
def test_pairs_equal_an_enumeration(prompt, generated, cached):
    expected = pairs_by_loop(prompt, generated, cached)
    assert attention_pairs(prompt, generated, cached=cached) == expected


def test_wrong_counts_are_named():
    with pytest.raises(ValueError, match="seq_len must be at least 0, got -1"):
        kv_cache_bytes(1, 1, 1, -1)
    with pytest.raises(ValueError, match="num_kv_heads must be at least 1, got 0"):
        kv_cache_bytes(1, 0, 1, 1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        kv_cache_bytes(1, 1, 1, 1, batch_size=0)
    for name in ("prompt_len", "new_tokens"):
        sizes = {"prompt_len": 1, "new_tokens": 1, name: 0}
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            attention_pairs(**sizes, cached=True)
