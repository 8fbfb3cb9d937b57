"""Exercise on the loss of GSPO."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import counted, number, rows, table
from llmref.practice.exercises._laws import padded
from llmref.practice.exercises.rl._clip import never_returns, pulls_beyond


def _batches() -> list[tuple[Any, ...]]:
    all_of_two = counted("11")
    ragged = counted("11111", "1....", "1.11.", "11...")
    old = -rows(4, 5).square()
    return [
        (table([-1.0]), table([-1.2]), number(2.0), counted("1"), 0.5),
        (table([-1.0, -2.0]), table([-1.5, -2.5]), number(1.0), all_of_two, 0.2),
        (table([-1.0, -2.0]), table([-1.5, -2.5]), number(-3.0), all_of_two, 0.2),
        (table([-1.0, -2.0]), table([-0.2, -2.0]), number(2.0), all_of_two, 0.2),
        (table([-1.0, -2.0]), table([-0.2, -2.0]), number(-1.0), all_of_two, 0.2),
        (
            table([-1.0, -2.0, -0.5], [-1.0, -3.0, -1.5]),
            table([-1.1, -1.0, -0.5], [-1.2, -5.0, -1.0]),
            number(1.0, -2.0),
            counted("111", "1.1"),
            0.4,
        ),
        (
            old + 0.2 * rows(4, 5, seed=1) - 0.2,
            old,
            number(1.0, -0.5, 0.25, -0.75),
            ragged,
            0.05,
        ),
    ]


def _spread(function: Function, *given: Any) -> bool:
    """What one token of a response gains and another one loses changes nothing."""
    logp, old, advantages, mask, clip = given
    moved = torch.where(mask, torch.arange(logp.shape[1]) * 0.1, 0.0).double()
    moved = torch.where(mask, moved - moved.sum(1, keepdim=True) / mask.sum(1, keepdim=True), 0.0)
    return apart(function(logp + moved, old, advantages, mask, clip), function(*given))


def _twice(function: Function, *given: Any) -> bool:
    logp, old, advantages, mask, clip = given
    long = [torch.cat([it, it], dim=1) for it in (logp, old, mask)]
    return apart(function(long[0], long[1], advantages, long[2], clip), function(*given))


def _moved(function: Function, given: tuple[Any, ...], sign: int, steps: float) -> Tensor:
    """The loss with advantages of one sign, and ratios `steps` clips away from 1."""
    _, old, advantages, mask, clip = given
    logp = old + math.log(1 + steps * clip)
    loss: Tensor = function(logp, old, sign * (1 + advantages.abs()), mask, clip)
    return loss


def _clipped_wrongly(function: Function, *given: Any) -> bool:
    moved = partial(_moved, function, given)
    return pulls_beyond(moved, 1.5, 1.8) or never_returns(moved, 1.5, 1.8)


def _padding(function: Function, *given: Any) -> bool:
    logp, old, advantages, mask, clip = given
    *longer, more = padded(mask, logp, old)
    return apart(function(*longer, advantages, more, clip), function(*given))


_EXP = "torch.exp(log_ratio.sum(dim=1) / mask.sum(dim=1))"
_MINIMUM = "torch.minimum(s * advantages, clipped * advantages)"
_RETURN = "return -surrogate.mean()"


def _outside(sign: int, above: bool) -> Any:
    def reaches(*given: Any) -> bool:
        logp, old, advantages, mask, clip = given
        s = (((logp - old) * mask).sum(1) / mask.sum(1)).exp()
        out = s > 1 + clip if above else s < 1 - clip
        return bool((out & (sign * advantages > 0)).any())

    return reaches


GSPO_LOSS = Exercise(
    name="gspo_loss",
    topic="rl/gspo",
    level=2,
    task="GSPO's loss, to be minimised: one ratio for each response, the geometric mean over "
    "its counted tokens, clipped to 1 - clip and 1 + clip; log-probabilities and mask are "
    "(N, T), advantages (N,), each response counts a token; a mean over responses.",
    inputs=_batches,
    definition="gspo-ratio",
    laws=(
        Law(
            "What one token of a response gains and another one loses changes nothing.",
            "gspo-ratio",
            _spread,
        ),
        Law("A response written twice in a row has the same ratio.", "gspo-ratio", _twice),
        Law(
            "A ratio outside the clip pulls no further on the good side, and is still pulled "
            "back on the bad side.",
            "gspo-clip-sequence",
            _clipped_wrongly,
        ),
        Law("Padding changes nothing.", "gspo-ratio", _padding),
    ),
    mistakes=(
        Mistake(
            "the product of the ratios",
            "That is the ratio of the whole response, which grows with its length; GSPO takes "
            "the root.",
            ((_EXP, "torch.exp(log_ratio.sum(dim=1))"),),
        ),
        Mistake(
            "mean over the padded length",
            "The root has the number of counted tokens, not that of the columns.",
            ((_EXP, "torch.exp(log_ratio.mean(dim=1))"),),
        ),
        Mistake(
            "padding counted",
            "Only tokens that the mask counts belong to the response.",
            (
                ("torch.where(mask, logp - old_logp, 0.0)", "logp - old_logp"),
                (_EXP, "torch.exp(log_ratio.mean(dim=1))"),
            ),
        ),
        Mistake(
            "the arithmetic mean of the ratios",
            "The mean is taken of the logarithms, so the exponential comes last.",
            ((_EXP, "(log_ratio.exp() * mask).sum(dim=1) / mask.sum(dim=1)"),),
        ),
        Mistake(
            "the ratio upside down",
            "It is the new policy over the old one, which drew the samples.",
            (("logp - old_logp", "old_logp - logp"),),
        ),
        Mistake(
            "max in place of min",
            "The minimum is the pessimistic choice, for advantages of both signs.",
            ((_MINIMUM, _MINIMUM.replace("minimum", "maximum")),),
        ),
        Mistake(
            "the clipped product alone",
            "Without the minimum, a ratio on the bad side has no gradient that leads back.",
            ((_MINIMUM, "clipped * advantages"),),
        ),
        Mistake(
            "tokens clipped one by one",
            "That is GRPO, averaged over the tokens of each response: here a response has one "
            "ratio, and is clipped as a whole.",
            (
                (_EXP, "torch.exp(log_ratio)"),
                (
                    _MINIMUM,
                    "torch.minimum(s * advantages[:, None], clipped * advantages[:, None])",
                ),
                (_RETURN, "return -((surrogate * mask).sum(dim=1) / mask.sum(dim=1)).mean()"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "the objective, to be maximised",
            "The paper writes it so. To match, return minus it, a loss.",
            ((_RETURN, "return surrogate.mean()"),),
        ),
    ),
    hints=(
        "A geometric mean is the exponential of a mean of logarithms.",
        "Its length is the number of counted tokens of that response.",
        "From there on it is PPO's clip, with one ratio and one advantage per response.",
    ),
    branches={
        "above, advantage positive": _outside(1, above=True),
        "above, advantage negative": _outside(-1, above=True),
        "below, advantage positive": _outside(1, above=False),
        "below, advantage negative": _outside(-1, above=False),
        "lengths that differ": lambda *given: bool((given[3].sum(1) != given[3][0].sum()).any()),
    },
    fixed=("old_logp", "advantages"),
)

EXERCISES = (GSPO_LOSS,)
