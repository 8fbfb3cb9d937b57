"""KTO and ORPO: values, loops, the gradients near probability 1, and every error."""

import math
import re

import pytest
import torch

from llmref.rl.dpo import dpo_loss, simpo_loss
from llmref.rl.preference import (
    kto_loss,
    kto_reference_point,
    log_odds,
    odds_ratio_loss,
    orpo_loss,
)
from tests.tensors import close, f64, gradient, random

UP = torch.tensor([True, False, True, False])
WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
LENGTHS = torch.tensor([[3, 1, 7, 2], [2, 5, 4, 2]])


def logps(*shape, seed=0):
    return -0.5 - 5 * random(*shape, seed=seed).abs()


def kto(policy, ref, up=UP, z=0.3, beta=0.5, **weights):
    z = torch.as_tensor(z, dtype=policy.dtype)
    return kto_loss(policy, ref, up, z, beta=beta, **(WEIGHTS | weights))


def refused(function, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function()


# ---------------------------------------------------------------- KTO


def test_kto_by_hand():
    """With u = 2, z = 1, beta = log 3, h = log 3, so a thumb up costs 1/4 and a thumb down 3/4."""
    policy, ref, beta = f64(-1.0), f64(-3.0), math.log(3)
    for up, cost in ((True, 1.5 / 4), (False, 0.5 * 3 / 4)):
        close(kto(policy, ref, torch.tensor([up]), 1.0, beta), f64(cost)[0])


def test_kto_as_a_loop():
    policy, ref = logps(2, 4)
    total = 0.0
    for p, r, up in zip(policy.tolist(), ref.tolist(), UP.tolist(), strict=True):
        h = 0.5 * (p - r - 0.3)
        total += 1.5 / (1 + math.exp(h)) if up else 0.5 / (1 + math.exp(-h))
    close(kto(policy, ref), f64(total / 4)[0])
    close(kto(policy, ref, UP.long()), f64(total / 4)[0])


def test_a_baseline_of_each_prompt_and_far_responses():
    policy, ref = logps(2, 4)
    each = f64(0.0, 1.0, 0.5, 2.0)
    one = [kto(policy[i : i + 1], ref[i : i + 1], UP[i : i + 1], each[i]) for i in range(4)]
    close(kto(policy, ref, z=each), torch.stack(one).mean())
    far = gradient(lambda x: kto(x, ref), f64(-1e5, 0.0, -1e5, 0.0) + ref.clamp(max=-1e3))
    assert far.isfinite().all()  # given up, not NaN
    assert far[0] == 0


def test_kto_at_the_reference_pulls_half_as_hard_as_dpo():
    chosen, rejected = logps(2, 3)
    none = torch.tensor(0.0).double()
    same = {"desirable_weight": 1.0, "undesirable_weight": 1.0, "beta": 0.2}

    def singles(x):
        return 2 * kto_loss(x, x.detach(), torch.tensor([True] * 3 + [False] * 3), none, **same)

    def pairs(x):
        return dpo_loss(*x.chunk(2), *x.detach().chunk(2), beta=0.2)

    x = torch.cat([chosen, rejected])
    close(gradient(singles, x), gradient(pairs, x) / 2)


def test_the_reference_point_is_a_clamped_detached_mean():
    policy, ref = f64(-1.0, -2.0, -3.0).requires_grad_(), f64(-2.0, -2.0, -4.5)
    point = kto_reference_point(policy, ref)
    assert not point.requires_grad
    close(point, f64(2.5 / 3)[0])
    assert kto_reference_point(ref, policy.detach()) == 0


def test_kto_gradcheck():
    policy, ref = logps(2, 4)
    assert torch.autograd.gradcheck(lambda x: kto(x, ref), policy.requires_grad_())


# ---------------------------------------------------------------- ORPO


def test_log_odds_by_hand():
    close(log_odds(f64(0.5, 0.25, 0.9).log()), f64(1.0, 1 / 3, 9.0).log())


def test_odds_and_their_gradients_keep_their_digits_near_1_and_near_0():
    exact = [1e-300, 1e-20, 1e-8, 1e-3, 0.5, 0.7, 3.0, 50.0, 700.0]
    for dtype, eps in ((torch.float64, 1e-15), (torch.float32, 1e-6)):
        below = [x for x in exact if x > torch.finfo(dtype).tiny]
        x = -torch.tensor(below, dtype=dtype)
        truth = f64(*(v - math.log(-math.expm1(v)) for v in x.tolist()))
        slope = f64(*(-1 / math.expm1(v) for v in x.tolist()))
        close(log_odds(x).double() / (1 + truth.abs()), truth / (1 + truth.abs()), eps)
        close(gradient(log_odds, x).double() / slope, torch.ones_like(slope), eps)


def test_orpo_as_a_loop():
    chosen, rejected = logps(2, 4)
    sft = odds = 0.0
    for i in range(4):
        p, q = (math.exp(x[i] / n[i]) for x, n in zip((chosen, rejected), LENGTHS, strict=True))
        sft -= math.log(p) / 4
        odds += math.log1p(q / (1 - q) * (1 - p) / p) / 4
    close(odds_ratio_loss(chosen, rejected, *LENGTHS), f64(odds)[0])
    loss = orpo_loss(chosen, rejected, *LENGTHS, lam=0.4)
    close(loss, f64(sft + 0.4 * odds)[0])


def test_small_probabilities_make_it_simpo():
    chosen, rejected = (100 * x for x in logps(2, 4))
    plain = simpo_loss(chosen, rejected, *LENGTHS, beta=1.0, gamma=0.0)
    close(odds_ratio_loss(chosen, rejected, *LENGTHS), plain, 1e-10)


def test_orpo_gradcheck():
    pair = logps(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: orpo_loss(*x, *LENGTHS, lam=0.4), pair)


def test_16_bits_are_widened():
    pair = logps(2, 4)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = pair.to(dtype)
        loss = orpo_loss(*rounded, *LENGTHS, lam=0.4)
        assert loss.dtype == dtype
        assert loss == orpo_loss(*rounded.float(), *LENGTHS, lam=0.4).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_means_near_0_have_a_finite_gradient_in_their_dtype_or_are_refused(dtype):
    """-1e-7 in float16 has the gradient 1e7 * 0.1, beyond 65504; 2^-15 has 32768."""
    one, far = torch.ones(1).long(), torch.tensor([-1.0], dtype=dtype)
    near = 2.0**-15 if dtype == torch.float16 else torch.finfo(dtype).tiny
    kept = torch.tensor([-near], dtype=dtype)
    for loss in (
        log_odds,
        lambda x: odds_ratio_loss(far, x, one, one),
        lambda x: orpo_loss(far, x, one, one, lam=0.1),
        lambda x: orpo_loss(x, far, one, one, lam=0.1),
    ):
        slope = gradient(loss, kept)
        assert slope.isfinite().all()
        assert (slope != 0).all()
        refused(lambda loss=loss: loss(kept / 4), ValueError, f"is, in {dtype}")
    beyond = torch.tensor([-1e-7], dtype=torch.float16)
    for swap in (1, -1):
        pair = (far.half(), beyond)[::swap]
        refused(lambda pair=pair: orpo_loss(*pair, one, one, lam=0.1), ValueError, "got -1")


# ---------------------------------------------------------------- what is refused


def test_kto_refusals():
    policy, ref = logps(2, 4)
    empty = policy[:0]
    for call, error, message in (
        (lambda: kto(policy, ref, beta=0.0), ValueError, "beta must be positive"),
        (lambda: kto(policy, ref, desirable_weight=-1.0), ValueError, "desirable_weight must be"),
        (lambda: kto(policy, ref, undesirable_weight=-1.0), ValueError, "undesirable_weight must"),
        (lambda: kto(policy, ref[:3]), ValueError, "ref_logps must be (N,) = (4,)"),
        (lambda: kto(policy, ref, UP[:3]), ValueError, "desirable must be (N,) = (4,)"),
        (lambda: kto(policy, ref, UP.long() * 2 - 1), ValueError, "a mask holds zeros and ones"),
        (lambda: kto(empty, empty, UP[:0]), ValueError, "there is no response"),
        (lambda: kto(policy, ref.requires_grad_()), ValueError, "ref_logps must not require grad"),
        (lambda: kto(policy, ref.detach(), z=-0.1), ValueError, "reference_point must be in [0"),
        (lambda: kto(policy, ref.detach(), z=math.nan), ValueError, "reference_point must be in"),
        (lambda: kto(policy, ref.detach(), z=ref.detach()[:3]), ValueError, "reference_point must"),
        (
            lambda: kto(policy, ref.detach(), z=policy.abs().requires_grad_()),
            ValueError,
            "reference_point must not require grad",
        ),
        (lambda: kto(policy + 9, ref.detach()), ValueError, "policy_logps holds log-probabilities"),
        (lambda: kto(policy, ref.detach().long()), TypeError, "ref_logps must be floating"),
        (lambda: kto_reference_point(empty, empty), ValueError, "there is no response"),
        (lambda: kto_reference_point(policy, ref), ValueError, "ref_kl_logps must not require"),
        (lambda: kto_reference_point(policy, ref[:2]), ValueError, "ref_kl_logps must be (M,)"),
        (lambda: kto_reference_point(policy + 9, policy), ValueError, "policy_kl_logps holds"),
    ):
        refused(call, error, message)


def test_orpo_refusals():
    chosen, rejected = logps(2, 4)
    n_w, n_l = LENGTHS
    certain = torch.tensor([-1.0, 0.0, -1.0, -1.0]).double()
    for call, error, message in (
        (lambda: orpo_loss(chosen, rejected, n_w, n_l, lam=-1.0), ValueError, "lam must be at"),
        (lambda: odds_ratio_loss(certain, rejected, n_w, n_l), ValueError, "policy_chosen_logps"),
        (lambda: odds_ratio_loss(chosen, certain, n_w, n_l), ValueError, "policy_rejected_logps"),
        (lambda: odds_ratio_loss(chosen, rejected, n_w - 1, n_l), ValueError, "chosen_lengths mu"),
        (lambda: odds_ratio_loss(chosen, rejected, n_w, n_l * 1.0), TypeError, "rejected_lengths"),
        (lambda: odds_ratio_loss(chosen, rejected[:3], n_w, n_l), ValueError, "(N,) = (4,)"),
        (
            lambda: odds_ratio_loss(chosen[:0], rejected[:0], n_w[:0], n_l[:0]),
            ValueError,
            "there is no pair",
        ),
        (lambda: log_odds(f64(0.0)), ValueError, "mean_logps must be below 0 per token, got 0"),
        (lambda: log_odds(f64(5e-7)), ValueError, "mean_logps must be below 0 per token"),
        (lambda: log_odds(f64(-math.inf)), ValueError, "mean_logps must be finite"),
        (lambda: log_odds(torch.tensor([-1])), TypeError, "mean_logps must be floating point"),
    ):
        refused(call, error, message)
