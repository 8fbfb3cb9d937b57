"""Accumulation and clipping: worked numbers, loops, laws, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmref.training.gradient_accumulation import (
    clip_by_global_norm,
    clip_by_value,
    global_norm,
    token_mean_scale,
    token_weights,
)
from tests.tensors import close, f64, random

SHAPES = [(3, 4), (5,), (1,), (2, 0), (1, 2, 3)]


def gradients(scale=1.0, seed=0, dtype=torch.float64):
    return [
        random(*shape, seed=seed + k, scale=scale, dtype=dtype) for k, shape in enumerate(SHAPES)
    ]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def test_scale_by_hand():
    """3 + 5 + 0 + 2 = 10 tokens; averaged over 4 ranks, the factor is 4 / 10."""
    counts = torch.tensor([3, 5, 0, 2])
    assert token_mean_scale(counts, world_size=1) == 0.1
    assert token_mean_scale(counts.reshape(2, 2), world_size=4) == 0.4


def test_weights_by_hand():
    """Counts 8, 2, 6, 7 sum to 23: 23/32, 23/8, 23/24, 23/28; the mean over tokens is 1."""
    counts = torch.tensor([8, 2, 6, 7])
    found = token_weights(counts)
    close(found, f64(23 / 32, 23 / 8, 23 / 24, 23 / 28))
    close((found * counts).sum() / 23, f64(1)[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bfloat16])
def test_counts_of_small_dtypes_do_not_wrap(dtype):
    """100 + 200 would be 44 in uint8."""
    counts = torch.tensor([100, 200, 100]).to(dtype)
    assert token_mean_scale(counts, world_size=1) == 1 / 400
    close(token_weights(counts), f64(4 / 3, 2 / 3, 4 / 3))


def test_a_piece_without_tokens_weighs_infinitely():
    assert token_weights(torch.tensor([0, 3])).tolist() == [math.inf, 0.5]


def test_norm_by_hand():
    """Root of 3^2 + (2^2 + 6^2) = root of 49, with zeros or without."""
    assert global_norm([f64(3.0), f64((2.0, 6.0))]) == 7
    assert global_norm([f64(3.0, 0.0), f64((2.0, -6.0))]) == 7


def test_norm_is_a_loop_over_all_entries():
    total = 0.0
    for tensor in gradients():
        for entry in tensor.flatten().tolist():
            total += entry**2
    close(global_norm(gradients()), f64(math.sqrt(total))[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e19, 1e30])
def test_squares_neither_overflow_nor_vanish_in_float32(scale):
    """A norm of 5e30 is a float32; its square is none."""
    found = global_norm([torch.tensor([3.0 * scale]), torch.tensor([4.0 * scale])])
    assert found.item() == pytest.approx(5 * scale, rel=1e-6, abs=0)


def test_norm_of_16_bits_is_computed_in_float32():
    """2^16 halves: the norm is 128, and their sum of squares, 2^14, is beyond bfloat16's digits."""
    halves = torch.full((2**16,), 0.5, dtype=torch.bfloat16)
    found = global_norm([halves, halves[:1]])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(math.sqrt(2**14 + 0.25), rel=1e-6)


def test_norm_says_infinity_and_nan():
    assert global_norm([f64(1.0), f64(-math.inf)]) == math.inf
    assert global_norm([f64(math.inf), f64(math.nan)]).isnan()


def test_norm_of_nothing_but_zeros_or_empty_tensors():
    assert global_norm([torch.zeros(3), torch.zeros(2)]) == 0
    assert global_norm([torch.empty(0)]) == 0


def test_clipping_by_hand():
    """(3, 4) has norm 5; to norm 1 it is (0.6, 0.8)."""
    clipped, norm = clip_by_global_norm([f64(3.0), f64(4.0)], max_norm=1.0)
    close(flat(clipped), f64(0.6, 0.8))
    assert norm == 5


@given(scale=st.floats(1e-3, 1e3), max_norm=st.floats(1e-3, 1e3))
def test_the_result_is_short_enough_and_in_the_same_direction(scale, max_norm):
    grads = gradients(scale)
    clipped, norm = clip_by_global_norm(grads, max_norm=max_norm)
    short = flat(clipped)
    assert short.norm() <= max_norm * (1 + 1e-12)
    close(short * norm, flat(grads) * short.norm(), atol=1e-9 * scale * max(scale, max_norm))
    assert short.norm().item() == pytest.approx(min(max_norm, norm.item()))


@pytest.mark.parametrize("max_norm", [0.5, 50.0])
def test_gradients_pass_through_norm_and_clipping(max_norm):
    """Of a gradient penalty, say: checked by differences, clipped and not."""
    grads = [random(2, 3, seed=1).requires_grad_(), random(4, seed=2).requires_grad_()]

    def of(*grads):
        clipped, norm = clip_by_global_norm(list(grads), max_norm=max_norm)
        return *clipped, norm

    assert torch.autograd.gradcheck(of, grads)


def test_at_the_limit_and_below_nothing_changes():
    for grads in ([f64(3.0), f64(4.0)], [f64(0.3), f64(0.4)], [f64(0.0)]):
        clipped, _ = clip_by_global_norm(grads, max_norm=5.0)
        assert [t.tolist() for t in clipped] == [t.tolist() for t in grads]
        assert clipped[0] is not grads[0]


def test_inputs_are_unchanged():
    grads = gradients(9.0)
    before = [t.clone() for t in grads]
    clip_by_global_norm(grads, max_norm=0.1)
    clip_by_value(grads, max_value=0.1)
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))


def test_dtypes_are_kept_each_and_rounded_once():
    grads = [torch.full((3,), 3.0, dtype=torch.bfloat16), torch.full((2,), 4.0)]
    clipped, norm = clip_by_global_norm(grads, max_norm=0.7)
    assert [t.dtype for t in clipped] == [torch.bfloat16, torch.float32]
    factor = 0.7 / math.sqrt(27 + 32)
    assert clipped[0][0] == torch.tensor(3 * factor).bfloat16()
    assert norm.dtype == torch.float32


def test_clipping_by_value_by_hand():
    close(flat(clip_by_value([f64(-3.0, 0.2), f64(0.5)], max_value=0.5)), f64(-0.5, 0.2, 0.5))


def test_a_factor_too_small_for_float32_is_applied_in_two_steps():
    """1e-36 / 1e10 is no float32, and the result 1e-36 is one."""
    clipped, _ = clip_by_global_norm([torch.tensor([1e10])], max_norm=1e-36)
    assert clipped[0].item() == pytest.approx(1e-36, rel=1e-6, abs=0)


def test_a_limit_beyond_float16_cuts_nothing_there():
    grads = [torch.tensor([6e4, -6e4], dtype=torch.float16)]
    assert clip_by_value(grads, max_value=1e5)[0].tolist() == grads[0].tolist()


@pytest.mark.parametrize("grads", [torch.ones(2), (g for g in [torch.ones(2)])])
def test_a_tensor_or_a_generator_is_no_list(grads):
    with pytest.raises(TypeError, match="grads must be a list or a tuple of tensors, got"):
        global_norm(grads)


@pytest.mark.parametrize("function", [global_norm, lambda g: clip_by_value(g, max_value=1.0)])
def test_no_gradient_is_refused(function):
    with pytest.raises(ValueError, match="grads must hold a gradient, got none: has backward"):
        function([])


def test_what_is_no_gradient_is_refused():
    with pytest.raises(TypeError, match=r"grads\[1\] must be a tensor, got None: leave it out"):
        global_norm([torch.ones(1), None])
    with pytest.raises(TypeError, match=r"grads\[0\] must be floating point, got torch.int64"):
        global_norm([torch.ones(1).long()])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_limits_must_be_positive(bad):
    with pytest.raises(ValueError, match="max_norm must be positive and finite, got"):
        clip_by_global_norm([torch.ones(1)], max_norm=bad)
    with pytest.raises(ValueError, match="max_value must be positive and finite, got"):
        clip_by_value([torch.ones(1)], max_value=bad)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="grads must be finite as a norm; skip this step, got"):
        clip_by_global_norm([torch.tensor([1.0, bad])], max_norm=1.0)
    with pytest.raises(ValueError, match="grads must be finite, got"):
        clip_by_value([torch.tensor([1.0, bad])], max_value=1.0)


@pytest.mark.parametrize("function", [token_weights, lambda c: token_mean_scale(c, world_size=1)])
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([0, 0], "counts must hold a counted token, got only 0"),
        ([], "counts must hold a counted token, got only 0"),
        ([3, -1], "counts must be at least 0 and finite, got -1.0"),
        ([3.0, math.nan], "counts must be at least 0 and finite, got nan"),
    ],
)
def test_counts_are_refused(function, counts, message):
    with pytest.raises(ValueError, match=message):
        function(torch.tensor(counts))


def test_shapes_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"counts must be \(K\), got \(2, 2\)"):
        token_weights(torch.ones(2, 2))
    with pytest.raises(ValueError, match="world_size must be at least 1, got 0"):
        token_mean_scale(torch.ones(2), world_size=0)
