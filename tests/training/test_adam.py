"""Adam and AdamW: values, the definition as a loop, laws, bounds, dtypes, and every refusal."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.training.adam import (
    AdamState,
    adam_direction,
    adam_l2_step,
    adam_moments,
    adam_step,
    adam_update_bound,
    adamw_step,
)
from tests.tensors import close, f64, random

OPTIONS = {"lr": 0.1, "betas": (0.5, 0.75), "eps": 0.0}
betas_of = st.tuples(st.floats(0, 0.97), st.floats(0.01, 0.999))
lists = st.lists(st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=12)


def directions(gradients, betas, eps=0.0):
    m = v = torch.zeros_like(gradients[0])
    found = []
    for step, grad in enumerate(gradients, start=1):
        m, v = adam_moments(grad, m, v, betas=betas)
        found.append(adam_direction(m, v, step=step, betas=betas, eps=eps))
    return torch.stack(found)


def test_two_steps_by_hand():
    """Betas 1/2 and 3/4, gradients 2 and -2.

    Step 1: m = 1, v = 1, corrected 2 and 4, u = 2 / 2 = 1; 0.95 * 1 - 0.1 = 0.85 with decay 0.5.
    Step 2: m = 0.5 - 1 = -0.5, v = 0.75 + 1 = 1.75, corrected -2/3 and 4, u = -1/3.
    """
    zero = f64(0.0)
    first = adamw_step(f64(1.0), f64(2.0), zero, zero, step=1, weight_decay=0.5, **OPTIONS)
    assert isinstance(first, AdamState)
    close(torch.stack(first), f64((0.85,), (1.0,), (1.0,)))
    second = adamw_step(first.param, f64(-2.0), *first[1:], step=2, weight_decay=0.5, **OPTIONS)
    close(torch.stack(second), f64((0.95 * 0.85 + 0.1 / 3,), (-0.5,), (1.75,)))


def test_l2_enters_both_moments():
    """Weight 2 with decay 3 and gradient -1 has the gradient 5: m = 2.5, v = 6.25, u = 1."""
    zero = f64(0.0)
    state = adam_l2_step(f64(2.0), f64(-1.0), zero, zero, step=1, weight_decay=3.0, **OPTIONS)
    close(torch.stack(state), f64((1.9,), (2.5,), (6.25,)))


def test_the_definition_as_a_loop_over_numbers():
    grads, start, betas, eps = random(9, 4), random(4, seed=1), (0.9, 0.95), 1e-3
    state = AdamState(start, torch.zeros(4).double(), torch.zeros(4).double())
    options = {"lr": 0.05, "betas": betas, "eps": eps, "weight_decay": 0.2}
    for step, grad in enumerate(grads, start=1):
        state = adamw_step(state.param, grad, *state[1:], step=step, **options)
    for place in range(4):
        p, m, v = start[place].item(), 0.0, 0.0
        for t, g in enumerate(grads[:, place].tolist(), start=1):
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
            p = p * (1 - 0.05 * 0.2)
            p -= 0.05 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.95**t)) + eps)
        close(torch.stack(state)[:, place], f64(p, m, v))


def test_without_decay_all_three_are_one():
    given = random(3), random(3, seed=1), random(3, seed=2), random(3, seed=3).square()
    plain = adam_step(*given, step=4, **OPTIONS)
    for step_of in (adam_l2_step, adamw_step):
        for ours, other in zip(
            step_of(*given, step=4, weight_decay=0.0, **OPTIONS), plain, strict=True
        ):
            assert torch.equal(ours, other)


@settings(deadline=None, max_examples=40)
@given(lists, betas_of)
def test_no_step_exceeds_the_bound(numbers, betas):
    sizes = directions(torch.tensor(numbers).double()[:, None], betas).abs().flatten()
    bounds = [adam_update_bound(step=t, betas=betas) for t in range(1, len(numbers) + 1)]
    assert (sizes <= f64(*bounds) * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=40)
@given(lists, betas_of, st.floats(0.01, 100))
def test_the_scale_cancels_if_eps_is_scaled_too(numbers, betas, factor):
    grads = torch.tensor(numbers).double()[:, None]
    scaled = directions(factor * grads, betas, factor * 0.1)
    torch.testing.assert_close(scaled, directions(grads, betas, 0.1), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-3, 1e3), betas_of, st.integers(1, 9))
def test_a_constant_gradient_moves_by_the_learning_rate(size, betas, steps):
    close(directions(f64(size, -size).expand(steps, 2), betas)[-1], f64(1.0, -1.0), atol=1e-9)


def test_gradcheck_of_the_direction():
    m, v = random(3).requires_grad_(), random(3, seed=1).square().add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, v: adam_direction(m, v, step=3, betas=(0.9, 0.95), eps=0.1), (m, v)
    )


@pytest.mark.parametrize(
    ("betas", "step", "expected"),
    [
        ((0.9, 0.999), 1, 1.0),
        ((0.9, 0.0), 1, 1.0),
        ((0.9, 0.0), 2, math.inf),
        ((0.0, 0.0), 5, 1.0),
        ((0.0, 0.0), None, 1.0),
        ((0.95, 0.95), None, 1.0),
        ((0.0, 0.75), 2, math.sqrt(1.75)),  # one gradient after a 0: sqrt of 7/16 over 1/4
        ((0.0, 0.75), None, 2.0),
        ((0.5, 0.75), None, math.sqrt(1.5)),  # 1/2 over the root of 1/4 times 1 - 1/3
        ((0.5, 0.25), 3, 0.5 / 0.875 * math.sqrt(63 / 64 / 0.75 * 3)),  # ratio 1
        ((0.5, 0.25), None, math.inf),
        ((0.9, 0.5), None, math.inf),
        ((0.9, 0.5), 2951, math.inf),
        ((0.9, 0.5), 5000, math.inf),
        ((0.9, 5e-324), 2, math.inf),  # the ratio is beyond the range of a float
        ((0.7, 0.49), None, math.inf),  # 0.7**2 is a little below 0.49 in floats
    ],
)
def test_bounds_worked_by_hand(betas, step, expected):
    found = adam_update_bound(step=step, betas=betas)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("betas", "step"),
    [
        ((0.9, 0.5), 60),
        ((0.9, 0.5), 95),
        ((0.9, 0.5), 1451),
        ((0.9, 0.5), 2900),
        ((0.9, 0.5), 2949),  # 1.5e308
        ((0.3, 0.01), 320),
    ],
)
def test_bounds_whose_sum_is_beyond_the_range_of_a_float(betas, step):
    """The sum of fractions, exactly, and the root of its integer part."""
    beta1, beta2 = (Fraction(str(beta)) for beta in betas)
    terms = sum((beta1**2 / beta2) ** j for j in range(step))
    first = (1 - beta1) / (1 - beta1**step)
    square = first**2 * (1 - beta2**step) / (1 - beta2) * terms
    expected = float(Fraction(math.isqrt(int(square * 10**40)), 10**20))
    assert adam_update_bound(step=step, betas=betas) == pytest.approx(expected, rel=1e-11)


def test_the_bound_is_smooth_where_its_series_has_the_ratio_one():
    at, near = ((0.9, beta2) for beta2 in (0.9**2, 0.9**2 * (1 + 1e-13)))
    one, other = (adam_update_bound(step=100, betas=betas) for betas in (at, near))
    assert one == pytest.approx(other, rel=1e-10)


def test_a_weight_that_never_had_a_gradient_stays_without_eps():
    zero = f64(0.0, 0.0)
    state = adam_step(f64(1.0, 2.0), f64(0.0, 3.0), zero, zero, step=1, **OPTIONS)
    close(state.param, f64(1.0, 1.9))


def test_sixteen_bit_weights_are_computed_in_float32_and_rounded_once():
    """A bfloat16 weight of 1 swallows a step of 1e-3, its float32 moments do not."""
    p, g = torch.ones(3).bfloat16(), random(3).bfloat16()
    zero = torch.zeros(3)
    options = {"step": 1, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    for step_of in (adamw_step, adam_l2_step):
        state = step_of(p, g, zero, zero, **options)
        assert [it.dtype for it in state] == [torch.bfloat16, torch.float32, torch.float32]
        wide = step_of(p.float(), g.float(), zero, zero, **options)
        assert torch.equal(state.param, wide.param.bfloat16())
        assert torch.equal(state.exp_avg, wide.exp_avg)
        assert torch.equal(state.exp_avg_sq, wide.exp_avg_sq)


@pytest.mark.parametrize("step_of", [adamw_step, adam_l2_step])
def test_float32_weights_beside_float64_moments_are_rounded_once(step_of):
    p, g, m = (random(1000, seed=seed) for seed in range(3))
    p, g, v = p.float(), g.float(), random(1000, seed=3).square()
    options = {"step": 5, "lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.3}
    state, wide = step_of(p, g, m, v, **options), step_of(p.double(), g.double(), m, v, **options)
    assert torch.equal(state.param, wide.param.float())
    assert torch.equal(state.exp_avg, wide.exp_avg)
    assert torch.equal(state.exp_avg_sq, wide.exp_avg_sq)


def test_a_decay_of_one_per_step_is_the_largest():
    """A rate of 0.1 and a decay of 10 forget the weight: only the step of 0.1 is left."""
    zero = f64(0.0)
    state = adamw_step(f64(3.0), f64(2.0), zero, zero, step=1, weight_decay=10.0, **OPTIONS)
    close(state.param, f64(-0.1))


@pytest.mark.parametrize("beta", [0.9, 0.95, 0.99, 0.995])
def test_a_bfloat16_mean_stops_within_a_share_of_itself(beta):
    """It stands still once (1 - beta) |g - m| is half a unit in the last place, 2^-8 m at most."""
    target = torch.linspace(1, 2, 129).bfloat16()
    for start in (0.0, 4.0):
        mean = torch.full_like(target, start)
        for _ in range(3000):
            mean, _ = adam_moments(target, mean, target.float(), betas=(beta, 0.0))
        off = (target.double() - mean.double()).abs() / mean.double()
        share = 2**-8 / (1 - beta)
        assert 0.7 * share < off.max() <= share * (1 + 1e-9)


def test_bfloat16_moments_with_a_beta_that_they_can_follow():
    p, g, m = (random(3, seed=seed) for seed in range(3))
    v = random(3, seed=3).square().bfloat16()
    options = {"step": 5, "lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
    state = adam_step(p.float(), g.float(), m.bfloat16(), v, **options)
    assert [it.dtype for it in state] == [torch.float32, torch.bfloat16, torch.bfloat16]
    wide = adam_step(p.float(), g.float(), m.bfloat16().float(), v.float(), **options)
    assert torch.equal(state.param, wide.param)
    assert torch.equal(state.exp_avg_sq, wide.exp_avg_sq.bfloat16())


def test_each_moment_keeps_its_own_dtype():
    g, m, v = random(3).float(), random(3, seed=1).bfloat16(), random(3, seed=2).square().float()
    assert [it.dtype for it in adam_moments(g, m, v, betas=(0.9, 0.999))] == [m.dtype, v.dtype]
    u = adam_direction(m, v, step=2, betas=(0.9, 0.999), eps=1e-8)
    assert u.dtype == torch.bfloat16


def test_a_bfloat16_mean_of_squares_of_torch_never_falls_with_999():
    """0.001 v is less than half a unit in the last place, 2^-9 v at least."""

    def last_v(beta2):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        optimiser = torch.optim.AdamW([weight], betas=(0.9, beta2))
        for step in range(300):
            weight.grad = torch.full_like(weight, 1.0 if step < 200 else 1e-3)
            optimiser.step()
            if step == 199:
                before = optimiser.state[weight]["exp_avg_sq"].item()
        return optimiser.state[weight]["exp_avg_sq"].item() / before

    assert last_v(0.999) == 1
    assert last_v(0.95) < 0.02


def test_squares_that_overflow_freeze_a_weight_of_torch_and_raise_here():
    """(1 - beta2) g^2 is 3.6e38 for g = 6e20, beyond the 3.4e38 of float32; 5.8e20 is below."""
    for size, frozen in ((6e20, True), (5.8e20, False)):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.Adam([weight], lr=1.0)
        weight.grad = torch.full((1,), size)
        optimiser.step()
        assert bool(optimiser.state[weight]["exp_avg_sq"].isinf()) is frozen
        assert (weight.item() == 0) is frozen
    zero, options = torch.zeros(1), {"step": 1, "lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8}
    close(
        adam_step(zero, torch.full((1,), 5.8e20), zero, zero, **options).param,
        -torch.ones(1),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match=r"exp_avg_sq must be finite after .* grad .*got inf"):
        adam_step(zero, torch.full((1,), 6e20), zero, zero, **options)


@pytest.mark.parametrize("beta", [0.9965, 0.999, 0.9999])
def test_bfloat16_moments_that_cannot_follow_are_refused(beta):
    g = random(3).float()
    low = torch.ones(3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"exp_avg_sq must be float32, or bfloat16 with 1 - beta"):
        adam_moments(g, low, low, betas=(0.9, beta))
    with pytest.raises(ValueError, match=r"exp_avg must be .* got torch.bfloat16 with beta 0\.99"):
        adam_moments(g, low, low.float(), betas=(beta, 0.999))


def test_the_bounds_of_what_bfloat16_moments_and_eps_can_do():
    """1 - beta = 2^-8 is refused and 0.005 is not; eps is enough if its square is normal."""
    g, low = random(3).float(), torch.ones(3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"exp_avg_sq must be float32, or bfloat16"):
        adam_moments(g, low, low, betas=(0.9, 1 - 2**-8))
    assert adam_moments(g, low, low, betas=(0.9, 0.995))[1].dtype == torch.bfloat16
    m, v, options = torch.full((1,), 1e-22), torch.zeros(1), {"step": 1, "betas": (0.9, 0.999)}
    close(adam_direction(m, v, eps=1e-18, **options), torch.full((1,), 1e-3), atol=1e-8)
    with pytest.raises(ValueError, match=r"where exp_avg is not 0 \(eps = 1e-20\), got 0"):
        adam_direction(m, v, eps=1e-20, **options)
    tiny = torch.finfo(torch.float32).tiny  # 2^-126
    close(adam_direction(v + 2**-63, v, eps=math.sqrt(tiny), **options), torch.full((1,), 10.0))
    close(adam_direction(v + 2**-63, v + tiny, step=1, betas=(0.0, 0.0), eps=0.0), torch.ones(1))


ZERO, ONE = f64(0.0, 0.0), f64(1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: adam_moments(ONE, ZERO, f64(0.0), betas=(0.9, 0.99)),
            ValueError,
            r"exp_avg_sq must be \(\.\.\.\) = \(2,\) beside grad \(2,\), exp_avg \(2,\), got \(1,",
        ),
        (
            lambda: adam_moments(ONE, ZERO, -ONE, betas=(0.9, 0.99)),
            ValueError,
            r"exp_avg_sq must be in \[0, inf\), got -1",
        ),
        (
            lambda: adam_moments(ONE, ZERO, ZERO, betas=(1.0, 0.99)),
            ValueError,
            r"beta1 must be in \[0, 1\), got 1",
        ),
        (
            lambda: adam_moments(ONE, ZERO, ZERO, betas=(0.9, -0.1)),
            ValueError,
            r"beta2 must be in \[0, 1\), got -0\.1",
        ),
        (
            lambda: adam_moments(ONE, ZERO, ZERO, betas=(torch.tensor([0.9]), 0.99)),
            TypeError,
            r"beta1 must be one number, got a tensor \(1,\)",
        ),
        (
            lambda: adam_moments(ONE, ZERO, ZERO, betas=(0.9, torch.tensor([0.9]))),
            TypeError,
            r"beta2 must be one number, got a tensor \(1,\)",
        ),
        (
            lambda: adam_moments(ONE.long(), ZERO, ZERO, betas=(0.9, 0.99)),
            TypeError,
            r"grad must be floating point, got torch\.int64",
        ),
        (
            lambda: adam_moments(f64(1.0, math.nan), ZERO, ZERO, betas=(0.9, 0.99)),
            ValueError,
            r"grad must be finite, got nan \(1 of 2 entries\)",
        ),
        (
            lambda: adam_step(ONE, -ONE / 0, ZERO, ZERO, step=1, **OPTIONS),
            ValueError,
            r"grad must be finite, got -inf",
        ),
        (
            lambda: adam_moments(ONE, f64(math.nan, 0.0), ZERO, betas=(0.9, 0.99)),
            ValueError,
            r"exp_avg must be finite, got nan \(1 of 2 entries\)",
        ),
        (
            lambda: adam_direction(f64(0.0, math.inf), ONE, step=1, betas=(0.9, 0.99), eps=1.0),
            ValueError,
            r"exp_avg must be finite, got inf",
        ),
        (
            lambda: adamw_step(ONE, ONE, ZERO / 0, ONE, step=1, weight_decay=0.1, **OPTIONS),
            ValueError,
            r"exp_avg must be finite, got nan \(2 of 2 entries\)",
        ),
        (
            lambda: adam_direction(
                torch.full((1,), 1e35), torch.zeros(1), step=1, betas=(0.9, 0.99), eps=1e-8
            ),
            ValueError,
            r"direction must be finite: exp_avg is too large beside exp_avg_sq and eps, got inf",
        ),
        (
            lambda: adam_moments(ONE, ZERO.half(), ZERO, betas=(0.9, 0.99)),
            ValueError,
            r"exp_avg must be float32, .* got torch\.float16 with beta 0\.9",
        ),
        (
            lambda: adam_direction(ONE, ONE, step=0, betas=(0.9, 0.99), eps=0.0),
            ValueError,
            r"step must be at least 1, got 0",
        ),
        (
            lambda: adam_direction(ONE, ONE, step=1.0, betas=(0.9, 0.99), eps=0.0),
            TypeError,
            r"step must be an int, got 1\.0",
        ),
        (
            lambda: adam_direction(ONE, ONE, step=1, betas=(0.9, 0.99), eps=-1e-8),
            ValueError,
            r"eps must be at least 0 and finite, got -1e-08",
        ),
        (
            lambda: adam_direction(ONE, f64(1.0, 0.0), step=1, betas=(0.9, 0.99), eps=0.0),
            ValueError,
            r"exp_avg_sq must be at least 2\.2.*e-308 where exp_avg is not 0 \(eps = 0\), got 0",
        ),
        (
            lambda: adam_step(ONE, ONE, ZERO, ZERO, step=1, lr=-1.0, betas=(0.9, 0.99), eps=0.0),
            ValueError,
            r"lr must be at least 0 and finite, got -1\.0",
        ),
        (
            lambda: adamw_step(ONE, ONE, ZERO, ZERO, step=1, weight_decay=-0.1, **OPTIONS),
            ValueError,
            r"weight_decay must be at least 0 and finite, got -0\.1",
        ),
        (
            lambda: adamw_step(ONE, ONE, ZERO, ZERO, step=1, weight_decay=10.5, **OPTIONS),
            ValueError,
            r"lr \* weight_decay must be at most 1, got 1\.05",
        ),
        (
            lambda: adam_l2_step(ONE, ONE, ZERO, ZERO, step=1, weight_decay=-0.1, **OPTIONS),
            ValueError,
            r"weight_decay must be at least 0 and finite, got -0\.1",
        ),
        (
            lambda: adamw_step(ONE, ONE[:1], ZERO, ZERO, step=1, weight_decay=0.1, **OPTIONS),
            ValueError,
            r"grad must be \(\.\.\.\) = \(2,\) beside param \(2,\), got \(1,\)",
        ),
        (
            lambda: adam_update_bound(step=0, betas=(0.9, 0.99)),
            ValueError,
            "step must be at least 1, got 0",
        ),
        (
            lambda: adam_update_bound(step=None, betas=(0.9, 1.0)),
            ValueError,
            r"beta2 must be in \[0, 1\), got 1",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_square_lost_to_underflow_is_refused_unless_eps_hides_it():
    """1e-21 squared is below the range of float32, 1e-18 squared is not."""
    zero, options = torch.zeros(1), {"betas": (0.9, 0.999)}
    small = adam_moments(torch.full((1,), 1e-21), zero, zero, **options)
    with pytest.raises(ValueError, match=r"exp_avg_sq must be at least 1\.17549e-38 where exp_avg"):
        adam_direction(*small, step=1, eps=0.0, **options)
    close(adam_direction(*small, step=1, eps=1e-8, **options), torch.full((1,), 1e-13), atol=1e-18)
    large = adam_moments(torch.full((1,), 1e-17), zero, zero, **options)
    close(adam_direction(*large, step=1, eps=0.0, **options), torch.ones(1), atol=1e-5)


def test_large_gradients_do_not_overflow_in_the_correction():
    """A v of 1e37 is finite, v / (1 - 0.999) is not."""
    m, v = torch.full((1,), 1e19), torch.full((1,), 1e37)
    u = adam_direction(m, v, step=1, betas=(0.9, 0.999), eps=1e-8)
    close(u, torch.full((1,), 1e20 / 1e20), atol=1e-5)


def test_a_square_lost_in_the_dtype_of_its_moment_is_refused():
    """1e-24 squared is no number of float32, though all else is float64."""
    m, v = f64(1e-25), torch.zeros(1)
    options = {"betas": (0.9, 0.999), "eps": 1e-30}
    with pytest.raises(ValueError, match=r"exp_avg_sq must be at least 1\.17549e-38 where exp_avg"):
        adam_direction(m, v, step=10_000, **options)
    zero = f64(0.0)
    first = adam_step(zero, f64(1e-24), zero, v, step=1, lr=1.0, **options)
    close(first.param, f64(-1.0), atol=1e-5)  # computed in float64
    for step_of, decay in ((adam_step, {}), (adamw_step, {"weight_decay": 0.1})):
        with pytest.raises(ValueError, match=r"exp_avg_sq must be at least 1\.17549e-38 where"):
            step_of(first.param, zero, *first[1:], step=2, lr=1.0, **options, **decay)
