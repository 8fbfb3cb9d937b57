"""Exercises on weights between sampler and trainer."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import counted, normal, rows, table
from llmref.practice.exercises._laws import padded, passes, slope
from llmref.practice.exercises.rl._clip import never_returns, pulls_beyond

_RAGGED = counted("11111", "1....", "1.11.")


def _policies(count: int) -> list[Tensor]:
    """Log-probabilities (3, 5) of some policies near each other."""
    base = -2 - rows(3, 5).square()
    return [base + 0.3 * normal(3, 5, seed=seed) for seed in range(1, count + 1)]


def _pairs() -> list[tuple[Any, ...]]:
    levels = ("token", "prefix", "sequence")
    small = table([-1.0, -2.0, -3.0]), table([-1.5, -1.8, -3.3])
    far = table([-1.0, -2.0, -0.5]), table([-2.0, -1.5, -1.0])
    whole = table([-1.0, -2.0]), table([-1.5, -1.8]), counted("11")
    return (
        [(*whole, "sequence")]
        + [(*small, counted("11."), level) for level in levels]
        + [(*far, counted("1.1"), level) for level in levels]
        + [(*_policies(2), _RAGGED, level) for level in levels]
    )


def _same_policy(function: Function, *given: Any) -> bool:
    logp, _, mask, level = given
    return apart(function(logp, logp, mask, level), mask.double())


def _inverse(function: Function, *given: Any) -> bool:
    logp, rollout, mask, level = given
    product = function(logp, rollout, mask, level) * function(rollout, logp, mask, level)
    return apart(product, mask.double())


def _product(function: Function, *given: Any) -> bool:
    logp, rollout, mask, _ = given
    token, prefix, text = (
        function(logp, rollout, mask, level) for level in ("token", "prefix", "sequence")
    )
    product = torch.where(mask, torch.where(mask, token, 1.0).prod(1, keepdim=True), 0.0)
    first = mask.cumsum(1) * mask == 1
    return apart(text, product) or apart(prefix[first], token[first])


def _weights_padding(function: Function, *given: Any) -> bool:
    logp, rollout, mask, level = given
    wide = function(*padded(mask, logp, rollout), level)
    ends = wide[:, [0, -1]]
    return apart(wide[:, 1:-1], function(logp, rollout, mask, level)) or bool(ends.any())


def _carries(function: Function, *given: Any) -> bool:
    logp, *rest = given
    leaf = logp.clone().requires_grad_()
    return passes(function(leaf, *rest), leaf)


_DIFFERENCE = "torch.where(mask, logp - rollout_logp, 0.0)"
_SUM = "log_w.sum(dim=1, keepdim=True)"
_KEPT = "torch.where(mask, log_w.exp(), 0.0)"

IMPORTANCE_WEIGHTS = Exercise(
    name="importance_weights",
    topic="rl/off_policy",
    level=1,
    task="The weight of each token of texts that another policy drew: its own ratio (level "
    "'token'), the product of the ratios up to it ('prefix') or of the whole text "
    "('sequence'); log-probabilities and mask are (N, T), padding gets 0, and no gradient "
    "flows.",
    inputs=_pairs,
    definition="off-policy-weights",
    laws=(
        Law("Of one policy all weights are 1.", "off-policy-weights", _same_policy),
        Law("Policies exchanged give one over each weight.", "off-policy-weights", _inverse),
        Law(
            "A text weighs the product of its tokens, and its first prefix is its first token.",
            "off-policy-weights",
            _product,
        ),
        Law("Padding changes nothing, and gets 0.", "off-policy-weights", _weights_padding),
        Law("No gradient flows through a weight.", "off-policy-weights", _carries),
    ),
    mistakes=(
        Mistake(
            "the ratio upside down",
            "The sampler's probability stands below: it already acted when the token was drawn.",
            (("logp - rollout_logp", "rollout_logp - logp"),),
        ),
        Mistake(
            "the product over padding",
            "Padding was not sampled, and has no ratio.",
            ((_DIFFERENCE, "logp - rollout_logp"),),
        ),
        Mistake(
            "the mean for the sum",
            "The mean of log-ratios gives GSPO's geometric mean, which is no importance weight.",
            ((_SUM, "(log_w.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True))"),),
        ),
        Mistake(
            "the prefix without its token",
            "The token's own ratio corrects the action; the ones before it correct the state.",
            (("log_w.cumsum(dim=1)", "log_w.cumsum(dim=1) - log_w"),),
        ),
        Mistake(
            "the weight of padding",
            "A log-ratio of 0 is a weight of 1: padding needs a zero of its own.",
            ((_KEPT, "log_w.exp()"),),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "a weight that carries a gradient",
            "A weight says how much a token counts; with a gradient it is another objective.",
            ((".detach()", ""),),
        ),
    ),
    hints=(
        "Work with logarithms: the ratio is a difference, the product a sum.",
        "Put zeros into padding before the sum, and once more after the exponential.",
        "A cumulative sum for the prefix, a sum that is expanded for the text.",
    ),
    branches={
        "token": lambda *given: given[3] == "token",
        "prefix": lambda *given: given[3] == "prefix",
        "sequence": lambda *given: given[3] == "sequence",
        "padding": lambda *given: not bool(given[2].all()),
        "a weight above 2": lambda *given: bool(
            ((given[0] - given[1] > math.log(2)) & given[2]).any()
        ),
    },
)


def _cispo_batches() -> list[tuple[Any, ...]]:
    logp, old = _policies(2)
    advantages = normal(3, 5, seed=7)
    one = torch.tensor([[True, True]])
    return [
        (table([-1.0, -2.0]), table([-2.0, -1.5]), table([1.0, -2.0]), one, 0.5),
        (table([-1.0, -2.0]), table([-2.0, -1.5]), table([-3.0, 2.0]), one, 0.5),
        (logp, old, advantages, _RAGGED, 0.2),
        (logp, old, advantages, _RAGGED, 3.0),
    ]


def _slope(function: Function, given: tuple[Any, ...], shift: float) -> Tensor:
    """The gradient of the loss where all ratios are exp(shift)."""
    _, old, *rest = given
    leaf = (old + shift).requires_grad_()
    return slope(function(leaf, old, *rest), leaf)


def _on_policy(function: Function, *given: Any) -> bool:
    _, _, advantages, mask, _ = given
    expected = torch.where(mask, -advantages, 0.0) / mask.sum()
    return apart(_slope(function, given, 0.0), expected)


def _limited(function: Function, *given: Any) -> bool:
    """Far above the cap the gradient is that at the cap; below it is proportional to the ratio."""
    cap, once = math.log(1 + given[-1]), _slope(function, given, 0.0)
    above = apart(_slope(function, given, cap + 1), once * (1 + given[-1]))
    return above or apart(_slope(function, given, -2.0), once * math.exp(-2.0))


def _loss_padding(function: Function, *given: Any) -> bool:
    *tokens, mask, clip = given
    return apart(function(*padded(mask, *tokens), clip), function(*given))


_WEIGHT = "torch.exp(logp - old_logp).clamp(max=1 + clip_high).detach()"
_CISPO_RETURN = "return -(w * A * logp).mean()"
_CISPO_ALL = (
    ("logp, old_logp = logp[mask], old_logp[mask]", "pass"),
    ("A = advantages[mask]", "A = advantages"),
)

CISPO_LOSS = Exercise(
    name="cispo_loss",
    topic="rl/off_policy",
    level=2,
    task="CISPO's loss, to be minimised: the mean over all tokens that mask counts, all arguments "
    "but clip_high being (N, T); the ratio of logp to old_logp is limited to 1 + clip_high and "
    "held fixed.",
    inputs=_cispo_batches,
    definition="off-policy-cispo",
    laws=(
        Law("At the old policy it is the policy gradient.", "off-policy-cispo", _on_policy),
        Law(
            "The gradient is proportional to the ratio, and no longer grows above the cap.",
            "off-policy-cispo",
            _limited,
        ),
        Law("Padding changes nothing.", "off-policy-cispo", _loss_padding),
    ),
    mistakes=(
        Mistake(
            "the clip of the product",
            "That is PPO without its minimum: where the ratio is clipped nothing is left.",
            (
                (_WEIGHT, "torch.exp(logp - old_logp).clamp(max=1 + clip_high)"),
                (_CISPO_RETURN, "return -(w * A).mean()"),
            ),
        ),
        Mistake(
            "PPO's minimum",
            "PPO stops the tokens that moved far enough; CISPO limits their weight and keeps "
            "their gradient.",
            (
                (_WEIGHT, "torch.exp(logp - old_logp)"),
                (
                    _CISPO_RETURN,
                    "return -torch.minimum(w * A, w.clamp(1 - clip_high, 1 + clip_high) * A)"
                    ".mean()",
                ),
            ),
        ),
        Mistake(
            "the ratio upside down",
            "The old policy drew the tokens, so its probability stands below.",
            (("logp - old_logp", "old_logp - logp"),),
        ),
        Mistake(
            "no cap",
            "Without it one token with a large ratio decides the step.",
            ((".clamp(max=1 + clip_high)", ""),),
        ),
        Mistake("padding counted", "The mean is over counted tokens.", _CISPO_ALL),
        Mistake(
            "a mean for each text first",
            "One mean over the tokens of all texts: a long text's tokens count as much as others.",
            (
                *_CISPO_ALL,
                (
                    _CISPO_RETURN,
                    "return -((w * A * logp * mask).sum(1) / mask.sum(1)).mean()",
                ),
            ),
        ),
    ),
    hidden_mistakes=(
        Mistake(
            "a weight that carries a gradient",
            "Then a token's gradient has the factor 1 + log pi, negative where log pi is below -1.",
            ((".detach()", ""),),
        ),
        Mistake(
            "no gradient at all",
            "The ratio is held fixed, and logp itself carries the gradient.",
            (("w * A * logp", "w * A * logp.detach()"),),
        ),
    ),
    conventions=(
        Convention(
            "clip_high absolute",
            "TRL's epsilon_high is the cap itself. To match, use 1 + clip_high.",
            (("max=1 + clip_high", "max=clip_high"),),
        ),
        Convention(
            "a lower clamp too",
            "verl clamps the ratio below at 1 - clip_ratio_low. To match, clamp above only.",
            ((".clamp(max=1 + clip_high)", ".clamp(1 - clip_high, 1 + clip_high)"),),
        ),
        Convention(
            "the objective, to be maximised",
            "The paper writes it so. To match, return minus it, a loss.",
            ((_CISPO_RETURN, "return (w * A * logp).mean()"),),
        ),
    ),
    hints=(
        "It is REINFORCE with a weight on each token.",
        "The weight is an importance ratio, truncated above, without a gradient.",
        "Only logp itself carries the gradient.",
    ),
    branches={
        "above the cap, advantage positive": lambda *g: bool(
            ((g[0] - g[1] > math.log(1 + g[4])) & (g[2] > 0) & g[3]).any()
        ),
        "above the cap, advantage negative": lambda *g: bool(
            ((g[0] - g[1] > math.log(1 + g[4])) & (g[2] < 0) & g[3]).any()
        ),
    },
    fixed=("old_logp", "advantages"),
)


def _decoupled_batches() -> list[tuple[Any, ...]]:
    logp, proximal, rollout = _policies(3)
    one = torch.tensor([[True, True]])
    two = table([-1.0, -2.0]), table([-1.5, -1.5]), table([-1.2, -1.1])
    return [
        (*two, table([1.0, -3.0]), one, 0.2),
        (*two, table([-2.0, 1.0]), one, 0.2),
        (
            table([-0.5, -2.0]),
            table([-2.0, -1.5]),
            table([-3.0, -1.0]),
            table([-2.0, 1.0]),
            one,
            0.2,
        ),
        (logp, proximal, rollout, normal(3, 5, seed=7), _RAGGED, 0.1),
    ]


def _moved(function: Function, given: tuple[Any, ...], sign: int, steps: float) -> Tensor:
    """The loss with advantages of one sign, and ratios `steps` clips away from the proximal."""
    _, proximal, rollout, advantages, mask, clip = given
    logp = proximal + math.log(1 + steps * clip)
    loss: Tensor = function(logp, proximal, rollout, sign * (1 + advantages.abs()), mask, clip)
    return loss


def _pulls(function: Function, *given: Any) -> bool:
    moved = partial(_moved, function, given)
    return pulls_beyond(moved, 2, 3) or never_returns(moved, 2, 3)


def _at_proximal(function: Function, *given: Any) -> bool:
    _, proximal, rollout, advantages, mask, clip = given
    expected = -((proximal - rollout).exp() * advantages)[mask].mean()
    return apart(function(proximal, proximal, rollout, advantages, mask, clip), expected)


_OUTSIDE = "torch.exp(proximal - rollout)"
_RHO = "torch.exp(logp - proximal)"
_MINIMUM = "torch.minimum(rho * A, rho.clamp(1 - clip, 1 + clip) * A)"

DECOUPLED_PPO_LOSS = Exercise(
    name="decoupled_ppo_loss",
    topic="rl/off_policy",
    level=2,
    task="PPO's loss with three policies, to be minimised: tokens drawn by the rollout policy, "
    "ratios clipped around the proximal one to 1 - clip and 1 + clip, each token weighted by "
    "proximal over rollout; the mean over all tokens that mask counts, all arguments but clip "
    "being (N, T).",
    inputs=_decoupled_batches,
    definition="off-policy-decoupled",
    laws=(
        Law(
            "A ratio to the proximal policy outside the clip pulls no further on the good side, "
            "and is still pulled back on the bad side.",
            "off-policy-decoupled",
            _pulls,
        ),
        Law(
            "At the proximal policy no token is clipped, whoever drew it.",
            "off-policy-decoupled",
            _at_proximal,
        ),
        Law("Padding changes nothing.", "off-policy-decoupled", _loss_padding),
    ),
    mistakes=(
        Mistake(
            "the whole ratio outside",
            "The weight and the clipped ratio multiply to pi over the sampler; with pi over the "
            "sampler outside, the update counts twice.",
            ((_OUTSIDE, "torch.exp(logp.detach() - rollout)"),),
        ),
        Mistake(
            "the proximal policy taken for the sampler",
            "Then the weight is 1, and nothing is corrected.",
            ((_OUTSIDE, "torch.ones_like(rollout)"),),
        ),
        Mistake(
            "the clip around the sampler",
            "Tokens are then clipped because sampler and trainer differ, before any update.",
            ((_OUTSIDE, "torch.ones_like(rollout)"), (_RHO, "torch.exp(logp - rollout)")),
        ),
        Mistake(
            "the weight upside down",
            "The sampler drew the tokens, so its probability stands below.",
            (("proximal - rollout", "rollout - proximal"),),
        ),
        Mistake(
            "max in place of min",
            "The minimum is the pessimistic choice; with the maximum the clip frees what it "
            "should stop.",
            ((_MINIMUM, _MINIMUM.replace("minimum", "maximum")),),
        ),
        Mistake(
            "padding counted",
            "The mean is over counted tokens.",
            (
                ("logp, A = logp[mask], advantages[mask]", "A = advantages"),
                (
                    "proximal, rollout = proximal_logp[mask], rollout_logp[mask]",
                    "proximal, rollout = proximal_logp, rollout_logp",
                ),
            ),
        ),
        Mistake(
            "a mean for each text first",
            "One mean over the tokens of all texts: a long text's tokens count as much as others.",
            (
                ("logp, A = logp[mask], advantages[mask]", "A = advantages"),
                (
                    "proximal, rollout = proximal_logp[mask], rollout_logp[mask]",
                    "proximal, rollout = proximal_logp, rollout_logp",
                ),
                (
                    "return -(w * surrogate).mean()",
                    "return -((w * surrogate * mask).sum(1) / mask.sum(1)).mean()",
                ),
            ),
        ),
        Mistake(
            "the weight inside the clip",
            "The clip is a question about the update; the weight multiplies its result.",
            (
                (_RHO, "torch.exp(logp - proximal) * w"),
                ("return -(w * surrogate).mean()", "return -surrogate.mean()"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "weights normalised to mean 1",
            "verl can divide the weights by their mean over the batch. To match, use them as "
            "they are.",
            (("return -(w * surrogate)", "return -(w / w.mean() * surrogate)"),),
        ),
        Convention(
            "weights of at most 2",
            "Truncated importance sampling, as in TRL and verl. To match, use the weights as they "
            "are.",
            ((_OUTSIDE, f"{_OUTSIDE}.clamp(max=2)"),),
        ),
        Convention(
            "at most 3 for the ratio where the advantage is negative",
            "A dual clip, as verl's clip_ratio_c. To match, take the minimum alone.",
            ((_MINIMUM, f"torch.where(A < 0, {_MINIMUM}.max(3 * A), {_MINIMUM})"),),
        ),
        Convention(
            "weights of at most 2, and at most 3 for the ratio where the advantage is negative",
            "Truncated importance sampling with a dual clip. To match, use the weights as they "
            "are, and take the minimum alone.",
            (
                (_OUTSIDE, f"{_OUTSIDE}.clamp(max=2)"),
                (_MINIMUM, f"torch.where(A < 0, {_MINIMUM}.max(3 * A), {_MINIMUM})"),
            ),
        ),
    ),
    hints=(
        "Two ratios: one says who sampled, the other how far the update has gone.",
        "The first is a constant outside the minimum.",
        "The second is clipped as in PPO.",
    ),
    branches={
        "clipped": lambda *g: bool(((g[0] - g[1] > math.log(1 + g[5])) & (g[3] > 0) & g[4]).any()),
        "not clipped": lambda *g: bool(
            ((g[0] - g[1] > math.log(1 + g[5])) & (g[3] < 0) & g[4]).any()
        ),
        "a weight above 2": lambda *g: bool(((g[1] - g[2] > math.log(2)) & g[4]).any()),
        "a ratio above 3, advantage negative": lambda *g: bool(
            ((g[0] - g[1] > math.log(3)) & (g[3] < 0) & g[4]).any()
        ),
    },
    fixed=("proximal_logp", "rollout_logp", "advantages"),
)

EXERCISES = (IMPORTANCE_WEIGHTS, CISPO_LOSS, DECOUPLED_PPO_LOSS)
