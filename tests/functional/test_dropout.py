"""Dropout: the mask, values, gradient, and what is refused."""

import math

import pytest
import torch

from llmref.functional.dropout import dropout, dropout_backward
from tests.tensors import close, f64, generator, random


def test_three_becomes_four_or_zero():
    """With p = 1/4, 3 / (3/4) = 4."""
    y, mask = dropout(torch.full((50,), 3.0), p=0.25, generator=generator())
    assert set(y.tolist()) == {0.0, 4.0}
    assert torch.equal(y, 4.0 * mask)
    assert dropout_backward(f64(3, 6), torch.tensor([True, False]), p=0.25).tolist() == [4, 0]


def test_entries_are_dropped_with_probability_p_and_independently():
    for p in (0.1, 0.5, 0.9):
        mask = dropout(torch.ones(40_000, 2), p=p, generator=generator())[1].double()
        both = mask.prod(1).mean()
        assert abs(mask.mean() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / 80_000)
        assert abs(both - (1 - p) ** 2) < 4 * 0.5 / math.sqrt(40_000)


def test_a_small_p_is_kept_to_in_sixteen_bits():
    """Uniforms of bfloat16 would drop three times as many, on a CPU."""
    mask = dropout(torch.ones(400_000, dtype=torch.bfloat16), p=0.001, generator=generator())[1]
    assert abs((~mask).double().mean() - 0.001) < 4 * math.sqrt(0.001 / 400_000)


def test_one_seed_gives_one_mask_for_every_dtype():
    x = random(5, 7)
    masks = [
        dropout(x.to(dtype), p=0.3, generator=generator(4))[1]
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    ]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_the_gradient_is_that_of_the_forward_pass():
    x, dy = random(3, 4).requires_grad_(), random(3, 4, seed=1)
    y, mask = dropout(x, p=0.4, generator=generator())
    (dx,) = torch.autograd.grad((dy * y).sum(), x)
    close(dropout_backward(dy, mask, p=0.4), dx)
    assert torch.autograd.gradcheck(
        lambda x: dropout(x, p=0.4, generator=generator())[0], random(2, 3).requires_grad_()
    )


def test_p_of_zero_keeps_all():
    x = random(5, 7)
    y, mask = dropout(x, p=0)
    assert torch.equal(y, x)
    assert mask.all()
    assert torch.equal(dropout_backward(x, mask, p=0), x)


def test_a_dropped_infinity_is_zero():
    x = torch.full((40,), math.inf)
    y, mask = dropout(x, p=0.5, generator=generator())
    assert (y[~mask] == 0).all()
    assert y[mask].isinf().all()
    assert not dropout_backward(x, mask, p=0.5).isnan().any()


def test_an_empty_tensor_stays_empty():
    y, mask = dropout(torch.ones(0, 3), p=0.5)
    assert y.shape == mask.shape == (0, 3)


mask = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dropout(f64(1), p=1.0), ValueError, r"p must be in \[0, 1\), got 1\.0: it is the"),
        (lambda: dropout(f64(1), p=-0.1), ValueError, r"p must be in \[0, 1\), got -0\.1"),
        (lambda: dropout(f64(1), p=math.nan), ValueError, r"p must be in \[0, 1\), got nan"),
        (lambda: dropout(torch.tensor([1]), p=0.5), TypeError, "x must be floating point"),
        (lambda: dropout_backward(f64(1, 2, 3), mask, p=1), ValueError, r"p must be in \[0, 1\)"),
        (lambda: dropout_backward(mask, mask, p=0.5), TypeError, "grad_output must be floating"),
        (
            lambda: dropout_backward(f64(1, 2, 3), mask.double(), p=0.5),
            TypeError,
            r"mask must be boolean, got torch\.float64",
        ),
        (
            lambda: dropout_backward(f64(1, 2), mask, p=0.5),
            ValueError,
            r"grad_output must be \(\.\.\.\) = \(3,\) beside mask \(3,\), got \(2,\)",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
