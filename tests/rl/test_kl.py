"""KL divergences, their one-sample estimators, and the gradients of the penalties.

Expectations are exact: all outcomes are enumerated, or a batch repeats each outcome in proportion
to a probability that is a multiple of 1/16, so that the mean over the batch is the expectation.
"""

import math

import hypothesis.strategies as st
import mpmath
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.kl import (
    expm1_minus_x,
    kl_categorical,
    kl_estimate,
    kl_gaussian,
    kl_loss,
    kl_reward,
    sequence_kl_loss,
)
from llmref.rl.policy_gradient import discounted_returns, reinforce_loss
from tests.tensors import gradient, random


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


KINDS = ["k1", "k2", "k3"]
END = 2

# A tabular policy over {0, 1, END}, at most two tokens: 7 responses of length 1 or 2.
RESPONSES = [(END,)] + [(first, second) for first in (0, 1) for second in range(3)]
# Rows: law of the first token, of the second after 0, of the second after 1.
SAMPLER = f64([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]).log()
REFERENCE = f64([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]).log()


def response_logps(logits):
    """Log-probabilities of the 7 responses and their mask, (7, 2) each; padding is -99."""
    logp = logits.log_softmax(-1)
    rows = [
        [logp[0, y[0]], logp[1 + y[0], y[1]] if len(y) == 2 else logp.new_tensor(-99.0)]
        for y in RESPONSES
    ]
    return torch.stack([torch.stack(row) for row in rows])


MASK = torch.tensor([[True, len(y) == 2] for y in RESPONSES])


def row_logps(logps):
    """Sums over the counted tokens, (7,)."""
    return torch.where(MASK, logps, 0.0).sum(-1)


def batch_of(logits):
    """Row indices in which each response stands in proportion to its probability."""
    counts = 16 * row_logps(response_logps(logits)).exp()
    assert torch.allclose(counts, counts.round(), atol=1e-9)
    return torch.arange(7).repeat_interleave(counts.round().long())


BATCH = batch_of(SAMPLER)


def batch_loss(logits, loss=kl_loss, **options):
    """A penalty against REFERENCE on the rows that SAMPLER draws."""
    if options.get("ratio", "none") != "none":
        options["old_logp"] = response_logps(SAMPLER)[BATCH]
    reference = response_logps(REFERENCE)[BATCH]
    return loss(response_logps(logits)[BATCH], reference, MASK[BATCH], **options)


def kl_of_responses(p, q):
    return kl_categorical(row_logps(response_logps(p)), row_logps(response_logps(q)))


def kl_of_tokens(p, q, weights=None):
    """Sum over t of E[KL at state t], states drawn from `weights` (held fixed)."""
    root = (p if weights is None else weights).log_softmax(-1)[0].exp()
    if weights is not None:
        root = root.detach()
    per_state = kl_categorical(p, q)
    return per_state[0] + root[0] * per_state[1] + root[1] * per_state[2]


# ---------------------------------------------------------------- exact divergences


def test_kl_of_a_fair_and_a_biased_coin():
    """Forward ln(2)/2 + ln(2/3)/2 = ln(4/3)/2; backward 3/4 ln(3/2) - ln(2)/4."""
    fair, biased = (
        f64([0.5, 0.5]).log(),
        f64([0.25, 0.75]).log(),
    )
    forward, backward = kl_categorical(fair, biased), kl_categorical(biased, fair)
    assert forward.item() == pytest.approx(math.log(4 / 3) / 2, abs=1e-15)
    assert backward.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), abs=1e-15)


def test_kl_equals_the_loop_over_outcomes_on_any_axis():
    p, q = random(2, 3, 5, seed=1), random(2, 3, 5, seed=2)
    for dim in (0, 1, 2, -1):
        logp, logq = p.log_softmax(dim), q.log_softmax(dim)
        expected = torch.zeros_like(logp.select(dim, 0))
        for i in range(p.shape[dim]):
            a, b = logp.select(dim, i), logq.select(dim, i)
            expected = expected + a.exp() * (a - b)
        torch.testing.assert_close(kl_categorical(p, q, dim=dim), expected, atol=1e-14, rtol=0)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 7), scale=st.floats(0, 30), seed=st.integers(0, 2**16))
def test_kl_is_nonnegative_and_ignores_shifts_of_the_logits(size, scale, seed):
    p, q = scale * random(size, seed=seed), scale * random(size, seed=seed + 1)
    divergence = kl_categorical(p, q)
    assert divergence >= -1e-13
    torch.testing.assert_close(kl_categorical(p + 3.0, q - 5.0), divergence, atol=1e-12, rtol=1e-12)


def test_a_small_divergence_keeps_its_digits_and_its_sign_in_float32():
    """Sums of p log(p/q) gave 48 % negative values here, and errors of 15 times the divergence."""
    logits = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    other = logits + 1e-4 * torch.randn(2000, 50, generator=torch.Generator().manual_seed(1))
    kl = kl_categorical(logits, other)
    exact = kl_categorical(logits.double(), other.double())
    assert (kl > 0).all()
    torch.testing.assert_close(kl.double(), exact, rtol=1e-2, atol=0)


def test_an_outcome_of_q_alone_counts_in_full():
    """For p = (1/2, 1/2, 0) and q = (1/4, 1/4, 1/2): log 2."""
    p = torch.tensor([0.5, 0.5, 0.0]).log()
    q = torch.tensor([0.25, 0.25, 0.5]).log()
    torch.testing.assert_close(kl_categorical(p, q), torch.tensor(2.0).log())


def test_k3_that_overflows_is_refused():
    """e^99 is beyond float32; the loss was infinite and its gradient minus infinity."""
    logp, mask = torch.full((1, 1), -100.0), torch.ones(1, 1, dtype=torch.bool)
    for penalty in (
        lambda p, q: kl_loss(p, q, mask, kind="k3", agg="token-mean"),
        lambda p, q: sequence_kl_loss(p, q, mask, kind="k3"),
    ):
        with pytest.raises(ValueError, match="k3 overflows torch.float32"):
            penalty(logp, torch.full((1, 1), -1.0))
        assert penalty(logp.double(), torch.full((1, 1), -1.0).double()).isfinite()


def test_kl_of_a_law_from_itself_is_exactly_zero():
    logits = 10 * random(7)
    assert kl_categorical(logits, logits.clone()) == 0
    assert kl_categorical(torch.zeros(1), torch.ones(1)) == 0


def test_an_outcome_that_only_p_has_is_infinite_and_one_that_p_lacks_is_free():
    certain = f64([0.0, -torch.inf])
    fair = f64([0.0, 0.0])
    assert kl_categorical(fair, certain) == torch.inf
    assert kl_categorical(certain, fair).item() == pytest.approx(math.log(2), abs=1e-15)
    assert kl_categorical(certain, certain) == 0


def test_a_probability_that_underflows_is_still_an_outcome():
    """exp(-800) is 0 in float64, but q excludes what p has: 0 * inf must not become NaN."""
    p, q = f64([0.0, -800.0]), f64([0.0, -torch.inf])
    assert kl_categorical(p, q) == torch.inf


@pytest.mark.parametrize("far", [-89.0, -95.0, -200.0, -1e4, -1e30])
def test_distributions_far_apart_have_a_finite_divergence(far):
    """P = (1, 0) nearly, q a fair coin: log 2; q / p of the second outcome overflows float32."""
    p, q = torch.tensor([0.0, far], requires_grad=True), torch.zeros(2)
    kl = kl_categorical(p, q)
    torch.testing.assert_close(kl, torch.tensor(math.log(2)))
    assert gradient(lambda x: kl_categorical(x, q), p)[0].isfinite().all()
    assert kl_categorical(q, p.detach()).item() == pytest.approx(-far / 2 - math.log(2), rel=1e-6)


def test_excluded_outcomes_leave_the_gradient_finite():
    p = f64([0.3, -torch.inf, 0.1]).requires_grad_()
    q = f64([0.2, -torch.inf, 0.7]).requires_grad_()
    for grad in torch.autograd.grad(kl_categorical(p, q), (p, q)):
        assert grad.isfinite().all()


def test_an_outcome_of_q_alone_has_a_gradient():
    """In the logits of q it is q - p; in those of p that outcome plays no part."""
    p, q = f64([0.3, -torch.inf, 0.1]), f64([0.2, 0.5, 0.7])
    in_q = gradient(lambda x: kl_categorical(p, x), q)
    torch.testing.assert_close(in_q, q.softmax(-1) - p.softmax(-1), atol=1e-15, rtol=0)
    in_p = gradient(lambda x: kl_categorical(x, q), p)
    without = gradient(lambda x: kl_categorical(x, q[[0, 2]]), p[[0, 2]])
    torch.testing.assert_close(in_p[[0, 2]], without, atol=1e-15, rtol=0)
    assert in_p[1] == 0


def test_gradcheck_of_kl_categorical():
    inputs = (random(2, 3, seed=3).requires_grad_(), random(2, 3, seed=4).requires_grad_())
    assert torch.autograd.gradcheck(kl_categorical, inputs)


def test_kl_of_normal_laws_by_quadrature():
    """The integral of p log(p/q) by the trapezoidal rule, which is exact here to rounding."""
    for mu_p, std_p, mu_q, std_q in [
        (0.3, 1.1, -0.5, 0.7),
        (0.0, 0.5, 2.0, 3.0),
        (1.0, 2.0, 1.0, 2.0),
    ]:
        x = torch.linspace(mu_p - 14 * std_p, mu_p + 14 * std_p, 4001, dtype=torch.float64)
        given = [f64(v) for v in (mu_p, std_p, mu_q, std_q)]
        p, q = torch.distributions.Normal(*given[:2]), torch.distributions.Normal(*given[2:])
        integrand = p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x))
        expected = integrand.sum() * (x[1] - x[0])
        torch.testing.assert_close(kl_gaussian(*given), expected, atol=1e-12, rtol=0)


def test_kl_of_normal_laws_worked_by_hand():
    """N(0, 1) against N(3, 2^2): ln 2 + (1 + 9)/8 - 1/2 = 1.4431..."""
    args = [f64(v) for v in (0.0, 1.0, 3.0, 2.0)]
    assert kl_gaussian(*args).item() == pytest.approx(math.log(2) + 0.75, abs=1e-15)


def test_kl_of_nearly_equal_widths_keeps_its_digits():
    """For std ratio 1 + e the divergence is e^2 - O(e^3); the textbook form rounds it to 0."""
    one = f64(1.0)
    divergence = kl_gaussian(0 * one, one + 1e-7, 0 * one, one)
    assert divergence.item() == pytest.approx(1e-14, rel=1e-5, abs=0)
    three = 3 * one  # whose logarithm is rounded, unlike that of 1
    e = ((three + 3e-12).item() - 3) / 3
    divergence = kl_gaussian(0 * one, three + 3e-12, 0 * one, three)
    assert divergence.item() == pytest.approx(e**2, rel=1e-6, abs=0)
    for width, step in ((0.3, 3e-12), (0.3, -3e-12), (7.0, 3e-12), (7.0, -3e-12)):
        p, q = f64(width * (1 + step)), f64(width)
        e = ((p - q) / q).item()
        assert kl_gaussian(0 * q, p, 0 * q, q).item() == pytest.approx(e**2, rel=1e-6, abs=0)
    wide, wider = torch.tensor(1000.0), torch.tensor(1000.001)  # float32
    exact = kl_gaussian(0 * one, wide.double(), 0 * one, wider.double())
    close = kl_gaussian(torch.tensor(0.0), wide, torch.tensor(0.0), wider)
    assert close.item() == pytest.approx(exact.item(), rel=1e-5, abs=0)
    far = kl_gaussian(torch.tensor(0.0), torch.tensor(1e-12), torch.tensor(0.0), wide)
    assert far.item() == pytest.approx(math.log(1e15) - 0.5, rel=1e-6)


# ---------------------------------------------------------------- e^x - 1 - x


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-15), (torch.float32, 6e-7)])
def test_expm1_minus_x_against_fifty_digits(dtype, allowed):
    magnitudes = torch.logspace(-8, 1.5, 100, dtype=dtype)
    x = torch.cat([magnitudes, -magnitudes, torch.tensor([0.3, -0.3], dtype=dtype)])
    with mpmath.workdps(50):
        for argument, value in zip(x.tolist(), expm1_minus_x(x).tolist(), strict=True):
            true = mpmath.exp(argument) - 1 - mpmath.mpf(argument)
            assert abs((value - true) / true) < allowed, argument


def test_expm1_minus_x_gradient_keeps_its_digits():
    """The derivative is expm1(x); (expm1(x) + 1) - 1 would lose them."""
    x = torch.logspace(-8, 1, 60, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(expm1_minus_x(x).sum(), x)
    torch.testing.assert_close(grad, x.expm1().detach(), atol=0, rtol=1e-14)


def test_gradcheck_of_expm1_minus_x_on_both_branches():
    x = f64([-40.0, -3.0, -0.3, -0.29, 0.0, 0.1, 0.3, 2.0, 5.0]).requires_grad_()
    assert torch.autograd.gradcheck(expm1_minus_x, x)
    assert torch.autograd.gradgradcheck(expm1_minus_x, x)


def test_expm1_minus_x_at_the_ends():
    x = torch.tensor([torch.inf, -torch.inf, 1e4, 0.0], requires_grad=True)
    value = expm1_minus_x(x)
    assert value.tolist() == [torch.inf, torch.inf, torch.inf, 0.0]
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert grad.tolist() == [torch.inf, -1.0, torch.inf, 0.0]


# ---------------------------------------------------------------- values of the estimators

MU = f64([0.5, 0.25, 0.25]).log()
NU = f64([0.25, 0.5, 0.25]).log()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("k1", -math.log(2)), ("k2", math.log(2) ** 2 / 2), ("k3", 2 - 1 - math.log(2))],
)
def test_estimates_where_q_is_twice_p(kind, expected):
    """With r = ln 2, k1 = -ln 2, k2 = (ln 2)^2 / 2, k3 = 2 - 1 - ln 2."""
    estimate = kl_estimate(f64([0.25]).log(), f64([0.5]).log(), kind)
    assert estimate.item() == pytest.approx(expected, abs=1e-15)


def test_k3_is_the_default_and_k2_has_another_mean():
    """KL = ln(2)/2 - ln(2)/4 = .173287; E k2 = (3/4)(ln 2)^2/2 = .180170."""
    mean = {kind: (MU.exp() * kl_estimate(MU, NU, kind)).sum().item() for kind in KINDS}
    assert mean["k1"] == pytest.approx(math.log(2) / 4, abs=1e-15)
    assert mean["k3"] == pytest.approx(math.log(2) / 4, abs=1e-15)
    assert mean["k2"] == pytest.approx(0.375 * math.log(2) ** 2, abs=1e-15)
    assert torch.equal(kl_estimate(MU, NU), kl_estimate(MU, NU, "k3"))


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 6), scale=st.floats(0, 4), seed=st.integers(0, 2**16))
def test_k1_and_k3_have_the_mean_kl(size, scale, seed):
    p, q = ((scale * random(size, seed=s)).log_softmax(-1) for s in (seed, seed + 1))
    divergence = kl_categorical(p, q).item()
    for kind in ("k1", "k3"):
        mean = (p.exp() * kl_estimate(p, q, kind)).sum().item()
        assert mean == pytest.approx(divergence, abs=1e-11)


def test_k1_and_k3_tell_the_direction_of_the_ratio():
    """With logp and logq exchanged, the mean under p is not KL(p||q)."""
    p, q = MU, REFERENCE[0]
    divergence = kl_categorical(p, q)
    for kind in ("k1", "k3"):
        mean = (p.exp() * kl_estimate(q, p, kind)).sum()
        assert (mean - divergence).abs() > 0.02


def test_k3_misses_the_mass_that_the_sampler_never_visits():
    """Top-k: the sampler keeps 3 of 4 arms; q has .4 on the dropped one, and k3 is low by .4."""
    q = f64([0.1, 0.2, 0.3, 0.4]).log()
    p = f64([0.5, 0.25, 0.25]).log()
    divergence = (p.exp() * (p - q[:3])).sum().item()
    means = [(p.exp() * kl_estimate(p, q[:3], kind)).sum().item() for kind in ("k1", "k3")]
    assert means == pytest.approx([divergence, divergence - 0.4], abs=1e-15)


@settings(deadline=None, max_examples=60)
@given(st.floats(-30, 30), st.floats(-30, 0))
def test_k3_is_k1_plus_a_zero_mean_term_and_never_negative(r, logp):
    logp = f64(logp)
    logq = logp + r
    k1, k3 = kl_estimate(logp, logq, "k1"), kl_estimate(logp, logq, "k3")
    assert k3 >= 0
    torch.testing.assert_close(k3, k1 + torch.expm1(logq - logp), atol=1e-9, rtol=1e-9)


def test_k3_of_equal_log_probs_is_exactly_zero():
    """A reference that is a copy gives 0 at every token; anything else means dropout or a bug."""
    logp = random(3, 5).log_softmax(-1)
    for kind in KINDS:
        assert (kl_estimate(logp, logp.clone(), kind) == 0).all()


def test_k3_in_float32_keeps_its_digits_near_the_reference():
    """At r = 1e-4 (rounded to float32): exp(r) - 1 - r has no correct digit there."""
    logp, logq = torch.tensor(-0.5), torch.tensor(-0.4999)
    r = logq.double() - logp.double()
    assert kl_estimate(logp, logq).item() == pytest.approx(expm1_minus_x(r).item(), rel=1e-6, abs=0)
    naive = (logq - logp).exp() - 1 - (logq - logp)
    assert abs(naive.item() / expm1_minus_x(r).item() - 1) > 0.5


def test_no_clamp_stops_the_gradient_of_k3_far_from_the_reference():
    """At r = 5 the gradient in logp is 1 - e^5; a clamp of the value at 10 would make it 0."""
    logp = f64(-6.0).requires_grad_()
    (grad,) = torch.autograd.grad(kl_estimate(logp, f64(-1.0)), logp)
    assert grad.item() == pytest.approx(1 - math.exp(5), rel=1e-14)


def test_a_sample_that_q_excludes_is_infinite_not_nan():
    for kind in KINDS:
        assert kl_estimate(torch.tensor([-1.0]), torch.tensor([-torch.inf]), kind) == torch.inf


def test_log_densities_may_be_positive():
    narrow, wide = torch.distributions.Normal(0.0, 0.01), torch.distributions.Normal(0.0, 1.0)
    x = torch.tensor([0.0])
    assert kl_estimate(narrow.log_prob(x), wide.log_prob(x), "k1").item() == pytest.approx(
        math.log(100)
    )


# ---------------------------------------------------------------- gradients, one action


def one_action_gradient(kind, logits, reference):
    """E[grad k]: the expectation is not differentiated."""
    weights = logits.softmax(-1)

    def loss(z):
        return (weights * kl_estimate(z.log_softmax(-1), reference.log_softmax(-1), kind)).sum()

    return gradient(loss, logits)


def test_mean_gradients_of_k1_k2_k3():
    """Zero, the gradient of KL(pi||ref), the gradient of KL(ref||pi) = pi - ref."""
    pi, ref = random(5, seed=5), random(5, seed=6)
    reverse = gradient(lambda z: kl_categorical(z, ref), pi)
    expected = {
        "k1": torch.zeros(5, dtype=torch.float64),
        "k2": reverse,
        "k3": pi.softmax(-1) - ref.softmax(-1),
    }
    for kind in KINDS:
        actual = one_action_gradient(kind, pi, ref)
        torch.testing.assert_close(actual, expected[kind], atol=1e-14, rtol=0)
    assert (expected["k2"] - expected["k3"]).abs().max() > 0.01


def test_with_a_fixed_sampler_k1_and_k3_have_the_right_gradient_and_k2_has_not():
    """Samples from old, q = pi: the gradient of KL(old||pi) is pi - old."""
    old, pi = random(5, seed=7), random(5, seed=8)
    weights, expected = old.softmax(-1), pi.softmax(-1) - old.softmax(-1)
    for kind, right in (("k1", True), ("k2", False), ("k3", True)):
        actual = gradient(
            lambda z, k=kind: (
                weights * kl_estimate(old.log_softmax(-1), z.log_softmax(-1), k)
            ).sum(),
            pi,
        )
        assert torch.allclose(actual, expected, atol=1e-14) is right


# ---------------------------------------------------------------- the penalty in the loss

PER_TOKEN = {"agg": "seq-mean-token-sum"}


def test_the_batch_repeats_each_response_by_its_probability():
    assert torch.bincount(BATCH).tolist() == [4, 2, 4, 2, 2, 1, 1]
    value = batch_loss(SAMPLER, kind="k3", **PER_TOKEN)
    torch.testing.assert_close(value, kl_of_responses(SAMPLER, REFERENCE), atol=1e-15, rtol=0)


def test_the_chain_rule_sums_token_divergences_over_the_policys_states():
    for seed in range(3):
        p = random(3, 3, seed=seed)
        torch.testing.assert_close(
            kl_of_responses(p, REFERENCE), kl_of_tokens(p, REFERENCE), atol=1e-14, rtol=0
        )


def test_k2_of_the_sum_has_the_gradient_of_the_sequence_kl():
    full = gradient(lambda z: kl_of_responses(z, REFERENCE), SAMPLER)
    actual = gradient(lambda z: batch_loss(z, kind="k2", loss=sequence_kl_loss), SAMPLER)
    torch.testing.assert_close(actual, full, atol=1e-14, rtol=0)


def test_k2_per_token_has_only_the_part_with_fixed_states():
    full = gradient(lambda z: kl_of_responses(z, REFERENCE), SAMPLER)
    partial = gradient(lambda z: kl_of_tokens(z, REFERENCE, SAMPLER), SAMPLER)
    actual = gradient(lambda z: batch_loss(z, kind="k2", **PER_TOKEN), SAMPLER)
    torch.testing.assert_close(actual, partial, atol=1e-14, rtol=0)
    assert (actual - full).norm() > 0.05 * full.norm()


def test_k3_per_row_follows_the_forward_kl_and_k3_per_token_its_states_from_the_policy():
    forward = gradient(lambda z: kl_of_responses(REFERENCE, z), SAMPLER)
    per_row = gradient(lambda z: batch_loss(z, kind="k3", loss=sequence_kl_loss), SAMPLER)
    torch.testing.assert_close(per_row, forward, atol=1e-14, rtol=0)
    root = SAMPLER[0].exp()
    weights = torch.stack([torch.ones(()), root[0], root[1]]).unsqueeze(1)
    expected = weights * (SAMPLER.softmax(-1) - REFERENCE.softmax(-1))
    per_token = gradient(lambda z: batch_loss(z, kind="k3", **PER_TOKEN), SAMPLER)
    torch.testing.assert_close(per_token, expected, atol=1e-14, rtol=0)
    assert (per_token - forward).norm() > 0.05


@pytest.mark.parametrize("kind", ["k1", "k3"])
@pytest.mark.parametrize("level", [{"loss": sequence_kl_loss}, PER_TOKEN])
def test_an_attached_prefix_ratio_gives_value_and_gradient_off_policy(kind, level):
    pi = random(3, 3, seed=9)
    value, full = (
        f(pi)
        for f in (
            lambda z: kl_of_responses(z, REFERENCE),
            lambda z: gradient(lambda x: kl_of_responses(x, REFERENCE), z),
        )
    )
    loss = batch_loss(pi, kind=kind, ratio="attached", **level)
    grad = gradient(lambda z: batch_loss(z, kind=kind, ratio="attached", **level), pi)
    torch.testing.assert_close(loss, value, atol=1e-14, rtol=0)
    torch.testing.assert_close(grad, full, atol=1e-14, rtol=0)


def test_an_attached_token_ratio_has_only_the_part_with_fixed_states():
    """On-policy, where its value is 1 everywhere; so a ratio of value 1 changes the gradient."""
    options = {"kind": "k3", "ratio": "attached", "ratio_scope": "token", **PER_TOKEN}
    actual = gradient(lambda z: batch_loss(z, **options), SAMPLER)
    partial = gradient(lambda z: kl_of_tokens(z, REFERENCE, SAMPLER), SAMPLER)
    torch.testing.assert_close(actual, partial, atol=1e-14, rtol=0)
    without = gradient(lambda z: batch_loss(z, kind="k3", **PER_TOKEN), SAMPLER)
    assert (actual - without).norm() > 0.05


def test_a_detached_ratio_moves_the_on_policy_gradients_off_policy():
    """k2 follows KL(pi||ref), k3 follows KL(ref||pi); without the ratio k2 follows neither."""
    pi = random(3, 3, seed=10)
    reverse = gradient(lambda z: kl_of_responses(z, REFERENCE), pi)
    forward = gradient(lambda z: kl_of_responses(REFERENCE, z), pi)
    for kind, expected in (("k2", reverse), ("k3", forward)):
        options = {"kind": kind, "ratio": "detached", "loss": sequence_kl_loss}
        actual = gradient(lambda z, o=options: batch_loss(z, **o), pi)
        torch.testing.assert_close(actual, expected, atol=1e-14, rtol=0)
    plain = gradient(lambda z: batch_loss(z, kind="k2", loss=sequence_kl_loss), pi)
    assert (plain - reverse).norm() > 0.05
    tokens = {"kind": "k2", "ratio": "detached", **PER_TOKEN}
    partial = gradient(lambda z: kl_of_tokens(z, REFERENCE, pi), pi)
    torch.testing.assert_close(
        gradient(lambda z: batch_loss(z, **tokens), pi), partial, atol=1e-14, rtol=0
    )


def test_dividing_each_row_by_its_length_changes_the_direction():
    """The length is the policy's choice, so 1/length does not leave the expectation."""
    partial = gradient(lambda z: kl_of_tokens(z, REFERENCE, SAMPLER), SAMPLER)
    by_length = gradient(lambda z: batch_loss(z, kind="k2", agg="seq-mean-token-mean"), SAMPLER)
    cosine = torch.cosine_similarity(partial.flatten(), by_length.flatten(), dim=0)
    assert cosine < 0.999
    fixed = gradient(lambda z: batch_loss(z, kind="k2", agg="constant", norm=2.0), SAMPLER)
    torch.testing.assert_close(fixed, partial / 2, atol=1e-14, rtol=0)


def test_prefix_ratio_is_the_product_up_to_the_token_and_skips_masked_positions():
    """Log-ratios .1, (masked), .3: weights e^.1 and e^.4 on k3 of .2 and -.5."""
    logp = f64([[-1.0, -7.0, -2.0]])
    old = f64([[-1.1, -5.0, -2.3]])
    ref = f64([[-0.8, -9.0, -2.5]])
    mask = torch.tensor([[True, False, True]])
    k3 = [math.exp(r) - 1 - r for r in (0.2, -0.5)]
    options = {"kind": "k3", "old_logp": old, "ratio": "attached", "agg": "seq-mean-token-sum"}
    prefix = kl_loss(logp, ref, mask, **options)
    token = kl_loss(logp, ref, mask, ratio_scope="token", **options)
    assert prefix.item() == pytest.approx(math.exp(0.1) * k3[0] + math.exp(0.4) * k3[1], abs=1e-14)
    assert token.item() == pytest.approx(math.exp(0.1) * k3[0] + math.exp(0.3) * k3[1], abs=1e-14)


def test_the_default_is_k2_per_token():
    """k2 of (.2, -.5, .4) over three counted tokens: (.02 + .125 + .08) / 3 = .075."""
    logp = f64([[-1.0, -2.0], [-1.0, -1.0]])
    ref = f64([[-0.8, -2.5], [-0.6, 3.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    assert kl_loss(logp, ref, mask, agg="token-mean").item() == pytest.approx(0.075, abs=1e-15)


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf")])
def test_padding_enters_neither_value_nor_gradient(padding):
    logp = response_logps(SAMPLER)
    ref, old = response_logps(REFERENCE), response_logps(random(3, 3))
    grads = []
    for fill in (0.0, padding):
        lp, rp, op = (torch.where(MASK, x, fill) for x in (logp, ref, old))
        leaf = lp.clone().requires_grad_()
        loss = kl_loss(leaf, rp, MASK, kind="k3", old_logp=op, ratio="attached", agg="token-mean")
        grads.append(torch.autograd.grad(loss, leaf)[0])
    assert torch.equal(*grads)
    assert grads[0].isfinite().all()


def test_appended_padding_changes_nothing():
    logp, ref = (response_logps(x) for x in (SAMPLER, REFERENCE))
    longer = [torch.cat([x, torch.full((7, 3), -5.0)], dim=1) for x in (logp, ref)]
    mask = torch.cat([MASK, torch.zeros(7, 3).bool()], dim=1)
    for agg in ("token-mean", "seq-mean-token-mean"):
        assert kl_loss(*longer, mask, agg=agg) == kl_loss(logp, ref, MASK, agg=agg)
    assert sequence_kl_loss(*longer, mask) == sequence_kl_loss(logp, ref, MASK)


# ---------------------------------------------------------------- the penalty in the reward


def test_kl_reward_is_the_detached_log_ratio_and_zero_under_the_mask():
    logp = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    ref = torch.tensor([[-1.5, -1.0, torch.nan]])
    reward = kl_reward(logp, ref, torch.tensor([[1, 1, 0]]))
    assert reward.tolist() == [[0.5, -1.0, 0.0]]
    assert not reward.requires_grad


def test_k1_in_the_reward_with_all_that_follows_has_the_gradient_of_the_sequence_kl():
    """With gamma = 0 each token is charged for itself only: the part with fixed states."""
    full = gradient(lambda z: kl_of_responses(z, REFERENCE), SAMPLER)
    partial = gradient(lambda z: kl_of_tokens(z, REFERENCE, SAMPLER), SAMPLER)
    mask = MASK[BATCH]
    reward = -kl_reward(response_logps(SAMPLER)[BATCH], response_logps(REFERENCE)[BATCH], mask)
    for gamma, expected in ((1.0, full), (0.0, partial)):
        returns = discounted_returns(reward, mask, gamma=gamma)
        actual = gradient(
            lambda z, a=returns: reinforce_loss(
                response_logps(z)[BATCH], a, mask, agg="seq-mean-token-sum"
            ),
            SAMPLER,
        )
        torch.testing.assert_close(actual, expected, atol=1e-14, rtol=0)


def test_k2_in_the_loss_is_k1_in_the_reward_sample_by_sample():
    logp, ref = response_logps(random(3, 3, seed=11)), response_logps(REFERENCE)
    cost = kl_reward(logp, ref, MASK).sum(-1)
    for row in range(7):
        one = slice(row, row + 1)
        in_loss = gradient(lambda x, o=one: sequence_kl_loss(x, ref[o], MASK[o]), logp[one])
        in_reward = gradient(
            lambda x, o=one: reinforce_loss(x, -cost[o], MASK[o], agg="seq-mean-token-sum"),
            logp[one],
        )
        torch.testing.assert_close(in_loss, in_reward, atol=1e-15, rtol=0)


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_k2_and_k3_in_the_reward_vanish_one_order_faster_than_the_penalty(kind):
    """At a tenth of the distance the true gradient is a tenth, theirs a hundredth."""
    ref, direction = random(5, seed=12), random(5, seed=13)
    norms = []
    for distance in (1e-3, 1e-4):
        pi = ref + distance * direction
        weights = pi.softmax(-1)
        cost = kl_estimate(pi.log_softmax(-1), ref.log_softmax(-1), kind)
        grad = gradient(lambda z, w=weights, c=cost: (w * c * z.log_softmax(-1)).sum(), pi)
        norms.append(grad.norm().item())
    assert math.log10(norms[0] / norms[1]) == pytest.approx(2, abs=0.01)


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision_keeps_its_dtype_and_is_close(dtype, rtol):
    logp, ref = (random(3, 5, seed=s).log_softmax(-1).to(dtype) for s in (1, 2))
    mask = torch.arange(5) < torch.tensor([5, 3, 1]).unsqueeze(1)
    one, two = torch.tensor(1.0, dtype=dtype), torch.tensor(2.0, dtype=dtype)
    pairs = [
        (kl_categorical(logp, ref), kl_categorical(logp.double(), ref.double())),
        (kl_gaussian(one, two, two, one), kl_gaussian(*(x.double() for x in (one, two, two, one)))),
        (expm1_minus_x(logp), expm1_minus_x(logp.double())),
        (kl_estimate(logp, ref), kl_estimate(logp.double(), ref.double())),
        (kl_reward(logp, ref, mask), kl_reward(logp.double(), ref.double(), mask)),
        (
            kl_loss(logp, ref, mask, agg="token-mean"),
            kl_loss(logp.double(), ref.double(), mask, agg="token-mean"),
        ),
    ]
    for actual, expected in pairs:
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=1e-6)


def test_bfloat16_log_probs_are_subtracted_in_float32():
    """-8 and -8.0625 differ by 1/16: k3 = .001995; in bfloat16 e^r - 1 - r is 0 or .0039."""
    logp, logq = torch.tensor(-8.0).bfloat16(), torch.tensor(-7.9375).bfloat16()
    r = 0.0625
    assert kl_estimate(logp, logq).item() == pytest.approx(math.expm1(r) - r, rel=2**-8)


# ---------------------------------------------------------------- wrong input

LOGP = torch.tensor([[-1.0, -2.0]])
ONES = torch.ones(1, 2).bool()
ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"logits_q must be \(\.\.\.\) = \(2,\) beside logits_p \(2,\), got \(3,\)",
            lambda: kl_categorical(ONE.expand(2), ONE.expand(3)),
        ),
        (
            ValueError,
            "a distribution needs an outcome",
            lambda: kl_categorical(torch.zeros(2, 0), torch.zeros(2, 0)),
        ),
        (
            ValueError,
            r"dim must be an axis of logits_p .*, in \[-2, 2\)",
            lambda: kl_categorical(LOGP, LOGP, dim=2),
        ),
        (
            ValueError,
            "dim must be an axis of logits_p .*, which has none",
            lambda: kl_categorical(ONE, ONE),
        ),
        (ValueError, "logits_p must not be NaN", lambda: kl_categorical(LOGP * torch.nan, LOGP)),
        (ValueError, "logits_q must not be NaN", lambda: kl_categorical(LOGP, LOGP * torch.inf)),
        (ValueError, "logits_q .* got inf", lambda: kl_categorical(LOGP, -LOGP * torch.inf)),
        (TypeError, "logits_p must be floating point", lambda: kl_categorical(LOGP.long(), LOGP)),
        (ValueError, "std_p must be positive", lambda: kl_gaussian(ONE, 0 * ONE, ONE, ONE)),
        (ValueError, "std_q must be positive", lambda: kl_gaussian(ONE, ONE, ONE, -ONE)),
        (ValueError, "std_q must be positive", lambda: kl_gaussian(ONE, ONE, ONE, ONE * torch.inf)),
        (ValueError, "mu_q must be finite", lambda: kl_gaussian(ONE, ONE, ONE * torch.nan, ONE)),
        (TypeError, "mu_p must be floating", lambda: kl_gaussian(ONE.long(), ONE, ONE, ONE)),
        (TypeError, "x must be floating point", lambda: expm1_minus_x(torch.tensor(1))),
        (ValueError, "kind must be one of .* got 'K2'", lambda: kl_estimate(LOGP, LOGP, "K2")),
        (
            ValueError,
            r"logq must be \(\.\.\.\) = \(1, 2\) beside logp \(1, 2\), got \(1, 1\)",
            lambda: kl_estimate(LOGP, LOGP[:, :1]),
        ),
        (ValueError, "logp must be finite", lambda: kl_estimate(LOGP * torch.inf, LOGP)),
        (
            ValueError,
            r"logq must be in \[-inf, inf\), got nan",
            lambda: kl_estimate(LOGP, LOGP * torch.nan),
        ),
        (
            ValueError,
            r"logq must be in \[-inf, inf\), got inf",
            lambda: kl_estimate(LOGP, -LOGP * torch.inf),
        ),
        (TypeError, "logq must be floating point", lambda: kl_estimate(LOGP, LOGP.long())),
        (
            ValueError,
            "expected gradient is zero on-policy",
            lambda: kl_loss(LOGP, LOGP, ONES, kind="k1", agg="token-mean"),
        ),
        (
            ValueError,
            "kind='k1' with ratio='detached'",
            lambda: kl_loss(
                LOGP, LOGP, ONES, kind="k1", ratio="detached", old_logp=LOGP, agg="token-mean"
            ),
        ),
        (
            ValueError,
            "follows no KL",
            lambda: kl_loss(
                LOGP, LOGP, ONES, kind="k2", ratio="attached", old_logp=LOGP, agg="token-mean"
            ),
        ),
        (
            ValueError,
            "ratio='none' takes no old_logp",
            lambda: kl_loss(LOGP, LOGP, ONES, old_logp=LOGP, agg="token-mean"),
        ),
        (
            TypeError,
            "logp must be floating point, got torch.int64",
            lambda: kl_loss(LOGP.long(), LOGP, ONES, agg="token-mean"),
        ),
        (
            TypeError,
            "logp must be floating point, got torch.int64",
            lambda: kl_reward(LOGP.long(), LOGP, ONES),
        ),
        (
            ValueError,
            "needs old_logp",
            lambda: kl_loss(LOGP, LOGP, ONES, kind="k3", ratio="attached", agg="token-mean"),
        ),
        (
            ValueError,
            "kind must be one of",
            lambda: kl_loss(LOGP, LOGP, ONES, kind="kl", agg="token-mean"),
        ),
        (
            ValueError,
            "ratio must be one of",
            lambda: kl_loss(LOGP, LOGP, ONES, ratio="on", agg="token-mean"),
        ),
        (
            ValueError,
            "ratio_scope must be one",
            lambda: kl_loss(LOGP, LOGP, ONES, ratio_scope="row", agg="token-mean"),
        ),
        (ValueError, "agg must be one of", lambda: kl_loss(LOGP, LOGP, ONES, agg="mean")),
        (
            ValueError,
            "agg 'constant' needs norm",
            lambda: kl_loss(LOGP, LOGP, ONES, agg="constant"),
        ),
        (
            ValueError,
            "expected gradient is zero on-policy",
            lambda: sequence_kl_loss(LOGP, LOGP, ONES, kind="k1"),
        ),
        (
            ValueError,
            "ref_logp must not require grad",
            lambda: kl_loss(LOGP, LOGP.clone().requires_grad_(), ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "ref_logp must not require grad",
            lambda: sequence_kl_loss(LOGP, LOGP.clone().requires_grad_(), ONES),
        ),
        (
            ValueError,
            "old_logp must not require grad",
            lambda: kl_loss(
                LOGP,
                LOGP,
                ONES,
                kind="k3",
                ratio="attached",
                old_logp=LOGP.clone().requires_grad_(),
                agg="token-mean",
            ),
        ),
        (
            ValueError,
            "pi / old overflows: its log reaches 100",
            lambda: kl_loss(
                LOGP,
                LOGP,
                ONES,
                kind="k3",
                ratio="detached",
                old_logp=LOGP - 100,
                ratio_scope="token",
                agg="token-mean",
            ),
        ),
        (
            ValueError,
            r"rows \[0\] count no token",
            lambda: kl_loss(
                LOGP.repeat(2, 1),
                LOGP.repeat(2, 1),
                torch.tensor([[0, 0], [1, 1]]),
                agg="token-mean",
            ),
        ),
        (
            ValueError,
            r"rows \[0\] count no token",
            lambda: sequence_kl_loss(
                LOGP.repeat(2, 1),
                LOGP.repeat(2, 1),
                torch.tensor([[0, 0], [1, 1]]),
            ),
        ),
        (
            ValueError,
            "logp must be finite",
            lambda: kl_loss(LOGP * torch.nan, LOGP, ONES, agg="token-mean"),
        ),
        (ValueError, "logp holds log-prob", lambda: kl_loss(-LOGP, LOGP, ONES, agg="token-mean")),
        (ValueError, "mask", lambda: kl_loss(LOGP, LOGP, ONES[:, :1], agg="token-mean")),
        (
            ValueError,
            r"ref_logp must be \(N, T\) = \(1, 2\) beside mask \(1, 2\), got \(1, 1\)",
            lambda: kl_reward(LOGP, LOGP[:, :1], ONES),
        ),
        (
            ValueError,
            "ref_logp must not require",
            lambda: kl_reward(LOGP, LOGP.clone().requires_grad_(), ONES),
        ),
    ],
)
def test_wrong_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
