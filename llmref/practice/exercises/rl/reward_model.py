"""Exercises on reward models: the loss of pairs, the loss of rankings, the score of best-of-n."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table


def _pairs() -> list[tuple[Any, ...]]:
    return [
        (number(2.0), number(2.0), number(0.0)),
        (number(7.0), number(0.0), number(0.0)),
        (number(2.0), number(1.0), number(0.5)),
        (number(3.0, -1.0), number(1.0, 2.0), number(0.0, 1.0)),
        (number(-900.0, 0.0), number(0.0, -900.0), number(1.0, 1.0)),
        (normal(5), normal(5, seed=1), normal(5, seed=2).abs()),
    ]


def _infinite(function: Function, chosen: Tensor, rejected: Tensor, margin: Tensor) -> bool:
    return not bool(function(chosen, rejected, margin).isfinite().all())


def _indifferent(function: Function, chosen: Tensor, rejected: Tensor, margin: Tensor) -> bool:
    return apart(function(rejected + margin, rejected, margin), torch.tensor(math.log(2)).double())


def _shifted(function: Function, chosen: Tensor, rejected: Tensor, margin: Tensor) -> bool:
    shift = torch.arange(1.0, 1 + len(chosen)).double()
    once = function(chosen, rejected, margin)
    return apart(function(chosen + shift, rejected + shift, margin), once)


def _in_the_gap(function: Function, chosen: Tensor, rejected: Tensor, margin: Tensor) -> bool:
    once = function(chosen, rejected, margin)
    return apart(function(chosen - margin, rejected, 0 * margin), once)


BRADLEY_TERRY_LOSS = Exercise(
    name="bradley_terry_loss",
    topic="rl/reward_model",
    level=1,
    task="The loss of a reward model, a mean over pairs, from the scores of the chosen and of the "
    "rejected responses and a margin for each pair, (N,) each; scores may be large.",
    inputs=_pairs,
    definition="reward-bt-gradient",
    laws=(
        Law("Large gaps overflow nothing.", "reward-bt-gradient", _infinite),
        Law("A gap as large as the margin costs log 2.", "reward-bt-gradient", _indifferent),
        Law("Scores of a pair may be shifted together.", "reward-shift", _shifted),
        Law("A margin is taken off the gap.", "reward-bt-gradient", _in_the_gap),
    ),
    mistakes=(
        Mistake(
            "chosen and rejected exchanged",
            "The loss falls as the chosen response scores more.",
            (("chosen - rejected - margin", "rejected - chosen - margin"),),
        ),
        Mistake(
            "sigma of the sum",
            "Preferences depend on the difference of the scores.",
            (("chosen - rejected", "chosen + rejected"),),
        ),
        Mistake(
            "margin outside",
            "Subtracted from the loss it changes no gradient: it belongs into the gap.",
            ((" - margin).mean()", ").mean() - margin.mean()"),),
        ),
        Mistake(
            "margin added to the gap",
            "A margin makes a pair harder, not easier.",
            (("- margin)", "+ margin)"),),
        ),
        Mistake(
            "no margin",
            "The gap has to exceed the margin before the loss is below log 2.",
            ((" - margin)", ")"),),
        ),
        Mistake(
            "log of the sigmoid",
            "The sigmoid of -900 is 0 in floating point, and exp(900) is infinite; log-sigmoid "
            "and softplus form neither.",
            (
                (
                    "logsigmoid(chosen - rejected - margin)",
                    "(chosen - rejected - margin).sigmoid().log()",
                ),
            ),
        ),
        Mistake(
            "no logarithm",
            "Minus a probability is no log-likelihood.",
            (("logsigmoid(chosen - rejected - margin)", "(chosen - rejected - margin).sigmoid()"),),
        ),
        Mistake(
            "every chosen against every rejected",
            "Shapes (N, 1) and (N,) broadcast to all N x N pairs, most of them of two prompts.",
            (("chosen - rejected - margin", "chosen[:, None] - rejected - margin"),),
        ),
    ),
    conventions=(
        Convention(
            "the sum over pairs",
            "It grows with the batch. To match, divide by the number of pairs.",
            ((".mean()", ".sum()"),),
        ),
        Convention(
            "a loss for each pair",
            "Some code averages later. To match, average.",
            ((".mean()", ""),),
        ),
        Convention(
            "hinge",
            "Ranking losses of this form ask for a gap of 1 and then stop. To match, use the "
            "log-sigmoid.",
            (
                (
                    "-logsigmoid(chosen - rejected - margin)",
                    "(1 - (chosen - rejected - margin)).clamp(min=0)",
                ),
            ),
        ),
        Convention(
            "hinge at the margin",
            "It asks for a gap as large as the margin and then stops. To match, use the "
            "log-sigmoid.",
            (
                (
                    "-logsigmoid(chosen - rejected - margin)",
                    "(margin - (chosen - rejected)).clamp(min=0)",
                ),
            ),
        ),
    ),
    hints=(
        "With which probability does the chosen response win, given both scores?",
        "The logistic function of the gap; a margin is taken off the gap first.",
        "Minus its logarithm, computed so that no gap overflows; then the mean.",
    ),
    branches={
        "several pairs": lambda chosen, rejected, margin: len(chosen) > 1,
        "a gap that overflows": lambda chosen, rejected, margin: bool(
            ((chosen - rejected).abs() > 800).any()
        ),
        "a margin": lambda chosen, rejected, margin: bool((margin > 0).any()),
        "no margin": lambda chosen, rejected, margin: bool((margin == 0).any()),
    },
    fixed=("margin",),
)


def _rankings() -> list[tuple[Any, ...]]:
    return [
        (table([0.0, 0.0]),),
        (table([2.0, 1.0]),),
        (table([1.0, 3.0, 2.0]),),
        (table([900.0, 800.0, 0.0], [0.0, 800.0, 900.0]),),
        (normal(2, 4),),
    ]


def _overflows(function: Function, r: Tensor) -> bool:
    return not bool(function(r).isfinite().all())


def _moves(function: Function, r: Tensor) -> bool:
    return apart(function(r + torch.arange(1.0, 1 + len(r)).double()[:, None]), function(r))


def _equal(function: Function, r: Tensor) -> bool:
    return apart(function(0 * r), torch.tensor(math.lgamma(r.shape[1] + 1)).double())


PLACKETT_LUCE_LOSS = Exercise(
    name="plackett_luce_loss",
    topic="rl/reward_model",
    level=2,
    task="Minus the log-likelihood of rankings by Plackett-Luce, a mean over rankings, from "
    "scores (N, K) in the order of the ranking, the best first; scores may be large.",
    inputs=_rankings,
    definition="reward-plackett-luce",
    laws=(
        Law("Large scores overflow nothing.", "reward-plackett-luce", _overflows),
        Law("Scores of a row may be shifted together.", "reward-shift", _moves),
        Law(
            "With equal scores all K! orders are alike, so it costs log K!.",
            "reward-plackett-luce",
            _equal,
        ),
    ),
    mistakes=(
        Mistake(
            "everyone still in the race",
            "What is placed already leaves the sum: the second place is a choice among the rest.",
            (("r.flip(-1).logcumsumexp(-1)", "r.logsumexp(-1, keepdim=True).expand_as(r)"),),
        ),
        Mistake(
            "pairs as if independent",
            "The product over all pairs is no distribution over orders.",
            (
                (
                    "return (left.sum(-1) - r.sum(-1)).mean()",
                    "return -logsigmoid(r[:, :, None] - r[:, None]).triu(1).sum((1, 2)).mean()",
                ),
            ),
        ),
        Mistake(
            "exponentials overflow",
            "A sum of exponentials is infinite from a score of 710 on.",
            (
                (
                    "r.flip(-1).logcumsumexp(-1)",
                    "r.flip(-1).exp().cumsum(-1).log()",
                ),
            ),
        ),
        Mistake(
            "no scores",
            "The log-probability of a choice is its score minus the log of the sum.",
            ((" - r.sum(-1)", ""),),
        ),
    ),
    conventions=(
        Convention(
            "the worst first",
            "Scores in ascending order of the ranking. To match, reverse the axis.",
            (("r.flip(-1).logcumsumexp(-1)", "r.logcumsumexp(-1)"),),
        ),
        Convention(
            "the sum over rankings",
            "It grows with the batch. To match, divide by the number of rankings.",
            ((".mean()", ".sum()"),),
        ),
        Convention(
            "a mean over places",
            "Divided by K, the last factor, which is 1, counted too. To match, add up.",
            (("(left.sum(-1) - r.sum(-1)).mean()", "(left.mean(-1) - r.mean(-1)).mean()"),),
        ),
        Convention(
            "a loss for each ranking",
            "Some code averages later. To match, average.",
            ((".mean()", ""),),
        ),
    ),
    hints=(
        "The best is a softmax choice among all K. What is the second?",
        "A softmax choice among those that are left; so each place has its own normaliser.",
        "A log-sum-exp cumulated from the end gives all normalisers at once.",
    ),
    branches={
        "a pair": lambda r: r.shape[1] == 2,
        "more than a pair": lambda r: r.shape[1] > 2,
        "scores that overflow": lambda r: bool((r > 800).any()),
        "several rankings": lambda r: len(r) > 1,
    },
)


def _samples() -> list[tuple[Any, ...]]:
    return [
        (number(3.0), 1),
        (number(1.0, 4.0), 1),
        (number(4.0, 1.0), 2),
        (number(2.0, 1.0, 4.0), 2),
        (number(0.0, 1.0, 0.0, 0.0, 1.0), 3),
        (normal(7), 4),
    ]


def _mean_of_one(function: Function, r: Tensor, n: int) -> bool:
    return apart(function(r, 1), r.mean())


def _all_of_them(function: Function, r: Tensor, n: int) -> bool:
    return apart(function(r, len(r)), r.max())


def _order(function: Function, r: Tensor, n: int) -> bool:
    return apart(function(r.flip(0), n), function(r, n))


BEST_OF_N_ESTIMATE = Exercise(
    name="best_of_n_estimate",
    topic="rl/reward_model",
    level=2,
    task="An unbiased estimate of the mean score of best-of-n, from N >= n independent scores r "
    "(N,) in any order; pass@k is the case of scores 0 and 1.",
    inputs=_samples,
    definition="reward-best-of-n-estimate",
    laws=(
        Law("For n = 1 it is the mean.", "reward-best-of-n-estimate", _mean_of_one),
        Law("For n = N it is the maximum.", "reward-best-of-n-estimate", _all_of_them),
        Law("The order of the samples is of no account.", "reward-best-of-n-estimate", _order),
    ),
    mistakes=(
        Mistake(
            "drawn with replacement",
            "Samples drawn again from the N are no independent samples: the maximum is too low.",
            (
                (
                    "math.comb(i, n - 1) / math.comb(len(r), n)",
                    "((i + 1) ** n - i**n) / len(r) ** n",
                ),
            ),
        ),
        Mistake(
            "not sorted",
            "The weights belong to the scores in ascending order.",
            (("r.sort().values", "r + 0"),),
        ),
        Mistake(
            "the largest first",
            "The largest score is the maximum of the most subsets.",
            (("r.sort().values", "r.sort(descending=True).values"),),
        ),
        Mistake(
            "the maximum of all",
            "The maximum of N samples is best-of-N.",
            (("(r.new_tensor(ways) * r).sum()", "r.max()"),),
        ),
        Mistake(
            "the mean of the n best",
            "The best of n is the largest of a subset of n, and most subsets lack the best scores.",
            (("math.comb(i, n - 1) / math.comb(len(r), n)", "(i >= len(r) - n) / n"),),
        ),
        Mistake(
            "n others below",
            "The maximum of n is above n - 1 others.",
            (("math.comb(i, n - 1)", "math.comb(i, n)"),),
        ),
        Mistake(
            "itself among the others",
            "Below the largest of i + 1 scores there are i.",
            (("math.comb(i, n - 1)", "math.comb(i + 1, n - 1)"),),
        ),
    ),
    conventions=(),
    hints=(
        "What is the mean of the maximum over all subsets of n of the samples?",
        "Sort. In how many subsets of n is the i-th smallest the largest?",
        "It needs n - 1 others among the i - 1 below it; divide by the number of subsets.",
    ),
    branches={
        "one sample": lambda r, n: len(r) == 1,
        "n = 1": lambda r, n: n == 1 < len(r),
        "n = N": lambda r, n: n == len(r) > 1,
        "between": lambda r, n: 1 < n < len(r),
        "scores of 0 and 1": lambda r, n: len(r) > 2 and bool(((r == 0) | (r == 1)).all()),
    },
    fixed=("r",),
)

EXERCISES = (BRADLEY_TERRY_LOSS, PLACKETT_LUCE_LOSS, BEST_OF_N_ESTIMATE)
