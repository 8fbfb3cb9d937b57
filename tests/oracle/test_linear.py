"""Linear layers against torch: values, gradients, initialisation and counted operations."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from llmref.components.linear import (
    Linear,
    activation_gain,
    init_std,
    linear,
    linear_backward,
    linear_flops,
    uniform_bound,
)

TOPIC = "components/linear"


def inputs():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 5), (4, 5), (4,)]
    return [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_equal_torch(agreement, with_bias):
    x, weight, bias = inputs()
    leaves = (x, weight, bias) if with_bias else (x, weight)
    theirs = F.linear(*leaves)
    convention = "weight (out, in)"
    agreement("linear", "torch", linear(*leaves), theirs, atol=1e-12, convention=convention)
    grad = torch.linspace(-1, 1, theirs.numel(), dtype=torch.float64).reshape(theirs.shape)
    for ours, expected in zip(
        linear_backward(grad, x, weight, has_bias=with_bias)[: len(leaves)],
        torch.autograd.grad(theirs, leaves, grad),
        strict=True,
    ):
        name = "linear_backward"
        agreement(name, "torch", ours, expected, atol=1e-12, convention=convention)


def test_conv1d_of_transformers_stores_the_transpose(agreement):
    from transformers.pytorch_utils import Conv1D

    x, weight, bias = inputs()
    layer = Conv1D(4, 5).double()
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(bias)
    assert layer.weight.shape == (5, 4)
    convention = "Conv1D of GPT-2: weight (in, out)"
    ours = linear(x, weight, bias)
    agreement("linear", "transformers", ours, layer(x), atol=1e-12, convention=convention)


def test_the_default_weights_are_those_of_nn_linear(agreement):
    torch.manual_seed(1)
    theirs = nn.Linear(300, 100, dtype=torch.float64)
    torch.manual_seed(1)
    ours = Linear(300, 100, dtype=torch.float64)
    convention = "kaiming_uniform_(a=sqrt(5)), the same seed"
    agreement(
        "Linear, weight", "torch", ours.weight, theirs.weight, atol=1e-12, convention=convention
    )
    agreement("Linear, bias", "torch", ours.bias, theirs.bias, atol=1e-12, convention=convention)


def test_bounds_and_gains_are_those_of_nn_init(agreement):
    weight = torch.empty(100, 300, dtype=torch.float64)
    schemes = {
        "xavier_uniform_": (nn.init.xavier_uniform_, init_std(300, 100, "xavier")),
        "kaiming_uniform_, fan_in": (
            lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
            init_std(300, 100, "kaiming_in", activation_gain("relu")),
        ),
        "kaiming_uniform_, fan_out": (
            lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"),
            init_std(300, 100, "kaiming_out", activation_gain("relu")),
        ),
    }
    for name, (init, std) in schemes.items():
        torch.manual_seed(0)
        theirs = init(weight.clone())
        torch.manual_seed(0)
        ours = nn.init.uniform_(weight.clone(), -uniform_bound(std), uniform_bound(std))
        convention = f"{name}, the same seed"
        formula = f"weights of {name.replace('_uniform_', '')}"
        agreement(formula, "torch", ours, theirs, atol=1e-12, convention=convention)


def test_gains_of_relu_agree_and_that_of_tanh_does_not(agreement):
    pairs = [("linear", None), ("relu", None), ("leaky_relu", 0.2)]
    ours = [activation_gain(name, a or 0.01) for name, a in pairs]
    theirs = [nn.init.calculate_gain(name, a) for name, a in pairs]
    convention = "calculate_gain of linear, relu, leaky_relu; its tanh is 5/3"
    agreement(
        "activation_gain",
        "torch",
        torch.tensor(ours, dtype=torch.float64),
        torch.tensor(theirs, dtype=torch.float64),
        atol=1e-12,
        convention=convention,
    )
    assert nn.init.calculate_gain("tanh") == 5 / 3
    assert 1.59 < activation_gain("tanh") < 1.593


def test_a_transposed_weight_swaps_the_fans_of_nn_init():
    torch.manual_seed(0)
    weight = nn.init.kaiming_normal_(torch.empty(300, 100), nonlinearity="relu")  # meant (in, out)
    assert math.isclose(weight.std().item(), init_std(100, 300, "kaiming_in", 2**0.5), rel_tol=0.02)


def test_counted_operations_are_those_of_torch(agreement):
    x, weight, bias = inputs()
    with FlopCounterMode(display=False) as forward:
        out = F.linear(x, weight, bias)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    ours = [linear_flops(6, 5, 4, bias=True), linear_flops(6, 5, 4, bias=True, backward=True)]
    theirs = [forward.get_total_flops(), backward.get_total_flops()]
    agreement(
        "linear_flops",
        "torch",
        torch.tensor(ours),
        torch.tensor(theirs),
        atol=0,
        convention="FlopCounterMode: 2 for each multiply-add, the bias not counted",
    )
