"""KTO, ORPO and SimPO against TRL."""

import collections
from types import SimpleNamespace

import pytest
import torch

from llmref.practice.by_hand.rl.preference import simpo_loss
from llmref.rl.preference import kto_loss, kto_reference_point, log_odds, odds_ratio_loss
from tests.tensors import gradient

TOPIC = "rl/preference"
N, T = 5, 6
LENGTHS = torch.tensor([4, 2, 6, 3, 1])
MASK = torch.arange(T) < LENGTHS.unsqueeze(1)
UP = torch.tensor([True, False, True, True, False])


def tokens(seed: int, scale: float = 2.0) -> torch.Tensor:
    """Log-probabilities of N x T tokens, 0 outside the completions."""
    generator = torch.Generator().manual_seed(seed)
    drawn = -scale * torch.rand(N, T, dtype=torch.float64, generator=generator)
    return torch.where(MASK, drawn, 0.0)


POLICY, REF = tokens(0), tokens(1)
OTHER = {"clamped": (tokens(2, 3.0), tokens(3, 0.5)), "positive": (tokens(3, 0.5), tokens(2, 3.0))}


class Accelerator:
    device = torch.device("cpu")
    gather = gather_for_metrics = staticmethod(lambda x: x)


def trl_kto(policy, point, weights):
    """TRL's loss without a trainer: models that return given token log-probabilities."""
    from trl import KTOTrainer

    kl_policy, kl_ref = point
    zeros = torch.zeros(N, T, dtype=torch.float64)

    class Model:
        training = True

        def __call__(self, **_):
            return SimpleNamespace(log_probs=policy, entropy=zeros, mean_logits=zeros)

    trainer = SimpleNamespace(
        model=Model(),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        _compute_kl_logps=lambda *_: kl_policy.sum(-1),
    )
    inputs = {
        "input_ids": torch.zeros(N, T + 1, dtype=torch.long),
        "attention_mask": torch.ones(N, T + 1, dtype=torch.long),
        "completion_mask": torch.cat([torch.zeros(N, 1).long(), MASK.long()], dim=1),
        "label": UP,
        "ref_logps": REF.sum(-1),
        "ref_KL_logps": kl_ref.sum(-1),
    }
    return KTOTrainer._compute_loss(trainer, trainer.model, inputs, False)


@pytest.mark.parametrize("point", OTHER)
def test_kto_equals_trls(agreement, point):
    baseline = kto_reference_point(*(x.sum(-1) for x in OTHER[point]))
    assert (baseline == 0) == (point == "clamped")

    def mine(x):
        weights = {"desirable_weight": 1.2, "undesirable_weight": 0.8}
        return kto_loss(x.sum(-1), REF.sum(-1), UP, baseline, beta=0.3, **weights)

    def theirs(x):
        return trl_kto(x, OTHER[point], (1.2, 0.8))

    for f, g in (
        (mine(POLICY), theirs(POLICY)),
        (gradient(mine, POLICY), gradient(theirs, POLICY)),
    ):
        agreement(
            f"KTO, {point} reference point, value and gradient",
            "trl",
            f,
            g,
            atol=1e-12,
            convention="sums over the completion; the mean over both kinds together",
        )


def trl_odds(chosen, rejected):
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=1.0, accelerator=Accelerator())
    return ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0].mean()


def test_orpo_equals_trls(agreement):
    other = LENGTHS.flip(0)
    rejected = tokens(4).sum(-1)

    def mine(x):
        return odds_ratio_loss(x[0], x[1], LENGTHS, other)

    def theirs(x):
        return -trl_odds(x[0] / LENGTHS, x[1] / other)

    pair = torch.stack([POLICY.sum(-1), rejected])
    for f, g in ((mine(pair), theirs(pair)), (gradient(mine, pair), gradient(theirs, pair))):
        agreement(
            "the odds-ratio loss of ORPO, value and gradient",
            "trl",
            f,
            g,
            atol=1e-6,
            convention="experimental ORPOTrainer: of means, in float32, the negative of ours",
        )


def test_simpo_equals_trls(agreement):
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        alpha=0.0,
        accelerator=Accelerator(),
        loss_type="simpo",
        simpo_gamma=0.5,
        beta=2.0,
        label_smoothing=0.0,
    )
    other = LENGTHS.flip(0)

    def mine(x):
        return simpo_loss(x[0], x[1], LENGTHS, other, 2.0, 0.5)

    def theirs(x):
        return CPOTrainer.cpo_loss(trainer, x[0] / LENGTHS, x[1] / other)[0].mean()

    pair = torch.stack([POLICY.sum(-1), tokens(4).sum(-1)])
    for f, g in ((mine(pair), theirs(pair)), (gradient(mine, pair), gradient(theirs, pair))):
        agreement(
            "the code by hand of SimPO, value and gradient",
            "trl",
            f,
            g,
            atol=1e-12,
            convention="experimental CPOTrainer, loss_type simpo: of means; gamma / beta inside",
        )


def test_trls_odds_have_a_nan_gradient_where_a_probability_rounds_to_1():
    near, other = torch.tensor([-1e-8]), torch.tensor([-1.0])
    assert trl_odds(other, near).isfinite()
    assert gradient(lambda x: trl_odds(other, x), near).isnan().all()
    assert gradient(log_odds, near).isfinite().all()


def test_trls_defaults():
    from trl import KTOConfig
    from trl.experimental.cpo import CPOConfig
    from trl.experimental.orpo import ORPOConfig

    kto = KTOConfig.__dataclass_fields__
    names = ("beta", "desirable_weight", "undesirable_weight", "loss_type")
    assert [kto[name].default for name in names] == [0.1, 1.0, 1.0, "kto"]
    assert ORPOConfig.__dataclass_fields__["beta"].default == 0.1
    assert CPOConfig.__dataclass_fields__["simpo_gamma"].default == 0.5
