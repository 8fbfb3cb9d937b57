"""Muon: values, the iteration as a loop over numbers, laws, bounds, dtypes, and every refusal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.training.muon import (
    CUBIC,
    JORDAN,
    QUINTIC,
    MuonState,
    muon_scale,
    muon_step,
    nesterov_momentum,
    newton_schulz,
    newton_schulz_values,
    polar_factor,
)
from tests.tensors import close, f64, random

FIVE = {"steps": 5, "coefficients": JORDAN, "eps": 0.0}
STEP = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.5, "scale": 2.0, **FIVE}
shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def orthogonal(size, seed=0):
    return torch.linalg.qr(random(size, size, seed=seed))[0]


def test_one_step_of_the_iteration_by_hand():
    """diag(3, 4) has norm 5: 0.6 and 0.8.

    CUBIC: 0.9 - 0.5 * 0.216 = 0.792 and 1.2 - 0.5 * 0.512 = 0.944.
    """
    found = newton_schulz(torch.diag(f64(3.0, 4.0)), steps=1, coefficients=CUBIC, eps=0.0)
    close(found, torch.diag(f64(0.792, 0.944)))


def test_one_number_goes_through_the_polynomial():
    """p(1) = 3.4445 - 4.7750 + 2.0315 = 0.701, with the sign of the number."""
    found = newton_schulz(f64((-8.0,)), steps=1, coefficients=JORDAN, eps=0.0)
    close(found, f64((-0.701,)))


def test_no_steps_leave_the_matrix_over_its_norm():
    close(newton_schulz(f64((3.0, -4.0)), **{**FIVE, "steps": 0}), f64((0.6, -0.8)))


def test_one_step_of_muon_by_hand():
    """W = 1, G = 3, B = 8, momentum 1/2: the new B is 7, the direction 6.5, positive.

    NS_5(1 x 1) = p applied five times to 1; W = 0.95 * 1 - 0.1 * 2 * that.
    """
    state = muon_step(f64((1.0,)), f64((3.0,)), f64((8.0,)), **STEP)
    assert isinstance(state, MuonState)
    five = newton_schulz_values(f64(1.0), steps=5, coefficients=JORDAN)
    close(state.param, 0.95 - 0.2 * five[None])
    close(state.momentum_buffer, f64((7.0,)))


def test_momentum_by_hand():
    """0.5 * 8 + 3 = 7, and 3 + 0.5 * 7 = 6.5."""
    direction, buffer = nesterov_momentum(f64(3.0), f64(8.0), momentum=0.5)
    close(torch.cat([direction, buffer]), f64(6.5, 7.0))


@pytest.mark.parametrize("coefficients", [CUBIC, QUINTIC, JORDAN])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 2), (4, 4)])
def test_the_definition_as_a_loop_over_singular_values(shape, coefficients):
    g = random(*shape)
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    values = []
    for x in (s / s.square().sum().sqrt()).tolist():
        for _ in range(4):
            x = sum(f * x**k for f, k in zip(coefficients, (1, 3, 5), strict=True))
        values.append(x)
    found = newton_schulz(g, steps=4, coefficients=coefficients, eps=0.0)
    close(found, u @ torch.diag(f64(*values)) @ vt)
    close(
        newton_schulz_values(s / g.norm(), steps=4, coefficients=coefficients),
        f64(*values),
    )


def test_the_polar_factor_by_hand():
    """diag(3, -2) becomes diag(1, -1); the column (3, 4) its unit vector."""
    close(polar_factor(torch.diag(f64(3.0, -2.0))), torch.diag(f64(1.0, -1.0)))
    close(polar_factor(f64((3.0,), (4.0,))), f64((0.6,), (0.8,)))


def test_rounding_noise_is_no_rank():
    """A product of rank 2: the squared norm of the polar factor is 2, not 64."""
    g = random(64, 2) @ random(2, 96, seed=1)
    close(polar_factor(g).square().sum(), torch.tensor(2.0).double(), atol=1e-10)
    assert polar_factor(g.float()).square().sum().item() == pytest.approx(2, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 1000))
def test_rotations_come_out_and_the_scale_drops_out(shape, seed):
    g = random(*shape, seed=seed)
    left, right = orthogonal(shape[0], seed), orthogonal(shape[1], seed + 1)
    for function in (lambda x: newton_schulz(x, **FIVE), polar_factor):
        close(function(left @ g @ right), left @ function(g) @ right, atol=1e-7)
        close(function(7 * g), function(g), atol=1e-7)
        close(function(g.T), function(g).T, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-9, 1), st.integers(1, 40))
def test_values_stay_below_the_band_s_upper_end(x, steps):
    found = newton_schulz_values(f64(x), steps=steps, coefficients=JORDAN).item()
    assert 0 < found <= 1.2023687
    assert found <= JORDAN[0] ** steps * x * (1 + 1e-12)
    if steps >= 5 and x >= 0.0015052:
        assert found >= 0.68183


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 1000))
def test_the_polar_factor_is_the_best_update_of_spectral_norm_one(shape, seed):
    g, other = random(*shape, seed=seed), random(*shape, seed=seed + 1)
    other = other / torch.linalg.matrix_norm(other, 2)
    best = (g * polar_factor(g)).sum()
    assert (g * other).sum() <= best + 1e-9
    close(best, torch.linalg.svdvals(g).sum(), atol=1e-9)


@pytest.mark.parametrize("coefficients", [CUBIC, QUINTIC])
def test_the_others_converge_to_the_polar_factor(coefficients):
    g = random(4, 6)
    found = newton_schulz(g, steps=40, coefficients=coefficients, eps=0.0)
    close(found, polar_factor(g), atol=1e-10)


def test_a_sum_and_a_mean_move_alike_if_all_of_the_direction_is_scaled():
    grads = random(4, 3, 5)
    buffer, mean, corrected = (torch.zeros(3, 5).double() for _ in range(3))
    for t, g in enumerate(grads, start=1):
        direction, buffer = nesterov_momentum(g, buffer, momentum=0.9)
        mean = 0.9 * mean + 0.1 * g
        corrected = mean / (1 - 0.9**t)
    ours = newton_schulz(direction, **FIVE)
    close(newton_schulz(0.1 * g + 0.9 * mean, **FIVE), ours)
    for other in (g + 0.9 * mean, 0.1 * g + 0.9 * corrected):
        assert (newton_schulz(other, **FIVE) - ours).abs().max() > 0.05


@pytest.mark.parametrize(
    ("shape", "rule", "expected"),
    [
        ((4, 9), "original", 1.0),
        ((9, 4), "original", 1.5),
        ((4, 9), "match_rms_adamw", 0.6),
        ((9, 4), "match_rms_adamw", 0.6),
        ((4, 9), "spectral", 2 / 3),
        ((9, 4), "spectral", 1.5),
        ((8, 36), "match_rms_adamw", 1.2),
    ],
)
def test_factors_by_hand(shape, rule, expected):
    assert muon_scale(shape, rule=rule) == pytest.approx(expected, rel=1e-15)


def test_gradcheck():
    g = random(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda g: newton_schulz(g, steps=2, coefficients=JORDAN, eps=0.0), (g,)
    )
    assert torch.autograd.gradcheck(
        lambda x: newton_schulz_values(x, steps=3, coefficients=QUINTIC),
        (f64(0.1, 0.7, 1.1).requires_grad_(),),
    )


@pytest.mark.parametrize("eps", [0.0, 1e-7, 1.0])
def test_zeros_stay(eps):
    zeros = torch.zeros(2, 3)
    assert not newton_schulz(zeros, steps=5, coefficients=JORDAN, eps=eps).any()
    assert not polar_factor(zeros).any()


def test_a_norm_below_eps_counts_as_eps():
    """Norm 5e-8 with eps 1e-7: half of the unit vector; with eps = 1e-8 all of it."""
    g = f64((3e-8, 4e-8))
    start = {"steps": 0, "coefficients": JORDAN}
    close(newton_schulz(g, eps=1e-7, **start), f64((0.3, 0.4)))
    close(newton_schulz(g, eps=1e-8, **start), f64((0.6, 0.8)))


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_entries_are_counted_in_the_largest(size):
    """3 and 4 over their norm 5; the square of 1e30, or of 1e-30, is no float32."""
    found = newton_schulz(torch.diag(size * torch.tensor([3.0, 4.0])), **{**FIVE, "steps": 0})
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.6, 0.8])))


@pytest.mark.parametrize("size", [1e30, 1e19, 1e-24, 1e-40, 1e-45])
def test_no_square_overflows_or_vanishes_in_float32(size):
    g = torch.full((3, 4), size)
    for found in (newton_schulz(g, **{**FIVE, "steps": 0}), polar_factor(g)):
        torch.testing.assert_close(found, torch.full((3, 4), 12**-0.5))
    below = newton_schulz(g, **{**FIVE, "steps": 0, "eps": 1e39})  # then eps divides
    torch.testing.assert_close(below.double(), g.double() / 1e39, rtol=1e-6, atol=1e-45)


def test_a_norm_below_eps_counts_as_eps_however_small_both_are():
    start = {"steps": 0, "coefficients": JORDAN}
    for entry, eps in ((1e-45, 1.0), (1e-9, 1e30), (3e-30, 1e-2)):
        g = torch.tensor([[entry]])
        found = newton_schulz(g, eps=eps, **start).item()
        assert found == pytest.approx(g.item() / eps, rel=1e-6, abs=1e-45)


def test_what_the_dtype_cannot_hold_is_refused():
    """After the cast back, not before it."""
    wide = {"coefficients": (1e5, 0.0, 0.0), "steps": 1}
    with pytest.raises(ValueError, match="matrix must be finite after 1 steps, got inf"):
        newton_schulz(torch.eye(2, dtype=torch.float16), eps=0.0, **wide)
    with pytest.raises(ValueError, match="values must be finite after 1 steps, got inf"):
        newton_schulz_values(torch.tensor([100.0], dtype=torch.float16), **wide)
    given = {"momentum": 0.95, "scale": 1.0, "weight_decay": 0.0, **FIVE}
    for param, buffer, lr, name in (
        (torch.ones(2, 2).half(), torch.full((2, 2), 6e4).half(), 0.1, "momentum_buffer"),
        (torch.full((2, 2), 65504.0).half(), torch.ones(2, 2), 1e3, "param"),
        (torch.full((2, 2), float("nan")), torch.ones(2, 2), 0.1, "param"),
    ):
        grad = -torch.eye(2) if name == "param" else torch.full((2, 2), 6e4)
        with pytest.raises(ValueError, match=f"{name} must be finite after the step"):
            muon_step(param, grad, buffer, lr=lr, **given)


def test_a_side_of_one():
    """A row becomes p^5(1) times its unit vector."""
    value = newton_schulz_values(f64(1.0), steps=5, coefficients=JORDAN)
    for g in (random(1, 5), random(5, 1)):
        close(newton_schulz(g, **FIVE), value * g / g.norm())


def test_sixteen_bits_are_computed_in_float32_and_rounded_once():
    g = random(5, 7).bfloat16()
    found = newton_schulz(g, **FIVE)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, newton_schulz(g.float(), **FIVE).bfloat16())
    state = muon_step(g, g, torch.zeros(5, 7), **STEP)
    assert (state.param.dtype, state.momentum_buffer.dtype) == (torch.bfloat16, torch.float32)
    wide = muon_step(g.float(), g.float(), torch.zeros(5, 7), **STEP)
    assert torch.equal(state.param, wide.param.bfloat16())


def test_nothing_is_changed_in_place():
    given_ = random(3, 4), random(3, 4, seed=1), random(3, 4, seed=2)
    copies = [it.clone() for it in given_]
    muon_step(*given_, **STEP)
    polar_factor(given_[0])
    assert all(torch.equal(one, other) for one, other in zip(given_, copies, strict=True))


@pytest.mark.parametrize("function", [polar_factor, lambda g: newton_schulz(g, **FIVE)])
@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (torch.ones(3), ValueError, r"matrix must have two axes: .*\(out, rest\), got \(3,\)"),
        (torch.ones(2, 3, 3, 3), ValueError, r"flatten to \(out, rest\), got \(2, 3, 3, 3\)"),
        (torch.ones(0, 3), ValueError, "m must be at least 1, got 0"),
        (torch.ones(3, 0), ValueError, "n must be at least 1, got 0"),
        (torch.full((2, 2), math.nan), ValueError, "matrix must be finite, got nan"),
        (torch.full((2, 2), math.inf), ValueError, "matrix must be finite, got inf"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, "matrix must be floating point"),
    ],
)
def test_matrices_that_are_refused(function, matrix, error, message):
    with pytest.raises(error, match=message):
        function(matrix)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "steps must be an int"),
        ({"eps": -1e-7}, ValueError, "eps must be at least 0 and finite, got -1e-07"),
        ({"coefficients": (1.5, -0.5)}, ValueError, r"coefficients must be three finite numbers"),
        ({"coefficients": (1.5, math.nan, 0.0)}, ValueError, "three finite numbers, got .*nan"),
        ({"coefficients": (9.0, 9.0, 9.0), "steps": 9}, ValueError, "finite after 9 steps"),
    ],
)
def test_options_that_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        newton_schulz(torch.ones(2, 3), **{**FIVE, **changes})
    if "eps" not in changes:
        options = {key: it for key, it in {**FIVE, **changes}.items() if key != "eps"}
        with pytest.raises(error, match=message):
            newton_schulz_values(torch.ones(2), **options)


def test_values_that_are_refused():
    options = {"steps": 5, "coefficients": JORDAN}
    with pytest.raises(ValueError, match="values must be finite after 5 steps"):
        newton_schulz_values(f64(1e30), **options)
    with pytest.raises(ValueError, match="values must be finite, got nan"):
        newton_schulz_values(f64(math.nan), **options)
    with pytest.raises(TypeError, match="values must be floating point"):
        newton_schulz_values(torch.ones(2, dtype=torch.int64), **options)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_momentum_outside_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got"):
        nesterov_momentum(f64(1.0), f64(1.0), momentum=momentum)


def test_momenta_that_are_refused():
    with pytest.raises(ValueError, match=r"momentum_buffer must be \(\.\.\.\)"):
        nesterov_momentum(f64(1.0), f64(1.0, 2.0), momentum=0.9)
    with pytest.raises(ValueError, match="grad must be finite after grad is added, got inf"):
        nesterov_momentum(f64(1.5e308), f64(1.0), momentum=0.9)
    narrow = f64(1.0).half()
    with pytest.raises(ValueError, match="momentum_buffer must be finite after grad is added"):
        nesterov_momentum(f64(7e4), narrow, momentum=0.9)
    with pytest.raises(TypeError, match="grad must be floating point"):
        nesterov_momentum(torch.ones(2, dtype=torch.int64), f64(1.0, 1.0), momentum=0.9)


@pytest.mark.parametrize(
    ("shape", "rule", "error", "message"),
    [
        ((8, 4, 3, 3), "original", ValueError, r"shape must have two axes: flatten"),
        ((0, 3), "original", ValueError, "m must be at least 1, got 0"),
        ((3, 0), "original", ValueError, "n must be at least 1, got 0"),
        ((3, 2.0), "original", TypeError, "n must be an int"),
        ((3, 2), "adam", ValueError, "rule must be one of .*'spectral'.*, got 'adam'"),
    ],
)
def test_shapes_that_are_refused(shape, rule, error, message):
    with pytest.raises(error, match=message):
        muon_scale(shape, rule=rule)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "scale"])
def test_negative_options_of_a_step_are_refused(name):
    w = torch.ones(2, 3)
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite, got -1.0"):
        muon_step(w, w, w, **{**STEP, name: -1.0})


def test_other_shapes_of_a_step_are_refused():
    w = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"grad must be \(\.\.\.\) = \(2, 3\)"):
        muon_step(w, w.T, w, **STEP)
    with pytest.raises(ValueError, match=r"param must have two axes: flatten .*got \(3,\)"):
        muon_step(w[0], w[0], w[0], **STEP)
