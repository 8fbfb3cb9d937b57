"""Exercise on rotary position embedding."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake
from llmref.practice.exercises._inputs import normal, table


def _inputs() -> list[tuple[Any, ...]]:
    return [
        (table([1, 0]), torch.tensor([0]), 100.0),
        (table([1, 0]), torch.tensor([1]), 100.0),
        (table([1, 0]), torch.tensor([1001]), 100.0),
        (table([1, 1, 0, 0]), torch.tensor([3]), 100.0),
        (table([1, 2, 0, 0], [1, 2, 3, 4]), torch.tensor([0, 2]), 10000.0),
        (normal(2, 3, 4, 6), torch.tensor([0, 2, 7, 11]), 500.0),
        (normal(2, 3, 5, 8, seed=1), torch.arange(5) + 1000, 10000.0),
    ]


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether two results differ by more than angles in float32 explain."""
    return not torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def _lengths(function: Function, x: Tensor, positions: Tensor, base: float) -> bool:
    return _apart(function(x, positions, base).norm(dim=-1), x.norm(dim=-1))


def _offset(function: Function, x: Tensor, positions: Tensor, base: float) -> bool:
    """All tokens get the vector of the first, so that scores differ by position alone."""
    same = x[..., :1, :].expand(x.shape)
    scores = []
    for shift in (0, 5):
        turned = function(same.clone(), positions + shift, base)
        scores.append(turned @ turned.mT)
    return _apart(*scores)


def _added(function: Function, x: Tensor, positions: Tensor, base: float) -> bool:
    twice = function(function(x, positions, base), positions, base)
    return _apart(twice, function(x, 2 * positions, base))


def _first_pair(function: Function, x: Tensor, positions: Tensor, base: float) -> bool:
    turned = function(torch.ones_like(x), positions, base)[..., 0]
    return _apart(turned, (positions.cos() - positions.sin()).expand(turned.shape).double())


_TURNED = "torch.cat([u * cos - v * sin, u * sin + v * cos], dim=-1)"
_U = "x[..., : D // 2], x[..., D // 2 :]  # pair i is (x_i, x_{i + D/2})"

ROPE = Exercise(
    name="rope",
    topic="components/rope",
    level=2,
    task=(
        "Turn pair i of the features of x (..., T, D), which is x_i and x_(i + D/2), "
        "counterclockwise by position times base^(-2i/D); positions (T,) are integers."
    ),
    inputs=_inputs,
    definition="rope-definition",
    tolerance=1e-3,  # in most libraries angles are float32, and positions go up to 1000s
    laws=(
        Law("Lengths stay: it is a rotation.", "rope-orthogonal", _lengths),
        Law("Scores depend on the difference of positions alone.", "rope-relative", _offset),
        Law(
            "The first pair turns by one radian for each position.",
            "rope-definition",
            _first_pair,
        ),
        Law(
            "Turned twice by its position, a vector is turned by twice the position.",
            "rope-group",
            _added,
        ),
    ),
    mistakes=(
        Mistake(
            "turned the other way",
            "Scores stay relative, but a checkpoint is trained with one direction.",
            ((_TURNED, "torch.cat([u * cos + v * sin, v * cos - u * sin], dim=-1)"),),
        ),
        Mistake(
            "both sines with the same sign",
            "A rotation has one minus sign; without it lengths change.",
            (("u * cos - v * sin", "u * cos + v * sin"),),
        ),
        Mistake(
            "second half from the new first half",
            "If the first half is overwritten before the second is made, the old one is lost.",
            (
                (_U, f"{_U}\n    u = u * cos - v * sin"),
                (_TURNED, "torch.cat([u, u * sin + v * cos], dim=-1)"),
            ),
        ),
        Mistake(
            "tables repeated as for the other layout",
            "The two features of a pair need the same angle; here they lie D/2 apart, so the "
            "table is put twice side by side.",
            (
                (
                    _TURNED,
                    "(\n        x * cos.repeat_interleave(2, -1)\n"
                    "        + torch.cat([-v, u], dim=-1) * sin.repeat_interleave(2, -1)\n"
                    "    )",
                ),
            ),
        ),
        Mistake(
            "exponent i/d instead of 2i/d",
            "There are D/2 pairs, and the exponent runs from 0 almost to 1 over them.",
            (("device=x.device) / D", "device=x.device) / (2 * D)"),),
        ),
        Mistake(
            "sign of the exponent",
            "Later pairs turn slower than the first, not faster.",
            (("base**-exponents", "base**exponents"),),
        ),
        Mistake(
            "positions ignored",
            "A cached decoding step begins in the middle of a text: positions say where.",
            (("positions[:, None] *", "torch.arange(x.shape[-2])[:, None] *"),),
        ),
        Mistake(
            "positions counted from 1",
            "Scores stay relative, but the positions are given: nothing is added to them.",
            (("positions[:, None] *", "(positions[:, None] + 1) *"),),
        ),
        Mistake(
            "base ignored",
            "10000 is the paper's base; models for longer texts have others.",
            (("base**-exponents", "10000.0**-exponents"),),
        ),
        Mistake(
            "sine and cosine exchanged",
            "At position 0 nothing turns: its cosine is 1, its sine 0.",
            (("cos, sin = angles.cos(), angles.sin()", "cos, sin = angles.sin(), angles.cos()"),),
        ),
        Mistake(
            "pairs counted from 1",
            "A paper counts pairs from 1 and writes i - 1; the first frequency is 1.",
            (("torch.arange(0, D, 2,", "torch.arange(2, D + 2, 2,"),),
        ),
        Mistake(
            "positions in bfloat16",
            "It holds integers up to 256 exactly, and an error of a position is a radian.",
            (
                ("positions[:, None] *", "positions[:, None].bfloat16() *"),
                ("(T, D / 2); bfloat16 would read 1028 as 1024", "(T, D / 2)"),
            ),
        ),
    ),
    conventions=(
        Convention(
            "the interleaved layout",
            "The paper, GPT-J and torchtune pair neighbours, x_2i and x_(2i + 1); Llama in "
            "transformers does not. To match, pair x_i and x_(i + D/2).",
            (
                (_U, "x[..., 0::2], x[..., 1::2]  # pair i is (x_2i, x_{2i + 1})"),
                (
                    _TURNED,
                    "torch.stack([u * cos - v * sin, u * sin + v * cos], dim=-1).flatten(-2)",
                ),
            ),
        ),
    ),
    hints=(
        "One angle for each position and pair: which frequencies, from fast to slow?",
        "A pair (u, v) turned by an angle has one minus sign, in the first coordinate.",
        "Cut the features in two halves, turn, and put the halves side by side again.",
    ),
    branches={
        "position 0 alone": lambda x, positions, base: not bool(positions.any()),
        "several pairs": lambda x, positions, base: x.shape[-1] > 2,
        "positions beyond 256": lambda x, positions, base: bool((positions > 256).any()),
        "positions that skip": lambda x, positions, base: bool((positions.diff() > 1).any()),
        "several heads": lambda x, positions, base: x.ndim == 4,
    },
)

EXERCISES = (ROPE,)
