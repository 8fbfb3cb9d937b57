"""Sinks: values, the definition as a loop, laws, gradients, empty rows, 16 bits, and errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.attention.grouped_query import repeat_kv
from llmref.attention.masks import causal_mask
from llmref.attention.online_softmax import flash_attention, merge_outputs
from llmref.attention.scaled_dot_product import scaled_dot_product_attention
from llmref.attention.sinks import apply_sink, sink_attention, sink_backward
from tests.tensors import close, f64, random

INF = math.inf
B, H, T, S, D, DV = 2, 4, 3, 5, 4, 6
law = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)


def inputs(seed=0, heads=H):
    return [
        random(B, H, T, D, seed=seed),
        random(B, heads, S, D, seed=seed + 1),
        random(B, heads, S, DV, seed=seed + 2),
        2 * random(H, seed=seed + 3),
    ]


def one(x):
    return f64(x).view(1, 1, 1, 1)


def test_a_sink_of_log_three_beside_a_score_of_zero_keeps_a_quarter():
    sink = f64(3.0).log()
    close(sink_attention(one(1), one(0), one(8), sink), one(2.0))
    close(apply_sink(one(8), torch.zeros(1, 1, 1), sink), one(2.0))
    close(sink_backward(one(1), one(2), torch.zeros(1, 1, 1), sink), f64(-1.5))


def test_definition_as_a_loop():
    q, k, v, z = inputs()
    expected = torch.empty(B, H, T, DV, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scores = [float(q[b, h, t] @ k[b, h, s]) / 2 for s in range(t + S - T + 1)]
                e = [math.exp(x) for x in scores]
                total = sum(e) + math.exp(z[h])
                expected[b, h, t] = sum(x / total * v[b, h, s] for s, x in enumerate(e))
    close(sink_attention(q, k, v, z, is_causal=True), expected)
    close(sink_attention(q, k, v, z, causal_mask(T, S)), expected)


@law
@given(seeds)
def test_it_is_one_more_key(seed):
    q, k, v, z = inputs(seed)
    mask = random(B, H, T, S, seed=seed + 9)
    scores = torch.cat([q @ k.mT * 0.7 + mask, z.view(1, H, 1, 1).expand(B, H, T, 1)], -1)
    expected = scores.softmax(-1)[..., :S] @ v
    close(sink_attention(q, k, v, z, mask, scale=0.7), expected)


@law
@given(seeds)
def test_grouped_heads_are_repeated_heads(seed):
    q, k, v, z = inputs(seed, heads=2)
    mask = random(B, 1, T, S, seed=seed + 9) > 0
    repeated = sink_attention(q, repeat_kv(k, 2), repeat_kv(v, 2), z, mask)
    close(sink_attention(q, k, v, z, mask), repeated)


def test_without_a_sink_it_is_attention_empty_rows_included():
    q, k, v, _ = inputs()
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[1] = False
    none = torch.full((H,), -INF, dtype=torch.float64)
    close(sink_attention(q, k, v, none, mask), scaled_dot_product_attention(q, k, v, mask))


def test_a_large_sink_takes_all_and_large_scores_leave_it_nothing():
    q, k, v, z = inputs()
    assert sink_attention(q, k, v, z + 2000).abs().max() == 0
    far = torch.ones(B, H, S, 1, dtype=torch.float64)  # a feature that raises all scores by 1000
    query, key = torch.cat([q, 0 * q[..., :1] + 2000], -1), torch.cat([k, far], -1)
    plain = scaled_dot_product_attention(query, key, v, scale=0.5)
    close(sink_attention(query, key, v, z, scale=0.5), plain)


@law
@given(seeds)
def test_the_gate_comes_once_after_a_merge(seed):
    q, k, v, z = inputs(seed)
    parts = [
        flash_attention(q, k[..., part, :], v[..., part, :], return_lse=True)
        for part in (slice(0, 2), slice(2, S))
    ]
    merged = merge_outputs(*parts[0], *parts[1])
    close(apply_sink(*merged, z), sink_attention(q, k, v, z))


@pytest.mark.parametrize("heads", [2, 1])
def test_gradients_by_finite_differences(heads):
    shapes = ((1, 2, 2, 2), (1, heads, 3, 2), (1, heads, 3, 1), (2,))
    given = [random(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda *given: sink_attention(*given, mask), given)
    out, lse = random(1, 2, 2, 2).requires_grad_(), random(1, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(apply_sink, (out, lse, given[3]))


@law
@given(seeds)
def test_the_gradient_of_the_sink_is_autograds(seed):
    q, k, v, z = inputs(seed)
    mask = random(1, 1, T, S, seed=seed + 9) > 0.5
    grad = random(B, H, T, DV, seed=seed + 8)
    out = sink_attention(q, k, v, z.requires_grad_(), mask)
    (expected,) = torch.autograd.grad(out, z, grad)
    _, lse = flash_attention(q, k, v, mask, return_lse=True)
    close(sink_backward(grad, out.detach(), lse, z.detach()), expected)


def test_an_empty_row_gives_zero_and_passes_no_gradient():
    lse = f64(-INF, 0.0).view(1, 1, 2).requires_grad_()
    out = f64((0.0,), (8.0,)).view(1, 1, 2, 1).requires_grad_()
    for z in (-INF, 0.0):
        sink = f64(z).requires_grad_()
        found = apply_sink(out, lse, sink)
        assert found[0, 0, 0] == 0
        grads = torch.autograd.grad(found.sum(), (out, lse, sink))
        assert all(x.isfinite().all() for x in grads)
        assert grads[1][0, 0, 0] == 0
        assert sink_backward(out.detach(), found.detach(), lse.detach(), f64(z)).isfinite().all()


def test_the_share_of_the_sink_is_not_a_difference_of_numbers_near_one():
    lse, sink = f64(50.0).view(1, 1, 1), f64(0.0)
    close(sink_backward(one(1), one(1), lse, sink) / math.exp(-50), f64(-1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_are_rounded_once(dtype):
    narrow = [x.to(dtype) for x in inputs(heads=2)]
    found = sink_attention(*narrow, is_causal=True)
    expected = sink_attention(*(x.double() for x in narrow), is_causal=True)
    assert found.dtype == dtype
    unit = torch.finfo(dtype).eps
    assert ((found.double() - expected).abs() <= unit * expected.abs() + 1e-6).all()


def test_a_sink_in_another_type_than_the_queries():
    q, k, v, z = inputs()
    found = sink_attention(q.half(), k.half(), v.half(), z.float())
    assert found.dtype == torch.float16
    close(found.double(), sink_attention(q, k, v, z), atol=5e-3)


def test_no_queries_and_no_keys():
    q, k, v, z = inputs()
    assert sink_attention(q[..., :0, :], k, v, z).shape == (B, H, 0, DV)
    assert (sink_attention(q, k[..., :0, :], v[..., :0, :], z) == 0).all()


@pytest.mark.parametrize("value", [INF, math.nan])
def test_a_sink_or_a_sum_that_is_infinite_is_refused(value):
    q, k, v, z = inputs()
    with pytest.raises(ValueError, match=r"sink must be in \[-inf, inf\), got (inf|nan)"):
        sink_attention(q, k, v, z.index_fill(0, torch.tensor(2), value))
    with pytest.raises(ValueError, match=r"lse must be in \[-inf, inf\), got (inf|nan)"):
        apply_sink(one(1), torch.full((1, 1, 1), value), f64(0.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sink": f64(0.0)}, ValueError, r"sink must be \(H,\) = \(4,\) beside .*, got \(1,\)"),
        ({"sink": torch.zeros(4, 1)}, ValueError, r"sink must be \(H,\)"),
        ({"sink": torch.zeros(4).long()}, TypeError, "sink must be floating point"),
        ({"key": torch.zeros(B, 3, S, D).double()}, ValueError, "key|value"),
        ({"query": torch.zeros(B, H, T, D)}, TypeError, "one dtype, got query torch.float32"),
        ({"query": torch.zeros(H, T, D).double()}, ValueError, r"query must be \(B, H, T, D\)"),
        ({"attn_mask": torch.ones(B, T, S).bool()}, ValueError, "has three axes"),
        ({"attn_mask": torch.ones(T, 4).bool()}, ValueError, "mask"),
        ({"scale": math.nan}, ValueError, "scale must be in"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, error, message):
    given = dict(zip(("query", "key", "value", "sink"), inputs(), strict=True)) | change
    with pytest.raises(error, match=message):
        sink_attention(**given)


def test_heads_that_cannot_be_grouped_are_refused():
    q, _, _, z = inputs()
    k, v = random(B, 3, S, D), random(B, 3, S, DV)
    with pytest.raises(ValueError, match="num_kv_heads 3 must divide num_heads 4"):
        sink_attention(q, k, v, z)


def test_shapes_and_types_of_the_gate_are_refused_by_name():
    out, lse, z = random(B, H, T, DV), random(B, H, T), random(H)
    with pytest.raises(ValueError, match=r"lse must be"):
        apply_sink(out, lse[:, :2], z)
    with pytest.raises(ValueError, match=r"lse must be of 32 bits at least, got torch.bfloat16"):
        apply_sink(out, lse.bfloat16(), z)
    with pytest.raises(TypeError, match=r"output must be floating point"):
        apply_sink(out.long(), lse, z)
    with pytest.raises(ValueError, match=r"grad_output must be"):
        sink_backward(out[..., :2], out, lse, z)
    with pytest.raises(TypeError, match=r"grad_output must be floating point"):
        sink_backward(out.long(), out, lse, z)
