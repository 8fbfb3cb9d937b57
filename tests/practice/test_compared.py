"""What is compared as numbers, what exactly, and what a difference is called."""

from typing import Any

import numpy as np
import pytest
import torch

from llmref.practice.compared import difference, error, same, text

PAIRS = [(97, 98), (256, 99)]


@pytest.mark.parametrize(
    "found",
    [
        [[97, 98], [256, 99]],
        ((97, 98), (256, 99)),
        torch.tensor(PAIRS),
        np.array(PAIRS),
        [tuple(np.array(it)) for it in PAIRS],
        [torch.tensor(it) for it in PAIRS],
    ],
)
def test_pairs_are_the_same_as_lists_tuples_and_arrays(found: Any) -> None:
    assert difference(found, PAIRS) == ""
    assert same(found, PAIRS)
    assert error(found, PAIRS) == 0


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ([(97, 98), (99, 256)], PAIRS, "pair 2 is (99, 256), not (256, 99)"),
        ([(b"a", b"b")], PAIRS, "pair 1 is (b'a', b'b'), not (97, 98)"),
        ([(97, 98)], PAIRS, "it ends after 1 entry; entry 2 should be (256, 99)"),
        ([], [256], "it ends after no entries; entry 1 should be 256"),
        ([256, 97, 98], [256, 97], "it should end after 2 entries; entry 3 is 98"),
        ([256, 97.5], [256, 97], "entry 2 is 97.5, not 97"),
        (None, PAIRS, "it returns nothing (None), not a list of 2 entries"),
        ("ab", [97, 98], "it returns a str, not a list of 2 entries"),
        ({(97, 98): 256}, PAIRS, "it returns a dict, not a list of 2 entries"),
        (3, [], "it returns a int, not a list of no entries"),
        ("ab", "abc", "it is 'ab', not 'abc'"),
    ],
)
def test_the_first_entry_that_differs_is_named(found: Any, wanted: Any, words: str) -> None:
    assert difference(found, wanted) == words
    assert not same(found, wanted)


def test_a_dictionary_of_integers_can_be_a_known_convention() -> None:
    assert same({(97, 98): 256}, {(97, 98): 256})
    assert not same({(97, 98): 257}, {(97, 98): 256})
    assert not same(PAIRS, {(97, 98): 256})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (1 / 3, ""),
        (torch.tensor(1 / 3), ""),
        (np.float32(1 / 3), ""),
        (torch.tensor(1 / 3).double(), ""),
        (1 / 3 + 1e-6, "it is 0.333334, not 0.333333"),
        (0.25, "it is 0.25, not 0.333333"),
        (-0.0, "it is 0., not 0.333333"),
    ],
)
def test_a_number_that_is_right_may_be_rounded_to_float32_inside(found: Any, words: str) -> None:
    wanted = torch.tensor(1 / 3, dtype=torch.float64)
    assert difference(found, wanted) == words


def test_what_is_not_finite_is_written_as_it_is_typed() -> None:
    value = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0])
    typed = "torch.tensor([torch.inf, -torch.inf, torch.nan, 1.])"
    assert text(value) == typed
    assert torch.equal(eval(typed).nan_to_num(7.0), value.nan_to_num(7.0))


def test_infinity_is_not_the_largest_number_for_finding_a_mistake() -> None:
    least = torch.tensor([torch.finfo(torch.float64).min, 1.0], dtype=torch.float64)
    removed = torch.tensor([-torch.inf, 1.0], dtype=torch.float64)
    assert not same(least, removed)
    assert same(removed, removed)
    assert not same(torch.tensor([torch.inf, 1.0]), torch.tensor([torch.inf, 2.0]))
    assert same(torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0]))


def test_a_mask_is_shown_as_one_and_may_be_given_as_numbers() -> None:
    wanted = torch.tensor([True, False])
    assert difference(torch.tensor([1.0, 0.0]), wanted) == ""
    assert difference([True, False], wanted) == ""
    said = "it is torch.tensor([False, False]), not torch.tensor([True, False])"
    assert difference(torch.tensor([False, False]), wanted) == said
    assert error(torch.tensor([False, False]), wanted) == 1
