"""Linear attention and the delta rule: values by hand, all forms against loops, edges, errors."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmref.attention.linear_attention import (
    delta_rule_chunked,
    delta_rule_recurrent,
    linear_attention_chunked,
    linear_attention_flops,
    linear_attention_parallel,
    linear_attention_recurrent,
    normalized_linear_attention,
    wy_factor,
)
from llmref.practice.by_hand.attention.linear_attention import delta_rule, linear_attention
from tests.tensors import close, f64, random

B, H, T, DK, DV = 2, 3, 7, 5, 4
HALF = math.log(0.5)


def plain(form, **options):
    """Linear attention by any form that returns outputs and state; no strengths."""
    return lambda q, k, v, beta, g, S: form(q, k, v, g, S, **options)


def by_sizes(recurrent, chunked, wrap):
    yield pytest.param(wrap(recurrent), id=recurrent.__name__)
    for size in (1, 3, T, 20):
        yield pytest.param(wrap(chunked, chunk_size=size), id=f"{chunked.__name__}-{size}")


def strong(form, **options):
    return lambda *given: form(*given, **options)


PLAIN = list(by_sizes(linear_attention_recurrent, linear_attention_chunked, plain))
DELTA = list(by_sizes(delta_rule_recurrent, delta_rule_chunked, strong))
plain_forms = pytest.mark.parametrize("form", PLAIN)
delta_forms = pytest.mark.parametrize("form", DELTA)
all_forms = pytest.mark.parametrize("form", PLAIN + DELTA)


def inputs(B=B, H=H, T=T, DK=DK, DV=DV):
    """Query, key, value, beta, log decay with a reset, state."""
    decay = -random(B, H, T, seed=4).exp()
    decay[..., -1:, 3:4] = -math.inf
    return [
        *(random(B, H, T, DK), 0.6 * random(B, H, T, DK, seed=1), random(B, H, T, DV, seed=2)),
        *(random(B, H, T, seed=3).sigmoid(), decay, random(B, H, DK, DV, seed=5)),
    ]


def by_loops(q, k, v, beta, decay, start, delta):
    """One number of the state after the other."""
    out, states = torch.zeros_like(v), torch.zeros_like(start)
    for b, h in torch.cartesian_prod(torch.arange(B), torch.arange(H)).tolist():
        state = start[b, h].tolist()
        for t in range(q.shape[2]):
            left = math.exp(decay[b, h, t])
            state = [[left * x for x in row] for row in state]
            key, query, value = k[b, h, t].tolist(), q[b, h, t].tolist(), v[b, h, t].tolist()
            held = [sum(key[i] * state[i][j] for i in range(DK)) for j in range(DV)]
            written = [
                float(beta[b, h, t]) * (value[j] - held[j]) if delta else value[j]
                for j in range(DV)
            ]
            state = [[state[i][j] + key[i] * written[j] for j in range(DV)] for i in range(DK)]
            out[b, h, t] = f64(*(sum(query[i] * state[i][j] for i in range(DK)) for j in range(DV)))
        states[b, h] = f64(*map(tuple, state))
    return out, states


def column(*entries):
    return f64(*entries)[:, None]


@plain_forms
def test_two_tokens_worked_by_hand(form):
    """States 0 + 2 * 4 = 8, then 8/2 + 3 * 6 = 22; read by 1 and 5: 8 and 110."""
    out, state = form(column(1, 5), column(2, 3), column(4, 6), None, f64(-9, HALF), None)
    close(out, column(8, 110))
    close(state, column(22))


def test_the_masked_product_worked_by_hand():
    """1 * 2 * 4 = 8, and 5 * (2 * 4 / 2 + 3 * 6) = 110."""
    given = column(1, 5), column(2, 3), column(4, 6)
    close(linear_attention_parallel(*given, f64(-9, HALF)), column(8, 110))
    close(linear_attention_parallel(*given), column(8, 130))


@delta_forms
def test_two_writes_worked_by_hand(form):
    """0 + (8 - 0)/2 = 4; decayed 2, key 2: error 7 - 4 = 3, 2 + 2 * 3/4 = 3.5; read by 1 and 2."""
    given = column(1, 2), column(1, 2), column(8, 7), f64(0.5, 0.25), f64(-1, HALF)
    out, state = form(*given, None)
    close(out, column(4, 7))
    close(state, column(3.5))


@plain_forms
def test_linear_attention_equals_a_loop(form):
    for one, other in zip(form(*inputs()), by_loops(*inputs(), delta=False), strict=True):
        close(one, other)


@delta_forms
def test_delta_rule_equals_a_loop(form):
    for one, other in zip(form(*inputs()), by_loops(*inputs(), delta=True), strict=True):
        close(one, other)


def test_the_masked_product_equals_a_loop():
    q, k, v, beta, decay, start = inputs()
    expected = by_loops(q, k, v, beta, decay, 0 * start, delta=False)[0]
    close(linear_attention_parallel(q, k, v, decay), expected)
    none = by_loops(q, k, v, beta, 0 * start[..., 0, 0, None].expand(B, H, T), 0 * start, False)[0]
    close(linear_attention_parallel(q, k, v), none)


@all_forms
def test_a_text_may_be_resumed_anywhere(form):
    *tokens, start = inputs()
    out, state = form(*tokens, start)
    first, second = zip(*(each.split([3, T - 3], 2) for each in tokens), strict=True)
    head, middle = form(*first, start)
    tail, last = form(*second, middle)
    close(torch.cat([head, tail], 2), out)
    close(last, state)


@all_forms
@pytest.mark.parametrize("sizes", [{"T": 0}, {"T": 1}, {"B": 0}, {"DK": 1}, {"DV": 1}], ids=str)
def test_edges(form, sizes):
    given = inputs(**sizes)
    out, state = form(*given)
    assert out.shape == given[2].shape
    assert state.shape == given[5].shape
    if not given[0].shape[2]:
        assert (state == given[5]).all()
        state.add_(1)
        assert (given[5] == inputs(**sizes)[5]).all()


def test_edges_of_the_other_forms():
    empty = torch.zeros(2, 0, 3)
    assert linear_attention_parallel(empty, empty, empty).shape == (2, 0, 3)
    assert normalized_linear_attention(empty, empty, empty).shape == (2, 0, 3)
    assert wy_factor(empty, empty[..., 0]).shape == (2, 0, 3)
    row, scalar = torch.zeros(0, 3), torch.zeros(0)
    for found in (
        linear_attention(row, row, row, scalar, 4),
        delta_rule(*[row] * 3, *[scalar] * 2, 4),
    ):
        assert found[0].shape == (0, 3)
        assert (found[1] == torch.zeros(3, 3)).all()


@all_forms
def test_a_reset_forgets_all_that_came_before(form):
    *tokens, start = inputs()
    tokens[4][:, :, 2] = -math.inf
    tokens[2][:, :, :2] *= 1e15
    out, state = form(*tokens, start)
    alone, last = form(*(each[:, :, 2:] for each in tokens), None)
    close(out[:, :, 2:], alone)
    close(state, last)


@all_forms
@pytest.mark.parametrize("value", [-1e4, -1e9, -math.inf])
def test_decays_after_a_strong_one_are_kept_in_float32(form, value):
    *tokens, _ = inputs(T=30)
    tokens[4][..., 2] = value
    tokens[4][..., 3:] *= 0.1
    wide, narrow = form(*tokens, None), form(*(each.float() for each in tokens), None)
    for one, other in zip(narrow, wide, strict=True):
        assert (one.double() - other).abs().max() < 1e-5


def test_two_hundred_steps_of_decay_do_not_overflow():
    q, k, v = (random(200, 3, seed=seed).float() for seed in range(3))
    decay = torch.full((200,), -1.0)
    exact = linear_attention_recurrent(q.double(), k.double(), v.double(), decay.double())[0]
    for found in (
        linear_attention_parallel(q, k, v, decay),
        linear_attention_chunked(q, k, v, decay, chunk_size=200)[0],
    ):
        assert (found.double() - exact).abs().max() < 1e-5


@all_forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32_and_the_state_stays_there(form, dtype):
    given = [each.to(dtype) for each in inputs()]
    out, state = form(*given)
    wide_out, wide_state = form(*(each.float() for each in given))
    close(out, wide_out.to(dtype))
    assert state.dtype == torch.float32
    close(state, wide_state)


@all_forms
def test_decays_strengths_and_states_may_have_more_bits(form):
    q, k, v, *others = inputs()
    rows = [each.bfloat16() for each in (q, k, v)]
    out, state = form(*rows, *others)
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float64)
    close(out, form(*(each.double() for each in rows), *others)[0].bfloat16())


@all_forms
def test_inputs_are_unchanged(form):
    given = inputs()
    form(*given)
    for one, other in zip(given, inputs(), strict=True):
        assert (one == other).all()


def leaves(*shapes):
    return [random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]


def test_gradients_of_linear_attention():
    q, k, v, S = leaves((3, 2), (3, 2), (3, 1), (2, 1))
    g = f64(-0.3, -1.2, -0.7).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, k, v, g, S: linear_attention_chunked(q, k, v, g, S, chunk_size=2), (q, k, v, g, S)
    )
    assert torch.autograd.gradcheck(linear_attention_parallel, (q, k, v, g))
    features = [each.detach().exp().requires_grad_() for each in (q, k)]
    assert torch.autograd.gradcheck(normalized_linear_attention, (*features, v))


def test_gradients_of_the_delta_rule():
    q, k, v, S = leaves((3, 2), (3, 2), (3, 1), (2, 1))
    g, beta = f64(-0.3, -1.2, -0.7).requires_grad_(), f64(0.9, 0.4, 0.6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: delta_rule_chunked(*x, chunk_size=3), (q, k, v, beta, g, S)
    )
    assert torch.autograd.gradcheck(wy_factor, (k, beta))


@all_forms
def test_gradients_are_finite_at_a_reset(form):
    given = [each.requires_grad_() for each in inputs()]
    out, state = form(*given)
    (out.sum() + state.sum()).backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in given)
    assert (given[4].grad[given[4].isinf()] == 0).all()


def test_averages_worked_by_hand():
    """Weights 2 and 1 * 2, 1 * 6: 4, and (2 * 4 + 6 * 8)/8 = 7."""
    out = normalized_linear_attention(column(1, 1), column(2, 6), column(4, 8))
    close(out, column(4, 7))


def test_weights_below_one_and_negative_sums_are_divided_too():
    close(normalized_linear_attention(column(1, 1), column(-0.2, -0.6), column(4, 8)), column(4, 7))


def test_a_sum_of_one_is_divided_as_others():
    close(normalized_linear_attention(column(1, 1), column(1, 1), column(4, 8)), column(4, 6))


def test_a_later_token_may_overflow_where_it_is_not_read():
    q, k, v = column(1e30, 1).float(), column(1, 1e30).float(), column(2, 1e-30).float()
    out = linear_attention_parallel(q, k, v)
    torch.testing.assert_close(out, column(2e30, 3).float())
    g = torch.zeros(2, requires_grad=True)
    linear_attention_chunked(q, k, v, g, chunk_size=2)[0].sum().backward()
    assert g.grad.isfinite().all()


def test_averages_equal_a_loop():
    p, r, v = random(2, 5, 3).exp(), random(2, 5, 3, seed=1).exp(), random(2, 5, 4, seed=2)
    out = normalized_linear_attention(p, r, v)
    for b in range(2):
        for t in range(5):
            weights = [float(p[b, t] @ r[b, j]) for j in range(t + 1)]
            mean = sum(w * v[b, j] for j, w in enumerate(weights)) / sum(weights)
            close(out[b, t], mean)
    assert (out <= v.cummax(1).values + 1e-12).all()


def test_a_sum_of_zero_is_refused():
    features, ones = torch.ones(2, 3, 1), torch.ones(2, 3, 1)
    features[1, 2] = 0
    with pytest.raises(ValueError, match=r"must not sum to 0, as it does at \[1, 2\]"):
        normalized_linear_attention(features, ones, ones)
    with pytest.raises(ValueError, match=r"must not sum to 0, as it does at \[1\]"):
        normalized_linear_attention(column(1, 1), column(1, -1), column(1, 1))


@delta_forms
def test_orthonormal_keys_keep_all_values_and_a_repeated_key_the_last_one(form):
    k = torch.linalg.qr(random(5, 5)).Q
    v, ones, none = random(5, 4, seed=1), torch.ones(5).double(), torch.zeros(5).double()
    close(k @ form(k, k, v, ones, none, None)[1], v)
    again = torch.cat([k, k[2:3]])
    state = form(again, again, torch.cat([v, v[:1]]), f64(*[1] * 6), f64(*[0] * 6), None)[1]
    close(k @ state, v[[0, 1, 0, 3, 4]])


def test_long_keys_make_the_state_grow_and_unit_keys_do_not():
    k, v = random(400, 8), random(400, 2, seed=1)
    unit = k / k.norm(dim=-1, keepdim=True)
    ones = torch.ones(400).double()
    assert delta_rule_chunked(unit, unit, v, ones, chunk_size=50)[1].abs().max() < 100
    assert delta_rule_recurrent(k[:20], k[:20], v[:20], ones[:20])[1].abs().max() > 1e4
    with pytest.raises(ValueError, match="output must be finite in the result"):
        delta_rule_recurrent(k.float(), k.float(), v.float(), ones.float())


def test_two_keys_give_a_factor_worked_by_hand():
    """w1 = (2, 0) / 2 = (1, 0); w2 = ((1, 1) - 2 (1, 0)) * 3 = (-3, 3)."""
    close(wy_factor(f64((2, 0), (1, 1)), f64(0.5, 3)), f64((1, 0), (-3, 3)))


@pytest.mark.parametrize(("count", "size"), [(1, 3), (4, 3), (3, 5), (6, 1)])
def test_the_factor_gives_the_product_of_the_maps(count, size):
    k, beta = random(2, count, size), random(2, count, seed=1)
    product = torch.eye(size).double().expand(2, size, size)
    for t in range(count):
        key = k[:, t, :, None]
        product = (torch.eye(size) - beta[:, t, None, None] * key @ key.mT) @ product
    close(torch.eye(size) - k.mT @ wy_factor(k, beta), product, atol=1e-11)


def test_operations_worked_by_hand():
    """T = 5, sizes 2 and 3, chunks 2, 2, 1: 2 * 25 * 5, 4 * 5 * 6, 2 * 9 * 5 + 120."""
    expected = {"parallel": 250, "recurrent": 120, "chunked": 210}
    assert linear_attention_flops(5, 2, 3, 2) == expected
    assert set(linear_attention_flops(0, 2, 3, 2).values()) == {0}


@pytest.mark.parametrize("size", [1, 3, 7, 9])
def test_operations_are_those_that_torch_counts(size):
    q, k, v = (each[0, 0] for each in inputs()[:3])
    for name, run in (
        ("parallel", lambda: linear_attention_parallel(q, k, v)),
        ("recurrent", lambda: linear_attention_recurrent(q, k, v)),
        ("chunked", lambda: linear_attention_chunked(q, k, v, chunk_size=size)),
    ):
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == linear_attention_flops(T, DK, DV, size)[name]


def test_the_masked_product_is_cheaper_up_to_a_chunk_and_a_head():
    cheaper = [
        each["chunked"] < each["parallel"]
        for each in (linear_attention_flops(T, 128, 128, 64) for T in (192, 193, 256))
    ]
    assert cheaper == [False, True, True]


@all_forms
@pytest.mark.parametrize(
    ("at", "shape", "message"),
    [
        (0, (T, DK), r"key must be \(..., T, Dk\)"),
        (1, (B, H, T, DK + 1), r"key must be \(..., T, Dk\) = \(2, 3, 7, 5\)"),
        (2, (B, H, T + 1, DV), r"value must be \(..., T, Dv\)"),
        (4, (B, H, T, DK), r"log_decay must be \(..., T\) = \(2, 3, 7\)"),
        (5, (B, H, DV, DK), r"initial_state must be \(..., Dk, Dv\) = \(2, 3, 5, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(form, at, shape, message):
    given = inputs()
    given[at] = -random(*shape).abs()
    with pytest.raises(ValueError, match=message):
        form(*given)


@all_forms
def test_numbers_that_cannot_be_are_refused(form):
    q, k, v, beta, g, S = inputs()
    for wrong, seen in ((g + 3, "got"), (g * math.nan, "got nan")):
        with pytest.raises(ValueError, match=rf"log_decay must be in \[-inf, 0\], {seen}"):
            form(q, k, v, beta, wrong, S)
    with pytest.raises(ValueError, match="output must be finite in the result, got nan"):
        form(q * math.nan, k, v, beta, g, S)
    *nothing, S = inputs(T=0)
    with pytest.raises(ValueError, match="state must be finite in the result, got inf"):
        form(*nothing, S / 0)


@all_forms
def test_dtypes_that_cannot_be_are_refused(form):
    q, k, v, beta, g, S = inputs()
    with pytest.raises(TypeError, match="one dtype"):
        form(q, k.float(), v, beta, g, S)
    with pytest.raises(TypeError, match="one dtype"):
        form(q.long(), k.long(), v.long(), beta, g, S)
    with pytest.raises(TypeError, match="log_decay must be floating point"):
        form(q, k, v, beta, torch.zeros(B, H, T).long(), S)
    with pytest.raises(TypeError, match="initial_state must be floating point"):
        form(q, k, v, beta, g, S.long())
    with pytest.raises(ValueError, match=r"query must be .* with Dk >= 1"):
        form(q[..., :0], k[..., :0], v, beta, g, None)


def test_arguments_of_one_form_alone_are_checked():
    q, k, v, beta, g, _ = inputs()
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        linear_attention_chunked(q, k, v, chunk_size=0)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        delta_rule_chunked(q, k, v, beta, chunk_size=0)
    with pytest.raises(TypeError, match="chunk_size must be an int"):
        delta_rule_chunked(q, k, v, beta, chunk_size=2.0)
    with pytest.raises(ValueError, match=r"beta must be \(..., T\) = \(2, 3, 7\)"):
        delta_rule_recurrent(q, k, v, beta[..., :-1])
    with pytest.raises(TypeError, match="beta must be floating point"):
        delta_rule_chunked(q, k, v, beta.long(), g, chunk_size=2)
    with pytest.raises(ValueError, match=r"beta must be \(..., c\)"):
        wy_factor(k, beta[..., 0])
    with pytest.raises(ValueError, match=r"key must be .* with Dk >= 1"):
        wy_factor(k[..., :0], beta)
    with pytest.raises(TypeError, match="key must be floating point"):
        wy_factor(k.long(), beta)
    with pytest.raises(ValueError, match="factor must be finite in the result"):
        wy_factor(k, beta / 0)
    with pytest.raises(ValueError, match=r"key_features must be \(..., T, Dk\)"):
        normalized_linear_attention(q, k[..., 1:], v)
    with pytest.raises(TypeError, match="one dtype"):
        normalized_linear_attention(q, k, v.float())
    with pytest.raises(ValueError, match=r"query_features must be .* with Dk >= 1"):
        normalized_linear_attention(q[..., :0], k[..., :0], v)
    with pytest.raises(ValueError, match="output must be finite in the result"):
        normalized_linear_attention(q.exp(), k.exp(), v / 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 1, 1, 1), ValueError, "length must be at least 0"),
        ((1, 0, 1, 1), ValueError, "key_dim must be at least 1"),
        ((1, 1, 0, 1), ValueError, "value_dim must be at least 1"),
        ((1, 1, 1, 0), ValueError, "chunk_size must be at least 1"),
        ((1, 1.0, 1, 1), TypeError, "key_dim must be an int"),
    ],
)
def test_sizes_without_a_count_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        linear_attention_flops(*arguments)


def test_sixteen_bits_that_overflow_are_refused():
    big = torch.full((3, 2), 200.0, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"output must be finite .* got inf"):
        linear_attention_parallel(big, big, big)


@delta_forms
def test_strengths_alone_may_have_more_bits(form):
    q, k, v, beta, *_ = inputs()
    out, state = form(*(each.float() for each in (q, k, v)), beta, None, None)
    assert (out.dtype, state.dtype) == (torch.float32, torch.float64)


@delta_forms
def test_a_long_key_that_is_hardly_written_leaves_gradients(form):
    k = torch.tensor([[1.0], [1e20], [1.0]], requires_grad=True)
    beta = torch.tensor([0.5, 1e-25, 0.5], requires_grad=True)
    out, _ = form(torch.ones(3, 1), k, torch.ones(3, 1), beta, None, None)
    out.sum().backward()
    assert not k.grad.isnan().any()
    assert not beta.grad.isnan().any()


@pytest.mark.parametrize("size", [1e25, 1.0, 1e-25])
def test_the_length_of_a_query_cancels_beside_a_feature_of_zero(size):
    """Weights 12 and 12, 36: 4, and (12 * 4 + 36 * 8)/48 = 7."""
    q, k = torch.tensor([[2.0, 0.0]] * 2), torch.tensor([[6.0, 5.0], [18.0, 5.0]])
    out = normalized_linear_attention(size * q, k, column(4, 8).float())
    torch.testing.assert_close(out, column(4, 7).float())


def test_tiny_features_are_divided_as_others():
    x, v = torch.tensor([[-51.0], [-50.5], [-51.2]]).exp(), column(0, 1, 0)
    exact = normalized_linear_attention(x.double(), x.double(), v)
    torch.testing.assert_close(normalized_linear_attention(x, x, v.float()), exact.float())


@delta_forms
def test_a_later_key_may_overflow_where_it_is_not_read(form):
    q, k, v = column(1e30, 1).float(), column(1, 1e30).float(), column(2, 3).float()
    out, _ = form(q, k, v, f64(1, 0).float(), None, None)
    torch.testing.assert_close(out, column(2e30, 2).float())


def test_the_factor_of_sixteen_bits_is_computed_in_float32():
    k, beta = random(4, 3).bfloat16(), random(4, seed=1).sigmoid()
    close(wy_factor(k, beta), wy_factor(k.double(), beta).bfloat16())
