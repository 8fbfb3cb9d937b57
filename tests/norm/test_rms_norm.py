"""RMSNorm: values, backward, cast orders, and what may be folded, centred or rotated."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmref.norm.layer_norm import layer_norm
from llmref.norm.rms_norm import (
    RMSNorm,
    fold_rms_norm,
    layer_norm_to_rms_norm,
    rms_norm,
    rms_norm_backward,
    rms_norm_jacobian,
    rotate_residual,
)
from tests.tensors import close, random

law = settings(deadline=None, max_examples=60)
rows = st.lists(st.floats(-100, 100), min_size=1, max_size=7).filter(
    lambda row: max(map(abs, row)) > 1e-3
)


def orthogonal(n, seed=0):
    return torch.linalg.qr(random(n, n, seed=seed))[0]


def test_three_four():
    """The mean square is 25/2, its root 5 / sqrt 2."""
    x = torch.tensor([3.0, 4.0], dtype=torch.float64)
    close(rms_norm(x, 2, eps=0), x * math.sqrt(2) / 5)


def test_the_fast_form_equals_the_loop():
    x, weight = random(5, 7), random(7, seed=1)
    for row, y in zip(x, rms_norm(x, 7, weight, eps=1e-3), strict=True):
        root = math.sqrt(sum(entry**2 for entry in row.tolist()) / 7 + 1e-3)
        close(y, torch.stack([w * entry / root for w, entry in zip(weight, row, strict=True)]))


def test_two_axes_are_normalised_together():
    x = random(2, 3, 5)
    close(rms_norm(x, (3, 5), eps=None), rms_norm(x.reshape(2, 15), 15, eps=None).reshape(2, 3, 5))


def test_eps_none_is_the_machine_epsilon_of_the_type_computed_in():
    tiny = torch.full((1, 4), 1e-4)
    for dtype, eps in ((torch.float32, 2**-23), (torch.bfloat16, 2**-23), (torch.float64, 2**-52)):
        x = tiny.to(dtype)
        assert torch.equal(rms_norm(x, 4, eps=None), rms_norm(x, 4, eps=eps))


@law
@given(rows, st.sampled_from([-3.0, 0.25, 2.0]))
def test_scaling_the_input_rescales_eps(row, scale):
    x, n, eps = torch.tensor(row, dtype=torch.float64), len(row), 0.1
    expected = math.copysign(1, scale) * rms_norm(x, n, eps=eps / scale**2)
    close(rms_norm(scale * x, n, eps=eps), expected, atol=1e-9)


@law
@given(rows)
def test_the_image_is_the_sphere_of_radius_root_n(row):
    y = rms_norm(torch.tensor(row, dtype=torch.float64), len(row), eps=0)
    assert abs(y.square().sum() - len(row)) < 1e-9


@pytest.mark.parametrize("eps", [0.0, None, 0.3])
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_backward_equals_autograd(eps, shape):
    x, weight = random(2, 3, 5, 7).requires_grad_(), random(*shape, seed=1).requires_grad_()
    dy = random(2, 3, 5, 7, seed=3)
    grads = torch.autograd.grad((rms_norm(x, shape, weight, eps=eps) * dy).sum(), (x, weight))
    for ours, expected in zip(rms_norm_backward(dy, x, weight, eps=eps), grads, strict=True):
        close(ours.detach(), expected)


def test_backward_without_weight_and_of_a_single_row():
    x, dy = random(7).requires_grad_(), random(7, seed=1)
    (dx,) = torch.autograd.grad((rms_norm(x, 7, eps=None) * dy).sum(), x)
    ours = rms_norm_backward(dy, x, eps=None)
    close(ours[0].detach(), dx)
    close(ours[1].detach(), (dy * rms_norm(x, 7, eps=None)).detach())
    wide = random(2, 5, 7)
    assert rms_norm_backward(wide, wide, normalized_shape=(5, 7), eps=None)[1].shape == (5, 7)


def test_backward_without_weight_or_shape_runs_over_the_last_axis():
    x, dy = random(2, 3, 5).requires_grad_(), random(2, 3, 5, seed=1)
    (dx,) = torch.autograd.grad((rms_norm(x, 5, eps=0.1) * dy).sum(), x)
    ours = rms_norm_backward(dy, x, eps=0.1)
    close(ours[0].detach(), dx)
    close(ours[1].detach(), (dy * rms_norm(x, 5, eps=0.1)).sum((0, 1)).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_of_any_size_are_normalised(dtype):
    """(3, 4) times any power of 2 has the same direction; squares would over- or underflow."""
    largest = 1021 if dtype == torch.float64 else 125
    expected = (torch.tensor([3.0, 4.0], dtype=torch.float64) * math.sqrt(2) / 5).to(dtype)
    for power in (largest, 70, -70, -largest):
        row = torch.tensor([3.0, 4.0], dtype=torch.float64) * 2.0**power
        torch.testing.assert_close(rms_norm(row.to(dtype), 2, eps=0), expected, rtol=1e-6, atol=0)
    large = torch.tensor([3e20, 4e20]).to(dtype).requires_grad_()
    torch.testing.assert_close(rms_norm(large, 2, eps=1e-6).detach(), expected, rtol=1e-2, atol=0)
    (dx,) = torch.autograd.grad(rms_norm(large, 2, eps=1e-6)[0], large)
    dy = torch.tensor([1.0, 0.0]).to(dtype)
    torch.testing.assert_close(dx, rms_norm_backward(dy, large.detach(), eps=1e-6)[0])
    assert (dx != 0).all()


def test_a_subnormal_row_has_a_direction_but_no_gradient_in_its_type():
    row = torch.tensor([3e-42, 4e-42])
    torch.testing.assert_close(
        rms_norm(row, 2, eps=0), torch.tensor([0.6, 0.8]) * math.sqrt(2), rtol=1e-2, atol=0
    )
    with pytest.raises(ValueError, match=r"1 / rms overflows torch\.float32"):
        rms_norm_backward(torch.ones(2), row, eps=0)
    with pytest.raises(ValueError, match=r"1 / rms overflows torch\.float32"):
        rms_norm_jacobian(row, eps=0)


def test_tiny_rows_below_eps_are_divided_by_its_root():
    torch.testing.assert_close(
        rms_norm(torch.tensor([1e-30]), 1, eps=1e-4), torch.tensor([1e-28]), rtol=1e-6, atol=0
    )


def test_scaling_by_a_power_of_two_changes_no_bit():
    """The plain formula, where nothing overflows."""
    x = random(64, 64).float()
    for eps in (0.0, 1e-6, 0.3):
        plain = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        assert torch.equal(rms_norm(x, 64, eps=eps), plain)


def test_an_eps_that_is_zero_in_the_type_computed_in_counts_as_zero():
    with pytest.raises(ValueError, match=r"row of zeros with eps = 0 is 0/0"):
        rms_norm(torch.zeros(2, 3), 3, eps=1e-60)


def test_gradcheck():
    x, weight = random(3, 5).requires_grad_(), random(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, 5, w, eps=0.1), (x, weight))


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_jacobian_equals_autograd(eps):
    x = random(2, 5)
    for row, ours in zip(x, rms_norm_jacobian(x, eps=eps), strict=True):
        close(ours, torch.autograd.functional.jacobian(lambda r: rms_norm(r, 5, eps=eps), row))


def test_jacobian_of_one_feature():
    """d/dx x (x^2 + eps)^(-1/2) = eps (x^2 + eps)^(-3/2)."""
    x = random(4, 1)
    close(rms_norm_jacobian(x, eps=0.1), (0.1 * (x.square() + 0.1) ** -1.5)[..., None])


@pytest.mark.parametrize(
    ("dtype", "kept", "refused"),
    [
        (torch.float32, 1 - 4 * 2**-23, 1 - 4.5 * 2**-23),
        (torch.float64, 1 + 4e-9, 1 + 6e-9),
    ],
)
def test_orthogonal_is_within_1e_8_or_8_units_of_rounding(dtype, kept, refused):
    """The square of 1 - d is off by 2 d: 8 and 9 units of float32, 8e-9 and 1.2e-8."""
    one = torch.eye(3, dtype=dtype)
    assert torch.equal(rotate_residual(one, one, kept * one)[0], kept * one)
    with pytest.raises(ValueError, match="q must be orthogonal"):
        rotate_residual(one, one, refused * one)


def test_layer_norm_is_the_rms_norm_of_the_centred_row():
    x, gamma, beta = random(3, 5), random(5, seed=1), random(5, seed=2)
    centred = x - x.mean(-1, keepdim=True)
    close(layer_norm(x, 5, gamma, beta, eps=0.1), rms_norm(centred, 5, gamma, eps=0.1) + beta)


def test_folding_leaves_the_function():
    x, gamma, weight = random(3, 5), random(5, seed=1), random(7, 5, seed=2)
    close(
        rms_norm(x, 5, eps=None) @ fold_rms_norm(weight, gamma).T,
        rms_norm(x, 5, gamma, eps=None) @ weight.T,
    )


def test_centred_writers_turn_layer_norm_into_rms_norm():
    """An embedding, one block with a bias, and a head, all read through norms."""
    table, (w1, b1) = random(11, 5), (random(5, 7, seed=1), random(5, seed=2))
    reader, head = random(7, 5, seed=3), random(3, 5, seed=4)

    def network(norm, table, weight, bias):
        x = table[torch.tensor([1, 4, 9])]
        x = x + torch.tanh(norm(x) @ reader.T) @ weight.T + bias
        return norm(x) @ head.T

    (columns, none), (weight, bias) = layer_norm_to_rms_norm([(table.T, None), (w1, b1)])
    assert none is None
    expected = network(lambda x: layer_norm(x, 5, eps=1e-3), table, w1, b1)
    close(network(lambda x: rms_norm(x, 5, eps=1e-3), columns.T, weight, bias), expected)
    different = network(lambda x: rms_norm(x, 5, eps=1e-3), table, w1, b1)
    assert (different - expected).abs().max() > 0.1


def test_rotated_readers_and_writers_leave_the_function():
    x, q = random(3, 5), orthogonal(5)
    reader, writer = random(7, 5, seed=1), random(5, 7, seed=2)

    def network(x, reader, writer):
        return rms_norm(x + torch.tanh(rms_norm(x, 5, eps=None) @ reader.T) @ writer.T, 5, eps=None)

    turned = network(x @ q, *rotate_residual(reader, writer, q))
    close(turned, network(x, reader, writer) @ q)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(dtype):
    """300^2 is infinite in float16."""
    x = torch.full((2, 64), 300.0).to(dtype)
    y = rms_norm(x, 64, eps=None)
    assert y.dtype == dtype
    assert torch.equal(y, torch.ones_like(y))
    weight = random(64).float()
    expected = (rms_norm(x.float(), 64, eps=None) * weight).to(dtype)
    assert torch.equal(rms_norm(x, 64, weight, eps=None), expected)


def test_the_cast_before_the_weight_rounds_twice():
    x, weight = random(64, 64).bfloat16(), random(64, seed=1).bfloat16()
    before, after = RMSNorm(64, eps=1e-6, cast="before_weight"), RMSNorm(64, eps=1e-6)
    for norm in (before, after):
        norm.weight.data = weight
    x_hat = rms_norm(x, 64, eps=1e-6)
    assert torch.equal(before(x), weight * x_hat)
    assert torch.equal(after(x), (weight.float() * rms_norm(x.float(), 64, eps=1e-6)).bfloat16())
    assert 0.1 < (before(x) != after(x)).float().mean() < 0.5
    assert RMSNorm(64, cast="before_weight", eps=None)(x).dtype == torch.float32  # float32 weight
    assert RMSNorm(64, eps=None)(x).dtype == torch.bfloat16


def test_a_zero_centred_gain_starts_at_one_and_is_formed_in_float32():
    norm = RMSNorm(64, eps=1e-6, zero_centered=True)
    assert torch.equal(norm.weight, torch.zeros(64))
    x = random(3, 64).bfloat16()
    assert torch.equal(norm(x), rms_norm(x, 64, eps=1e-6))
    norm.weight.data = random(64, seed=1).bfloat16()
    assert torch.equal(norm(x), rms_norm(x, 64, 1 + norm.weight.float(), eps=1e-6))
    plain = RMSNorm(64, eps=1e-6, zero_centered=True, cast="before_weight")
    plain.weight.data = norm.weight.data
    assert torch.equal(plain(x), (1 + norm.weight.float()).bfloat16() * rms_norm(x, 64, eps=1e-6))


def test_the_module_takes_the_weights_of_torch():
    theirs = nn.RMSNorm(5, eps=1e-3, dtype=torch.float64)
    nn.init.normal_(theirs.weight)
    ours = RMSNorm(5, eps=1e-3).double()
    ours.load_state_dict(theirs.state_dict())
    close(ours(random(3, 5)), theirs(random(3, 5)).detach())
    assert list(RMSNorm(5, elementwise_affine=False, eps=None).parameters()) == []
    close(
        RMSNorm(5, eps=1e-3, elementwise_affine=False)(random(3, 5)),
        rms_norm(random(3, 5), 5, eps=1e-3),
    )


def test_a_row_of_zeros_gives_zeros_or_is_refused():
    x = torch.zeros(2, 3)
    assert torch.equal(rms_norm(x, 3, eps=None), x)
    with pytest.raises(ValueError, match=r"row of zeros with eps = 0 is 0/0"):
        rms_norm(x, 3, eps=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: rms_norm(x, 4, eps=None), ValueError, r"rms_norm over \(4,\) needs an input"),
        (
            lambda x: rms_norm(x, 3, torch.ones(1), eps=None),
            ValueError,
            r"weight must have the shape \(3,\)",
        ),
        (
            lambda x: rms_norm(x, 3, eps=-1.0),
            ValueError,
            r"eps must be at least 0 and finite, got -1\.0",
        ),
        (
            lambda x: rms_norm(x.long(), 3, eps=None),
            TypeError,
            r"x must be floating point, got torch\.int64",
        ),
        (
            lambda x: rms_norm_backward(x[0], x, eps=None),
            ValueError,
            r"grad_output must be \(\.\.\.\) = \(2, 3\) beside x \(2, 3\), got \(3,\)",
        ),
        (
            lambda x: fold_rms_norm(x, x[0, :2]),
            ValueError,
            r"gamma must be \(n,\) = \(3,\) beside weight \(2, 3\), got \(2,\)",
        ),
        (
            lambda x: layer_norm_to_rms_norm([(x, x[0])]),
            ValueError,
            r"bias must be \(n,\) = \(2,\) beside weight \(2, 3\), got \(3,\)",
        ),
        (
            lambda x: rotate_residual(x, x.T, torch.eye(2)),
            ValueError,
            r"q must be \(n, n\) = \(3, 3\) beside weight_in \(2, 3\), got \(2, 2\)",
        ),
        (
            lambda x: rotate_residual(x, x, torch.eye(3)),
            ValueError,
            r"weight_out must be \(n, in\) beside weight_in \(2, 3\), q \(3, 3\), got \(2",
        ),
        (
            lambda x: rotate_residual(x, x.T, 2 * torch.eye(3).double()),
            ValueError,
            "q must be orthogonal, got q.T q that differs from I by 3",
        ),
        (
            lambda x: rotate_residual(x, x.T, torch.eye(3).long()),
            TypeError,
            "needs floating-point tensors of one dtype, got .* q torch.int64",
        ),
        (
            lambda x: rotate_residual(x, x.T.float(), torch.eye(3).double()),
            TypeError,
            "of one dtype, got .* weight_out torch.float32",
        ),
        (
            lambda x: rms_norm_backward(x, x, normalized_shape=0, eps=None),
            ValueError,
            "normalized_shape must be at least 1, got 0",
        ),
        (
            lambda x: rms_norm_backward(x, x, normalized_shape=(), eps=None),
            ValueError,
            "normalized_shape must name an axis",
        ),
        (lambda x: RMSNorm(3, eps=-1.0), ValueError, "eps must be at least 0 and finite, got -1"),
        (lambda x: RMSNorm([], eps=None), ValueError, "normalized_shape must name an axis"),
        (lambda x: rms_norm_jacobian(x.sum(), eps=None), ValueError, r"x must be \(\.\.\., n\)"),
        (lambda x: rms_norm_jacobian(x[:, :0], eps=None), ValueError, "with n >= 1, got .2, 0."),
        (lambda x: RMSNorm(3, cast="never", eps=None), ValueError, "cast must be .*, got 'never'"),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(random(2, 3))


def test_printing_a_norm_shows_its_shape_and_conventions():
    gain = "elementwise_affine=True, zero_centered=False, cast='after_weight'"
    assert repr(RMSNorm(3, eps=1e-6)) == f"RMSNorm((3,), eps=1e-06, {gain})"
