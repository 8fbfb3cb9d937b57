"""Latent attention: values by hand, both forms against loops, the cache, costs, and errors."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmref.attention.grouped_query import grouped_query_attention
from llmref.attention.latent import (
    LatentAttention,
    LatentCache,
    absorbed_latent_attention,
    latent_attention,
    latent_attention_flops,
    latent_from_grouped,
)
from llmref.components.rope import rope_matrix
from tests.tensors import close, f64, random

FORMS = [latent_attention, absorbed_latent_attention]
both_forms = pytest.mark.parametrize("form", FORMS)
B, H, T, S, D, R, M, V = 2, 3, 4, 7, 5, 2, 6, 8


def inputs(B=B, H=H, T=T, S=S, D=D, R=R, M=M, V=V):
    shapes = [(B, H, T, D), (B, H, T, R), (B, S, M), (B, S, R), (H, D, M), (H, V, M)]
    return [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def by_loops(q, q_rope, c, k_rope, up_k, up_v, allowed, scale):
    """Keys and values written out, one query of one head of one sequence after the other."""
    out = torch.zeros(*q.shape[:3], up_v.shape[1], dtype=q.dtype)
    for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        seen = [s for s in range(c.shape[1]) if allowed[b, h, t, s]]
        scores = [
            scale * (q[b, h, t] @ (up_k[h] @ c[b, s]) + q_rope[b, h, t] @ k_rope[b, s])
            for s in seen
        ]
        total = sum(math.exp(score) for score in scores)
        for s, score in zip(seen, scores, strict=True):
            out[b, h, t] += math.exp(score) / total * (up_v[h] @ c[b, s])
    return out


@both_forms
def test_a_query_worked_by_hand(form):
    """D = 3 and Dr = 1, so scale 1/2; scores 2 * 0 / 2 = 0 and 2 log 3 / 2; 8/4 + 3 * 4/4 = 5."""
    query, rope = f64(2, 0, 0).view(1, 1, 1, 3), f64(0).view(1, 1, 1, 1)
    latent = f64(0, 8, math.log(3), 4).view(1, 2, 2)
    key_up, value_up = f64(1, 0, 0, 0, 0, 0).view(1, 3, 2), f64(0, 1).view(1, 1, 2)
    out = form(query, rope, latent, f64(0, 0).view(1, 2, 1), key_up, value_up)
    close(out, f64(5).view(1, 1, 1, 1))


@both_forms
@pytest.mark.parametrize("scale", [None, 0.3, -0.2])
def test_forms_equal_a_loop_under_a_mask(form, scale):
    given, mask = inputs(), random(B, H, T, S) > -0.5
    expected = by_loops(*given, mask, (D + R) ** -0.5 if scale is None else scale)
    close(form(*given, mask, scale=scale), expected)


@both_forms
def test_causal_is_aligned_at_the_last_key(form):
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T).expand(B, H, T, S)
    close(form(*inputs(), is_causal=True), by_loops(*inputs(), mask, (D + R) ** -0.5))


@both_forms
def test_a_floating_point_mask_is_added(form):
    given, bias = inputs(), random(T, S)
    chosen = bias > 0
    added = torch.where(chosen, 0.0, -math.inf).double()
    close(form(*given, added), form(*given, chosen))
    assert not torch.allclose(form(*given, bias), form(*given))


@both_forms
def test_nothing_to_read_gives_zero_and_finite_gradients(form):
    given = [each.requires_grad_() for each in inputs()]
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[1] = False
    out = form(*given, mask)
    assert (out[:, :, 1] == 0).all()
    out.sum().backward()
    assert all(each.grad.isfinite().all() for each in given)
    assert (form(*inputs(S=0)) == 0).all()


@pytest.mark.parametrize(
    "sizes",
    [{"R": 0}, {"M": D}, {"M": 1}, {"H": 1}, {"S": 1}, {"D": 1}, {"T": 0}, {"B": 0}],
    ids=str,
)
def test_absorbed_equals_expanded_at_the_edges(sizes):
    given = inputs(**sizes)
    close(absorbed_latent_attention(*given), latent_attention(*given))


def test_gradients_of_both_forms_agree_and_are_right():
    given = [each.requires_grad_() for each in inputs(B=1, H=2, T=2, S=3, D=2, R=2, M=3, V=2)]
    found = [
        torch.autograd.grad(form(*given, is_causal=True).square().sum(), given) for form in FORMS
    ]
    for one, other in zip(*found, strict=True):
        close(one, other)
    assert torch.autograd.gradcheck(
        lambda *each: absorbed_latent_attention(*each, is_causal=True), given
    )


@both_forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(form, dtype):
    given = [each.to(dtype) for each in inputs()]
    close(form(*given), form(*(each.float() for each in given)).to(dtype))


@both_forms
def test_inputs_are_unchanged(form):
    given, before = inputs(), inputs()
    form(*given, torch.ones(T, S, dtype=torch.bool))
    for one, other in zip(given, before, strict=True):
        assert (one == other).all()


@both_forms
@pytest.mark.parametrize(
    ("at", "shape", "message"),
    [
        (1, (B, H, T + 1, R), r"query_rope must be .*got \(2, 3, 5, 2\); B = 2, H = 3, T = 4"),
        (2, (B, S, M, 1), r"latent must be \(B, S, Dc\)"),
        (3, (B, S, R + 1), r"key_rope must be \(B, S, Dr\) = \(2, 7, 2\)"),
        (4, (H, M, D), r"key_up must be \(H, D, Dc\) = \(3, 5, 6\)"),
        (5, (H + 1, V, M), r"value_up must be \(H, Dv, Dc\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(form, at, shape, message):
    given = inputs()
    given[at] = random(*shape)
    with pytest.raises(ValueError, match=message):
        form(*given)


@both_forms
def test_sizes_of_zero_dtypes_and_masks_are_refused(form):
    with pytest.raises(ValueError, match=r"query must be .* with D >= 1"):
        form(*inputs(D=0))
    with pytest.raises(ValueError, match=r"latent must be .* with Dc >= 1"):
        form(*inputs(M=0))
    with pytest.raises(TypeError, match="one dtype"):
        form(*inputs()[:5], inputs()[5].float())
    with pytest.raises(TypeError, match="one dtype"):
        form(*(each.long() for each in inputs()))
    with pytest.raises(ValueError, match="three axes"):
        form(*inputs(), torch.ones(B, T, S, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least as many keys as queries"):
        form(*inputs(T=S + 1), is_causal=True)
    with pytest.raises(ValueError, match="scale"):
        form(*inputs(), scale=math.inf)


def test_products_that_overflow_are_refused():
    q, q_rope, c, k_rope, up_k, up_v = (each.float() for each in inputs())
    with pytest.raises(ValueError, match="query must be finite once key_up is absorbed"):
        absorbed_latent_attention(q * 1e30, q_rope, c, k_rope, up_k * 1e30, up_v)
    with pytest.raises(ValueError, match="latent must be finite once key_up is applied"):
        latent_attention(q, q_rope, c * 1e30, k_rope, up_k * 1e30, up_v)


C, LR = 11, 4


def layer(**options):
    torch.manual_seed(0)
    sizes = {"head_dim": D, "rope_dim": LR, "value_dim": V, "latent_dim": M} | options
    made = LatentAttention(C, H, **sizes).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3).add_(0.1)
    return made


def layer_by_loops(made, x):
    """The layer of one sequence, token by token and head by head."""
    q_all = made.q_proj.weight.view(H, D + LR, C)
    up = made.kv_b_proj.weight.view(H, D + V, M)
    inv_freq, _ = made.rope.inv_freq()
    turn = [rope_matrix(float(s), inv_freq, layout=made.rope.layout) for s in range(len(x))]
    heads = torch.zeros(len(x), H, V, dtype=torch.float64)
    down = x @ made.kv_a_proj_with_mqa.weight.T
    c = down[:, :M] / (down[:, :M].square().mean(-1, keepdim=True) + 1e-6).sqrt()
    c = c * made.kv_a_layernorm.weight
    for t in range(len(x)):
        for h in range(H):
            query, rope = (q_all[h] @ x[t]).split([D, LR])
            scores = [
                query @ up[h, :D] @ c[s] + (turn[t] @ rope) @ (turn[s] @ down[s, M:])
                for s in range(t + 1)
            ]
            weights = (torch.stack(scores) / math.sqrt(D + LR)).softmax(0)
            heads[t, h] = weights @ (c[: t + 1] @ up[h, D:].T)
    return heads.flatten(1) @ made.o_proj.weight.T


@pytest.mark.parametrize("absorbed", [True, False])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
@torch.no_grad()
def test_layer_equals_a_loop(absorbed, layout):
    made, x = layer(rope_layout=layout), random(1, 5, C)
    close(made(x, absorbed=absorbed)[0], layer_by_loops(made, x[0]))


@pytest.mark.parametrize("absorbed", [True, False])
@pytest.mark.parametrize("options", [{}, {"query_latent_dim": 9}, {"rope_dim": 0}], ids=str)
@pytest.mark.parametrize("sizes", [[1] * 4, [2, 1, 1]], ids=str)
@torch.no_grad()
def test_chunks_with_a_cache_equal_one_pass(absorbed, options, sizes):
    made, x, bias = layer(**options), random(B, 4, C), random(4, 4, seed=1)
    full = made(x, attn_mask=bias, absorbed=False)
    cache = LatentCache(B, 4, M, made.rope_dim, dtype=torch.float64)
    found, start = [], 0
    for part in x.split(sizes, 1):
        stop = start + part.shape[1]
        found.append(made(part, cache, bias[start:stop, :stop], absorbed=absorbed))
        start = stop
    close(torch.cat(found, 1), full)
    assert cache.length == cache.max_len == 4


@torch.no_grad()
def test_a_cache_cut_back_is_as_if_nothing_had_been_drafted():
    made, x = layer(), random(B, 6, C)
    cache = LatentCache(B, 6, M, LR, dtype=torch.float64)
    made(x[:, :3], cache, absorbed=True)
    made(random(B, 2, C, seed=5), cache, absorbed=True)
    cache.truncate(3)
    close(made(x[:, 3:], cache, absorbed=True), made(x, absorbed=False)[:, 3:])


@torch.no_grad()
def test_a_call_that_raises_leaves_the_cache_as_it_was():
    made, x = layer(), random(B, 3, C)
    cache = LatentCache(B, 5, M, LR, dtype=torch.float64)
    made(x[:, :2], cache, absorbed=True)
    held = [part.clone() for part in cache.update(x[:, :0, :M], x[:, :0, :LR])]
    wrong = [
        (x * math.nan, None, ValueError),
        (x, torch.ones(3, 4), ValueError),
        (x, torch.ones(B, 3, 5), ValueError),
        (random(B, 4, C), None, ValueError),
    ]
    for tokens, mask, error in wrong:
        with pytest.raises(error):
            made(tokens, cache, mask, absorbed=True)
        assert cache.length == 2
    for before, after in zip(held, cache.update(x[:, :0, :M], x[:, :0, :LR]), strict=True):
        assert (before == after).all()


def test_parameters_worked_by_hand():
    """2 * 4 + 4 * 2 * 3 for queries, 2 * 5 down, 3 * 2 * 2 up, 2 * 2 out, and 4 + 3 gains."""
    made = LatentAttention(
        2, 2, head_dim=1, rope_dim=2, value_dim=1, latent_dim=3, query_latent_dim=4
    )
    assert sum(weight.numel() for weight in made.parameters()) == 65


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope_dim": 3}, "rope_dim must be even .*, got 3"),
        ({"rope_dim": -2}, "rope_dim must be at least 0, got -2"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"value_dim": 0}, "value_dim must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"query_latent_dim": 0}, "query_latent_dim must be at least 1, got 0"),
        ({"eps": -1.0}, "eps must be at least 0"),
        ({"rope_layout": "other"}, "layout must be one of"),
    ],
)
def test_layers_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_the_cache_holds_what_it_says():
    cache = LatentCache(2, 5, 6, 4, dtype=torch.bfloat16)
    assert cache.nbytes() == 2 * 5 * (6 + 4) * 2
    c, k = torch.ones(2, 3, 6).bfloat16(), torch.zeros(2, 3, 4).bfloat16()
    latents, keys = cache.update(c, k)
    assert latents.shape == (2, 3, 6)
    assert keys.shape == (2, 3, 4)
    latents, keys = cache.update(2 * c[:, :1], k[:, :1])
    assert latents[:, :, 0].tolist() == [[1, 1, 1, 2]] * 2
    assert LatentCache(1, 2, 3, 0).nbytes() == 2 * 3 * 4


def test_chunks_that_do_not_fit_the_cache_are_refused():
    cache = LatentCache(2, 5, 6, 4, dtype=torch.float64)
    c, k = random(2, 3, 6), random(2, 3, 4)
    cache.update(c, k)
    wrong = [
        (c, k, ValueError, "holds 3 of 5 positions: 3 more do not fit"),
        (c[:, :1, :5], k[:, :1], ValueError, r"latent must be \(B, t, Dc\)"),
        (c[:, :1], k[:, :2], ValueError, r"key_rope must be \(B, t, Dr\)"),
        (c[:, :1], k[:, :1, :3], ValueError, r"key_rope must be \(B, t, Dr\)"),
        (c[:, :1].float(), k[:, :1], TypeError, "latent must be torch.float64"),
        (c[:, :1], k[:, :1].float(), TypeError, "key_rope must be torch.float64"),
        (c[:, :1].to("meta"), k[:, :1], ValueError, "latent must be on cpu"),
    ]
    for latent, key_rope, error, message in wrong:
        with pytest.raises(error, match=message):
            cache.update(latent, key_rope)
        assert cache.length == 3
    with pytest.raises(ValueError, match=r"length must be in \[0, 3\], got 4"):
        cache.truncate(4)
    with pytest.raises(TypeError, match="length must be an int"):
        cache.truncate(1.0)
    with pytest.raises(ValueError, match="max_len must be at least 1"):
        LatentCache(1, 0, 2, 2)
    with pytest.raises(ValueError, match="rope_dim must be at least 0"):
        LatentCache(1, 1, 2, -1)
    with pytest.raises(TypeError, match="dtype must be floating point"):
        LatentCache(1, 1, 2, 2, dtype=torch.int64)


def test_operations_worked_by_hand():
    """H = 1, D = Dv = 2, Dc = 3, Dr = 0, T = S = 1: 2 * 4, 8 + 2 * 3 * 4, 2 * 6 + 2 * 3 * 4."""
    expected = {"cached_heads": 8, "expanded": 32, "absorbed": 36}
    assert latent_attention_flops(1, 2, 2, 3, 0, 1, 1) == expected


@pytest.mark.parametrize("form", FORMS)
def test_operations_are_those_that_torch_counts(form):
    with FlopCounterMode(display=False) as counter:
        form(*inputs(B=1))
    name = "expanded" if form is latent_attention else "absorbed"
    assert counter.get_total_flops() == latent_attention_flops(H, D, V, M, R, T, S)[name]


def test_absorbing_and_expanding_cross_in_deepseek_v2():
    """D_c (D + D_v) / (2 D_c - D - D_v) = 170.67 in the limit, 163.8 for 4096 keys."""
    cheaper = [
        each["absorbed"] < each["expanded"]
        for each in (latent_attention_flops(128, 128, 128, 512, 64, T, 4096) for T in range(1, 400))
    ]
    assert cheaper == [True] * 163 + [False] * 236


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, 1, 1, 0, 1, 1), ValueError, "num_heads must be at least 1"),
        ((1, 1, 1, 1, -1, 1, 1), ValueError, "rope_dim must be at least 0"),
        ((1, 1, 1, 1, 0, 1, 0), ValueError, "key_len must be at least 1"),
        ((1, 1, 1, 1.0, 0, 1, 1), TypeError, "latent_dim must be an int"),
    ],
)
def test_sizes_without_a_count_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        latent_attention_flops(*arguments)


@pytest.mark.parametrize(("G", "width"), [(1, 13), (2, 13), (6, 13), (2, 30), (2, 3)])
def test_a_grouped_layer_is_a_latent_layer(G, width):
    key, value = random(G * 3, width), random(G * 4, width, seed=1)
    down, up_k, up_v = latent_from_grouped(key, value, G, 6)
    rank = min(width, G * 7)
    assert (down.shape, up_k.shape, up_v.shape) == ((rank, width), (6, 3, rank), (6, 4, rank))
    x, q = random(2, 5, width, seed=2), random(2, 6, 5, 3, seed=3)
    k, v = ((x @ w.T).view(2, 5, G, -1).transpose(1, 2) for w in (key, value))
    out = absorbed_latent_attention(q, q[..., :0], x @ down.T, x[..., :0], up_k, up_v)
    close(out, grouped_query_attention(q, k, v), atol=1e-11)


def test_a_rank_that_is_not_full_shortens_the_latent():
    low = random(14, 2) @ random(2, 9, seed=1)
    assert latent_from_grouped(low[:6], low[6:], 2, 4)[0].shape == (2, 9)
    zeros = torch.zeros(4, 5)
    down, up_k, up_v = latent_from_grouped(zeros, zeros, 2, 2)
    assert down.shape == (1, 5)
    assert (up_k == 0).all()
    assert (up_v == 0).all()


def test_weights_of_any_size_are_embedded():
    key, value = random(6, 9).float(), random(4, 9, seed=1).float()
    for size in (1e30, 1e-30):
        down, up_k, up_v = latent_from_grouped(size * key, size * value, 2, 2)
        made = torch.cat([up_k.flatten(0, 1), up_v.flatten(0, 1)]) @ down / size
        assert torch.allclose(made, torch.cat([key, value]), atol=1e-5)
    half = latent_from_grouped(key.bfloat16(), value.bfloat16(), 2, 2)
    assert {each.dtype for each in half} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("key", "value", "heads", "error", "message"),
    [
        (random(6, 5), random(4, 5), (2, 3), ValueError, "num_kv_heads 2 must divide num_heads 3"),
        (random(5, 5), random(4, 5), (2, 4), ValueError, "key_weight must have 2 blocks of rows"),
        (random(6, 5), random(3, 5), (2, 4), ValueError, "value_weight must have 2 blocks"),
        (random(6, 5), random(4, 6), (2, 4), ValueError, r"value_weight must be \(GDv, C\)"),
        (random(6, 5), random(4, 5).float(), (2, 4), TypeError, "one dtype"),
        (random(6, 5) / 0, random(4, 5), (2, 4), ValueError, "key_weight must be finite"),
    ],
)
def test_weights_that_are_no_grouped_layer_are_refused(key, value, heads, error, message):
    with pytest.raises(error, match=message):
        latent_from_grouped(key, value, *heads)


def test_a_result_that_its_dtype_cannot_hold_is_refused():
    weight = torch.full((4, 50), 60000.0, dtype=torch.float16)
    with pytest.raises(ValueError, match="must be finite in the result"):
        latent_from_grouped(weight, weight, 2, 2)


def test_the_base_of_the_rotations_and_the_norm_of_the_queries_count():
    sizes = {"head_dim": 4, "rope_dim": 2, "value_dim": 3, "latent_dim": 5}
    x = random(1, 6, 8)
    one, other = (
        LatentAttention(8, 2, **sizes, query_latent_dim=3, rope_base=base).double()
        for base in (100.0, 10000.0)
    )
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, absorbed=False), other(x, absorbed=False))  # one pair: base^0
    wide = sizes | {"rope_dim": 4}
    one, other = (
        LatentAttention(8, 2, **wide, query_latent_dim=3, rope_base=base).double()
        for base in (100.0, 10000.0)
    )
    other.load_state_dict(one.state_dict())
    assert (one(x, absorbed=False) - other(x, absorbed=False)).abs().max() > 1e-6
    with torch.no_grad():  # what the norm divides out again
        one.q_a_layernorm.eps = 0.0
        before = one(x, absorbed=False)
        one.q_a_proj.weight *= 7
        close(one(x, absorbed=False), before)


@pytest.mark.parametrize("size", [1e-6, 1e8, 1e-30])
def test_keys_and_values_of_different_sizes_keep_all_their_digits(size):
    key, value = random(6, 20).float(), (size * random(4, 20, seed=1)).float()
    down, key_up, value_up = latent_from_grouped(key, value, 2, 4)
    assert len(down) == 10
    for weight, up in ((key, key_up), (value, value_up)):
        rebuilt = (up @ down)[::2].flatten(0, 1)
        assert (rebuilt - weight).abs().max() < 1e-5 * weight.abs().max()


@pytest.mark.parametrize(("size", "rank"), [(0.9, 1), (1.1, 2)])
def test_singular_values_of_rounding_count_as_zero(size, rank):
    """Rows (1, 0), (0, s), (1, 0), (0, 0): values sqrt(2) and s, so the floor is 4 eps sqrt(2)."""
    s = size * 4 * torch.finfo(torch.float64).eps * math.sqrt(2)
    assert len(latent_from_grouped(f64((1, 0), (0, s)), f64((1, 0), (0, 0)), 2, 2)[0]) == rank


def test_a_tiny_entry_says_nothing_about_the_size_of_its_weight():
    down, key_up, value_up = latent_from_grouped(f64((0, 1)), f64((1, 1e-20)), 1, 1)
    close(key_up @ down, f64((0, 1))[None])
    close(value_up @ down, f64((1, 0))[None])


def test_rows_of_the_down_projection_are_orthonormal_and_the_largest_entry_of_each_is_positive():
    down, _, _ = latent_from_grouped(random(6, 9), random(8, 9, seed=1), 2, 2)
    close(down @ down.T, torch.eye(9, dtype=torch.float64))
    assert torch.equal(down.amax(1), down.abs().amax(1))


def test_the_base_of_the_rotations_is_ten_thousand():
    made, x = layer(rope_dim=4), random(1, 6, C)
    given = layer(rope_dim=4, rope_base=10000.0)
    assert torch.equal(made(x, absorbed=False), given(x, absorbed=False))


@pytest.mark.parametrize("form", [latent_attention, absorbed_latent_attention])
def test_values_or_outputs_that_overflow_are_refused(form):
    one = torch.ones(1, 1, 1, 1)
    latent, up_k, up_v = (
        torch.tensor([[[0.0, 300.0]]]),
        torch.tensor([[[1.0, 0]]]),
        300 * torch.eye(2),
    )
    given = [one, one[..., :0], latent, one[0, :, :, :0], up_k, up_v[None, 1:]]
    assert form(*given) == 90_000
    with pytest.raises(ValueError, match="latent must be finite once value_up is applied"):
        form(*(x.half() for x in given))
