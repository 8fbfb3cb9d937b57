"""GRPO: advantages of a group, the loss, its presets, and what each normaliser changes."""

import itertools
import math
from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.rl.grpo import (
    binary_group_weight,
    dapo_loss,
    dr_grpo_loss,
    group_advantages,
    grpo_loss,
)
from llmref.rl.kl import kl_loss
from llmref.rl.policy_gradient import rloo_advantages
from llmref.rl.ppo import ppo_policy_loss
from tests.tensors import gradient

LENGTHS = torch.tensor([5, 3, 1])
MASK = torch.arange(5) < LENGTHS.unsqueeze(1)  # (3, 5)
RAW = {"eps": 0.0}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, 5, 4, dtype=torch.float64, generator=generator)
    advantages = torch.randn(3, dtype=torch.float64, generator=generator)
    return *logits.log_softmax(-1)[..., 0], advantages


# ---------------------------------------------------------------- advantages


def test_advantages_worked_by_hand():
    """(1, 0, 0, 1): mean 1/2, spread 1/2 with ddof 0, 1/sqrt 3 with ddof 1."""
    rewards = f64([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 6.0]])
    expected = f64([[1.0, -1.0, -1.0, 1.0], [-1 / 3**0.5] * 3 + [3**0.5]])
    torch.testing.assert_close(group_advantages(rewards, ddof=0, **RAW), expected)
    torch.testing.assert_close(group_advantages(rewards, **RAW), expected * 0.75**0.5)


def test_eps_is_added_to_the_spread():
    """Spread 1/2 + 0.1: 0.5 / 0.6."""
    rewards = f64([[1.0, 0.0]])
    torch.testing.assert_close(group_advantages(rewards, ddof=0, eps=0.1), f64([[5 / 6, -5 / 6]]))


def test_advantages_equal_a_loop_over_groups():
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    for row, out in zip(
        rewards.tolist(), group_advantages(rewards, eps=1e-4).tolist(), strict=True
    ):
        mean = sum(row) / 5
        std = math.sqrt(sum((r - mean) ** 2 for r in row) / 4)
        assert out == pytest.approx([(r - mean) / (std + 1e-4) for r in row], abs=1e-12)


def test_batch_scale_divides_by_the_spread_of_the_centred_rewards():
    """[[0, 1], [10, 11]] is centred to +-1/2 everywhere: variance 1/3 with ddof 1."""
    rewards = f64([[0.0, 1.0], [10.0, 11.0]])
    expected = f64([[-0.5, 0.5]] * 2) * 3**0.5
    torch.testing.assert_close(group_advantages(rewards, scale="batch", **RAW), expected)


def test_scale_none_only_centres():
    rewards = f64([[1.0, 2.0, 6.0]])
    torch.testing.assert_close(group_advantages(rewards, scale="none"), f64([[-2.0, -1.0, 3.0]]))
    half = group_advantages(rewards, scale="none") * 3 / 2
    torch.testing.assert_close(half, rloo_advantages(rewards))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eps", [0.0, 1e-9, 1e-4])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_get_exactly_zero(dtype, eps, scale):
    for constant, group in itertools.product((0.1, 1.0, 100.1, 0.0, -3.3), (2, 3, 7, 49)):
        rewards = torch.full((2, group), constant, dtype=dtype)
        given = None if scale == "none" else eps
        out = group_advantages(rewards, scale=scale, eps=given)
        assert out.dtype == dtype
        assert (out == 0).all()


def test_sums_that_differ_by_rounding_are_equal():
    """0.1 + 0.2 and 0.3 differ by an ulp; 1e-4 of relative difference is a difference."""
    rewards = f64([[0.1 + 0.2, 0.3, 0.3], [1.0, 1.0001, 1.0]])
    out = group_advantages(rewards, **RAW)
    assert (out[0] == 0).all()
    torch.testing.assert_close(out[1], f64([-1.0, 2.0, -1.0]) / 3**0.5, atol=1e-9, rtol=0)


def test_equal_rewards_that_floats_represent_are_safe_without_the_test_for_ties():
    """Sums and means of equal small integers and halves are exact."""
    for constant, group in itertools.product((1.0, 0.0, -1.0, 5.0, 0.5), range(2, 257)):
        rewards = torch.full((1, group), constant)
        assert (rewards - rewards.mean() == 0).all()


def test_a_common_epsilon_amplifies_rounding_without_the_test_for_ties():
    """Why ties are looked for: the mean of equal float32 numbers may miss them by an ulp."""
    worst = {}
    for eps in (1e-4, 1e-9):
        rows = [torch.full((1, group), 0.1) for group in range(2, 65)]
        naive = [(r - r.mean()) / (r.std() + eps) for r in rows]
        worst[eps] = max(x.abs().max().item() for x in naive)
        assert all((group_advantages(r, eps=eps) == 0).all() for r in rows)
    assert worst[1e-9] > 0.5
    assert worst[1e-4] < 1e-3


def test_ties_are_relative_to_the_size_of_the_rewards():
    """Rounding of 1000.1 is 1e-5 in float32, more than rewards of 1e-12 differ by."""
    rounded = torch.tensor([[1000.1, 1000.1 + 6e-5, 1000.1]])
    assert rounded[0, 0] != rounded[0, 1]
    assert (group_advantages(rounded, **RAW) == 0).all()
    small = torch.tensor([[1e-12, 2e-12]])
    torch.testing.assert_close(group_advantages(small, ddof=0, **RAW), torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_end_at_eight_units_of_rounding(dtype):
    """Of the largest reward of the same group, here 1, whatever the other groups hold."""
    eps = torch.finfo(dtype).eps
    rewards = torch.tensor([[1 - 8 * eps, 1.0], [1 - 8.5 * eps, 1.0], [1000, 2000]], dtype=dtype)
    out = group_advantages(rewards, ddof=0, **RAW)
    assert out.tolist() == [[0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0]]


@pytest.mark.parametrize("scale", ["group", "batch"])
@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (torch.float32, 1e38),
        (torch.float32, 1e-38),
        (torch.float64, 1e200),
        (torch.float64, 1e-200),
    ],
)
def test_huge_and_tiny_rewards_have_the_advantages_of_their_multiples(dtype, unit, scale):
    """Squares of 1e200 overflow and those of 1e-200 vanish: neither may show."""
    rewards = f64([[0.0, 3.0, 3.0], [1.0, 2.0, 0.0]])
    out = group_advantages((rewards * unit).to(dtype), scale=scale, **RAW)
    expected = group_advantages(rewards, scale=scale, **RAW).to(dtype)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (f64([[1.7e308, -1.7e308, -1.7e308]]), "^an advantage overflows torch.float64"),
        (
            torch.tensor([[6e4, -6e4, -6e4]]).half(),
            "^advantages overflow torch.float16: rewards reach 6",
        ),
    ],
)
def test_advantages_that_overflow_are_refused(rewards, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, scale="none")


def test_advantages_that_fit_are_right_where_the_sum_of_the_rewards_does_not():
    """(0, 1e308, 1.7e308) add up to infinity; their mean is 0.9e308."""
    out = group_advantages(f64([[0.0, 1e308, 1.7e308]]), scale="none")
    torch.testing.assert_close(out, f64([[-0.9e308, 0.1e308, 0.8e308]]))


def test_groups_do_not_mix():
    """Changing one group leaves the others, and a group runs along the last axis."""
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    changed = rewards.clone()
    changed[1] = 7 * changed[1] ** 2
    a, b = group_advantages(rewards, eps=1e-4), group_advantages(changed, eps=1e-4)
    assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(a[1], b[1])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=9),
    st.floats(0.01, 100),
    st.floats(-10, 10),
    st.sampled_from([0, 1]),
)
def test_advantages_are_centred_bounded_and_invariant(rewards, a, b, ddof):
    rewards = f64([rewards])
    out = group_advantages(rewards, ddof=ddof, **RAW)
    moved = group_advantages(a * rewards + b, ddof=ddof, **RAW)
    torch.testing.assert_close(out.sum(), f64(0.0), atol=1e-9, rtol=0)
    torch.testing.assert_close(moved, out, atol=1e-6, rtol=0)
    group = rewards.shape[1]
    limit = math.sqrt(group - 1) * (1 if ddof == 0 else math.sqrt((group - 1) / group))
    assert out.abs().max() <= limit + 1e-9


@pytest.mark.parametrize("group", [2, 3, 8, 16])
def test_one_outlier_reaches_the_bound(group):
    rewards = torch.zeros(1, group, dtype=torch.float64)
    rewards[0, 0] = 1.0
    assert group_advantages(rewards, ddof=0, **RAW)[0, 0] == pytest.approx(math.sqrt(group - 1))
    assert group_advantages(rewards, **RAW)[0, 0] == pytest.approx((group - 1) / math.sqrt(group))


def test_advantages_in_float32_and_bfloat16():
    rewards = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for dtype, atol in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        rounded = rewards.to(dtype)
        out = group_advantages(rounded, eps=1e-4)
        assert out.dtype == dtype
        expected = group_advantages(rounded.double(), eps=1e-4)
        torch.testing.assert_close(out.double(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("rewards", "options", "error", "match"),
    [
        (f64([[1.0, math.nan]]), {}, ValueError, "rewards must be finite"),
        (f64([[1.0, math.inf]]), {}, ValueError, "rewards must be finite"),
        (f64([1.0, 2.0]), {}, ValueError, r"rewards must be \(B, G\)"),
        (f64([[1.0], [2.0]]), {}, ValueError, "a group of one has no spread"),
        (f64([[1.0], [2.0]]), {"scale": "batch"}, ValueError, "a group of one has no spread"),
        (torch.zeros(2, 0), {"scale": "none", "eps": None}, ValueError, "G >= 1"),
        (f64([[1.0, 2.0]]), {"scale": "std"}, ValueError, "scale must be one of"),
        (f64([[1.0, 2.0]]), {"ddof": 2}, ValueError, "ddof must be one of"),
        (f64([[1.0, 2.0]]), {"eps": -1.0}, ValueError, "eps must be at least 0"),
        (f64([[1.0, 2.0]]), {"eps": math.nan}, ValueError, "eps must be at least 0"),
        (f64([[1.0, 2.0]]), {"eps": None}, ValueError, "scale='group' needs eps, such as 1e-4"),
        (
            f64([[1.0, 2.0]]),
            {"scale": "none"},
            ValueError,
            "scale='none' divides by nothing and takes no eps",
        ),
        (f64([[1.0, 2.0]]).requires_grad_(), {}, ValueError, "rewards must not require grad"),
        (torch.ones(2, 3, dtype=torch.long), {}, TypeError, "rewards must be floating point"),
    ],
)
def test_wrong_rewards_are_named(rewards, options, error, match):
    with pytest.raises(error, match=match):
        group_advantages(rewards, **({"eps": 1e-4} | options))


def test_a_group_of_one_without_scale_gives_zero():
    assert torch.equal(group_advantages(f64([[3.0], [4.0]]), scale="none"), f64([[0.0], [0.0]]))


# ---------------------------------------------------------------- the loss


def slow_grpo(logp, old, ref, advantages, mask, *, beta, low=0.2, high=0.2):
    """The definition, a loop: each response's mean over its tokens, then the mean of them."""
    rows = []
    for i in range(len(logp)):
        tokens = []
        for t in range(logp.shape[1]):
            if not mask[i, t]:
                continue
            ratio = math.exp(logp[i, t] - old[i, t])
            clipped = min(max(ratio, 1 - low), 1 + high)
            surrogate = min(ratio * advantages[i].item(), clipped * advantages[i].item())
            r = (ref[i, t] - logp[i, t]).item()
            tokens.append(-surrogate + beta * (math.exp(r) - 1 - r))
        rows.append(sum(tokens) / len(tokens))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("beta", [0.0, 0.04, 2.0])
def test_loss_equals_the_definition(beta):
    logp, old, ref, advantages = random_batch()
    loss = grpo_loss(
        logp, old, advantages, MASK, ref_logp=ref, beta=beta, agg="seq-mean-token-mean"
    )
    expected = slow_grpo(logp, old, ref, advantages, MASK, beta=beta)
    torch.testing.assert_close(loss, f64(expected), atol=1e-12, rtol=0)


def test_loss_worked_by_hand():
    """Ratios 2, 1 with A = 1 and 1/2 with A = -1, clip 0.2: -(1.2 + 1)/2 and 0.8, mean -0.15."""
    old = torch.full((2, 2), 0.25, dtype=torch.float64).log()
    logp = old + f64([[2.0, 1.0], [0.5, 1.0]]).log()
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = grpo_loss(logp, old, f64([1.0, -1.0]), mask, agg="seq-mean-token-mean")
    torch.testing.assert_close(loss, f64(-0.15))


@pytest.mark.parametrize(
    ("kl_kind", "kl_ratio"),
    [
        ("k1", "attached"),
        ("k2", "none"),
        ("k2", "detached"),
        ("k3", "none"),
        ("k3", "attached"),
        ("k3", "detached"),
    ],
)
@pytest.mark.parametrize("scope", ["token", "prefix"])
@pytest.mark.parametrize("agg", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_loss_is_the_clipped_loss_plus_beta_times_the_kl(kl_kind, kl_ratio, scope, agg):
    logp, old, ref, advantages = random_batch(4)
    kl = {"kl_kind": kl_kind, "kl_ratio": kl_ratio, "ratio_scope": scope}

    def whole(x):
        return grpo_loss(x, old, advantages, MASK, ref_logp=ref, beta=0.3, agg=agg, **kl)

    def parts(x):
        options = {"kind": kl_kind, "ratio": kl_ratio, "ratio_scope": scope, "agg": agg}
        old_logp = None if kl_ratio == "none" else old
        penalty = kl_loss(x, ref, MASK, old_logp=old_logp, **options)
        return ppo_policy_loss(x, old, advantages, MASK, agg=agg) + 0.3 * penalty

    torch.testing.assert_close(whole(logp), parts(logp), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient(whole, logp), gradient(parts, logp), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"kl_kind": "k4"}, {"kl_ratio": "zz"}, {"ratio_scope": "row"}], ids=repr
)
def test_options_of_a_penalty_that_is_not_computed_are_checked_by_their_names(wrong):
    logp, old, ref, advantages = random_batch(5)
    ((name, value),) = wrong.items()
    for shared in ({}, {"ref_logp": ref}, {"ref_logp": ref, "beta": 0.1}):
        with pytest.raises(ValueError, match=f"^{name} must be one of .*, got {value!r}"):
            grpo_loss(logp, old, advantages, MASK, agg="token-mean", **shared, **wrong)


def test_the_kl_ratio_is_of_the_token_by_default():
    logp, old, ref, advantages = random_batch(5)
    shared = {"agg": "token-mean", "ref_logp": ref, "beta": 1.0, "kl_ratio": "attached"}
    default = grpo_loss(logp, old, advantages, MASK, **shared)
    token = grpo_loss(logp, old, advantages, MASK, ratio_scope="token", **shared)
    prefix = grpo_loss(logp, old, advantages, MASK, ratio_scope="prefix", **shared)
    assert default == token
    assert (default - prefix).abs() > 1e-3


def test_presets_name_their_normalisers():
    logp, old, _, advantages = random_batch(6)
    dr = dr_grpo_loss(logp, old, advantages, MASK, norm=5.0)
    dapo = dapo_loss(logp, old, advantages, MASK)
    constant = grpo_loss(logp, old, advantages, MASK, agg="constant", norm=5.0)
    tokens = grpo_loss(logp, old, advantages, MASK, agg="token-mean", clip_high=0.28)
    torch.testing.assert_close(dr, constant)
    torch.testing.assert_close(dapo, tokens)
    by_hand = grpo_loss(logp, old, advantages, MASK, agg="token-mean") * LENGTHS.sum() / 15
    torch.testing.assert_close(dr, by_hand)


def test_clips_of_the_presets_reach_the_surrogate():
    """Ratio 4: 1.3 with clip_high 0.3; ratio 1/4 and A = -1: -0.9 with clip_low 0.1."""
    old = torch.full((1, 1), 0.125, dtype=torch.float64).log()
    one = torch.ones(1, 1, dtype=torch.float64)
    clips = {"clip_low": 0.1, "clip_high": 0.3}
    grpo = partial(grpo_loss, agg="token-mean")
    for loss in (grpo, dapo_loss, lambda *a, **k: dr_grpo_loss(*a, norm=1.0, **k)):
        up = loss(old + math.log(4), old, one, one, **clips)
        down = loss(old - math.log(4), old, -one, one, **clips)
        torch.testing.assert_close(torch.stack([up, down]), f64([-1.3, 0.9]))
    dual = grpo_loss(old + math.log(4), old, -one, one, dual_clip=3.0, agg="seq-mean-token-mean")
    torch.testing.assert_close(dual, f64(3.0))


def test_onpolicy_loss_is_zero_and_its_gradient_is_not():
    """A sums to 0, each response has weight 1/N; over tokens, lengths 2 and 8 give 0.6."""
    generator = torch.Generator().manual_seed(7)
    logp = -torch.rand(2, 8, dtype=torch.float64, generator=generator)
    mask = torch.arange(8) < torch.tensor([[2], [8]])
    advantages = f64([1.0, -1.0])
    torch.testing.assert_close(
        grpo_loss(logp, logp, advantages, mask, agg="seq-mean-token-mean"), f64(0.0)
    )
    token_mean = grpo_loss(logp, logp, advantages, mask, agg="token-mean")
    torch.testing.assert_close(token_mean, f64(0.6))
    grads = gradient(
        lambda x: grpo_loss(x, logp, advantages, mask, agg="seq-mean-token-mean"), logp
    )
    expected = torch.where(mask, -advantages.unsqueeze(1) / (2 * f64([[2.0], [8.0]])), 0.0)
    torch.testing.assert_close(grads, expected)


def test_gradcheck():
    logp, old, ref, advantages = random_batch(8)
    shared = {"agg": "token-mean", "ref_logp": ref, "beta": 0.5, "dual_clip": 3.0}
    for kl_ratio in ("none", "attached"):
        leaf = logp.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, k=kl_ratio: grpo_loss(x, old, advantages, MASK, kl_ratio=k, **shared),
            leaf,
        )


def test_padding_changes_nothing():
    logp, old, ref, advantages = random_batch(9)
    losses, grads = [], []
    for pad in (0.0, -math.inf, math.nan):
        padded = [torch.where(MASK, x, pad) for x in (logp, old, ref)]

        def loss(x, rest=padded[1:]):
            return grpo_loss(
                x, rest[0], advantages, MASK, ref_logp=rest[1], beta=0.5, agg="seq-mean-token-mean"
            )

        losses.append(loss(padded[0]))
        grads.append(gradient(loss, padded[0]))
    assert all(torch.equal(x, losses[0]) for x in losses)
    assert all(torch.equal(x, grads[0]) for x in grads)
    assert (grads[0][~MASK] == 0).all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_loss_in_lower_precision(dtype, atol):
    rounded = [x.to(dtype) for x in random_batch(10)]
    logp, old, ref, advantages = rounded
    loss = grpo_loss(logp, old, advantages, MASK, ref_logp=ref, beta=0.5, agg="seq-mean-token-mean")
    wide = [x.double() for x in rounded]
    expected = grpo_loss(
        wide[0], wide[1], wide[3], MASK, ref_logp=wide[2], beta=0.5, agg="seq-mean-token-mean"
    )
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, atol=atol, rtol=0)


def _frozen(name):
    def change(batch):
        batch[name] = batch[name].clone().requires_grad_()

    return change


def _at(name, value):
    def change(batch):
        batch[name] = batch[name].clone()
        batch[name][0, 0] = value

    return change


def _set(**values):
    return lambda batch: batch.update(values)


def _empty_row(batch):
    batch["mask"] = MASK.clone()
    batch["mask"][1] = False


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (_frozen("old_logp"), ValueError, "old_logp must not require grad"),
        (_frozen("ref_logp"), ValueError, "ref_logp must not require grad"),
        (_frozen("advantages"), ValueError, "advantages must not require grad"),
        (_at("logp", 0.5), ValueError, "logp holds log-probabilities"),
        (_at("old_logp", 0.5), ValueError, "old_logp holds log-probabilities"),
        (_at("ref_logp", 0.5), ValueError, "ref_logp holds log-probabilities"),
        (_at("logp", math.nan), ValueError, "logp must be finite where"),
        (_at("ref_logp", -math.inf), ValueError, "ref_logp must be finite where"),
        (_empty_row, ValueError, r"rows \[1\] count no token"),
        (_set(beta=-0.1), ValueError, "beta must be at least 0"),
        (_set(beta=math.inf), ValueError, "beta must be at least 0"),
        (_set(ref_logp=None), ValueError, "beta = 0.5 needs ref_logp"),
        (_set(ref_logp=torch.zeros(3, 4)), ValueError, "ref_logp"),
        (_set(advantages=f64([1.0, 2.0])), ValueError, "advantages"),
        (_set(advantages=f64([1.0, math.nan, 0.0])), ValueError, "advantages must be finite"),
        (_set(advantages=torch.ones(3, dtype=torch.long)), TypeError, "advantages must be float"),
        (_set(agg="mean"), ValueError, "agg must be one of"),
        (_set(agg="constant"), ValueError, "agg 'constant' needs norm"),
        (_set(clip_low=1.5), ValueError, "clip_low must be in"),
        (_set(clip_high=-0.1), ValueError, "clip_high must be at least 0"),
        (_set(dual_clip=1.1), ValueError, "dual_clip must exceed"),
        (_set(kl_kind="k1"), ValueError, r"^kl_kind='k1' with kl_ratio='none': .* on-policy"),
        (
            _set(kl_kind="k2", kl_ratio="attached"),
            ValueError,
            r"^kl_kind='k2' with kl_ratio='attached' follows no KL",
        ),
        (_set(kl_ratio="on"), ValueError, "^kl_ratio must be one of"),
        (_set(kl_ratio="attached", ratio_scope="all"), ValueError, "ratio_scope must be one of"),
        (_set(mask=MASK * 0.5), ValueError, "zeros and ones only"),
    ],
)
def test_wrong_input_is_named(change, error, match):
    logp, old, ref, advantages = random_batch(11)
    batch = {"logp": logp, "old_logp": old, "advantages": advantages, "mask": MASK}
    batch |= {"ref_logp": ref, "beta": 0.5, "agg": "token-mean"}
    change(batch)
    with pytest.raises(error, match=match):
        grpo_loss(**batch)


def test_a_reference_with_a_graph_is_refused_also_for_beta_zero():
    logp, old, ref, advantages = random_batch(12)
    with pytest.raises(ValueError, match="ref_logp must not require grad"):
        grpo_loss(
            logp, old, advantages, MASK, ref_logp=ref.requires_grad_(), agg="seq-mean-token-mean"
        )


# ---------------------------------------------------------------- the weight of a prompt


def test_weight_of_two_is_one():
    """One of the two with probability 2p(1-p), spread 1/2: E s = p(1-p)."""
    p = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(binary_group_weight(p, 2), torch.ones_like(p))


@pytest.mark.parametrize("group", [2, 3, 5, 8])
def test_weight_equals_the_sum_over_all_groups(group):
    for p in (0.02, 0.3, 0.5, 0.99):
        expected = 0.0
        for rewards in itertools.product((0, 1), repeat=group):
            mean = sum(rewards) / group
            chance = math.prod(p if r else 1 - p for r in rewards)
            expected += chance * math.sqrt(mean * (1 - mean))
        weight = binary_group_weight(f64([p]), group).item()
        assert weight == pytest.approx(expected / (p * (1 - p)), rel=1e-12)


def test_weight_at_the_ends_is_the_limit():
    p = f64([0.0, 1e-12, 1 - 1e-12, 1.0])
    for group in (2, 3, 64):
        expected = torch.full_like(p, math.sqrt(group - 1))
        torch.testing.assert_close(binary_group_weight(p, group), expected, atol=1e-7, rtol=0)


def test_weight_of_a_large_group_is_the_inverse_spread():
    p = f64([0.1, 0.5, 0.8])
    torch.testing.assert_close(
        binary_group_weight(p, 4096), (p * (1 - p)).rsqrt(), atol=3e-3, rtol=0
    )  # the next order is 1 / (8 G p (1 - p)) of it


def test_weight_of_a_large_group_in_float32():
    """log-gamma of 1e5 is about 1e6: in float32 its rounding alone would be 6 %."""
    weight = binary_group_weight(torch.tensor([0.02]), 100_000)
    torch.testing.assert_close(weight, torch.tensor([(0.02 * 0.98) ** -0.5]), atol=1e-3, rtol=0)


def test_weight_in_lower_precision_and_other_shapes():
    p = torch.tensor([[0.1, 0.5, 0.9]])
    exact = binary_group_weight(p.double(), 8)
    assert exact.shape == (1, 3)
    torch.testing.assert_close(binary_group_weight(p, 8).double(), exact, atol=1e-5, rtol=0)
    assert binary_group_weight(p.bfloat16(), 8).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("p", "group", "error", "match"),
    [
        (f64([1.2]), 4, ValueError, "p must be in"),
        (f64([-0.2]), 4, ValueError, "p must be in"),
        (f64([math.nan]), 4, ValueError, "p must be in"),
        (f64([0.5]), 1, ValueError, "G must be at least 2, got 1"),
        (f64([0.5]).requires_grad_(), 4, ValueError, "p must not require grad"),
        (torch.ones(2, dtype=torch.long), 4, TypeError, "p must be floating point"),
    ],
)
def test_wrong_success_rates_are_named(p, group, error, match):
    with pytest.raises(error, match=match):
        binary_group_weight(p, group)


# ---------------------------------------------------------------- what the normalisers do


def expected_step(p, scores, lengths, rewards, group, **options):
    """The exact mean of -grad loss for a bandit whose arms have a length, over all groups."""
    arms = len(p)
    total = torch.zeros(arms, dtype=torch.float64)
    longest = int(max(lengths))
    for picks in itertools.product(range(arms), repeat=group):
        index = torch.tensor(picks)
        advantages = group_advantages(
            rewards[index][None],
            scale=options["scale"],
            ddof=0,
            eps=None if options["scale"] == "none" else 0.0,
        )[0]
        # One token carries the score of the whole response, the others have probability 1.
        logp = torch.zeros(group, longest, dtype=torch.float64)
        logp[:, 0] = p[index].log()
        mask = torch.arange(longest) < lengths[index].unsqueeze(1)
        agg = {k: v for k, v in options.items() if k != "scale"}
        grads = gradient(
            lambda x, old=logp, a=advantages, m=mask, o=agg: grpo_loss(x, old, a, m, **o), logp
        )[:, 0]
        total -= p[index].prod() * (grads @ scores[index])
    return total


BANDIT = {
    "p": f64([0.5, 0.3, 0.2]),
    "scores": torch.eye(3, dtype=torch.float64) - f64([0.5, 0.3, 0.2]),
    "lengths": torch.tensor([1, 2, 3]),
}


def bandit_gradient(weights):
    """The gradient of the mean of `weights`, held fixed, in the logits."""
    p, scores = BANDIT["p"], BANDIT["scores"]
    return (p * weights) @ scores


@pytest.mark.parametrize("group", [2, 3])
def test_without_std_and_length_only_the_scale_is_lost(group):
    rewards = f64([1.0, -0.4, 0.7])
    step = expected_step(
        **BANDIT, rewards=rewards, group=group, scale="none", agg="constant", norm=3.0
    )
    expected = (group - 1) / group / 3 * bandit_gradient(rewards)
    torch.testing.assert_close(step, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("group", [2, 3])
def test_a_mean_over_each_response_rewards_brevity(group):
    rewards = f64([1.0, -0.4, 0.7])
    step = expected_step(
        **BANDIT, rewards=rewards, group=group, scale="none", agg="seq-mean-token-mean"
    )
    target = (rewards - BANDIT["p"] @ rewards) / BANDIT["lengths"]
    expected = (group - 1) / group * bandit_gradient(target)
    torch.testing.assert_close(step, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("group", [2, 3, 4])
def test_std_reweights_prompts_of_two_valued_rewards(group):
    rewards = f64([1.0, 0.0, 0.0])
    step = expected_step(
        **BANDIT, rewards=rewards, group=group, scale="group", agg="constant", norm=1.0
    )
    weight = binary_group_weight(f64(0.5), group)
    torch.testing.assert_close(step, weight * bandit_gradient(rewards), atol=1e-13, rtol=0)


def test_two_responses_only_compare():
    """Any rewards of one order give the same step: the gradient of P(win) - P(lose)."""
    steps = [
        expected_step(**BANDIT, rewards=f64(r), group=2, scale="group", agg="constant", norm=1.0)
        for r in ([1.0, -0.4, 0.7], [100.0, 0.0, 1.0])
    ]
    torch.testing.assert_close(steps[0], steps[1], atol=1e-13, rtol=0)
