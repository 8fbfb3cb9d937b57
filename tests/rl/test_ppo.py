"""PPO: where clipping takes the gradient, and what it leaves."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.policy_gradient import reinforce_loss
from llmref.rl.ppo import (
    categorical_entropy,
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    entropy_bonus,
    importance_ratio,
    ppo_policy_loss,
)
from tests.tensors import gradient

LENGTHS = torch.tensor([5, 3, 1])
MASK = torch.arange(5) < LENGTHS.unsqueeze(1)  # (3, 5)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed=0, shape=(3, 5)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, *shape, 4, dtype=torch.float64, generator=generator)
    logp, old = logits.log_softmax(-1)[..., 0]
    advantages = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return logp, old, advantages


def at_ratios(ratios):
    """Log-probabilities of samples whose ratios these are, with probability 1/8 before."""
    ratios = f64(ratios)
    old = torch.full_like(ratios, 0.125).log()
    return old + ratios.log(), old


def surrogate_by_cases(ratio, advantage, low, high, dual=None):
    """The smaller of the two products, for A < 0 not below dual * A."""
    kept = min(max(ratio, 1 - low), 1 + high)
    smaller = min(ratio * advantage, kept * advantage)
    return max(smaller, dual * advantage) if dual is not None and advantage < 0 else smaller


# ---------------------------------------------------------------- the surrogate


def test_ratio_worked_by_hand():
    """1/2 against 1/4 is 2, 1/8 against 1/4 is 1/2; a clamp at log 1.5 allows 2/3 to 3/2."""
    logp, old = f64([0.5, 0.125]).log(), f64([0.25, 0.25]).log()
    torch.testing.assert_close(importance_ratio(logp, old), f64([2.0, 0.5]))
    clamped = importance_ratio(logp, old, max_log_ratio=math.log(1.5))
    torch.testing.assert_close(clamped, f64([1.5, 2 / 3]))


def test_a_clamped_ratio_has_no_gradient():
    logp, old = at_ratios([4.0, 0.2, 1.1])
    grads = gradient(lambda x: importance_ratio(x, old, max_log_ratio=1.0), logp)
    torch.testing.assert_close(grads, f64([0.0, 0.0, 1.1]))


def test_surrogate_worked_by_hand():
    """Ratio 2: A = 1 gives 1.2, A = -1 gives -2; ratio 1/2: 0.5 and -0.8."""
    logp, old = at_ratios([2.0, 2.0, 0.5, 0.5])
    surrogate = clipped_surrogate(logp, old, f64([1.0, -1.0, 1.0, -1.0]))
    torch.testing.assert_close(surrogate, f64([1.2, -2.0, 0.5, -0.8]))


def test_the_four_cases_on_a_grid():
    """No gradient for A > 0 above and A < 0 below the clip; elsewhere all of ratio times A."""
    ratios = [0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 2.0, 5.0]
    for sign, stops in ((1.0, lambda r: r > 1.2), (-1.0, lambda r: r < 0.8)):
        logp, old = at_ratios(ratios)
        advantages = torch.full_like(logp, sign)
        grads = gradient(lambda x, o=old, a=advantages: clipped_surrogate(x, o, a), logp)
        expected = f64([0.0 if stops(r) else r * sign for r in ratios])
        torch.testing.assert_close(grads, expected, atol=1e-14, rtol=0)


def test_at_the_edge_of_the_clip_the_gradient_is_whole():
    """Log-probabilities 0 and 0: ratio 1, and a clip of width 0 on both sides."""
    zero = torch.zeros(2, dtype=torch.float64)
    signs = f64([1.0, -1.0])
    grads = gradient(lambda x: clipped_surrogate(x, zero, signs, clip_low=0.0, clip_high=0.0), zero)
    assert grads.tolist() == signs.tolist()
    assert (
        clip_fraction(
            zero[None], zero[None], signs[None], torch.ones(1, 2), clip_low=0.0, clip_high=0.0
        ).item()
        == 0.0
    )


def test_at_the_edge_of_the_dual_clip_the_gradient_is_whole():
    """Ratio 2, A = -1, dual_clip 2: both sides of the maximum are -2."""
    logp, old = f64([0.5]).log(), f64([0.25]).log()
    grads = gradient(lambda x: clipped_surrogate(x, old, f64([-1.0]), dual_clip=2.0), logp)
    assert grads.item() == pytest.approx(-2.0)


def test_at_the_edge_of_the_value_clip_the_gradient_is_whole():
    """Value 1.5, old value 1, clip 0.5, target 3: half of (1.5 - 3)^2, slope -1.5."""
    one = torch.ones(1, 1)
    grads = gradient(
        lambda v: clipped_value_loss(v, one, 3 * one, one, clip=0.5, agg="token-mean"), 1.5 * one
    )
    assert grads.item() == -1.5


@settings(deadline=None, max_examples=60)
@given(
    low=st.floats(0, 0.9),
    high=st.floats(0, 2),
    dual=st.one_of(st.none(), st.floats(0.1, 3)),
    seed=st.integers(0, 2**16),
)
def test_surrogate_equals_its_cases(low, high, dual, seed):
    logp, old, advantages = random_batch(seed)
    dual = None if dual is None else 1 + high + dual
    actual = clipped_surrogate(
        logp, old, advantages, clip_low=low, clip_high=high, dual_clip=dual
    ).flatten()
    cases = zip((logp - old).exp().flatten().tolist(), advantages.flatten().tolist(), strict=True)
    expected = f64([surrogate_by_cases(r, a, low, high, dual) for r, a in cases])
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**16))
def test_the_surrogate_is_never_above_ratio_times_advantage(seed):
    logp, old, advantages = random_batch(seed)
    plain = importance_ratio(logp, old) * advantages
    assert (clipped_surrogate(logp, old, advantages) <= plain + 1e-12).all()


def test_dual_clip_ends_the_gradient_of_a_bad_sample_that_became_likely():
    """Ratio 4, A = -2, dual clip 3: the value is -6 and the gradient 0; without it -8 and -8."""
    logp, old = at_ratios([4.0])
    advantages = f64([-2.0])
    for dual, expected in ((3.0, (-6.0, 0.0)), (None, (-8.0, -8.0))):

        def surrogate(x, d=dual):
            return clipped_surrogate(x, old, advantages, dual_clip=d)

        actual = (surrogate(logp).item(), gradient(surrogate, logp).item())
        assert actual == pytest.approx(expected)


def test_dual_clip_leaves_good_samples_alone():
    logp, old = at_ratios([4.0, 1.1, 0.3])
    ones = torch.ones(3, dtype=torch.float64)
    without = clipped_surrogate(logp, old, ones)
    assert torch.equal(clipped_surrogate(logp, old, ones, dual_clip=3.0), without)


# ---------------------------------------------------------------- the loss


def test_loss_is_minus_the_mean_surrogate_of_the_counted_tokens():
    """Ratios 2, 1/2 | 1, A = 1, 1 | -1: -(1.2 + 0.5 - 1) / 3."""
    logp, old = at_ratios([[2.0, 0.5], [1.0, 9.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = ppo_policy_loss(logp, old, f64([1.0, -1.0]), mask, agg="token-mean")
    assert loss.item() == pytest.approx(-0.7 / 3)


@pytest.mark.parametrize("agg", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_on_policy_the_gradient_is_the_policy_gradient(agg):
    """At ratio 1 clipping is not there: one step a batch never meets it."""
    logp, _, advantages = random_batch()
    for options in ({}, {"clip_low": 0.01, "clip_high": 0.01}, {"dual_clip": 3.0}):
        clipped = gradient(
            lambda x, o=options: ppo_policy_loss(x, logp.detach(), advantages, MASK, agg=agg, **o),
            logp,
        )
        plain = gradient(lambda x: reinforce_loss(x, advantages, MASK, agg=agg), logp)
        torch.testing.assert_close(clipped, plain, atol=1e-15, rtol=0)


def test_one_advantage_a_row_is_that_advantage_on_each_token():
    logp, old, advantages = random_batch()
    row = advantages[:, 0]
    tokens = row.unsqueeze(1).expand(3, 5)
    assert ppo_policy_loss(logp, old, row, MASK, agg="token-mean") == ppo_policy_loss(
        logp, old, tokens, MASK, agg="token-mean"
    )


@pytest.mark.parametrize("padding", [math.nan, math.inf, -math.inf])
def test_padding_enters_neither_value_nor_gradient(padding):
    """Also in the clip fraction, the value loss and the entropy."""
    logp, old, advantages = random_batch()
    results = []
    for fill in (0.0, padding):
        x, o, a = (torch.where(MASK, z, fill) for z in (logp, old, advantages))
        leaf, critic = x.clone().requires_grad_(), a.clone().requires_grad_()
        logits = x.unsqueeze(-1) * f64([1.0, 2.0, 3.0, 4.0])
        logits.requires_grad_()
        loss = ppo_policy_loss(leaf, o, a, MASK, dual_clip=3.0, agg="token-mean")
        value = clipped_value_loss(critic, o, x, MASK, agg="token-mean")
        bonus = entropy_bonus(logits, MASK, agg="token-mean")
        grads = [
            torch.autograd.grad(y, z)[0]
            for y, z in ((loss, leaf), (value, critic), (bonus, logits))
        ]
        results.append([loss, value, bonus, clip_fraction(x, o, a, MASK), *grads])
    for clean, padded in zip(*results, strict=True):
        assert torch.equal(clean, padded)
    assert not results[1][4][~MASK].any()


def test_gradcheck_of_the_loss():
    logp, old, advantages = random_batch()
    assert torch.autograd.gradcheck(
        lambda x: ppo_policy_loss(
            x, old, advantages, MASK, clip_high=0.3, dual_clip=3.0, agg="token-mean"
        ),
        logp.requires_grad_(),
    )


@pytest.mark.parametrize("loss", [ppo_policy_loss, "critic", reinforce_loss])
def test_pieces_of_a_batch_add_up_with_a_constant_norm(loss):
    """9 tokens in rows of 5, 3 and 1: norms 9 / 1 and 9 / 2 divide both pieces by 9."""
    logp, old, advantages = random_batch()

    def of(rows, **how):
        if loss == "critic":
            parts = (logp[rows], old[rows], advantages[rows], MASK[rows])
            return clipped_value_loss(*parts, **how)
        if loss is reinforce_loss:
            return reinforce_loss(logp[rows], advantages[rows], MASK[rows], **how)
        return ppo_policy_loss(logp[rows], old[rows], advantages[rows], MASK[rows], **how)

    whole, first, rest = slice(None), slice(0, 1), slice(1, 3)
    for together, n in (({"agg": "token-mean"}, 9), ({"agg": "seq-mean-token-sum"}, 3)):
        pieces = of(first, agg="constant", norm=n) + of(rest, agg="constant", norm=n / 2)
        torch.testing.assert_close(pieces, of(whole, **together), atol=1e-14, rtol=0)


def test_mean_of_micro_batch_means_is_not_the_mean_over_all_tokens():
    """Losses 1, 1 | 6: 8/3 together, (1 + 6) / 2 apart."""
    logp, old = at_ratios([[1.0, 1.0], [1.0, 1.0]])
    advantages, mask = f64([-1.0, -6.0]), torch.tensor([[1, 1], [1, 0]])
    together = ppo_policy_loss(logp, old, advantages, mask, agg="token-mean")
    apart = [
        ppo_policy_loss(
            logp[i : i + 1],
            old[i : i + 1],
            advantages[i : i + 1],
            mask[i : i + 1],
            agg="token-mean",
        )
        for i in range(2)
    ]
    assert together.item() == pytest.approx(8 / 3)
    assert sum(apart).item() / 2 == pytest.approx(3.5)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision_keeps_its_dtype_and_is_close(dtype, rtol):
    logp, old, advantages = (x.to(dtype) for x in random_batch())
    loss = ppo_policy_loss(logp, old, advantages, MASK, agg="token-mean")
    value = clipped_value_loss(advantages, old, logp, MASK, agg="token-mean")
    assert (loss.dtype, value.dtype) == (dtype, dtype)
    wide = [x.double() for x in (logp, old, advantages)]
    expected = ppo_policy_loss(*wide, MASK, agg="token-mean")
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)
    expected = clipped_value_loss(wide[2], wide[1], wide[0], MASK, agg="token-mean")
    torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=0)


def test_the_ratio_of_bfloat16_log_probabilities_is_taken_in_float32():
    """Averaged over 512 tokens at ratio 1, a bfloat16 sum would stop at 256."""
    logp = torch.full((1, 512), -1.0, dtype=torch.bfloat16)
    loss = ppo_policy_loss(logp, logp, torch.ones(1), torch.ones(1, 512), agg="token-mean")
    assert loss.item() == -1.0


def half(*values):
    return torch.tensor([values], dtype=torch.float16)


def test_a_ratio_that_overflows_float16_is_refused_and_float32_holds_it():
    """-0.5 against -12.5: e^12 = 162754.8 is beyond 65504."""
    with pytest.raises(ValueError, match=r"pi / old overflows torch.float16: its log reaches 12"):
        importance_ratio(half(-0.5), half(-12.5))
    assert importance_ratio(half(-0.5).float(), half(-12.5)).item() == pytest.approx(162754.8)
    assert importance_ratio(half(-0.5), half(-12.5), max_log_ratio=2.0).isfinite().all()


def test_a_surrogate_in_float16_is_refused_only_if_it_overflows_itself():
    """Ratio e^12: a good token is clipped to 1.2, a bad one has -162755."""
    arguments = half(-0.5), half(-12.5)
    assert clipped_surrogate(*arguments, half(1.0)).item() == pytest.approx(1.2, abs=1e-3)
    with pytest.raises(ValueError, match=r"the surrogate overflows torch.float16: .* 162755"):
        clipped_surrogate(*arguments, half(-1.0))
    clipped = clipped_surrogate(*arguments, half(-1.0), dual_clip=3.0)
    assert clipped.item() == -3.0


def test_a_loss_that_overflows_is_refused():
    mask = torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"the loss overflows torch.float16"):
        ppo_policy_loss(half(-0.5), half(-12.5), half(-1.0), mask, agg="token-mean")
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"the surrogate overflows torch.float32"):
        ppo_policy_loss(-one, -40 * one, -1e38 * one, mask, agg="token-mean")
    with pytest.raises(ValueError, match=r"the loss overflows torch.float32"):
        clipped_value_loss(1e20 * one, one, one, mask, agg="token-mean")
    with pytest.raises(ValueError, match=r"the loss overflows torch.float16: it reaches 80000"):
        clipped_value_loss(half(400.0), half(400.0), half(0.0), mask, agg="token-mean")


# ---------------------------------------------------------------- the clip fraction


@settings(deadline=None, max_examples=30)
@given(dual=st.sampled_from([None, 1.5, 3.0]), seed=st.integers(0, 2**16))
def test_clip_fraction_is_the_share_of_tokens_without_gradient(dual, seed):
    logp, old, advantages = random_batch(seed)
    advantages[0, 0] = 0.0  # no gradient, but not because of the clip
    options = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": dual}
    grads = gradient(lambda x: clipped_surrogate(x, old, advantages, **options), logp)
    stopped = (grads == 0) & (advantages != 0) & MASK
    expected = stopped.sum() / MASK.sum()
    actual = clip_fraction(logp, old, advantages, MASK, **options)
    assert actual.item() == pytest.approx(expected.item())


def test_clip_fraction_does_not_count_ratios_that_keep_their_gradient():
    """Ratio 2 with A < 0 and 1/2 with A > 0 are outside the clip and alive."""
    logp, old = at_ratios([[2.0, 0.5, 2.0, 0.5]])
    advantages = f64([[-1.0, 1.0, 1.0, -1.0]])
    assert clip_fraction(logp, old, advantages, torch.ones(1, 4)).item() == 0.5
    of_a_policy = clip_fraction(logp.requires_grad_(), old, advantages, torch.ones(1, 4))
    assert of_a_policy == 0.5
    assert not of_a_policy.requires_grad


# ---------------------------------------------------------------- value loss and entropy


def test_value_loss_worked_by_hand():
    """V 1.5, old 1, clip 0.2: V_c 1.2. R 1.36: max(.0196, .0256)/2; R 1.30: max(.04, .01)/2."""
    values, old, mask = f64([[1.5]]), f64([[1.0]]), torch.ones(1, 1)
    for target, loss, slope in ((1.36, 0.0128, 0.0), (1.30, 0.02, 0.2), (2.0, 0.32, 0.0)):
        returns = f64([[target]])
        actual = clipped_value_loss(values, old, returns, mask, agg="token-mean")
        assert actual.item() == pytest.approx(loss)
        grads = gradient(
            lambda v, r=returns: clipped_value_loss(v, old, r, mask, agg="token-mean"), values
        )
        assert grads.item() == pytest.approx(slope, abs=1e-15)


def test_value_loss_without_a_clip_is_half_the_squared_error():
    """(1 + 4) / 2 / 2."""
    mask = torch.tensor([[1, 1, 0]])
    loss = clipped_value_loss(
        f64([[1.0, 3.0, 9.0]]),
        torch.zeros(1, 3),
        f64([[0.0, 1.0, 5.0]]),
        mask,
        clip=None,
        agg="token-mean",
    )
    assert loss.item() == 1.25


@settings(deadline=None, max_examples=20)
@given(clip=st.floats(0.05, 2), seed=st.integers(0, 2**16))
def test_the_clipped_value_loss_is_never_less_than_the_plain_one(clip, seed):
    values, old, returns = random_batch(seed)
    clipped = clipped_value_loss(values, old, returns, MASK, clip=clip, agg="token-mean")
    assert (
        clipped
        >= clipped_value_loss(values, old, returns, MASK, clip=None, agg="token-mean") - 1e-12
    )


def test_gradcheck_of_the_value_loss():
    values, old, returns = random_batch()
    assert torch.autograd.gradcheck(
        lambda v: clipped_value_loss(v, old, returns, MASK, agg="token-mean"),
        values.requires_grad_(),
    )


def test_value_loss_takes_a_constant_normaliser():
    values, old, returns = random_batch()
    total = clipped_value_loss(values, old, returns, MASK, agg="seq-mean-token-sum")
    constant = clipped_value_loss(values, old, returns, MASK, agg="constant", norm=10.0)
    assert constant.item() == pytest.approx(total.item() / 10)


def test_entropy_worked_by_hand():
    """Two equal outcomes: log 2; probabilities 1/2, 1/4, 1/4: 1.5 log 2; an excluded one adds 0."""
    logits = [[1.0, 1.0, -math.inf], [math.log(2), 0.0, 0.0]]
    entropies = categorical_entropy(f64(logits))
    torch.testing.assert_close(entropies, f64([1.0, 1.5]) * math.log(2))
    across = categorical_entropy(f64(logits).T, dim=0)
    torch.testing.assert_close(across, entropies)


def test_the_gradient_of_the_entropy_is_its_formula_and_excluded_outcomes_have_none():
    logits = f64([0.3, -0.2, 1.0, -math.inf])
    p = logits.softmax(-1)
    log_p = torch.where(p > 0, p, 1.0).log()
    expected = -p * (log_p + categorical_entropy(logits))
    torch.testing.assert_close(gradient(categorical_entropy, logits), expected)


def test_entropy_bonus_averages_counted_positions():
    """Log 2 and 0 counted, log 3 not: log 2 / 2."""
    logits = torch.zeros(1, 3, 3, dtype=torch.float64)
    logits[0, 0, 2] = logits[0, 1, 1:] = -math.inf
    bonus = entropy_bonus(logits, torch.tensor([[1, 1, 0]]), agg="token-mean")
    assert bonus.item() == pytest.approx(math.log(2) / 2)
    same = entropy_bonus(logits, torch.tensor([[1, 1, 0]]), agg="constant", norm=2.0)
    assert same.item() == pytest.approx(math.log(2) / 2)


def test_gradcheck_of_the_entropy_bonus():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: entropy_bonus(z, MASK, agg="token-mean"), logits)


# ---------------------------------------------------------------- wrong input

LOGP = torch.tensor([[-1.0, -2.0]])
ADV = torch.tensor([[1.0, -1.0]])
ONES = torch.ones(1, 2).bool()
LEAF = torch.tensor([[-1.0, -2.0]], requires_grad=True)
LOGITS = torch.zeros(1, 2, 3)
TWO_ROWS = torch.tensor([[1, 1], [0, 0]])


def two(x):
    return x.repeat(2, 1)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "old_logp must not", lambda: importance_ratio(LOGP, LEAF)),
        (
            ValueError,
            r"old_logp must be \(\.\.\.\) = \(1, 2\) beside logp \(1, 2\), got \(2,\)",
            lambda: importance_ratio(LOGP, LOGP[0]),
        ),
        (ValueError, "logp holds log-prob.* got 2", lambda: importance_ratio(-LOGP, LOGP)),
        (ValueError, "old_logp holds log-prob", lambda: importance_ratio(LOGP, -LOGP)),
        (ValueError, "logp must be finite", lambda: importance_ratio(LOGP * math.inf, LOGP)),
        (ValueError, "old_logp must be finite", lambda: importance_ratio(LOGP, LOGP * math.nan)),
        (
            ValueError,
            "its log reaches 199.*max_log_ratio",
            lambda: importance_ratio(LOGP, LOGP - 199),
        ),
        (
            ValueError,
            r"max_log_ratio must be in \(0, inf\], got 0",
            lambda: importance_ratio(LOGP, LOGP, max_log_ratio=0.0),
        ),
        (
            ValueError,
            r"max_log_ratio must be in \(0, inf\], got nan",
            lambda: importance_ratio(LOGP, LOGP, max_log_ratio=math.nan),
        ),
        (TypeError, "logp must be floating", lambda: importance_ratio(LOGP.long(), LOGP)),
        (TypeError, "old_logp must be floating", lambda: importance_ratio(LOGP, LOGP.long())),
        (
            ValueError,
            r"clip_low must be in \[0, 1\), got 1",
            lambda: clipped_surrogate(LOGP, LOGP, ADV, clip_low=1.0),
        ),
        (
            ValueError,
            "clip_low must be in .* nan",
            lambda: clipped_surrogate(LOGP, LOGP, ADV, clip_low=math.nan),
        ),
        (
            ValueError,
            "clip_high must be at least 0",
            lambda: clipped_surrogate(LOGP, LOGP, ADV, clip_high=-0.1),
        ),
        (
            ValueError,
            r"dual_clip must exceed 1 \+ clip_high = 1.2",
            lambda: clipped_surrogate(LOGP, LOGP, ADV, dual_clip=1.2),
        ),
        (
            ValueError,
            "dual_clip must exceed",
            lambda: clip_fraction(LOGP, LOGP, ADV, ONES, dual_clip=1.0),
        ),
        (ValueError, "advantages must not", lambda: clipped_surrogate(LOGP, LOGP, LEAF)),
        (ValueError, "advantages must be finite", lambda: clipped_surrogate(LOGP, LOGP, ADV / 0)),
        (
            ValueError,
            r"advantages must be \(\.\.\.\) = \(1, 2\) beside logp \(1, 2\), got \(1,\)",
            lambda: clipped_surrogate(LOGP, LOGP, ADV[:, 0]),
        ),
        (TypeError, "advantages must be", lambda: clipped_surrogate(LOGP, LOGP, ADV.long())),
        (
            ValueError,
            "old_logp must not",
            lambda: ppo_policy_loss(LOGP, LEAF, ADV, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "advantages must not",
            lambda: ppo_policy_loss(LOGP, LOGP, LEAF, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "advantages must be finite",
            lambda: ppo_policy_loss(LOGP, LOGP, ADV * math.nan, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            r"advantages must be \(N,\) or \(N, T\) = \(1, 2\), got \(2,\)",
            lambda: ppo_policy_loss(LOGP, LOGP, ADV[0], ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "logp holds",
            lambda: ppo_policy_loss(-LOGP, LOGP, ADV, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            r"old_logp must be \(N, T\) = \(1, 2\) beside mask \(1, 2\), got \(1, 1\)",
            lambda: ppo_policy_loss(LOGP, LOGP[:, :1], ADV, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            r"mask must be \(N, T\) = \(1, 2\) beside logp \(1, 2\), got \(1, 1\)",
            lambda: ppo_policy_loss(LOGP, LOGP, ADV, ONES[:, :1], agg="token-mean"),
        ),
        (
            ValueError,
            "zeros and ones",
            lambda: ppo_policy_loss(LOGP, LOGP, ADV, 2 * ONES.int(), agg="token-mean"),
        ),
        (
            ValueError,
            r"rows \[1\] count no token",
            lambda: ppo_policy_loss(two(LOGP), two(LOGP), two(ADV), TWO_ROWS, agg="token-mean"),
        ),
        (ValueError, "agg must be", lambda: ppo_policy_loss(LOGP, LOGP, ADV, ONES, agg="sum")),
        (
            ValueError,
            "agg 'constant' needs norm",
            lambda: ppo_policy_loss(LOGP, LOGP, ADV, ONES, agg="constant"),
        ),
        (
            ValueError,
            r"rows \[1\] count no token",
            lambda: clip_fraction(two(LOGP), two(LOGP), two(ADV), TWO_ROWS),
        ),
        (ValueError, "old_logp must not", lambda: clip_fraction(LOGP, LEAF, ADV, ONES)),
        (
            ValueError,
            r"clip must be in \(0, inf\], got 0",
            lambda: clipped_value_loss(ADV, ADV, ADV, ONES, clip=0.0, agg="token-mean"),
        ),
        (
            ValueError,
            "old_values must not",
            lambda: clipped_value_loss(ADV, LEAF, ADV, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "returns must not",
            lambda: clipped_value_loss(ADV, ADV, LEAF, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "returns must be finite",
            lambda: clipped_value_loss(ADV, ADV, ADV * math.nan, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            r"old_values must be \(N, T\) = \(1, 2\) beside mask \(1, 2\), got \(1, 1\)",
            lambda: clipped_value_loss(ADV, ADV[:, :1], ADV, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            r"rows \[1\] count no token",
            lambda: clipped_value_loss(two(ADV), two(ADV), two(ADV), TWO_ROWS, agg="token-mean"),
        ),
        (
            TypeError,
            "returns must be",
            lambda: clipped_value_loss(ADV, ADV, ADV.long(), ONES, agg="token-mean"),
        ),
        (ValueError, "finite maximum", lambda: categorical_entropy(LOGITS - math.inf)),
        (
            ValueError,
            r"dim must be an axis of logits .*, in \[-3, 3\)",
            lambda: categorical_entropy(LOGITS, dim=3),
        ),
        (
            TypeError,
            "^values must be floating",
            lambda: clipped_value_loss(ADV.long(), ADV, ADV, ONES, agg="token-mean"),
        ),
        (
            TypeError,
            r"logits must be floating point, got torch\.int64",
            lambda: categorical_entropy(LOGITS.long()),
        ),
        (
            ValueError,
            r"logits must be \(N, T, V\), got \(1, 2\)",
            lambda: entropy_bonus(LOGP, ONES, agg="token-mean"),
        ),
        (
            TypeError,
            r"logits must be floating point, got torch\.int64",
            lambda: entropy_bonus(LOGITS.long(), ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "finite maximum",
            lambda: entropy_bonus(LOGITS * math.nan, ONES, agg="token-mean"),
        ),
        (
            ValueError,
            "no token is counted",
            lambda: entropy_bonus(LOGITS, ~ONES, agg="token-mean"),
        ),
    ],
)
def test_wrong_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
