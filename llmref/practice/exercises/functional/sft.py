"""Exercise on the loss of supervised fine-tuning."""

import math
from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import rows, table
from llmref.practice.exercises._laws import without_maximum

_NAN = math.nan


def _responses() -> list[tuple[Any, ...]]:
    none, one = False, True
    padded = rows(3, 5, 4, seed=1)
    padded[0, 4:] = torch.nan  # padding: what stands there, and what is said there
    padded[1, 3:] = torch.nan
    ragged = 2 * rows(4, 6, 7, seed=2)
    ragged[3, 2:] = torch.nan
    return [
        (table([[0.0, 1.0], [5.0, 0.0]]), torch.tensor([[0, 1]]), torch.tensor([[none, one]])),
        (
            table([[-800.0, -801.0], [5.0, 0.0]]),
            torch.tensor([[0, 0]]),
            torch.tensor([[none, one]]),
        ),
        (
            table([[0.0, 1.0], [3.0, 0.0], [0.0, 9.0]]),
            torch.tensor([[1, 0, 1]]),
            torch.tensor([[none, one, one]]),
        ),
        (
            table([[0.0, 1.0], [3.0, 0.0], [_NAN, _NAN]]),
            torch.tensor([[1, 1, 0]]),
            torch.tensor([[one, one, none]]),
        ),
        (
            table([[0.0, 800.0], [900.0, 0.0], [0.0, 1.0]]),
            torch.tensor([[1, 0, 1]]),
            torch.tensor([[none, one, one]]),
        ),
        (
            table([[0.0, 1.0], [1000.0, 1001.0], [0.0, 9.0]]),
            torch.tensor([[1, 0, 1]]),
            torch.tensor([[none, one, one]]),
        ),
        (
            padded,
            torch.tensor([[3, 1, 0, 2, 0], [1, 1, 2, 0, 0], [0, 3, 1, 1, 2]]),
            torch.tensor(
                [
                    [none, none, one, one, none],
                    [one, one, one, none, none],
                    [none, none, none, none, one],
                ]
            ),
        ),
        (
            ragged,
            torch.tensor(
                [[5, 1, 0, 6, 2, 4], [3, 3, 2, 1, 0, 5], [0, 2, 4, 6, 1, 3], [4, 6, 0, 0, 0, 0]]
            ),
            torch.tensor(
                [
                    [none, one, one, one, one, one],
                    [none, none, none, none, one, one],
                    [one, none, none, one, none, one],
                    [none, none, none, none, none, none],
                ]
            ),
        ),
    ]


def _last(function: Function, logits: Tensor, tokens: Tensor, mask: Tensor) -> bool:
    other = logits.clone()
    other[:, -1] = torch.arange(1.0, 1 + logits.shape[-1]).double().square()
    return apart(function(other, tokens, mask), function(logits, tokens, mask))


def _first(function: Function, logits: Tensor, tokens: Tensor, mask: Tensor) -> bool:
    other, marked = tokens.clone(), mask.clone()
    other[:, 0] = logits.shape[-1] - 1 - other[:, 0]
    marked[:, 0] = ~marked[:, 0]
    return apart(function(logits, other, marked), function(logits, tokens, mask))


def _empty_row(function: Function, logits: Tensor, tokens: Tensor, mask: Tensor) -> bool:
    more = (torch.cat([it, torch.zeros_like(it[:1])]) for it in (logits, tokens, mask))
    return apart(function(*more), function(logits, tokens, mask))


def _padding(function: Function, logits: Tensor, tokens: Tensor, mask: Tensor) -> bool:
    longer = torch.cat([logits, torch.full_like(logits[:, :1], torch.nan)], dim=1)
    more = torch.cat([tokens, tokens[:, :1]], dim=1)
    marked = torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)
    before, after = function(logits, tokens, mask), function(longer, more, marked)
    return not torch.allclose(before, after, rtol=1e-6, atol=1e-9, equal_nan=True)


_LOG_P = "z.log_softmax(-1)"
_RETURN = "return -log_p.mean()"
_ALL = (
    ("targets = tokens[:, 1:][counted]", "targets = tokens[:, 1:]"),
    ("z = logits[:, :-1][counted]", "z = logits[:, :-1]"),
)

SFT_LOSS = Exercise(
    name="sft_loss",
    topic="functional/sft",
    level=2,
    task="The mean of minus the log-probability of the counted tokens, over all of them: "
    "logits (B, T, V) after token t predict token t + 1 of tokens (B, T), mask (B, T) is "
    "True at the tokens that count, the first token is never predicted, and logits that "
    "predict no counted token may be NaN; logits may be large.",
    inputs=_responses,
    definition="sft-shift",
    laws=(
        Law("The logits after the last token predict nothing.", "sft-shift", _last),
        Law("The first token is not predicted, marked or not.", "sft-shift", _first),
        Law("A row without a counted token changes nothing.", "sft-empty-rows", _empty_row),
        Law(
            "More padding changes nothing, whatever it holds.",
            "sft-padding-invariance",
            _padding,
        ),
    ),
    mistakes=(
        Mistake(
            "no shift",
            "The logits after a token predict the next one, not the token itself.",
            (
                ("mask[:, 1:]", "mask"),
                ("tokens[:, 1:]", "tokens"),
                ("logits[:, :-1]", "logits"),
            ),
        ),
        Mistake(
            "shifted the other way",
            "The targets are the tokens from the second on, the logits all but the last.",
            (("tokens[:, 1:]", "tokens[:, :-1]"), ("logits[:, :-1]", "logits[:, 1:]")),
        ),
        Mistake(
            "mask aligned with the inputs",
            "The mask marks the tokens that are predicted, so it is cut as the tokens are.",
            (("mask[:, 1:]", "mask[:, :-1]"),),
        ),
        Mistake(
            "prompt and padding counted",
            "Only the tokens that the mask marks have a loss.",
            (("counted = mask[:, 1:]", "counted = torch.ones_like(mask[:, 1:])"),),
        ),
        Mistake(
            "divided by all positions",
            "The mean runs over the counted tokens only.",
            ((_RETURN, "return -log_p.sum() / counted.numel()"),),
        ),
        Mistake(
            "divided by the rows",
            "That is a sum over the tokens of a row: long responses weigh more.",
            ((_RETURN, "return -log_p.sum() / len(mask)"),),
        ),
        Mistake(
            "loss times mask",
            "0 times NaN is NaN: select the counted tokens, do not multiply.",
            (
                *_ALL,
                (_RETURN, "return -(log_p.squeeze(-1) * counted).sum() / counted.sum()"),
            ),
        ),
        Mistake(
            "logarithm of softmax",
            "A probability of 1e-400 is 0 in floating point, and its logarithm infinite.",
            ((_LOG_P, "z.softmax(-1).log()"),),
        ),
        without_maximum(((_LOG_P, "(z - z.exp().sum(-1, keepdim=True).log())"),)),
    ),
    conventions=(
        Convention(
            "averaging each response first",
            "Batches of one row, averaged, do so; verl calls it seq-mean-token-mean. To "
            "match, divide the sum over all counted tokens by their number.",
            (
                (
                    _RETURN,
                    "n = counted.sum(1); "
                    "sums = log_p.new_zeros(len(n))"
                    ".index_add(0, counted.nonzero()[:, 0], log_p[:, 0]); "
                    "return -(sums[n > 0] / n[n > 0]).mean()",
                ),
            ),
        ),
        Convention(
            "the sum over counted tokens",
            "Transformers computes it before it divides by num_items_in_batch. To match, "
            "divide by the number of counted tokens.",
            ((_RETURN, "return -log_p.sum()"),),
        ),
    ),
    hints=(
        "Which logits say something about token 1, and which token do the last logits predict?",
        "Cut tokens and mask in the same way, and the logits in the other.",
        "Select what counts before anything is averaged.",
    ),
    branches={
        "NaN where nothing counts": lambda z, tokens, mask: bool(z.isnan().any()),
        "a row without a counted token": lambda z, tokens, mask: bool((~mask).all(dim=1).any()),
        "the first token marked": lambda z, tokens, mask: bool(mask[:, 0].any()),
        "rows of different counts": lambda z, tokens, mask: bool(
            (mask[:, 1:].sum(1) != mask[0, 1:].sum()).any()
        ),
        "a gap that underflows": lambda z, tokens, mask: bool((z > 750).any()),
        "logits far below 0": lambda z, tokens, mask: bool((z < -750).any()),
    },
)

EXERCISES = (SFT_LOSS,)
