"""Online softmax: the algebra of states, flash attention forward and backward, and its costs."""

import math
from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from llmref.attention.masks import causal_mask, document_mask, sliding_window_mask
from llmref.attention.online_softmax import (
    SoftmaxState,
    block_state,
    empty_state,
    finalize_state,
    flash_attention,
    flash_attention_backward,
    hbm_elements,
    merge_outputs,
    merge_states,
    online_logsumexp,
    standard_hbm_elements,
)
from llmref.attention.scaled_dot_product import (
    attention_scores,
    scaled_dot_product_attention,
)
from llmref.functional.softmax import logsumexp, softmax
from tests.tensors import close, f64, random

INF = math.inf
B, H, T, S, D, DV = 2, 3, 7, 9, 4, 5
MASKS = ["none", "bool", "integer", "float", "causal", "bool and causal", "float and causal"]
law = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)


def inputs(seed=0):
    return [
        random(B, H, T, D, seed=seed),
        random(B, H, S, D, seed=seed + 1),
        random(B, H, S, DV, seed=seed + 2),
    ]


def masking(kind, seed=0):
    """The arguments of a kind of mask. Query 1 of every head may attend to nothing under 'bool'."""
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(B, 1, T, S, generator=generator) < 0.6
    allowed[..., 1, :] = False
    bias = random(B, H, T, S, seed=seed)
    bias[:, :, 2, 3] = -INF
    mask = {"bool": allowed, "inte": allowed.long(), "floa": bias}.get(kind[:4])
    return {"attn_mask": mask, "is_causal": "causal" in kind}


def masked_scores(query, key, attn_mask, is_causal, scale=None):
    scores = attention_scores(query, key, scale)
    if attn_mask is not None and attn_mask.is_floating_point():
        scores = scores + attn_mask
    elif attn_mask is not None:
        scores = scores.masked_fill(attn_mask == 0, -INF)
    return scores.masked_fill(~causal_mask(T, S), -INF) if is_causal else scores


def state_by_sums(scores, value):
    """The definition: the largest score, and two sums in plain Python."""
    m = max(scores.tolist(), default=-INF)
    weights = [math.exp(x - m) if x > -INF else 0.0 for x in scores.tolist()]
    total = sum((w * v for w, v in zip(weights, value, strict=True)), value.new_zeros(DV))
    return SoftmaxState(f64(m)[0], f64(sum(weights))[0], total)


def test_a_block_worked_by_hand():
    """Scores (0, log 3), values (8, 4): m = log 3, l = 1/3 + 1, o = 8/3 + 4; o / l = 20/3 * 3/4."""
    state = block_state(f64(0.0, math.log(3)), f64([8.0], [4.0]))
    close(state.m, f64(math.log(3))[0])
    close(state.l, f64(4 / 3)[0])
    close(state.o, f64(20 / 3))
    out, lse = finalize_state(state)
    close(out, f64(5.0))
    close(lse, f64(math.log(4))[0])


def test_a_merge_worked_by_hand():
    """References 0 and log 2: the first is halved, so l = 1/2 + 1 and o = 6/2 + 5."""
    a = SoftmaxState(f64(0.0), f64(1.0), f64([6.0]))
    b = SoftmaxState(f64(math.log(2)), f64(1.0), f64([5.0]))
    merged = merge_states(a, b)
    close(merged.m, f64(math.log(2)))
    close(merged.l, f64(1.5))
    close(merged.o, f64([8.0]))


def test_outputs_merge_by_lse_worked_by_hand():
    """With lse 0 and log 3 the weights are 1/4 and 3/4; counts of tokens would give 1/2 each."""
    out, lse = merge_outputs(f64([8.0]), f64(0.0), f64([4.0]), f64(math.log(3)))
    close(out, f64([5.0]))
    close(lse, f64(math.log(4)))


def test_a_block_equals_its_definition_written_as_sums():
    scores, value = 3 * random(S), random(S, DV, seed=1)
    scores[[2, 5]] = -INF
    for actual, expected in zip(
        block_state(scores, value), state_by_sums(scores, value), strict=True
    ):
        close(actual, expected)


def test_values_are_shared_or_given_for_each_leading_axis():
    scores, value = random(B, H, T, S), random(B, H, 1, S, DV, seed=1)
    state = block_state(scores, value)
    for b in range(B):
        for h in range(H):
            close(state.o[b, h], block_state(scores[b, h], value[b, h, 0]).o)
    full = block_state(scores, value.expand(B, H, T, S, DV))
    close(state.o, full.o)


@given(seeds, st.floats(0.1, 300))
@law
def test_the_state_of_a_union_is_the_merge_and_merging_is_associative(seed, spread):
    scores, value = spread * random(3, S, seed=seed), random(S, DV, seed=seed + 1)
    scores[0, :4] = -INF  # row 0: the first block is empty
    scores[1] = -INF
    parts = [slice(0, 4), slice(4, 6), slice(6, S)]
    a, b, c = (block_state(scores[:, part], value[part]) for part in parts)
    whole = finalize_state(block_state(scores, value))
    trees = [
        merge_states(merge_states(a, b), c),
        merge_states(a, merge_states(b, c)),
        merge_states(merge_states(c, a), b),
    ]
    for tree in trees:
        for actual, expected in zip(finalize_state(tree), whole, strict=True):
            close(actual, expected, atol=1e-12 * max(1, spread))
        assert (tree.m == block_state(scores, value).m).all()


def test_the_empty_state_changes_no_bit():
    state = block_state(random(3, S), random(S, DV, seed=1))
    empty = empty_state((3,), DV, dtype=torch.float64)
    for merged in (merge_states(state, empty), merge_states(empty, state)):
        assert all(torch.equal(a, b) for a, b in zip(merged, state, strict=True))
    nothing = merge_states(empty, empty)
    assert all(torch.equal(a, b) for a, b in zip(nothing, empty, strict=True))


@pytest.mark.parametrize("scores", [torch.zeros(3, 0), torch.full((3, 2), -INF)])
def test_no_keys_and_only_masked_keys_give_the_empty_state(scores):
    scores = scores.double()
    state = block_state(scores, random(scores.shape[-1], DV))
    empty = empty_state((3,), DV, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(state, empty, strict=True))
    out, lse = finalize_state(state)
    assert (out == 0).all()
    assert (lse == -INF).all()


def test_merging_is_not_associative_in_floating_point():
    scores, value = random(200, 6).float(), random(6, DV, seed=1).float()
    a, b, c = (block_state(scores[:, i : i + 2], value[i : i + 2]) for i in (0, 2, 4))
    left = merge_states(merge_states(a, b), c)
    right = merge_states(a, merge_states(b, c))
    assert not torch.equal(left.l, right.l)
    close(left.l, right.l, atol=1e-6)


def test_scores_below_minus_1000_do_not_underflow():
    """With a reference point that starts at 0 in place of minus infinity, l would be 0."""
    scores, value = random(S) - 2000, random(S, DV, seed=1)
    blocks = [block_state(scores[i : i + 2], value[i : i + 2]) for i in range(0, S, 2)]
    out, lse = finalize_state(reduce(merge_states, blocks))
    close(out, softmax(scores) @ value)
    close(lse, logsumexp(scores))


@given(seeds, st.sampled_from([1, 2, 4, 9, 30]))
@law
def test_l_lies_between_1_and_the_number_of_keys(seed, block):
    scores, value = 20 * random(S, seed=seed), random(S, DV, seed=seed)
    state = empty_state((), DV, dtype=torch.float64)
    for start in range(0, S, block):
        part = slice(start, start + block)
        state = merge_states(state, block_state(scores[part], value[part]))
        assert 1 - 1e-12 <= state.l <= S + 1e-12


def test_gradients_pass_through_states_and_empty_rows():
    scores, value = random(3, S), random(S, DV, seed=1)
    mask = torch.ones(3, S, dtype=torch.bool)
    mask[1] = False
    mask[0, :4] = False

    def merged(scores, value):
        scores = scores.masked_fill(~mask, -INF)
        parts = [slice(0, 4), slice(4, S)]
        out, lse = finalize_state(
            reduce(merge_states, (block_state(scores[:, p], value[p]) for p in parts))
        )
        return out, lse.masked_fill(~mask.any(-1), 0)

    leaves = (scores.requires_grad_(), value.requires_grad_())
    assert torch.autograd.gradcheck(merged, leaves)


@given(seeds, st.floats(0.1, 300))
@law
def test_one_score_at_a_time_gives_the_logsumexp(seed, spread):
    x = spread * random(B, S, seed=seed)
    x[0, 0], x[1] = -INF, -INF
    close(online_logsumexp(x), logsumexp(x), atol=1e-12 * max(1, spread))


def test_online_logsumexp_has_the_softmax_as_gradient_and_0_for_no_keys():
    x = random(3, S)
    x[1] = -INF
    x[0, :2] = -INF
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(online_logsumexp(leaf).sum(), leaf)
    close(grad[[0, 2]], softmax(x[[0, 2]]))
    assert (grad[1] == 0).all()
    assert online_logsumexp(torch.zeros(2, 3, 0)).tolist() == [[-INF] * 3] * 2


@pytest.mark.parametrize("empty", ["none", "first", "second", "both"])
def test_outputs_of_disjoint_keys_merge_to_the_whole(empty):
    scores, value = random(T, S), random(S, DV, seed=1)
    if empty in ("first", "both"):
        scores[0, :4] = -INF
    if empty in ("second", "both"):
        scores[0, 4:] = -INF
    parts = [finalize_state(block_state(scores[:, p], value[p])) for p in (slice(4), slice(4, S))]
    expected = finalize_state(block_state(scores, value))
    for actual, wanted in zip(merge_outputs(*parts[0], *parts[1]), expected, strict=True):
        close(actual, wanted)


def test_gradients_of_merged_outputs_are_finite_for_empty_parts():
    o, lse = random(3, DV).requires_grad_(), f64(-INF, 0.5, -INF).requires_grad_()
    other, nothing = torch.zeros(3, DV, dtype=torch.float64), f64(-INF, -INF, 1.0)
    out, merged = merge_outputs(o, lse, other, nothing)
    value = out.square().sum() + merged[1:].sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (o, lse)))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("blocks", [(1, 1), (2, 4), (3, 9), (16, 2)])
def test_flash_attention_is_attention(kind, blocks):
    query, key, value = inputs()
    options = masking(kind)
    out, lse = flash_attention(
        query,
        key,
        value,
        scale=0.7,
        return_lse=True,
        block_q=blocks[0],
        block_k=blocks[1],
        **options,
    )
    close(out, scaled_dot_product_attention(query, key, value, scale=0.7, **options))
    close(lse, logsumexp(masked_scores(query, key, **options, scale=0.7)))
    alone = flash_attention(query, key, value, scale=0.7, block_q=blocks[0], **options)
    close(alone, out)


def test_the_default_scale_is_one_over_root_d():
    query, key, value = inputs()
    expected = scaled_dot_product_attention(query, key, value)
    close(flash_attention(query, key, value, block_k=4), expected)


def test_masks_broadcast_over_leading_axes():
    query, key, value = inputs()
    generator = torch.Generator().manual_seed(1)
    for shape in [(S,), (T, S), (T, 1), (B, 1, 1, S), (1, H, T, 1), (B, H, T, S)]:
        mask = torch.rand(shape, generator=generator) < 0.7
        expected = scaled_dot_product_attention(query, key, value, mask)
        close(flash_attention(query, key, value, mask, block_q=2, block_k=4), expected)


def test_masks_of_the_builders_give_the_same_attention():
    query, key, value = inputs()
    documents = torch.tensor([[0] * 4 + [1] * 5, [0] * 2 + [3] * 7])
    masks = [
        causal_mask(T, S),
        sliding_window_mask(T, S, window=3),
        document_mask(documents[:, -T:], documents),
    ]
    for mask in masks:
        expected = scaled_dot_product_attention(query, key, value, mask)
        close(flash_attention(query, key, value, mask, block_q=3, block_k=2), expected)


def test_any_number_of_leading_axes():
    query, key, value = inputs()
    expected = flash_attention(query, key, value, block_k=4)
    part = [x[1, 2] for x in (query, key, value)]
    close(flash_attention(*part, block_k=4), expected[1, 2])
    close(flash_attention(query[None], key[None], value[None], block_k=4), expected[None])


def test_without_keys_the_output_is_zero_and_the_lse_minus_infinity():
    query, key, value = inputs()
    out, lse = flash_attention(query, key[:, :, :0], value[:, :, :0], return_lse=True)
    assert (out == 0).all()
    assert (lse == -INF).all()
    assert flash_attention(query[:, :, :0], key, value).shape == (B, H, 0, DV)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("blocks", [(1, 1), (4, 3), (9, 11), (2, 16)])
def test_backward_equals_autograd_with_a_gradient_of_the_lse(kind, blocks):
    options = masking(kind)
    leaves = [x.requires_grad_() for x in inputs()]
    scores = masked_scores(*leaves[:2], **options, scale=0.7)
    out = scaled_dot_product_attention(*leaves, scale=0.7, **options)
    lse = logsumexp(scores)
    grad, grad_lse = random(B, H, T, DV, seed=5), random(B, H, T, seed=6)
    expected = torch.autograd.grad((out, lse), leaves, (grad, grad_lse))
    block_q, block_k = blocks
    actual = flash_attention_backward(
        grad,
        *leaves,
        out,
        lse,
        scale=0.7,
        grad_lse=grad_lse,
        block_q=block_q,
        block_k=block_k,
        **options,
    )
    ours, our_lse = flash_attention(
        *leaves, scale=0.7, return_lse=True, block_q=block_q, block_k=block_k, **options
    )
    through = torch.autograd.grad((ours, our_lse), leaves, (grad, grad_lse))
    for a, b, c in zip(actual, through, expected, strict=True):
        close(a, c)
        close(b, c)


@pytest.mark.parametrize("kind", ["none", "bool", "causal"])
def test_flash_attention_agrees_with_finite_differences(kind):
    options = masking(kind)
    if options["attn_mask"] is not None:
        options["attn_mask"] = options["attn_mask"][:1, :, 2:4]
    query, key, value = (x[:1, :1].clone() for x in inputs())
    leaves = [x.requires_grad_() for x in (query[:, :, 2:4].clone(), key, value)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: flash_attention(q, k, v, block_q=1, block_k=4, return_lse=True, **options),
        leaves,
    )


def test_an_empty_row_has_zero_gradient_and_gives_none_to_its_keys():
    leaves = [x.requires_grad_() for x in inputs()]
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[1] = False
    out, lse = flash_attention(*leaves, mask, block_q=2, block_k=4, return_lse=True)
    grads = torch.autograd.grad((out[:, :, 1].sum() + lse[:, :, 1].sum()), leaves)
    assert all((g == 0).all() for g in grads)


def value_gradient(common, dtype):
    """Of three keys with the scores (c, c, c - 1): it is the weights, whatever c is."""
    query, key = torch.ones(1, 1, dtype=dtype), f64([common], [common], [common - 1]).to(dtype)
    value = torch.eye(3, dtype=dtype, requires_grad=True)
    out = flash_attention(query, key, value, scale=1.0, block_k=2)
    return torch.autograd.grad(out.sum(), value)[0][:, 0]


@pytest.mark.parametrize(
    ("dtype", "common"),
    [(torch.float32, c) for c in (0.0, 1e4, 1e6, -1e7)] + [(torch.float64, 1e14)],
)
def test_gradients_do_not_lose_digits_to_a_constant_that_all_scores_share(dtype, common):
    """With L = m + log l as one number, dV at 1e7 in float32 would sum to 0.87."""
    weights = softmax(f64(0.0, 0.0, -1.0))
    close(value_gradient(common, dtype).double(), weights, atol=2 * torch.finfo(dtype).eps)


def test_a_log_sum_exp_that_is_too_large_to_be_one_number_is_refused():
    query, key, value = (x.float() for x in inputs())
    out, lse = flash_attention(query, key, value, return_lse=True)
    message = r"lse must be at most 1\.68e\+04 in size in torch\.float32, got 2"
    with pytest.raises(ValueError, match=message + r"0000.*give the largest scores as reference"):
        flash_attention_backward(out, query, key, value, out, 0 * lse + 2e4)
    for position in (1, 3):
        given = [out, lse, out, lse]
        given[position] = 0 * lse + 2e5
        with pytest.raises(ValueError, match=r"lse\d must be at most .* subtract one number"):
            merge_outputs(*given)
    shifted = flash_attention_backward(
        out, query, key, value, out, lse - 3, reference=torch.full_like(lse, 3.0)
    )
    plain = flash_attention_backward(out, query, key, value, out, lse)
    for a, b in zip(shifted, plain, strict=True):
        close(a, b, atol=1e-5)


def test_a_log_sum_exp_of_the_largest_size_or_of_no_keys_is_taken():
    """The largest has units in the last place of 0.1 % at most: 2e-3 / 2^-52."""
    o, lse = f64((1,)), f64(2e-3 * 2**52)
    merge_outputs(o, lse, o, -lse)
    with pytest.raises(ValueError, match="lse2 must be at most"):
        merge_outputs(o, lse, o, torch.nextafter(lse, 2 * lse))
    half = torch.tensor([[2.0]]).bfloat16(), torch.tensor([-0.125]).bfloat16()
    nothing = torch.tensor([[0.0]]).bfloat16(), torch.tensor([-INF]).bfloat16()
    for merged in (merge_outputs(*half, *nothing), merge_outputs(*nothing, *half)):
        assert all(torch.equal(a, b) for a, b in zip(merged, half, strict=True))


def test_an_average_of_equal_values_whose_sum_overflows_is_that_value():
    value = ((1 + random(1, 40).sigmoid()) * 1e38).float().expand(4, 40)
    out = flash_attention(torch.zeros(1, 2), torch.zeros(4, 2), value)
    assert torch.equal(out, value[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("block", [1, 3, 64])
def test_an_average_of_large_values_does_not_overflow(dtype, block):
    """Ten equal keys with values 1e38: their sum is no float32, their average is 1e38."""
    largest = 1e38 if dtype != torch.float64 else 1e308
    value = f64(largest, -largest).to(dtype).expand(10, 2).contiguous()
    query, key = torch.zeros(3, 4, dtype=dtype), torch.zeros(10, 4, dtype=dtype)
    out = flash_attention(query, key, value, is_causal=False, block_q=2, block_k=block)
    expected = scaled_dot_product_attention(query, key, value)
    assert out.isfinite().all()
    ratio = out.double() / expected.double()
    close(ratio, torch.ones_like(ratio), atol=4 * torch.finfo(dtype).eps)


def test_states_whose_sum_of_values_overflows_are_refused():
    value = torch.full((10, 2), 1e38)
    with pytest.raises(ValueError, match=r"o overflows torch\.float32: the values are so large"):
        block_state(torch.zeros(10), value)
    half = block_state(torch.zeros(2), value[:2])
    with pytest.raises(ValueError, match=r"o overflows torch\.float32"):
        merge_states(half, half)
    assert block_state(torch.zeros(2), torch.full((2, 1), INF)).o.item() == INF


def test_an_infinite_value_is_read_as_it_is():
    value = torch.tensor([[INF], [1.0]])
    assert flash_attention(torch.zeros(1, 2), torch.zeros(2, 2), value).item() == INF


def test_gradients_of_the_scale_are_refused():
    query, key, value = inputs()
    scale = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match="scale must not require grad: it is a constant here"):
        flash_attention(query, key, value, scale=scale)
    close(
        flash_attention(query, key, value, scale=scale.detach()),
        flash_attention(query, key, value, scale=0.5),
    )


def test_gradients_of_a_mask_are_refused_and_a_second_derivative_too():
    query, key, value = inputs()
    bias = torch.zeros(T, S, dtype=torch.float64, requires_grad=True)
    with pytest.raises(
        ValueError, match="attn_mask must not require grad: it is a constant here, detach it"
    ):
        flash_attention(query, key, value, bias)
    query.requires_grad_()
    out = flash_attention(query, key, value)
    (grad,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_kept_and_the_lse_is_float32_at_least(dtype):
    leaves = [x.to(dtype).requires_grad_() for x in inputs()]
    out, lse = flash_attention(*leaves, block_q=2, block_k=4, return_lse=True)
    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    exact = scaled_dot_product_attention(*(x.detach().double() for x in leaves))
    close(out.double(), exact, atol=2 * torch.finfo(dtype).eps * exact.abs().max().item())
    grads = torch.autograd.grad(out.float().sum(), leaves)
    assert [g.dtype for g in grads] == [dtype] * 3


def test_half_precision_states_are_kept_in_float32():
    state = block_state(random(S).bfloat16(), random(S, DV).bfloat16())
    assert {x.dtype for x in state} == {torch.float32}
    assert empty_state((2,), 3, dtype=torch.bfloat16).l.dtype == torch.float32
    assert empty_state((2,), 3, dtype=torch.float64).m.dtype == torch.float64
    assert online_logsumexp(torch.zeros(2, 3).bfloat16()).dtype == torch.bfloat16


class Traffic(TorchFunctionMode):
    """Counts the elements that slices read from the tensors in slow memory, or write."""

    def __init__(self, *slow):
        super().__init__()
        self.slow = {x.untyped_storage().data_ptr() for x in slow}
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.__getitem__ and self._is_slow(args[0]):
            self.count += result.numel()
        if func is torch.Tensor.__setitem__:
            self.count += args[2].numel()
        return result

    def _is_slow(self, x):
        return x.untyped_storage().data_ptr() in self.slow


def moved(T, S, D, DV, block_q, block_k, **options):
    query, key, value = random(T, D), random(S, D, seed=1), random(S, DV, seed=2)
    with Traffic(query, key, value) as traffic:
        flash_attention(query, key, value, block_q=block_q, block_k=block_k, **options)
    return traffic.count


@pytest.mark.parametrize(
    "sizes", [(100, 77, 8, 5, 16), (64, 64, 4, 4, 64), (33, 10, 2, 3, 1), (5, 7, 3, 2, 9)]
)
@pytest.mark.parametrize("block_k", [4, 16, 100])
def test_traffic_of_the_loop_is_the_formula_whatever_the_tiles_of_keys(sizes, block_k):
    assert moved(*sizes, block_k) == hbm_elements(*sizes)


def test_traffic_worked_by_hand():
    """T = S = 4, D = Dv = 2, tiles of 2: Q, O 16, m, log l 8, K, V twice 16; stored: 64 + 32."""
    assert hbm_elements(4, 4, 2, 2, 2) == 56
    assert standard_hbm_elements(4, 4, 2, 2) == 96


def test_traffic_stays_quadratic_with_a_smaller_constant():
    ratios = [
        standard_hbm_elements(4096, 4096, 128, 128) / hbm_elements(4096, 4096, 128, 128, b)
        for b in (64, 128, 256)
    ]
    assert [round(r, 2) for r in ratios] == [1.02, 2.0, 3.88]
    growth = hbm_elements(8192, 8192, 128, 128, 64) / hbm_elements(4096, 4096, 128, 128, 64)
    assert 3.9 < growth < 4


def test_tiles_above_the_diagonal_are_not_computed():
    """With n square tiles in each direction, n (n + 1) / 2 of n^2 remain."""
    for n in range(1, 9):
        query, key, value = (random(2 * n, d) for d in (D, D, DV))
        counts = []
        for causal in (False, True):
            with FlopCounterMode(display=False) as counter:
                flash_attention(query, key, value, is_causal=causal, block_q=2, block_k=2)
            counts.append(counter.get_total_flops())
        assert 2 * n * counts[1] == (n + 1) * counts[0]


def saved_numbers(function, *leaves):
    sizes = []

    def pack(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function(*leaves)
    return sizes


def test_what_is_saved_for_the_backward_pass_is_linear_in_the_length():
    for T, S in ((7, 9), (14, 18)):
        leaves = [random(n, d).requires_grad_() for n, d in ((T, D), (S, D), (S, DV))]
        sizes = saved_numbers(flash_attention, *leaves)
        assert sum(sizes) == T * D + S * D + S * DV + T * DV + 2 * T
        assert max(saved_numbers(scaled_dot_product_attention, *leaves)) == T * S


def test_flops_are_2_products_forward_and_5_backward():
    query, key, value = (random(8, D) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        out, lse = flash_attention(query, key, value, return_lse=True, block_q=2, block_k=4)
    one = 2 * 8 * 8 * D
    assert counter.get_total_flops() == 2 * one
    with FlopCounterMode(display=False) as counter:
        flash_attention_backward(out, query, key, value, out, lse, block_q=2, block_k=4)
    assert counter.get_total_flops() == 5 * one


BAD_SHAPES = {
    r"query must be \(\.\.\., T, D\), got \(4,\)": (random(D), random(S, D), random(S, DV)),
    r"key must be \(\.\.\., S, D\) beside query \(1, 7, 4\), got \(9, 4\)": (
        random(1, T, D),
        random(S, D),
        random(S, DV),
    ),
    r"key must be \(\.\.\., S, D\) beside query \(7, 5\), got \(9, 4\)": (
        random(T, D + 1),
        random(S, D),
        random(S, DV),
    ),
    r"value must be \(\.\.\., S, Dv\) beside query \(7, 4\), key \(9, 4\), got \(8, 5\)": (
        random(T, D),
        random(S, D),
        random(S - 1, DV),
    ),
}


@pytest.mark.parametrize("message", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_refused(message):
    with pytest.raises(ValueError, match=message):
        flash_attention(*BAD_SHAPES[message])


def test_dtypes_that_do_not_fit_are_refused():
    query, key, value = inputs()
    with pytest.raises(TypeError, match="floating-point tensors of one dtype"):
        flash_attention(query.long(), key.long(), value.long())
    with pytest.raises(
        TypeError, match=r"needs floating-point tensors of one dtype, got query torch\.float64"
    ):
        flash_attention(query, key, value.float())
    integer = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(TypeError, match=r"scores must be floating point, got torch\.int64"):
        block_state(integer, torch.zeros(3, 1))
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        online_logsumexp(integer)
    with pytest.raises(TypeError, match=r"o1 must be floating point, got torch\.int64"):
        merge_outputs(integer, torch.zeros(2), integer, torch.zeros(2))
    with pytest.raises(TypeError, match=r"dtype must be floating point, got torch\.int64"):
        empty_state((2,), 3, dtype=torch.long)


def test_tiles_and_options_out_of_range_are_refused():
    query, key, value = inputs()
    with pytest.raises(ValueError, match="block_q must be at least 1, got 0"):
        flash_attention(query, key, value, block_q=0, block_k=4)
    with pytest.raises(
        ValueError, match="causal attention needs at least as many keys as queries, got 7 keys"
    ):
        flash_attention(key, query, query, is_causal=True)
    with pytest.raises(ValueError, match=r"scale must be in \(-inf, inf\), got inf"):
        flash_attention(query, key, value, scale=INF)
    with pytest.raises(ValueError, match=r"the mask \(3, 9\) does not broadcast"):
        flash_attention(query, key, value, torch.ones(3, S, dtype=torch.bool))
    with pytest.raises(ValueError, match="a mask holds zeros and ones only"):
        flash_attention(query, key, value, torch.full((T, S), 2))
    with pytest.raises(ValueError, match=r"a score is \+inf or NaN"):
        flash_attention(query * math.nan, key, value)
    with pytest.raises(ValueError, match="block_q must be at least 1, got 0"):
        hbm_elements(4, 4, 2, 2, 0)
    for function in (standard_hbm_elements, lambda *sizes: hbm_elements(*sizes, 1)):
        with pytest.raises(ValueError, match="key_len must be at least 1, got 0"):
            function(4, 0, 2, 2)


@pytest.mark.parametrize("name", ["grad_output", "out", "lse", "grad_lse", "reference"])
def test_what_was_saved_must_have_its_shape(name):
    query, key, value = inputs()
    out, lse = flash_attention(query, key, value, return_lse=True)
    given = {"grad_output": out, "out": out, "lse": lse, "grad_lse": lse, "reference": lse}
    given[name] = given[name][..., 1:]
    options = {key: given.pop(key) for key in ("grad_lse", "reference")}
    arguments = (given["grad_output"], query, key, value, given["out"], given["lse"])
    with pytest.raises(ValueError, match=f"^{name} must be"):
        flash_attention_backward(*arguments, **options)
    with pytest.raises(ValueError, match="lse holds NaN"):
        flash_attention_backward(out, query, key, value, out, lse * math.nan)


def test_states_that_do_not_fit_are_refused():
    a, b = empty_state((3,), DV), empty_state((3,), DV + 1)
    with pytest.raises(ValueError, match="states must have the same shapes"):
        merge_states(a, b)
    with pytest.raises(ValueError, match=r"a state is m \(...\), l \(...\), o"):
        finalize_state(SoftmaxState(a.m, a.l, a.o[:2]))
    for m in (INF, math.nan, -INF):
        bad = SoftmaxState(torch.full((3,), m), torch.ones(3), a.o)
        with pytest.raises(ValueError, match="a state has a finite m, or it is empty"):
            merge_states(a, bad)
    with pytest.raises(ValueError, match="value_dim must be at least 0"):
        empty_state((3,), -1)
    with pytest.raises(ValueError, match=r"a score is \+inf or NaN"):
        block_state(f64(0.0, INF), random(2, DV))
    for value in (random(S - 1, DV), random(S), random(2, S, DV)):
        with pytest.raises(ValueError, match=r"one value \(Dv,\) for each score"):
            block_state(random(3, S), value)
    for scores, value in ((random(S), random(3, S, DV)), (f64(1.0)[0], random(1, DV))):
        with pytest.raises(ValueError, match=r"one value \(Dv,\) for each score"):
            block_state(scores, value)


def test_a_state_may_be_of_no_queries():
    assert [tuple(x.shape) for x in empty_state((0, 3), DV)] == [(0, 3), (0, 3), (0, 3, DV)]


def test_outputs_that_do_not_fit_are_refused():
    o, lse = random(3, DV), random(3)
    with pytest.raises(
        ValueError,
        match=r"lse2 must be \(\.\.\.\) = \(3,\) beside o1 \(3, 5\), lse1 \(3,\), o2 \(3, 5\), got",
    ):
        merge_outputs(o, lse, o, lse[:2])
    for bad in (INF, math.nan):
        with pytest.raises(ValueError, match=r"lse2 must be in \[-inf, inf\)"):
            merge_outputs(o, lse, o, torch.full((3,), bad))
        with pytest.raises(ValueError, match=r"x must be in \[-inf, inf\)"):
            online_logsumexp(f64(0.0, bad))
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., n\), got \(\)"):
        online_logsumexp(torch.tensor(1.0))
