"""GSPO's ratio and losses against TRL, verl and OpenRLHF."""

from types import ModuleType

import pytest
import torch

from llmref.functional.aggregation import aggregate
from llmref.rl.gspo import gspo_loss, gspo_token_loss, sequence_ratio
from llmref.rl.kl import kl_estimate

from .trl_stub import trl_grpo_loss

TOPIC = "rl/gspo"
LENGTHS = torch.tensor([7, 4, 1, 5])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (4, 7)
GENERATOR = torch.Generator().manual_seed(2)
OLD = torch.randn(4, 7, 5, dtype=torch.float64, generator=GENERATOR).log_softmax(-1)[..., 0]
LOGP = OLD + 0.6 * torch.randn(4, 7, dtype=torch.float64, generator=GENERATOR)
LOGP = LOGP.clamp(max=0.0)
ADVANTAGES = torch.tensor([1.2, -0.7, -1.5, 0.4], dtype=torch.float64)
CLIPS = [(3e-4, 4e-4), (0.2, 0.28)]


def grad(function, at: torch.Tensor = LOGP) -> torch.Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def test_the_batch_has_clipped_and_unclipped_sequences():
    ratio = sequence_ratio(LOGP, OLD, MASK)
    for low, high in CLIPS:
        stopped = (ADVANTAGES > 0) & (ratio > 1 + high) | (ADVANTAGES < 0) & (ratio < 1 - low)
        assert stopped.any()
        assert (~stopped).any()


def trl_loss(logp, low, high, **options):
    options = {"level": "sequence", "ref": OLD - 0.3, **options}
    return trl_grpo_loss(logp, OLD, ADVANTAGES, MASK, low=low, high=high, **options)


@pytest.mark.parametrize(("low", "high"), CLIPS)
def test_loss_equals_trls(agreement, low, high):
    def ours(x):
        return gspo_loss(x, OLD, ADVANTAGES, MASK, clip_low=low, clip_high=high)

    def theirs(x):
        return trl_loss(x, low, high)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "GSPO loss, value and gradient",
            "trl",
            a,
            b,
            atol=1e-12,
            convention="importance_sampling_level sequence with loss_type grpo",
        )


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo"])
def test_trls_other_normalisers_weight_a_sequence_by_its_length(loss_type):
    """Over all tokens: the sequence surrogates, weighted by their lengths."""
    ratio = sequence_ratio(LOGP, OLD, MASK)
    surrogate = torch.minimum(ratio * ADVANTAGES, ratio.clamp(0.8, 1.28) * ADVANTAGES)
    expected = -(surrogate * LENGTHS).sum() / LENGTHS.sum()
    theirs = trl_loss(LOGP, 0.2, 0.28, loss_type=loss_type)
    torch.testing.assert_close(theirs, expected, atol=1e-12, rtol=0)
    ours = gspo_loss(LOGP, OLD, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.28)
    assert (theirs - ours).abs() > 1e-2


def test_trls_kl_takes_the_ratio_of_the_sequence():
    """With its correction on, each token's k3 is multiplied by s, not by the token's own ratio."""
    k3 = kl_estimate(LOGP, OLD - 0.3, "k3")
    weighted = sequence_ratio(LOGP, OLD, MASK).unsqueeze(1) * k3
    policy = gspo_loss(LOGP, OLD, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.28)
    expected = policy + 0.5 * aggregate(weighted, MASK, agg="seq-mean-token-mean")
    theirs = trl_loss(LOGP, 0.2, 0.28, beta=0.5)
    torch.testing.assert_close(theirs, expected, atol=1e-12, rtol=0)


def test_trls_default_level_is_the_token():
    from trl import GRPOConfig

    fields = GRPOConfig.__dataclass_fields__
    assert fields["importance_sampling_level"].default == "token"
    assert fields["epsilon"].default == 0.2


def verl_loss(verl, logp, low, high, advantages=None, mode="seq-mean-token-mean"):
    from verl.workers.config import ActorConfig

    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=low,
        clip_ratio_low=low,
        clip_ratio_high=high,
    )
    advantages = ADVANTAGES.unsqueeze(1).expand(4, 7) if advantages is None else advantages
    return verl.compute_policy_loss_gspo(OLD, logp, advantages, MASK.double(), mode, config)[0]


@pytest.mark.parametrize(("low", "high"), CLIPS)
def test_losses_equal_verls(agreement, verl, low, high):
    clips = {"clip_low": low, "clip_high": high}
    by_token = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    pairs = {
        "GSPO loss, value and gradient": (
            lambda x: gspo_loss(x, OLD, ADVANTAGES, MASK, **clips),
            lambda x: verl_loss(verl, x, low, high),
        ),
        "GSPO-token loss, value and gradient": (
            lambda x: gspo_token_loss(x, OLD, by_token, MASK, **clips),
            lambda x: verl_loss(verl, x, low, high, by_token),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
            agreement(
                name,
                "verl",
                a,
                b,
                atol=1e-7,  # verl adds 1e-8 to the lengths
                convention="loss_mode gspo with loss_agg_mode seq-mean-token-mean; "
                "log-ratio clamped above at 10",
            )


def test_verls_default_average_is_over_tokens_and_not_gspos(verl):
    from verl.workers.config import ActorConfig

    fields = ActorConfig.__dataclass_fields__
    assert fields["loss_agg_mode"].default == "token-mean"
    assert fields["clip_ratio"].default == 0.2
    theirs = verl_loss(verl, LOGP, 0.2, 0.28, mode="token-mean")
    ours = gspo_loss(LOGP, OLD, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.28)
    assert (theirs - ours).abs() > 1e-2


def test_verls_clamp_stops_the_gradient_of_a_large_ratio(verl):
    """A log-ratio of 11 with advantage -1: gradient 0 there, e^11 here."""
    down = -torch.ones(4, 7, dtype=torch.float64)
    far = OLD + 11.0
    assert (grad(lambda x: verl_loss(verl, x, 0.2, 0.2, down), far) == 0).all()
    old = OLD - 11.0
    ours = grad(lambda x: gspo_loss(x, old, down[:, 0], MASK), OLD)
    assert ours.max() > 1e4


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models) -> ModuleType:
    return openrlhf_models("loss")


@pytest.mark.parametrize(("low", "high"), CLIPS)
def test_loss_equals_openrlhfs(agreement, openrlhf, low, high):
    module = openrlhf.PolicyLoss(low, high, policy_loss_type="gspo")

    def ours(x):
        return gspo_loss(x, OLD, ADVANTAGES, MASK, clip_low=low, clip_high=high)

    def theirs(x):
        return module(x, OLD, ADVANTAGES.unsqueeze(1).expand(4, 7), MASK.double())[0]

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "GSPO loss, value and gradient",
            "openrlhf",
            a,
            b,
            atol=1e-7,  # it adds 1e-8 to the lengths
            convention="policy_loss_type gspo, which sets token_level_loss to False",
        )


def test_openrlhfs_gspo_leaves_the_old_policy_for_the_sampler_under_correction(openrlhf):
    """With a correction for the sampler its ratio is pi / sampler, and old is not used."""
    module = openrlhf.PolicyLoss(0.2, 0.28, policy_loss_type="gspo", is_correction_level="token")
    advantages = ADVANTAGES.unsqueeze(1).expand(4, 7)
    theirs = module(LOGP, OLD - 1, advantages, MASK.double(), rollout_log_probs=OLD)[0]
    ours = gspo_loss(LOGP, OLD, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.28)
    torch.testing.assert_close(theirs, ours, atol=1e-7, rtol=0)
