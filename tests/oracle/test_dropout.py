"""Dropout against torch: its masks are read off, since each library draws its own."""

import math

import torch
from torch.nn import functional

from llmref.functional.dropout import dropout, dropout_backward
from tests.tensors import generator, random

TOPIC = "functional/dropout"


def test_values_and_gradients_through_the_mask_of_torch(agreement):
    for p in (0.1, 0.5, 0.9):
        torch.manual_seed(0)
        x, dy = random(5, 7).requires_grad_(), random(5, 7, seed=1)
        theirs = functional.dropout(x, p)  # training is True unless given
        mask = theirs != 0
        (dx,) = torch.autograd.grad(theirs, x, dy)
        agreement(
            "dropout",
            "torch",
            dropout_backward(x, mask, p=p),
            theirs,
            atol=1e-12,
            convention="p is the probability to drop; training by default; the mask of torch",
        )
        agreement("dropout_backward", "torch", dropout_backward(dy, mask, p=p), dx, atol=1e-12)


def test_our_mask_in_the_gradient_of_torch(agreement):
    x, dy = random(5, 7), random(5, 7, seed=1)
    _, mask = dropout(x, p=0.3, generator=generator())
    theirs = torch.ops.aten.native_dropout_backward(dy, mask, 1 / 0.7)
    agreement(
        "dropout_backward, native",
        "torch",
        dropout_backward(dy, mask, p=0.3),
        theirs,
        atol=1e-12,
        convention="takes 1 / (1 - p) as the scale",
    )


def test_attention_drops_weights_after_the_softmax_in_any_mode(agreement):
    """With the identity as values the output shows the weights, and so the mask."""
    torch.manual_seed(0)
    q, k, values = random(2, 6, 4), random(2, 6, 4, seed=1), torch.eye(6).double().expand(2, 6, 6)
    with torch.no_grad():
        theirs = functional.scaled_dot_product_attention(q, k, values, dropout_p=0.4)
    weights = (q @ k.mT / math.sqrt(4)).softmax(-1)
    mask = theirs != 0
    assert 0 < mask.double().mean() < 1
    agreement(
        "dropout of attention weights",
        "torch",
        dropout_backward(weights, mask, p=0.4),
        theirs,
        atol=1e-12,
        convention="scaled_dot_product_attention, whatever the mode",
    )


def test_a_dropped_infinity_is_not_a_number_in_torch():
    torch.manual_seed(0)
    assert functional.dropout(torch.full((40,), math.inf), 0.5).isnan().any()
    assert (functional.dropout(torch.ones(4), 1.0) == 0).all()
