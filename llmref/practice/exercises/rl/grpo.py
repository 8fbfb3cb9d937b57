"""Exercises on GRPO: the advantages of a group, and its loss."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import counted, number, rows, table
from llmref.practice.exercises._laws import padded
from llmref.practice.exercises.rl._clip import never_returns, pulls_beyond


def _groups() -> list[tuple[Any, ...]]:
    return [
        (table([3.0, 0.0, 0.0], [1.0, 1.0, 1.0]),),
        (table([1.0, 5.0], [2.0, 2.0], [0.0, -6.0]),),
        (table([0.001, 0.004], [0.002, 0.002], [0.0, -0.003]),),
        (table([0.1] * 7, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.7] * 7, [0.3] * 7),),
        (3 * rows(6, 5),),
    ]


def _batches() -> list[tuple[Any, ...]]:
    all_of_two = counted("11")
    ragged = counted("11111", "1....", "1.11.", "11...")
    old = -rows(4, 5).square()
    return [
        (table([-1.0]), table([-1.0]), table([-2.0]), number(2.0), counted("1"), 0.2, 0.5),
        (
            table([-1.0, -2.0]),
            table([-1.5, -2.0]),
            table([-1.0, -1.0]),
            number(2.0),
            all_of_two,
            0.2,
            0.1,
        ),
        (
            table([-1.0, -2.0]),
            table([-1.5, -1.0]),
            table([-1.0, -1.0]),
            number(-1.0),
            all_of_two,
            0.3,
            0.0,
        ),
        (
            table([-0.5, -1.0]),
            table([-2.0, -1.0]),
            table([-1.0, -1.0]),
            number(-2.0),
            all_of_two,
            0.2,
            0.1,
        ),
        (
            table([-1.0, -2.0, -0.5], [-1.0, -3.0, -1.5]),
            table([-1.1, -1.0, -0.5], [-1.5, -4.0, -1.0]),
            table([-1.0, -2.5, -0.4], [-2.0, -4.0, -1.0]),
            number(1.0, -1.0),
            counted("111", "1.1"),
            0.2,
            1.0,
        ),
        (
            old - 0.4 * rows(4, 5, seed=1) + 0.4,
            old,
            old - 0.5 * rows(4, 5, seed=2),
            number(1.0, -0.5, 0.25, -0.75),
            ragged,
            0.1,
            0.04,
        ),
    ]


def _scaled(function: Function, rewards: Tensor) -> bool:
    return apart(function(4 * rewards + 1e6), function(rewards))


def _no_sum(function: Function, rewards: Tensor) -> bool:
    advantages = function(rewards)
    return apart(advantages.sum(1), torch.zeros_like(advantages[:, 0]))


def _equal(function: Function, rewards: Tensor) -> bool:
    return bool((function(rewards[:, :1].expand(rewards.shape)) != 0).any())


def _alone(function: Function, rewards: Tensor) -> bool:
    others = torch.cat([rewards[:1], 2 + rewards[1:].square()])
    return apart(function(rewards)[:1], function(others)[:1])


def _at_old(function: Function, *given: Any) -> bool:
    _, old, _, advantages, mask, clip, beta = given
    return apart(function(old, old, old, advantages, mask, clip, beta), -advantages.mean())


def _clipped_wrongly(function: Function, *given: Any) -> bool:
    moved = partial(_moved, function, given)
    return pulls_beyond(moved, 2, 3) or never_returns(moved, 2, 3)


def _moved(function: Function, given: tuple[Any, ...], sign: int, steps: float) -> Tensor:
    """The loss without KL, advantages of one sign, ratios `steps` clips away from 1."""
    _, old, _, advantages, mask, clip, _ = given
    logp = old + math.log(1 + steps * clip)
    loss: Tensor = function(logp, old, old, sign * (1 + advantages.abs()), mask, clip, 0.0)
    return loss


def _kl_turned(function: Function, *given: Any) -> bool:
    """k3 of a log-ratio of 2 and of -2, each against no difference."""
    logp, old, _, advantages, mask, clip, _ = given
    none, up, down = (
        function(logp, old, logp + shift, advantages, mask, clip, 1.0) for shift in (0, 2, -2)
    )
    return bool(up - none < down - none) or bool(down - none < 0)


def _padding(function: Function, *given: Any) -> bool:
    *longer, more = padded(given[4], *given[:3])
    return apart(function(*longer, given[3], more, *given[5:]), function(*given))


_MIXED = "torch.where(mixed, centred / std, 0.0)"
_STD = "rewards.std(dim=1, keepdim=True)"


def _added(eps: str, who: str) -> Convention:
    return Convention(
        f"a deviation with {eps} added",
        f"{who} To match, add nothing, and test whether the rewards are equal.",
        ((_MIXED, f"centred / (std + {eps})"),),
    )


_MINIMUM = "torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)"
_RATIO = "torch.exp(logp - old_logp)"
_LOSS = "beta * k3 - surrogate"
_MEAN = "return per_response.mean()"
_EACH = "loss.sum(dim=1) / mask.sum(dim=1)"


def _outside(sign: int, above: bool) -> Any:
    def reaches(*given: Any) -> bool:
        logp, old, _, advantages, mask, clip, _ = given
        ratio = (logp - old).exp()
        out = ratio > 1 + clip if above else ratio < 1 - clip
        return bool((out & (sign * advantages > 0)[:, None] & mask).any())

    return reaches


GROUP_ADVANTAGES = Exercise(
    name="group_advantages",
    topic="rl/grpo",
    level=1,
    task="Of rewards (groups, G) return the advantages: minus the mean of the group, over its "
    "sample standard deviation (which divides by G - 1), with nothing added; a group of equal "
    "rewards has the advantages 0.",
    inputs=_groups,
    definition="grpo-advantage",
    laws=(
        Law("A group does not depend on the others.", "grpo-advantage", _alone),
        Law("A group of equal rewards has the advantages 0.", "grpo-degenerate", _equal),
        Law("The advantages of each group sum to 0.", "grpo-bounds", _no_sum),
        Law(
            "Rewards times 4 plus a million have the same advantages.",
            "grpo-bounds",
            _scaled,
        ),
    ),
    mistakes=(
        Mistake(
            "standard deviation of the whole batch",
            "Each group has a deviation of its own: hard and easy prompts differ.",
            ((_STD, "rewards.std()"),),
        ),
        Mistake(
            "mean and deviation over the prompts",
            "A group is a row: the responses to one prompt are compared with each other.",
            (
                ("rewards.mean(dim=1", "rewards.mean(dim=0"),
                (_STD, "rewards.std(dim=0, keepdim=True)"),
            ),
        ),
        Mistake(
            "variance in place of the deviation",
            "The variance has the unit of a squared reward.",
            (("centred / std", "centred / std**2"),),
        ),
        Mistake(
            "mean not subtracted",
            "Then responses that are all good are all made likelier.",
            (("rewards - rewards.mean(dim=1, keepdim=True)", "rewards"),),
        ),
        Mistake(
            "0 divided by 0",
            "Equal rewards have the deviation 0.",
            ((_MIXED, "centred / std"),),
        ),
        Mistake(
            "1e-12 added, equal rewards not looked for",
            "The mean of equal numbers is rounded, and its error is divided by itself.",
            ((_MIXED, "centred / (std + 1e-12)"),),
        ),
    ),
    conventions=(
        Convention(
            "a deviation that divides by G",
            "numpy's std does so. To match, divide the sum of squares by G - 1, as torch does.",
            ((_STD, "rewards.std(dim=1, keepdim=True, correction=0)"),),
        ),
        Convention(
            "leaving out the deviation",
            "Dr. GRPO leaves it out. To match, divide by the deviation of the group.",
            ((_MIXED, "centred"),),
        ),
        Convention(
            "a deviation that divides by G, with 1e-8 added",
            "Much numpy code does so. To match, divide the sum of squares by G - 1, and add "
            "nothing.",
            (
                (_STD, "rewards.std(dim=1, keepdim=True, correction=0)"),
                (_MIXED, "centred / (std + 1e-8)"),
            ),
        ),
        _added("1e-4", "TRL does so."),
        _added("1e-6", "verl does so."),
        _added("1e-8", "Many programs for PPO do so when they normalise advantages."),
    ),
    hints=(
        "Each row is compared with itself.",
        "Which of the two standard deviations is asked for?",
        "What does a row of equal rewards give, with a rounded mean?",
    ),
    branches={
        "more groups than responses": lambda rewards: len(rewards) > rewards.shape[1],
        "equal rewards": lambda rewards: bool((rewards == rewards[:, :1]).all(1).any()),
        "equal rewards whose mean is rounded": lambda rewards: bool((rewards == 0.1).all(1).any()),
    },
    fixed=("rewards",),
)

GRPO_LOSS = Exercise(
    name="grpo_loss",
    topic="rl/grpo",
    level=3,
    task="GRPO's loss, to be minimised: log-probabilities and mask are (N, T), advantages "
    "(N,), each response counts a token; minus the clipped product, plus beta times k3 from "
    "policy to reference, averaged over the counted tokens of each response, then over "
    "responses.",
    inputs=_batches,
    definition="grpo-objective",
    laws=(
        Law(
            "A ratio outside the clip pulls no further on the good side, and is still pulled "
            "back on the bad side.",
            "grpo-objective",
            _clipped_wrongly,
        ),
        Law(
            "If all three policies agree, it is minus the mean advantage of the responses.",
            "grpo-onpolicy-gradient",
            _at_old,
        ),
        Law(
            "The KL term is a penalty, the larger one where the reference is e^2 times as "
            "likely as the policy, not where the policy is.",
            "grpo-objective",
            _kl_turned,
        ),
        Law("Padding changes nothing.", "grpo-objective", _padding),
    ),
    mistakes=(
        Mistake(
            "max in place of min",
            "The minimum is the pessimistic choice, for advantages of both signs.",
            ((_MINIMUM, _MINIMUM.replace("minimum", "maximum")),),
        ),
        Mistake(
            "the clipped product alone",
            "Without the minimum, a ratio on the bad side has no gradient that leads back.",
            ((_MINIMUM, "ratio.clamp(1 - clip, 1 + clip) * A"),),
        ),
        Mistake(
            "the ratio upside down",
            "It is the new policy over the old one, which drew the samples.",
            ((_RATIO, "torch.exp(old_logp - logp)"),),
        ),
        Mistake(
            "log-ratio of the KL the wrong way round",
            "k3 needs reference over policy at the samples of the policy.",
            (("r = ref_logp - logp", "r = logp - ref_logp"),),
        ),
        Mistake(
            "the old policy taken for the reference",
            "The old policy drew the samples; the reference is a third one, from before training.",
            (("r = ref_logp - logp", "r = old_logp - logp"),),
        ),
        Mistake(
            "k1 in place of k3",
            "As a loss, the gradient of k1 is noise of mean 0.",
            (("k3 = torch.expm1(r) - r", "k3 = -r"),),
        ),
        Mistake(
            "the KL subtracted",
            "It is subtracted from the objective, so it is added to the loss.",
            ((_LOSS, "-beta * k3 - surrogate"),),
        ),
        Mistake(
            "sum over each response",
            "Each response is averaged over its tokens, and then weighs as much as any other.",
            ((_EACH, "loss.sum(dim=1)"),),
        ),
        Mistake(
            "padding counted",
            "Only tokens that the mask counts have a loss.",
            (("torch.where(mask, " + _LOSS + ", 0.0)", _LOSS), (_EACH, "loss.mean(dim=1)")),
        ),
    ),
    conventions=(
        Convention(
            "a mean over all tokens",
            "DAPO averages so; TRL calls it dapo, verl token-mean. To match, average each "
            "response first.",
            ((_EACH, "loss.sum(dim=1)"), (_MEAN, "return per_response.sum() / mask.sum()")),
        ),
        Convention(
            "leaving out the KL term",
            "Many recipes set beta to 0. To match, add beta times k3.",
            ((_LOSS, "-surrogate"),),
        ),
        Convention(
            "a mean over all tokens, without the KL term",
            "DAPO does so. To match, average each response first, and add beta times k3.",
            (
                (_LOSS, "-surrogate"),
                (_EACH, "loss.sum(dim=1)"),
                (_MEAN, "return per_response.sum() / mask.sum()"),
            ),
        ),
        Convention(
            "a constant in place of the length, here T",
            "Dr. GRPO divides so; TRL calls it dr_grpo. To match, divide by the number of "
            "counted tokens of the response.",
            ((_EACH, "loss.mean(dim=1)"),),
        ),
        Convention(
            "at most 3 for the ratio where the advantage is negative",
            "A dual clip, as verl's clip_ratio_c. To match, take the minimum alone.",
            ((_MINIMUM, f"torch.where(A < 0, {_MINIMUM}.max(3 * A), {_MINIMUM})"),),
        ),
        Convention(
            "the objective, to be maximised",
            "The paper writes it so. To match, return minus it, a loss.",
            ((_MEAN, "return -per_response.mean()"),),
        ),
    ),
    hints=(
        "Per token it is PPO's product, with one advantage for the whole response.",
        "The penalty k3 is exponential minus 1 minus its argument: which log-ratio is that?",
        "Average inside each response before you average over responses.",
    ),
    branches={
        "above, advantage positive": _outside(1, above=True),
        "above, advantage negative": _outside(-1, above=True),
        "a ratio above 3, advantage negative": lambda *given: bool(
            ((given[0] - given[1] > math.log(3)) & (given[3] < 0)[:, None] & given[4]).any()
        ),
        "below, advantage positive": _outside(1, above=False),
        "below, advantage negative": _outside(-1, above=False),
        "lengths that differ": lambda *given: bool((given[4].sum(1) != given[4][0].sum()).any()),
        "beta = 0": lambda *given: given[6] == 0,
    },
    fixed=("old_logp", "ref_logp", "advantages"),
)

EXERCISES = (
    GROUP_ADVANTAGES,
    GRPO_LOSS,
)
