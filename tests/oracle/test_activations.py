"""Activations and their derivatives against torch, transformers and scipy."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from llmref.functional.activations import (
    d_gelu,
    d_relu,
    d_sigmoid,
    d_silu,
    d_tanh,
    gelu,
    log_sigmoid,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)

TOPIC = "functional/activations"

TORCH = {
    "sigmoid": (sigmoid, d_sigmoid, torch.sigmoid),
    "tanh": (tanh, d_tanh, torch.tanh),
    "relu": (relu, d_relu, F.relu),
    "silu": (silu, d_silu, F.silu),
    "log_sigmoid": (log_sigmoid, lambda x: sigmoid(-x), F.logsigmoid),
    "gelu": (gelu, d_gelu, F.gelu),
    "gelu, tanh": (
        lambda x: gelu(x, "tanh"),
        lambda x: d_gelu(x, "tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
}


def arguments():
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=generator)
    x[0, 0, 1, 0] = 20.5  # where softplus of torch has just switched to x
    x[0, 0, 0] = torch.tensor([0, -0.0, 1e-9, 40, -40, 700, -700])
    return x


@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_equal_torch(agreement, name):
    function, derivative, theirs = TORCH[name]
    x = arguments().requires_grad_()
    value = theirs(x)
    agreement(name, "torch", function(x), value, atol=1e-12)
    (grad,) = torch.autograd.grad(value.sum(), x)
    agreement(f"{name}, derivative", "torch", derivative(x.detach()), grad, atol=1e-12)


def test_softplus_equals_torch_up_to_its_threshold(agreement):
    x = arguments()
    convention = "returns x above 20, off by exp(-20)"
    agreement("softplus", "torch", softplus(x), F.softplus(x), atol=2.1e-9, convention=convention)
    exact = F.softplus(x, threshold=800)
    convention = "threshold=800"
    agreement(
        "softplus, no threshold", "torch", softplus(x), exact, atol=1e-12, convention=convention
    )
    at_20 = torch.tensor(20.000001, dtype=torch.float64)
    assert 2.0e-9 < softplus(at_20) - F.softplus(at_20) < 2.1e-9


def test_values_equal_scipy(agreement):
    from scipy import special

    x = arguments()
    for name, ours, theirs in [
        ("sigmoid", sigmoid, special.expit),
        ("log_sigmoid", log_sigmoid, special.log_expit),
        ("gelu", gelu, lambda t: t * special.ndtr(t)),
    ]:
        agreement(name, "scipy", ours(x), torch.from_numpy(theirs(x.numpy())), atol=1e-12)


@pytest.mark.parametrize(
    ("key", "approximate"),
    [
        ("gelu", "none"),
        ("gelu_python", "none"),
        ("gelu_new", "tanh"),
        ("gelu_pytorch_tanh", "tanh"),
        ("gelu_accurate", "tanh"),
        ("gelu_fast", "tanh"),
        ("quick_gelu", "sigmoid"),
    ],
)
def test_the_names_of_transformers_mean_these_forms(agreement, key, approximate):
    from transformers.activations import ACT2FN

    x = arguments()
    names = {
        "none": "'gelu' and 'gelu_python'",
        "tanh": "'gelu_new', 'gelu_pytorch_tanh', 'gelu_accurate', 'gelu_fast'",
        "sigmoid": "'quick_gelu'",
    }
    formula = "gelu" if approximate == "none" else f"gelu, {approximate}"
    # gelu_fast writes sqrt(2 / pi) with ten digits.
    agreement(
        formula,
        "transformers",
        gelu(x, approximate),
        ACT2FN[key](x),
        atol=1e-9,
        convention=f"ACT2FN {names[approximate]}",
    )


@pytest.mark.parametrize("key", ["silu", "swish"])
def test_silu_equals_transformers(agreement, key):
    from transformers.activations import ACT2FN

    x = arguments()
    convention = "ACT2FN 'silu' and 'swish'"
    agreement("silu", "transformers", silu(x), ACT2FN[key](x), atol=1e-12, convention=convention)


def test_a_gemma_config_that_says_gelu_is_given_tanh():
    from transformers import GemmaConfig

    assert GemmaConfig(hidden_act="gelu").hidden_act == "gelu_pytorch_tanh"


def test_torch_is_nan_at_minus_infinity_where_the_limit_is_zero():
    x = torch.tensor([-math.inf], dtype=torch.float64)
    for theirs in (F.silu, F.gelu, lambda t: F.gelu(t, approximate="tanh")):
        assert theirs(x).isnan()
    assert silu(x) == 0
    assert gelu(x) == 0
    assert gelu(x, "tanh") == 0


def test_torch_has_a_nan_gradient_where_the_square_overflows():
    """The cube overflows from 7e12 on in float32, and does no harm; the square from 1.8e19 on."""
    x = torch.tensor([1e13, -1e18, 1e20, -1e20], requires_grad=True)
    theirs = torch.autograd.grad(F.gelu(x, approximate="tanh").sum(), x)[0]
    assert theirs[:2].tolist() == [1, 0]
    assert theirs[2:].isnan().all()
    assert torch.autograd.grad(gelu(x, "tanh").sum(), x)[0].tolist() == [1, 0, 1, 0]


def test_torch_loses_the_left_tail_of_gelu_in_float32():
    """True value -5.92e-9: 1 + erf is 0 after rounding."""
    x = torch.tensor([-6.0])
    assert F.gelu(x) == 0
    assert abs(gelu(x) / -5.919525869e-9 - 1) < 1e-5
