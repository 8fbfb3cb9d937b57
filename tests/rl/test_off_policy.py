"""Off-policy corrections: weights of token, prefix and text; cap, band, CISPO, decoupled PPO."""

import math

import pytest
import torch

from llmref.rl.off_policy import (
    cispo_loss,
    decoupled_ppo_loss,
    effective_sample_size,
    importance_weights,
    mask_weights,
    truncate_weights,
)
from llmref.rl.policy_gradient import reinforce_loss
from llmref.rl.ppo import ppo_policy_loss
from tests.tensors import close, f64, gradient, random

LENGTHS = torch.tensor([5, 3, 1])
MASK = torch.arange(5) < LENGTHS.unsqueeze(1)  # (3, 5)
LEVELS = ("token", "prefix", "sequence")
MU, OLD, NEW = (-2 - 0.4 * random(3, 5, seed=seed).square() for seed in range(3))
ADVANTAGES = random(3, 5, seed=7)


# ---------------------------------------------------------------- weights


def test_weights_worked_by_hand():
    """Ratios 2 and 3: 2, 3; 2, 6; 6, 6. Padding is 0, whatever stands there."""
    mu = f64((-3.0, -3.0, -math.inf))
    logp = f64((math.log(2) - 3, math.log(3) - 3, math.nan))
    mask = torch.tensor([[1, 1, 0]])
    for level, expected in zip(LEVELS, ([2, 3, 0], [2, 6, 0], [6, 6, 0]), strict=True):
        weights = importance_weights(logp, mu, mask, level=level)
        close(weights, f64(tuple(expected)))


def test_weights_equal_a_loop():
    for level in LEVELS:
        weights = importance_weights(NEW, MU, MASK, level=level)
        for i in range(3):
            ratios = [math.exp(NEW[i, t] - MU[i, t]) for t in range(int(LENGTHS[i]))]
            for t in range(5):
                piece = {"token": ratios[t : t + 1], "prefix": ratios[: t + 1], "sequence": ratios}
                expected = math.prod(piece[level]) if t < LENGTHS[i] else 0.0
                assert weights[i, t].item() == pytest.approx(expected, rel=1e-12)


def test_weights_carry_no_gradient_and_keep_their_dtype():
    leaf = NEW.clone().requires_grad_()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        weights = importance_weights(leaf.to(dtype), MU.to(dtype), MASK, level="token")
        assert weights.dtype == dtype
        assert not weights.requires_grad


def test_a_product_that_overflows_is_capped_and_refused_without_a_cap():
    logp, mu = torch.full((1, 100), -1e-3), torch.full((1, 100), -20.0)
    mask = torch.ones(1, 100)
    assert (importance_weights(logp, mu, mask, level="sequence", cap=3.0) == 3).all()
    with pytest.raises(ValueError, match=r"a weight overflows torch\.float32"):
        importance_weights(logp, mu, mask, level="sequence")


def test_cap_equals_truncation_after():
    for level in LEVELS:
        raw = importance_weights(NEW, MU, MASK, level=level)
        capped = importance_weights(NEW, MU, MASK, level=level, cap=1.1)
        close(capped, truncate_weights(raw, cap=1.1))
        assert (raw > 1.1).any()


def test_cap_and_band_worked_by_hand():
    weights = f64(0.5, 0.8, 1.0, 2.0, 3.0, math.inf)
    close(truncate_weights(weights, cap=2.0), f64(0.5, 0.8, 1, 2, 2, 2))
    close(mask_weights(weights, low=0.8, high=2.0), f64(0, 0.8, 1, 2, 0, 0))
    close(mask_weights(weights, low=2.0, high=2.0), f64(0, 0, 0, 2, 0, 0))
    assert not truncate_weights(weights.requires_grad_(), cap=1.0).requires_grad


def test_effective_sample_size():
    """Equal weights: N. One weight: 1. Weights 2, 1: 9/5. The scale does not matter."""
    close(effective_sample_size(torch.full((7,), 0.3)), torch.tensor(7.0))
    close(effective_sample_size(f64(0.0, 4.0, 0.0)), f64(1.0)[0])
    close(effective_sample_size(f64(2.0, 1.0)), f64(1.8)[0])
    close(effective_sample_size(torch.tensor([2e38, 1e38])), torch.tensor(1.8))
    close(effective_sample_size(torch.tensor([2e-40, 1e-40])), torch.tensor(1.8), atol=1e-4)


# ---------------------------------------------------------------- losses


def test_cispo_gradient_is_the_truncated_ratio_times_the_advantage():
    for agg, share in (("token-mean", 1 / 9), ("seq-mean-token-sum", 1 / 3)):
        found = gradient(
            lambda x, agg=agg: cispo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.1, agg=agg), NEW
        )
        ratio = (NEW - OLD).exp().clamp(max=1.1)
        close(found, torch.where(MASK, -ratio * ADVANTAGES * share, 0.0))
        assert (ratio[MASK] == 1.1).any()


def test_cispo_at_the_old_policy_is_reinforce():
    cispo = gradient(
        lambda x: cispo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.0, agg="token-mean"), OLD
    )
    close(cispo, gradient(lambda x: reinforce_loss(x, ADVANTAGES, MASK, agg="token-mean"), OLD))


def test_cispo_survives_a_ratio_that_overflows():
    loss = cispo_loss(
        torch.tensor([[-1.0]]),
        torch.tensor([[-200.0]]),
        torch.tensor([2.0]),
        torch.ones(1, 1),
        clip_high=1.0,
        agg="token-mean",
    )
    assert loss == 4


def test_decoupled_equals_a_loop():
    loss = decoupled_ppo_loss(NEW, OLD, MU, ADVANTAGES, MASK, agg="token-mean", clip_high=0.1)
    total = 0.0
    for i, t in MASK.nonzero().tolist():
        rho, a = math.exp(NEW[i, t] - OLD[i, t]), ADVANTAGES[i, t].item()
        least = min(rho * a, min(max(rho, 0.8), 1.1) * a)
        total -= least * math.exp(OLD[i, t] - MU[i, t])
    assert loss.item() == pytest.approx(total / 9, rel=1e-12)


def test_the_clips_are_a_fifth_unless_given():
    """Ratio 2: -1.2 for an advantage of 1. Ratio 1/2: 0.8 for one of -1."""
    old, one = f64((-2.0,)), torch.ones(1, 1).double()
    for step, advantage, expected in ((2.0, one, -1.2), (0.5, -one, 0.8)):
        loss = decoupled_ppo_loss(old + math.log(step), old, old, advantage, one, agg="token-mean")
        assert loss.item() == pytest.approx(expected, rel=1e-14)


def test_decoupled_is_ppo_where_the_sampler_is_the_proximal_policy():
    ours = decoupled_ppo_loss(NEW, OLD, OLD, ADVANTAGES, MASK, agg="seq-mean-token-mean")
    close(ours, ppo_policy_loss(NEW, OLD, ADVANTAGES, MASK, agg="seq-mean-token-mean"))


def test_decoupled_without_a_clip_does_not_depend_on_the_proximal_policy():
    wide = {"agg": "token-mean", "clip_low": 0.99, "clip_high": 99.0}
    one = decoupled_ppo_loss(NEW, OLD, MU, ADVANTAGES, MASK, **wide)
    close(one, decoupled_ppo_loss(NEW, OLD - 0.3, MU, ADVANTAGES, MASK, **wide))


def test_decoupled_cap_limits_the_weight():
    found = decoupled_ppo_loss(NEW, OLD, MU, ADVANTAGES, MASK, agg="token-mean", cap=0.9)
    weights = truncate_weights(importance_weights(OLD, MU, MASK, level="token"), cap=0.9)
    close(found, ppo_policy_loss(NEW, OLD, ADVANTAGES * weights, MASK, agg="token-mean"))


def test_decoupled_gradient():
    leaf = NEW[:2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: decoupled_ppo_loss(
            x, OLD[:2, :3], MU[:2, :3], ADVANTAGES[:2, :3], MASK[:2, :3], agg="token-mean"
        ),
        (leaf,),
        fast_mode=True,
    )


# ---------------------------------------------------------------- errors


def test_what_is_refused():
    w = torch.ones(2)
    for match, call in (
        ("level must be one of", lambda: importance_weights(NEW, MU, MASK, level="text")),
        (r"cap must be in \(0, inf\)", lambda: truncate_weights(w, cap=0.0)),
        (r"cap must be in \(0, inf\)", lambda: truncate_weights(w, cap=math.inf)),
        (
            r"cap must be in \(0, inf\)",
            lambda: importance_weights(NEW, MU, MASK, level="token", cap=-1.0),
        ),
        (
            "rollout_logp must not require grad",
            lambda: importance_weights(NEW, MU.clone().requires_grad_(), MASK, level="token"),
        ),
        (
            "rollout_logp must be finite",
            lambda: importance_weights(NEW, MU / 0, MASK, level="token"),
        ),
        ("at most 0", lambda: importance_weights(-NEW, MU, MASK, level="token")),
        (
            "rows .* count no token",
            lambda: importance_weights(
                NEW, MU, MASK & False | (LENGTHS > 1)[:, None] & MASK, level="token"
            ),
        ),
        ("low must be at most high", lambda: mask_weights(w, low=2.0, high=1.0)),
        ("low must be at least 0", lambda: mask_weights(w, low=-1.0, high=1.0)),
        (r"high must be in \[0, inf\)", lambda: mask_weights(w, low=0.0, high=math.inf)),
        ("weights must be at least 0, got -1", lambda: truncate_weights(-w, cap=1.0)),
        (
            "weights must be at least 0, got -2",
            lambda: truncate_weights(f64(0.0, 0.5, -2.0), cap=1.0),
        ),
        ("weights must be at least 0, got nan", lambda: mask_weights(w * math.nan, low=0, high=1)),
        ("all weights are 0", lambda: effective_sample_size(0 * w)),
        ("all weights are 0", lambda: effective_sample_size(w[:0])),
        ("weights must be finite", lambda: effective_sample_size(w / 0)),
        (r"weights must be \(N,\)", lambda: effective_sample_size(w[None])),
        (
            r"clip_high must be in \[0, inf\)",
            lambda: cispo_loss(NEW, OLD, ADVANTAGES, MASK, clip_high=-0.1, agg="token-mean"),
        ),
        (
            "old_logp must not require grad",
            lambda: cispo_loss(
                NEW, OLD.clone().requires_grad_(), ADVANTAGES, MASK, clip_high=0.1, agg="token-mean"
            ),
        ),
        (
            "proximal_logp must not require grad",
            lambda: decoupled_ppo_loss(
                NEW, OLD.clone().requires_grad_(), MU, ADVANTAGES, MASK, agg="token-mean"
            ),
        ),
        (
            "rollout_logp must not require grad",
            lambda: decoupled_ppo_loss(
                NEW, OLD, MU.clone().requires_grad_(), ADVANTAGES, MASK, agg="token-mean"
            ),
        ),
        (
            "advantages must be",
            lambda: cispo_loss(NEW, OLD, ADVANTAGES[:2], MASK, clip_high=0.1, agg="token-mean"),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="weights must be floating point"):
        truncate_weights(torch.tensor([1, 2]), cap=1.0)


def test_no_weight_is_infinite_and_no_cap_beyond_the_dtype():
    far = torch.tensor([1.0, math.inf])
    assert mask_weights(far, low=0.5, high=1e39).tolist() == [1.0, 0.0]
    largest = torch.finfo(torch.float32).max
    assert truncate_weights(far, cap=largest).tolist() == [1.0, largest]
    with pytest.raises(ValueError, match="cap must be finite in torch.float32, got 1e\\+39"):
        truncate_weights(far, cap=1e39)
    logp = -torch.ones(1, 2)
    with pytest.raises(ValueError, match="cap must be finite in torch.float32"):
        cispo_loss(logp, logp, far[:1], torch.ones(1, 2).bool(), clip_high=1e300, agg="token-mean")


def test_the_effective_sample_size_of_sixteen_bits_is_counted_in_thirty_two():
    assert effective_sample_size(torch.ones(70_000, dtype=torch.float16)).item() == 70_000
    assert effective_sample_size(torch.ones(259, dtype=torch.bfloat16)).item() == 259
