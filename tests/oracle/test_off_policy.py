"""Off-policy corrections against verl, TRL and OpenRLHF."""

from types import ModuleType
from typing import Any

import pytest
import torch

from llmref.rl.off_policy import (
    cispo_loss,
    decoupled_ppo_loss,
    importance_weights,
    mask_weights,
    truncate_weights,
)

from .trl_stub import trl_grpo_loss

TOPIC = "rl/off_policy"
LENGTHS = torch.tensor([7, 4, 1, 5])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (4, 7)
GENERATOR = torch.Generator().manual_seed(3)
MU = torch.randn(4, 7, 5, dtype=torch.float64, generator=GENERATOR).log_softmax(-1)[..., 0] - 1
OLD, LOGP = MU + 0.4 * torch.randn(2, 4, 7, dtype=torch.float64, generator=GENERATOR)
OLD, LOGP = OLD.clamp(max=0.0), LOGP.clamp(max=0.0)
ADVANTAGES = torch.tensor([1.2, -0.7, -1.5, 0.4], dtype=torch.float64)
BY_TOKEN = ADVANTAGES.unsqueeze(1).expand(4, 7)


def grad(function: Any, at: torch.Tensor = LOGP) -> torch.Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


@pytest.fixture(scope="module")
def correction(verl: ModuleType) -> Any:
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    return compute_rollout_correction_weights


def test_weights_equal_verls(agreement: Any, correction: Any) -> None:
    for level in ("token", "sequence"):
        raw = importance_weights(OLD, MU, MASK, level=level)
        for ours, threshold, name in (
            (truncate_weights(raw, cap=1.2), "1.2", "truncated"),
            (mask_weights(raw, low=0.8, high=1.3), "0.8_1.3", "masked"),
        ):
            theirs = correction(OLD - MU, MASK.double(), level, threshold)[0]
            assert (ours != raw).any()
            agreement(
                f"{name} weights, level {level}",
                "verl",
                ours,
                theirs,
                atol=1e-12,
                convention="rollout_is_threshold one number for the cap, 'low_high' for the band",
            )


def test_verl_clamps_log_ratios_at_twenty(correction: Any) -> None:
    far = torch.full((1, 1), 25.0, dtype=torch.float64)
    theirs = correction(far, torch.ones(1, 1).double(), "token", "1e30")[0]
    torch.testing.assert_close(theirs, torch.full_like(far, 20.0).exp())


def test_verls_cispo_clamps_below_as_well(agreement: Any, verl: ModuleType) -> None:
    from verl.workers.config import ActorConfig

    def theirs(x: torch.Tensor, low: float) -> torch.Tensor:
        config = ActorConfig(
            strategy="fsdp",
            rollout_n=1,
            ppo_micro_batch_size_per_gpu=1,
            clip_ratio=0.2,
            clip_ratio_low=low,
            clip_ratio_high=0.2,
        )
        args = (OLD, x, BY_TOKEN, MASK.double(), "token-mean", config)
        loss: torch.Tensor = verl.compute_policy_loss_cispo(*args)[0]
        return loss

    def ours(x: torch.Tensor) -> torch.Tensor:
        return cispo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.2, agg="token-mean")

    agreement(
        "CISPO gradient",
        "verl",
        grad(ours),
        grad(lambda x: theirs(x, 1.0)),
        atol=1e-8,  # verl adds 1e-8 to the number of tokens
        convention="loss_mode cispo with clip_ratio_low 1, so that nothing is clamped below",
    )
    assert (grad(ours) - grad(lambda x: theirs(x, 0.2))).abs().max() > 1e-3


def test_trls_cispo_takes_the_cap_itself(agreement: Any) -> None:
    def ours(x: torch.Tensor) -> torch.Tensor:
        return cispo_loss(x, OLD, ADVANTAGES, MASK, clip_high=0.2, agg="token-mean")

    def theirs(x: torch.Tensor, high: float) -> torch.Tensor:
        return trl_grpo_loss(x, OLD, ADVANTAGES, MASK, loss_type="cispo", high=high)

    agreement(
        "CISPO gradient",
        "trl",
        grad(ours),
        grad(lambda x: theirs(x, 1.2)),
        atol=1e-12,
        convention="loss_type cispo; epsilon_high is absolute, 1.2 for clip_high 0.2",
    )
    assert (grad(ours) - grad(lambda x: theirs(x, 0.2))).abs().max() > 1e-2


def test_trls_defaults() -> None:
    from trl import GRPOConfig

    fields = GRPOConfig.__dataclass_fields__
    assert fields["vllm_importance_sampling_mode"].default == "sequence_mask"
    assert fields["vllm_importance_sampling_clip_max"].default == 3.0


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models: Any) -> ModuleType:
    module: ModuleType = openrlhf_models("loss")
    return module


def openrlhf_loss(openrlhf: ModuleType, x: torch.Tensor, **options: Any) -> torch.Tensor:
    module = openrlhf.PolicyLoss(0.2, 0.2, **options)
    loss: torch.Tensor = module(x, OLD, BY_TOKEN, MASK.double(), rollout_log_probs=MU)[0]
    return loss


def test_decoupled_loss_equals_openrlhfs(agreement: Any, openrlhf: ModuleType) -> None:
    options = {
        "is_correction_level": "token",
        "is_correction_mode": "clip",
        "is_correction_threshold": [0.0, 1.2],
    }

    def ours(x: torch.Tensor) -> torch.Tensor:
        return decoupled_ppo_loss(x, OLD, MU, ADVANTAGES, MASK, agg="token-mean", cap=1.2)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return openrlhf_loss(openrlhf, x, **options)

    for a, b in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "decoupled PPO with a cap, value and gradient",
            "openrlhf",
            a,
            b,
            atol=1e-8,
            convention="is_correction_mode clip with a lower threshold of 0",
        )


def test_openrlhfs_level_seq_gates_by_the_geometric_mean(openrlhf: ModuleType) -> None:
    """Texts within the band by their geometric mean keep the weights of their tokens."""
    band = {"is_correction_threshold": [0.9, 1.1], "is_correction_level": "seq"}
    theirs = openrlhf_loss(openrlhf, LOGP, **band)
    log_ratio = ((OLD - MU) * MASK).sum(1, keepdim=True) / LENGTHS[:, None]
    keep = (log_ratio.exp() >= 0.9) & (log_ratio.exp() <= 1.1)
    assert keep.any()
    assert not keep.all()
    loss = decoupled_ppo_loss(LOGP, OLD, MU, BY_TOKEN * keep, MASK, agg="token-mean")
    torch.testing.assert_close(theirs, loss, atol=1e-8, rtol=0)
    with pytest.raises(ValueError, match="clip"):
        openrlhf.PolicyLoss(0.2, 0.2, is_correction_level="seq", is_correction_mode="clip")
