"""BatchNorm: values, both modes, running statistics, backward, folding, and parts of a batch."""

import math

import pytest
import torch
from torch.nn import functional

from llmref.norm.batch_norm import (
    batch_norm_backward,
    batch_norm_eval,
    batch_norm_train,
    fold_batch_norm,
    merge_batch_stats,
    update_running,
)
from tests.tensors import close, f64, random

SHAPES = [(6, 3), (4, 3, 5), (2, 3, 5, 4)]


def test_two_zeros_and_two_sixes():
    """Mean 3, variance 9, so -1 and 1; stored with momentum 1/2 from (1, 4): 2 and (4 + 12) / 2."""
    y, mean, var = batch_norm_train(f64(0, 0, 6, 6)[:, None], eps=0)
    close(y[:, 0], f64(-1, -1, 1, 1))
    close(torch.cat([mean, var]), f64(3, 9))
    running = update_running(f64(1), f64(4), mean, var, count=4, momentum=0.5)
    close(torch.cat(running), f64(2, 8))
    close(batch_norm_eval(f64(6)[:, None], *running, f64(3), f64(1), eps=8)[0], f64(4))


def test_the_fast_form_equals_the_loop():
    for shape in SHAPES:
        x, weight, bias = random(*shape), random(3, seed=1), random(3, seed=2)
        y, mean, var = batch_norm_train(x, weight, bias, eps=0.1)
        for c in range(3):
            entries = x[:, c].flatten().tolist()
            mu = sum(entries) / len(entries)
            v = sum((it - mu) ** 2 for it in entries) / len(entries)
            assert abs(mean[c] - mu) + abs(var[c] - v) < 1e-12
            expected = [weight[c] * (it - mu) / math.sqrt(v + 0.1) + bias[c] for it in entries]
            close(y[:, c].flatten(), torch.stack(expected))
        close(batch_norm_eval(x, mean, var, weight, bias, eps=0.1), y)


def test_features_do_not_see_each_other():
    x = random(6, 3)
    y = batch_norm_train(x, eps=0.1)[0]
    x[:, 1] += random(6, seed=1)
    other = batch_norm_train(x, eps=0.1)[0]
    assert torch.equal(y[:, [0, 2]], other[:, [0, 2]])
    assert not torch.allclose(y[:, 1], other[:, 1])


def test_backward_equals_autograd_and_finite_differences():
    for shape in SHAPES:
        for eps in (0.0, 0.1):
            x = random(*shape).requires_grad_()
            weight, bias = (random(3, seed=s).requires_grad_() for s in (1, 2))
            dy = random(*shape, seed=3)
            y = batch_norm_train(x, weight, bias, eps=eps)[0]
            grads = torch.autograd.grad((y * dy).sum(), (x, weight, bias))
            with torch.no_grad():
                ours = batch_norm_backward(dy, x, weight, eps=eps)
                plain = batch_norm_backward(dy, x, eps=eps)
            for one, other in zip(ours, grads, strict=True):
                close(one, other)
            close(plain[1], ours[1])
    small = random(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: batch_norm_train(x, w, eps=0.1), (small, random(2, seed=1)), fast_mode=True
    )


def test_mean_and_variance_carry_gradients_and_running_statistics_none():
    x = random(6, 3).requires_grad_()
    _, mean, var = batch_norm_train(x, eps=0.1)
    (dx,) = torch.autograd.grad(mean.sum() + var.sum(), x, retain_graph=True)
    close(dx, (1 / 6 + (x - x.mean(0)) / 3).detach())
    state = torch.zeros(3, dtype=x.dtype), torch.ones(3, dtype=x.dtype)
    for kept in update_running(*state, mean, var, count=6, momentum=0.1):
        assert not kept.requires_grad
    assert state[0].eq(0).all()


def test_momentum_one_over_k_averages_all_batches():
    batches, running = random(5, 4, 3), (torch.zeros(3), torch.ones(3))
    for k, batch in enumerate(batches, start=1):
        _, *seen = batch_norm_train(batch, eps=0.1)
        running = update_running(*running, *seen, count=4, momentum=1 / k)
    close(running[0].double(), batches.mean((0, 1)), atol=1e-6)
    close(running[1].double(), batches.var(1).mean(0), atol=1e-6)


def test_folding_into_a_linear_layer_and_a_convolution():
    stats = random(3), random(3, seed=1).square()
    gamma, beta, bias = (random(3, seed=s) for s in (2, 3, 4))
    a, image = random(5, 4), random(2, 4, 5, 5)
    linear, kernel = random(3, 4, seed=5), random(3, 4, 2, 2, seed=6)
    for b, shift in ((bias, beta), (None, None)):
        folded = fold_batch_norm(linear, b, *stats, gamma, shift, eps=0.1)
        y = batch_norm_eval(functional.linear(a, linear, b), *stats, gamma, shift, eps=0.1)
        close(functional.linear(a, *folded), y)
        folded = fold_batch_norm(kernel, b, *stats, gamma, shift, eps=0.1)
        y = batch_norm_eval(functional.conv2d(image, kernel, b), *stats, gamma, shift, eps=0.1)
        close(functional.conv2d(image, *folded), y)


def test_parts_of_any_size_merge_to_the_whole():
    x = 5 + random(9, 3)
    for sizes in ([9], [4, 5], [1, 6, 2], [1] * 9):
        parts = x.split(sizes)
        means = torch.stack([it.mean(0) for it in parts])
        variances = torch.stack([it.var(0, correction=0) for it in parts])
        counts = torch.tensor(sizes, dtype=torch.uint8)
        merged = merge_batch_stats(means, variances, counts)
        for one, other in zip(merged, batch_norm_train(x, eps=0)[1:], strict=True):
            close(one, other)
    many = torch.full((2,), 200, dtype=torch.uint8)  # their sum wraps in 8 bits
    close(merge_batch_stats(f64((1,), (3,)), f64((0,), (0,)), many)[1], f64(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(dtype):
    x = (300 * random(64, 3) + 1000).to(dtype)
    y, mean, var = batch_norm_train(x, eps=1e-5)
    wide = batch_norm_train(x.float(), eps=1e-5)
    assert torch.equal(y, wide[0].to(dtype))
    assert mean.dtype == var.dtype == torch.float32
    assert torch.equal(mean, wide[1])
    assert torch.equal(batch_norm_eval(x, mean, var, eps=1e-5), y)


def test_entries_of_any_size_are_normalised():
    """(1, 2, 3) has one direction; a mean of 1e8 costs no digits."""
    expected = (f64(-1, 0, 1) * math.sqrt(1.5)).float()
    for scale in (1e15, 1e-15, 1e-25):
        x = scale * torch.tensor([[1.0], [2.0], [3.0]])
        close(batch_norm_train(x, eps=0)[0][:, 0], expected, atol=1e-6)
    y = batch_norm_train(torch.tensor([[1e8], [1e8], [1e8 + 8]]), eps=1e-5)[0]
    close(y[:, 0], torch.tensor([-1.0, -1.0, 2.0]) / math.sqrt(2), atol=1e-6)


def test_a_large_mean_costs_the_variance_no_digits():
    """Of (0, 0, 8) it is 64/3 - 64/9 = 128/9; beside 1e8 a mean in float32 is a multiple of 8."""
    _, _, var = batch_norm_train(torch.tensor([[1e8], [1e8], [1e8 + 8]]), eps=1e-5)
    assert var.item() == pytest.approx(128 / 9, rel=1e-6)


def test_two_entries_of_a_feature_are_enough_and_no_feature_needs_none():
    y, mean, var = batch_norm_train(f64((0,), (6,)), eps=0)
    close(torch.cat([y[:, 0], mean, var]), f64(-1, 1, 3, 9))
    y, mean, var = batch_norm_train(torch.ones(4, 0, 3), eps=0.1)
    assert (y.shape, mean.shape, var.shape) == ((4, 0, 3), (0,), (0,))


def test_a_constant_feature_gives_the_bias():
    y, mean, var = batch_norm_train(torch.full((4, 2), 7.0), bias=torch.tensor([1.0, 2]), eps=0.1)
    close(y, torch.tensor([[1.0, 2.0]]).expand(4, 2))
    assert (mean == 7).all()
    assert (var == 0).all()


@pytest.mark.parametrize(
    ("size", "dtype"), [(3e38, torch.float32), (-1.7e308, torch.float64), (3e38, torch.bfloat16)]
)
def test_a_constant_feature_whose_sum_overflows_gives_the_bias(size, dtype):
    """Four times 3e38 is beyond float32, but their mean is 3e38 and their variance is 0."""
    x = torch.full((4, 1), size, dtype=dtype).requires_grad_()
    y, mean, var = batch_norm_train(x, bias=torch.ones(1, dtype=dtype), eps=1e-5)
    assert (y == 1).all()
    assert mean.item() == x[0].item()
    assert var.item() == 0
    slope = torch.autograd.grad(mean.sum() + var.sum() + y.sum(), x)[0]
    assert (slope == 0.25).all()


x, c, state = random(4, 3), random(3), (random(3), random(3).square())
TWO = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: batch_norm_train(x[:1], eps=0.1), ValueError, "needs two entries of each feature"),
        (lambda: batch_norm_train(x[:0], eps=0.1), ValueError, "needs two entries of each feature"),
        (lambda: batch_norm_train(c, eps=0.1), ValueError, r"x must be \(N, C, \.\.\.\), got"),
        (lambda: batch_norm_train(x, eps=-1), ValueError, "eps must be at least 0"),
        (lambda: batch_norm_train(x.long(), eps=0.1), TypeError, "x must be floating point"),
        (lambda: batch_norm_train(0 * x, eps=0), ValueError, "constant feature with eps = 0"),
        (
            lambda: batch_norm_train(x, c[:2], eps=0.1),
            ValueError,
            r"weight must be \(C,\) with C = 3, got \(2,\) beside x \(4, 3\)",
        ),
        (
            lambda: batch_norm_train(1e30 * x.float(), eps=0.1),
            ValueError,
            r"variance must be finite \(the variance of a feature over the batch\)",
        ),
        (lambda: batch_norm_backward(c, x, eps=0.1), ValueError, r"grad_output must be \(\.\.\.\)"),
        (
            lambda: batch_norm_backward(x, 0 * x, eps=0),
            ValueError,
            "batch_norm_backward of a const",
        ),
        (
            lambda: batch_norm_backward(x.float(), 1e-44 * x.float().sign(), eps=0),
            ValueError,
            "rstd must be finite",
        ),
        (lambda: batch_norm_eval(x, *state, c[:1], eps=0.1), ValueError, r"weight must be \(C,\)"),
        (lambda: batch_norm_eval(x, c, -state[1], eps=0.1), ValueError, "running_var must be in"),
        (lambda: batch_norm_eval(x, c, 0 * c, eps=0), ValueError, "running variance of 0 with eps"),
        (
            lambda: update_running(*state, c, c[:2], count=4, momentum=0.1),
            ValueError,
            r"variance must be \(C,\)",
        ),
        (
            lambda: update_running(*state, c, c, count=1, momentum=0.1),
            ValueError,
            "count must be at least 2, got 1",
        ),
        (
            lambda: update_running(*state, c, c, count=4, momentum=1.5),
            ValueError,
            r"momentum must be in \[0, 1\], got 1\.5",
        ),
        (
            lambda: fold_batch_norm(x, None, *state, c, None, eps=0.1),
            ValueError,
            r"weight must be \(C, \.\.\.\) with C = 3 rows, got \(4, 3\)",
        ),
        (
            lambda: fold_batch_norm(x.mT, None, *state, c[:1], None, eps=0.1),
            ValueError,
            r"gamma must be \(C,\)",
        ),
        (
            lambda: merge_batch_stats(x, x.square(), torch.ones(4)),
            TypeError,
            "counts must hold integers",
        ),
        (
            lambda: merge_batch_stats(x, x.square(), torch.tensor([1, 2, 0, 3])),
            ValueError,
            "counts must be at least 1, got 0",
        ),
        (
            lambda: merge_batch_stats(torch.tensor([[3e38], [-3e38]]), torch.ones(2, 1), TWO),
            ValueError,
            r"variance must be finite \(of the whole batch, from means and variances\)",
        ),
        (
            lambda: merge_batch_stats(math.nan * x[:2], x[:2].square(), TWO),
            ValueError,
            r"variance must be finite \(of the whole batch, from means and variances\), got nan",
        ),
        (
            lambda: merge_batch_stats(x[:0], x[:0], torch.ones(0).long()),
            ValueError,
            r"means must be \(K, C\) with K >= 1",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("size", [1e-17, 1e-15, 1.0, 1e15])
def test_the_variance_has_its_gradient_at_every_size(size: float) -> None:
    x = (size * torch.tensor([[1.0], [2.0], [4.0], [8.0]])).requires_grad_()
    batch_norm_train(x, eps=0.0)[2].sum().backward()
    true = (x.detach() - x.detach().mean(0)) / 2
    assert x.grad is not None
    assert torch.allclose(x.grad / true, torch.ones(4, 1), rtol=1e-5)


def test_parts_with_large_means_keep_the_digits_of_their_spread() -> None:
    means = 1e8 + 8 * torch.arange(4.0)[:, None]
    mean, variance = merge_batch_stats(means, torch.ones(4, 1), torch.ones(4, dtype=torch.int64))
    assert variance.item() == 81
    assert abs(mean.item() - (1e8 + 12)) <= 4  # neighbours in float32 are 8 apart
    many = torch.tensor([2**62, 2**62])
    assert merge_batch_stats(means[:2] - 1e8, torch.ones(2, 1), many)[0].item() == 4
    with pytest.raises(ValueError, match=r"variances must be in \[0, inf\), got -1"):
        merge_batch_stats(means, -torch.ones(4, 1), torch.ones(4, dtype=torch.int64))


def test_scalars_are_numbers_and_parameters_floating() -> None:
    x, c = torch.randn(4, 3), torch.ones(3)
    with pytest.raises(TypeError, match="momentum must be one number"):
        update_running(c, c, c, c, count=4, momentum=torch.ones(2))  # type: ignore[arg-type]
    share = torch.tensor(0.1, requires_grad=True)
    stored = update_running(c, c, c, c, count=4, momentum=share)  # type: ignore[arg-type]
    assert not any(it.requires_grad for it in stored)
    with pytest.raises(TypeError, match="weight must be floating point"):
        batch_norm_backward(x, x, torch.ones(3, dtype=torch.int64), eps=0.1)
    with pytest.raises(TypeError, match="eps must be one number"):
        batch_norm_train(x, eps=torch.ones(2))  # type: ignore[arg-type]
