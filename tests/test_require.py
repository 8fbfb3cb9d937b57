"""The requirements that all formulas share: what they let pass, and what a refusal says."""

import math
from typing import Literal

import pytest
import torch

from llmref._require import (
    boolean_mask,
    require_at_least,
    require_choice,
    require_constant,
    require_finite,
    require_float_dtype,
    require_floating,
    require_ids,
    require_in,
    require_int,
    require_integers,
    require_one_dtype,
    require_positive,
    require_shapes,
)

ONES = torch.ones(2, 3)
NAN, WIDE, LEAF = ONES * math.nan, ONES.double(), torch.ones(1, requires_grad=True)
IDS = torch.tensor([1, 3])
Letters = Literal["a", "b"]


@pytest.mark.parametrize(
    ("axes", "x", "y"),
    [
        ("x (B, D), y (B, D)", (2, 3), (2, 3)),
        ("x (..., n), y (n,)", (2, 5, 3), (3,)),
        ("x (..., n), y (...)", (2, 5, 3), (2, 5)),
        ("x (..., n), y (...)", (3,), ()),
        ("x (B, _), y (_, B)", (2, 3), (7, 2)),
        ("x (B, B), y (n,)", (4, 4), (0,)),
    ],
)
def test_shapes_that_fit_pass(axes, x, y):
    require_shapes(axes, x=torch.ones(x), y=torch.ones(y))


@pytest.mark.parametrize(
    ("axes", "x", "y", "message"),
    [
        ("x (B, D), y (B, D)", (2, 3), (3, 2), r"y must be \(B, D\) = \(2, 3\) beside x \(2, 3\)"),
        ("x (B, D), y (D, K)", (2, 3), (2, 5), r"y must be \(D, K\) beside x .*, got \(2, 5\)"),
        ("x (..., n), y (n,)", (), (3,), r"x must be \(\.\.\., n\), got \(\)"),
        ("x (..., n), y (..., n)", (2, 3), (3,), r"y must be \(\.\.\., n\) = \(2, 3\)"),
        ("x (B, B), y (n,)", (2, 3), (3,), r"x must be \(B, B\), got \(2, 3\)"),
        ("x (B, D), y (B,)", (2, 3), (2, 1), r"y must be \(B,\) = \(2,\) .* got \(2, 1\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_those_beside_it(axes, x, y, message):
    with pytest.raises(ValueError, match=message):
        require_shapes(axes, x=torch.ones(x), y=torch.ones(y))


def test_a_tensor_that_was_not_given_fits_any_shape():
    require_shapes("x (B, D), y (B, D)", x=ONES, y=None)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", (0, 0.5, 0.9999999999), (1, -1e-9, math.nan, math.inf)),
        ("(0, 1]", (1e-300, 1), (0, 1.0000000001, math.nan)),
        ("(0, inf]", (1, math.inf), (0, math.nan)),
        ("[-inf, inf)", (-math.inf, 0), (math.inf, math.nan)),
    ],
)
def test_the_ends_of_an_interval_belong_to_it_as_written(interval, inside, outside):
    for value in inside:
        require_in(interval, p=value)
        require_in(interval, p=torch.tensor([value], dtype=torch.float64))
    for value in outside:
        with pytest.raises(ValueError, match=f"p must be in .*, got {value}"):
            require_in(interval, p=value)
        with pytest.raises(ValueError, match="p must be in"):
            require_in(interval, p=torch.tensor([inside[0], value], dtype=torch.float64))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x must be floating point, got torch.int64", lambda: require_floating(x=IDS)),
        (TypeError, "d must be floating point", lambda: require_float_dtype(d=torch.int8)),
        (
            TypeError,
            "one dtype, got x .*32, y .*64",
            lambda: require_one_dtype(x=ONES, y=WIDE),
        ),
        (
            TypeError,
            "x must hold integers, got torch.bool",
            lambda: require_integers(x=IDS.bool()),
        ),
        (TypeError, "k must be an int, got True", lambda: require_int(k=True)),
        (
            ValueError,
            r"x holds the id 3, outside \[0, 3\)!",
            lambda: require_ids(3, hint="!", x=IDS),
        ),
        (ValueError, r"outside \[2, 9\)", lambda: require_ids(9, lowest=2, x=IDS)),
        (ValueError, "k must be at least 2, got 1", lambda: require_at_least(2, k=1)),
        (ValueError, "at least 0 and finite, got inf", lambda: require_at_least(0, k=math.inf)),
        (ValueError, "t must be positive and finite, got 0", lambda: require_positive(t=0.0)),
        (ValueError, "positive and finite, got -1", lambda: require_positive(t=-ONES)),
        (
            ValueError,
            r"finite here, got nan \(6 of 6",
            lambda: require_finite(" here", x=NAN),
        ),
        (
            ValueError,
            "must not require grad",
            lambda: require_constant(x=LEAF),
        ),
        (
            ValueError,
            r"m must be one of \['a', 'b'\], got 'c'",
            lambda: require_choice(Letters, m="c"),
        ),
        (ValueError, "zeros and ones only, got 0.5", lambda: boolean_mask(ONES / 2)),
        (ValueError, "zeros and ones only, got nan", lambda: boolean_mask(NAN)),
    ],
)
def test_a_refusal_names_argument_rule_and_value(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_a_mask_of_zeros_and_ones_is_boolean_whatever_its_dtype():
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64):
        mask = boolean_mask(torch.tensor([0, 1], dtype=dtype))
        assert mask.dtype == torch.bool
        assert mask.tolist() == [False, True]
