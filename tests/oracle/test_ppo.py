"""PPO's losses against verl, OpenRLHF, torchtune and TRL."""

import dataclasses
import inspect
from types import ModuleType

import pytest
import torch

from llmref.functional.aggregation import aggregate
from llmref.rl.ppo import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    entropy_bonus,
    ppo_policy_loss,
)

from .trl_stub import trl_grpo_loss

TOPIC = "rl/ppo"
LENGTHS = torch.tensor([7, 4, 1])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (3, 7)
GENERATOR = torch.Generator().manual_seed(1)
LOGP, OLD = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=GENERATOR).log_softmax(-1)[
    ..., 0
]
ADVANTAGES = torch.randn(3, 7, dtype=torch.float64, generator=GENERATOR)
VALUES, OLD_VALUES, RETURNS = torch.randn(3, 3, 7, dtype=torch.float64, generator=GENERATOR)
LOGITS = torch.randn(3, 7, 5, dtype=torch.float64, generator=GENERATOR)


def grad(function, at: torch.Tensor = LOGP) -> torch.Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def test_the_random_batch_meets_every_case():
    """Ratios on both sides of every clip, under both signs, beyond the dual clip, below 20 nats."""
    ratio = (LOGP - OLD).exp()[MASK]
    sign = ADVANTAGES[MASK] > 0
    for outside in (ratio > 1.2, ratio < 0.8):
        assert (outside & sign).any()
        assert (outside & ~sign).any()
    of_row = (ADVANTAGES[:, :1] > 0).expand(3, 7)[MASK]
    for negative in (~sign, ~of_row):
        assert ((ratio > 3) & negative).any()
    assert (LOGP - OLD).abs().max() < 20


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models) -> ModuleType:
    return openrlhf_models("loss")


@pytest.fixture(scope="module")
def torchtune(torchtune_imports) -> ModuleType:
    from torchtune.rlhf import loss

    return loss


def verl_config(low: float, high: float, dual: float):
    from verl.workers.config import ActorConfig

    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=low,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=dual,
    )


# ---------------------------------------------------------------- verl


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("token-mean", {"agg": "token-mean"}),
        ("seq-mean-token-mean", {"agg": "seq-mean-token-mean"}),
        ("seq-mean-token-sum", {"agg": "seq-mean-token-sum"}),
        ("seq-mean-token-sum-norm", {"agg": "constant", "norm": 7.0}),
    ],
)
@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, 0.2, None), (0.2, 0.28, 3.0)])
def test_policy_loss_equals_verls(agreement, verl, mode, options, low, high, dual):
    config = verl_config(low, high, 1e9 if dual is None else dual)
    clips = {"clip_low": low, "clip_high": high, "dual_clip": dual}

    def ours(x):
        return ppo_policy_loss(x, OLD, ADVANTAGES, MASK, **clips, **options)

    def theirs(x):
        return verl.compute_policy_loss_vanilla(OLD, x, ADVANTAGES, MASK.double(), mode, config)[0]

    name = "policy loss" + (" with dual clip" if dual else "")
    convention = "clip_ratio_c 3 by default" if dual else "clip_ratio_c out of reach"
    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            f"{name}, value and gradient",
            "verl",
            a,
            b,
            atol=1e-7,  # verl adds 1e-8 to the lengths
            convention=convention + "; four loss_agg_modes; log-ratio clamped at 20",
        )


def test_verls_dual_clip_is_on_by_default(verl):
    from verl.workers.config import ActorConfig, CriticConfig

    defaults = {f.name: f.default for f in dataclasses.fields(ActorConfig)}
    critic = {f.name: f.default for f in dataclasses.fields(CriticConfig)}
    assert critic["cliprange_value"] == 0.5
    assert defaults["clip_ratio_c"] == 3.0
    assert defaults["clip_ratio"] == 0.2
    assert defaults["loss_agg_mode"] == "token-mean"


def test_verls_clip_fractions_add_up_to_ours(agreement, verl):
    config = verl_config(0.2, 0.28, 3.0)
    _, metrics = verl.compute_policy_loss_vanilla(
        OLD, LOGP, ADVANTAGES, MASK.double(), "token-mean", config
    )
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    inside = clip_fraction(LOGP, OLD, ADVANTAGES, MASK, **clips)
    both = clip_fraction(LOGP, OLD, ADVANTAGES, MASK, dual_clip=3.0, **clips)
    agreement(
        "clip fraction",
        "verl",
        torch.stack([inside, both - inside]),
        torch.tensor([metrics["actor/pg_clipfrac"], metrics["actor/pg_clipfrac_lower"]]),
        atol=1e-7,  # verl's metrics are float32, and it adds 1e-8 to the number of tokens
        convention="pg_clipfrac, and pg_clipfrac_lower for the dual clip",
    )


def test_verls_log_ratio_clamp_stops_the_gradient(verl):
    config = verl_config(0.2, 0.2, 1e12)
    logp, old = torch.tensor([[-1.0]]).double(), torch.tensor([[-22.0]]).double()
    args = (-torch.ones(1, 1).double(), torch.ones(1, 1).double())

    def theirs(x):
        return verl.compute_policy_loss_vanilla(old, x, *args, "token-mean", config)[0]

    assert grad(theirs, logp).item() == 0
    assert grad(lambda x: ppo_policy_loss(x, old, *args, agg="token-mean"), logp).item() > 1e8


@pytest.mark.parametrize("clip", [0.2, 0.5])
@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_value_loss_equals_verls(agreement, verl, mode, clip):
    def ours(x):
        return clipped_value_loss(x, OLD_VALUES, RETURNS, MASK, clip=clip, agg=mode)

    def theirs(x):
        return verl.compute_value_loss(x, RETURNS, OLD_VALUES, MASK.double(), clip, mode)[0]

    for a, b in ((ours(VALUES), theirs(VALUES)), (grad(ours, VALUES), grad(theirs, VALUES))):
        agreement(
            "value loss, value and gradient",
            "verl",
            a,
            b,
            atol=1e-7,  # verl adds 1e-8 to the lengths
            convention="with the 1/2; three loss_agg_modes",
        )


def test_entropy_equals_verls(agreement, verl):
    def ours(x):
        return entropy_bonus(x, MASK, agg="token-mean")

    def theirs(x):
        return verl.compute_entropy_loss(x, MASK.double())

    for a, b in ((ours(LOGITS), theirs(LOGITS)), (grad(ours, LOGITS), grad(theirs, LOGITS))):
        agreement(
            "mean entropy, value and gradient",
            "verl",
            a,
            b,
            atol=1e-12,
            convention="compute_entropy_loss returns plus the entropy",
        )


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("token-mean", {"agg": "token-mean"}),
        ("seq-mean-token-mean", {"agg": "seq-mean-token-mean"}),
        ("seq-mean-token-sum", {"agg": "seq-mean-token-sum"}),
    ],
)
def test_an_empty_row_is_skipped_by_verl(agreement, verl, mode, options):
    mask = MASK.clone()
    mask[2] = False
    agreement(
        "aggregation with a row that counts nothing",
        "verl",
        aggregate(ADVANTAGES, mask, empty="skip", **options),
        verl.agg_loss(ADVANTAGES, mask.double(), mode),
        atol=1e-7,  # verl adds 1e-8 to the lengths
        convention="the row is not counted in N; here only with empty='skip'",
    )


# ---------------------------------------------------------------- OpenRLHF


@pytest.mark.parametrize(
    ("low", "high", "dual"), [(0.2, 0.2, None), (0.2, 0.28, None), (0.2, 0.28, 3.0)]
)
@pytest.mark.parametrize("token_level", [True, False])
def test_policy_loss_equals_openrlhfs(agreement, openrlhf, low, high, dual, token_level):
    module = openrlhf.PolicyLoss(low, high, dual, token_level_loss=token_level)

    def ours(x):
        agg = "token-mean" if token_level else "seq-mean-token-mean"
        clips = {"clip_low": low, "clip_high": high, "dual_clip": dual}
        return ppo_policy_loss(x, OLD, ADVANTAGES, MASK, agg=agg, **clips)

    def theirs(x):
        return module(x, OLD, ADVANTAGES, MASK.double())[0]

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            f"policy loss{' with dual clip' if dual else ''}, value and gradient",
            "openrlhf",
            a,
            b,
            atol=1e-7,  # it adds 1e-8 to the lengths
            convention="dual_clip None by default; token_level_loss True and False",
        )


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("token_level", [True, False])
def test_value_loss_equals_openrlhfs(agreement, openrlhf, clip, token_level):
    module = openrlhf.ValueLoss(clip, token_level)

    def ours(x):
        agg = "token-mean" if token_level else "seq-mean-token-mean"
        return clipped_value_loss(x, OLD_VALUES, RETURNS, MASK, clip=clip, agg=agg)

    def theirs(x):
        return module(x, OLD_VALUES, RETURNS, MASK.double())

    for a, b in ((ours(VALUES), theirs(VALUES)), (grad(ours, VALUES), grad(theirs, VALUES))):
        agreement(
            "value loss, value and gradient",
            "openrlhf",
            a,
            b,
            atol=1e-7,  # it adds 1e-8 to the lengths
            convention="with the 1/2; clip_eps None is clip=None",
        )


def test_openrlhfs_defaults_and_its_log_ratio_clamp(openrlhf):
    defaults = inspect.signature(openrlhf.PolicyLoss).parameters
    assert defaults["clip_eps_low"].default == defaults["clip_eps_high"].default == 0.2
    assert defaults["dual_clip"].default is None
    assert defaults["token_level_loss"].default is True
    logp, old = torch.tensor([[-1.0]]).double(), torch.tensor([[-22.0]]).double()
    ones = torch.ones(1, 1).double()
    assert grad(lambda x: openrlhf.PolicyLoss()(x, old, -ones, ones)[0], logp).item() == 0
    assert openrlhf.PolicyLoss()(logp - 1, old, -ones, ones)[0].item() > 1e8


def test_an_empty_row_is_skipped_by_openrlhf(agreement, openrlhf):
    mask = MASK.clone()
    mask[2] = False
    for token_level, mode in ((True, "token-mean"), (False, "seq-mean-token-mean")):
        agreement(
            "aggregation with a row that counts nothing",
            "openrlhf",
            aggregate(ADVANTAGES, mask, agg=mode, empty="skip"),
            openrlhf.aggregate_loss(ADVANTAGES, mask.double(), token_level_loss=token_level),
            atol=1e-7,  # it adds 1e-8 to the lengths
            convention="the row is not counted in N; here only with empty='skip'",
        )


# ---------------------------------------------------------------- torchtune


def torchtune_loss(torchtune, logp, values, **options):
    return torchtune.PPOLoss(**options)(
        OLD, logp, ADVANTAGES, OLD_VALUES, values, RETURNS, MASK, MASK
    )


def test_losses_equal_torchtunes(agreement, torchtune):
    """Its default clip is 0.1, its mask True where a token counts, whatever its name says."""
    for a, b in (
        (
            grad(
                lambda x: ppo_policy_loss(
                    x, OLD, ADVANTAGES, MASK, clip_low=0.1, clip_high=0.1, agg="token-mean"
                )
            ),
            grad(lambda x: torchtune_loss(torchtune, x, VALUES)[0]),
        ),
        (
            ppo_policy_loss(
                LOGP, OLD, ADVANTAGES, MASK, clip_low=0.1, clip_high=0.1, agg="token-mean"
            ),
            torchtune_loss(torchtune, LOGP, VALUES)[1],
        ),
    ):
        agreement(
            "policy loss, value and gradient",
            "torchtune",
            a,
            b,
            atol=1e-7,  # it adds 1e-8 to the number of tokens
            convention="epsilon 0.1 by default; padding_masks is True where a token counts",
        )
    for a, b in (
        (
            0.1
            * grad(
                lambda v: clipped_value_loss(v, OLD_VALUES, RETURNS, MASK, agg="token-mean"), VALUES
            ),
            grad(lambda v: torchtune_loss(torchtune, LOGP, v)[0], VALUES),
        ),
        (
            clipped_value_loss(VALUES, OLD_VALUES, RETURNS, MASK, agg="token-mean"),
            torchtune_loss(torchtune, LOGP, VALUES)[2],
        ),
    ):
        agreement(
            "value loss, value and gradient",
            "torchtune",
            a,
            b,
            atol=1e-7,  # it adds 1e-8 to the number of tokens
            convention="with the 1/2; enters the sum with value_coeff 0.1",
        )


def test_clip_fraction_equals_torchtunes(agreement, torchtune):
    agreement(
        "clip fraction",
        "torchtune",
        clip_fraction(LOGP, OLD, ADVANTAGES, MASK, clip_low=0.1, clip_high=0.1),
        torchtune_loss(torchtune, LOGP, VALUES)[4],
        atol=1e-7,  # it adds 1e-8 to the number of tokens
        convention="tokens without gradient, not tokens outside the clip",
    )


# ---------------------------------------------------------------- TRL


def trl_loss(logp, old=OLD, mask=MASK, loss_type="bnpo", **options):
    """TRL's GRPO loss without a KL term; one advantage a row."""
    return trl_grpo_loss(logp, old, ADVANTAGES[:, 0], mask, loss_type=loss_type, **options)


@pytest.mark.parametrize(
    ("loss_type", "options"),
    [
        ("grpo", {"agg": "seq-mean-token-mean"}),
        ("bnpo", {"agg": "token-mean"}),
        ("dapo", {"agg": "token-mean"}),
        ("dr_grpo", {"agg": "constant", "norm": 7.0}),
    ],
)
@pytest.mark.parametrize(("high", "dual"), [(0.2, None), (0.28, 3.0)])
def test_policy_loss_equals_trls(agreement, loss_type, options, high, dual):
    assert (ADVANTAGES[:, 0] < 0).any()

    def ours(x):
        return ppo_policy_loss(
            x, OLD, ADVANTAGES[:, 0], MASK, clip_high=high, dual_clip=dual, **options
        )

    def theirs(x):
        return trl_loss(x, loss_type=loss_type, high=high, delta=dual)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            f"policy loss{' with dual clip' if dual else ''}, value and gradient",
            "trl",
            a,
            b,
            atol=1e-12,
            convention="GRPOTrainer, one advantage a row, beta 0; "
            + ("delta is the dual clip; " if dual else "delta None by default; ")
            + "loss_type grpo, bnpo, dapo and dr_grpo",
        )


def test_trls_defaults():
    from trl import GRPOConfig

    defaults = {name: f.default for name, f in GRPOConfig.__dataclass_fields__.items()}
    assert (defaults["epsilon"], defaults["epsilon_high"], defaults["delta"]) == (0.2, None, None)
    assert defaults["loss_type"] == "dapo"


def test_trl_counts_an_empty_row_in_the_mean():
    mask = MASK.clone()
    mask[2] = False
    logp = LOGP.clone()
    tokens = -clipped_surrogate(LOGP, OLD, ADVANTAGES[:, :1].expand(3, 7))
    theirs = trl_loss(logp, mask=mask, loss_type="grpo")
    skipped = aggregate(tokens, mask, agg="seq-mean-token-mean", empty="skip")
    torch.testing.assert_close(theirs, skipped * 2 / 3, atol=1e-12, rtol=0)


def test_trls_delta_below_the_upper_clip_is_not_a_dual_clip():
    """It clamps every ratio at delta, so a good sample loses its gradient at 1.1 already."""
    old = torch.full_like(OLD, -3.0)
    logp = old + torch.tensor(1.15).log()
    row = (ADVANTAGES[:, 0] > 0).nonzero()[0, 0]
    theirs = grad(lambda x: trl_loss(x, old=old, delta=1.1), logp)
    assert (theirs[row] == 0).all()
