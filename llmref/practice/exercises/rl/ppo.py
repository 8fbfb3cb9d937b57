"""Exercise on the clipped loss of PPO."""

import math
from functools import partial
from typing import Any

from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import counted, rows, table
from llmref.practice.exercises._laws import padded
from llmref.practice.exercises.rl._clip import never_returns, pulls_beyond


def _batches() -> list[tuple[Any, ...]]:
    all_of_two = counted("11")
    ragged = counted("11111", "1....", "1.11.")
    return [
        (table([-1.0]), table([-1.0]), table([2.0]), counted("1"), 0.2),
        (table([-1.0, -1.0]), table([-1.5, -1.5]), table([1.0, -3.0]), all_of_two, 0.2),
        (table([-2.0, -1.0]), table([-1.5, -0.5]), table([1.0, -3.0]), all_of_two, 0.3),
        (table([-0.5, -1.0]), table([-2.0, -1.0]), table([-2.0, 1.0]), all_of_two, 0.2),
        (
            table([-1.0, -2.0, -0.5], [-1.0, -3.0, -1.5]),
            table([-1.1, -1.0, -0.5], [-1.5, -4.0, -1.0]),
            table([1.0, 2.0, 4.0], [-1.0, 3.0, -2.0]),
            counted("111", "1.1"),
            0.2,
        ),
        (
            -rows(3, 5).square(),
            -rows(3, 5).square() + 0.4 * rows(3, 5, seed=1) - 0.4,
            rows(3, 5, seed=2) - 2,  # no sum near 0
            ragged,
            0.1,
        ),
    ]


def _moved(function: Function, given: tuple[Any, ...], sign: int, steps: float) -> Tensor:
    """The loss with all advantages of one sign, and ratios `steps` clips away from 1."""
    _, old_logp, advantages, mask, clip = given
    logp = old_logp + math.log(1 + steps * clip)
    loss: Tensor = function(logp, old_logp, sign * (1 + advantages.abs()), mask, clip)
    return loss


def _pulls_beyond(function: Function, *given: Any) -> bool:
    return pulls_beyond(partial(_moved, function, given), 2, 3)


def _never_returns(function: Function, *given: Any) -> bool:
    return never_returns(partial(_moved, function, given), 2, 3)


def _at_old(
    function: Function, logp: Tensor, old: Tensor, adv: Tensor, mask: Tensor, clip: float
) -> bool:
    return apart(function(old, old, adv, mask, clip), -adv[mask].mean())


def _padding(
    function: Function, logp: Tensor, old: Tensor, adv: Tensor, mask: Tensor, clip: float
) -> bool:
    longer = padded(mask, logp, old, adv)
    return apart(function(*longer, clip), function(logp, old, adv, mask, clip))


_MINIMUM = "torch.minimum(ratio * A, clipped * A)"
_RATIO = "torch.exp(logp - old_logp)"
_RETURN = "return -surrogate.mean()"
_ALL = (
    ("logp, old_logp = logp[mask], old_logp[mask]", "pass"),
    ("A = advantages[mask]", "A = advantages"),
)

PPO_LOSS = Exercise(
    name="ppo_loss",
    topic="rl/ppo",
    level=2,
    task="PPO's clipped loss of the policy, to be minimised: the mean over all tokens that "
    "mask counts, all arguments but clip being (N, T); the ratio is clipped to 1 - clip and "
    "1 + clip.",
    inputs=_batches,
    definition="ppo-clip",
    laws=(
        Law(
            "A ratio that is outside the clip on the good side pulls no further.",
            "ppo-four-cases",
            _pulls_beyond,
        ),
        Law(
            "A ratio that is outside the clip on the bad side is still pulled back.",
            "ppo-four-cases",
            _never_returns,
        ),
        Law(
            "At the old policy the loss is minus the mean advantage of the counted tokens.",
            "ppo-clip",
            _at_old,
        ),
        Law("Padding changes nothing.", "ppo-aggregation", _padding),
    ),
    mistakes=(
        Mistake(
            "max in place of min",
            "The minimum is the pessimistic choice; with the maximum nothing is ever clipped "
            "where it should be.",
            ((_MINIMUM, "torch.maximum(ratio * A, clipped * A)"),),
        ),
        Mistake(
            "the clipped product alone",
            "Without the minimum, a ratio on the bad side has no gradient that leads back.",
            ((_MINIMUM, "clipped * A"),),
        ),
        Mistake(
            "no clip",
            "Then several steps on the same samples may move the policy without a bound.",
            (("ratio.clamp(1 - clip, 1 + clip)", "ratio"),),
        ),
        Mistake(
            "clipped above only",
            "For a negative advantage it is the lower bound that acts.",
            (("clamp(1 - clip, 1 + clip)", "clamp(max=1 + clip)"),),
        ),
        Mistake(
            "the ratio upside down",
            "It is the new policy over the old one, which drew the samples.",
            ((_RATIO, "torch.exp(old_logp - logp)"),),
        ),
        Mistake(
            "the difference of logs taken for the ratio",
            "The ratio is the exponential of that difference: 1, not 0, at the old policy.",
            ((_RATIO, "logp - old_logp"),),
        ),
        Mistake(
            "padding counted",
            "Only tokens that the mask counts have a loss.",
            (
                ("logp, old_logp = logp[mask], old_logp[mask]", "mask = mask | True"),
                ("A = advantages[mask]", "A = advantages"),
            ),
        ),
        Mistake(
            "divided by all positions",
            "The mean runs over the counted tokens only.",
            ((_RETURN, "return -surrogate.sum() / mask.numel()"),),
        ),
    ),
    conventions=(
        Convention(
            "averaging each response first",
            "GRPO's loss weighs so. To match, divide the sum over all counted tokens by their "
            "number.",
            (
                *_ALL,
                (_RETURN, "return -((surrogate * mask).sum(1) / mask.sum(1)).mean()"),
            ),
        ),
        Convention(
            "at most 3 for the ratio where the advantage is negative",
            "A dual clip, as verl's clip_ratio_c. To match, take the minimum alone.",
            ((_MINIMUM, f"torch.where(A < 0, {_MINIMUM}.max(3 * A), {_MINIMUM})"),),
        ),
        Convention(
            "the objective, to be maximised",
            "The paper writes it so. To match, return minus it, a loss.",
            ((_RETURN, "return surrogate.mean()"),),
        ),
    ),
    hints=(
        "Two products per token: one with the ratio, one with the ratio clipped.",
        "Which of them is the pessimistic one, for advantages of both signs?",
        "An objective becomes a loss by its sign; padding is left out before the mean.",
    ),
    branches={
        "above, advantage positive": lambda logp, old, adv, mask, clip: bool(
            ((logp - old > math.log(1 + clip)) & (adv > 0) & mask).any()
        ),
        "above, advantage negative": lambda logp, old, adv, mask, clip: bool(
            ((logp - old > math.log(1 + clip)) & (adv < 0) & mask).any()
        ),
        "a ratio above 3, advantage negative": lambda logp, old, adv, mask, clip: bool(
            ((logp - old > math.log(3)) & (adv < 0) & mask).any()
        ),
        "below, advantage positive": lambda logp, old, adv, mask, clip: bool(
            ((logp - old < math.log(1 - clip)) & (adv > 0) & mask).any()
        ),
        "below, advantage negative": lambda logp, old, adv, mask, clip: bool(
            ((logp - old < math.log(1 - clip)) & (adv < 0) & mask).any()
        ),
        "padding": lambda logp, old, adv, mask, clip: not bool(mask.all()),
    },
    fixed=("old_logp", "advantages"),
)

EXERCISES = (PPO_LOSS,)
