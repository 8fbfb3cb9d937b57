"""Off policy: values, the definition as a loop, a law, the gradient, and the error."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.rl.off_policy import off_policy
from tests.tensors import close, f64, random

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=7)


def test_two_and_three_give_twenty_five():
    """(2 + 3)^2 = 5^2 = 25."""
    assert off_policy(torch.tensor(2.0), torch.tensor(3.0)) == 25


def test_definition_as_a_loop():
    x, y = random(6), random(6, seed=1)
    expected = [a * a + 2 * a * b + b * b for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    close(off_policy(x, y), f64(*expected))


@given(numbers)
@settings(deadline=None)
def test_opposite_terms_cancel(row):
    x = f64(*row)
    assert (off_policy(x, -x) == 0).all()


def test_gradient():
    x, y = random(3).requires_grad_(), random(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(off_policy, (x, y))


def test_terms_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"y must be .* = \(2,\) beside x \(2,\), got \(3,\)"):
        off_policy(torch.ones(2), torch.ones(3))
