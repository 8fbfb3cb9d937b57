"""Exercises on symmetric integers."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows, table


def _tensors() -> list[tuple[Any, ...]]:
    return [
        (number(3.0), 3),
        (number(0.0, 0.0), 4),
        (number(1.0, -6.0), 3),
        (number(1.0, -6.0), 2),
        (number(1.0, -6.0), 16),
        (number(1e-6, -3e-6), 3),
        (number(0.5, -1.5, 2.2, 7.0), 4),
        (number(-0.5, 1.5, -2.5, -14.0), 4),
        (table([2.0, 0.5, -1.2], [100.0, 127.0, 60.3]), 8),
        (table([3.0, -255.0, 100.3, 200.6], [0.0, -254.2, 90.7, 1.3]), 9),
        (rows(3, 5) - 1, 8),
        (10 * rows(4, 7, seed=1), 5),
    ]


def _codes() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([3], dtype=torch.int8), torch.tensor(0.5).double()),
        (torch.tensor([0, -7, 2], dtype=torch.int8), torch.tensor(1.5).double()),
        (torch.tensor([[100, -127], [3, 127]], dtype=torch.int8), torch.tensor(2.5).double()),
        (torch.tensor([[9, -300, 511], [0, 40, 2]]).short(), torch.tensor(0.01).double()),
    ]


def _half_step(function: Function, x: Tensor, bits: int) -> bool:
    codes, scale = function(x, bits)
    return bool(((codes.double() * scale - x).abs() > scale / 2 + 1e-9).any())


def _largest(function: Function, x: Tensor, bits: int) -> bool:
    return bool(x.any()) and int(function(x, bits)[0].abs().max()) != 2 ** (bits - 1) - 1


def _mirrored(function: Function, x: Tensor, bits: int) -> bool:
    return apart(function(-x, bits)[0].double(), -function(x, bits)[0].double())


def _zeros(function: Function, x: Tensor, bits: int) -> bool:
    codes, scale = function(torch.zeros_like(x), bits)
    return bool(codes.any()) or bool((scale != 1).any())


def _odd(function: Function, codes: Tensor, scale: Tensor) -> bool:
    return apart(function(-codes, scale).double(), -function(codes, scale).double())


def _step(function: Function, codes: Tensor, scale: Tensor) -> bool:
    lower = codes // 2
    steps = function(lower + 1, scale).double() - function(lower, scale).double()
    return apart(steps, scale.double().expand(steps.shape))


_TOP = "2 ** (bits - 1) - 1 "
_ABSMAX = "wide.abs().max() / top"
_ROUND = "(wide / scale).round()"

QUANTIZE_SYMMETRIC = Exercise(
    name="quantize_symmetric",
    topic="functional/quantization",
    level=2,
    task="Return integer codes of x and their scale: the largest size in x has the code plus "
    "or minus 2^(bits-1) - 1, halves round to the even code, bits are 2 to 16; a tensor of "
    "zeros has the codes 0 and the scale 1.",
    inputs=_tensors,
    definition="quantization-symmetric",
    laws=(
        Law(
            "A tensor of zeros has the codes 0 and the scale 1.",
            "quantization-degenerate",
            _zeros,
        ),
        Law(
            "Code times scale is at most half a step away from the number.",
            "quantization-symmetric",
            _half_step,
        ),
        Law("The number -x has the code of x, negated.", "quantization-symmetric", _mirrored),
        Law(
            "The largest size has the largest code, 2^(bits-1) - 1.",
            "quantization-symmetric",
            _largest,
        ),
    ),
    mistakes=(
        Mistake(
            "a floor under the scale",
            "A scale of 1e-6 is a number like any other; only 0 cannot divide.",
            (("torch.where(scale > 0, scale, 1)", "scale.clamp(min=1e-5)"),),
        ),
        Mistake(
            "absmax to 2^(b-1), which wraps around",
            "The code 128 does not exist in 8 bits; it becomes -128.",
            ((_TOP, "2 ** (bits - 1) "),),
        ),
        Mistake(
            "truncated",
            "A conversion to integers cuts towards 0, which doubles the largest error: round.",
            ((_ROUND, "(wide / scale).trunc()"),),
        ),
        Mistake(
            "rounded down",
            "Floor moves all numbers by half a step in the same direction: round.",
            ((_ROUND, "(wide / scale).floor()"),),
        ),
        Mistake(
            "largest x, without the sign",
            "The largest size may belong to a negative number.",
            ((_ABSMAX, "wide.max() / top"),),
        ),
        Mistake(
            "the whole range, max - min",
            "That is the range of an affine grid; a symmetric one reaches from -A to A.",
            ((_ABSMAX, "(wide.max() - wide.min()) / top"),),
        ),
        Mistake(
            "a scale for each row",
            "One scale for the tensor is asked for here.",
            ((_ABSMAX, "wide.abs().amax(-1, keepdim=True) / top"),),
        ),
        Mistake(
            "zeros divided by 0",
            "A tensor of zeros has no largest size to divide by.",
            (("torch.where(scale > 0, scale, 1)", "scale"),),
        ),
        Mistake(
            "the scale's inverse",
            "The scale is the size of one step: codes are numbers over the scale.",
            (("torch.int16), scale", "torch.int16), 1 / scale"),),
        ),
    ),
    conventions=(
        Convention(
            "rounding ties away from 0",
            "C's roundf rounds so, and with it Q8_0 of llama.cpp. To match, round halves to "
            "the even code, as torch and numpy do.",
            ((_ROUND, "((wide / scale).abs() + 0.5).floor() * wide.sign()"),),
        ),
        Convention(
            "a scale of absmax over 2^(b-1) - 1/2, for all 2^b codes",
            "torch's observers for symmetric int8 do so, and clip. To match, divide the "
            "largest size by 2^(b-1) - 1.",
            (
                (_TOP, "2 ** (bits - 1) - 0.5 "),
                (_ROUND, "(wide / scale).round().clamp(-top - 0.5, top - 0.5)"),
            ),
        ),
    ),
    hints=(
        "Plus and minus have the same number of codes, so one of the 2^bits stays unused.",
        "The scale is the largest size over the largest code.",
        "What is the scale if there is no largest size?",
    ),
    branches={
        "zeros": lambda x, bits: not bool(x.any()),
        "the largest size is negative": lambda x, bits: bool(x.abs().max() > x.max()),
        "more than 8 bits": lambda x, bits: bits > 8,
        "halves": lambda x, bits: bits == 4 and bool((x.abs() == 0.5).any()),
        "several rows": lambda x, bits: x.ndim > 1,
    },
    fixed=("x",),
)

DEQUANTIZE = Exercise(
    name="dequantize",
    topic="functional/quantization",
    level=1,
    task="Return the numbers that symmetric integer codes stand for, given their one scale.",
    inputs=_codes,
    definition="quantization-symmetric",
    laws=(
        Law("The code -q stands for the negative of q.", "quantization-symmetric", _odd),
        Law("Neighbouring codes are one scale apart.", "quantization-symmetric", _step),
    ),
    mistakes=(
        Mistake(
            "divided by the scale",
            "The scale is the size of one step; dividing goes the other way.",
            (("scale * codes", "codes / scale"),),
        ),
        Mistake(
            "codes counted from 0",
            "Signed codes are symmetric about 0, which has the code 0.",
            (("scale * codes", "scale * (codes + 128.0)"),),
        ),
        Mistake(
            "the scale as an integer",
            "A scale of 0.5 would become 0; it is the codes that become numbers.",
            (("scale * codes", "scale.int() * codes"),),
        ),
        Mistake(
            "in int8",
            "The numbers are no integers, and may be beyond 127.",
            (("scale * codes", "(scale * codes).to(torch.int8)"),),
        ),
    ),
    hints=("The zero point is 0.", "A code counts steps; the scale is the size of one."),
    branches={
        "numbers beyond 8 bits": lambda codes, scale: bool((codes * scale).abs().max() > 128),
        "a scale below 1": lambda codes, scale: bool(scale < 1),
    },
)

EXERCISES = (
    QUANTIZE_SYMMETRIC,
    DEQUANTIZE,
)
