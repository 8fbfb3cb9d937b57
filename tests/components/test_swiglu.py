"""Gated feed-forward layers: values, backward, widths and weight layouts."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from llmref.components.swiglu import (
    SwiGLU,
    ffn_params,
    fuse_gate_up,
    glu,
    swiglu_backward,
    swiglu_hidden_dim,
)
from tests.tensors import close, random

law = settings(deadline=None, max_examples=60)
DEFINITIONS = {
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def test_a_gate_of_log_three():
    """sigmoid(log 3) = 3/4, so the product with 2 is 1.5 log 3; the sigmoid alone gives 1.5."""
    gate, up = torch.tensor([[math.log(3)], [2.0]], dtype=torch.float64)
    close(glu(gate, up), 1.5 * gate)
    close(glu(gate, up, "sigmoid"), torch.tensor([1.5]).double())
    close(glu(-gate, up, "relu"), torch.tensor([0.0]).double())


@pytest.mark.parametrize("activation", DEFINITIONS)
def test_every_activation_acts_on_the_gate(activation):
    gate, up = random(2, 3, 5), random(2, 3, 5, seed=1)
    expected = DEFINITIONS[activation](gate) * up
    close(glu(gate, up, activation), expected)
    assert activation == "identity" or not torch.allclose(glu(up, gate, activation), expected)


@law
@given(st.floats(-30, 30), st.floats(0.01, 50))
def test_beta_rescales_the_gate(gate, beta):
    z, one = torch.tensor([gate]).double(), torch.ones(1).double()
    close(glu(z, one, beta=beta), functional.silu(beta * z) / beta, atol=1e-10)


def test_an_infinite_negative_gate_is_closed():
    gate, up = torch.tensor([-math.inf, -1e4]), torch.tensor([3.0, 3.0])
    assert glu(gate, up).tolist() == [0.0, -0.0]


@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)])
def test_backward_equals_autograd(shape):
    gate, up = (random(*shape, seed=s).requires_grad_() for s in (0, 1))
    grad = random(*shape, seed=2)
    expected = torch.autograd.grad((glu(gate, up) * grad).sum(), (gate, up))
    for ours, theirs in zip(swiglu_backward(grad, gate, up), expected, strict=True):
        close(ours.detach(), theirs)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_backward_knows_the_slope(beta):
    """At g = 0.7, v = 1.3 and beta 2 the gradients are 1.3316 and 0.5615; beta 1 gives others."""
    gate, up = (torch.tensor([value]).double().requires_grad_() for value in (0.7, 1.3))
    expected = torch.autograd.grad(glu(gate, up, beta=beta).sum(), (gate, up))
    actual = swiglu_backward(torch.ones(1).double(), gate.detach(), up.detach(), beta=beta)
    close(torch.cat(actual), torch.cat(expected))
    if beta == 2.0:
        close(torch.cat(actual), torch.tensor([1.3316, 0.5615]).double(), atol=5e-5)


def test_sixteen_bit_gradients_are_rounded_once():
    grad, gate, up = (random(64, seed=s).bfloat16() for s in range(3))
    wide = swiglu_backward(grad.float(), gate.float(), up.float())
    for ours, exact in zip(swiglu_backward(grad, gate, up), wide, strict=True):
        assert torch.equal(ours, exact.bfloat16())


def test_what_overflows_is_refused():
    """300 times 300 is above 65504, the largest number of float16."""
    big = torch.full((1,), 300.0).half()
    with pytest.raises(ValueError, match="h must be finite, got inf"):
        glu(big, big)
    with pytest.raises(ValueError, match="grad_gate must be finite, got inf"):
        swiglu_backward(big, big, big)
    assert glu(big, big.float()).item() == 90000


def test_gradcheck_of_the_layer():
    layer, x = SwiGLU(3, 4).double(), random(2, 3).requires_grad_()
    weights = tuple(layer.parameters())

    def run(x, gate, up, down):
        return functional.linear(glu(x @ gate.T, x @ up.T), down)

    assert torch.autograd.gradcheck(run, (x, *weights))


@pytest.mark.parametrize("activation", DEFINITIONS)
def test_the_layer_equals_its_loop(activation):
    layer, x = SwiGLU(3, 5, activation=activation).double(), random(2, 7, 3)
    gate, up, down = (p.detach() for p in layer.parameters())
    for row, y in zip(x.flatten(0, 1), layer(x).detach().flatten(0, 1), strict=True):
        hidden = [DEFINITIONS[activation](gate[j] @ row) * (up[j] @ row) for j in range(5)]
        close(y, sum(h * down[:, j] for j, h in enumerate(hidden)))


@pytest.mark.parametrize(
    ("dim", "options", "expected"),
    [
        (4096, {"multiple_of": 256}, 11008),
        (5120, {"multiple_of": 256}, 13824),
        (8192, {"multiple_of": 256}, 22016),
        (4096, {"multiplier": 1.3, "multiple_of": 1024}, 14336),
        (8192, {"multiplier": 1.3, "multiple_of": 4096}, 28672),
        (2068, {"multiplier": 1.3, "multiple_of": 1024}, 7168),  # 8192 if cut only once
        (3, {}, 8),
        (8, {}, 21),  # of 64/3: not rounded up
        (1, {"ratio": Fraction(2**1023)}, 2**1023),  # twice that is beyond float64
        (4, {"ratio": Fraction(4)}, 16),
    ],
)
def test_the_rule_of_llama(dim, options, expected):
    assert swiglu_hidden_dim(dim, **options) == expected


@law
@given(st.integers(1, 5000), st.integers(1, 300))
def test_the_width_is_the_least_multiple_that_is_enough(dim, multiple_of):
    hidden = swiglu_hidden_dim(dim, multiple_of=multiple_of)
    assert hidden % multiple_of == 0
    assert 0 <= hidden - 8 * dim // 3 < multiple_of


def test_parameters_are_those_of_the_layer():
    layer = SwiGLU(6, 16)
    assert ffn_params(6, 16, gated=True) == sum(p.numel() for p in layer.parameters())
    assert ffn_params(6, 16, gated=True) == ffn_params(6, 24, gated=False)
    assert SwiGLU(96).gate_proj.out_features == 256


@pytest.mark.parametrize("order", ["gate_up", "up_gate"])
def test_a_fused_weight_gives_the_same_layer(order):
    x, gate, up = random(2, 3), random(5, 3, seed=1), random(5, 3, seed=2)
    halves = (x @ fuse_gate_up(gate, up, order=order).T).chunk(2, dim=-1)
    first, second = halves if order == "gate_up" else halves[::-1]
    close(glu(first, second), glu(x @ gate.T, x @ up.T))


def test_sixteen_bits_stay_sixteen_bits():
    gate, up = random(64).bfloat16(), random(64, seed=1).bfloat16()
    assert glu(gate, up).dtype == torch.bfloat16
    assert torch.equal(glu(gate, up), functional.silu(gate) * up)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: glu(x, x[0]),
            ValueError,
            r"up must be \(\.\.\.\) = \(2, 3\) beside gate \(2, 3\), got \(3,\)",
        ),
        (lambda x: glu(x, x, "tanh"), ValueError, "activation must be one of .*, got 'tanh'"),
        (lambda x: glu(x, x, "gelu", beta=2.0), ValueError, "beta is the slope of silu"),
        (
            lambda x: glu(x.long(), x.long()),
            TypeError,
            r"gate must be floating point, got torch\.int64",
        ),
        (
            lambda x: swiglu_backward(x[0], x, x),
            ValueError,
            r"grad_h must be \(\.\.\.\) = \(2, 3\) beside gate \(2, 3\), up \(2, 3\), got \(3,\)",
        ),
        (lambda x: swiglu_hidden_dim(0), ValueError, "dim must be at least 1, got 0"),
        (lambda x: swiglu_hidden_dim(4096.5), TypeError, r"dim must be an int, got 4096\.5"),
        (lambda x: swiglu_hidden_dim(3, multiplier=0.0), ValueError, "multiplier must be positive"),
        (
            lambda x: swiglu_hidden_dim(8, multiplier=math.inf),
            ValueError,
            "multiplier must be positive and finite, got inf",
        ),
        (
            lambda x: swiglu_hidden_dim(8, multiplier=1e308),
            ValueError,
            r"width must be in \[0, inf\), got inf",
        ),
        (
            lambda x: swiglu_hidden_dim(1, ratio=Fraction(1, 2)),
            ValueError,
            "hidden must be at least 1, got 0",
        ),
        (
            lambda x: swiglu_hidden_dim(8, multiplier=0.01),
            ValueError,
            "hidden must be at least 1, got 0",
        ),
        (lambda x: swiglu_backward(x, x, x, beta=0.0), ValueError, "beta must be positive"),
        (lambda x: ffn_params(3, 0, gated=True), ValueError, "hidden must be at least 1, got 0"),
        (lambda x: SwiGLU(3, 0), ValueError, "hidden_dim must be at least 1, got 0"),
        (lambda x: SwiGLU(3, 4, activation="tanh"), ValueError, "activation must be one of"),
        (lambda x: fuse_gate_up(x, x[0], order="gate_up"), ValueError, r"must be \(F, dim\)"),
        (
            lambda x: fuse_gate_up(x, x, order="gu"),
            ValueError,
            r"order must be one of \['gate_up', 'up_gate'\], got 'gu'",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(random(2, 3))
