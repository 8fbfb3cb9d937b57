"""Every public function has a call, a sample of the fuzz finds nothing, and the judge is judged."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from llmref._require import require_positive
from tests.fuzz.draw import Drawn, copied, draw
from tests.fuzz.forked import forked
from tests.fuzz.judge import ERROR, FIND, LARGE, RESULT, judge, numbers, same
from tests.fuzz.targets import GROUPS, Target, Valid, public, targets
from tests.small_site import ROOT


def test_every_public_name_has_a_valid_call_and_no_call_is_of_another() -> None:
    assert set(targets()) == public()


@pytest.mark.parametrize("group", GROUPS)
def test_a_sample_finds_nothing(group: str) -> None:
    """The first calls of each function of a group, as `make fuzz` makes them."""
    command = [sys.executable, "-m", "tests.fuzz", group, "--calls", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_name_that_is_not_known_is_refused() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "rl.no_such_loss"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "rl.no_such_loss" in done.stderr


def test_a_number_stands_for_one_call() -> None:
    for target in list(targets().values())[::20]:
        one, other = draw(target, 7), draw(target, 7)
        assert str(one) == str(other)
        assert same(numbers(one.values), numbers(other.values), 0.0)


def test_calls_differ_and_leave_the_valid_one_as_it_is() -> None:
    target = targets()["functional.softmax"]
    before = copied(target.valid[0].values)
    assert len({str(draw(target, number).changes) for number in range(50)}) > 25
    assert same(numbers(target.valid[0].values), numbers(before), 0.0)


def test_a_copy_keeps_strides_and_gradients() -> None:
    turned = torch.zeros(2, 3).T
    assert copied(turned).stride() == turned.stride()
    assert copied(torch.zeros(1, 3).expand(2, 3)).stride() == (0, 1)
    assert copied([torch.zeros(2, requires_grad=True)])[0].requires_grad


def verdict(function: Callable[..., Any], **changes: Any) -> tuple[str, str]:
    """Of a function of x and eps, by default two numbers and 0.5."""
    values = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64), "eps": 0.5} | changes
    valid = Valid(values, {}, lambda given: function(**given))
    found = judge(Drawn("made.up", 1, valid, values, dict.fromkeys(changes, "another")))
    return found.kind, found.words


def divided(x: Tensor, eps: float) -> Tensor:
    require_positive(eps=eps)
    return x / eps


def test_a_finite_result_and_an_error_with_the_name_are_right() -> None:
    assert verdict(divided) == (RESULT, "")
    assert verdict(divided, eps=-1.0)[0] == ERROR


def raised(error: Exception) -> Callable[..., Any]:
    def function(**_: Any) -> None:
        raise error

    return function


def test_other_errors_are_finds() -> None:
    assert verdict(raised(IndexError("eps")), eps=0.0)[0] == FIND
    assert "comes from below" in verdict(raised(ValueError("it is too small")), eps=0.0)[1]
    assert verdict(raised(ValueError("eps is too small")), eps=0.0)[0] == ERROR
    assert verdict(raised(ValueError("epsilon is too small")), eps=0.0)[0] == FIND
    assert verdict(raised(UserWarning("eps")), eps=0.0)[0] == FIND


def test_what_a_machine_is_too_small_for_is_no_find_if_so_much_was_asked() -> None:
    full = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    assert verdict(raised(full), eps=2**40)[0] == LARGE
    assert verdict(raised(full), eps=3)[0] == FIND


def test_a_nan_or_an_infinity_of_finite_arguments_is_a_find() -> None:
    def logarithm(x: Tensor, eps: float) -> Tensor:
        return x.log()

    assert "NaN" in verdict(logarithm, x=torch.tensor([-1.0]))[1]
    assert "infinity" in verdict(logarithm, x=torch.tensor([0.0]))[1]
    assert verdict(logarithm, x=torch.tensor([numpy.nan]))[0] == RESULT


def test_an_argument_that_is_changed_is_a_find() -> None:
    assert verdict(lambda x, eps: x.mul_(eps))[1] == "an argument is changed"
    assert verdict(lambda x, eps: x.pop(), x=[1, 2])[1] == "an argument is changed"


def test_a_result_that_depends_on_strides_is_a_find() -> None:
    def behind(x: Tensor, eps: float) -> Tensor:
        return torch.as_strided(x, (2,), (1,))

    assert verdict(behind)[1] == "strided arguments: another result"


def test_a_result_that_float32_loses_is_a_find() -> None:
    def cancelled(x: Tensor, eps: float) -> Tensor:
        return 1e6 * ((x + 1e6) - 1e6)

    x = torch.tensor([0.11, 0.37], dtype=torch.float64)
    assert verdict(cancelled, x=x)[1] == "float32: another result"


def slow_or_wrong(number: int) -> int:
    """1 never ends in Python, 2 takes too much memory."""
    if number == 1:
        while True:
            number = 1
    if number == 2:
        torch.ones(2**40)
    return number


def test_a_call_without_end_or_measure_ends_and_the_others_are_made() -> None:
    def attempt(number: int) -> str:
        try:
            return str(slow_or_wrong(number))
        except (TimeoutError, RuntimeError) as error:
            return type(error).__name__

    found = dict(forked(attempt, range(4)))
    assert found == {0: "0", 1: "TimeoutError", 2: "RuntimeError", 3: "3"}


def test_a_call_that_kills_its_process_is_none_and_the_others_are_made() -> None:
    def attempt(number: int) -> int:
        if number == 1:
            import os

            os._exit(3)
        return number

    assert dict(forked(attempt, range(3))) == {0: 0, 1: None, 2: 2}


def test_a_failure_of_the_fuzz_itself_is_raised() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(forked(lambda number: 1 // number, range(2)))


def test_a_target_has_calls() -> None:
    assert all(isinstance(it, Target) and it.valid for it in targets().values())
