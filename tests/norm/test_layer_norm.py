"""LayerNorm: values, backward, Jacobian, folding, and the residual block."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmref.norm.layer_norm import (
    LayerNorm,
    ResidualBlock,
    fold_layer_norm,
    layer_norm,
    layer_norm_backward,
    layer_norm_jacobian,
    layer_norm_stats,
)
from tests.tensors import close, random

law = settings(deadline=None, max_examples=60)
rows = st.lists(st.floats(-100, 100), min_size=2, max_size=7).filter(
    lambda row: max(row) - min(row) > 1e-3
)


def loop_layer_norm(x, weight, bias, eps):
    """The definition, one row at a time."""
    y = torch.empty_like(x)
    for index in range(x.size(0)):
        row = x[index].tolist()
        mean = sum(row) / len(row)
        variance = sum((entry - mean) ** 2 for entry in row) / len(row)
        for j, entry in enumerate(row):
            y[index, j] = weight[j] * (entry - mean) / math.sqrt(variance + eps) + bias[j]
    return y


def test_one_two_three():
    """Mean 2, variance 2/3: (-1, 0, 1) / sqrt(2/3)."""
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    close(layer_norm(x, 3, eps=0), torch.tensor([-1.0, 0, 1], dtype=torch.float64) * math.sqrt(1.5))
    mean, rstd = layer_norm_stats(x, 3, eps=0)
    assert mean.tolist() == [2.0]
    close(rstd, torch.tensor([math.sqrt(1.5)], dtype=torch.float64))


def test_the_fast_form_equals_the_loop():
    x, weight, bias = random(5, 7), random(7, seed=1), random(7, seed=2)
    close(layer_norm(x, 7, weight, bias, eps=1e-3), loop_layer_norm(x, weight, bias, 1e-3))


def test_two_axes_are_normalised_together():
    x = random(2, 3, 5)
    together = layer_norm(x.reshape(2, 15), 15, eps=1e-5).reshape(2, 3, 5)
    close(layer_norm(x, (3, 5), eps=1e-5), together)
    assert not torch.allclose(layer_norm(x, 5, eps=1e-5), together)


@law
@given(rows, st.floats(-50, 50), st.sampled_from([-3.0, 0.25, 2.0]))
def test_scaling_the_input_rescales_eps(row, shift, scale):
    x = torch.tensor(row, dtype=torch.float64)
    n, eps = len(row), 0.1
    scaled = layer_norm(scale * x + shift, n, eps=eps)
    close(scaled, math.copysign(1, scale) * layer_norm(x, n, eps=eps / scale**2), atol=1e-9)


@law
@given(rows)
def test_the_image_is_a_sphere_in_the_plane_of_mean_zero(row):
    n = len(row)
    y = layer_norm(torch.tensor(row, dtype=torch.float64), n, eps=0)
    assert abs(y.sum()) < 1e-9
    assert abs(y.square().sum() - n) < 1e-9
    assert y.abs().max() <= math.sqrt(n - 1) + 1e-9


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_backward_equals_autograd(eps, shape):
    x = random(2, 3, 5, 7).requires_grad_()
    weight, bias = (random(*shape, seed=s).requires_grad_() for s in (1, 2))
    dy = random(2, 3, 5, 7, seed=3)
    grads = torch.autograd.grad(
        (layer_norm(x, shape, weight, bias, eps=eps) * dy).sum(), (x, weight, bias)
    )
    for ours, expected in zip(layer_norm_backward(dy, x, weight, eps=eps), grads, strict=True):
        close(ours.detach(), expected)


def test_backward_without_weight_and_of_a_single_row():
    x, dy = random(7).requires_grad_(), random(7, seed=1)
    (dx,) = torch.autograd.grad((layer_norm(x, 7, eps=1e-5) * dy).sum(), x)
    ours = layer_norm_backward(dy, x, eps=1e-5)
    close(ours[0].detach(), dx)
    close(ours[1].detach(), (dy * layer_norm(x, 7, eps=1e-5)).detach())
    close(ours[2], dy)
    wide = random(2, 5, 7)
    assert layer_norm_backward(wide, wide, normalized_shape=(5, 7), eps=1e-5)[1].shape == (5, 7)


def test_backward_without_weight_or_shape_runs_over_the_last_axis():
    x, dy = random(2, 3, 5).requires_grad_(), random(2, 3, 5, seed=1)
    (dx,) = torch.autograd.grad((layer_norm(x, 5, eps=0.1) * dy).sum(), x)
    ours = layer_norm_backward(dy, x, eps=0.1)
    close(ours[0].detach(), dx)
    close(ours[1].detach(), (dy * layer_norm(x, 5, eps=0.1)).sum((0, 1)).detach())
    close(ours[2], dy.sum((0, 1)))


def test_gradcheck():
    x, weight, bias = (random(*s).requires_grad_() for s in ((3, 5), (5,), (5,)))
    assert torch.autograd.gradcheck(
        lambda *a: layer_norm(a[0], 5, a[1], a[2], eps=0.1), (x, weight, bias)
    )


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_jacobian_equals_autograd(eps):
    x = random(2, 5)
    for row, ours in zip(x, layer_norm_jacobian(x, eps=eps), strict=True):
        close(ours, torch.autograd.functional.jacobian(lambda r: layer_norm(r, 5, eps=eps), row))


def test_jacobian_of_one_feature_is_zero():
    assert torch.equal(layer_norm_jacobian(random(2, 1), eps=0.1), torch.zeros(2, 1, 1).double())


def test_folding_leaves_the_function():
    x, gamma, beta = random(3, 5), random(5, seed=1), random(5, seed=2)
    weight, bias = random(7, 5, seed=3), random(7, seed=4)
    for b in (bias, None):
        folded = fold_layer_norm(weight, b, gamma, beta)
        expected = nn.functional.linear(layer_norm(x, 5, gamma, beta, eps=1e-5), weight, b)
        close(nn.functional.linear(layer_norm(x, 5, eps=1e-5), *folded), expected)
    close(fold_layer_norm(weight, bias, gamma, None)[1], bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(dtype):
    x = (300 * random(4, 64) + 1000).to(dtype)
    y = layer_norm(x, 64, eps=1e-5)
    assert y.dtype == dtype
    assert torch.equal(y, layer_norm(x.float(), 64, eps=1e-5).to(dtype))
    assert y.isfinite().all()


def test_the_variance_is_taken_from_differences():
    """The mean square minus the squared mean is off by the size of the variance here."""
    x = (1e4 + random(1024)).float()
    exact = x.double().var(unbiased=False)
    _, rstd = layer_norm_stats(x, 1024, eps=0)
    assert abs(rstd.double() ** -2 - exact) < 1e-3 * exact
    one_pass = x.square().mean() - x.mean().square()
    assert abs(one_pass - exact) > 0.5 * exact


def test_a_large_mean_costs_no_digits():
    """In float32 the mean of 1e8, 1e8 and 1e8 + 8 is a multiple of 8; a third of 8 is left over."""
    y = layer_norm(torch.tensor([1e8, 1e8, 1e8 + 8]), 3, eps=1e-5)
    close(y, torch.tensor([-1.0, -1.0, 2.0]) / math.sqrt(2), atol=1e-6)
    x = (1e4 + random(200, 1024)).float()
    exact = layer_norm(x.double(), 1024, eps=0)
    assert (layer_norm(x, 1024, eps=0) - exact).abs().max() < 1e-6
    two_pass = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    assert (two_pass - exact).abs().max() > 1e-4


@pytest.mark.parametrize("n", [5, 64, 1024])
def test_the_mean_is_the_exact_one_rounded_once(n):
    """The rounded sum of so many entries of 10^4 is off by more than a unit."""
    x = (1e4 + random(200, n)).float()
    mean, _ = layer_norm_stats(x, n, eps=0)
    assert torch.equal(mean, x.double().mean(-1, keepdim=True).float())


def test_subnormal_rows_and_the_largest_eps_lose_nothing():
    """Entries of 1, 2 and 3 smallest units; 10^19 over the root of 10^38 + 3 10^38 is 1/2."""
    smallest = torch.tensor([1.0, 2.0, 3.0]) * 2.0**-149
    close(layer_norm(smallest, 3, eps=0), torch.tensor([-1.0, 0, 1]) * math.sqrt(1.5), atol=1e-6)
    x = torch.tensor([1e19, -1e19])
    close(layer_norm(x, 2, eps=3e38), torch.tensor([0.5, -0.5]), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_size_are_normalised(dtype):
    """Squares overflow from 1.8e19 and underflow below 1e-23; (1, 2, 3) has one direction."""
    expected = torch.tensor([-1.0, 0.0, 1.0]) * math.sqrt(1.5)
    for power in (64, 120, -40, -100, -120):
        x = torch.tensor([1.0, 2.0, 3.0]).to(dtype) * 2.0**power
        close(layer_norm(x, 3, eps=0).float(), expected, atol=4e-3)
        grads = layer_norm_backward(torch.tensor([1.0, 0, 0]).to(dtype), x, eps=0)
        scaled = layer_norm_backward(torch.tensor([1.0, 0, 0]).to(dtype), x * 2.0**-power, eps=0)
        close(grads[0] * 2.0**power, scaled[0], atol=1e-6)


def test_differences_from_the_mean_may_exceed_the_largest_number():
    """3e38 - (-3e38) is infinite in float32, and so is the sum of three of them."""
    x = torch.tensor([3e38, -3e38, 3e38])
    close(layer_norm(x, 3, eps=1e-5), torch.tensor([1.0, -2.0, 1.0]) / math.sqrt(2))
    mean, rstd = layer_norm_stats(x, 3, eps=1e-5)
    close(mean / 1e38, torch.ones(1), atol=1e-6)
    close(rstd * 3e38 * math.sqrt(8) / 3, torch.ones(1), atol=1e-5)
    flat = torch.full((2, 5), 3e38)
    assert (layer_norm(flat, 5, eps=1e-5) == 0).all()
    close(layer_norm_stats(flat, 5, eps=1e-5)[1], torch.full((2, 1), 1e-5**-0.5), atol=1e-3)


def test_a_gradient_that_overflows_is_refused():
    x = torch.tensor([1e-43, 2e-43])
    with pytest.raises(ValueError, match=r"1 / standard deviation overflows torch\.float32"):
        layer_norm_backward(x, x, eps=0)
    with pytest.raises(ValueError, match=r"1 / standard deviation overflows torch\.float32"):
        layer_norm_jacobian(x, eps=0)


def test_each_row_is_scaled_by_itself():
    x = torch.tensor([[1e30, 2e30, 3e30], [1e-30, 2e-30, 3e-30]])
    expected = torch.tensor([-1.0, 0.0, 1.0]) * math.sqrt(1.5)
    close(layer_norm(x, 3, eps=0), expected.expand(2, 3), atol=1e-6)


def test_a_constant_row_gives_the_bias_or_is_refused():
    x = torch.full((2, 3), 0.1, dtype=torch.float64)
    bias = random(3)
    close(layer_norm(x, 3, bias=bias, eps=1e-5), bias.expand(2, 3), atol=1e-11)
    with pytest.raises(ValueError, match=r"constant row with eps = 0 is 0/0"):
        layer_norm(x, 3, eps=0)
    close(layer_norm(torch.ones(2, 1), 1, bias=torch.ones(1), eps=1e-5), torch.ones(2, 1))


def test_a_nan_stays_a_nan_in_its_own_row():
    x = random(2, 3)
    x[0, 1] = math.nan
    y = layer_norm(x, 3, eps=0)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def test_the_module_takes_the_weights_of_torch():
    theirs = nn.LayerNorm(5, eps=1e-3, dtype=torch.float64)
    nn.init.normal_(theirs.weight)
    ours = LayerNorm(5, eps=1e-3).double()
    ours.load_state_dict(theirs.state_dict())
    x = random(3, 5)
    close(ours(x), theirs(x).detach())
    assert LayerNorm(5, bias=False, eps=1e-5).bias is None
    assert list(LayerNorm(5, elementwise_affine=False, eps=1e-5).parameters()) == []


def test_a_residual_block_normalises_before_or_after():
    norm, sublayer, x = LayerNorm(5, eps=1e-5).double(), nn.Linear(5, 5).double(), random(3, 5)
    with torch.no_grad():
        pre = ResidualBlock(norm, sublayer, "pre")(x)
        close(pre, x + sublayer(layer_norm(x, 5, eps=1e-5)))
        close(ResidualBlock(norm, sublayer, "post")(x), layer_norm(x + sublayer(x), 5, eps=1e-5))
    with pytest.raises(
        ValueError, match=r"placement must be one of \['pre', 'post'\], got 'sandwich'"
    ):
        ResidualBlock(norm, sublayer, "sandwich")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: layer_norm(x, 4, eps=1e-5),
            ValueError,
            r"over \(4,\) needs an input \(\.\.\., \*\(4,\)\)",
        ),
        (
            lambda x: layer_norm_backward(x, x, normalized_shape=0, eps=1e-5),
            ValueError,
            "normalized_shape must be at least 1, got 0",
        ),
        (lambda x: LayerNorm(3, eps=-1.0), ValueError, "eps must be at least 0 and finite, got -1"),
        (lambda x: LayerNorm([], eps=1e-5), ValueError, "normalized_shape must name an axis"),
        (lambda x: layer_norm_jacobian(x.sum(), eps=1), ValueError, r"x must be \(\.\.\., n\)"),
        (lambda x: layer_norm_jacobian(x[:, :0], eps=1), ValueError, "with n >= 1, got .2, 0."),
        (
            lambda x: layer_norm(x, (), eps=1e-5),
            ValueError,
            "normalized_shape must name an axis at least",
        ),
        (
            lambda x: layer_norm(x[:, :0], 0, eps=1e-5),
            ValueError,
            "normalized_shape must be at least 1, got 0",
        ),
        (
            lambda x: layer_norm(x, 3, torch.ones(1), eps=1e-5),
            ValueError,
            r"weight must have the shape \(3,\)",
        ),
        (
            lambda x: layer_norm(x, 3, None, x, eps=1e-5),
            ValueError,
            r"bias must have the shape \(3,\), got \(2, 3",
        ),
        (
            lambda x: layer_norm(x, 3, eps=-1.0),
            ValueError,
            r"eps must be at least 0 and finite, got -1\.0",
        ),
        (
            lambda x: layer_norm(x, 3, eps=math.nan),
            ValueError,
            "eps must be at least 0 and finite, got nan",
        ),
        (
            lambda x: layer_norm(x.long(), 3, eps=1e-5),
            TypeError,
            r"x must be floating point, got torch\.int64",
        ),
        (
            lambda x: layer_norm_backward(x[0], x, eps=1e-5),
            ValueError,
            r"grad_output must be \(\.\.\.\) = \(2, 3\) beside x \(2, 3\), got \(3,\)",
        ),
        (
            lambda x: fold_layer_norm(x, None, x[0, :2], None),
            ValueError,
            r"gamma must be \(n,\) = \(3,\) beside weight \(2, 3\), got \(2,\)",
        ),
        (
            lambda x: fold_layer_norm(x, x[0], x[0], None),
            ValueError,
            r"bias must be \(out,\) = \(2,\) beside weight \(2, 3\), got \(3,\)",
        ),
        (
            lambda x: fold_layer_norm(x, None, x[0], x[:, 0]),
            ValueError,
            r"beta must be \(n,\) = \(3,\) beside weight \(2, 3\), gamma \(3,\), got \(2,\)",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(random(2, 3))


def test_printing_a_norm_shows_its_shape_and_parameters():
    shown = "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True, bias=False)"
    assert repr(LayerNorm((2, 3), eps=1e-5, bias=False)) == shown


def test_autograd_of_a_constant_row_of_any_size_equals_the_backward_pass():
    """With s = 1/300, the gradient of the output times 1e38 overflows; the mean's own does not."""
    for size in (3e38, 1e38, 1.0):
        x = torch.full((1, 4), size).requires_grad_()
        dy = torch.tensor([[1.0, -2.0, 3.0, 1.0]])
        slope = torch.autograd.grad((layer_norm(x, 4, eps=1e-5) * dy).sum(), x)[0]
        by_hand = layer_norm_backward(dy, x.detach(), eps=1e-5)[0]
        torch.testing.assert_close(slope, by_hand, rtol=1e-5, atol=1e-3)
        of_mean = torch.autograd.grad(layer_norm_stats(x, 4, eps=1e-5)[0].sum(), x)[0]
        assert (of_mean == 0.25).all()
