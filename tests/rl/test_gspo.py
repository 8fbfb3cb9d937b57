"""GSPO: one ratio a sequence, and its form with one ratio a token."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.gspo import gspo_loss, gspo_token_loss, sequence_ratio
from llmref.rl.ppo import ppo_policy_loss
from tests.tensors import gradient

LENGTHS = torch.tensor([5, 3, 1])
MASK = torch.arange(5) < LENGTHS.unsqueeze(1)  # (3, 5)
WIDE = {"clip_low": 0.2, "clip_high": 0.3}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator).log_softmax(-1)[..., 0]
    move = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    advantages = torch.randn(3, dtype=torch.float64, generator=generator)
    return (old + spread * move).clamp(max=0.0), old, advantages


# ---------------------------------------------------------------- the ratio


def test_ratio_worked_by_hand():
    """Ratios 2 and 1/2: 1. Ratios 4 and 1: 2. One ratio 3: 3, whatever stands in the padding."""
    old = torch.full((3, 2), 0.125, dtype=torch.float64).log()
    logp = old + f64([[2.0, 0.5], [4.0, 1.0], [3.0, 7.0]]).log()
    mask = torch.tensor([[1, 1], [1, 1], [1, 0]])
    torch.testing.assert_close(sequence_ratio(logp, old, mask), f64([1.0, 2.0, 3.0]))


def test_ratio_equals_a_loop():
    logp, old, _ = random_batch()
    for i, out in enumerate(sequence_ratio(logp, old, MASK).tolist()):
        product = 1.0
        for t in range(LENGTHS[i]):
            product *= math.exp(logp[i, t] - old[i, t])
        assert out == pytest.approx(product ** (1 / LENGTHS[i].item()), rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.integers(0, 3))
def test_ratio_lies_below_the_mean_and_ignores_padding_and_order(logs, padding):
    logs = f64([logs])
    old = torch.full_like(logs, -4.0)
    ratio = sequence_ratio(old + logs, old, torch.ones_like(logs))
    assert ratio <= logs.exp().mean() + 1e-12
    turned = sequence_ratio(old + logs.flip(1), old, torch.ones_like(logs))
    torch.testing.assert_close(ratio, turned)
    pad = torch.zeros(1, padding, dtype=torch.float64)
    wide, wide_old = torch.cat([old + logs, pad], 1), torch.cat([old, pad - 7], 1)
    mask = torch.cat([torch.ones_like(logs), pad], 1)
    torch.testing.assert_close(sequence_ratio(wide, wide_old, mask), ratio)


def test_equal_ratios_are_their_mean():
    old = torch.full((1, 4), -2.0, dtype=torch.float64)
    ratio = sequence_ratio(old + math.log(1.5), old, torch.ones(1, 4))
    torch.testing.assert_close(ratio, f64([1.5]))


def test_ratio_gradient_is_the_ratio_over_the_length():
    logp, old, _ = random_batch(1)
    grads = gradient(lambda x: sequence_ratio(x, old, MASK), logp)
    share = sequence_ratio(logp, old, MASK) / LENGTHS
    torch.testing.assert_close(grads, torch.where(MASK, share.unsqueeze(1), 0.0))


def test_a_long_ratio_near_one_keeps_its_digits_in_float32():
    """2000 tokens at -9, each 2e-4 up: subtracting the sums would lose the difference."""
    old = torch.full((1, 2000), -9.0)
    logp = old + 2e-4
    exact = sequence_ratio(logp.double(), old.double(), torch.ones(1, 2000))
    out = sequence_ratio(logp, old, torch.ones(1, 2000))
    torch.testing.assert_close(out.double(), exact, atol=2e-7, rtol=0)


def test_the_ratio_of_one_token_is_that_of_the_token_to_the_last_digit():
    """The clip looks at its distance from 1, of 1e-3 and less."""
    logp, old = -1e-3 * torch.rand(2, 1000, 1, generator=torch.Generator().manual_seed(12))
    ratio = sequence_ratio(logp, old, torch.ones(1000, 1))
    assert torch.equal(ratio, (logp - old).exp().squeeze(1))


def test_what_overflows_float16_is_refused():
    """-0.5 against -12.5 twice: the ratio e^12 = 162755 is beyond 65504; good rows are clipped."""
    logp, old = (torch.full((1, 2), x, dtype=torch.float16) for x in (-0.5, -12.5))
    bad, mask = -torch.ones(1, dtype=torch.float16), torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"the ratio overflows torch.float16: .* 162755"):
        sequence_ratio(logp, old, mask)
    for loss in (gspo_loss, gspo_token_loss):
        with pytest.raises(ValueError, match=r"the loss overflows torch.float16: .* 162755"):
            loss(logp, old, bad, mask)
        assert loss(logp, old, -bad, mask).item() == pytest.approx(-1, abs=1e-3)


# ---------------------------------------------------------------- the losses


def test_loss_worked_by_hand():
    """Ratio 2, A = 1: 1.3. Ratio 1/2, A = -1: -0.8. Ratio 1.1, A = 2: 2.2. Minus the mean."""
    old = torch.full((3, 2), 0.125, dtype=torch.float64).log()
    logp = old + f64([[4.0, 1.0], [0.5, 0.5], [1.1, 9.0]]).log()
    mask = torch.tensor([[1, 1], [1, 1], [1, 0]])
    loss = gspo_loss(logp, old, f64([1.0, -1.0, 2.0]), mask, **WIDE)
    torch.testing.assert_close(loss, f64(-(1.3 - 0.8 + 2.2) / 3))


def test_default_clips_are_the_papers():
    """Ratio 1.001: the surrogate stops at 1.0004; ratio 0.999 and A = -1 at -0.9997."""
    old = torch.full((1, 3), -1.0, dtype=torch.float64)
    for loss in (gspo_loss, gspo_token_loss):
        up = loss(old + math.log(1.001), old, f64([1.0]), torch.ones(1, 3))
        down = loss(old + math.log(0.999), old, f64([-1.0]), torch.ones(1, 3))
        torch.testing.assert_close(torch.stack([up, down]), f64([-1.0004, 0.9997]))


@pytest.mark.parametrize("clips", [{}, WIDE])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_token_form_has_the_value_and_gradient(clips, spread):
    for seed in range(5):
        logp, old, advantages = random_batch(seed, spread)

        def whole(x, o=old, a=advantages):
            return gspo_loss(x, o, a, MASK, **clips)

        def token(x, o=old, a=advantages):
            return gspo_token_loss(x, o, a, MASK, **clips)

        torch.testing.assert_close(whole(logp), token(logp), atol=1e-14, rtol=0)
        torch.testing.assert_close(gradient(whole, logp), gradient(token, logp), atol=1e-14, rtol=0)


def test_token_form_takes_one_advantage_a_token():
    """A token's weight is its own advantage times the ratio of its sequence, over the length."""
    logp, old, _ = random_batch(2, 0.05)
    generator = torch.Generator().manual_seed(3)
    advantages = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    grads = gradient(lambda x: gspo_token_loss(x, old, advantages, MASK, **WIDE), logp)
    share = sequence_ratio(logp, old, MASK) / LENGTHS / 3
    expected = torch.where(MASK, -share.unsqueeze(1) * advantages, 0.0)
    torch.testing.assert_close(grads, expected, atol=1e-14, rtol=0)


def test_a_sequence_is_clipped_as_a_whole():
    """Every token of a clipped sequence loses its gradient, every token of another keeps it."""
    old = torch.full((4, 5), -2.0, dtype=torch.float64)
    shift = f64([0.5, 0.5, -0.5, -0.5]).unsqueeze(1)
    noise = 0.01 * torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator())
    advantages = f64([1.0, -1.0, 1.0, -1.0])
    for loss in (gspo_loss, gspo_token_loss):
        grads = gradient(
            lambda x, f=loss: f(x, old, advantages, torch.ones(4, 5), **WIDE), old + shift + noise
        )
        assert (grads[[0, 3]] == 0).all()
        assert (grads[[1, 2]] != 0).all()


def test_one_token_is_ppo():
    logp, old, advantages = random_batch(4)
    mask = torch.tensor([[0, 1, 0, 0, 0]] * 3)
    for loss in (gspo_loss, gspo_token_loss):
        ours = gradient(lambda x, f=loss: f(x, old, advantages, mask, **WIDE), logp)
        theirs = gradient(
            lambda x: ppo_policy_loss(x, old, advantages, mask, agg="token-mean", **WIDE), logp
        )
        torch.testing.assert_close(ours, theirs, atol=1e-15, rtol=0)


def test_onpolicy_gradient_is_grpos():
    logp, _, advantages = random_batch(5)
    ours = gradient(lambda x: gspo_loss(x, logp, advantages, MASK), logp)
    theirs = gradient(
        lambda x: ppo_policy_loss(x, logp, advantages, MASK, agg="seq-mean-token-mean"), logp
    )
    torch.testing.assert_close(ours, theirs, atol=1e-15, rtol=0)


def test_gradcheck():
    logp, old, advantages = random_batch(6, 0.3)
    leaf = logp.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gspo_loss(x, old, advantages, MASK, **WIDE), leaf)


@pytest.mark.parametrize("loss", [gspo_loss, gspo_token_loss])
def test_padding_changes_nothing(loss):
    logp, old, advantages = random_batch(7)
    seen = []
    for pad in (0.0, -math.inf, math.nan):
        padded, padded_old = (torch.where(MASK, x, pad) for x in (logp, old))

        def of(x, o=padded_old):
            return loss(x, o, advantages, MASK, **WIDE)

        seen.append((of(padded), gradient(of, padded)))
    assert all(torch.equal(a, seen[0][0]) and torch.equal(b, seen[0][1]) for a, b in seen)
    assert (seen[0][1][~MASK] == 0).all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_lower_precision(dtype, atol):
    rounded = [x.to(dtype) for x in random_batch(8)]
    wide = [x.double() for x in rounded]
    for loss in (gspo_loss, gspo_token_loss):
        out = loss(*rounded, MASK, **WIDE)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), loss(*wide, MASK, **WIDE), atol=atol, rtol=0)
    assert sequence_ratio(*rounded[:2], MASK).dtype == dtype


def _change(name, value):
    def change(batch):
        batch[name] = batch[name].clone()
        batch[name][0, 0] = value

    return change


def _frozen(name):
    def change(batch):
        batch[name] = batch[name].clone().requires_grad_()

    return change


def _set(**values):
    return lambda batch: batch.update(values)


EMPTY = MASK.clone()
EMPTY[1] = False
RATIO_ERRORS = [
    (_frozen("old_logp"), ValueError, "old_logp must not require grad"),
    (_change("logp", 0.5), ValueError, "logp holds log-probabilities"),
    (_change("old_logp", 0.5), ValueError, "old_logp holds log-probabilities"),
    (_change("logp", math.nan), ValueError, "logp must be finite where"),
    (_change("old_logp", -math.inf), ValueError, "old_logp must be finite where"),
    (_change("old_logp", -1e5), ValueError, "overflows"),
    (_set(mask=EMPTY), ValueError, r"rows \[1\] count no token"),
    (_set(mask=MASK * 0.5), ValueError, "zeros and ones only"),
    (_set(mask=MASK[:, :3]), ValueError, "mask"),
    (_set(old_logp=torch.zeros(3, 4)), ValueError, "old_logp"),
    (_set(logp=torch.zeros(3, 5, dtype=torch.long)), TypeError, "must be floating point"),
]
LOSS_ERRORS = [
    (_frozen("advantages"), ValueError, "advantages must not require grad"),
    (_set(advantages=f64([1.0, math.nan, 0.0])), ValueError, "advantages must be finite"),
    (_set(advantages=f64([1.0, 2.0])), ValueError, "advantages"),
    (_set(advantages=torch.ones(3, dtype=torch.long)), TypeError, "advantages must be float"),
    (_set(clip_low=1.0), ValueError, "clip_low must be in"),
    (_set(clip_high=-0.1), ValueError, "clip_high must be at least 0"),
]


@pytest.mark.parametrize(("change", "error", "match"), RATIO_ERRORS + LOSS_ERRORS)
@pytest.mark.parametrize("loss", [gspo_loss, gspo_token_loss])
def test_wrong_input_is_named(loss, change, error, match):
    logp, old, advantages = random_batch(9)
    batch = {"logp": logp, "old_logp": old, "advantages": advantages, "mask": MASK}
    change(batch)
    with pytest.raises(error, match=match):
        loss(**batch)


@pytest.mark.parametrize(("change", "error", "match"), RATIO_ERRORS)
def test_wrong_input_of_the_ratio_is_named(change, error, match):
    logp, old, _ = random_batch(10)
    batch = {"logp": logp, "old_logp": old, "mask": MASK}
    change(batch)
    with pytest.raises(error, match=match):
        sequence_ratio(**batch)


def test_one_advantage_a_token_belongs_to_the_token_form():
    logp, old, _ = random_batch(11)
    with pytest.raises(ValueError, match="gspo_token_loss takes one per token"):
        gspo_loss(logp, old, torch.ones_like(logp), MASK)
