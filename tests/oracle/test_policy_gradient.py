"""Advantages and baselines against verl, OpenRLHF and torchtune."""

import ast
import importlib.util
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from llmref.rl.policy_gradient import (
    discounted_returns,
    gae,
    masked_whiten,
    mean_baseline_advantages,
    reinforce_loss,
    rloo_advantages,
)

TOPIC = "rl/policy_gradient"
LENGTHS = torch.tensor([7, 4, 1])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (3, 7)
GAPS = torch.tensor([[1, 1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1]]).bool()
REWARDS, VALUES = torch.randn(
    2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)
GROUPS = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def on(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, x, 0.0)


@pytest.fixture(scope="module")
def openrlhf() -> SimpleNamespace:
    """Two methods of its experience maker, whose module needs a cluster to be imported."""
    root = importlib.util.find_spec("openrlhf").submodule_search_locations[0]
    source = (Path(root) / "trainer" / "ppo_utils" / "experience_maker.py").read_text()
    wanted = ("get_advantages_and_returns", "get_cumulative_returns")
    found: dict[str, Callable] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in wanted:
            code = textwrap.dedent(ast.get_source_segment(source, node, padded=True))
            namespace = {"torch": torch, "Tuple": tuple, "List": list}
            exec(code, namespace)
            found[node.name] = namespace[node.name]
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def torchtune(torchtune_imports) -> ModuleType:
    from torchtune.rlhf import rewards

    return rewards


# ---------------------------------------------------------------- GAE


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.9, 0.0)])
@pytest.mark.parametrize("mask", [MASK, GAPS])
def test_gae_equals_verls(agreement, verl, mask, gamma, lam):
    """Its padding holds a value in the returns; its advantages come whitened."""
    theirs, returns = verl.compute_gae_advantage_return(REWARDS, VALUES, mask.double(), gamma, lam)
    ours, ours_returns = gae(REWARDS, VALUES, mask, gamma=gamma, lam=lam)
    convention = "default lam 1; skips what the mask leaves out, as here"
    agreement(
        "GAE, the critic's target",
        "verl",
        ours_returns,
        on(mask, returns),
        atol=1e-12,
        convention=convention + "; returns outside the mask are not 0",
    )
    agreement(
        "GAE, whitened",
        "verl",
        masked_whiten(ours, mask, eps=1e-8),
        on(mask, theirs),
        atol=1e-7,  # verl adds 1e-8 to the number of tokens
        convention="whitens inside the function, after the returns were taken: n - 1, eps 1e-8",
    )


def test_verls_padding_holds_values_where_ours_is_zero(verl):
    _, returns = verl.compute_gae_advantage_return(REWARDS, VALUES, MASK.double(), 1.0, 0.95)
    assert (returns[~MASK] != 0).all()
    assert (gae(REWARDS, VALUES, MASK)[1][~MASK] == 0).all()


def test_gae_equals_openrlhfs_on_right_padding(agreement, openrlhf):
    theirs = openrlhf.get_advantages_and_returns(None, VALUES, REWARDS, MASK, 0.9, 0.7)
    ours = gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.7)
    for name, a, b in zip(("advantages", "critic's target"), ours, theirs, strict=True):
        agreement(
            f"GAE, {name}",
            "openrlhf",
            a,
            on(MASK, b),
            atol=1e-12,
            convention="values and rewards are multiplied by the mask; right padding",
        )


def test_openrlhf_discounts_across_a_gap_and_takes_its_value_for_zero(openrlhf):
    theirs, _ = openrlhf.get_advantages_and_returns(None, VALUES, REWARDS, GAPS, 1.0, 0.95)
    ours, _ = gae(REWARDS, VALUES, GAPS)
    assert (theirs - ours)[0, 1].abs() > 0.01
    torch.testing.assert_close(theirs[2, 2:], ours[2, 2:], atol=1e-12, rtol=0)


def test_discounted_returns_equal_openrlhfs(agreement, openrlhf):
    theirs = openrlhf.get_cumulative_returns(None, REWARDS, MASK, 0.9)
    agreement(
        "discounted returns",
        "openrlhf",
        discounted_returns(REWARDS, MASK, gamma=0.9),
        on(MASK, theirs),
        atol=1e-12,
        convention="right padding; discounts across a gap in the mask, ours does not",
    )


def test_gae_equals_torchtunes(agreement, torchtune):
    """It bootstraps from the value on the padding, which therefore must be 0."""
    values, rewards = on(MASK, VALUES), on(MASK, REWARDS)
    theirs, returns = torchtune.estimate_advantages(values, rewards, 0.9, 0.7, masks=MASK)
    ours, ours_returns = gae(rewards, values, MASK, gamma=0.9, lam=0.7)
    agreement(
        "GAE, the critic's target",
        "torchtune",
        ours_returns,
        on(MASK, returns),
        atol=1e-12,
        convention="rewards and values must be 0 on padding beforehand",
    )
    agreement(
        "GAE, divided by its spread but not centred",
        "torchtune",
        masked_whiten(ours, MASK, center=False, eps=1e-8),
        theirs,
        atol=1e-7,  # torchtune adds 1e-8 to the number of tokens
        convention="its whiten(shift_mean=True) adds the mean back",
    )


def test_torchtunes_value_on_padding_leaks_into_the_last_token(torchtune):
    _, theirs = torchtune.estimate_advantages(VALUES, REWARDS, 1.0, 0.95, masks=MASK)
    _, ours = gae(REWARDS, VALUES, MASK)
    assert (theirs - ours)[1, 3].abs() > 0.01


# ---------------------------------------------------------------- groups and whitening


def test_leave_one_out_equals_verls(agreement, verl):
    tokens = torch.zeros(12, 5, dtype=torch.float64)
    tokens[:, 4] = GROUPS.flatten()
    mask = torch.ones(12, 5, dtype=torch.float64)
    prompts = torch.arange(3).repeat_interleave(4).numpy()
    theirs, _ = verl.compute_rloo_outcome_advantage(tokens, mask, prompts)
    agreement(
        "leave-one-out advantages",
        "verl",
        rloo_advantages(GROUPS).flatten(),
        theirs[:, 0],
        atol=1e-12,
        convention="rloo; a group of one keeps its raw reward, ours raises",
    )


def test_group_mean_advantages_equal_verls_without_its_division(agreement, verl):
    tokens = GROUPS.reshape(12, 1)
    prompts = torch.arange(3).repeat_interleave(4).numpy()
    theirs, _ = verl.compute_grpo_outcome_advantage(
        tokens, torch.ones_like(tokens), prompts, norm_adv_by_std_in_grpo=False
    )
    agreement(
        "advantages over the group mean",
        "verl",
        mean_baseline_advantages(GROUPS).flatten(),
        theirs[:, 0],
        atol=1e-12,
        convention="grpo with norm_adv_by_std_in_grpo=False",
    )


def test_whitening_equals_verls(agreement, verl):
    from verl.utils.torch_functional import masked_whiten as theirs

    for center in (True, False):
        agreement(
            "whitening",
            "verl",
            masked_whiten(REWARDS, MASK, center=center, eps=1e-8),
            on(MASK, theirs(REWARDS, MASK.double(), shift_mean=center)),
            atol=1e-7,  # verl adds 1e-8 to the number of tokens
            convention="shift_mean=True centres, as center=True does; padding is not 0",
        )


@pytest.mark.parametrize("center", [True, False])
def test_whitening_equals_torchtunes_with_the_opposite_flag(agreement, torchtune, center):
    agreement(
        "whitening",
        "torchtune",
        masked_whiten(REWARDS, MASK, center=center, eps=1e-8),
        on(MASK, torchtune.whiten(REWARDS, MASK, shift_mean=not center)),
        atol=1e-7,  # torchtune adds 1e-8 to the number of tokens
        convention="shift_mean=True is center=False",
    )


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_the_loss_equals_verls(agreement, verl, mode):
    generator = torch.Generator().manual_seed(2)
    logp = torch.randn(3, 7, 5, dtype=torch.float64, generator=generator).log_softmax(-1)[..., 0]
    leaf = logp.clone().requires_grad_()
    ours = reinforce_loss(leaf, REWARDS, MASK, agg=mode)
    (ours_gradient,) = torch.autograd.grad(ours, leaf)
    theirs = verl.agg_loss(-REWARDS * leaf, MASK.double(), mode)
    (theirs_gradient,) = torch.autograd.grad(theirs, leaf)
    for a, b in ((ours, theirs), (ours_gradient, theirs_gradient)):
        agreement(
            "policy-gradient loss, value and gradient",
            "verl",
            a,
            b,
            atol=1e-7,  # verl adds 1e-8 to the lengths
            convention="agg_loss of -A log pi, its default token-mean; three loss_agg_modes",
        )
