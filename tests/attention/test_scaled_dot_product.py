"""Scaled dot-product attention: values, masks, gradients, and the laws it obeys."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.attention.online_softmax import flash_attention
from llmref.attention.scaled_dot_product import (
    attention_scores,
    attention_weights,
    effective_keys,
    masked_softmax,
    nadaraya_watson,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    soft_cap,
)
from tests.tensors import close, f64

INF = math.inf
B, H, T, S, D, DV = 2, 3, 5, 7, 4, 6
MASKS = ["none", "bool", "integer", "float", "causal", "bool and causal", "float and causal"]
law = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)


def inputs(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, H, T, D), (B, H, S, D), (B, H, S, DV)]
    drawn = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]
    return [x.to(dtype) for x in drawn]


def masking(kind, seed=0):
    """The arguments of a kind of mask. Query 1 of every head may attend to nothing under 'bool'."""
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(B, 1, T, S, generator=generator) < 0.6
    allowed[..., 1, :] = False
    bias = torch.randn(B, H, T, S, dtype=torch.float64, generator=generator)
    bias[:, :, 2, 3] = -INF
    mask = {"bool": allowed, "inte": allowed.long(), "floa": bias}.get(kind[:4])
    return {"attn_mask": mask, "is_causal": "causal" in kind}


def is_allowed(mask, is_causal, b, h, i, j):
    by_causality = not is_causal or j <= i + S - T
    if mask is None or mask.is_floating_point():
        return by_causality
    return by_causality and bool(mask.expand(B, H, T, S)[b, h, i, j])


def attention_as_a_loop(query, key, value, attn_mask, is_causal, scale, softcap=None):
    out = torch.zeros(B, H, T, DV, dtype=torch.float64)
    for b, h, i in torch.cartesian_prod(*map(torch.arange, (B, H, T))).tolist():
        numerator, denominator = torch.zeros(DV, dtype=torch.float64), 0.0
        for j in range(S):
            if not is_allowed(attn_mask, is_causal, b, h, i, j):
                continue
            score = scale * sum(query[b, h, i, c] * key[b, h, j, c] for c in range(D)).item()
            if softcap is not None:
                score = softcap * math.tanh(score / softcap)
            if attn_mask is not None and attn_mask.is_floating_point():
                score += attn_mask[b, h, i, j].item()
            numerator += math.exp(score) * value[b, h, j]
            denominator += math.exp(score)
        if denominator > 0:
            out[b, h, i] = numerator / denominator
    return out


def test_two_keys_worked_by_hand():
    """Scores 1/2 * (3, 8) = (1.5, 4) for query (3, 4), keys (1, 0) and (0, 2), scale 1/2."""
    query, key = f64([3.0, 4.0]), f64([1.0, 0.0], [0.0, 2.0])
    close(attention_scores(query, key, 0.5), f64([1.5, 4.0]))
    close(attention_scores(query, key), f64([3.0, 8.0]) / math.sqrt(2))


def test_an_average_worked_by_hand():
    """Scores (0, log 3, 7) with the third masked: weights (1/4, 3/4, 0), so 1/4 * 8 + 3/4 * 4."""
    query, key = f64([1.0]), f64([0.0], [math.log(3)], [7.0])
    value, mask = f64([8.0], [4.0], [1000.0]), torch.tensor([[True, True, False]])
    close(attention_weights(query, key, mask), f64([0.25, 0.75, 0.0]))
    close(scaled_dot_product_attention(query, key, value, mask), f64([5.0]))


def test_a_gradient_worked_by_hand():
    """D = 1, equal scores, values (0, 2), grad 1: P = (1/2, 1/2), dP = (0, 2), their mean is 1,
    so dS = (-1/2, 1/2); with keys (0, 4) and scale 1: dQ = 2, dK = dS * q = (-3/2, 3/2) for q = 3.
    """
    query, key, value = f64([0.0]), f64([0.0], [4.0]), f64([0.0], [2.0])
    grad = f64([1.0])
    dq, _, dv = scaled_dot_product_attention_backward(grad, query, key, value)
    close(dq, f64([2.0]))
    close(dv, f64([0.5], [0.5]))
    query, key = f64([3.0]), f64([4.0], [4.0])
    _, dk, _ = scaled_dot_product_attention_backward(grad, query, key, value)
    close(dk, f64([-1.5], [1.5]))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_equals_the_definition_written_as_a_loop(kind, scale):
    query, key, value = inputs()
    options = masking(kind)
    actual = scaled_dot_product_attention(query, key, value, scale=scale, **options)
    used = 1 / math.sqrt(D) if scale is None else scale
    close(actual, attention_as_a_loop(query, key, value, scale=used, **options))


@pytest.mark.parametrize("kind", MASKS)
def test_capped_attention_equals_its_loop_and_its_backward_autograd(kind):
    """A cap of 0.8 bends most scores; the bias is added after it, and stays as it is."""
    options = masking(kind)
    tensors = [x.requires_grad_() for x in inputs()]
    out = scaled_dot_product_attention(*tensors, scale=0.7, softcap=0.8, **options)
    close(out.detach(), attention_as_a_loop(*inputs(), **options, scale=0.7, softcap=0.8))
    grad = inputs(seed=1)[2][:, :, :T]
    expected = torch.autograd.grad(out, tensors, grad)
    actual = scaled_dot_product_attention_backward(
        grad, *tensors, scale=0.7, softcap=0.8, **options
    )
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


def test_a_soft_cap_by_hand():
    """tanh(log(3) / 2) = (3 - 1) / (3 + 1) = 1/2, so the cap 2 gives 1; without end it gives 2."""
    scores = f64([0.0, math.log(3), -math.log(3), INF, -INF])
    close(soft_cap(scores, 2.0), f64([0.0, 1.0, -1.0, 2.0, -2.0]))


def test_a_wide_cap_changes_little_and_a_narrow_one_evens_the_weights():
    query, key, _ = inputs()
    plain = attention_weights(query, key)
    close(attention_weights(query, key, softcap=1e6), plain, 1e-9)
    narrow = attention_weights(query, key, softcap=0.01)
    low, high = (1 / (1 + (S - 1) * math.exp(x)) for x in (0.02, -0.02))
    # Where one score is at one end and all others at the other, a bound is attained.
    rounding = 1e-15
    assert ((low - rounding <= narrow) & (narrow <= high + rounding)).all()
    order = attention_weights(query, key, softcap=0.8).argsort(-1)
    assert torch.equal(order, plain.argsort(-1))


@pytest.mark.parametrize("cap", [0.0, -1.0, INF, math.nan])
def test_a_cap_that_is_no_bound_is_refused(cap):
    query, key, value = inputs()
    with pytest.raises(ValueError, match="cap must be positive and finite"):
        soft_cap(query, cap)
    with pytest.raises(ValueError, match="cap must be positive and finite"):
        scaled_dot_product_attention(query, key, value, softcap=cap)
    with pytest.raises(TypeError, match=r"scores must be floating point, got torch\.int64"):
        soft_cap(query.long(), 2.0)


def test_masks_broadcast_over_leading_axes():
    query, key, value = inputs()
    generator = torch.Generator().manual_seed(1)
    for shape in [(S,), (T, S), (T, 1), (B, 1, 1, S), (1, H, T, 1), (B, H, T, S)]:
        mask = torch.rand(shape, generator=generator) < 0.7
        expected = scaled_dot_product_attention(query, key, value, mask.expand(B, H, T, S))
        close(scaled_dot_product_attention(query, key, value, mask), expected, atol=0)


def test_any_number_of_leading_axes():
    query, key, value = inputs()
    expected = scaled_dot_product_attention(query, key, value)
    close(scaled_dot_product_attention(query[1, 2], key[1, 2], value[1, 2]), expected[1, 2])
    close(scaled_dot_product_attention(query[None], key[None], value[None]), expected[None])


def test_causal_rows_are_the_last_rows_of_the_square_mask():
    """The last query is the last token: query i of T sees keys up to i + S - T."""
    _, key, value = inputs()
    full = scaled_dot_product_attention(key, key, value, is_causal=True)
    for queries in range(1, S + 1):
        part = scaled_dot_product_attention(key[:, :, -queries:], key, value, is_causal=True)
        close(part, full[:, :, -queries:])


def test_a_single_causal_query_sees_every_key():
    query, key, value = inputs()
    last = query[:, :, -1:]
    expected = scaled_dot_product_attention(last, key, value)
    close(scaled_dot_product_attention(last, key, value, is_causal=True), expected)


def test_a_mask_and_causality_are_both_required():
    query, key, _ = inputs()
    mask = masking("bool")["attn_mask"]
    weights = attention_weights(query, key, mask, is_causal=True)
    causal = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    assert (weights[~(mask & causal).expand_as(weights)] == 0).all()
    close(weights, attention_weights(query, key, mask & causal))


def test_float_zeros_and_ones_are_added_and_not_taken_for_a_selection():
    query, key, value = inputs()
    mask = masking("bool")["attn_mask"]
    zeros = torch.zeros(T, S, dtype=torch.float64)
    plain = scaled_dot_product_attention(query, key, value)
    close(scaled_dot_product_attention(query, key, value, zeros), plain)
    added = scaled_dot_product_attention(query, key, value, mask.double())
    assert (added - scaled_dot_product_attention(query, key, value, mask)).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_masked_softmax_takes_bool_and_exact_zeros_and_ones(dtype):
    scores = inputs()[0]
    mask = torch.tensor([True, False, True, True])
    close(masked_softmax(scores, mask.to(dtype)), masked_softmax(scores, mask), atol=0)
    assert (masked_softmax(scores, mask)[..., 1] == 0).all()


def test_masked_softmax_without_mask_is_softmax():
    scores = inputs()[0]
    close(masked_softmax(scores), torch.softmax(scores, -1))


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_an_empty_row_is_zero_with_zero_gradient(kind):
    """An additive mask followed by nan_to_num would look right here and pass NaN back."""
    query, key, value = (x.requires_grad_() for x in inputs())
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[1] = False
    if kind == "float":
        mask = torch.zeros(T, S, dtype=torch.float64).masked_fill(~mask, -INF)
    out = scaled_dot_product_attention(query, key, value, mask)
    assert (out[:, :, 1] == 0).all()
    gradients = torch.autograd.grad(out.square().sum(), (query, key, value))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, :, 1] == 0).all()
    by_hand = scaled_dot_product_attention_backward(2 * out, query, key, value, mask)
    for actual, expected in zip(by_hand, gradients, strict=True):
        close(actual, expected)


def test_without_any_key_the_output_is_zero():
    query, key, value = inputs()
    out = scaled_dot_product_attention(query, key[:, :, :0], value[:, :, :0])
    close(out, torch.zeros(B, H, T, DV, dtype=torch.float64))


def test_large_scores_neither_overflow_nor_vanish():
    query, key, value = inputs()
    out = scaled_dot_product_attention(1e3 * query, 1e3 * key, value)
    assert out.isfinite().all()
    scores = torch.tensor([[0.0, 0.0], [-2000.0, -2000.0]])
    close(masked_softmax(scores), torch.full((2, 2), 0.5))


def test_nan_in_a_masked_key_does_not_reach_the_output():
    query, key, value = inputs()
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[:, 3] = False
    expected = scaled_dot_product_attention(query, key, value, mask)
    key[:, :, 3] = math.nan
    close(scaled_dot_product_attention(query, key, value, mask), expected, atol=0)


@pytest.mark.parametrize("bad", [INF, math.nan])
def test_a_score_that_has_no_weight_is_refused(bad):
    with pytest.raises(ValueError, match=r"an allowed score is \+inf or NaN"):
        masked_softmax(f64([0.0, bad]))


def test_dropout_keeps_the_expected_output():
    query, key, value = inputs()
    torch.manual_seed(0)
    expected = scaled_dot_product_attention(query, key, value)
    draws = torch.stack(
        [scaled_dot_product_attention(query, key, value, dropout_p=0.25) for _ in range(4000)]
    )
    z = (draws.mean(0) - expected).abs() / (draws.std(0) / math.sqrt(len(draws)))
    assert z.max() < 5


def test_dropout_acts_on_the_weights_and_not_on_the_scores():
    """With one key its weight is 1, kept as 1 / (1 - p) or dropped to 0."""
    torch.manual_seed(0)
    query, key = torch.zeros(400, 1, 1), torch.zeros(400, 1, 1)
    out = scaled_dot_product_attention(query, key, torch.ones(400, 1, 1), dropout_p=0.2)
    assert out.unique().tolist() == [0.0, 1.25]


@pytest.mark.parametrize("kind", MASKS)
def test_backward_equals_autograd(kind):
    options = masking(kind)
    tensors = [x.requires_grad_() for x in inputs()]
    out = scaled_dot_product_attention(*tensors, scale=0.7, **options)
    grad = inputs(seed=1)[2][:, :, :T]
    expected = torch.autograd.grad(out, tensors, grad)
    actual = scaled_dot_product_attention_backward(grad, *tensors, scale=0.7, **options)
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


class ByHand(torch.autograd.Function):
    """Attention whose backward is the one derived on the page."""

    @staticmethod
    def forward(ctx, query, key, value, mask):
        ctx.save_for_backward(query, key, value, mask)
        return scaled_dot_product_attention(query, key, value, mask)

    @staticmethod
    def backward(ctx, grad):
        return (*scaled_dot_product_attention_backward(grad, *ctx.saved_tensors), None)


def test_backward_agrees_with_finite_differences():
    query, key, value = (x[:1, :2].clone().requires_grad_() for x in inputs())
    mask = masking("bool")["attn_mask"][:1]
    assert torch.autograd.gradcheck(ByHand.apply, (query, key, value, mask))


@pytest.mark.parametrize("kind", ["none", "bool", "causal"])
def test_forward_agrees_with_finite_differences(kind):
    options = masking(kind)
    if options["attn_mask"] is not None:
        options["attn_mask"] = options["attn_mask"][:1]
    tensors = [x[:1, :1].clone().requires_grad_() for x in inputs()]
    assert torch.autograd.gradcheck(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, **options), tensors
    )


@given(seeds)
@law
def test_each_output_lies_between_the_smallest_and_largest_allowed_value(seed):
    """A softmax over the queries (dim=-2) would leave this range."""
    query, key, value = inputs(seed)
    out = scaled_dot_product_attention(query, key, value)
    low, high = value.amin(-2, keepdim=True), value.amax(-2, keepdim=True)
    assert ((low - 1e-12 <= out) & (out <= high + 1e-12)).all()


@given(seeds, st.sampled_from(MASKS))
@law
def test_adding_one_vector_to_every_key_changes_nothing(seed, kind):
    query, key, value = inputs(seed)
    options = masking(kind, seed)
    shifted = key + inputs(seed + 1)[1][:, :, :1]
    expected = scaled_dot_product_attention(query, key, value, **options)
    close(scaled_dot_product_attention(query, shifted, value, **options), expected)


@given(seeds)
@law
def test_permuting_keys_values_and_mask_together_changes_nothing(seed):
    query, key, value = inputs(seed)
    mask = masking("bool", seed)["attn_mask"]
    order = torch.randperm(S, generator=torch.Generator().manual_seed(seed))
    permuted = (key[:, :, order], value[:, :, order], mask[..., order])
    expected = scaled_dot_product_attention(query, key, value, mask)
    close(scaled_dot_product_attention(query, *permuted), expected)


@given(seeds)
@law
def test_key_gradients_sum_to_zero(seed):
    gradients = scaled_dot_product_attention_backward(
        inputs(seed + 1)[2][:, :, :T], *inputs(seed), **masking("bool", seed)
    )
    close(gradients[1].sum(-2), torch.zeros(B, H, D, dtype=torch.float64))


def test_equal_weights_count_every_key_and_one_hot_weights_one():
    """(1/2, 1/2, 0): 1 / (1/4 + 1/4) = 2."""
    close(effective_keys(f64(0.5, 0.5, 0.0)), f64(2.0)[0])
    close(effective_keys(torch.full((3, S), 1 / S, dtype=torch.float64)), f64(7.0, 7.0, 7.0))
    close(effective_keys(torch.eye(3, dtype=torch.float64)), f64(1.0, 1.0, 1.0))
    p = masked_softmax(inputs()[0], None)
    close(effective_keys(p.mT, dim=-2), effective_keys(p))


def test_attention_over_keys_of_one_norm_is_a_gaussian_smoother():
    query, key, value = inputs()
    unit = 1.7 * key / key.norm(dim=-1, keepdim=True)
    sigma = D**0.25
    smoothed = nadaraya_watson(query, unit, value, sigma)
    close(smoothed, scaled_dot_product_attention(query, unit, value))
    uneven = nadaraya_watson(query, key, value, sigma)
    assert (uneven - scaled_dot_product_attention(query, key, value)).abs().max() > 0.1


def test_gaussian_smoother_worked_by_hand():
    """Distances 0 and 2, sigma = 1: kernels 1 and exp(-2)."""
    out = nadaraya_watson(f64([0.0]), f64([0.0], [2.0]), f64([1.0], [0.0]), 1.0)
    close(out, f64([1 / (1 + math.exp(-2))]))


def test_a_small_bandwidth_reads_the_nearest_key():
    query, key, value = inputs()
    nearest = (query.unsqueeze(-2) - key.unsqueeze(-3)).norm(dim=-1).argmin(-1)
    expected = value.gather(-2, nearest.unsqueeze(-1).expand(B, H, T, DV))
    close(nadaraya_watson(query, key, value, 1e-3), expected)


@pytest.mark.parametrize("bandwidth", [1e-19, 1e-20, 1e-30])
def test_the_nearest_key_counts_however_small_the_bandwidth_is(bandwidth):
    """In float32 every kernel underflows at 1e-20; the ratio of the kernels does not."""
    query, key, value = (
        torch.zeros(1, 1),
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[3.0], [5.0]]),
    )
    for keys in (1, 2):
        out = nadaraya_watson(query, key[:keys], value[:keys], bandwidth)
        close(out, torch.tensor([[3.0]]), atol=0)


def test_distances_that_overflow_are_refused():
    """Squares of 1e20 overflow in float32: no key is nearest, and 0 would be a wrong average."""
    query, key, value = torch.zeros(1, 1), torch.tensor([[1e20], [2e20]]), torch.ones(2, 1)
    with pytest.raises(ValueError, match="to its nearest key must be finite, got inf"):
        nadaraya_watson(query, key, value, 1.0)


def test_a_smoother_without_any_key_is_zero():
    query, key, value = inputs()
    out = nadaraya_watson(query, key[:, :, :0], value[:, :, :0], 1.0)
    close(out, torch.zeros(B, H, T, DV, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_kept_and_rounded_once(dtype):
    tensors = inputs(dtype=dtype)
    wide = [x.double() for x in tensors]
    grad = torch.ones(B, H, T, DV, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    pairs = [
        (attention_scores(*tensors[:2]), attention_scores(*wide[:2])),
        (attention_weights(*tensors[:2]), attention_weights(*wide[:2])),
        (scaled_dot_product_attention(*tensors), scaled_dot_product_attention(*wide)),
        (nadaraya_watson(*tensors, 1.0), nadaraya_watson(*wide, 1.0)),
        *zip(
            scaled_dot_product_attention_backward(grad, *tensors),
            scaled_dot_product_attention_backward(grad.double(), *wide),
            strict=True,
        ),
    ]
    for actual, expected in pairs:
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


QUERY, KEY, VALUE = inputs()
MISFITS = [
    (
        r"key must be \(\.\.\., S, D\) beside query \(2, 3, 5, 4\), got \(2, 3, 7, 3\)",
        (QUERY, KEY[..., :3], VALUE),
    ),
    (r"query must be \(\.\.\., T, D\) with D >= 1, got", (QUERY[..., :0], KEY[..., :0], VALUE)),
    (
        r"value must be \(\.\.\., S, Dv\) beside query \(2, 3, 5, 4\), key \(2, 3, 7",
        (QUERY, KEY, VALUE[:, :, :-1]),
    ),
    (
        r"key must be \(\.\.\., S, D\) beside query \(2, 3, 5, 4\), got \(2, 1, 7, 4\)",
        (QUERY, KEY[:, :1], VALUE[:, :1]),
    ),
    (r"query must be \(\.\.\., T, D\), got \(4,\)", (QUERY[0, 0, 0], KEY[0, 0], VALUE[0, 0])),
]


@pytest.mark.parametrize(("message", "tensors"), MISFITS)
def test_tensors_that_do_not_fit_are_refused_with_their_shapes(message, tensors):
    query, key, value = tensors
    for call in (
        lambda: scaled_dot_product_attention(query, key, value),
        lambda: nadaraya_watson(query, key, value, 1.0),
        lambda: scaled_dot_product_attention_backward(value, query, key, value),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_scores_refuse_what_does_not_fit():
    query, key, _ = inputs()
    with pytest.raises(
        ValueError,
        match=r"key must be \(\.\.\., S, D\) beside query \(2, 3, 5, 4\), got \(2, 3, 7, 3\)",
    ):
        attention_scores(query, key[..., :3])
    with pytest.raises(
        ValueError,
        match=r"key must be \(\.\.\., S, D\) beside query \(3, 5, 4\), got \(2, 3, 7, 4\)",
    ):
        attention_scores(query[0], key)
    for scale in (INF, math.nan):
        with pytest.raises(ValueError, match=rf"scale must be in \(-inf, inf\), got {scale}"):
            attention_scores(query, key, scale)


def test_dtypes_are_not_mixed():
    query, key, value = inputs()
    with pytest.raises(TypeError, match=r"one dtype, got query torch.float64, key torch.float32"):
        attention_scores(query, key.float())
    with pytest.raises(TypeError, match=r"value torch.int64"):
        scaled_dot_product_attention(query, key, value.long())
    with pytest.raises(TypeError, match=r"scores must be floating point, got torch\.int64"):
        masked_softmax(torch.zeros(2, dtype=torch.long))


def test_masks_that_do_not_fit_are_refused():
    query, key, value = inputs()
    for mask in (torch.ones(T, S - 1), torch.ones(T, S - 1).bool(), torch.ones(2, B, H, T, S)):
        with pytest.raises(ValueError, match=r"does not broadcast to the scores \(2, 3, 5, 7\)"):
            scaled_dot_product_attention(query, key, value, mask)
    with pytest.raises(ValueError, match="a mask holds zeros and ones only, got 2"):
        scaled_dot_product_attention(query, key, value, torch.tensor([0, 1, 2, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="a mask holds zeros and ones only, got -inf"):
        masked_softmax(f64([0.0, 0.0]), f64([0.0, -INF]))


def test_more_causal_queries_than_keys_are_refused():
    query, key, value = inputs()
    with pytest.raises(
        ValueError, match="causal attention needs at least as many keys as queries, got 3 keys"
    ):
        scaled_dot_product_attention(query, key[:, :, :3], value[:, :, :3], is_causal=True)


@pytest.mark.parametrize("dropout_p", [-0.1, 1.0, math.nan])
def test_dropout_outside_its_range_is_refused(dropout_p):
    with pytest.raises(ValueError, match=rf"dropout_p must be in \[0, 1\), got {dropout_p}"):
        scaled_dot_product_attention(*inputs(), dropout_p=dropout_p)


def test_backward_refuses_another_shape_of_gradient():
    with pytest.raises(
        ValueError,
        match=r"grad_output must be \(\.\.\., T, Dv\) = \(2, 3, 5, 6\) beside query \(2, 3",
    ):
        scaled_dot_product_attention_backward(inputs()[0], *inputs())


def test_effective_keys_of_an_empty_row_do_not_exist():
    with pytest.raises(ValueError, match="must sum to 1 along dim -1, got a sum of 0"):
        effective_keys(torch.zeros(3))
    with pytest.raises(ValueError, match=r"dim must be an axis of p \(1,\), in \[-1, 1\)"):
        effective_keys(torch.ones(1), 1)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, INF, math.nan])
def test_a_bandwidth_that_is_no_length_is_refused(bandwidth):
    with pytest.raises(ValueError, match=f"positive and finite, got {bandwidth}"):
        nadaraya_watson(*inputs(), bandwidth)


@pytest.mark.parametrize("form", ["weights", "flash"])
def test_a_score_that_overflows_downwards_is_refused_and_not_taken_for_masked(form):
    """Opposite signs, finite: -inf would leave the row empty, and the output 0."""
    query, key = torch.full((1, 1, 1, 2), -1e30), torch.full((1, 1, 3, 2), 1e30)
    value, mask = torch.ones(1, 1, 3, 1), torch.tensor([[False, True, True]])
    run = {"weights": scaled_dot_product_attention, "flash": flash_attention}[form]
    bias = torch.zeros(1, 3)
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": bias}):
        with pytest.raises(ValueError, match=r"overflows torch.float32 to -inf, and would count"):
            run(query, key, value, **options)
    key[..., 1:, :] = 0  # the one that is too long is masked, or after the query
    assert run(query, key, value, mask) == 1
    assert run(query, key, value, torch.tensor([[-INF, 0.0, 0.0]])) == 1
    assert run(query, key.flip(-2), value, scale=0.0, is_causal=True) == 1
    assert run(query.double(), key.double(), value.double()) == 1


def test_a_score_that_just_overflows_is_refused_however_many_queries_there_are():
    """One feature: the scale is 1, and the score -3 times the largest float32."""
    query, key = torch.zeros(64, 1), torch.full((2, 1), -1e9)
    query[5] = 3 * torch.finfo(torch.float32).max / 1e9
    with pytest.raises(ValueError, match=r"overflows torch.float32 to -inf"):
        attention_weights(query, key)


def test_a_capped_score_may_overflow():
    query, key = torch.full((1, 1, 1, 2), -1e30), torch.full((1, 1, 3, 2), 1e30)
    weights = attention_weights(query, key, softcap=5.0)
    close(weights, torch.full((1, 1, 1, 3), 1 / 3), atol=1e-7)
