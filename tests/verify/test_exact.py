"""Exact checks: no float, no rounding, every case of the enumeration."""

from fractions import Fraction

import pytest
import sympy as sp
import torch

from llmref import verify

NOTE = "a few values worked by hand"


def test_nested_values_are_compared_one_by_one() -> None:
    check = verify.exact(
        "pair-sum",
        [Fraction(1, 2) + Fraction(1, 3), [5, "ab"]],
        [Fraction(5, 6), [5, "ab"]],
        wrong={"rounded": [Fraction(4, 5), [5, "ab"]]},
        note=NOTE,
    )
    assert check.cases == 3
    assert check.rejected == {"rounded": "1 of 3 cases differ, first at [0]"}


def test_tensors_of_integers_and_booleans_are_exact() -> None:
    verify.exact(
        "mask-causal",
        torch.ones(3, 3).tril().bool(),
        [[True, False, False], [True, True, False], [True] * 3],
        wrong={"strict": torch.ones(3, 3).tril(-1).bool()},
        note=NOTE,
    )


def test_symbols_are_compared_by_value() -> None:
    x = sp.Symbol("x", real=True)
    verify.exact(
        "trig-one",
        [sp.sin(x) ** 2 + sp.cos(x) ** 2],
        [1],
        wrong={"minus": [sp.sin(x) ** 2 - sp.cos(x) ** 2]},
        note=NOTE,
    )


@pytest.mark.parametrize("value", [0.5, [1, 0.5], torch.ones(2), sp.Float("0.5"), None, {1}])
def test_a_float_or_an_unknown_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="exact"):
        verify.exact("float-refused", value, value, wrong={"w": 1}, note=NOTE)


def test_one_differing_case_fails() -> None:
    with pytest.raises(
        verify.CheckFailedError, match=r"case-one: 1 of 3 cases differ, first at \[2\]"
    ):
        verify.exact("case-one", [1, 2, 3], [1, 2, 4], wrong={"w": [0, 0, 0]}, note=NOTE)


def test_different_nesting_is_refused() -> None:
    with pytest.raises(verify.ShapeMismatchError, match="case-nested"):
        verify.exact(
            "case-nested", [[1, 2], [3]], [[1], [2, 3]], wrong={"w": [[0], [0, 0]]}, note=NOTE
        )


def test_an_empty_list_is_a_part_of_the_nesting() -> None:
    wrong = {"other": [[2], []]}
    with pytest.raises(verify.ShapeMismatchError, match="case-hole"):
        verify.exact("case-hole", [[1], []], [[1]], wrong=wrong, note=NOTE)
    check = verify.exact("case-hole", [[1], []], [[1], []], wrong=wrong, note=NOTE)
    assert check.cases == 1


@pytest.mark.parametrize(
    ("one", "other"), [("1+1", sp.Integer(2)), (True, 1), (False, sp.Integer(0)), (b"a", "a")]
)
def test_a_text_or_a_truth_value_equals_no_number(one: object, other: object) -> None:
    for pair in ((one, other), (other, one)):
        with pytest.raises(verify.CheckFailedError, match="case-sort: 1 of 1 cases differ"):
            verify.exact("case-sort", *pair, wrong={"w": 7}, note=NOTE)


def test_an_empty_enumeration_proves_nothing() -> None:
    for empty in ([], [[], []]):
        with pytest.raises(verify.CheckFailedError, match="case-empty: nothing was compared"):
            verify.exact("case-empty", empty, empty, wrong={"w": [1]}, note=NOTE)


def test_an_undecidable_case_is_refused() -> None:
    f = sp.Function("f")
    with pytest.raises(verify.UndecidedError, match="case-unknown"):
        verify.exact("case-unknown", [f(1)], [f(2)], wrong={"w": [0]}, note=NOTE)


def test_a_check_must_be_able_to_fail() -> None:
    with pytest.raises(verify.MissingWrongVariantError, match="case-able"):
        verify.exact("case-able", [1], [1], wrong={}, note=NOTE)
    with pytest.raises(verify.WrongVariantPassedError, match="'same'"):
        verify.exact("case-able", [1], [1], wrong={"same": [1]}, note=NOTE)
