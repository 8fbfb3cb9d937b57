"""Exercises on distillation: the loss with a temperature, and the loss on the student's texts."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import counted, normal, number, table
from llmref.practice.exercises._laws import padded, slope

_NONE = -float("inf")


def _logits() -> list[tuple[Any, ...]]:
    return [
        (number(0.0, 0.0), number(0.0, 1.0986122886681098), 1.0),
        (number(1.0, 0.0), number(0.0, 2.0), 2.0),
        (number(0.0, 100.0), number(0.0, 0.0), 1.0),
        (number(0.0, 1.0, 3.0), number(900.0, 0.0, 20.0), 4.0),
        (table([0.0, 1.0], [1000.0, 1001.0]), table([1.0, 0.0], [0.0, 2.0]), 1.0),
        (table([0.0, 1.0, _NONE], [2.0, 0.5, 1.0]), table([1.0, 0.0, _NONE], [0, 1, _NONE]), 1.0),
        (2 * normal(2, 3, 5), 2 * normal(2, 3, 5, seed=1), 0.5),
        (3 * normal(3, 2, 7, seed=2), 3 * normal(3, 2, 7, seed=3), 3.0),
    ]


def _tokens() -> list[tuple[Any, ...]]:
    longer = -normal(4, 5).abs(), -normal(4, 5, seed=1).abs()
    return [
        (table([-1.0]), table([-3.0]), counted("1")),
        (table([-1.0, -2.0]), table([-2.0, -0.5]), counted("11")),
        (table([-1.0, -2.0, -0.5]), table([-2.0, -0.5, -1.5]), counted("1.1")),
        (
            table([-1.0, -2.0, -0.5], [-3.0, -1.0, -4.0]),
            table([-2.0, -0.5, -1.5], [-1.0, -2.5, -9.0]),
            counted("111", "11."),
        ),
        (*longer, counted("11111", "11...", "1.111", "1....")),
    ]


def _negative(function: Function, student: Tensor, teacher: Tensor, tau: float) -> bool:
    return bool((function(student, teacher, tau) < -1e-9).any())


def _shifted(function: Function, student: Tensor, teacher: Tensor, tau: float) -> bool:
    return apart(function(student + 3.0, teacher, tau), function(student, teacher, tau))


def _itself(function: Function, student: Tensor, teacher: Tensor, tau: float) -> bool:
    return apart(function(teacher, teacher, tau), torch.zeros(teacher.shape[:-1]).double())


def _hot(function: Function, student: Tensor, teacher: Tensor, tau: float) -> bool:
    s, t = student.clamp(-5, 5), teacher.clamp(-5, 5)
    found = function(s, t, 1e4)
    return bool(((found - (s - t).var(-1, correction=0) / 2).abs() > 1e-2).any())


def _excluded(function: Function, student: Tensor, teacher: Tensor, tau: float) -> bool:
    """The student gives 0 to what the teacher likes best."""
    far = student.scatter(-1, teacher.argmax(-1, keepdim=True), _NONE)
    return bool((function(far, teacher, tau) != torch.inf).any())


def _padded(function: Function, logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> bool:
    return apart(function(*padded(mask, logp, teacher_logp)), function(logp, teacher_logp, mask))


def _agreed(function: Function, logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> bool:
    return apart(function(logp, logp, mask), torch.zeros(()).double())


def _last(function: Function, logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> bool:
    """One nat less from the teacher for the last token costs all tokens of the text."""
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    change = function(logp, teacher_logp - last.double(), mask) - function(logp, teacher_logp, mask)
    return apart(change, torch.where(mask, logp, 0.0).sum(1).mean())


def _charged(function: Function, logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> bool:
    leaf = logp.clone().requires_grad_()
    gradient = slope(function(leaf, teacher_logp, mask), leaf)
    costs = torch.where(mask, logp - teacher_logp, 0.0)
    charges = torch.stack([costs[:, t:].sum(1) for t in range(logp.shape[1])], 1)
    return apart(gradient * len(logp), torch.where(mask, charges, 0.0))


_RATIO = "torch.where(mask, logp - teacher_logp, 0.0)"
_AHEAD = "k1.flip(1).cumsum(1).flip(1)"

KD_LOSS = Exercise(
    name="kd_loss",
    topic="functional/distillation",
    level=1,
    task="From logits of student and teacher and a temperature tau, return tau squared times the "
    "divergence KL(teacher || student) at that temperature, position by position: logits "
    "(..., V), result (...). A token of teacher probability 0 adds 0; one of student probability 0 "
    "alone makes it infinite.",
    inputs=_logits,
    definition="distillation-forward-gradient",
    laws=(
        Law("It is never negative.", "distillation-forward-gradient", _negative),
        Law("A student that is the teacher has loss 0.", "distillation-forward-gradient", _itself),
        Law(
            "A constant added to the logits changes nothing.",
            "distillation-temperature-limit",
            _shifted,
        ),
        Law(
            "At a very high temperature it is half the variance of the difference of logits.",
            "distillation-temperature-limit",
            _hot,
        ),
        Law(
            "A token that the student alone excludes makes it infinite.",
            "distillation-forward-gradient",
            _excluded,
        ),
    ),
    mistakes=(
        Mistake(
            "direction exchanged",
            "The teacher's probabilities weigh the logarithms; F.kl_div takes the student first.",
            (("p = log_p.exp()", "log_p, log_q = log_q, log_p; p = log_p.exp()"),),
        ),
        Mistake(
            "sign of the log-ratio",
            "The divergence is the mean of teacher over student: never negative.",
            (("log_p - log_q", "log_q - log_p"),),
        ),
        Mistake(
            "tau in place of its square",
            "One factor comes from the derivative of s / tau, one from the difference of "
            "probabilities, which is of order 1 / tau.",
            (("tau**2", "tau"),),
        ),
        Mistake(
            "temperature on the teacher alone",
            "Both are softened, or the student has to learn the softened teacher.",
            (("(student / tau)", "student"),),
        ),
        Mistake(
            "student not normalised",
            "Logits are no log-probabilities: the logarithm of their sum is missing.",
            (("(student / tau).log_softmax(-1)", "student / tau"),),
        ),
        Mistake(
            "weights at temperature 1",
            "The divergence is of two distributions, and the first is softened too.",
            (("p = log_p.exp()", "p = teacher.softmax(-1)"),),
        ),
        Mistake(
            "mean over the vocabulary",
            "An expectation is a sum, weighted by probabilities: reduction='mean' is V times less.",
            ((".sum(-1)", ".mean(-1)"),),
        ),
        Mistake(
            "0 log 0 as NaN",
            "-inf - (-inf) is NaN, and NaN times 0 too: mask before you multiply.",
            (("torch.where(p > 0, log_p - log_q, 0.0)", "log_p - log_q"),),
        ),
        Mistake(
            "0 times -inf in F.kl_div",
            "F.kl_div with probabilities treats 0 log 0, but 0 times a student's -inf is NaN, "
            "and so is a teacher's -inf with log_target=True: mask.",
            (
                (
                    "torch.where(p > 0, log_p - log_q, 0.0)",
                    "torch.where(p > 0, log_p, 0.0) - log_q",
                ),
            ),
        ),
        Mistake(
            "probabilities kept above 1e-8 by a clamp",
            "It caps the loss of a student that is far off, and takes its gradient away; "
            "log-softmax needs no such number.",
            (("(student / tau).log_softmax(-1)", "(student / tau).softmax(-1).clamp(1e-8).log()"),),
        ),
    ),
    conventions=(
        Convention(
            "without the squared temperature",
            "TRL's GKDTrainer divides by the temperature and multiplies by nothing, so its "
            "gradient shrinks with it. To match, multiply by tau squared.",
            (("tau**2 * (p", "(p"),),
        ),
        Convention(
            "cross-entropy in place of the divergence",
            "torchtune's ForwardKLLoss is the cross-entropy with the teacher's probabilities: the "
            "same gradient, larger by the teacher's entropy. To match, subtract that.",
            (("log_p - log_q", "-log_q"),),
        ),
    ),
    hints=(
        "Two softmaxes, both of logits divided by the temperature.",
        "The teacher's distribution weighs the difference of the logarithms.",
        "What is 0 times the logarithm of 0 here, and what is it in floating point?",
    ),
    branches={
        "a token of probability 0 in both": lambda student, teacher, tau: bool(
            (student.isinf() & teacher.isinf()).any()
        ),
        "a token of probability 0 in the teacher alone": lambda student, teacher, tau: bool(
            (student.isfinite() & teacher.isinf()).any()
        ),
        "a student far from the teacher": lambda student, teacher, tau: bool(
            ((student - teacher).nan_to_num(0.0, 0.0, 0.0).abs().amax() / tau) == 100
        ),
        "a probability that underflows": lambda student, teacher, tau: bool(
            (teacher.nan_to_num(neginf=0.0).amax() / tau) > 100
        ),
        "a temperature above 1": lambda student, teacher, tau: tau > 1,
        "a temperature below 1": lambda student, teacher, tau: tau < 1,
    },
    fixed=("teacher",),
)

ON_POLICY_LOSS = Exercise(
    name="on_policy_loss",
    topic="functional/distillation",
    level=2,
    task=(
        "The student has drawn texts; logp and teacher_logp are the log-probabilities of their "
        "tokens, and mask says which count, (N, T) each. Charge each token the sum of the "
        "log-ratios (student over teacher) from it to the end, held fixed, times its logp; sum "
        "over tokens, mean over texts."
    ),
    inputs=_tokens,
    definition="distillation-on-policy-gradient",
    laws=(
        Law("Padding changes nothing.", "distillation-on-policy-gradient", _padded),
        Law(
            "A student that is the teacher is charged nothing.",
            "distillation-on-policy-gradient",
            _agreed,
        ),
        Law(
            "What the last token costs is charged to every token of its text.",
            "distillation-on-policy-gradient",
            _last,
        ),
        Law(
            "The gradient in a log-probability is what its token is charged, over the texts.",
            "distillation-on-policy-gradient",
            _charged,
        ),
    ),
    mistakes=(
        Mistake(
            "log-ratio the wrong way round",
            "As a cost it is student over teacher; otherwise the student moves away.",
            (("logp - teacher_logp", "teacher_logp - logp"),),
        ),
        Mistake(
            "summed from the start",
            "What precedes a token earns it nothing; what follows it does.",
            ((_AHEAD, "k1.cumsum(1)"),),
        ),
        Mistake(
            "later tokens alone",
            "The cost of a token depends on the token itself too.",
            ((_AHEAD, _AHEAD + " - k1"),),
        ),
        Mistake(
            "padding charged",
            "Log-probabilities behind the end of a text are of no token.",
            ((_RATIO, "(logp - teacher_logp)"),),
        ),
        Mistake(
            "the teacher's log-probability alone",
            "Without its own log-probability in the cost the student collapses onto the teacher's "
            "most probable text.",
            ((_RATIO, "torch.where(mask, -teacher_logp, 0.0)"),),
        ),
        Mistake(
            "k3 as the cost",
            "Its mean is the same divergence, but as a reward it switches itself off.",
            (
                (
                    _RATIO,
                    "torch.where(mask, (teacher_logp - logp).expm1() + logp - teacher_logp, 0.0)",
                ),
            ),
        ),
        Mistake(
            "divided by the length",
            "The student chooses the length: divided by it, the loss favours long texts.",
            ((".sum(1).mean()", ".sum(1).div(mask.sum(1)).mean()"),),
        ),
        Mistake(
            "mean over all positions",
            "That counts padding, and divides by the longest text.",
            ((".sum(1).mean()", ".mean()"),),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "a cost that carries a gradient",
            "The log-ratio is a cost, a number: with a gradient the loss is another objective.",
            ((".detach()", ""),),
        ),
        Mistake(
            "no gradient at all",
            "The cost is held fixed, and logp itself carries the gradient.",
            (("ahead * logp", "ahead * logp.detach()"),),
        ),
    ),
    conventions=(
        Convention(
            "each token charged for itself",
            "verl's k1 with policy gradient, and every trainer with a discount of 0: the gradient "
            "of the divergences at the visited states. To match, add the costs that follow.",
            ((_AHEAD, "k1"),),
        ),
        Convention(
            "each token charged for the whole text",
            "The same expected gradient, with more variance. To match, leave out what precedes.",
            ((_AHEAD, "k1.sum(1, keepdim=True)"),),
        ),
    ),
    hints=(
        "The log-ratio of a token is a number here, a cost; where does the gradient flow?",
        "A token changes the states of all that follow it.",
        "A sum from the end is a cumulative sum of the flipped row.",
    ),
    branches={
        "padding": lambda logp, teacher_logp, mask: not mask.all(),
        "texts of different lengths": lambda logp, teacher_logp, mask: (
            len(set(mask.sum(1).tolist())) > 1
        ),
        "log-ratios of both signs": lambda logp, teacher_logp, mask: bool(
            (logp > teacher_logp).any() and (logp < teacher_logp).any()
        ),
    },
    fixed=("teacher_logp",),
)

EXERCISES = (KD_LOSS, ON_POLICY_LOSS)
