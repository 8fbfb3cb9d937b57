"""Exercises on losses beside DPO's: KTO, the odds ratio of ORPO, SimPO."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows
from llmref.practice.exercises._laws import passes, slope

_UP, _DOWN = torch.tensor([True]), torch.tensor([False])


def _singles() -> list[tuple[Any, ...]]:
    mixed = torch.tensor([True, False, False, True, False])
    policy, ref = (-5 * rows(5, seed=seed).abs() for seed in range(2))
    return [
        (number(-2.0), number(-3.0), _UP, torch.tensor(0.0).double(), 0.5, 1.0, 1.0),
        (number(-2.0), number(-3.0), _DOWN, torch.tensor(0.25).double(), 0.5, 1.0, 2.0),
        (
            number(-9.0, -1.0),
            number(-3.0, -4.0),
            mixed[:2],
            torch.tensor(1.5).double(),
            2,
            1.2,
            0.8,
        ),
        (policy, ref, mixed, torch.tensor(0.7).double(), 0.1, 1.5, 0.5),
    ]


def _bounded(
    function: Function, policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, *rest: float
) -> bool:
    _, w_d, w_u = rest
    far = function(policy - 1e4, ref, up, kl, *rest)
    return apart(far, torch.where(up, w_d, 0.0 * w_u).double().mean())


def _moved(
    function: Function, policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, *rest: float
) -> bool:
    once = function(policy, ref, up, kl, *rest)
    return apart(function(policy + 1, ref + 0.5, up, kl + 0.5, *rest), once)


def _exchanged(
    function: Function, policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, *rest: float
) -> bool:
    """A thumb up costs what is left of its weight to a thumb down of that weight."""
    beta, w_d, w_u = rest
    both = function(policy, ref, up, kl, *rest) + function(policy, ref, ~up, kl, beta, w_u, w_d)
    return apart(both, torch.where(up, w_d, w_u).double().mean())


def _attached(
    function: Function, policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, *rest: float
) -> bool:
    leaf = kl.clone().requires_grad_()
    return passes(function(policy, ref, up, leaf, *rest), leaf)


KTO_LOSS = Exercise(
    name="kto_loss",
    topic="rl/preference",
    level=1,
    task="KTO's loss, a mean over single responses: log-probabilities of whole responses under "
    "policy and reference, each (N,); desirable (N,), True for a thumb up; the baseline kl, a "
    "tensor with one number, 0 or more, that has no gradient; beta, and the weights of desirable "
    "and undesirable responses.",
    inputs=_singles,
    definition="preference-kto-gradient",
    laws=(
        Law(
            "A response that the policy has given up costs its weight if it was liked, else 0.",
            "preference-kto-gradient",
            _bounded,
        ),
        Law(
            "Only the log-ratio minus the baseline counts.",
            "preference-kto-gradient",
            _moved,
        ),
        Law(
            "The same weight up and down: the two losses of a response add up to it.",
            "preference-kto-gradient",
            _exchanged,
        ),
        Law("The baseline is held fixed: no gradient.", "preference-kto-gradient", _attached),
    ),
    mistakes=(
        Mistake(
            "no baseline",
            "The log-ratio is compared with what the policy gains on average.",
            ((" - kl.detach()", ""),),
        ),
        Mistake(
            "baseline added",
            "It is subtracted: what is liked has to beat it.",
            (("- kl.detach()", "+ kl.detach()"),),
        ),
        Mistake(
            "beta on the log-ratio alone",
            "The baseline is a log-ratio too, and beta multiplies both.",
            (("beta * (policy - ref - kl.detach())", "beta * (policy - ref) - kl.detach()"),),
        ),
        Mistake(
            "thumbs exchanged",
            "A liked response costs less as it becomes likelier.",
            (("(desirable,", "(~desirable,"),),
        ),
        Mistake(
            "one sign for both",
            "What is not liked is pushed down: its sigmoid has the other sign.",
            (("w_u * torch.sigmoid(h)", "w_u * torch.sigmoid(-h)"),),
        ),
        Mistake(
            "weights exchanged",
            "The first weight belongs to the liked responses.",
            (("w_d * torch.sigmoid(-h), w_u *", "w_u * torch.sigmoid(-h), w_d *"),),
        ),
        Mistake(
            "logistic loss",
            "A logarithm makes the worst examples count most; KTO gives them up.",
            (
                ("w_d * torch.sigmoid(-h)", "-w_d * logsigmoid(h)"),
                ("w_u * torch.sigmoid(h)", "-w_u * logsigmoid(-h)"),
            ),
        ),
        Mistake(
            "no reference",
            "Without it the loss rewards what was likely before any training.",
            (("policy - ref", "policy"),),
        ),
        Mistake(
            "sum",
            "The loss is a mean over responses.",
            (("losses.mean()", "losses.sum()"),),
        ),
        Mistake(
            "a mean for each kind",
            "One mean over all responses: the weights balance how many there are of a kind.",
            (
                (
                    "losses.mean()",
                    "sum(losses[it].mean() for it in (desirable, ~desirable) if it.any())",
                ),
            ),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "the baseline attached",
            "It may come from the policy: then its gradient would push the other way.",
            (("kl.detach()", "kl"),),
        ),
    ),
    conventions=(
        Convention(
            "without the constant",
            "Some write minus sigma of h, which lacks the constant weight; the gradient is the "
            "same. To match, write 1 minus sigma of h.",
            (
                ("w_d * torch.sigmoid(-h)", "-w_d * torch.sigmoid(h)"),
                ("w_u * torch.sigmoid(h)", "-w_u * torch.sigmoid(-h)"),
            ),
        ),
    ),
    hints=(
        "What is compared: the log-ratio of policy to reference, minus the baseline, times beta.",
        "A sigmoid of it, falling for what was liked, rising for what was not.",
        "Each kind has its weight; then the mean over all responses.",
    ),
    branches={
        "a thumb up": lambda policy, ref, up, *_: bool(up.any()),
        "a thumb down": lambda policy, ref, up, *_: not bool(up.all()),
        "both in one batch": lambda policy, ref, up, *_: bool(up.any() and not up.all()),
        "a baseline that is not 0": lambda policy, ref, up, kl, *_: bool(kl > 0),
    },
    fixed=("ref",),
)


def _pairs() -> list[tuple[Any, ...]]:
    lengths = torch.tensor([[3, 7, 2, 5, 1], [4, 2, 6, 3, 2]])
    return [
        (number(-1.0), number(-3.0), torch.tensor([1]), torch.tensor([1])),
        (number(-0.5), number(-2.0), torch.tensor([2]), torch.tensor([1])),
        (number(-2.0), number(-2e-18), torch.tensor([4]), torch.tensor([2])),
        (number(-80.0, -0.2), number(-3.0, -300.0), *torch.tensor([[40, 2], [1, 3]])),
        (*(-3 * rows(5, seed=seed).abs() - 0.1 for seed in range(2)), *lengths),
    ]


def _exact_ratio(function: Function, w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> bool:
    """Loss of each pair from probabilities: log(1 + odds of r / odds of w)."""
    one, two = w / n_w, r / n_l
    odds = (two - one).exp() * torch.expm1(one) / torch.expm1(two)
    return apart(function(w, r, n_w, n_l), odds.log1p().mean())


def _both_orders(function: Function, w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> bool:
    """One pair: the probabilities of its two orders add up to 1."""
    if len(w) > 1:
        return False
    there, back = function(w, r, n_w, n_l), function(r, w, n_l, n_w)
    return apart((-there).exp() + (-back).exp(), torch.ones_like(there))


def _no_slope(function: Function, w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> bool:
    leaves = [it.clone().requires_grad_() for it in (w, r)]
    return not all(slope(function(*leaves, n_w, n_l), it).isfinite().all() for it in leaves)


def _infinite(function: Function, *given: Tensor) -> bool:
    return not bool(function(*given).isfinite().all())


ODDS_RATIO_LOSS = Exercise(
    name="odds_ratio_loss",
    topic="rl/preference",
    level=2,
    task="The part of ORPO's loss that ranks a pair, a mean over pairs and positive: from the "
    "log-probabilities of whole chosen and rejected responses, each (N,), and their numbers of "
    "tokens. A probability may be almost 1.",
    inputs=_pairs,
    definition="preference-orpo-gradient",
    laws=(
        Law("A probability near 1 makes nothing infinite.", "preference-log1mexp", _infinite),
        Law("A probability near 1 makes no gradient infinite.", "preference-log1mexp", _no_slope),
        Law(
            "It is the log of 1 plus the ratio of odds, rejected to chosen.",
            "preference-orpo-gradient",
            _exact_ratio,
        ),
        Law(
            "The probabilities of the two orders of a pair add up to 1.",
            "preference-orpo-gradient",
            _both_orders,
        ),
    ),
    mistakes=(
        Mistake(
            "sums in place of means",
            "P is the geometric mean of the tokens' probabilities; that of a whole response is "
            "so small that its odds are itself.",
            (("chosen / chosen_lengths", "chosen"), ("rejected / rejected_lengths", "rejected")),
        ),
        Mistake(
            "1 - P lost",
            "That is a ratio of probabilities, not of odds.",
            (
                (" - torch.log(-torch.expm1(mean_w))", ""),
                (" - torch.log(-torch.expm1(mean_l))", ""),
            ),
        ),
        Mistake(
            "1 - P multiplied",
            "Odds are P divided by 1 - P.",
            (
                ("mean_w - torch.log(", "mean_w + torch.log("),
                ("mean_l - torch.log(", "mean_l + torch.log("),
            ),
        ),
        Mistake(
            "log1p of -P",
            "It is still minus infinity where P rounds to 1; the digits are in expm1.",
            (
                ("torch.log(-torch.expm1(mean_w))", "torch.log1p(-mean_w.exp())"),
                ("torch.log(-torch.expm1(mean_l))", "torch.log1p(-mean_l.exp())"),
            ),
        ),
        Mistake(
            "P kept below 1 by a clamp",
            "A clamp at 1 - 1e-6 changes the odds and takes the gradient away.",
            (
                (
                    "torch.log(-torch.expm1(mean_w))",
                    "torch.log1p(-mean_w.exp().clamp(max=1 - 1e-6))",
                ),
                (
                    "torch.log(-torch.expm1(mean_l))",
                    "torch.log1p(-mean_l.exp().clamp(max=1 - 1e-6))",
                ),
            ),
        ),
        Mistake(
            "chosen and rejected exchanged",
            "The loss falls as the chosen response becomes likelier.",
            (("odds_w - odds_l", "odds_l - odds_w"),),
        ),
        Mistake(
            "one length for both",
            "Each response has its own number of tokens.",
            (("rejected / rejected_lengths", "rejected / chosen_lengths"),),
        ),
        Mistake(
            "sum over pairs",
            "The loss is a mean over pairs.",
            (("(odds_w - odds_l).mean()", "(odds_w - odds_l).sum()"),),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "two branches, both differentiated",
            "Autograd multiplies the infinite derivative of the branch that is not taken by 0, "
            "which is NaN: clamp inside that branch, or use one formula.",
            (
                (
                    "torch.log(-torch.expm1(mean_w))",
                    "torch.where(mean_w > -0.693, torch.log(-torch.expm1(mean_w)), "
                    "torch.log1p(-mean_w.exp()))",
                ),
                (
                    "torch.log(-torch.expm1(mean_l))",
                    "torch.where(mean_l > -0.693, torch.log(-torch.expm1(mean_l)), "
                    "torch.log1p(-mean_l.exp()))",
                ),
            ),
        ),
    ),
    conventions=(
        Convention(
            "the negative",
            "TRL returns the log of the sigmoid, at most 0, and subtracts it. To match, negate.",
            (("-logsigmoid(odds_w", "logsigmoid(odds_w"),),
        ),
    ),
    hints=(
        "Whose odds? Those of the geometric mean of the tokens' probabilities.",
        "Work with logarithms: of P it is the mean, of 1 - P it needs care where P is almost 1.",
        "Minus the log of the sigmoid of the difference of the two log-odds.",
    ),
    branches={
        "a probability that rounds to 1": lambda w, r, n_w, n_l: bool((r / n_l > -1e-17).any()),
        "several pairs": lambda w, r, n_w, n_l: len(w) > 1,
        "lengths that differ": lambda w, r, n_w, n_l: bool((n_w != n_l).any()),
    },
)


def _margins() -> list[tuple[Any, ...]]:
    lengths = torch.tensor([[3, 7, 2, 5, 1], [4, 2, 6, 3, 2]])
    return [
        (number(-1.0), number(-3.0), torch.tensor([1]), torch.tensor([1]), 2.0, 0.0),
        (number(-6.0), number(-2.0), torch.tensor([3]), torch.tensor([2]), 2.5, 1.5),
        (number(-900.0, -1.0), number(-1.0, -900.0), *torch.tensor([[1, 2], [2, 1]]), 10.0, 0.5),
        (*(-3 * rows(5, seed=seed).abs() for seed in range(2)), *lengths, 2.0, 0.6),
    ]


def _at_the_margin(
    function: Function,
    w: Tensor,
    r: Tensor,
    n_w: Tensor,
    n_l: Tensor,
    *rest: float,
) -> bool:
    """A gap of gamma / beta costs log 2."""
    beta, gamma = rest
    level = n_w * (r / n_l + gamma / beta)
    return apart(function(level, r, n_w, n_l, beta, gamma), number(math.log(2))[0])


def _both_means(
    function: Function,
    w: Tensor,
    r: Tensor,
    n_w: Tensor,
    n_l: Tensor,
    *rest: float,
) -> bool:
    once = function(w, r, n_w, n_l, *rest)
    return apart(function(w - n_w, r - n_l, n_w, n_l, *rest), once)


SIMPO_LOSS = Exercise(
    name="simpo_loss",
    topic="rl/preference",
    level=1,
    task="SimPO's loss, a mean over pairs: from the log-probabilities of whole chosen and rejected "
    "responses, each (N,), their numbers of tokens, beta, and the margin gamma of the loss itself.",
    inputs=_margins,
    definition="preference-simpo",
    laws=(
        Law("Large margins overflow nothing.", "preference-simpo", _infinite),
        Law("A gap of gamma / beta costs log 2.", "preference-simpo", _at_the_margin),
        Law("A number added to both means changes nothing.", "preference-simpo", _both_means),
    ),
    mistakes=(
        Mistake(
            "gamma multiplied by beta",
            "The paper's margin stands beside beta times the gap.",
            (("beta * gap - gamma", "beta * (gap - gamma)"),),
        ),
        Mistake(
            "margin added",
            "The gap has to exceed the margin, so it is subtracted.",
            (("beta * gap - gamma", "beta * gap + gamma"),),
        ),
        Mistake(
            "sums in place of means",
            "Long responses would have larger gaps for their length alone.",
            (("chosen / chosen_lengths - rejected / rejected_lengths", "chosen - rejected"),),
        ),
        Mistake(
            "one length for both",
            "Each response has its own number of tokens.",
            (("rejected / rejected_lengths", "rejected / chosen_lengths"),),
        ),
        Mistake(
            "chosen and rejected exchanged",
            "The loss falls as the chosen response becomes likelier.",
            (
                (
                    "chosen / chosen_lengths - rejected / rejected_lengths",
                    "rejected / rejected_lengths - chosen / chosen_lengths",
                ),
            ),
        ),
        Mistake(
            "log of the sigmoid",
            "The sigmoid of -1000 is 0 in floating point, and exp(1000) is infinite; log-sigmoid "
            "and softplus form neither.",
            (("logsigmoid(", "torch.log(torch.sigmoid("), (".mean()", ").mean()")),
        ),
    ),
    hints=(
        "The reward of a response is beta times its mean log-probability.",
        "The chosen one should win by the margin: subtract it before the sigmoid.",
    ),
    branches={
        "no margin": lambda w, r, n_w, n_l, beta, gamma: gamma == 0,
        "a margin that overflows": lambda w, r, n_w, n_l, beta, gamma: bool(
            (beta * (w / n_w - r / n_l) < -1000).any()
        ),
        "lengths that differ": lambda w, r, n_w, n_l, *_: bool((n_w != n_l).any()),
    },
)

EXERCISES = (KTO_LOSS, ODDS_RATIO_LOSS, SIMPO_LOSS)
