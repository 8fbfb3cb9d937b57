"""Preference losses against TRL, torchtune and OpenRLHF."""

import collections
from types import ModuleType, SimpleNamespace

import pytest
import torch

from llmref.rl.dpo import aligned_sequence_logprob, dpo_loss, implicit_reward, simpo_loss
from tests.tensors import gradient

TOPIC = "rl/dpo"
N, T, V = 3, 5, 7
LENGTHS = torch.tensor([4, 2, 5, 3, 5, 1])  # three chosen, three rejected
MASK = torch.arange(T) < LENGTHS.unsqueeze(1)  # (2N, T)


def token_logps(seed: int) -> torch.Tensor:
    """Log-probabilities of 2N x T tokens, zero outside the completions."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2 * N, T, V, dtype=torch.float64, generator=generator)
    return torch.where(MASK, logits.log_softmax(-1)[..., 0], 0.0)


TOKENS, REF_TOKENS = token_logps(0), token_logps(1)
POLICY, REF = TOKENS.sum(-1), REF_TOKENS.sum(-1)


def split(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return rows.chunk(2)


def ours(tokens: torch.Tensor, **options) -> torch.Tensor:
    return dpo_loss(*split(tokens.sum(-1)), *split(REF), **options)


def compare(agreement, name, library, mine, theirs, *, convention):
    for f, g in (
        (mine(TOKENS), theirs(TOKENS)),
        (gradient(mine, TOKENS), gradient(theirs, TOKENS)),
    ):
        agreement(f"{name}, value and gradient", library, f, g, atol=1e-12, convention=convention)


# ---------------------------------------------------------------- TRL


class Accelerator:
    device = torch.device("cpu")
    gather = gather_for_metrics = staticmethod(lambda x: x)


def trl_dpo(tokens, loss_type="sigmoid", *, beta=0.1, label_smoothing=0.0, ld_alpha=None):
    """TRL's loss without a trainer: a model that returns the given token log-probabilities."""
    from trl import DPOTrainer

    zeros = torch.zeros_like(tokens.detach())

    class Model:
        training = True

        def __call__(self, **_):
            return SimpleNamespace(
                log_probs=tokens, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
            )

    trainer = SimpleNamespace(
        model=Model(),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        ld_alpha=ld_alpha,
        precompute_ref_logps=True,
        beta=beta,
        loss_types=[loss_type],
        loss_weights=[1.0],
        label_smoothing=label_smoothing,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    mask = torch.cat([torch.zeros(2 * N, 1, dtype=torch.long), MASK.long()], dim=1)
    chosen, rejected = split(REF)
    inputs = {
        "input_ids": torch.zeros(2 * N, T + 1, dtype=torch.long),
        "attention_mask": torch.ones(2 * N, T + 1, dtype=torch.long),
        "completion_mask": mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    return DPOTrainer._compute_loss(trainer, trainer.model, inputs, False)


@pytest.mark.parametrize(
    ("loss_type", "options", "convention"),
    [
        ("sigmoid", {}, "log-probabilities summed over the completion"),
        ("hinge", {}, "log-probabilities summed over the completion"),
        ("robust", {"label_smoothing": 0.2}, "label_smoothing is the flip rate"),
    ],
)
def test_losses_equal_trls(agreement, loss_type, options, convention):
    compare(
        agreement,
        f"DPO {loss_type}",
        "trl",
        lambda x: ours(x, beta=0.3, loss_type=loss_type, **options),
        lambda x: trl_dpo(x, loss_type, beta=0.3, **options),
        convention=convention,
    )


def test_trls_ipo_divides_both_log_ratios_by_their_lengths(agreement):
    def mean(tokens):
        rows = tokens.sum(-1) / LENGTHS
        return dpo_loss(*split(rows), *split(REF / LENGTHS), beta=0.3, loss_type="ipo")

    compare(
        agreement,
        "IPO of mean log-probabilities",
        "trl",
        mean,
        lambda x: trl_dpo(x, "ipo", beta=0.3),
        convention="each log-ratio divided by its own length; the paper's are sums",
    )
    assert abs(trl_dpo(TOKENS, "ipo", beta=0.3) - ours(TOKENS, beta=0.3, loss_type="ipo")) > 0.1


def test_trls_sigmoid_norm_is_dpo_of_mean_log_probabilities(agreement):
    def mean(tokens):
        return dpo_loss(*split(tokens.sum(-1) / LENGTHS), *split(REF / LENGTHS), beta=0.3)

    compare(
        agreement,
        "DPO of mean log-probabilities",
        "trl",
        mean,
        lambda x: trl_dpo(x, "sigmoid_norm", beta=0.3),
        convention="loss_type sigmoid_norm",
    )


def test_trls_sigmoid_ignores_label_smoothing():
    plain, smoothed = trl_dpo(TOKENS), trl_dpo(TOKENS, label_smoothing=0.3)
    assert torch.equal(plain, smoothed)
    assert abs(ours(TOKENS, label_smoothing=0.3) - plain) > 1e-3


def test_trls_ld_alpha_reweights_the_longer_responses_tail():
    """At 1 it is the sum; at 0 the tokens beyond the shorter response are gone."""
    torch.testing.assert_close(trl_dpo(TOKENS, ld_alpha=1.0), ours(TOKENS), atol=1e-12, rtol=0)
    shorter = torch.minimum(*LENGTHS.chunk(2)).repeat(2)
    shared = torch.arange(T) < shorter.unsqueeze(1)
    # The reference's sums come precomputed here, so nothing is cut from them.
    cut = dpo_loss(*split((TOKENS * shared).sum(-1)), *split(REF))
    torch.testing.assert_close(trl_dpo(TOKENS, ld_alpha=0.0), cut, atol=1e-12, rtol=0)


def test_trls_default_loss_and_beta():
    from trl import DPOConfig

    fields = DPOConfig.__dataclass_fields__
    assert fields["beta"].default == 0.1
    assert fields["loss_type"].default_factory() == ["sigmoid"]
    assert fields["label_smoothing"].default == 0.0


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

    def theirs(tokens):
        return CPOTrainer.cpo_loss(trainer, *split(tokens.sum(-1) / LENGTHS))[0].mean()

    compare(
        agreement,
        "SimPO",
        "trl",
        lambda x: simpo_loss(*split(x.sum(-1)), *split(LENGTHS), beta=2.0, gamma=0.5),
        theirs,
        convention="experimental CPOTrainer, loss_type simpo; simpo_gamma is the paper's gamma",
    )


# ---------------------------------------------------------------- torchtune


@pytest.mark.usefixtures("torchtune_imports")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_equal_torchtunes(agreement, smoothing):
    from torchtune.rlhf.loss import DPOLoss

    loss = DPOLoss(beta=0.3, label_smoothing=smoothing)
    compare(
        agreement,
        "cDPO" if smoothing else "DPO sigmoid",
        "torchtune",
        lambda x: ours(x, beta=0.3, label_smoothing=smoothing, reduction="none"),
        lambda x: loss(*split(x.sum(-1)), *split(REF))[0],
        convention="one loss a pair; the recipe takes the mean",
    )


@pytest.mark.usefixtures("torchtune_imports")
def test_hinge_equals_torchtunes(agreement):
    from torchtune.rlhf.loss import RSOLoss

    loss = RSOLoss(gamma=0.3)
    compare(
        agreement,
        "DPO hinge",
        "torchtune",
        lambda x: ours(x, beta=0.3, loss_type="hinge", reduction="none"),
        lambda x: loss(*split(x.sum(-1)), *split(REF))[0],
        convention="RSOLoss; its gamma is beta",
    )


@pytest.mark.usefixtures("torchtune_imports")
def test_logged_rewards_equal_torchtunes(agreement):
    from torchtune.rlhf.loss import DPOLoss

    _, *rewards = DPOLoss(beta=0.3)(*split(POLICY), *split(REF))
    agreement(
        "implicit reward",
        "torchtune",
        implicit_reward(POLICY, REF, beta=0.3),
        torch.cat(rewards),
        atol=1e-12,
        convention="detached",
    )


@pytest.mark.usefixtures("torchtune_imports")
def test_aligned_sequence_logprob_equals_torchtunes(agreement):
    """It shifts inside: its labels are one position ahead of its logits."""
    from torchtune.rlhf import get_batch_log_probs

    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2 * N, T + 1, V, dtype=torch.float64, generator=generator)
    labels = torch.randint(V, (2 * N, T + 1), generator=generator)
    labels[:, 1:][~MASK] = -100
    labels[:, 0] = -100
    agreement(
        "log-probability of a response",
        "torchtune",
        aligned_sequence_logprob(logits[:, :-1], labels[:, 1:], MASK),
        get_batch_log_probs(logits, labels),
        atol=1e-12,
        convention="get_batch_log_probs shifts inside and sums; return_average_logprobs divides",
    )
    mean = get_batch_log_probs(logits, labels, return_average_logprobs=True)
    torch.testing.assert_close(
        mean * LENGTHS,
        aligned_sequence_logprob(logits[:, :-1], labels[:, 1:], MASK),
        atol=1e-12,
        rtol=0,
    )


# ---------------------------------------------------------------- OpenRLHF


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models) -> ModuleType:
    return openrlhf_models("loss")


@pytest.mark.parametrize(
    ("name", "mine", "theirs"),
    [
        ("DPO sigmoid", {}, {}),
        ("cDPO", {"label_smoothing": 0.2}, {"label_smoothing": 0.2}),
        ("IPO", {"loss_type": "ipo"}, {"ipo": True}),
    ],
)
def test_losses_equal_openrlhfs(agreement, openrlhf, name, mine, theirs):
    loss = openrlhf.DPOLoss(beta=0.3, **theirs)
    compare(
        agreement,
        name,
        "openrlhf",
        lambda x: ours(x, beta=0.3, **mine),
        lambda x: loss(*split(x.sum(-1)), *split(REF))[0],
        convention="of the log-probabilities given, the mean over pairs",
    )


def test_openrlhfs_ipo_ignores_label_smoothing(openrlhf):
    losses = [
        openrlhf.DPOLoss(beta=0.3, ipo=True, label_smoothing=e)(*split(POLICY), *split(REF))[0]
        for e in (0.0, 0.3)
    ]
    assert torch.equal(*losses)


@pytest.mark.usefixtures("torchtune_imports")
def test_default_betas(openrlhf):
    from torchtune.rlhf.loss import DPOLoss

    assert DPOLoss().beta == 0.1
    with pytest.raises(TypeError, match="beta"):
        openrlhf.DPOLoss()
