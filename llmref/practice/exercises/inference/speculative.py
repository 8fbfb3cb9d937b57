"""Exercises on speculative decoding: one step, its mean number of tokens, the best draft length."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake
from llmref.practice.exercises._inputs import number, table
from llmref.practice.exercises._laws import LawOfForms


def _drawn(K: int, V: int, seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    near = 2 * torch.randn(K + 1, V, generator=generator, dtype=torch.float64)
    p, q = (
        (near[:n] + 0.7 * torch.randn(n, V, generator=generator, dtype=torch.float64)).softmax(-1)
        for n in (K + 1, K)
    )
    p[0, 1], p[0, 0] = 0.0, p[0, 0] + p[0, 1]
    x = torch.multinomial(q, 1, generator=generator)[:, 0]
    return p, q, x, torch.rand(K + 1, generator=generator, dtype=torch.float64)


def _steps() -> list[tuple[Any, ...]]:
    none, zero, one = (torch.tensor(x, dtype=torch.long) for x in ([], [0], [1]))
    no_draft, tiny = number().view(0, 2), 2**-25  # refused in float32 too, which rounds q up
    even = table([0.5, 0.5], [0.25, 0.75])
    refused = (
        table([0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]),
        table([0.75, 0.125, 0.125], [0.25, 0.5, 0.25]),
        torch.tensor([0, 1]),
    )
    return [
        (table([0.25, 0.75]), no_draft, none, number(0.25)),
        (table([0.25, 0.75]), no_draft, none, number(0.125)),
        (even, table([0.75, 0.25]), zero, number(0.5, 0.5)),
        (even, table([0.75, 0.25]), zero, number(0.75, 0.25)),
        (even, table([0.25, 0.75]), one, number(0.875, 0.75)),
        (table([0.0, 1.0], [1.0, 0.0]), table([0.5, 0.5]), zero, number(0.0, 0.5)),
        (even, table([0.5 + 2**-5, 0.5 - 2**-5]), zero, number(1 - 2**-5, 0.25)),
        (
            table([0.5 - tiny, 0.5 + tiny], [0.25, 0.75]),
            table([0.5 - tiny, 0.5 + tiny + 2**-53]),
            one,
            number(1 - 2**-53, 0.5),
        ),
        (table([0.1] * 10), number().view(0, 10), none, number(1 - 2**-53)),
        (
            table([0.25, 0.25, 0.5], [0.5, 0.25, 0.25]),
            table([0.75, 0.125, 0.125]),
            zero,
            number(0.5, 0.25),
        ),
        (
            table([0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0]),
            table([0.75, 0.125, 0.125], [0.25, 0.5, 0.25]),
            torch.tensor([0, 1]),
            number(0.75, 0.5, 0.5),
        ),
        (*refused, number(0.875, 0.75, 0.1875)),
        (*refused, number(0.875, 0.1875, 0.75)),
        *(_drawn(3, 5, seed) for seed in range(12)),
    ]


def _numbers() -> list[tuple[Any, ...]]:
    return [(0.5, 0), (0.5, 2), (0.0, 3), (1.0, 4), (0.75, 1), (0.8, 5), (0.999, 20)]


def _costs() -> list[tuple[Any, ...]]:
    return [
        (0.5, 0.5, 3),
        (0.5, 0.25, 3),
        (0.0, 0.0, 3),
        (1.0, 0.5, 4),
        (1.0, 1.0, 4),
        (0.6, 0.7, 5),
        (0.9, 0.0, 6),
        (0.8, 0.05, 0),
        (0.8, 0.05, 4),
        (0.8, 0.05, 20),
        (0.95, 0.01, 50),
    ]


def _not_one_token_more(function: Function, p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> bool:
    out = function(p, q, x, u)
    n = len(out) - 1
    return not (0 <= n <= len(x) and torch.equal(out[:n].long(), x[:n]))


def _refuses_the_target(function: Function, p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> bool:
    if (p[:-1].gather(-1, x[:, None]) == 0).any():  # the target cannot have drawn these
        return False
    out = function(p, p[:-1], x, u)
    return len(out) != len(x) + 1 or not torch.equal(out[:-1].long(), x)


def _after_a_refusal(function: Function, p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> bool:
    out = function(p, q, x, u)
    token = x[:, None]
    refused = u[:-1] * q.gather(-1, token)[:, 0] >= p[:-1].gather(-1, token)[:, 0]
    return bool(refused[: len(out) - 1].any())


def _impossible(function: Function, p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> bool:
    """Whether a token comes that the target never gives, or that does not exist."""
    out = function(p, q, x, u).long()
    if len(out) > len(p) or (out >= p.shape[1]).any():
        return True
    return bool((p[: len(out)].gather(-1, out[:, None]) == 0).any())


def _not_above(function: Function, p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> bool:
    out = function(p, q, x, u)
    n = len(out) - 1
    if n == len(x) or (p[n] - q[n]).clamp(min=0).sum() == 0:
        return False
    return bool(p[n, out[n].long()] <= q[n, out[n].long()])


def _outside(function: Function, alpha: float, K: int) -> bool:
    return not 1 - 1e-9 <= float(function(alpha, K)) <= K + 1 + 1e-9


def _not_all(function: Function, alpha: float, K: int) -> bool:
    return abs(float(function(1.0, K)) - K - 1) > 1e-9


def _speed(alpha: float, c: float, k: int) -> float:
    return sum(alpha**i for i in range(k + 1)) / (c * k + 1)


def _not_best(function: Function, alpha: float, c: float, max_length: int) -> bool:
    k = int(function(alpha, c, max_length))
    near = [n for n in (k - 1, k + 1) if 0 <= n <= max_length]
    return any(_speed(alpha, c, n) > _speed(alpha, c, k) + 1e-12 for n in near)


def _does_not_pay(function: Function, alpha: float, c: float, max_length: int) -> bool:
    return int(function(alpha, max(alpha, c), max_length)) != 0


_REFUSED = "u[i] * q[i, token] >= p[i, token]"

SPECULATIVE_STEP = Exercise(
    name="speculative_step",
    topic="inference/speculative",
    level=3,
    task=(
        "One step of speculative decoding: the drafted tokens x (K,) that are kept, up to the "
        "first refusal, and one token more, ids (n + 1,). p (K + 1, V) is the target, q (K, V) "
        "the draft, u (K + 1,) are uniforms in [0, 1): u[i] decides on x[i], and u[-1], whatever "
        "was refused, draws the last token, by the inverse of the distribution function. A token "
        "with p = 0 is never kept; if no residual is left, draw from p."
    ),
    inputs=_steps,
    definition="speculative-step",
    laws=(
        LawOfForms(
            "A token with p = 0 never comes, kept or drawn, nor one behind the last.",
            "speculative-token-exact",
            _impossible,
        ),
        LawOfForms("A refusal ends the step.", "speculative-step", _after_a_refusal),
        LawOfForms(
            "After the drafts that are kept comes one token.",
            "speculative-step",
            _not_one_token_more,
        ),
        LawOfForms(
            "Drafts of the target itself are all kept, and one token follows.",
            "speculative-acceptance",
            _refuses_the_target,
        ),
        Law(
            "A refused token is replaced by one that the target gives more often than the draft.",
            "speculative-token-exact",
            _not_above,
        ),
    ),
    mistakes=(
        Mistake(
            "redrawn from the target",
            "The drafts that were kept have had their share of the target; only the rest is left.",
            (("rest = (p[i] - q[i]).clamp(min=0)", "rest = p[i]"),),
        ),
        Mistake(
            "the distance for the residual",
            "Where the draft gives too much, nothing is missing: negative differences are cut.",
            (("(p[i] - q[i]).clamp(min=0)", "(p[i] - q[i]).abs()"),),
        ),
        Mistake(
            "the draft above the target",
            "What is missing is what the target has above the draft.",
            (("(p[i] - q[i])", "(q[i] - p[i])"),),
        ),
        Mistake(
            "kept with probability q / p",
            "A token that the draft gives too often must be kept less often: p / q.",
            ((_REFUSED, "u[i] * p[i, token] >= q[i, token]"),),
        ),
        Mistake(
            "kept with probability p",
            "It was drawn with probability q, and would then be given with p q.",
            ((_REFUSED, "u[i] >= p[i, token]"),),
        ),
        Mistake(
            "a token that the target never gives is kept",
            "Uniforms can be exactly 0; refuse also where u q equals p.",
            ((_REFUSED, "u[i] * q[i, token] > p[i, token]"),),
        ),
        Mistake(
            "no bonus token",
            "The target has scored the position after the last draft too.",
            (("i, rest = len(x), p[-1]", "return x"),),
        ),
        Mistake(
            "later drafts kept after a refusal",
            "They were drafted after a token that is no longer there.",
            (("torch.cat([x[:i], last[None]])", "torch.cat([x[:i], last[None], x[i + 1 :]])"),),
        ),
        Mistake(
            "the row of the next position",
            "Row i of the target is the distribution of the token that x[i] proposes.",
            ((">= p[i, token]", ">= p[i + 1, token]"),),
        ),
        Mistake(
            "one uniform for all drafts",
            "Then the keeps depend on each other, and texts have another distribution.",
            (("u[i] * q", "u[0] * q"),),
        ),
        Mistake(
            "the residual not normalised",
            "Its sum is the total variation distance, not 1.",
            (("u[-1] * cdf[-1]", "u[-1]"),),
        ),
        Mistake(
            "the uniform that refused drawn from again",
            "A uniform that refused is a large one: the last token needs a uniform of its own.",
            (("u[-1] * cdf[-1]", "u[i] * cdf[-1]"),),
        ),
        Mistake(
            "a token behind the last one",
            "A sum of rounded probabilities may end below 1, and a uniform above it: compare with "
            "the sum itself, not with 1.",
            (("(cdf <= u[-1] * cdf[-1])", "(cdf / rest.sum() <= u[-1])"),),
        ),
    ),
    conventions=(
        Convention(
            "the uniform after the one that refused",
            "It is not used otherwise, so it draws as well. To match, draw the last token by "
            "u[-1], whatever was refused.",
            (("u[-1] * cdf[-1]", "u[min(i + 1, len(x))] * cdf[-1]"),),
        ),
    ),
    hints=(
        "A token is kept with probability min(1, p / q): compare u q with p.",
        "Kept tokens have the mass min(p, q). What is missing of p?",
        "If all are kept, the target's last row has not been used yet.",
    ),
    branches={
        "no drafts": lambda p, q, x, u: len(x) == 0,
        "several drafts": lambda p, q, x, u: len(x) > 1,
        "the largest uniform": lambda p, q, x, u: bool(u[-1] == 1 - 2**-53),
        "a refusal before the last draft": lambda p, q, x, u: bool(
            (
                u[: len(x) - 1] * q.gather(-1, x[:, None])[:-1, 0]
                >= p[:-1].gather(-1, x[:, None])[:-1, 0]
            ).any()
        ),
        "a uniform of 0": lambda p, q, x, u: bool((u == 0).any()),
        "a token that the target never gives": lambda p, q, x, u: bool((p[:-1] == 0).any()),
        "a residual that rounds to 0": lambda p, q, x, u: (
            len(x) == 1 and bool(u[0] * q[0, x[0]] >= p[0, x[0]]) and not (p[0] > q[0]).any()
        ),
        "a small residual": lambda p, q, x, u: len(x) == 1 and bool((q - p[:1]).abs().sum() < 0.1),
    },
)

EXPECTED_TOKENS = Exercise(
    name="expected_tokens",
    topic="inference/speculative",
    level=1,
    task=(
        "The mean number of tokens of a step with K drafts, if each draft is kept with probability "
        "alpha, from 0 to 1, whatever came before; the token after the last kept draft counts."
    ),
    inputs=_numbers,
    definition="speculative-expected-tokens",
    laws=(
        Law(
            "A step gives between 1 and K + 1 tokens.",
            "speculative-expected-tokens",
            _outside,
        ),
        Law("If all drafts are kept, it gives K + 1.", "speculative-expected-tokens", _not_all),
    ),
    mistakes=(
        Mistake(
            "no bonus token",
            "A step gives one token more than it keeps, whatever happens.",
            (("range(K + 1)", "range(1, K + 1)"),),
        ),
        Mistake(
            "drafts without end",
            "1 / (1 - alpha) is the limit of many drafts.",
            (("sum(alpha**k for k in range(K + 1))", "1 / (1 - alpha + 1e-300)"),),
        ),
        Mistake(
            "all drafts tested alone",
            "A draft counts only if all before it were kept: alpha to the power k.",
            (("sum(alpha**k for k in range(K + 1))", "1 + K * alpha"),),
        ),
    ),
    conventions=(
        Convention(
            "K counts the token that the target adds",
            "Some logs give the length of the block, the added token included. To match, take K "
            "drafts and one token more.",
            (("range(K + 1)", "range(K)"),),
        ),
    ),
    hints=(
        "Draft k is in the text if all of the first k are kept.",
        "A mean of a count is the sum of the probabilities that it is at least k.",
    ),
    branches={
        "nothing kept": lambda alpha, K: alpha == 0,
        "all kept": lambda alpha, K: alpha == 1,
        "no drafts": lambda alpha, K: K == 0,
    },
)

BEST_DRAFT_LENGTH = Exercise(
    name="best_draft_length",
    topic="inference/speculative",
    level=2,
    task=(
        "How many tokens to draft, from 0 to max_length, for the most tokens per unit of time: "
        "each is kept with probability alpha, a pass of the draft costs c passes of the target, "
        "and one pass of the target checks them all. Of equally good numbers the smallest."
    ),
    inputs=_costs,
    definition="speculative-speedup",
    laws=(
        Law("One draft more, or less, is not better.", "speculative-speedup", _not_best),
        Law(
            "A draft that costs as much as it is kept does not pay.",
            "speculative-speedup",
            _does_not_pay,
        ),
    ),
    mistakes=(
        Mistake(
            "no draft at all",
            "A step without drafts costs a pass of the target too, and one with drafts no more "
            "than one: count it once.",
            (("(c * k + 1)", "(c * k)"),),
        ),
        Mistake(
            "the longer the better",
            "Late drafts are rarely kept, and each costs a pass of the draft.",
            (("gain * (c * k + 1) <= c * tokens", "alpha <= c"),),
        ),
        Mistake(
            "as long as a draft is kept more often than it costs",
            "A draft must bring more tokens per unit of time than the step has without it.",
            (("gain * (c * k + 1) <= c * tokens", "gain <= c"),),
        ),
        Mistake(
            "no bonus token",
            "A step without any draft gives one token already.",
            (("tokens = 1.0", "tokens = 0.0"),),
        ),
    ),
    conventions=(
        Convention(
            "the tokens of the block, the target's own counted",
            "Some settings count all tokens of a step. To match, return the number of drafts.",
            (("return k", "return k + 1"), ("return max_length", "return max_length + 1")),
        ),
    ),
    hints=(
        "Tokens per step over time per step; what does one draft more add to each?",
        "It helps while gain / c is above the ratio that you have.",
    ),
    branches={
        "free drafts": lambda alpha, c, max_length: c == 0,
        "all kept": lambda alpha, c, max_length: alpha == 1,
        "nothing to gain": lambda alpha, c, max_length: alpha <= c,
        "cut at the largest length": lambda alpha, c, max_length: max_length == 4 and alpha == 0.8,
    },
)

EXERCISES = (SPECULATIVE_STEP, EXPECTED_TOKENS, BEST_DRAFT_LENGTH)
