"""The policy gradient: rewards that follow a token, and the loss that has its gradient.

Expectations are exact: a batch repeats each response in proportion to its probability.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.policy_gradient import discounted_returns, reinforce_loss


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


def gradient(function, logits):
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


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
    loss = reinforce_loss(logp, f64([[2.0, 3.0], [-1.0, 77.0]]), mask)
    assert loss.item() == 2.0


def test_one_advantage_a_row_is_that_advantage_on_each_token():
    logp, advantages = response_logps(POLICY), f64([1.0, -2.0, 0.5, 3.0, -1.0, 0.7, 2.0])
    tokens = advantages.unsqueeze(1).expand(7, 2)
    assert reinforce_loss(logp, advantages, MASK) == reinforce_loss(logp, tokens, MASK)


def test_the_loss_has_minus_the_gradient_of_the_expected_reward():
    """With the whole reward on each token, and with only what follows it: both exact."""
    total = torch.where(MASK, REWARDS, 0.0).sum(-1)
    expected = -gradient(lambda z: expected_reward(z, total), POLICY)
    for advantages in (total, discounted_returns(REWARDS, MASK)):
        actual = gradient(
            lambda z, a=advantages: reinforce_loss(response_logps(z)[BATCH], a[BATCH], MASK[BATCH]),
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
            {},
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
            lambda z, a=advantages: reinforce_loss(response_logps(z)[BATCH], a[BATCH], MASK[BATCH]),
            POLICY,
        )
        assert torch.allclose(actual, torch.zeros_like(actual), atol=1e-15) is vanishes


def test_the_score_has_mean_zero():
    grad = gradient(
        lambda z: reinforce_loss(
            response_logps(z)[BATCH], torch.ones(16, dtype=torch.float64), MASK[BATCH]
        ),
        POLICY,
    )
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-15, rtol=0)


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf")])
def test_padding_enters_neither_value_nor_gradient(padding):
    results = []
    for fill in (0.0, padding):
        logp = torch.where(MASK, response_logps(POLICY), fill).requires_grad_()
        loss = reinforce_loss(logp, torch.where(MASK, REWARDS, fill), MASK)
        results.append((loss, *torch.autograd.grad(loss, logp)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_gradcheck_of_the_loss():
    logp = torch.where(MASK, response_logps(POLICY), -1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reinforce_loss(x, REWARDS, MASK), logp)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_lower_precision_keeps_its_dtype_and_is_close(dtype, rtol):
    logp, rewards = (torch.where(MASK, x, 0.0).to(dtype) for x in (response_logps(POLICY), REWARDS))
    returns = discounted_returns(rewards, MASK, gamma=0.5)
    loss = reinforce_loss(logp, returns, MASK)
    assert (returns.dtype, loss.dtype) == (dtype, dtype)
    wide = discounted_returns(rewards.double(), MASK, gamma=0.5)
    torch.testing.assert_close(returns.double(), wide, rtol=rtol, atol=0)
    expected = reinforce_loss(logp.double(), wide, MASK)
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)


def test_bfloat16_returns_are_summed_in_float32():
    """512 ones: a bfloat16 sum stops at 256, where adding 1 no longer changes it."""
    returns = discounted_returns(torch.ones(1, 512, dtype=torch.bfloat16))
    assert returns[0, 0].item() == 512


# ---------------------------------------------------------------- wrong input

REWARD = torch.tensor([[1.0, 2.0]])
LOGP = -REWARD
ONES = torch.ones(1, 2).bool()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"gamma must lie in \[0, 1\], got 1.1",
            lambda: discounted_returns(REWARD, gamma=1.1),
        ),
        (ValueError, "gamma must lie", lambda: discounted_returns(REWARD, gamma=-0.1)),
        (ValueError, "gamma must lie .* nan", lambda: discounted_returns(REWARD, gamma=math.nan)),
        (ValueError, r"mask \(1, 1\) must", lambda: discounted_returns(REWARD, ONES[:, :1])),
        (ValueError, "zeros and ones only", lambda: discounted_returns(REWARD, REWARD)),
        (ValueError, r"\(N, T\), got \(2,\)", lambda: discounted_returns(REWARD[0])),
        (ValueError, "rewards must be finite", lambda: discounted_returns(REWARD * math.nan)),
        (
            ValueError,
            r"bootstrap \(1, 2\) must be \(N,\) = \(1,\)",
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
            lambda: reinforce_loss(LOGP, REWARD.clone().requires_grad_(), ONES),
        ),
        (
            ValueError,
            r"advantages \(2,\) must be \(N,\) or \(N, T\)",
            lambda: reinforce_loss(LOGP, REWARD[0], ONES),
        ),
        (
            ValueError,
            "advantages must be finite",
            lambda: reinforce_loss(LOGP, REWARD * math.inf, ONES),
        ),
        (ValueError, "logp holds log-prob", lambda: reinforce_loss(REWARD, REWARD, ONES)),
        (ValueError, "logp must be finite", lambda: reinforce_loss(LOGP * math.inf, REWARD, ONES)),
        (
            ValueError,
            "rows",
            lambda: reinforce_loss(
                LOGP.repeat(2, 1), REWARD.repeat(2, 1), torch.tensor([[1, 1], [0, 0]])
            ),
        ),
        (ValueError, "mode must be one of", lambda: reinforce_loss(LOGP, REWARD, ONES, agg="sum")),
        (ValueError, "norm goes", lambda: reinforce_loss(LOGP, REWARD, ONES, agg="constant")),
        (TypeError, "must be floating point", lambda: reinforce_loss(LOGP.long(), REWARD, ONES)),
    ],
)
def test_wrong_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
