"""Exercises on masks."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake

_BLOCKED = "nn.MultiheadAttention takes masks so, True is blocked. To match, invert it."
_ADDED = (
    "nn.Transformer makes such masks, and adds them to the scores. "
    "To match, return booleans, True where the query may read."
)

_UPPER_LEFT = ("torch.arange(S - T, S)[:, None]", "torch.arange(T)[:, None]")


def _sizes() -> list[tuple[Any, ...]]:
    return [(1, 1), (1, 3), (2, 2), (2, 4), (3, 3), (3, 7)]


def _windows() -> list[tuple[Any, ...]]:
    return [(1, 1, 1), (1, 3, 2), (2, 2, 1), (3, 3, 2), (2, 5, 3), (3, 4, 9), (3, 7, 4)]


def _mask(function: Function, *sizes: int) -> Tensor:
    return torch.as_tensor(function(*sizes)).bool()


def _rows_of_square(function: Function, T: int, S: int, *window: int) -> bool:
    return not torch.equal(_mask(function, T, S, *window), _mask(function, S, S, *window)[-T:])


def _ahead(function: Function, T: int, S: int, *window: int) -> bool:
    return bool(_mask(function, T, S, *window).triu(S - T + 1).any())


def _itself(function: Function, T: int, S: int, *window: int) -> bool:
    return not bool(_mask(function, T, S, *window).diagonal(S - T).all())


def _count(function: Function, T: int, S: int, window: int) -> bool:
    wanted = torch.arange(S - T + 1, S + 1).clamp(max=window)
    return not torch.equal(_mask(function, T, S, window).sum(-1), wanted)


CAUSAL_MASK = Exercise(
    name="causal_mask",
    topic="attention/masks",
    level=1,
    task=(
        "A boolean (T, S): True where a query may read a key, its own token or an earlier one; "
        "the queries are the last T of S tokens."
    ),
    inputs=_sizes,
    definition="attention-mask-alignment",
    laws=(
        Law("No query reads a later token.", "attention-mask-causality", _ahead),
        Law("Each query reads its own token.", "attention-mask-alignment", _itself),
        Law(
            "T queries have the last T rows of the square mask.",
            "attention-mask-alignment",
            _rows_of_square,
        ),
    ),
    mistakes=(
        Mistake(
            "one position ahead",
            "The diagonal is off by one: the answer of the next-token task is shown.",
            (("key <= query", "key <= query + 1"),),
        ),
        Mistake(
            "the token does not see itself",
            "The prediction is of the next token, so the token itself may be read.",
            (("key <= query", "key < query"),),
        ),
        Mistake(
            "queries and keys exchanged",
            "That shows the future and hides the past: a row is a query, a column is a key.",
            (("key <= query", "key >= query"),),
        ),
        Mistake(
            "the tokens before the queries hidden",
            "All S - T tokens that stand before the first query are earlier, and may be read.",
            (("key <= query", "(key <= query) & (key >= S - T)"),),
        ),
    ),
    conventions=(
        Convention(
            "a diagonal at the upper left",
            "is_causal=True of torch takes the first query for the first token. "
            "To match, let the last query be the last token.",
            (_UPPER_LEFT,),
        ),
        Convention("True for blocked", _BLOCKED, (("key <= query", "key > query"),)),
        Convention(
            "a mask that is added, 0 and minus infinity",
            _ADDED,
            (("key <= query", "torch.zeros(T, S).masked_fill(key > query, -torch.inf)"),),
        ),
        Convention(
            "True for blocked, and a diagonal at the upper left",
            _BLOCKED + " And the last query is the last token.",
            (_UPPER_LEFT, ("key <= query", "key > query")),
        ),
        Convention(
            "a mask that is added, with its diagonal at the upper left",
            _ADDED + " And the last query is the last token.",
            (
                _UPPER_LEFT,
                ("key <= query", "torch.zeros(T, S).masked_fill(key > query, -torch.inf)"),
            ),
        ),
    ),
    hints=(
        "At which positions do the queries stand, if there are S tokens and T queries?",
        "The last query is the last token, so the first one has S - T tokens before it.",
        "Compare a column of positions with a row of positions.",
    ),
    branches={
        "fewer queries than keys": lambda T, S: T < S,
        "one query": lambda T, S: T == 1,
    },
)

SLIDING_WINDOW_MASK = Exercise(
    name="sliding_window_mask",
    topic="attention/masks",
    level=1,
    task=(
        "A boolean (T, S): True where a query may read a key, one of the last `window` tokens, "
        "its own included; the queries are the last T of S tokens."
    ),
    inputs=_windows,
    definition="attention-mask-window",
    laws=(
        Law("No query reads a later token.", "attention-mask-causality", _ahead),
        Law("Each query reads its own token.", "attention-mask-window", _itself),
        Law(
            "A query reads as many tokens as the window is long, or all if there are fewer.",
            "attention-mask-window",
            _count,
        ),
        Law(
            "T queries have the last T rows of the square mask.",
            "attention-mask-alignment",
            _rows_of_square,
        ),
    ),
    mistakes=(
        Mistake(
            "no causal half",
            "A bound on the distance alone leaves all later tokens visible.",
            (("(key <= query) & (key > query - window)", "key > query - window"),),
        ),
        Mistake(
            "a window on both sides",
            "The absolute distance lets a query read later tokens too.",
            (
                (
                    "(key <= query) & (key > query - window)",
                    "(key - query).abs() < window",
                ),
            ),
        ),
        Mistake(
            "joined by or",
            "A key must keep both rules: not later, and not too far back.",
            (("(key <= query) & (key", "(key <= query) | (key"),),
        ),
        Mistake(
            "one key too few",
            "The token itself is one of the window, so the oldest has the distance window - 1.",
            (("query - window", "query - window + 1"),),
        ),
        Mistake(
            "the token itself not counted, nor seen",
            "A token reads itself.",
            (("key <= query", "key < query"),),
        ),
        Mistake(
            "upper left: the first query is the first token",
            "With fewer queries than keys the queries are the last tokens.",
            (_UPPER_LEFT,),
        ),
        Mistake(
            "no window",
            "The causal mask alone lets a query read everything before it.",
            (("(key <= query) & (key > query - window)", "key <= query"),),
        ),
    ),
    conventions=(
        Convention(
            "a window that counts the tokens before its own",
            "window_size of flash-attn does, so one token more is read. "
            "To match, count the token itself.",
            (("key > query - window", "key >= query - window"),),
        ),
        Convention(
            "True for blocked",
            _BLOCKED,
            (
                (
                    "(key <= query) & (key > query - window)",
                    "(key > query) | (key <= query - window)",
                ),
            ),
        ),
        Convention(
            "a mask that is added, 0 and minus infinity",
            _ADDED,
            (
                (
                    "(key <= query) & (key > query - window)",
                    "torch.zeros(T, S).masked_fill("
                    "(key > query) | (key <= query - window), -torch.inf)",
                ),
            ),
        ),
    ),
    hints=(
        "It is the causal mask with one more rule: how far back may a query look?",
        "The token itself is one of the window.",
        "With fewer queries than keys, the last query is still the last token.",
    ),
    branches={
        "fewer queries than keys": lambda T, S, window: T < S,
        "a window of one": lambda T, S, window: window == 1,
        "a window longer than the text": lambda T, S, window: window > S,
    },
)

EXERCISES = (
    CAUSAL_MASK,
    SLIDING_WINDOW_MASK,
)
