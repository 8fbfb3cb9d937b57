"""Exercise on the estimates of a KL divergence from samples."""

from typing import Any

from torch import Tensor

from llmref.practice.exercise import Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows, table


def _samples() -> list[tuple[Any, ...]]:
    return [
        (number(-1.0), number(-2.0)),
        (number(-2.0), number(-1.0)),
        (number(-1.0, -3.0), number(-1.0, -0.5)),
        (number(-0.5, -60.0), number(-50.5, -58.0)),
        (table([-1.0, -2.0, -0.25], [-3.0, -1.5, -2.0]), table([-1.5, -2.0, -1.0], [-2, -3, -1])),
        (-rows(3, 5).square(), -rows(3, 5, seed=1).square()),
    ]


def _negative(function: Function, logp: Tensor, ref_logp: Tensor) -> bool:
    _, k2, k3 = function(logp, ref_logp)
    return bool((k2 < -1e-9).any() or (k3 < -1e-9).any())


def _one_mean(function: Function, logp: Tensor, ref_logp: Tensor) -> bool:
    p = logp.clamp(-6).flatten().log_softmax(0)
    q = ref_logp.clamp(-6).flatten().log_softmax(0)
    k1, _, k3 = function(p, q)
    return apart((p.exp() * k1).sum(), (p.exp() * k3).sum())


def _not_kl(function: Function, logp: Tensor, ref_logp: Tensor) -> bool:
    p = logp.clamp(-6).flatten().log_softmax(0)
    q = ref_logp.clamp(-6).flatten().log_softmax(0)
    return bool((p.exp() * function(p, q)[0]).sum() < -1e-9)


def _near(function: Function, logp: Tensor, ref_logp: Tensor) -> bool:
    _, k2, k3 = function(logp, logp + 1e-3)
    return bool(((k2 - k3).abs() > 1e-9).any())


KL_ESTIMATES = Exercise(
    name="kl_estimates",
    topic="rl/kl",
    level=1,
    task=(
        "From log-probabilities of sampled tokens under the policy, which drew them, and the "
        "reference, of one shape, return the estimates k1, k2 and k3 of KL(policy || reference), "
        "entry by entry."
    ),
    inputs=_samples,
    definition="kl-estimators",
    laws=(
        Law("k2 and k3 are never negative.", "kl-k3-bregman", _negative),
        Law("Averaged over what the policy draws, k1 is not negative.", "kl-unbiased", _not_kl),
        Law(
            "Averaged over what the policy draws, k1 and k3 are the same.",
            "kl-unbiased",
            _one_mean,
        ),
        Law("For nearly equal policies k2 and k3 agree.", "kl-precision", _near),
    ),
    mistakes=(
        Mistake(
            "log-ratio the wrong way round",
            "The samples come from the policy, so k3 needs reference over policy; k2 does not "
            "notice.",
            (("r = ref_logp - logp", "r = logp - ref_logp"),),
        ),
        Mistake(
            "the sign of k1",
            "k1 is the log of policy over reference: on average it is the divergence.",
            (("k1 = -r", "k1 = r"),),
        ),
        Mistake(
            "r squared without the half",
            "The series of k3 starts with half the square, and so does the divergence.",
            (("r**2 / 2", "r**2"),),
        ),
        Mistake(
            "1 not subtracted in k3",
            "At equal policies the ratio is 1 and the estimate 0.",
            (("torch.expm1(r) - r", "torch.exp(r) - r"),),
        ),
        Mistake(
            "the ratio of k3 upside down",
            "That ratio has the mean 1 under samples of the reference, not of the policy.",
            (("torch.expm1(r) - r", "torch.expm1(-r) + r"),),
        ),
        Mistake(
            "the log-ratio added in k3",
            "Subtracted, it takes away the slope: only then is the estimate never negative.",
            (("torch.expm1(r) - r", "torch.expm1(r) + r"),),
        ),
        Mistake(
            "size in place of the log-ratio",
            "k1 may be negative: without its sign it is no longer unbiased.",
            (("k1 = -r", "k1 = r.abs()"),),
        ),
    ),
    hints=(
        "Everything is a function of the log of reference over policy.",
        "k1 is unbiased, k2 is a square, and k3 is k1 plus something of mean 0.",
        "The mean of reference over policy, under the policy's samples, is 1.",
    ),
    branches={
        "a log-ratio that underflows": lambda logp, ref: bool((ref - logp < -40).any()),
        "both signs": lambda logp, ref: bool((ref > logp).any() and (ref < logp).any()),
        "an equal pair": lambda logp, ref: bool((ref == logp).any()),
    },
    fixed=("ref_logp",),
)

EXERCISES = (KL_ESTIMATES,)
