"""Schedules: worked numbers, the definitions as loops, their laws, and what they refuse."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmref.training.schedule import (
    quadratic_second_moment,
    warmup_cosine,
    warmup_stable_decay,
)

COSINE = {"max_lr": 1.0, "min_lr": 0.2, "warmup_steps": 4, "total_steps": 10}
WSD = {
    "max_lr": 1.0,
    "warmup_steps": 2,
    "stable_steps": 3,
    "decay_steps": 4,
    "decay": "linear",
}
QUADRATIC = {"curvature": 2.0, "noise_var": 1.0, "start": 3.0}
counts = st.integers(0, 40)


def test_cosine_by_hand():
    """Rise 0, 1/4, 1/2, 3/4; then x = 0, 1/6, 1/3, 1/2, 2/3, 5/6, 1 of the way down to 0.2.

    cos(pi / 3) = 1/2, so at x = 1/3 the rate is 0.2 + 0.8 * 3/4 = 0.8, and at x = 2/3 it is 0.4.
    """
    found = [warmup_cosine(t, **COSINE) for t in range(13)]
    assert found[:5] == [0, 0.25, 0.5, 0.75, 1]
    assert found[6:9:2] == pytest.approx([0.8, 0.4], abs=1e-15)
    assert found[7] == pytest.approx(0.6, abs=1e-15)
    assert found[10:] == [0.2] * 3


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0.75, 0.5, 0.25]),
        ("cosine", [(1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ("1-sqrt", [0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]),
    ],
)
def test_plateau_by_hand(decay, expected):
    """Rise 0, 1/2; plateau at steps 2 to 5; then a quarter, a half, three quarters of the fall."""
    found = [warmup_stable_decay(t, **WSD | {"decay": decay}) for t in range(12)]
    assert found[:6] == [0, 0.5, 1, 1, 1, 1]
    assert found[6:9] == pytest.approx(expected, abs=1e-15)
    assert found[9:] == [0] * 3


def test_the_floor_of_wsd_is_interpolated():
    found = warmup_stable_decay(7, **WSD, min_lr=0.2)
    assert found == pytest.approx(0.6)
    assert warmup_stable_decay(99, **WSD, min_lr=0.2) == 0.2


def test_without_warmup_the_first_rate_is_the_highest():
    assert warmup_cosine(0, **COSINE | {"warmup_steps": 0}) == 1.0
    assert warmup_stable_decay(0, **WSD | {"warmup_steps": 0, "stable_steps": 0}) == 1.0


@given(rise=counts, fall=st.integers(1, 40), low=st.floats(0, 1), high=st.floats(1, 10))
def test_cosine_rises_falls_and_is_mirrored(rise, fall, low, high):
    run = {"max_lr": high, "min_lr": low, "warmup_steps": rise, "total_steps": rise + fall}
    rates = [warmup_cosine(t, **run) for t in range(rise + fall + 3)]
    assert rates[:rise] == [high * t / rise for t in range(rise)]
    assert all(b <= a + 1e-12 for a, b in zip(rates[rise:], rates[rise + 1 :], strict=False))
    for k in range(fall + 1):
        assert rates[rise + k] + rates[rise + fall - k] == pytest.approx(high + low)


@given(rise=counts, flat=counts, more=counts, fall=st.integers(1, 40))
@pytest.mark.parametrize("decay", ["linear", "cosine", "1-sqrt"])
def test_a_longer_plateau_only_delays_the_decay(rise, flat, more, fall, decay):
    run = {"max_lr": 3e-4, "warmup_steps": rise, "decay_steps": fall, "decay": decay}
    for t in range(rise + flat + 1):
        assert warmup_stable_decay(t, stable_steps=flat, **run) == warmup_stable_decay(
            t, stable_steps=flat + more, **run
        )
    for k in range(fall + 2):
        assert warmup_stable_decay(
            rise + flat + k, stable_steps=flat, **run
        ) == warmup_stable_decay(rise + flat + more + k, stable_steps=flat + more, **run)


def test_two_schedules_without_a_plateau_are_one():
    for t in range(14):
        one = warmup_cosine(t, max_lr=2.0, min_lr=0.5, warmup_steps=3, total_steps=11)
        other = warmup_stable_decay(
            t,
            max_lr=2.0,
            min_lr=0.5,
            warmup_steps=3,
            stable_steps=0,
            decay_steps=8,
            decay="cosine",
        )
        assert one == other


def test_second_moment_by_hand():
    """From 3 with h = 2 and rates 1/4, 1/2: 9 (1/2)^2 + 1/16 = 37/16, then 0 + 1/4."""
    assert quadratic_second_moment([0.25], **QUADRATIC) == 37 / 16
    assert quadratic_second_moment([0.25, 0.5], **QUADRATIC) == 0.25
    assert quadratic_second_moment([], **QUADRATIC) == 9.0


def test_second_moment_is_that_of_all_noises():
    """Noise of plus and minus 1/2, all 2^6 sequences."""
    rates = [0.3, 0.1, 0.7, 0.2, 0.05, 0.4]
    total = 0.0
    for bits in range(2**6):
        x = -1.5
        for k, rate in enumerate(rates):
            noise = 0.5 if bits >> k & 1 else -0.5
            x -= rate * (1.3 * x + noise)
        total += x * x / 2**6
    found = quadratic_second_moment(rates, curvature=1.3, noise_var=0.25, start=-1.5)
    assert found == pytest.approx(total, rel=1e-13)


def test_second_moment_grows_where_the_rate_is_too_large():
    assert quadratic_second_moment([1.1] * 400, **QUADRATIC) > 1e30


@pytest.mark.parametrize("change", [{"lrs": [1e100] * 3 + [1.0]}, {"start": 1e200}])
def test_what_no_float_holds_is_refused(change):
    """Not an OverflowError, and no NaN from infinity times 0."""
    with pytest.raises(ValueError, match="the mean of θ² must be a float, got a larger one"):
        quadratic_second_moment(**{"lrs": [0.1]} | QUADRATIC | change)


def test_rates_may_come_as_a_tensor():
    found = quadratic_second_moment(torch.tensor([0.25, 0.5]), **QUADRATIC)
    assert type(found) is float
    assert found == 0.25


@given(low=st.floats(0, 1), high=st.floats(1, 10))
def test_plateau_and_end_are_exact(low, high):
    run = WSD | {"max_lr": high, "min_lr": low}
    assert warmup_stable_decay(4, **run) == high
    assert warmup_stable_decay(9, **run) == low
    assert warmup_cosine(4, **COSINE | {"max_lr": high, "min_lr": low}) == high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step must be at least 0, got -1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"total_steps": 4}, r"total_steps must be at least 5, got 4 \(warmup_steps \+ 1\)"),
        ({"min_lr": 1.5}, "min_lr must be at most max_lr, got 1.5 above 1.0"),
        ({"min_lr": -0.1}, "min_lr must be at least 0"),
        ({"max_lr": math.inf}, "max_lr must be positive and finite, got inf"),
        ({"max_lr": 0.0}, "max_lr must be positive and finite, got 0"),
        ({"min_lr": math.nan}, "min_lr must be at least 0 and finite, got nan"),
    ],
)
def test_cosine_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine(**{"step": 3} | COSINE | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step must be at least 0, got -1"),
        ({"stable_steps": -1}, "stable_steps must be at least 0, got -1"),
        ({"decay_steps": 0}, "decay_steps must be at least 1, got 0"),
        ({"decay": "sqrt"}, r"decay must be one of \['linear', 'cosine', '1-sqrt'\], got 'sqrt'"),
        ({"min_lr": 1.5}, "min_lr must be at most max_lr, got 1.5 above 1.0"),
    ],
)
def test_plateau_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        warmup_stable_decay(**{"step": 3} | WSD | change)


@pytest.mark.parametrize("step", [1.0, True, "1", torch.tensor(1)])
def test_a_step_is_an_int(step):
    for schedule, run in ((warmup_cosine, COSINE), (warmup_stable_decay, WSD)):
        with pytest.raises(TypeError, match="step must be an int, got"):
            schedule(step, **run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrs": [0.1, -0.1]}, r"lrs\[1\] must be at least 0 and finite, got -0.1"),
        ({"curvature": -1.0}, "curvature must be at least 0 and finite, got -1.0"),
        ({"noise_var": math.nan}, "noise_var must be at least 0 and finite, got nan"),
        ({"start": math.inf}, r"start must be in \(-inf, inf\), got inf"),
    ],
)
def test_second_moment_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        quadratic_second_moment(**{"lrs": [0.1]} | QUADRATIC | change)
