"""Exercises on the mixture of experts: its forward pass, and the loss that balances it."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import normal, number, table


def _layers() -> list[tuple[Any, ...]]:
    one_wide = table([[1]], [[2]], [[-1]]), table([[1]], [[1]], [[3]])  # three experts, C = F = 1
    return [
        (number(2)[:, None], table([0, 1, -1]), *one_wide, 1),
        (number(2, 1)[:, None], table([0, 1, -1], [3, 0, 1]), *one_wide, 2),
        (number(2, 1, -1)[:, None], table([2, 1, 0], [2, 0, 1], [3, 1, 2]), *one_wide, 2),
        _layer(7, 3, 4, 5, 2, seed=9),
        _layer(5, 4, 3, 6, 3),
        _layer(9, 6, 5, 3, 2, seed=18),
    ]


def _layer(N: int, E: int, C: int, F: int, k: int, seed: int = 0) -> tuple[Any, ...]:
    """Tokens, logits, the weights of the experts, and k."""
    w1, w2 = normal(E, F, C, seed=seed + 2), normal(E, C, F, seed=seed + 3)
    return normal(N, C, seed=seed), 2 * normal(N, E, seed=seed + 1), w1, w2, k


def _shift(function: Function, x: Tensor, logits: Tensor, *rest: Any) -> bool:
    return apart(function(x, logits + 3, *rest), function(x, logits, *rest))


def _one_expert(
    function: Function, x: Tensor, logits: Tensor, w1: Tensor, w2: Tensor, k: int
) -> bool:
    """All experts are the first one."""
    w1, w2 = w1[:1].expand_as(w1).clone(), w2[:1].expand_as(w2).clone()
    hidden = x @ w1[0].T
    return apart(function(x, logits, w1, w2, k), (hidden * torch.sigmoid(hidden)) @ w2[0].T)


def _each_alone(function: Function, x: Tensor, logits: Tensor, *rest: Any) -> bool:
    alone = [function(x[t : t + 1], logits[t : t + 1], *rest) for t in range(len(x))]
    return apart(function(x, logits, *rest), torch.cat(alone))


def _unchosen(
    function: Function, x: Tensor, logits: Tensor, w1: Tensor, w2: Tensor, k: int
) -> bool:
    """An expert that is far below all others changes nothing."""
    below = torch.cat([logits, logits[:, :1] - logits.abs().sum() - 9], 1)
    more = torch.cat([w1, w1[:1] + 1]), torch.cat([w2, w2[:1] - 1])
    return apart(function(x, below, *more, k), function(x, logits, w1, w2, k))


_LAST = "return torch.zeros_like(x).index_add(0, token, out.to(x.dtype))"
_WEIGH = "out = w.flatten()[order, None] * out"
_SOFTMAX = "top[:, :k].softmax(-1)"

MOE_FORWARD = Exercise(
    name="moe_forward",
    topic="components/moe",
    level=3,
    task="Each of the N tokens x (N, C) goes to the k experts of its largest logits (N, E), "
    "weighted by the softmax over these k logits. Expert e is silu(x @ w1[e].T) @ w2[e].T, "
    "with w1 (E, F, C) and w2 (E, C, F). Run an expert only on its own tokens.",
    inputs=_layers,
    definition="moe-layer",
    laws=(
        Law("Adding 3 to all logits changes nothing.", "moe-top-k-order", _shift),
        Law(
            "If all experts are the same, the output is that of this expert.",
            "moe-top-k-order",
            _one_expert,
        ),
        Law("A token alone gives what it gives in a batch.", "moe-dispatch", _each_alone),
        Law("An expert that nobody chooses changes nothing.", "moe-layer", _unchosen),
    ),
    mistakes=(
        Mistake(
            "token by remainder",
            "The choices are listed token by token, k for each: choice i is of token i // k.",
            (("order // k", "order % len(x)"),),
        ),
        Mistake(
            "weights not permuted",
            "The rows are sorted by expert, so their weights must be as well.",
            ((_WEIGH, "out = w.flatten()[:, None] * out"),),
        ),
        Mistake(
            "rows not put back",
            "The results come sorted by expert, not by token.",
            ((_LAST, "return out.view(len(x), k, -1).sum(1)"),),
        ),
        Mistake(
            "set in place of added",
            "A token has k results: the last one written would be all that is left.",
            (("index_add", "index_copy"),),
        ),
        Mistake(
            "added to x",
            "The residual is added outside; in the layer a sum over nothing is 0.",
            (("torch.zeros_like(x)", "x"),),
        ),
        Mistake(
            "no weights",
            "The experts are weighted by the router, whose only gradient comes through them.",
            ((_WEIGH, "out = 1.0 * out"),),
        ),
        Mistake(
            "logits as weights",
            "Weights are probabilities: positive, with the sum 1.",
            ((_SOFTMAX, "top[:, :k]"),),
        ),
        Mistake(
            "softmax over the tokens",
            "Each token shares a weight of 1 among its own experts.",
            ((_SOFTMAX, "top[:, :k].softmax(0)"),),
        ),
        Mistake(
            "the smallest logits",
            "The k largest logits choose.",
            (("descending=True", "descending=False"),),
        ),
        Mistake(
            "experts of the places",
            "After sorting, the number of the expert is in the indices, not in the column.",
            (
                (
                    "idx[:, :k]",
                    "torch.arange(k).expand(len(x), k)",
                ),
            ),
        ),
    ),
    conventions=(
        Convention(
            "not renormalised",
            "Switch, OLMoE and DeepSeek-V2 take the softmax over all logits, so that the weights "
            "sum to less than 1. To match, take it over the chosen ones alone.",
            ((_SOFTMAX, "logits.softmax(-1).gather(-1, idx[:, :k])"),),
        ),
        Convention(
            "weight on the input",
            "Llama 4 multiplies the input of the expert (by a sigmoid). To match, multiply its "
            "output.",
            (
                (
                    "rows = x[token].split(counts)",
                    "rows = (w.flatten()[order, None] * x[token]).split(counts)",
                ),
                (_WEIGH, "out = out + 0"),
            ),
        ),
    ),
    hints=(
        "List all N times k choices. In which order do they stand when each expert has its own "
        "together, and whose choice is each of them?",
        "How many rows has each expert? Some have none.",
        "k results belong to each token: they are weighted and added up in its row.",
    ),
    branches={
        "an expert without tokens": lambda x, logits, w1, w2, k: (
            len(logits.topk(k).indices.unique()) < len(w1)
        ),
        "several choices of a token": lambda x, logits, w1, w2, k: k > 1,
        "an expert with several tokens": lambda x, logits, w1, w2, k: bool(
            (logits.topk(k).indices.flatten().bincount() > 1).any()
        ),
        "choices that are not sorted": lambda x, logits, w1, w2, k: bool(
            (logits.topk(k).indices.flatten().diff() < 0).any()
        ),
    },
)


def _routings() -> list[tuple[Any, ...]]:
    return [
        (table([1, 0]), torch.tensor([[0]])),
        (table([2, 0], [1, 0], [0, 1]), torch.tensor([[0], [0], [1]])),
        (table([2, 1, 0], [0, 3, 1]), torch.tensor([[0, 1], [1, 2]])),
        _routing(5, 4, 2, seed=3),
        _routing(7, 6, 3, seed=4),
    ]


def _routing(N: int, E: int, k: int, seed: int) -> tuple[Any, ...]:
    logits = 2 * normal(N, E, seed=seed)
    return logits, logits.topk(k).indices


def _equal_loads(function: Function, logits: Tensor, idx: Tensor) -> bool:
    """Each token chooses all experts."""
    all_of_them = torch.arange(logits.shape[1]).expand(logits.shape)
    value = function(logits, all_of_them.clone())
    return apart(value, torch.ones_like(value))


def _collapsed(function: Function, logits: Tensor, idx: Tensor) -> bool:
    """All tokens choose the first expert, with all their probability."""
    sure = torch.zeros_like(logits)
    sure[:, 0] = 500
    value = function(sure, torch.zeros_like(idx[:, :1]))
    return apart(value, torch.full_like(value, logits.shape[1]))


def _twice(function: Function, logits: Tensor, idx: Tensor) -> bool:
    twice = torch.cat([logits, logits]), torch.cat([idx, idx])
    return apart(function(*twice), function(logits, idx))


LOAD_BALANCING_LOSS = Exercise(
    name="load_balancing_loss",
    topic="components/moe",
    level=2,
    task="The balance loss of logits (N, E), of which each token has chosen the experts idx "
    "(N, k): with f the share of tokens that chose an expert and P its mean probability, "
    "E / k times the sum of f P, which is 1 at equal loads.",
    inputs=_routings,
    definition="moe-balance-loss",
    laws=(
        Law("At equal loads it is 1, whatever the logits.", "moe-balance-loss", _equal_loads),
        Law(
            "If all tokens choose one expert, with a probability of 1, it is E.",
            "moe-balance-loss",
            _collapsed,
        ),
        Law("All tokens twice give the same value.", "moe-balance-loss", _twice),
    ),
    mistakes=(
        Mistake(
            "soft counts",
            "f counts choices. Probabilities in its place give the sum of squares of P, which "
            "is least for equal probabilities, not for equal loads.",
            (
                (
                    "torch.bincount(idx.flatten(), minlength=E)",
                    "idx.shape[1] * logits.softmax(-1).sum(0)",
                ),
            ),
        ),
        Mistake(
            "number of experts forgotten",
            "E makes it 1 at equal loads, for any number of experts.",
            (("E / idx.numel()", "1 / idx.numel()"),),
        ),
        Mistake(
            "first choices only",
            "All k choices are load.",
            (("idx.flatten()", "idx[:, 0]"),),
        ),
        Mistake(
            "mean over the experts too",
            "f P is summed over the experts: the factor E is there for that sum.",
            (("(n * P).sum()", "(n * P).mean()"),),
        ),
        Mistake(
            "softmax over the tokens",
            "The probabilities of one token over all experts sum to 1.",
            (("softmax(-1)", "softmax(0)"),),
        ),
        Mistake(
            "probabilities summed over the tokens",
            "P is a mean: the loss must not grow with the batch.",
            (("mean(0)", "sum(0)"),),
        ),
        Mistake(
            "squares of the load",
            "Counts have no gradient: the probabilities carry it.",
            (("(n * P)", "(n * n)"),),
        ),
    ),
    conventions=(
        Convention(
            "k times as large",
            "Mixtral in transformers does not divide by k (it also pools all layers): k at equal "
            "loads. To match, divide by k.",
            (("idx.numel()", "len(idx)"),),
        ),
        Convention(
            "first choices only, as a share of the tokens",
            "The gate of DeepSpeed for k = 2 counts them so. To match, count all choices, and "
            "divide by k.",
            (("idx.flatten()", "idx[:, 0]"), ("idx.numel()", "len(idx)")),
        ),
    ),
    hints=(
        "Two vectors over the experts: one counts, the other averages.",
        "What must the factor be for the value 1 when each expert has the same share?",
        "Only the mean probability has a gradient.",
    ),
    branches={
        "one choice for each token": lambda logits, idx: idx.shape[1] == 1,
        "an expert without tokens": lambda logits, idx: len(idx.unique()) < logits.shape[1],
    },
)

EXERCISES = (MOE_FORWARD, LOAD_BALANCING_LOSS)
