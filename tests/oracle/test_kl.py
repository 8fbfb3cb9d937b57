"""KL divergences and estimators against torch, verl, OpenRLHF and TRL."""

from types import ModuleType

import pytest
import torch
from torch.nn import functional

from llmref.rl.kl import kl_categorical, kl_estimate, kl_gaussian, kl_loss, kl_reward

from .trl_stub import trl_grpo_loss

TOPIC = "rl/kl"
LENGTHS = torch.tensor([7, 4, 1])
MASK = torch.arange(7) < LENGTHS.unsqueeze(1)  # (3, 7)


def token_logps(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Log-probabilities of 3 x 7 tokens out of a vocabulary of 5."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 7, 5, dtype=torch.float64, generator=generator)
    return logits.log_softmax(-1)[..., 0].to(dtype)


LOGP, REF, OLD = (token_logps(seed) for seed in (0, 1, 2))


def grad(function, logp: torch.Tensor = LOGP) -> torch.Tensor:
    leaf = logp.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


@pytest.fixture(scope="module")
def openrlhf(openrlhf_models) -> ModuleType:
    return openrlhf_models("utils")


# ---------------------------------------------------------------- torch


def test_categorical_equals_torch_distributions(agreement):
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(2, 3, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    both = [torch.distributions.Categorical(logits=x) for x in (p, q)]
    theirs = torch.distributions.kl_divergence(*both)
    agreement(
        "KL of two categorical distributions",
        "torch",
        kl_categorical(p, q),
        theirs,
        atol=1e-12,
        convention="distributions.kl_divergence(p, q) is KL(p||q)",
    )
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    agreement(
        "KL of two categorical distributions, from log-probabilities",
        "torch",
        kl_categorical(p, q),
        functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1),
        atol=1e-12,
        convention="F.kl_div(input=log q, target=log p, log_target=True): q comes first",
    )


def test_excluded_outcomes_agree_with_torch_distributions():
    fair, certain = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    for p, q in ((fair, certain), (certain, fair), (certain, certain)):
        theirs = torch.distributions.kl_divergence(
            torch.distributions.Categorical(p), torch.distributions.Categorical(q)
        )
        torch.testing.assert_close(kl_categorical(p.log(), q.log()), theirs, atol=1e-6, rtol=0)


def test_gaussian_equals_torch_distributions(agreement):
    generator = torch.Generator().manual_seed(0)
    mu_p, mu_q = (torch.randn(2, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    std_p, std_q = (
        torch.rand(2, 5, dtype=torch.float64, generator=generator) + 0.3 for _ in range(2)
    )
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu_p, std_p), torch.distributions.Normal(mu_q, std_q)
    )
    agreement(
        "KL of two normal distributions",
        "torch",
        kl_gaussian(mu_p, std_p, mu_q, std_q),
        theirs,
        atol=1e-12,
        convention="Normal(mean, standard deviation)",
    )


# ---------------------------------------------------------------- verl


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_equal_verl_inside_its_clamp(agreement, verl, kind):
    r = REF - LOGP
    assert r.max() < 2.6
    assert r.min() > -11

    def ours(x):
        return kl_estimate(x, REF, kind)

    def theirs(x):
        return verl.kl_penalty(x, REF, kind)

    convention = {
        "k3": "k3 alone is clamped: r to 20 either way, the value to 10; compared where it is not"
    }.get(kind, "not clamped")
    for f, g in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(f"{kind}, value and gradient", "verl", f, g, atol=1e-12, convention=convention)


def test_verls_clamp_stops_the_gradient_where_ours_is_largest(verl):
    """Its value passes 10 at r = 2.6109 and at r = -11."""
    r = torch.tensor([2.6, 2.62, -10.9, -11.1], dtype=torch.float64)
    logp = torch.full((4,), -12.0, dtype=torch.float64)
    theirs = grad(lambda x: verl.kl_penalty(x, (logp + r), "k3"), logp)
    ours = grad(lambda x: kl_estimate(x, logp + r, "k3"), logp)
    assert (theirs == 0).tolist() == [False, True, False, True]
    torch.testing.assert_close(theirs[[0, 2]], ours[[0, 2]], atol=1e-12, rtol=0)
    assert ours[1].item() == pytest.approx(1 - torch.tensor(2.62).double().exp().item(), rel=1e-6)


def test_verls_plus_suffix_is_the_value_of_k3_with_the_gradient_of_k2(agreement, verl):
    value, gradient = kl_estimate(LOGP, REF, "k3"), grad(lambda x: kl_estimate(x, REF, "k2"))
    theirs = grad(lambda x: verl.kl_penalty(x, REF, "k3+"))
    for f, g in ((value, verl.kl_penalty(LOGP, REF, "k3+")), (gradient, theirs)):
        agreement(
            "value of k3 with the gradient of k2", "verl", f, g, atol=1e-12, convention="'k3+'"
        )


def test_reward_penalty_equals_verls_kl(agreement, verl):
    agreement(
        "k1 in the reward",
        "verl",
        kl_reward(LOGP, REF, MASK),
        torch.where(MASK, verl.kl_penalty(LOGP, REF, "kl"), 0.0),
        atol=1e-12,
        convention="'kl' is k1; the mask is applied outside",
    )


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_penalty_in_the_loss_equals_verls(agreement, verl, mode):
    def theirs(x):
        return verl.agg_loss(verl.kl_penalty(x, REF, "k3"), MASK.double(), mode)

    def ours(x):
        return kl_loss(x, REF, MASK, kind="k3", agg=mode)

    for f, g in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            "k3 in the loss, value and gradient",
            "verl",
            f,
            g,
            atol=1e-7,  # verl adds 1e-8 to the lengths
            convention="low_var_kl, no importance ratio; three of its loss_agg_modes",
        )


# ---------------------------------------------------------------- OpenRLHF


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_equal_openrlhf_inside_its_clamp(agreement, openrlhf, kind):
    def ours(x):
        return kl_estimate(x, REF, kind)

    def theirs(x):
        return openrlhf.compute_approx_kl(x, REF, kl_estimator=kind)

    for f, g in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(
            f"{kind}, value and gradient",
            "openrlhf",
            f,
            g,
            atol=5e-6,  # float32, values up to 6.5 and gradients up to 9
            convention="in float32; the value is clamped to 10 either way",
        )


@pytest.mark.parametrize(
    ("kind", "alive", "dead"),
    [
        ("k1", [9.9, -9.9], [10.1, -10.1]),
        ("k2", [4.46, -4.46], [4.48, -4.48]),
        ("k3", [2.61, -10.9], [2.62, -11.1]),
    ],
)
def test_openrlhfs_clamp_stops_the_gradient(openrlhf, kind, alive, dead):
    for values, stops in ((alive, False), (dead, True)):
        r = torch.tensor(values, dtype=torch.float64)
        logp = torch.full_like(r, -20.0)
        theirs = grad(
            lambda x, r=r, logp=logp: openrlhf.compute_approx_kl(x, logp + r, kl_estimator=kind),
            logp,
        )
        assert bool((theirs == 0).all()) is stops
        assert (grad(lambda x, r=r, logp=logp: kl_estimate(x, logp + r, kind), logp) != 0).all()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_openrlhfs_unbiased_gradient_is_k2_under_a_detached_token_ratio(agreement, openrlhf, kind):
    def ours(x):
        return kl_loss(
            x,
            REF,
            MASK,
            kind="k2",
            old_logp=OLD,
            ratio="detached",
            ratio_scope="token",
            agg="seq-mean-token-sum",
        )

    def theirs(x):
        tokens = openrlhf.compute_approx_kl(x, REF, OLD, kl_estimator=kind, unbiased_gradient=True)
        return torch.where(MASK, tokens, 0.0).sum(-1).mean()

    assert (LOGP - OLD).max() < 10
    agreement(
        "k2 under a detached token ratio, gradient",
        "openrlhf",
        grad(ours),
        grad(theirs),
        atol=1e-6,
        convention="unbiased_gradient=True, for each kl_estimator; in float32",
    )


# ---------------------------------------------------------------- TRL


def trl_kl(logp: torch.Tensor, old: torch.Tensor, loss_type: str, *, ratio: bool) -> torch.Tensor:
    """TRL's GRPO loss with zero advantages and beta = 1: the KL term is all that is left."""
    nothing = torch.zeros(len(logp), dtype=logp.dtype)
    options = {"loss_type": loss_type, "beta": 1.0, "correct": ratio}
    return trl_grpo_loss(logp, old, nothing, MASK, ref=REF, **options)


@pytest.mark.parametrize(
    ("loss_type", "options"),
    [
        ("grpo", {"agg": "seq-mean-token-mean"}),
        ("bnpo", {"agg": "token-mean"}),
        ("dapo", {"agg": "token-mean"}),
        ("dr_grpo", {"agg": "constant", "norm": 7.0}),
    ],
)
@pytest.mark.parametrize("ratio", ["none", "attached"])
def test_penalty_in_the_loss_equals_trls(agreement, loss_type, options, ratio):
    extra = {"old_logp": OLD, "ratio": ratio, "ratio_scope": "token"} if ratio != "none" else {}

    def ours(x):
        return kl_loss(x, REF, MASK, kind="k3", **extra, **options)

    def theirs(x):
        return trl_kl(x, OLD, loss_type, ratio=ratio == "attached")

    convention = (
        f"use_bias_correction_kl={bool(extra)}{', the default' if extra else ''}; "
        "loss_type grpo, bnpo, dapo and dr_grpo; advantages 0, beta 1"
    )
    name = "k3 in the loss" + (" under the attached token ratio" if extra else "")
    for f, g in ((ours(LOGP), theirs(LOGP)), (grad(ours), grad(theirs))):
        agreement(f"{name}, value and gradient", "trl", f, g, atol=1e-12, convention=convention)


def test_trls_default_multiplies_the_penalty_by_the_ratio():
    from trl import GRPOConfig

    assert GRPOConfig.__dataclass_fields__["use_bias_correction_kl"].default is True
    assert GRPOConfig.__dataclass_fields__["beta"].default == 0.0
