"""Exercises on the filters of sampling: top-k, top-p and min-p."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake
from llmref.practice.exercises._inputs import number, rows, table
from llmref.practice.exercises._laws import without_maximum


def _top_k() -> list[tuple[Any, ...]]:
    return [
        (number(2.0), 1),
        (number(0.0, 1.0), 1),
        (number(0.0, 1.0), 3),
        (number(0.0, 2.0, 2.0), 1),
        (number(-1.0, 3.0, -2.0, 2.0), 2),
        (number(-4.0, -torch.inf, -1.0, -3.0), 3),
        (table([0.0, 1.0, 2.0], [5.0, 3.0, 4.0]), 1),
        (rows(2, 3, 5), 2),
        (3 * rows(6, 7, seed=1), 4),
    ]


def _top_p() -> list[tuple[Any, ...]]:
    return [
        (number(2.0), 0.5),
        (number(0.0, 0.0), 0.5),
        (number(0.0, 2.0), 0.9),
        (number(-1.0, 0.5, 0.0), 0.7),
        (number(1000.0, 1002.0, 1001.0), 0.7),
        (number(0.5, -torch.inf, 2.0, 0.0), 0.95),
        (table([0.0, 1.0], [1000.0, 1002.0]), 0.6),
        (table([0.0, 3.0, 1.0], [2.0, 0.0, 1.9]), 0.8),
        (rows(2, 3, 5), 0.8),
        (2 * rows(6, 7, seed=1), 0.3),
    ]


def _min_p() -> list[tuple[Any, ...]]:
    return [
        (number(-2.0), 0.5),
        (number(0.0, 1.0), 0.5),
        (number(2.0, 2.0), 1.0),
        (number(3.0, 2.5, 2.0), 0.5),
        (number(1000.0, 1002.0, 1001.0), 0.3),
        (number(-4.0, -torch.inf, -1.0, -3.0), 0.1),
        (table([0.0, 1.0], [1000.0, 1002.0]), 0.5),
        (table([0.0, 9.0, 8.0], [2.0, 0.0, 1.5]), 0.2),
        (rows(2, 3, 5), 0.3),
        (3 * rows(6, 7, seed=1), 0.01),
    ]


def _changed(function: Function, logits: Tensor, p: float) -> bool:
    out = function(logits, p)
    return bool(((out != logits) & (out != -torch.inf)).any())


def _too_many(function: Function, logits: Tensor, k: int) -> bool:
    kept = function(logits, k).isfinite().sum(-1)
    return bool((kept != logits.isfinite().sum(-1).clamp(max=k)).any())


def _smaller_kept(function: Function, logits: Tensor, p: float) -> bool:
    kept = function(logits, p) != -torch.inf
    least = logits.masked_fill(~kept, torch.inf).amin(-1)
    return bool((logits.masked_fill(kept, -torch.inf).amax(-1) > least).any())


def _too_little(function: Function, logits: Tensor, p: float) -> bool:
    kept = function(logits, p) != -torch.inf
    return bool(((logits.softmax(-1) * kept).sum(-1) < p - 1e-9).any())


def _too_much(function: Function, logits: Tensor, p: float) -> bool:
    kept = function(logits, p) != -torch.inf
    probs = logits.softmax(-1)
    least = probs.masked_fill(~kept, torch.inf).amin(-1)
    return bool(((probs * kept).sum(-1) - least >= p).any())


def _by_ratio(function: Function, logits: Tensor, p: float) -> bool:
    kept = function(logits, p) != -torch.inf
    ratio = (logits - logits.amax(-1, keepdim=True)).exp()
    return bool(((ratio > p + 1e-9) & ~kept).any() or ((ratio < p - 1e-9) & kept).any())


def _shifted(function: Function, logits: Tensor, p: float) -> bool:
    return bool((function(logits + 8, p).isinf() != function(logits, p).isinf()).any())


def _row_by_row(function: Function, logits: Tensor, p: float) -> bool:
    flat = logits.reshape(-1, logits.shape[-1])
    return not torch.equal(function(logits, p).reshape(flat.shape)[:1], function(flat[:1], p))


_FILL = "logits.masked_fill(removed, -torch.inf)"
_ZERO = Mistake(
    "logit 0 for what is removed",
    "A logit of 0 is no probability of 0: the exponential of minus infinity is.",
    ((_FILL, "logits.masked_fill(removed, 0.0)"),),
)
_FINITE = Mistake(
    "-1e9 for what is removed",
    "It is no probability of 0, only mostly: the exponential of minus infinity is.",
    ((_FILL, "logits.masked_fill(removed, -1e9)"),),
)
_SORTED = "They have to go back to the places that they had before the sort."
_TOKENS = {
    "several rows": lambda logits, p: logits.ndim > 1,
    "a token removed before": lambda logits, p: bool(logits.isinf().any()),
}

TOP_K = Exercise(
    name="top_k",
    topic="functional/sampling",
    level=1,
    task="Keep the k largest logits of each row (last axis), at most as many as there are, "
    "and set the others to minus infinity; of tied logits the first ones rank first.",
    inputs=_top_k,
    definition="sampling-top-k",
    laws=(
        Law(
            "A logit is unchanged or minus infinity.",
            "sampling-truncation-projection",
            _changed,
        ),
        Law("Exactly k tokens of each row are kept.", "sampling-top-k", _too_many),
        Law(
            "No token that is removed has a larger logit than one that is kept.",
            "sampling-top-k",
            _smaller_kept,
        ),
        Law("Each row is filtered by itself.", "sampling-top-k", _row_by_row),
    ),
    mistakes=(
        Mistake(
            "one token more",
            "k counts the tokens that stay: the rank k, counted from 0, is removed.",
            (("order[..., :k]", "order[..., : k + 1]"),),
        ),
        Mistake(
            "the k smallest",
            "A sort is ascending unless told otherwise.",
            (("descending=True", "descending=False"),),
        ),
        Mistake(
            "mask of the sorted tokens on the unsorted",
            "The mask has to go back to the places that the tokens had before the sort.",
            (
                (
                    "removed.scatter(-1, order[..., :k], False)",
                    "torch.arange(logits.shape[-1]).expand(logits.shape) >= k",
                ),
            ),
        ),
        Mistake(
            "k tokens of all rows",
            "Each row has k tokens of its own.",
            (
                ("logits.argsort(dim=-1", "logits.flatten().argsort(dim=-1"),
                (
                    "removed.scatter(-1, order[..., :k], False)",
                    "removed.flatten().scatter(-1, order[:k], False).view_as(logits)",
                ),
            ),
        ),
        _ZERO,
        _FINITE,
        Mistake(
            "logits returned in their sorted order",
            _SORTED,
            (
                (
                    _FILL,
                    "logits.gather(-1, order).masked_fill(removed.gather(-1, order), -torch.inf)",
                ),
            ),
        ),
        Mistake(
            "the k logits alone",
            "All tokens stay in the row; those that are removed get minus infinity.",
            ((_FILL, "logits.gather(-1, order[..., :k])"),),
        ),
        Mistake(
            "the removed kept",
            "The mask marks what is removed; what is in the top k stays.",
            ((_FILL, "logits.masked_fill(~removed, -torch.inf)"),),
        ),
    ),
    conventions=(
        Convention(
            "a threshold, which keeps all that equal the k-th",
            "Transformers and nanoGPT compare with the k-th largest logit. To match, keep "
            "exactly k, of the tied the first.",
            (
                (
                    "removed.scatter(-1, order[..., :k], False)",
                    "logits < logits.gather(-1, order[..., :k][..., -1:])",
                ),
            ),
        ),
    ),
    hints=(
        "Ranks, not values, say what stays.",
        "Sort each row, and remember where each token stood.",
    ),
    branches={
        **_TOKENS,
        "a tie": lambda logits, k: bool((logits.diff(dim=-1) == 0).any()),
        "k beyond the row": lambda logits, k: k > logits.shape[-1],
        "negative logits": lambda logits, k: bool((logits < 0).all()),
    },
)

TOP_P = Exercise(
    name="top_p",
    topic="functional/sampling",
    level=2,
    task="Of each row (last axis) keep the fewest tokens, largest first, whose probabilities "
    "together reach p, for 0 < p < 1, and set the other logits to minus infinity; of tied "
    "logits the first ones rank first, and logits may be large.",
    inputs=_top_p,
    definition="sampling-top-p",
    laws=(
        Law(
            "A logit is unchanged or minus infinity.",
            "sampling-truncation-projection",
            _changed,
        ),
        Law("What is kept has at least the mass p.", "sampling-top-p", _too_little),
        Law("Without its last token it has less.", "sampling-top-p", _too_much),
        Law(
            "No token that is removed has a larger logit than one that is kept.",
            "sampling-top-p",
            _smaller_kept,
        ),
    ),
    mistakes=(
        Mistake(
            "the crossing token dropped",
            "The token at which the mass reaches p is kept: without it p is not reached.",
            (("before >= p", "probs.cumsum(-1) > p"),),
        ),
        Mistake(
            "one token more at the boundary",
            "If the mass before a token is p already, the token is removed.",
            (("before >= p", "before > p"),),
        ),
        Mistake(
            "mask of the sorted tokens on the unsorted",
            "The mask has to go back to the places that the tokens had before the sort.",
            (("removed.scatter(-1, order, before >= p)", "before >= p"),),
        ),
        Mistake(
            "the smallest first",
            "A sort is ascending unless told otherwise; the nucleus holds the largest.",
            (("descending=True", "descending=False"),),
        ),
        Mistake(
            "softmax over the rows",
            "The probabilities of a row sum to 1 over the vocabulary, the last axis.",
            (("softmax(-1)", "softmax(0)"),),
        ),
        Mistake(
            "tokens of probability p at least",
            "p is a mass of many tokens, no bound for each of them.",
            (
                (
                    "removed.scatter(-1, order, before >= p)",
                    "logits.softmax(-1) < p",
                ),
            ),
        ),
        Mistake(
            "the crossing token dropped, but for the first token",
            "Not only the first token may cross p: the one that does is always kept.",
            (("before >= p", "(probs.cumsum(-1) > p) & (before > 0)"),),
        ),
        Mistake(
            "logits returned in their sorted order",
            _SORTED,
            ((_FILL, "logits.gather(-1, order).masked_fill(before >= p, -torch.inf)"),),
        ),
        Mistake(
            "probabilities returned",
            "A filter takes logits and gives logits; the softmax comes after it.",
            ((_FILL, "logits.softmax(-1).masked_fill(removed, 0.0)"),),
        ),
        Mistake(
            "logits summed, not probabilities",
            "The mass is one of probabilities, so the softmax comes before the sum.",
            (("logits.gather(-1, order).softmax(-1)", "logits.gather(-1, order)"),),
        ),
        without_maximum(
            (
                (
                    "logits.gather(-1, order).softmax(-1)",
                    "logits.gather(-1, order).exp(); probs = probs / probs.sum(-1, keepdim=True)",
                ),
            )
        ),
        _ZERO,
        _FINITE,
    ),
    conventions=(
        Convention(
            "the last of tied tokens kept",
            "Transformers sorts upwards, and keeps the last of tied tokens. To match, sort "
            "downwards and stably.",
            (
                (
                    "logits.argsort(dim=-1, descending=True, stable=True)",
                    "logits.argsort(dim=-1, stable=True).flip(-1)",
                ),
            ),
        ),
    ),
    hints=(
        "Walk down the sorted probabilities: what decides about a token is the mass before it.",
        "The first token has no mass before it, so it always stays.",
        "The sort moves the tokens; the mask has to move back.",
    ),
    branches={
        **_TOKENS,
        "a mass equal to p": lambda logits, p: logits.numel() == 2 and p == 0.5,
        "the first token reaches p": lambda logits, p: bool(
            (logits.softmax(-1).amax(-1) > p).all()
        ),
    },
)

MIN_P = Exercise(
    name="min_p",
    topic="functional/sampling",
    level=1,
    task="In each row (last axis) keep the tokens whose probability is at least p times that "
    "of the most likely one, for 0 < p <= 1, and set the other logits to minus infinity; "
    "logits may be large.",
    inputs=_min_p,
    definition="sampling-min-p",
    laws=(
        Law(
            "A logit is unchanged or minus infinity.",
            "sampling-truncation-projection",
            _changed,
        ),
        Law(
            "A token stays if its probability is p times the largest, and goes if it is less.",
            "sampling-min-p",
            _by_ratio,
        ),
        Law("A number added to all logits removes no others.", "sampling-min-p", _shifted),
    ),
    mistakes=(
        Mistake(
            "compared with 1, not with the largest",
            "The bound scales with the largest probability, so that flat rows keep more.",
            (
                (
                    "logits.amax(-1, keepdim=True)",
                    "logits.logsumexp(-1, keepdim=True)",
                ),
            ),
        ),
        Mistake(
            "a share of the largest logit",
            "p times a probability is the logit plus log p, not p times the logit.",
            (
                (
                    "logits.amax(-1, keepdim=True) + math.log(p)",
                    "logits.amax(-1, keepdim=True) * p",
                ),
            ),
        ),
        Mistake(
            "p not in logarithm",
            "Logits are logarithms: a factor p becomes a summand log p.",
            (("+ math.log(p)", "- 1 + p"),),
        ),
        Mistake(
            "the largest of all rows",
            "Each row has a largest token of its own.",
            (("logits.amax(-1, keepdim=True)", "logits.max()"),),
        ),
        Mistake(
            "the largest alone",
            "The bound is p times the largest, not the largest itself.",
            ((" + math.log(p)", ""),),
        ),
        Mistake(
            "logit 0 for what is removed",
            "A logit of 0 is no probability of 0: the exponential of minus infinity is.",
            (("least, -torch.inf", "least, 0.0"),),
        ),
        Mistake(
            "-1e9 for what is removed",
            "It is no probability of 0, only mostly: the exponential of minus infinity is.",
            (("least, -torch.inf", "least, -1e9"),),
        ),
        without_maximum(
            (
                ("logits.amax(-1, keepdim=True) + math.log(p)", "logits.exp()"),
                (
                    "logits < least",
                    "~(least / least.sum(-1, keepdim=True) "
                    ">= p * (least / least.sum(-1, keepdim=True)).amax(-1, keepdim=True))",
                ),
            )
        ),
    ),
    hints=(
        "The normaliser is the same for all tokens of a row: what does it do to the ratio?",
        "So the logits alone decide, by their gap to the largest.",
    ),
    branches={
        **_TOKENS,
        "p = 1": lambda logits, p: p == 1,
        "negative logits": lambda logits, p: bool((logits < 0).all()),
    },
)

EXERCISES = (
    TOP_K,
    TOP_P,
    MIN_P,
)
