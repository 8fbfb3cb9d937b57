"""The leaf under all formulas: its dtypes, and the gradients that it gives to ties."""

import pytest
import torch

from llmref._numeric import bounded, maximum, minimum, reduce_rows, wide_dtype, widen


def gradients(function, *values):
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in values]
    return [g.tolist() for g in torch.autograd.grad(function(*leaves).sum(), leaves)]


def test_the_wide_dtype_is_float32_at_least():
    half, single, double = (torch.ones(1, dtype=d) for d in (torch.half, torch.float, torch.double))
    assert wide_dtype(half) == wide_dtype(half, single) == torch.float32
    assert wide_dtype(half, double) == torch.float64
    assert widen(half).dtype == torch.float32
    with pytest.raises(TypeError, match=r"ids must be floating point, got torch\.int64"):
        widen(torch.ones(1).long(), "ids")


def test_the_ends_of_a_bound_keep_their_gradient():
    """Clamp of torch gives 1 or 0 there, by its version."""
    x = [-2.0, -1.0, 0.0, 3.0, 4.0]
    assert bounded(torch.tensor(x), -1, 3).tolist() == [-1, -1, 0, 3, 3]
    assert gradients(lambda x: bounded(x, -1, 3), x) == [[0, 1, 1, 1, 0]]


def test_an_end_beyond_the_dtype_is_never_reached():
    x = torch.tensor([-3e38, 1.0, 3e38])
    assert bounded(x, -1e39, 1e39).tolist() == x.tolist()
    assert bounded(x, 0, 1e308).tolist() == [0, *x[1:].tolist()]


def test_of_equal_numbers_the_first_has_the_whole_gradient():
    a, b = [1.0, 2.0, 5.0], [1.0, 3.0, 4.0]
    assert gradients(minimum, a, b) == [[1, 1, 0], [0, 0, 1]]
    assert gradients(maximum, a, b) == [[1, 0, 1], [0, 1, 0]]
    assert minimum(torch.tensor(a), torch.tensor(b)).tolist() == [1, 2, 4]
    assert maximum(torch.tensor(a), torch.tensor(b)).tolist() == [1, 3, 5]


def test_rows_are_averaged_added_or_left():
    rows = torch.tensor([1.0, 2.0, 6.0])
    assert reduce_rows(rows, "mean") == 3
    assert reduce_rows(rows, "sum") == 9
    assert reduce_rows(rows, "none") is rows
    assert reduce_rows(rows[:0], "sum") == 0
    with pytest.raises(ValueError, match="a mean over nothing does not exist"):
        reduce_rows(rows[:0], "mean")
    with pytest.raises(ValueError, match=r"reduction must be one of \['mean', 'sum', 'none'\]"):
        reduce_rows(rows, "average")
