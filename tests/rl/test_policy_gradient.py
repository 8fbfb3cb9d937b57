"""The policy gradient: rewards that follow a token, and the loss that has its gradient.

Expectations are exact: a batch repeats each response in proportion to its probability.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.policy_gradient import (
    discounted_returns,
    gae,
    k_step_advantage,
    masked_whiten,
    mean_baseline_advantages,
    optimal_baseline,
    reinforce_loss,
    rloo_advantages,
)
from tests.tensors import gradient


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


END = 2
# A tabular policy over {0, 1, END}, at most two tokens: 7 responses of length 1 or 2.
RESPONSES = [(END,)] + [(first, second) for first in (0, 1) for second in range(3)]
POLICY = f64([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]).log()
COUNTS = [4, 2, 4, 2, 2, 1, 1]  # sixteenths: the probabilities of RESPONSES under POLICY
BATCH = torch.arange(7).repeat_interleave(torch.tensor(COUNTS))
MASK = torch.tensor([[True, len(y) == 2] for y in RESPONSES])
# A reward for each token, which sees the tokens before it and the token itself.
REWARDS = f64(
    [[1.0, 99.0], [0.5, 2.0], [0.5, -1.0], [0.5, 0.0], [-2.0, 3.0], [-2.0, 0.7], [-2.0, 1]]
)


def response_logps(logits):
    logp = logits.log_softmax(-1)
    rows = [
        [logp[0, y[0]], logp[1 + y[0], y[1]] if len(y) == 2 else logp.new_tensor(-99.0)]
        for y in RESPONSES
    ]
    return torch.stack([torch.stack(row) for row in rows])


def expected_reward(logits, rewards):
    """E[rewards(y)] by enumeration; rewards (7,)."""
    return (torch.where(MASK, response_logps(logits), 0.0).sum(-1).exp() * rewards).sum()


def returns_by_definition(rewards, mask, gamma, bootstrap):
    """Sum over counted u >= t of gamma^(counted steps from t to u) r_u, plus the bootstrap."""
    rows = []
    for i in range(rewards.shape[0]):
        counted = [t for t in range(rewards.shape[1]) if mask[i, t]]
        row = [0.0] * rewards.shape[1]
        for place, t in enumerate(counted):
            later = counted[place:]
            row[t] = sum(gamma**k * rewards[i, u].item() for k, u in enumerate(later))
            row[t] += gamma ** len(later) * bootstrap[i].item()
        rows.append(row)
    return f64(rows)


# ---------------------------------------------------------------- returns


def test_returns_worked_by_hand():
    """Rewards 1, 2, 4 at gamma = 1/2: 4; 2 + 2 = 4; 1 + 2 = 3."""
    assert discounted_returns(f64([[1.0, 2.0, 4.0]]), gamma=0.5).tolist() == [[3.0, 4.0, 4.0]]


def test_returns_with_a_gap_discount_over_counted_tokens_only():
    """Rewards 1, (99), 2, (99) with bootstrap 4, gamma = 1/2: 2 + 2 = 4 and 1 + 2 = 3."""
    mask = torch.tensor([[1, 0, 1, 0]])
    rewards = f64([[1.0, 99.0, 2.0, 99.0]])
    returns = discounted_returns(rewards, mask, gamma=0.5, bootstrap=f64([4.0]))
    assert returns.tolist() == [[3.0, 0.0, 4.0, 0.0]]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 7),
    gamma=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_returns_equal_their_definition(rows, length, gamma, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(rows, length, dtype=torch.float64, generator=generator)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    bootstrap = torch.randn(rows, dtype=torch.float64, generator=generator)
    actual = discounted_returns(rewards, mask, gamma=gamma, bootstrap=bootstrap)
    expected = returns_by_definition(rewards, mask, gamma, bootstrap)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_without_discount_returns_are_sums_of_what_follows():
    rewards = REWARDS[1:]
    expected = torch.stack([rewards.sum(-1), rewards[:, 1]], dim=1)
    torch.testing.assert_close(discounted_returns(rewards), expected, atol=1e-15, rtol=0)


def test_gamma_zero_leaves_the_token_its_own_reward():
    mask = torch.tensor([[1, 1, 0]])
    returns = discounted_returns(f64([[3.0, 5.0, 7.0]]), mask, gamma=0.0, bootstrap=f64([9.0]))
    assert returns.tolist() == [[3.0, 5.0, 0.0]]


def test_a_reward_on_padding_is_lost():
    """Written on column T - 1 instead of the last counted token, it reaches no token at all."""
    mask = torch.tensor([[1, 1, 0]])
    assert discounted_returns(f64([[0.0, 0.0, 1.0]]), mask).tolist() == [[0.0, 0.0, 0.0]]
    assert discounted_returns(f64([[0.0, 1.0, 0.0]]), mask).tolist() == [[1.0, 1.0, 0.0]]


def test_a_row_that_counts_nothing_sums_to_zero():
    empty = torch.zeros(1, 3).bool()
    assert discounted_returns(f64([[1.0, 2.0, 3.0]]), empty).tolist() == [[0.0, 0.0, 0.0]]


def test_a_response_without_tokens_has_no_returns():
    assert discounted_returns(torch.zeros(2, 0)).shape == (2, 0)


def test_nan_and_inf_on_padding_do_not_spread():
    rewards = torch.tensor([[1.0, torch.nan, 2.0, torch.inf]])
    returns = discounted_returns(rewards, torch.tensor([[1, 0, 1, 0]]), gamma=0.5)
    assert returns.tolist() == [[2.0, 0.0, 2.0, 0.0]]


def test_returns_do_not_write_into_the_rewards():
    rewards = f64([[1.0, 2.0]])
    discounted_returns(rewards, torch.tensor([[1, 0]]))
    assert rewards.tolist() == [[1.0, 2.0]]


def test_gradcheck_of_the_returns():
    rewards = f64([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]]).requires_grad_()
    bootstrap = f64([0.3, 0.7]).requires_grad_()
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    assert torch.autograd.gradcheck(
        lambda r, b: discounted_returns(r, mask, gamma=0.9, bootstrap=b), (rewards, bootstrap)
    )


# ---------------------------------------------------------------- the loss


def test_loss_worked_by_hand():
    """-(2*(-1) + 3*(-2)) = 8 and -(-1*(-4)) = -4, mean over two rows: 2."""
    logp = f64([[-1.0, -2.0], [-4.0, -50.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = reinforce_loss(logp, f64([[2.0, 3.0], [-1.0, 77.0]]), mask, agg="seq-mean-token-sum")
    assert loss.item() == 2.0


def test_one_advantage_a_row_is_that_advantage_on_each_token():
    logp, advantages = response_logps(POLICY), f64([1.0, -2.0, 0.5, 3.0, -1.0, 0.7, 2.0])
    tokens = advantages.unsqueeze(1).expand(7, 2)
    assert reinforce_loss(logp, advantages, MASK, agg="seq-mean-token-sum") == reinforce_loss(
        logp, tokens, MASK, agg="seq-mean-token-sum"
    )


def test_the_loss_has_minus_the_gradient_of_the_expected_reward():
    """With the whole reward on each token, and with only what follows it: both exact."""
    total = torch.where(MASK, REWARDS, 0.0).sum(-1)
    expected = -gradient(lambda z: expected_reward(z, total), POLICY)
    for advantages in (total, discounted_returns(REWARDS, MASK)):
        actual = gradient(
            lambda z, a=advantages: reinforce_loss(
                response_logps(z)[BATCH], a[BATCH], MASK[BATCH], agg="seq-mean-token-sum"
            ),
            POLICY,
        )
        torch.testing.assert_close(actual, expected, atol=1e-15, rtol=0)


def test_a_constant_normaliser_rescales_the_gradient_and_a_length_does_not():
    advantages = torch.where(MASK, REWARDS, 0.0).sum(-1)[BATCH]
    exact, fixed, by_length, by_tokens = (
        gradient(
            lambda z, o=options: reinforce_loss(
                response_logps(z)[BATCH], advantages, MASK[BATCH], **o
            ),
            POLICY,
        )
        for options in (
            {"agg": "seq-mean-token-sum"},
            {"agg": "constant", "norm": 2.0},
            {"agg": "seq-mean-token-mean"},
            {"agg": "token-mean"},
        )
    )
    torch.testing.assert_close(fixed, exact / 2, atol=1e-15, rtol=0)
    # Over all outcomes at once the token count is a number; over random batches it is not.
    torch.testing.assert_close(by_tokens, exact * 16 / 28, atol=1e-15, rtol=0)
    assert torch.cosine_similarity(by_length.flatten(), exact.flatten(), dim=0) < 0.99


def test_rewards_before_a_token_do_not_move_it_in_expectation():
    """E[grad log pi(second) * r(first)] = 0, while r(second) times grad log pi(first) is not 0."""
    first, second = (
        REWARDS[:, :1] * torch.tensor([0.0, 1.0]),
        torch.where(MASK, REWARDS, 0.0)[:, 1:],
    )
    late_on_early = torch.cat([second, torch.zeros_like(second)], dim=1)
    for advantages, vanishes in ((first, True), (late_on_early, False)):
        actual = gradient(
            lambda z, a=advantages: reinforce_loss(
                response_logps(z)[BATCH], a[BATCH], MASK[BATCH], agg="seq-mean-token-sum"
            ),
            POLICY,
        )
        assert torch.allclose(actual, torch.zeros_like(actual), atol=1e-15) is vanishes


def test_the_score_has_mean_zero():
    grad = gradient(
        lambda z: reinforce_loss(
            response_logps(z)[BATCH],
            torch.ones(16, dtype=torch.float64),
            MASK[BATCH],
            agg="seq-mean-token-sum",
        ),
        POLICY,
    )
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-15, rtol=0)


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf")])
def test_padding_enters_neither_value_nor_gradient(padding):
    results = []
    for fill in (0.0, padding):
        logp = torch.where(MASK, response_logps(POLICY), fill).requires_grad_()
        loss = reinforce_loss(
            logp, torch.where(MASK, REWARDS, fill), MASK, agg="seq-mean-token-sum"
        )
        results.append((loss, *torch.autograd.grad(loss, logp)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_gradcheck_of_the_loss():
    logp = torch.where(MASK, response_logps(POLICY), -1.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: reinforce_loss(x, REWARDS, MASK, agg="seq-mean-token-sum"), logp
    )


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_lower_precision_keeps_its_dtype_and_is_close(dtype, rtol):
    logp, rewards = (torch.where(MASK, x, 0.0).to(dtype) for x in (response_logps(POLICY), REWARDS))
    returns = discounted_returns(rewards, MASK, gamma=0.5)
    loss = reinforce_loss(logp, returns, MASK, agg="seq-mean-token-sum")
    assert (returns.dtype, loss.dtype) == (dtype, dtype)
    wide = discounted_returns(rewards.double(), MASK, gamma=0.5)
    torch.testing.assert_close(returns.double(), wide, rtol=rtol, atol=0)
    expected = reinforce_loss(logp.double(), wide, MASK, agg="seq-mean-token-sum")
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)


def test_bfloat16_returns_are_summed_in_float32():
    """512 ones: a bfloat16 sum stops at 256, where adding 1 no longer changes it."""
    returns = discounted_returns(torch.ones(1, 512, dtype=torch.bfloat16))
    assert returns[0, 0].item() == 512


# ---------------------------------------------------------------- k-step advantages and GAE


def random_rows(seed, rows=3, length=5):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, rows, length, dtype=torch.float64, generator=generator)
    bootstrap = torch.randn(rows, dtype=torch.float64, generator=generator)
    return rewards, values, bootstrap


def k_step_by_definition(rewards, values, k, gamma, bootstrap):
    """sum_{l<k} gamma^l r_{t+l} + gamma^k V_{t+k} - V_t, k cut at the end of the response."""
    rows, length = rewards.shape
    result = torch.zeros_like(rewards)
    for i in range(rows):
        v = [*values[i].tolist(), bootstrap[i].item()]
        for t in range(length):
            steps = min(k, length - t)
            ahead = sum(gamma**j * rewards[i, t + j].item() for j in range(steps))
            result[i, t] = ahead + gamma**steps * v[t + steps] - v[t]
    return result


def gae_by_definition(rewards, values, mask, gamma, lam, bootstrap):
    """The weighted sum of k-step advantages over counted tokens, the last with the rest."""
    advantages = torch.zeros_like(rewards)
    for i in range(len(rewards)):
        kept = mask[i].nonzero().flatten()
        r, v, b = rewards[i, kept][None], values[i, kept][None], bootstrap[i : i + 1]
        for place, t in enumerate(kept.tolist()):
            n = len(kept) - place
            weights = [(1 - lam) * lam ** (k - 1) for k in range(1, n)] + [lam ** (n - 1)]
            advantages[i, t] = sum(
                w * k_step_by_definition(r, v, k, gamma, b)[0, place]
                for k, w in enumerate(weights, start=1)
            )
    return advantages, torch.where(mask, advantages + values, 0.0)


def test_gae_worked_by_hand():
    """Rewards 0, 1, values 1/2, 1/2: errors 0 and 1/2; trace 1/2 * 1/2 = 1/4; returns 3/4 and 1."""
    advantages, returns = gae(f64([[0.0, 1.0]]), f64([[0.5, 0.5]]), lam=0.5)
    assert advantages.tolist() == [[0.25, 0.5]]
    assert returns.tolist() == [[0.75, 1.0]]


def test_k_step_advantage_worked_by_hand():
    """Rewards 1, 2, 4, V 1, 2, 3, gamma 1/2, k 2: 2 + 3/4 - 1 = 7/4; 4 - 2; 4 - 3."""
    actual = k_step_advantage(f64([[1.0, 2.0, 4.0]]), f64([[1.0, 2.0, 3.0]]), 2, gamma=0.5)
    assert actual.tolist() == [[1.75, 2.0, 1.0]]


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 8), gamma=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_k_step_advantage_equals_its_definition(k, gamma, seed):
    rewards, values, bootstrap = random_rows(seed)
    actual = k_step_advantage(rewards, values, k, gamma=gamma, bootstrap=bootstrap)
    expected = k_step_by_definition(rewards, values, k, gamma, bootstrap)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=30)
@given(gamma=st.floats(0, 1), lam=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_gae_equals_its_definition_with_gaps_in_the_mask(gamma, lam, seed):
    rewards, values, bootstrap = random_rows(seed)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed)) < 0.7
    actual = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
    expected = gae_by_definition(rewards, values, mask, gamma, lam, bootstrap)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_gae_at_lambda_zero_and_one_is_the_td_error_and_the_return_minus_the_value():
    rewards, values, bootstrap = random_rows(0)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 0, 0]]).bool()
    short, _ = gae(rewards, values, gamma=0.9, lam=0.0, bootstrap=bootstrap)
    torch.testing.assert_close(
        short, k_step_advantage(rewards, values, 1, gamma=0.9, bootstrap=bootstrap)
    )
    long, returns = gae(rewards, values, mask, gamma=0.9, lam=1.0, bootstrap=bootstrap)
    expected = discounted_returns(rewards, mask, gamma=0.9, bootstrap=bootstrap)
    torch.testing.assert_close(returns, expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(long, torch.where(mask, expected - values, 0.0), atol=1e-14, rtol=0)


def test_a_terminal_reward_without_discount_gives_the_reward_minus_the_value_everywhere():
    rewards = torch.zeros(1, 4, dtype=torch.float64)
    rewards[0, 3] = 2.0
    values = f64([[0.1, 0.2, 0.3, 0.4]])
    advantages, returns = gae(rewards, values, lam=1.0)
    torch.testing.assert_close(advantages, 2.0 - values)
    torch.testing.assert_close(returns, torch.full_like(returns, 2.0))


def test_the_value_of_a_padding_token_is_never_a_bootstrap():
    mask = torch.tensor([[1, 1, 0]])
    short = gae(f64([[0.0, 1.0]]), f64([[0.5, 0.5]]))
    for padding in (100.0, math.nan, math.inf):
        padded = gae(f64([[0.0, 1.0, padding]]), f64([[0.5, 0.5, padding]]), mask)
        for a, b in zip(padded, short, strict=True):
            assert a.tolist() == [[*b[0].tolist(), 0.0]]


def test_an_empty_response_has_no_advantages():
    assert [x.shape for x in gae(torch.zeros(2, 0), torch.zeros(2, 0))] == [(2, 0), (2, 0)]
    assert k_step_advantage(torch.zeros(2, 0), torch.zeros(2, 0), 3, gamma=1.0).shape == (2, 0)


def test_bfloat16_advantages_are_summed_in_float32():
    ones = torch.ones(1, 512, dtype=torch.bfloat16)
    advantages, returns = gae(ones, torch.zeros_like(ones), lam=1.0)
    assert (advantages[0, 0].item(), returns[0, 0].item()) == (512, 512)
    assert advantages.dtype == torch.bfloat16
    assert k_step_advantage(ones, torch.zeros_like(ones), 512, gamma=1.0)[0, 0].item() == 512


# ---------------------------------------------------------------- baselines


def test_group_baselines_worked_by_hand():
    """(1, 2, 6): mean 3; the others' means are 4, 3.5 and 1.5."""
    rewards = f64([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    assert mean_baseline_advantages(rewards).tolist() == [[-2.0, -1.0, 3.0], [0.0] * 3]
    assert rloo_advantages(rewards).tolist() == [[-3.0, -1.5, 4.5], [0.0] * 3]
    assert mean_baseline_advantages(f64([[7.0]])).tolist() == [[0.0]]


@settings(deadline=None, max_examples=30)
@given(group=st.integers(2, 6), seed=st.integers(0, 2**16))
def test_leave_one_out_equals_its_definition(group, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(3, group, dtype=torch.float64, generator=generator)
    expected = torch.zeros_like(rewards)
    for b in range(3):
        for i in range(group):
            others = [rewards[b, j].item() for j in range(group) if j != i]
            expected[b, i] = rewards[b, i] - sum(others) / len(others)
    torch.testing.assert_close(rloo_advantages(rewards), expected, atol=1e-13, rtol=0)


def test_optimal_baseline_worked_by_hand():
    """(1*3 + 3*1) / 4 = 1.5; with probabilities 1/4, 3/4: (3/4 + 9/4) / (3/4 + 3/4) = 2."""
    rewards, squares = f64([1.0, 3.0]), f64([3.0, 1.0])
    assert optimal_baseline(rewards, squares).item() == 1.5
    assert optimal_baseline(rewards, squares, f64([0.25, 0.75])).item() == 2.0
    columns = torch.stack([squares, torch.ones(2, dtype=torch.float64)], dim=1)
    assert optimal_baseline(rewards, columns).tolist() == [1.5, 2.0]


def test_the_optimal_baseline_has_the_least_variance():
    probs = f64([0.5, 0.3, 0.2])
    scores = torch.eye(3, dtype=torch.float64) - probs
    rewards = f64([1.0, -0.4, 0.7])

    def spread(b):
        gradients = (rewards - b).unsqueeze(1) * scores
        mean = probs @ gradients
        return (probs @ gradients.square()).sum() - mean.square().sum()

    best = optimal_baseline(rewards, scores.square().sum(-1), probs)
    assert spread(best) < min(spread(best + 0.01), spread(best - 0.01), spread(probs @ rewards))


def test_whitening_worked_by_hand():
    """1, 3 counted: mean 2, variance 2 (or 1 with ddof 0); the mean comes back without centring."""
    x, mask = f64([[1.0, 3.0, 99.0]]), torch.tensor([[1, 1, 0]])
    half = 0.5**0.5
    for options, expected in (
        ({}, [-half, half]),
        ({"ddof": 0}, [-1.0, 1.0]),
        ({"center": False}, [2 - half, 2 + half]),
    ):
        actual = masked_whiten(x, mask, eps=0.0, **options)
        torch.testing.assert_close(actual, f64([[*expected, 0.0]]), atol=1e-15, rtol=0)


def test_eps_is_added_to_the_variance():
    """10 and 30 have mean 20 and, with ddof 0, variance 100: with 44, 10 / 12."""
    white = masked_whiten(f64([[10.0, 30.0]]), torch.ones(1, 2), eps=44.0, ddof=0)
    torch.testing.assert_close(white, f64([[-5 / 6, 5 / 6]]), atol=1e-15, rtol=0)


@pytest.mark.parametrize("size", [1e-157, 1e-159, 1e-300])
def test_entries_far_below_eps_are_divided_by_its_root(size):
    """Of 1 and 3 times the size the deviations are -1 and 1 times it, and the root is 1e-4."""
    white = masked_whiten(size * f64([[1.0, 3.0]]), torch.ones(1, 2), eps=1e-8, ddof=0)
    torch.testing.assert_close(white, 1e4 * size * f64([[-1.0, 1.0]]), rtol=1e-14, atol=0)


def test_one_counted_entry_is_its_mean():
    x, mask = f64([[9.0, 3.0]]), torch.tensor([[0, 1]])
    assert masked_whiten(x, mask, eps=1.0, ddof=0).tolist() == [[0.0, 0.0]]
    assert masked_whiten(x, mask, eps=1.0, ddof=0, center=False).tolist() == [[0.0, 3.0]]


def test_whitening_ignores_what_the_padding_holds():
    mask = torch.tensor([[1, 1, 1, 0]])
    for padding in (math.nan, math.inf, 5.0):
        actual = masked_whiten(f64([[1.0, 3.0, 4.0, padding]]), mask, eps=1e-8)
        expected = masked_whiten(f64([[1.0, 3.0, 4.0]]), mask[:, :3], eps=1e-8)
        assert actual.tolist() == [[*expected[0].tolist(), 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 7), (2, 3), (64, 100)])
def test_whitening_equal_entries_gives_zero(dtype, shape):
    """The mean of 7 times 0.1 is not 0.1: only its rounding error would be left to divide."""
    for entry in (1.0, 0.1, 0.7, 100.7, 1000.1, 12345.678, 1e30, -1e-30, 0.0):
        x = torch.full(shape, entry, dtype=dtype)
        assert not masked_whiten(x, torch.ones(shape), eps=1e-8).any()
        with pytest.raises(ValueError, match="all counted entries are equal"):
            masked_whiten(x, torch.ones(shape), eps=0.0)
    huge = torch.full(shape, 1e200, dtype=torch.float64)  # beside which eps vanishes
    assert not masked_whiten(huge, torch.ones(shape), eps=1e-8).any()


def test_zeros_stay_where_subnormal_numbers_are_flushed():
    """The unit in which they are counted must be a normal number: 0 / 0 is NaN."""
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    torch.set_flush_denormal(True)
    try:
        assert not mean_baseline_advantages(zeros).any()
        assert not masked_whiten(zeros, torch.ones(1, 2), eps=1e-8).any()
    finally:
        torch.set_flush_denormal(False)


def test_whitening_one_entry_that_differs_a_little():
    """6400 entries 1000.1 and one 1000.2: n = 6400, so -1/80 and 79.99."""
    x = torch.full((64, 100), 1000.1)
    x[3, 5] = 1000.2
    white = masked_whiten(x, torch.ones(64, 100), eps=0.0)
    assert white.double().mean().abs() < 1e-6
    torch.testing.assert_close(white[0, 0].item(), -1 / 80, atol=1e-5, rtol=0)
    torch.testing.assert_close(white[3, 5].item(), 6399 / 80, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e20),
        (torch.float32, 1e-25),
        (torch.float32, 1e-44),
        (torch.float64, 1e200),
        (torch.float64, 5.9e307),
        (torch.float64, 1e-310),
        (torch.float16, 2e4),
    ],
)
def test_entries_of_any_size_are_whitened(dtype, scale):
    """(1, 3) times anything: -1 and 1 over the root of 2."""
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64).mul(scale).to(dtype)
    white = masked_whiten(x, torch.ones(1, 2), eps=0.0)
    torch.testing.assert_close(white.double(), f64([[-(0.5**0.5), 0.5**0.5]]), atol=1e-3, rtol=0)
    back = masked_whiten(x, torch.ones(1, 2), eps=0.0, center=False)
    torch.testing.assert_close(
        back.double(), (x.double() / 2).sum() + white.double(), rtol=2e-3, atol=0
    )


def test_gradcheck_of_whitening_also_at_equal_entries():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for x in (random_rows(0)[0][:2, :3], torch.full((2, 3), 0.1, dtype=torch.float64)):
        for center in (True, False):
            assert torch.autograd.gradcheck(
                lambda v, c=center: masked_whiten(v, mask, eps=0.1, center=c),
                x.clone().requires_grad_(),
            )


def test_equal_rewards_have_advantage_zero_and_large_ones_do_not_overflow():
    """(3e38, 3e38, 1): the others of the last average 3e38."""
    for dtype in (torch.float32, torch.float64):
        equal = torch.full((2, 7), 0.1, dtype=dtype)
        assert not rloo_advantages(equal).any()
        assert not mean_baseline_advantages(equal).any()
    large = rloo_advantages(torch.tensor([[3e38, 3e38, 1.0]]))
    torch.testing.assert_close(large, torch.tensor([[1.5e38, 1.5e38, -3e38]]))
    with pytest.raises(ValueError, match="an advantage overflows torch.float32"):
        rloo_advantages(torch.tensor([[3e38, -3e38]]))


def test_a_parameter_without_a_score_gets_the_mean_reward():
    """The second parameter has no score; the first is worked by hand: (3 + 3) / 4."""
    scores = f64([[3.0, 0.0], [1.0, 0.0]])
    assert optimal_baseline(f64([1.0, 3.0]), scores).tolist() == [1.5, 2.0]
    slope = gradient(lambda x: optimal_baseline(x, scores), f64([1.0, 3.0]))
    torch.testing.assert_close(slope, f64([3 / 4 + 1 / 2, 1 / 4 + 1 / 2]), atol=1e-15, rtol=0)
    with pytest.raises(ValueError, match="every score that can occur is 0"):
        optimal_baseline(f64([1.0, 3.0]), 0 * scores)


def test_sums_that_overflow_float16_are_refused():
    rewards = torch.full((1, 3), 4e4, dtype=torch.float16)
    zero, mask = torch.zeros_like(rewards), torch.ones(1, 3)
    for what, call in (
        ("a return", lambda: discounted_returns(rewards)),
        ("an advantage", lambda: gae(rewards, zero)),
        ("an advantage", lambda: k_step_advantage(rewards, zero, 2, gamma=1.0)),
        (
            "the loss",
            lambda: reinforce_loss(zero - 9, rewards, mask, agg="seq-mean-token-sum"),
        ),
    ):
        with pytest.raises(ValueError, match=f"{what} overflows torch.float16"):
            call()


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), seed=st.integers(0, 2**16))
def test_whitening_removes_scale_and_shift(scale, shift, seed):
    x, _, _ = random_rows(seed)
    mask = torch.arange(5) < torch.tensor([5, 3, 2]).unsqueeze(1)
    torch.testing.assert_close(
        masked_whiten(scale * x + shift, mask, eps=0.0), masked_whiten(x, mask, eps=0.0)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_baselines_keep_the_dtype_of_the_rewards(dtype):
    rewards = torch.tensor([[1.0, 2.0, 6.0]], dtype=dtype)
    assert rloo_advantages(rewards).tolist() == [[-3.0, -1.5, 4.5]]
    assert mean_baseline_advantages(rewards).dtype == dtype
    assert optimal_baseline(rewards[0], rewards[0]).dtype == dtype
    assert masked_whiten(rewards, torch.ones(1, 3), eps=1e-8).dtype == dtype


# ---------------------------------------------------------------- wrong input

REWARD = torch.tensor([[1.0, 2.0]])
LOGP = -REWARD
ONES = torch.ones(1, 2).bool()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"gamma must be in \[0, 1\], got 1.1",
            lambda: discounted_returns(REWARD, gamma=1.1),
        ),
        (ValueError, "gamma must be in", lambda: discounted_returns(REWARD, gamma=-0.1)),
        (ValueError, "gamma must be in .* nan", lambda: discounted_returns(REWARD, gamma=math.nan)),
        (
            ValueError,
            r"mask must be \(N, T\) = \(1, 2\) beside rewards \(1, 2\), got \(1, 1\)",
            lambda: discounted_returns(REWARD, ONES[:, :1]),
        ),
        (ValueError, "zeros and ones only", lambda: discounted_returns(REWARD, REWARD)),
        (ValueError, r"\(N, T\), got \(2,\)", lambda: discounted_returns(REWARD[0])),
        (ValueError, "rewards must be finite", lambda: discounted_returns(REWARD * math.nan)),
        (
            ValueError,
            r"bootstrap must be \(N,\) = \(1,\) beside rewards \(1, 2\), got \(1, 2\)",
            lambda: discounted_returns(REWARD, bootstrap=REWARD),
        ),
        (
            ValueError,
            "bootstrap must be finite",
            lambda: discounted_returns(REWARD, bootstrap=torch.tensor([math.inf])),
        ),
        (TypeError, "must be floating point", lambda: discounted_returns(REWARD.long())),
        (
            ValueError,
            "advantages must not require grad",
            lambda: reinforce_loss(
                LOGP, REWARD.clone().requires_grad_(), ONES, agg="seq-mean-token-sum"
            ),
        ),
        (
            ValueError,
            r"advantages must be \(N,\) or \(N, T\) = \(1, 2\), got \(2,\)",
            lambda: reinforce_loss(LOGP, REWARD[0], ONES, agg="seq-mean-token-sum"),
        ),
        (
            ValueError,
            "advantages must be finite",
            lambda: reinforce_loss(LOGP, REWARD * math.inf, ONES, agg="seq-mean-token-sum"),
        ),
        (
            ValueError,
            "logp holds log-prob",
            lambda: reinforce_loss(REWARD, REWARD, ONES, agg="seq-mean-token-sum"),
        ),
        (
            ValueError,
            "logp must be finite",
            lambda: reinforce_loss(LOGP * math.inf, REWARD, ONES, agg="seq-mean-token-sum"),
        ),
        (
            ValueError,
            "rows",
            lambda: reinforce_loss(
                LOGP.repeat(2, 1),
                REWARD.repeat(2, 1),
                torch.tensor([[1, 1], [0, 0]]),
                agg="seq-mean-token-sum",
            ),
        ),
        (ValueError, "agg must be one of", lambda: reinforce_loss(LOGP, REWARD, ONES, agg="sum")),
        (
            ValueError,
            "agg 'constant' needs norm",
            lambda: reinforce_loss(LOGP, REWARD, ONES, agg="constant"),
        ),
        (
            TypeError,
            "must be floating point",
            lambda: reinforce_loss(LOGP.long(), REWARD, ONES, agg="seq-mean-token-sum"),
        ),
    ],
)
def test_wrong_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


PAIR = torch.tensor([[1.0, 2.0]])
VALUES = torch.tensor([[0.5, 0.5]])
LEAF = torch.tensor([[1.0, 2.0]], requires_grad=True)
ROW = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "k must be at least 1", lambda: k_step_advantage(PAIR, VALUES, 0, gamma=1.0)),
        (TypeError, "k must be an int, got", lambda: k_step_advantage(PAIR, VALUES, 1.5, gamma=1)),
        (TypeError, "k must be an int, got", lambda: k_step_advantage(PAIR, VALUES, True, gamma=1)),
        (ValueError, "gamma must be in", lambda: k_step_advantage(PAIR, VALUES, 1, gamma=2.0)),
        (ValueError, "values must not", lambda: k_step_advantage(PAIR, LEAF, 1, gamma=1.0)),
        (
            ValueError,
            "bootstrap must not require grad",
            lambda: k_step_advantage(PAIR, VALUES, 1, gamma=1.0, bootstrap=LEAF[:, 0]),
        ),
        (
            ValueError,
            r"rewards must be \(N, T\), got \(2,\)",
            lambda: k_step_advantage(ROW, ROW, 1, gamma=1.0),
        ),
        (ValueError, "gamma must be in", lambda: gae(PAIR, VALUES, gamma=-0.1)),
        (ValueError, r"lam must be in \[0, 1\], got 1.5", lambda: gae(PAIR, VALUES, lam=1.5)),
        (ValueError, "lam must be in .* nan", lambda: gae(PAIR, VALUES, lam=math.nan)),
        (
            ValueError,
            r"values must be \(N, T\) = \(1, 2\) beside rewards \(1, 2\), got \(1, 1\)",
            lambda: gae(PAIR, VALUES[:, :1]),
        ),
        (ValueError, "values must not require grad", lambda: gae(PAIR, LEAF)),
        (ValueError, "rewards must not require grad", lambda: gae(LEAF, VALUES)),
        (ValueError, "rewards must be finite", lambda: gae(PAIR * math.nan, VALUES)),
        (ValueError, "values must be finite", lambda: gae(PAIR, VALUES * math.inf)),
        (
            ValueError,
            r"mask must be \(N, T\) = \(1, 2\) beside rewards \(1, 2\), values \(1, 2\), got",
            lambda: gae(PAIR, VALUES, ONES[:, :1]),
        ),
        (
            ValueError,
            r"bootstrap must be \(N,\) = \(1,\) beside rewards \(1, 2\), got \(1, 2\)",
            lambda: gae(PAIR, VALUES, bootstrap=PAIR),
        ),
        (
            ValueError,
            "bootstrap must not require grad",
            lambda: gae(PAIR, VALUES, bootstrap=LEAF[:, 0]),
        ),
        (TypeError, "values must be floating", lambda: gae(PAIR, VALUES.long())),
        (TypeError, "must be floating", lambda: gae(PAIR.long(), VALUES)),
        (ValueError, "G >= 2, got", lambda: rloo_advantages(PAIR[:, :1])),
        (ValueError, "G >= 1, got", lambda: mean_baseline_advantages(PAIR[:, :0])),
        (
            ValueError,
            r"rewards must be \(B, G\), got \(2,\)",
            lambda: mean_baseline_advantages(ROW),
        ),
        (ValueError, "rewards must be finite", lambda: rloo_advantages(PAIR * math.nan)),
        (ValueError, "rewards must not require grad", lambda: rloo_advantages(LEAF)),
        (TypeError, "rewards must be floating", lambda: mean_baseline_advantages(PAIR.long())),
        (ValueError, r"rewards must be \(M,\)", lambda: optimal_baseline(PAIR, ROW)),
        (
            ValueError,
            r"score_sq_norms must be \(M, P\) beside rewards \(2,\), got \(1, 2\)",
            lambda: optimal_baseline(ROW, PAIR),
        ),
        (
            ValueError,
            r"score_sq_norms must be in \[0, inf\), got -1",
            lambda: optimal_baseline(ROW, -ROW),
        ),
        (ValueError, "every score that can occur is 0", lambda: optimal_baseline(ROW, 0 * ROW)),
        (ValueError, "score_sq_norms must be fin", lambda: optimal_baseline(ROW, ROW * math.nan)),
        (
            ValueError,
            r"probs must be \(M,\) = \(2,\) beside rewards \(2,\), got \(1, 2\)",
            lambda: optimal_baseline(ROW, ROW, PAIR),
        ),
        (ValueError, "probs must sum to 1", lambda: optimal_baseline(ROW, ROW, ROW)),
        (
            ValueError,
            r"rewards must be \(M,\) with M >= 1",
            lambda: optimal_baseline(ROW[:0], ROW[:0]),
        ),
        (TypeError, "^rewards must be floating", lambda: gae(PAIR.long(), PAIR)),
        (TypeError, "rewards must be floating", lambda: optimal_baseline(ROW.long(), ROW)),
        (
            ValueError,
            "ddof 1 needs more entries, 1 count",
            lambda: masked_whiten(PAIR, torch.tensor([[1, 0]]), eps=1e-8),
        ),
        (ValueError, "ddof 0 needs more", lambda: masked_whiten(PAIR, 0 * PAIR, ddof=0, eps=1e-8)),
        (
            ValueError,
            "ddof must be at least 0",
            lambda: masked_whiten(PAIR, ONES, ddof=-1, eps=1e-8),
        ),
        (ValueError, "eps must be at least 0", lambda: masked_whiten(PAIR, ONES, eps=math.nan)),
        (ValueError, "with eps = 0", lambda: masked_whiten(VALUES, ONES, eps=0.0)),
        (ValueError, "x must be finite", lambda: masked_whiten(PAIR * math.nan, ONES, eps=1e-8)),
        (TypeError, "^x must be floating", lambda: masked_whiten(PAIR.long(), ONES, eps=1e-8)),
        (
            TypeError,
            "advantages must be floating",
            lambda: reinforce_loss(-PAIR, PAIR.long(), ONES, agg="seq-mean-token-sum"),
        ),
    ],
)
def test_wrong_input_to_advantages_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
