"""Exercises on the sinusoidal code of positions and on the bias of ALiBi."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number


def _positions() -> list[tuple[Any, ...]]:
    return [
        (number(0.0), 4, 100.0),
        (number(1.0), 4, 100.0),
        (number(0.0, 1.0, 5.0), 6, 10000.0),
        (torch.arange(7, 19).double(), 10, 500.0),
    ]


def _sizes() -> list[tuple[Any, ...]]:
    return [(1, 1, 1), (1, 1, 2), (2, 2, 2), (3, 1, 3), (4, 2, 5), (12, 3, 4), (20, 2, 3)]


def _length(function: Function, pos: Tensor, dim: int, base: float) -> bool:
    squares = function(pos, dim, base).square().sum(-1)
    return apart(squares, torch.full_like(squares, dim / 2))


def _fixed_rotation(function: Function, pos: Tensor, dim: int, base: float) -> bool:
    """Products of codes do not change when all positions move."""
    one, other = function(pos, dim, base), function(pos + 3, dim, base)
    return apart(one @ one.mT, other @ other.mT)


def _own_key(function: Function, num_heads: int, T: int, S: int) -> bool:
    own = function(num_heads, T, S).diagonal(S - T, -2, -1)
    return apart(own, torch.zeros_like(own))


def _never_positive(function: Function, num_heads: int, T: int, S: int) -> bool:
    return bool((function(num_heads, T, S) > 0).any())


def _one_more_query(function: Function, num_heads: int, T: int, S: int) -> bool:
    """Decoding one token gives the last row of the whole."""
    whole, last = function(num_heads, S, S)[:, -1:], function(num_heads, 1, S)
    return whole.shape != last.shape or apart(whole, last)


_WAVES = "torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)"

SINUSOIDAL_EMBEDDING = Exercise(
    name="sinusoidal_embedding",
    topic="components/positions",
    level=1,
    task=(
        "The code (T, dim) of the positions pos (T,): sine and cosine of each of dim / 2 "
        "frequencies, which fall from 1 as powers of base, side by side."
    ),
    inputs=_positions,
    definition="positions-sinusoidal",
    laws=(
        Law("The squares of a code sum to dim / 2.", "positions-sinusoidal-shift", _length),
        Law(
            "Products of codes stay when all positions move.",
            "positions-sinusoidal-shift",
            _fixed_rotation,
        ),
    ),
    mistakes=(
        Mistake(
            "the exponent without the 2",
            "Pair i has the exponent -2i / dim, so that the last one is near 1 / base.",
            (("torch.arange(0, dim, 2, dtype=torch.float64)", "torch.arange(dim // 2).double()"),),
        ),
        Mistake(
            "frequencies that grow",
            "The exponent is negative: later pairs turn more slowly.",
            (("(-torch.arange", "(torch.arange"),),
        ),
        Mistake(
            "cosine first",
            "The even features have the sine.",
            (("[angle.sin(), angle.cos()]", "[angle.cos(), angle.sin()]"),),
        ),
        Mistake(
            "a frequency for each feature",
            "Sine and cosine of a pair have one frequency: else no rotation moves them along.",
            (
                ("torch.arange(0, dim, 2, dtype=torch.float64)", "torch.arange(dim).double()"),
                (
                    _WAVES,
                    "torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())",
                ),
            ),
        ),
        Mistake(
            "sines alone",
            "A sine does not tell in which direction the angle goes on.",
            (("angle.cos()", "angle.sin()"),),
        ),
    ),
    hints=(
        "How many frequencies are there, and what are the first and about the last?",
        "Each position has one angle for each frequency.",
        "A pair is side by side: the pairs come one after another.",
    ),
    conventions=(
        Convention(
            "half layout",
            "Marian and the original code have all sines first. Both are codes of a shift by a "
            "rotation; trained weights fit one of them.",
            ((_WAVES, "torch.cat([angle.sin(), angle.cos()], dim=-1)"),),
        ),
        Convention(
            "half layout, the last frequency 1 / base",
            "tensor2tensor and M2M100 divide the exponent by dim / 2 - 1.",
            (
                (
                    "-torch.arange(0, dim, 2, dtype=torch.float64) / dim",
                    "-torch.arange(dim // 2).double() / (dim // 2 - 1)",
                ),
                (_WAVES, "torch.cat([angle.sin(), angle.cos()], dim=-1)"),
            ),
        ),
    ),
    branches={
        "position 0": lambda pos, dim, base: bool((pos == 0).any()),
        "several positions": lambda pos, dim, base: len(pos) > 1,
        "another base": lambda pos, dim, base: base != 10000,
    },
    fixed=("pos",),
)

ALIBI_BIAS = Exercise(
    name="alibi_bias",
    topic="components/positions",
    level=2,
    task=(
        "What ALiBi adds to the scores (num_heads, T, S) of the last T of S tokens, with its "
        "slopes for any number of heads; keys on both sides count by their distance."
    ),
    inputs=_sizes,
    definition="positions-alibi",
    laws=(
        Law("The key at the query's own position has 0.", "positions-alibi", _own_key),
        Law("No bias is positive.", "positions-alibi", _never_positive),
        Law(
            "One query alone has the last row of all.",
            "positions-translation",
            _one_more_query,
        ),
    ),
    mistakes=(
        Mistake(
            "heads counted from 0",
            "The first slope is 2^(-8 / H), not 1.",
            (("(-8 * (h + 1) / n)", "(-8 * h / n)"),),
        ),
        Mistake(
            "plus the distance",
            "Far keys get less.",
            (("return -torch", "return torch"),),
        ),
        Mistake(
            "positions of the query from 0",
            "With a cache the first new token is not at 0: the last query is at the last key.",
            (("torch.arange(S - T, S)", "torch.arange(T)"),),
        ),
        Mistake(
            "2^(-8h / H) for every H",
            "If H is no power of two, the slopes of the power below come first, then every "
            "other one of twice that.",
            (
                ("2 ** math.floor(math.log2(num_heads))", "num_heads"),
                ("range(0, 2 * (num_heads - n), 2)", "range(0)"),
            ),
        ),
        Mistake(
            "a positive bias for later keys",
            "Without the absolute value, keys after the query gain.",
            ((".abs()", ""),),
        ),
        Mistake(
            "the extra slopes in a row",
            "They are every other one of the doubled list: the ones between are there already.",
            (("range(0, 2 * (num_heads - n), 2)", "range(num_heads - n)"),),
        ),
    ),
    hints=(
        "For a power of two the slopes are a geometric sequence that ends at 1 / 256.",
        "For 12 heads: those of 8, and four of those of 16.",
        "Where is the first of T queries if the last one is at the last key?",
    ),
    conventions=(
        Convention(
            "by the position of the key alone",
            "As BLOOM. In a causal softmax it is the same, for each row gets a constant; not "
            "with later keys, with a sink, or in 16 bits.",
            (
                (
                    "-torch.tensor(slopes)[:, None, None] * distance",
                    "torch.tensor(slopes)[:, None, None] * torch.arange(S)",
                ),
            ),
        ),
        Convention(
            "by the position of the key alone, for each query",
            "As BLOOM. In a causal softmax it is the same, for each row gets a constant; not "
            "with later keys, with a sink, or in 16 bits.",
            (
                (
                    "-torch.tensor(slopes)[:, None, None] * distance",
                    "torch.tensor(slopes)[:, None, None] * torch.arange(S).expand(T, S)",
                ),
            ),
        ),
    ),
    branches={
        "no power of two": lambda num_heads, T, S: num_heads & (num_heads - 1) > 0,
        "fewer queries than keys": lambda num_heads, T, S: T < S,
        "several extra slopes": lambda num_heads, T, S: num_heads == 12,
    },
)

EXERCISES = (SINUSOIDAL_EMBEDDING, ALIBI_BIAS)
