"""Losses of reward models against TRL and OpenRLHF."""

import collections
import inspect
from types import SimpleNamespace

import pytest
import torch

from llmref.rl.reward_model import bradley_terry_loss, centering_penalty
from tests.tensors import gradient

TOPIC = "rl/reward_model"
N = 4
SCORES = 2 * torch.randn(2 * N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MARGIN = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)


def ours(scores: torch.Tensor, margin: torch.Tensor | None = None) -> torch.Tensor:
    return bradley_terry_loss(*scores.chunk(2), margin=margin)


def compare(agreement, name, library, mine, theirs, *, convention):
    for f, g in (
        (mine(SCORES), theirs(SCORES)),
        (gradient(mine, SCORES), gradient(theirs, SCORES)),
    ):
        agreement(f"{name}, value and gradient", library, f, g, atol=1e-12, convention=convention)


class Accelerator:
    gather = gather_for_metrics = staticmethod(lambda x: x)


def trl_loss(scores, *, margin=None, coefficient=None):
    """TRL's loss without a trainer: a model that returns the given scores, chosen first."""
    from trl import RewardTrainer

    class Model:
        training = False

        def __call__(self, **_):
            return SimpleNamespace(logits=scores.unsqueeze(1))

    trainer = SimpleNamespace(
        model=Model(),
        accelerator=Accelerator(),
        args=SimpleNamespace(center_rewards_coefficient=coefficient),
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {} if margin is None else {"margin": margin}
    return RewardTrainer.compute_loss(trainer, trainer.model, inputs)


@pytest.mark.parametrize("margin", [None, MARGIN], ids=["no margin", "margins"])
def test_losses_equal_trls(agreement, margin):
    compare(
        agreement,
        "Bradley-Terry loss" + (" with margins" if margin is not None else ""),
        "trl",
        lambda x: ours(x, margin),
        lambda x: trl_loss(x, margin=margin),
        convention="none: the same formula",
    )


def test_trls_centring_adds_the_penalty(agreement):
    compare(
        agreement,
        "Bradley-Terry loss with centring",
        "trl",
        lambda x: ours(x) + 0.3 * centering_penalty(*x.chunk(2)),
        lambda x: trl_loss(x, coefficient=0.3),
        convention="center_rewards_coefficient times the penalty",
    )


@pytest.mark.parametrize("margin", [None, MARGIN], ids=["no margin", "margins"])
def test_openrlhfs_pairs_are_the_same(agreement, openrlhf_models, margin):
    loss = openrlhf_models("loss").PairWiseLoss()
    compare(
        agreement,
        "Bradley-Terry loss" + (" with margins" if margin is not None else ""),
        "openrlhf",
        lambda x: ours(x, margin),
        lambda x: loss(*x.chunk(2), margin),
        convention="PairWiseLoss",
    )


def test_openrlhfs_log_exp_loss_ignores_its_margin_and_overflows(agreement, openrlhf_models):
    loss = openrlhf_models("loss").LogExpLoss()
    compare(
        agreement,
        "Bradley-Terry loss, no margin",
        "openrlhf",
        ours,
        lambda x: loss(*x.chunk(2), MARGIN),
        convention="LogExpLoss; it ignores its margin",
    )
    assert abs(ours(SCORES, MARGIN) - loss(*SCORES.chunk(2), MARGIN)) > 0.1
    far = torch.tensor([-100.0]), torch.tensor([0.0])
    assert loss(*far).isinf()
    assert bradley_terry_loss(*far) == 100.0


def test_trl_does_not_center_unless_told():
    from trl import RewardConfig

    assert inspect.signature(RewardConfig).parameters["center_rewards_coefficient"].default is None
