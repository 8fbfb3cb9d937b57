"""Grouped-query attention: the head mapping, its two ends, gradients, conversion and counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmref.attention.grouped_query import (
    GroupedQueryAttention,
    decode_intensity,
    grouped_query_attention,
    grouped_query_attention_backward,
    kv_head_index,
    mean_pool_kv_weight,
    repeat_kv,
    tie_kv_weight,
)
from llmref.attention.scaled_dot_product import (
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from tests.tensors import close, random

B, H, G, T, S, D, DV = 2, 6, 3, 5, 7, 4, 8
MASKS = ["none", "bool", "integer", "float", "causal", "bool and causal", "float and causal"]
law = settings(deadline=None, max_examples=25)


def inputs(heads=H, groups=G, dtype=torch.float64):
    return (
        random(B, heads, T, D, seed=1, dtype=dtype),
        random(B, groups, S, D, seed=2, dtype=dtype),
        random(B, groups, S, DV, seed=3, dtype=dtype),
    )


def masking(kind, heads=H):
    """Query 1 of every head may attend to nothing under 'bool'."""
    allowed = torch.rand(B, heads, T, S, generator=torch.Generator().manual_seed(4)) < 0.6
    allowed[..., 1, :] = False
    masks = {
        "bool": allowed,
        "integer": allowed.long(),
        "float": random(B, heads, T, S, seed=5),
    }
    return {"attn_mask": masks.get(kind.split()[0]), "is_causal": "causal" in kind}


def one_head_at_a_time(query, key, value, attn_mask=None, is_causal=False, scale=None):
    """The definition: head h reads key/value head floor(h / r)."""
    heads, groups = query.shape[1], key.shape[1]
    outputs = []
    for h in range(heads):
        g = h // (heads // groups)
        mask = None if attn_mask is None else attn_mask[:, h]
        outputs.append(
            scaled_dot_product_attention(
                query[:, h], key[:, g], value[:, g], mask, 0.0, is_causal, scale
            )
        )
    return torch.stack(outputs, 1)


# The head mapping


def test_neighbouring_heads_share():
    """H = 6, G = 2: r = 3, so heads 0, 1, 2 read 0 and heads 3, 4, 5 read 1."""
    assert kv_head_index(6, 2).tolist() == [0, 0, 0, 1, 1, 1]
    assert kv_head_index(6, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert kv_head_index(6, 1).tolist() == [0] * 6


def test_copies_of_one_head_stand_side_by_side():
    x = torch.arange(2.0).reshape(1, 2, 1, 1)
    assert repeat_kv(x, 3).flatten().tolist() == [0, 0, 0, 1, 1, 1]


def test_repeat_is_the_index_for_every_number_of_heads():
    for groups in range(1, 9):
        for ratio in range(1, 5):
            x = torch.arange(groups).reshape(1, groups, 1, 1)
            index = kv_head_index(groups * ratio, groups)
            assert repeat_kv(x, ratio).flatten().tolist() == index.tolist()


def test_repeated_copies_do_not_share_memory_with_the_input():
    x = random(1, 2, 3, 4)
    copied = repeat_kv(x, 2)
    copied[:, 0] = 0.0
    assert x.abs().min() > 0


# The attention


def test_two_heads_of_one_group_read_the_same_value():
    """One key: every weight is 1. Two groups with values 5 and 7, four heads: 5, 5, 7, 7."""
    query, key = torch.zeros(1, 4, 1, 2), torch.ones(1, 2, 1, 2)
    value = torch.tensor([5.0, 7.0]).reshape(1, 2, 1, 1)
    assert grouped_query_attention(query, key, value).flatten().tolist() == [5, 5, 7, 7]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [None, 0.7])
def test_grouped_attention_equals_the_definition_one_head_at_a_time(kind, scale):
    tensors, options = inputs(), masking(kind)
    close(
        grouped_query_attention(*tensors, scale=scale, **options),
        one_head_at_a_time(*tensors, scale=scale, **options),
    )


def test_as_many_groups_as_heads_is_multi_head_attention():
    tensors = inputs(groups=H)
    for kind in MASKS:
        options = masking(kind)
        expected = scaled_dot_product_attention(*tensors, **options)
        assert torch.equal(grouped_query_attention(*tensors, **options), expected), kind


def test_one_group_is_multi_query_attention():
    query, key, value = inputs(groups=1)
    for h in range(H):
        expected = scaled_dot_product_attention(query[:, h], key[:, 0], value[:, 0])
        close(grouped_query_attention(query, key, value)[:, h], expected)


def test_tiled_heads_are_another_function():
    query, key, value = inputs()
    tiled = scaled_dot_product_attention(query, key.repeat(1, 2, 1, 1), value.repeat(1, 2, 1, 1))
    assert (tiled - grouped_query_attention(query, key, value)).abs().max() > 0.5


def test_masks_broadcast_over_batch_and_heads():
    tensors = inputs()
    for shape in [(S,), (T, S), (T, 1), (B, 1, 1, S), (1, H, T, 1), (B, H, T, S)]:
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.7
        expected = one_head_at_a_time(*tensors, mask.expand(B, H, T, S))
        close(grouped_query_attention(*tensors, mask), expected)


def test_an_empty_row_reads_nothing():
    out = grouped_query_attention(*inputs(), **masking("bool"))
    assert torch.equal(out[:, :, 1], torch.zeros(B, H, DV, dtype=torch.float64))


@law
@given(
    groups=st.integers(1, 4),
    ratio=st.integers(1, 4),
    length=st.integers(1, 5),
    causal=st.booleans(),
)
def test_grouped_attention_equals_attention_over_repeated_heads(groups, ratio, length, causal):
    query = random(2, groups * ratio, length, 3, seed=1)
    key, value = random(2, groups, length + 2, 3, seed=2), random(2, groups, length + 2, 2, seed=3)
    expected = scaled_dot_product_attention(
        query, repeat_kv(key, ratio), repeat_kv(value, ratio), is_causal=causal
    )
    close(grouped_query_attention(query, key, value, is_causal=causal), expected)


@law
@given(seed=st.integers(0, 10**6))
def test_permuting_the_heads_of_one_group_permutes_its_outputs(seed):
    query, key, value = inputs()
    order = torch.randperm(H // G, generator=torch.Generator().manual_seed(seed))
    heads = torch.cat([order, torch.arange(H // G, H)])
    out = grouped_query_attention(query, key, value)
    close(grouped_query_attention(query[:, heads], key, value), out[:, heads])


def test_keys_and_values_are_not_copied():
    """The product over 64 heads of one group saves no tensor of 64 times the keys."""
    query, key, value = random(1, 64, 1, 4), random(1, 1, 500, 4), random(1, 1, 500, 4)
    sizes = []
    key.requires_grad_()

    def note(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        grouped_query_attention(query, key, value)
    assert sizes
    assert max(sizes) <= 64 * 500  # the scores; a repeated key would have 64 * 500 * 4


def test_strided_tensors_give_the_same_result():
    query, key, value = inputs()
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value)]
    close(grouped_query_attention(*strided), grouped_query_attention(query, key, value))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_lower_precision_rounds_once(dtype, atol):
    tensors = inputs(dtype=dtype)
    out = grouped_query_attention(*tensors, is_causal=True)
    assert out.dtype == dtype
    close(
        out.double(),
        grouped_query_attention(*(x.double() for x in tensors), is_causal=True),
        atol=atol,
    )


# Gradients


@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("kind", MASKS)
def test_backward_equals_autograd(kind, softcap):
    tensors = [x.requires_grad_() for x in inputs()]
    options, grad = masking(kind) | {"softcap": softcap}, random(B, H, T, DV, seed=9)
    expected = torch.autograd.grad(
        grouped_query_attention(*tensors, scale=0.7, **options), tensors, grad
    )
    actual = grouped_query_attention_backward(grad, *tensors, scale=0.7, **options)
    for a, b in zip(actual, expected, strict=True):
        close(a, b)


def test_a_soft_cap_acts_on_every_head():
    query, key, value = inputs()
    repeated = (repeat_kv(key, H // G), repeat_kv(value, H // G))
    close(
        grouped_query_attention(query, key, value, is_causal=True, softcap=0.8),
        scaled_dot_product_attention(query, *repeated, is_causal=True, softcap=0.8),
    )


def test_gradient_of_a_shared_head_is_the_sum_over_its_readers():
    query, key, value = inputs()
    grad = random(B, H, T, DV, seed=9)
    dq, dk, dv = grouped_query_attention_backward(grad, query, key, value)
    repeated = (repeat_kv(key, H // G), repeat_kv(value, H // G))
    rq, rk, rv = scaled_dot_product_attention_backward(grad, query, *repeated)
    close(dq, rq)
    for shared, copies in ((dk, rk), (dv, rv)):
        by_hand = torch.stack([copies[:, 2 * g] + copies[:, 2 * g + 1] for g in range(G)], 1)
        close(shared, by_hand)


def test_gradcheck():
    tensors = [x[:1, :, :3].clone().requires_grad_() for x in inputs()]
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    assert torch.autograd.gradcheck(lambda *x: grouped_query_attention(*x, mask), tensors)


# The module


def test_module_is_the_function_between_four_projections():
    torch.manual_seed(0)
    module = GroupedQueryAttention(10, 4, 2, head_dim=3, bias=True).double()
    x, mask = random(B, T, 10), torch.ones(T, T, dtype=torch.bool).tril()
    out = module(x, mask)

    def heads(layer, count):
        return torch.stack((x @ layer.weight.T + layer.bias).split(3, -1), 1)[:, :count]

    mixed = one_head_at_a_time(
        heads(module.q_proj, 4),
        heads(module.k_proj, 2),
        heads(module.v_proj, 2),
        mask.expand(B, 4, T, T),
    )
    expected = torch.cat(list(mixed.unbind(1)), -1) @ module.o_proj.weight.T + module.o_proj.bias
    close(out, expected)
    close(module(x, is_causal=True), expected)
    close(module(x), module(x, is_causal=False))


def test_module_without_kv_heads_is_multi_head_and_has_no_bias():
    module = GroupedQueryAttention(12, 4)
    assert module.num_kv_heads == 4
    assert {name for name, _ in module.named_parameters()} == {
        f"{name}_proj.weight" for name in "qkvo"
    }
    assert module.k_proj.weight.shape == (12, 12)


def test_key_and_value_parameters_shrink_by_the_ratio():
    """C = 12, H = 4, D = 3: q and o 144 each; k and v 144 each for G = 4, 36 each for G = 1."""
    counts = [sum(p.numel() for p in GroupedQueryAttention(12, 4, g).parameters()) for g in (4, 1)]
    assert counts == [4 * 144, 2 * 144 + 2 * 36]


def test_tied_multi_head_module_computes_the_same():
    torch.manual_seed(0)
    grouped = GroupedQueryAttention(12, 6, 3, bias=True).double()
    full = GroupedQueryAttention(12, 6, bias=True).double()
    state = dict(grouped.state_dict())
    for name in ("k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"):
        state[name] = tie_kv_weight(state[name], 3, 6)
    full.load_state_dict(state)
    x = random(B, T, 12)
    close(full(x, is_causal=True), grouped(x, is_causal=True))


# Conversion


def test_tied_weight_repeats_blocks_of_rows():
    """Two heads of D = 2, rows (0, 1) and (2, 3): four heads are (0, 1), (0, 1), (2, 3), (2, 3)."""
    weight = torch.arange(4.0)[:, None]
    assert tie_kv_weight(weight, 2, 4).flatten().tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_pooled_weight_is_the_mean_of_neighbouring_heads():
    """Heads (0, 1), (4, 5), (10, 20), (30, 40): means (2, 3) and (20, 30)."""
    weight = torch.tensor([0.0, 1.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0])
    assert mean_pool_kv_weight(weight, 4, 2).tolist() == [2, 3, 20, 30]


@law
@given(groups=st.integers(1, 4), ratio=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_pooling_undoes_tying(groups, ratio, seed):
    weight = random(groups * 2, 3, seed=seed)
    tied = tie_kv_weight(weight, groups, groups * ratio)
    close(mean_pool_kv_weight(tied, groups * ratio, groups), weight)


def test_pooling_in_bfloat16_adds_in_float32():
    """256 + 1 is 256 in bfloat16; the mean 129 of 256, 1, 2 and 257 is exact."""
    weight = torch.tensor([256.0, 1.0, 2.0, 256.0], dtype=torch.bfloat16)
    assert mean_pool_kv_weight(weight, 4, 1).item() == torch.tensor(515 / 4).bfloat16().item()


def test_gradients_flow_through_the_conversion():
    weight = random(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: mean_pool_kv_weight(w, 6, 2), weight)
    assert torch.autograd.gradcheck(lambda w: tie_kv_weight(w, 3, 6), weight)


# Counts


def test_intensity_of_known_models():
    """bf16: H / G. 32 heads over 8: 4; over 32: 1; over 1: 32. One byte: twice that."""
    assert decode_intensity(32, 8, 2) == 4
    assert decode_intensity(32, 32, 2) == 1
    assert decode_intensity(32, 1, 2) == 32
    assert decode_intensity(64, 8, 1) == 16


@law
@given(
    groups=st.integers(1, 8), ratio=st.integers(1, 8), batch=st.integers(1, 9), n=st.integers(1, 99)
)
def test_intensity_is_the_ratio_of_counts_for_every_batch_and_context(groups, ratio, batch, n):
    size, width = 4, 2
    flops = 2 * 2 * batch * groups * ratio * n * size
    read = 2 * batch * groups * n * size * width
    assert math.isclose(decode_intensity(groups * ratio, groups, width), flops / read)


# Errors


@pytest.mark.parametrize(("heads", "groups"), [(6, 4), (2, 3), (0, 1), (4, 0), (4, -2)])
def test_groups_must_divide_heads(heads, groups):
    message = (
        "must be at least 1, got"
        if min(heads, groups) < 1
        else f"num_kv_heads {groups} must divide"
    )
    for call in (
        lambda: kv_head_index(heads, groups),
        lambda: decode_intensity(heads, groups, 2),
        lambda: mean_pool_kv_weight(torch.zeros(12, 2), heads, groups),
        lambda: tie_kv_weight(torch.zeros(12, 2), groups, heads),
        lambda: GroupedQueryAttention(12, heads, groups),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if heads > 0 and groups > 0:
        query, key = torch.zeros(1, heads, T, D), torch.zeros(1, groups, S, D)
        with pytest.raises(ValueError, match=message):
            grouped_query_attention(query, key, key)
        with pytest.raises(ValueError, match=message):
            grouped_query_attention_backward(query, query, key, key)


def test_wrong_shapes_are_named():
    query, key, value = inputs()
    with pytest.raises(ValueError, match=r"query must be \(B, H, T, D\), got \(6, 5, 4\)"):
        grouped_query_attention(query[0], key, value)
    with pytest.raises(
        ValueError,
        match=r"value must be \(B, G, S, Dv\) beside query \(2, 6, 5, 4\), key \(2, 3, 7",
    ):
        grouped_query_attention(query, key, value[:, :1])
    with pytest.raises(
        ValueError,
        match=r"key must be \(B, G, S, D\) beside query \(2, 6, 5, 4\), got \(1, 3, 7, 4\)",
    ):
        grouped_query_attention(query, key[:1], value[:1])
    with pytest.raises(
        ValueError,
        match=r"value must be \(B, G, S, Dv\) beside query \(2, 6, 5, 4\), key \(2, 3, 7",
    ):
        grouped_query_attention(query, key, value[:, :, :-1])
    with pytest.raises(
        ValueError,
        match=r"key must be \(B, G, S, D\) beside query \(2, 6, 5, 4\), got \(2, 3, 7, 3\)",
    ):
        grouped_query_attention(query, key[..., :-1], value)
    with pytest.raises(
        ValueError,
        match=r"grad_output must be \(B, H, T, Dv\) = \(2, 6, 5, 8\) beside query \(2, 6",
    ):
        grouped_query_attention_backward(query, query, key, value)
    with pytest.raises(ValueError, match=r"x must be \(B, G, T, D\), got \(2, 3, 7\)"):
        repeat_kv(key[..., 0], 2)
    with pytest.raises(ValueError, match="n_rep must be at least 1, got 0"):
        repeat_kv(key, 0)


def test_wrong_masks_are_named():
    tensors = inputs()
    with pytest.raises(ValueError, match=r"the mask \(3, 7\) does not broadcast to the scores"):
        grouped_query_attention(*tensors, torch.ones(3, S, dtype=torch.bool))
    with pytest.raises(ValueError, match="does not broadcast to the scores"):
        grouped_query_attention(*tensors, torch.ones(B, G, T, S, dtype=torch.bool))
    with pytest.raises(ValueError, match="a mask holds zeros and ones only"):
        grouped_query_attention(*tensors, torch.full((T, S), 2))
    query, key, value = tensors
    with pytest.raises(
        ValueError, match="causal attention needs at least as many keys as queries, got 3 keys"
    ):
        grouped_query_attention(query, key[:, :, :3], value[:, :, :3], is_causal=True)


def test_wrong_types_are_named():
    query, key, value = inputs()
    with pytest.raises(TypeError, match="needs floating-point tensors of one dtype"):
        grouped_query_attention(query.float(), key, value)
    with pytest.raises(TypeError, match="needs floating-point tensors of one dtype"):
        grouped_query_attention(query.long(), key.long(), value.long())
    with pytest.raises(TypeError, match=r"weight must be floating point, got torch\.int64"):
        mean_pool_kv_weight(torch.zeros(4, 2, dtype=torch.long), 4, 2)


def test_wrong_sizes_of_weights_are_named():
    with pytest.raises(ValueError, match=r"of 4 heads, got \(6, 2\)"):
        mean_pool_kv_weight(torch.zeros(6, 2), 4, 2)
    with pytest.raises(ValueError, match=r"of 4 heads, got \(6, 2\)"):
        tie_kv_weight(torch.zeros(6, 2), 4, 8)
    with pytest.raises(ValueError, match=r"of 2 heads, got \(2, 2, 2\)"):
        tie_kv_weight(torch.zeros(2, 2, 2), 2, 4)
    with pytest.raises(ValueError, match="embed_dim 10 is not divisible by num_heads 4"):
        GroupedQueryAttention(10, 4, 2)
    with pytest.raises(ValueError, match="bytes_per_element must be positive and finite, got 0"):
        decode_intensity(4, 2, 0)


def test_module_weights_are_linear_layers():
    module = GroupedQueryAttention(12, 4, 2)
    assert all(isinstance(getattr(module, f"{name}_proj"), nn.Linear) for name in "qkvo")


def test_a_mask_of_three_axes_is_refused_by_the_layer():
    """With B = H = 2, (B, T, S) would be read as one mask for each head."""
    layer, x = GroupedQueryAttention(8, 2, 1).double(), random(2, 3, 8)
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"attn_mask \(2, 3, 3\) has three axes"):
        layer(x, mask)
    close(layer(x, mask[:, None]), layer(x))


def test_a_mask_of_three_axes_is_refused_by_the_function():
    """B = H = 2: with (B, T, S) read as heads the output would be off, without an error."""
    query, key, value = random(2, 2, 3, 4), random(2, 1, 5, 4, seed=1), random(2, 1, 5, 4, seed=2)
    mask = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(3)) < 0.6
    for call in (
        lambda: grouped_query_attention(query, key, value, mask),
        lambda: grouped_query_attention_backward(query, query, key, value, mask),
    ):
        with pytest.raises(ValueError, match=r"attn_mask \(2, 3, 5\) has three axes"):
            call()
    by_sequence = [
        scaled_dot_product_attention(query[b, h], key[b, 0], value[b, 0], mask[b])
        for b in range(2)
        for h in range(2)
    ]
    close(
        grouped_query_attention(query, key, value, mask[:, None]).flatten(0, 1),
        torch.stack(by_sequence),
    )
