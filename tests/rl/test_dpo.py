"""Preference losses, the policy they belong to, and the rewards that policies imply."""

import math
import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.functional.sft import sequence_logprob
from llmref.rl.dpo import (
    aligned_sequence_logprob,
    dpo_loss,
    implicit_reward,
    optimal_policy,
    simpo_loss,
)
from llmref.rl.kl import kl_categorical
from tests.tensors import random

LAWS = settings(deadline=None, max_examples=40)
LOSS_TYPES = ["sigmoid", "ipo", "hinge", "robust"]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def logps(*shape, seed=0):
    """Log-probabilities of responses: below 0, some tens of nats."""
    return -3 - 10 * random(*shape, seed=seed).abs()


def four(n=3, seed=0):
    return logps(4, n, seed=seed).unbind()


def pairs_with_margin(h, beta=1.0):
    """Four log-probabilities with beta times the gap of the log-ratios equal to h."""
    h = torch.as_tensor(h, dtype=torch.float64).flatten()
    chosen, rejected = (-(x / beta).clamp(min=0) - 1 for x in (-h, h))
    return chosen, rejected, -torch.ones_like(h), -torch.ones_like(h)


def loss_at(h, **options):
    """The loss of one pair at beta = 1."""
    return dpo_loss(*pairs_with_margin(h), beta=1.0, reduction="none", **options)


# ---------------------------------------------------------------- aligned_sequence_logprob


LOGITS, LABELS = random(2, 5, 7, seed=1), torch.tensor([[3, 0, 6, 2, 1], [5, 5, 4, 0, 2]])
MASK = torch.tensor([[False, True, True, True, False], [False, False, True, True, True]])


def test_a_response_is_worth_the_sum_of_its_tokens():
    """Logits (0, log 3): label 0 has 1/4, label 1 has 3/4. Labels 0, 1, 1: log(1/4 * 9/16)."""
    logits = f64([[[0.0, math.log(3)]] * 3])
    total = aligned_sequence_logprob(
        logits, torch.tensor([[0, 1, 1]]), torch.ones(1, 3, dtype=torch.bool)
    )
    assert total.item() == pytest.approx(math.log(9 / 64), abs=1e-14)


def test_aligned_sequence_logprob_equal_the_loop_over_counted_tokens():
    expected = torch.zeros(2, dtype=torch.float64)
    for n in range(2):
        for t in range(5):
            if MASK[n, t]:
                law = LOGITS[n, t].exp() / LOGITS[n, t].exp().sum()
                expected[n] += law[LABELS[n, t]].log()
    torch.testing.assert_close(
        aligned_sequence_logprob(LOGITS, LABELS, MASK), expected, atol=1e-13, rtol=0
    )


def test_labels_are_already_shifted():
    """Position t of the logits scores label t: no shift happens inside."""
    one = torch.tensor([[False, True, False, False, False]]).expand(2, 5)
    expected = LOGITS.log_softmax(-1)[torch.arange(2), 1, LABELS[:, 1]]
    torch.testing.assert_close(
        aligned_sequence_logprob(LOGITS, LABELS, one), expected, atol=1e-14, rtol=0
    )


def test_padding_and_prompt_change_nothing_whatever_they_hold():
    clean = LOGITS.clone().requires_grad_()
    logits, labels = LOGITS.clone(), torch.where(MASK, LABELS, -100)
    logits[~MASK] = math.nan
    logits[0, 0] = -math.inf
    dirty = logits.requires_grad_()
    values = [
        aligned_sequence_logprob(clean, LABELS, MASK),
        aligned_sequence_logprob(dirty, labels, MASK.double()),
    ]
    assert torch.equal(*values)
    grads = [
        torch.autograd.grad(v.sum(), x)[0] for v, x in zip(values, (clean, dirty), strict=True)
    ]
    assert torch.equal(*grads)
    assert (grads[1][~MASK] == 0).all()


def test_padding_of_a_vocabulary_of_one_token_is_no_label():
    """The only token has probability 1."""
    labels, mask = torch.tensor([[0, -100]]), torch.tensor([[True, False]])
    assert aligned_sequence_logprob(torch.zeros(1, 2, 1), labels, mask).tolist() == [0.0]


def test_a_response_of_end_alone_counts_its_end_token():
    only_end = torch.tensor([[False, True, False, False, False]]).expand(2, 5)
    assert (aligned_sequence_logprob(LOGITS, LABELS, only_end) < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_of_narrow_logits_are_float32(dtype):
    """300 tokens at about -3.5 nats: in bfloat16 the sum would be a multiple of 8."""
    logits, labels = random(1, 300, 31), torch.arange(300).remainder(31).unsqueeze(0)
    mask = torch.ones(1, 300, dtype=torch.bool)
    narrow = logits.to(dtype)
    got = aligned_sequence_logprob(narrow, labels, mask)
    assert got.dtype == torch.float32
    expected = aligned_sequence_logprob(narrow.double(), labels, mask)
    torch.testing.assert_close(got.double(), expected, atol=1e-3, rtol=0)


def test_aligned_sequence_logprob_gradient():
    assert torch.autograd.gradcheck(
        lambda x: aligned_sequence_logprob(x, LABELS, MASK), LOGITS.clone().requires_grad_()
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": LOGITS[0]}, ValueError, "logits must be (N, T, V), got (5, 7)"),
        ({"logits": LABELS.unsqueeze(-1)}, TypeError, "logits must be floating point"),
        (
            {"labels": LABELS[:, 1:]},
            ValueError,
            "labels must be (N, T) = (2, 5) beside logits (2, 5, 7), got (2, 4)",
        ),
        ({"labels": LABELS.double()}, TypeError, "labels must hold integers, got torch.float64"),
        (
            {"mask": MASK[:, 1:]},
            ValueError,
            "mask must be (N, T) = (2, 5) beside logits (2, 5, 7), labels (2, 5), got (2, 4)",
        ),
        ({"mask": MASK * 0.5}, ValueError, "zeros and ones only, got 0.5"),
        ({"labels": LABELS + 1}, ValueError, "labels holds the id 7, outside [0, 7)"),
        ({"labels": LABELS - 101}, ValueError, "labels holds the id -101, outside [0, 7)"),
        (
            {"logits": LOGITS.masked_fill(torch.arange(7) == 6, -math.inf)},
            ValueError,
            "a counted label has probability 0",
        ),
    ],
)
def test_aligned_sequence_logprob_refuses(change, error, message):
    given_ = {"logits": LOGITS, "labels": LABELS, "mask": MASK} | change
    with pytest.raises(error, match=re.escape(message)):
        aligned_sequence_logprob(**given_)


def test_a_row_that_counts_nothing_has_log_probability_zero_in_both_alignments():
    """The empty product is 1: a sum over nothing is 0, and no gradient goes back."""
    logits = LOGITS.clone().requires_grad_()
    mask = torch.tensor([[True] * 5, [False] * 5])
    aligned = aligned_sequence_logprob(logits, LABELS, mask)
    assert aligned[0] < 0
    assert aligned[1] == 0
    shifted = torch.cat([LABELS[:, :1], LABELS[:, :-1]], dim=1)
    assert sequence_logprob(LOGITS, shifted, mask)[1] == 0
    (gradient,) = torch.autograd.grad(aligned.sum(), logits)
    assert not gradient[1].any()


# ---------------------------------------------------------------- optimal_policy


def test_optimal_policy_tilts_the_reference():
    """Ref (1/2, 1/2), e^r = (3, 1): weights 3/2 and 1/2, Z = 2."""
    law, log_z = optimal_policy(f64([0.5, 0.5]).log(), f64([math.log(3), 0.0]), beta=1.0)
    torch.testing.assert_close(law.exp(), f64([0.75, 0.25]), atol=1e-15, rtol=0)
    assert log_z.item() == pytest.approx(math.log(2), abs=1e-15)


@LAWS
@given(st.integers(0, 10_000), st.floats(0.05, 20.0))
def test_no_other_law_does_better(seed, beta):
    ref, other = random(2, 3, 5, seed=seed).log_softmax(-1)
    rewards = 2 * random(3, 5, seed=seed + 1)
    best, log_z = optimal_policy(ref, rewards, beta=beta)

    def objective(law):
        return (law.exp() * rewards).sum(-1) - beta * kl_categorical(law, ref)

    torch.testing.assert_close(objective(best), beta * log_z, atol=1e-11, rtol=0)
    gap = beta * kl_categorical(other, best)
    torch.testing.assert_close(objective(best) - objective(other), gap, atol=1e-11, rtol=0)


def test_what_the_reference_excludes_stays_excluded():
    law, log_z = optimal_policy(f64([0.5, 0.5, 0.0]).log(), f64([0.0, 1.0, 50.0]), beta=1.0)
    assert law[2] == -math.inf
    assert log_z.item() == pytest.approx(math.log((1 + math.e) / 2), abs=1e-14)


def test_log_z_has_the_optimal_policy_over_beta_as_its_gradient():
    ref, rewards = random(2, 5).log_softmax(-1)[0], random(5, seed=3).requires_grad_()
    law, log_z = optimal_policy(ref, rewards, beta=0.3)
    (slope,) = torch.autograd.grad(log_z, rewards)
    torch.testing.assert_close(slope, law.detach().exp() / 0.3, atol=1e-13, rtol=0)
    assert torch.autograd.gradcheck(lambda r: optimal_policy(ref, r, beta=0.3), rewards)


def test_large_rewards_do_not_overflow():
    law, log_z = optimal_policy(f64([0.5, 0.5]).log(), f64([1e5, 0.0]), beta=0.01)
    assert law[0] == 0
    assert log_z.item() == pytest.approx(1e7 - math.log(2))


def test_a_large_common_reward_changes_nothing():
    """The law is that of rewards 0 and 0, and log Z is the reward over beta."""
    ref = torch.tensor([0.9, 0.1]).log()
    for reward in (1e8, -1e8, 3e38):
        law, log_z = optimal_policy(ref, torch.full((2,), reward), beta=1.0)
        torch.testing.assert_close(law, ref)
        assert log_z.item() == pytest.approx(reward)


def test_what_the_reference_excludes_may_have_any_reward():
    ref, rewards = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([1.0, 1.0, 3e38])
    law, log_z = optimal_policy(ref, rewards, beta=1e-3)
    assert law.exp().tolist() == [0.5, 0.5, 0.0]
    assert log_z.item() == pytest.approx(1000.0)
    law, log_z = optimal_policy(ref, 3e38 * ref.isneginf(), beta=1e-39)  # 1 / beta overflows
    assert law.exp().tolist() == [0.5, 0.5, 0.0]
    assert log_z == 0


@pytest.mark.parametrize("size", [2, 300, 5000, 100_000])
def test_a_uniform_reference_in_bfloat16_is_taken(size):
    """Near log 5000 = 8.5 bfloat16 has steps of 1/16: the sum is off by up to 3 %."""
    ref = torch.full((size,), 1 / size).log().bfloat16()
    law, _ = optimal_policy(ref, torch.zeros(size).bfloat16(), beta=1.0)
    assert law.float().exp().sum().item() == pytest.approx(1, abs=0.05)


def test_a_reference_in_bfloat16_that_does_not_sum_to_one_is_refused():
    ref = torch.full((5000,), 1.1 / 5000).log().bfloat16()
    with pytest.raises(ValueError, match="sum to 1 in probability, got 1.08"):
        optimal_policy(ref, torch.zeros(5000).bfloat16(), beta=1.0)


def test_of_several_references_the_one_that_is_furthest_off_is_named():
    ref = f64([[0.5, 0.5], [0.1, 0.3], [0.8, 0.3]]).log()
    with pytest.raises(ValueError, match=r"sum to 1 in probability, got 0\.4"):
        optimal_policy(ref, torch.zeros_like(ref), beta=1.0)


@pytest.mark.parametrize(
    ("dtype", "missed", "is_taken"),
    [
        (torch.bfloat16, 2**-7, True),
        (torch.bfloat16, 2**-7 + 2**-14, False),
        (torch.float64, 5e-5, True),
        (torch.float64, 2e-4, False),
    ],
)
def test_a_reference_may_miss_one_by_eps_or_1e_4(dtype, missed, is_taken):
    """A single response, whose log-probability should be 0; eps is 2^-7 in bfloat16."""
    for log in (missed, -missed):
        ref, reward = torch.tensor([log], dtype=dtype), torch.zeros(1, dtype=dtype)
        if is_taken:
            assert optimal_policy(ref, reward, beta=1.0)[0] == 0
        else:
            with pytest.raises(ValueError, match="sum to 1 in probability"):
                optimal_policy(ref, reward, beta=1.0)


def test_results_that_overflow_are_refused():
    half, one = torch.tensor([0.5, 0.5]).log(), torch.zeros(1)
    low = one.half() - 100
    calls = {
        "the difference of two rewards over beta overflows": lambda: optimal_policy(
            half, torch.tensor([1e38, 0.0]), beta=1e-3
        ),
        "log Z overflows": lambda: optimal_policy(half, torch.full((2,), 1e38), beta=1e-3),
        "the implied reward overflows": lambda: implicit_reward(one, one, beta=1e39),
        "the loss overflows torch.float32": lambda: dpo_loss(one, one, one, one, beta=1e308),
        "the loss overflows torch.float16: it reaches 100000": lambda: dpo_loss(
            low, *[one.half()] * 3, beta=1000.0
        ),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_labels_may_have_any_integer_dtype():
    """300 classes, of which uint8 holds 256."""
    logits = torch.randn(2, 2, 300, generator=torch.Generator().manual_seed(0))
    labels, mask = torch.tensor([[0, 200], [7, 255]]), torch.ones(2, 2)
    expected = aligned_sequence_logprob(logits, labels, mask)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(aligned_sequence_logprob(logits, labels.to(dtype), mask), expected)


@pytest.mark.parametrize("lengths", [torch.tensor([True]), torch.tensor([0.5])])
def test_simpo_takes_integer_lengths_only(lengths):
    one = -torch.ones(1)
    with pytest.raises(TypeError, match="rejected_lengths must hold integers"):
        simpo_loss(one, one, torch.tensor([1]), lengths)


def test_narrow_reference_gives_a_narrow_law():
    ref = f64([0.25, 0.25, 0.5]).log().bfloat16()
    law, _ = optimal_policy(ref, f64([1.0, 0.0, 0.0]).bfloat16(), beta=1.0)
    assert law.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta must be positive and finite, got 0"),
        ({"beta": math.nan}, ValueError, "beta must be positive and finite, got nan"),
        (
            {"rewards": torch.zeros(2)},
            ValueError,
            "rewards must be (..., Y) = (3,) beside ref_logps (3,), got (2,)",
        ),
        ({"rewards": torch.arange(3)}, TypeError, "rewards must be floating point"),
        ({"rewards": f64([0, math.nan, 0])}, ValueError, "rewards must be finite"),
        ({"rewards": f64([0, -math.inf, 0])}, ValueError, "rewards must be finite"),
        ({"ref_logps": f64([0.1, 0.2, 0.3]).log()}, ValueError, "sum to 1 in probability, got 0.6"),
        ({"ref_logps": f64([0.2, 0.3, 0.5])}, ValueError, "sum to 1 in probability"),
        (
            {"ref_logps": f64([0.2, 0.3, 0.5]).log().requires_grad_()},
            ValueError,
            "ref_logps must not require grad",
        ),
    ],
)
def test_optimal_policy_refuses(change, error, message):
    given_ = {"ref_logps": f64([0.2, 0.3, 0.5]).log(), "rewards": f64([1, 0, 2]), "beta": 1.0}
    with pytest.raises(error, match=re.escape(message)):
        optimal_policy(**given_ | change)


# ---------------------------------------------------------------- implicit_reward


def test_implicit_reward_of_the_optimal_policy_is_the_reward_minus_beta_log_z():
    ref, rewards = random(3, 5).log_softmax(-1), random(3, 5, seed=1)
    law, log_z = optimal_policy(ref, rewards, beta=0.7)
    got = implicit_reward(law, ref, beta=0.7)
    torch.testing.assert_close(got, rewards - 0.7 * log_z.unsqueeze(-1), atol=1e-13, rtol=0)


def test_implicit_reward_is_attached_to_the_policy():
    policy = logps(4).requires_grad_()
    (slope,) = torch.autograd.grad(
        implicit_reward(policy, logps(4, seed=1), beta=0.2).sum(), policy
    )
    assert torch.equal(slope, torch.full((4,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("policy", "ref", "beta", "error", "message"),
    [
        ([-1.0], [-1.0], -1.0, ValueError, "beta must be positive"),
        (
            [-1.0],
            [-1.0, -2.0],
            1.0,
            ValueError,
            "ref_logps must be (...) = (1,) beside policy_logps (1,), got (2,)",
        ),
        (
            [0.5],
            [-1.0],
            1.0,
            ValueError,
            "policy_logps holds log-probabilities, at most 0, got 0.5",
        ),
        ([-1.0], [-math.inf], 1.0, ValueError, "ref_logps must be finite"),
    ],
)
def test_implicit_reward_refuses(policy, ref, beta, error, message):
    with pytest.raises(error, match=re.escape(message)):
        implicit_reward(f64(policy), f64(ref), beta=beta)


# ---------------------------------------------------------------- dpo_loss


def test_loss_of_one_pair_by_hand():
    """Log-ratios 2 and -1, beta 1/2: h = 1.5, loss log(1 + e^-1.5)."""
    loss = dpo_loss(f64([-3.0]), f64([-6.0]), f64([-5.0]), f64([-5.0]), beta=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-15)


def test_the_four_losses_at_a_margin_by_hand():
    """H = 0.5 at beta = 0.5, so the gap is 1: ipo (1 - 1)^2 = 0, hinge 1/2."""
    pair = pairs_with_margin(0.5, beta=0.5)
    ell = {s: math.log1p(math.exp(-s * 0.5)) for s in (1, -1)}
    expected = {
        ("sigmoid", 0.0): ell[1],
        ("sigmoid", 0.1): 0.9 * ell[1] + 0.1 * ell[-1],
        ("robust", 0.1): (0.9 * ell[1] - 0.1 * ell[-1]) / 0.8,
        ("ipo", 0.0): 0.0,
        ("hinge", 0.0): 0.5,
    }
    for (loss_type, smoothing), value in expected.items():
        loss = dpo_loss(*pair, beta=0.5, loss_type=loss_type, label_smoothing=smoothing)
        assert loss.item() == pytest.approx(value, abs=1e-15), (loss_type, smoothing)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_loss_is_log_two_where_policy_and_reference_agree(beta):
    chosen, rejected = logps(2, 3)
    loss = dpo_loss(chosen, rejected, chosen, rejected, beta=beta)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-15)


def test_hopeless_pairs_have_a_finite_loss_and_a_full_gradient():
    """H = -2000: sigmoid(h) underflows even in float64, its logarithm does not."""
    chosen, rejected, *refs = pairs_with_margin(-2000.0)
    chosen.requires_grad_()
    loss = dpo_loss(chosen, rejected, *refs, beta=1.0)
    assert loss.item() == 2000.0
    assert torch.autograd.grad(loss, chosen)[0].item() == -1.0
    assert loss_at(2000.0).item() == 0.0


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_falls_with_the_chosen_and_rises_with_the_rejected(loss_type):
    pw, pl, rw, rl = four()
    pw.requires_grad_(), pl.requires_grad_()
    loss = dpo_loss(pw, pl, rw, rl, beta=0.01, loss_type=loss_type, reduction="sum")
    dw, dl = torch.autograd.grad(loss, (pw, pl))
    assert (dw < 0).all()
    assert torch.equal(dw, -dl)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_beta_times_the_misranking_probability(smoothing):
    pw, pl, rw, rl = four()
    pw.requires_grad_()
    loss = dpo_loss(pw, pl, rw, rl, beta=0.3, label_smoothing=smoothing, reduction="sum")
    h = 0.3 * ((pw - rw) - (pl - rl)).detach()
    expected = 0.3 * (torch.sigmoid(h) - (1 - smoothing))
    torch.testing.assert_close(torch.autograd.grad(loss, pw)[0], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_gradcheck_in_the_policy(loss_type):
    pw, pl, rw, rl = four()
    assert torch.autograd.gradcheck(
        lambda a, b: dpo_loss(a, b, rw, rl, loss_type=loss_type, beta=0.05, reduction="none"),
        (pw.requires_grad_(), pl.requires_grad_()),
    )


@LAWS
@given(st.integers(0, 10_000), st.floats(0.01, 2.0), st.sampled_from(LOSS_TYPES))
def test_loss_sees_only_the_difference_of_the_log_ratios(seed, beta, loss_type):
    pw, pl, rw, rl = four(seed=seed)
    options = {"beta": beta, "loss_type": loss_type, "reduction": "none"}
    loss = dpo_loss(pw, pl, rw, rl, **options)
    both_fall = dpo_loss(pw - 5, pl - 5, rw, rl, **options)
    torch.testing.assert_close(both_fall, loss, atol=1e-9, rtol=1e-12)


@LAWS
@given(st.floats(-30, 30), st.floats(0, 0.49))
def test_smoothing_is_a_mean_over_flipped_labels_and_robust_undoes_it(h, eps):
    agrees, flipped = loss_at(h), loss_at(-h)
    torch.testing.assert_close(
        loss_at(h, label_smoothing=eps), (1 - eps) * agrees + eps * flipped, atol=1e-12, rtol=0
    )
    robust = [loss_at(x, loss_type="robust", label_smoothing=eps) for x in (h, -h)]
    mean = (1 - eps) * robust[0] + eps * robust[1]
    torch.testing.assert_close(mean, agrees, atol=1e-10, rtol=0)


def test_ipo_does_not_multiply_the_gap_by_beta():
    """Gap 5, tau 1/4: (5 - 2)^2 = 9."""
    loss = dpo_loss(f64([-1.0]), f64([-6.0]), f64([-1.0]), f64([-1.0]), beta=0.25, loss_type="ipo")
    assert loss.item() == pytest.approx(9.0, abs=1e-14)


def test_exchanging_chosen_and_rejected_changes_the_loss():
    pw, pl, rw, rl = four()
    swapped = dpo_loss(pl, pw, rl, rw, reduction="none")
    assert ((dpo_loss(pw, pl, rw, rl, reduction="none") - swapped).abs() > 1e-3).all()


def test_beta_is_a_tenth_unless_given():
    """Gap 5: log(1 + e^-0.5)."""
    loss = dpo_loss(f64([-1.0]), f64([-6.0]), f64([-1.0]), f64([-1.0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5)), abs=1e-15)


def test_reductions():
    each = dpo_loss(*four(), reduction="none")
    assert each.shape == (3,)
    torch.testing.assert_close(dpo_loss(*four(), reduction="sum"), each.sum())
    torch.testing.assert_close(dpo_loss(*four()), each.mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_are_computed_in_float32(dtype):
    narrow = [x.to(dtype) for x in four()]
    loss = dpo_loss(*narrow)
    assert loss.dtype == dtype
    wide = dpo_loss(*(x.double() for x in narrow))
    torch.testing.assert_close(loss.double(), wide, atol=0, rtol=2 * torch.finfo(dtype).eps)


NAMES = [
    "policy_chosen_logps",
    "policy_rejected_logps",
    "ref_chosen_logps",
    "ref_rejected_logps",
]


@pytest.mark.parametrize("name", NAMES)
def test_each_of_the_four_is_checked_and_named(name):
    good = dict(zip(NAMES, four(), strict=True))
    for value, message in (
        (0.5, f"{name} holds log-probabilities, at most 0, got 0.5"),
        (-math.inf, f"{name} must be finite"),
        (math.nan, f"{name} must be finite"),
    ):
        bad = good[name].clone()
        bad[1] = value
        with pytest.raises(ValueError, match=re.escape(message)):
            dpo_loss(**good | {name: bad})
    with pytest.raises(TypeError, match=f"{name} must be floating point"):
        dpo_loss(**good | {name: good[name].long()})
    if name.startswith("ref"):
        with pytest.raises(ValueError, match=f"{name} must not require grad"):
            dpo_loss(**good | {name: good[name].clone().requires_grad_()})
        with pytest.raises(ValueError, match=re.escape(f"{name} must be (...) = (3,)")):
            dpo_loss(**good | {name: good[name][:2]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta must be positive and finite, got 0"),
        ({"beta": math.inf}, "beta must be positive and finite, got inf"),
        ({"loss_type": "kto"}, "loss_type must be one of ['sigmoid', 'ipo', 'hinge', 'robust']"),
        ({"reduction": "avg"}, "reduction must be one of ['mean', 'sum', 'none'], got 'avg'"),
        ({"label_smoothing": 0.5}, "label_smoothing must be in [0, 0.5), got 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in [0, 0.5), got -0.1"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "no meaning for loss_type='ipo'"),
        ({"label_smoothing": 0.1, "loss_type": "hinge"}, "no meaning for loss_type='hinge'"),
    ],
)
def test_dpo_loss_refuses_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dpo_loss(*four(), **options)


def test_token_tensors_and_empty_batches_are_refused():
    tokens = logps(4, 3, 5).unbind()
    with pytest.raises(ValueError, match=re.escape("policy_chosen_logps must be (N,), got (3, 5)")):
        dpo_loss(*tokens)
    with pytest.raises(
        ValueError,
        match=re.escape("policy_rejected_logps must be (N,) = (3,) beside policy_chosen_logps"),
    ):
        dpo_loss(four()[0], four()[1][:2], four()[2], four()[3][:2])
    with pytest.raises(ValueError, match="there is no pair"):
        dpo_loss(*four(n=0))


# ---------------------------------------------------------------- simpo_loss


def test_at_the_kink_of_the_hinge_the_slope_is_zero():
    """Beta 1, gap 1: the margin is met exactly."""
    zero = torch.zeros(1, dtype=torch.float64)
    leaf = (zero - 1).requires_grad_()
    loss = dpo_loss(leaf, zero - 2, zero, zero, beta=1.0, loss_type="hinge")
    assert loss == 0
    assert torch.autograd.grad(loss, leaf)[0] == 0


def test_simpo_by_hand():
    """Means -2 and -3, beta 2, gamma 1: margin 2 * 1 - 1 = 1."""
    loss = simpo_loss(f64([-4.0]), f64([-9.0]), torch.tensor([2]), torch.tensor([3]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-15)


def test_simpo_multiplies_the_gap_of_the_means_by_beta_and_not_the_margin():
    given = f64([-4.0]), f64([-9.0]), torch.tensor([2]), torch.tensor([2])  # means -2 and -4.5
    loss = simpo_loss(*given, beta=3.0, gamma=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-(3.0 * 2.5 - 0.5))), rel=1e-14)


def test_simpo_averages_over_pairs_and_passes_gradcheck():
    pw, pl = four()[:2]
    lengths = torch.tensor([2, 7, 5]), torch.tensor([4, 1, 3])
    each = [
        simpo_loss(pw[i : i + 1], pl[i : i + 1], *(n[i : i + 1] for n in lengths), gamma=0.3)
        for i in range(3)
    ]
    loss = simpo_loss(pw, pl, *lengths, gamma=0.3)
    torch.testing.assert_close(loss, torch.stack(each).mean(), atol=1e-15, rtol=0)
    assert torch.autograd.gradcheck(
        lambda a, b: simpo_loss(a, b, *lengths), (pw.requires_grad_(), pl.requires_grad_())
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0}, "beta must be positive"),
        ({"gamma": -1.0}, "gamma must be at least 0 and finite, got -1.0"),
        (
            {"chosen_lengths": torch.tensor([2, 0, 1])},
            "chosen_lengths must be positive and finite, got 0",
        ),
        (
            {"rejected_lengths": torch.tensor([2, 1])},
            "rejected_lengths must be (N,) = (3,) beside policy_rejected_logps",
        ),
        ({"policy_chosen_logps": f64([-1, 2, -1])}, "policy_chosen_logps holds log-prob"),
        (
            {"policy_rejected_logps": f64([-1, -2])},
            "policy_rejected_logps must be (N,) = (3,) beside policy_chosen_logps",
        ),
    ],
)
def test_simpo_refuses(change, message):
    good = {
        "policy_chosen_logps": four()[0],
        "policy_rejected_logps": four()[1],
        "chosen_lengths": torch.tensor([2, 3, 4]),
        "rejected_lengths": torch.tensor([2, 3, 4]),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        simpo_loss(**good | change)


# ---------------------------------------------------------------- what training does


def descend(logits, reference, pairs, *, beta, steps, rate=1.0, **options):
    """Plain gradient descent on free logits of one prompt."""
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for _ in range(steps):
        leaf = logits.detach().requires_grad_()
        law = leaf.log_softmax(-1)
        loss = dpo_loss(
            law[chosen],
            law[rejected],
            reference[chosen],
            reference[rejected],
            beta=beta,
            reduction="sum",
            **options,
        )
        logits = leaf.detach() - rate * torch.autograd.grad(loss, leaf)[0]
    return logits.log_softmax(-1), loss.item()


@LAWS
@given(st.integers(0, 10_000), st.floats(0.1, 3.0), st.floats(0.01, 50.0))
def test_one_pair_with_free_logits_raises_its_chosen_at_every_step_size(seed, beta, rate):
    reference = random(5, seed=seed).log_softmax(-1)
    after, _ = descend(reference, reference, [(1, 3)], beta=beta, steps=1, rate=rate)
    assert after[1] > reference[1]
    assert after[3] < reference[3]


def test_with_several_pairs_a_response_that_is_never_rejected_can_fall():
    reference = f64([0.1, 0.05, 0.8, 0.03, 0.02]).log()
    pairs = [(0, 1), (2, 3), (2, 4)]
    after, loss = descend(reference, reference, pairs, beta=1.0, steps=200)
    assert loss < 0.1
    assert after[0].exp() < 0.06


def test_averaging_log_probs_by_length_is_another_loss():
    lengths = torch.tensor([2.0, 7.0, 5.0]), torch.tensor([4.0, 1.0, 3.0])
    pw, pl, rw, rl = four()
    mean = dpo_loss(pw / lengths[0], pl / lengths[1], rw / lengths[0], rl / lengths[1])
    assert abs(mean - dpo_loss(pw, pl, rw, rl)) > 0.01
