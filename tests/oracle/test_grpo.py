"""GRPO's advantages and losses against TRL, verl and OpenRLHF."""

import ast
import importlib.util
import inspect
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from llmref.rl.grpo import dapo_loss, dr_grpo_loss, group_advantages, grpo_loss

from .trl_stub import trl_grpo_loss

TOPIC = "rl/grpo"
LENGTHS = torch.tensor([7, 4, 1])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (3, 7)
GENERATOR = torch.Generator().manual_seed(1)
LOGP, OLD, REF = torch.randn(3, 3, 7, 5, dtype=torch.float64, generator=GENERATOR).log_softmax(-1)[
    ..., 0
]
ADVANTAGES = torch.tensor([1.1, -0.8, 0.3], dtype=torch.float64)
REWARDS = torch.randn(3, 5, dtype=torch.float64, generator=GENERATOR)


def eps_of(scale: str, eps: float) -> float | None:
    return None if scale == "none" else eps


def grad(function, at: torch.Tensor = LOGP) -> torch.Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


# ---------------------------------------------------------------- TRL


def trl_loss(logp, loss_type, *, mask=MASK, **options):
    return trl_grpo_loss(logp, OLD, ADVANTAGES, mask, ref=REF, loss_type=loss_type, **options)


@pytest.mark.parametrize(
    ("loss_type", "options"),
    [
        ("grpo", {"agg": "seq-mean-token-mean"}),
        ("bnpo", {"agg": "token-mean"}),
        ("dapo", {"agg": "token-mean"}),
        ("dr_grpo", {"agg": "constant", "norm": 7.0}),
    ],
)
@pytest.mark.parametrize("correct", [True, False])
def test_loss_with_kl_equals_trls(agreement, loss_type, options, correct):
    kl_ratio = "attached" if correct else "none"

    def ours(x):
        shared = {"ref_logp": REF, "beta": 0.5, "kl_ratio": kl_ratio}
        return grpo_loss(x, OLD, ADVANTAGES, MASK, **shared, **options)

    def theirs(x):
        return trl_loss(x, loss_type, beta=0.5, correct=correct)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            f"GRPO loss, k3 with ratio {kl_ratio}, value and gradient",
            "trl",
            a,
            b,
            atol=1e-12,
            convention=f"use_bias_correction_kl {correct}; loss_type grpo, bnpo, dapo, dr_grpo",
        )


def test_presets_equal_trls(agreement):
    for name, ours, theirs in (
        (
            "DAPO loss",
            lambda x: dapo_loss(x, OLD, ADVANTAGES, MASK),
            lambda x: trl_loss(x, "dapo", high=0.28),
        ),
        (
            "Dr. GRPO loss",
            lambda x: dr_grpo_loss(x, OLD, ADVANTAGES, MASK, norm=7.0),
            lambda x: trl_loss(x, "dr_grpo"),
        ),
    ):
        for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
            agreement(
                f"{name}, value and gradient",
                "trl",
                a,
                b,
                atol=1e-12,
                convention="loss_type dapo with epsilon_high 0.28; loss_type dr_grpo, its norm "
                "is max_completion_length",
            )


def test_a_micro_batch_equals_trls(agreement):
    """Rows 1 and 2 of a batch that counts 12 tokens: norm = 12 / 2."""
    rows = slice(1, 3)

    def ours(x):
        parts = (x[rows], OLD[rows], ADVANTAGES[rows], MASK[rows])
        return grpo_loss(*parts, agg="constant", norm=12 / 2)

    def theirs(x):
        parts = (x[rows], OLD[rows], ADVANTAGES[rows], MASK[rows])
        return trl_grpo_loss(*parts, loss_type="dapo", items=12)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "GRPO loss of a micro-batch, value and gradient",
            "trl",
            a,
            b,
            atol=1e-12,
            convention="loss_type dapo, num_items_in_batch; here constant, norm = items / rows",
        )


def test_trls_dapo_divides_by_the_tokens_of_a_generation_over_its_steps():
    whole = trl_loss(LOGP, "dapo")
    torch.testing.assert_close(trl_loss(LOGP, "dapo", steps=4), 4 * whole, atol=1e-12, rtol=0)


def test_trl_counts_an_empty_row():
    mask = MASK.clone()
    mask[2] = False
    theirs = trl_loss(LOGP, "grpo", mask=mask)
    ours = grpo_loss(LOGP[:2], OLD[:2], ADVANTAGES[:2], MASK[:2], agg="seq-mean-token-mean")
    torch.testing.assert_close(theirs, ours * 2 / 3, atol=1e-12, rtol=0)


def trl_advantages(rewards, scale):
    """The branch of TRL's code that turns rewards into advantages, cut out of its method."""
    from trl.trainer import grpo_trainer

    method = grpo_trainer.GRPOTrainer._generate_and_score_completions
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    branch = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "self.multi_objective_aggregation == 'sum_then_normalize'"
    )
    names = {
        "self": SimpleNamespace(
            multi_objective_aggregation="sum_then_normalize",
            scale_rewards=scale,
            reward_weights=torch.ones(1, dtype=torch.float64),
        ),
        "rewards_per_func": rewards.reshape(-1, 1),
        "unscorable_mask": torch.zeros(rewards.numel(), dtype=torch.bool),
        "num_generations": rewards.shape[1],
        "device": torch.device("cpu"),
        "torch": torch,
        "nanstd": grpo_trainer.nanstd,
    }
    exec(compile(ast.Module([branch], []), "trl", "exec"), names)
    return names["advantages"].reshape(rewards.shape)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_equal_trls(agreement, scale):
    agreement(
        "group advantages",
        "trl",
        group_advantages(REWARDS, scale=scale, eps=eps_of(scale, 1e-4)),
        trl_advantages(REWARDS, scale),
        atol=1e-12,
        convention="scale_rewards group and none; ddof 1, eps 1e-4",
    )


def test_trl_gives_a_group_of_one_zero_in_evaluation():
    """In training its configuration refuses one."""
    one = torch.tensor([[0.7]], dtype=torch.float64)
    assert torch.equal(trl_advantages(one, "group"), torch.zeros_like(one))


def test_trls_batch_scale_takes_the_spread_of_the_raw_rewards():
    """[[0, 1], [10, 11]]: spread 5.80 of the raw rewards, 0.58 of the centred ones."""
    rewards = torch.tensor([[0.0, 1.0], [10.0, 11.0]], dtype=torch.float64)
    theirs = trl_advantages(rewards, "batch")
    raw = rewards.std() + 1e-4
    torch.testing.assert_close(theirs, torch.tensor([[-0.5, 0.5]] * 2).double() / raw)
    assert raw == pytest.approx(5.80, abs=0.01)
    assert group_advantages(rewards, scale="batch", eps=1e-4)[0, 1] == pytest.approx(
        0.866, abs=1e-3
    )


def test_trls_defaults():
    from trl import GRPOConfig

    fields = GRPOConfig.__dataclass_fields__
    expected = {
        "loss_type": "dapo",
        "beta": 0.0,
        "scale_rewards": "group",
        "epsilon": 0.2,
        "epsilon_high": None,
        "use_bias_correction_kl": True,
    }
    assert {name: fields[name].default for name in expected} == expected


# ---------------------------------------------------------------- verl


def verl_config():
    from verl.workers.config import ActorConfig

    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=0.2,
        clip_ratio_low=0.2,
        clip_ratio_high=0.2,
        clip_ratio_c=1e9,
    )


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("token-mean", {"agg": "token-mean"}),
        ("seq-mean-token-mean", {"agg": "seq-mean-token-mean"}),
        ("seq-mean-token-sum-norm", {"agg": "constant", "norm": 7.0}),
    ],
)
def test_loss_with_kl_equals_verls(agreement, verl, mode, options):
    by_token = ADVANTAGES.unsqueeze(1).expand(3, 7)

    def ours(x):
        return grpo_loss(x, OLD, ADVANTAGES, MASK, ref_logp=REF, beta=0.5, **options)

    def theirs(x):
        policy = verl.compute_policy_loss_vanilla(
            OLD, x, by_token, MASK.double(), mode, verl_config()
        )[0]
        k3 = verl.kl_penalty(x, REF, "low_var_kl")
        return policy + 0.5 * verl.agg_loss(k3, MASK.double(), mode)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "GRPO loss, k3 with ratio none, value and gradient",
            "verl",
            a,
            b,
            atol=1e-7,  # verl adds 1e-8 to the lengths
            convention="kl_loss_type low_var_kl; clip_ratio_c out of reach; three loss_agg_modes",
        )


def test_verls_defaults(verl):
    from verl.workers.config import ActorConfig

    fields = ActorConfig.__dataclass_fields__
    expected = {
        "loss_agg_mode": "token-mean",
        "use_kl_loss": False,
        "clip_ratio": 0.2,
        "clip_ratio_c": 3.0,
    }
    assert {name: fields[name].default for name in expected} == expected


def verl_advantages(verl, rewards, **options):
    import numpy

    flat = rewards.reshape(-1, 1).clone()
    index = numpy.repeat(numpy.arange(rewards.shape[0]), rewards.shape[1])
    ones = torch.ones_like(flat)
    out, _ = verl.compute_grpo_outcome_advantage(flat, ones, index, **options)
    return out.reshape(rewards.shape)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_equal_verls(agreement, verl, scale):
    agreement(
        "group advantages",
        "verl",
        group_advantages(REWARDS, scale=scale, eps=eps_of(scale, 1e-6)),
        verl_advantages(verl, REWARDS, norm_adv_by_std_in_grpo=scale == "group"),
        atol=1e-12,
        convention="norm_adv_by_std_in_grpo True and False; ddof 1, eps 1e-6",
    )


def test_verl_gives_a_group_of_one_its_raw_reward(verl):
    theirs = verl_advantages(verl, torch.tensor([[0.7]]).double())
    torch.testing.assert_close(theirs, torch.tensor([[0.7]]).double(), atol=1e-5, rtol=0)


def test_equal_rewards_miss_zero_elsewhere_in_float32(verl):
    """Some size of group makes the mean of equal numbers miss them by a unit of rounding."""
    worst = 0.0
    for group in range(2, 65):
        rewards = torch.full((1, group), 100.1)
        worst = max(worst, verl_advantages(verl, rewards).abs().max().item())
        assert (group_advantages(rewards, eps=1e-6) == 0).all()
    assert worst > 0.5


# ---------------------------------------------------------------- OpenRLHF


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models) -> ModuleType:
    return openrlhf_models("loss")


@pytest.mark.parametrize("token_level", [True, False])
def test_loss_with_kl_equals_openrlhfs(agreement, openrlhf, openrlhf_models, token_level):
    utils = openrlhf_models("utils")
    module = openrlhf.PolicyLoss(0.2, 0.2, token_level_loss=token_level)
    by_token = ADVANTAGES.unsqueeze(1).expand(3, 7)

    def ours(x):
        agg = "token-mean" if token_level else "seq-mean-token-mean"
        return grpo_loss(x, OLD, ADVANTAGES, MASK, ref_logp=REF, beta=0.5, agg=agg)

    def theirs(x):
        k3 = utils.compute_approx_kl(x, REF, kl_estimator="k3")
        kl = openrlhf.aggregate_loss(k3, MASK.double(), token_level_loss=token_level)
        return module(x, OLD, by_token, MASK.double())[0] + 0.5 * kl

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "GRPO loss, k3 with ratio none, value and gradient",
            "openrlhf",
            a,
            b,
            atol=1e-6,  # its KL is computed in float32
            convention="kl estimator k3 in the loss; token_level_loss True and False",
        )


def openrlhf_advantages(rewards, estimator):
    """The branch of its code that subtracts baselines, cut out of its method."""
    root = Path(importlib.util.find_spec("openrlhf").submodule_search_locations[0])
    text = (root / "trainer/ppo_utils/experience_maker.py").read_text(encoding="utf-8")
    branch = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "args.algo.advantage.estimator == 'rloo'"
    )
    args = SimpleNamespace(
        algo=SimpleNamespace(advantage=SimpleNamespace(estimator=estimator)),
        rollout=SimpleNamespace(n_samples_per_prompt=rewards.shape[1]),
    )
    names = {"args": args, "rewards": rewards.clone(), "torch": torch}
    exec(compile(ast.Module([branch], []), "openrlhf", "exec"), names)
    return names["rewards"]


@pytest.mark.parametrize(("estimator", "scale"), [("group_norm", "group"), ("dr_grpo", "none")])
def test_advantages_equal_openrlhfs(agreement, estimator, scale):
    agreement(
        "group advantages",
        "openrlhf",
        group_advantages(REWARDS, scale=scale, eps=eps_of(scale, 1e-9)),
        openrlhf_advantages(REWARDS, estimator),
        atol=1e-12,
        convention="estimators group_norm and dr_grpo; ddof 1, eps 1e-9",
    )


def test_openrlhfs_dr_grpo_changes_the_advantages_only():
    """It is no aggregation: reinforce_baseline and dr_grpo centre alike."""
    a, b = (openrlhf_advantages(REWARDS, name) for name in ("dr_grpo", "reinforce_baseline"))
    assert torch.equal(a, b)
