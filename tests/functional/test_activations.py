"""Sigmoid, softplus, tanh, ReLU, SiLU and GELU: values, derivatives, limits and precision."""

import math
import warnings

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.functional import activations
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
from tests.tensors import close, f64

INF = math.inf
F64 = torch.float64


def random(*shape, seed=0):
    return 3 * torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def silu2(x):
    return silu(x, beta=2.5)


def gelu_tanh(x):
    return gelu(x, approximate="tanh")


def gelu_sigmoid(x):
    return gelu(x, approximate="sigmoid")


PAIRS = {
    "sigmoid": (sigmoid, d_sigmoid),
    "tanh": (tanh, d_tanh),
    "relu": (relu, d_relu),
    "softplus": (softplus, sigmoid),
    "log_sigmoid": (log_sigmoid, lambda x: sigmoid(-x)),
    "silu": (silu, d_silu),
    "silu, beta 2.5": (silu2, lambda x: d_silu(x, beta=2.5)),
    "gelu": (gelu, d_gelu),
    "gelu, tanh": (gelu_tanh, lambda x: d_gelu(x, "tanh")),
    "gelu, sigmoid": (gelu_sigmoid, lambda x: d_gelu(x, "sigmoid")),
}
FUNCTIONS = {
    **{name: pair[0] for name, pair in PAIRS.items()},
    "d_sigmoid": d_sigmoid,
    "d_tanh": d_tanh,
    "d_relu": d_relu,
    "d_silu": d_silu,
    "d_gelu": d_gelu,
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_pair = pytest.mark.parametrize("name", PAIRS)

numbers = st.floats(-700, 700)
law = settings(deadline=None, max_examples=80)


def test_values_at_log_three_are_quarters():
    """exp(log 3) = 3: sigmoid 3/4, softplus log 4, tanh (9 - 1) / (9 + 1)."""
    x = f64(math.log(3), -math.log(3))
    close(sigmoid(x), f64(3 / 4, 1 / 4))
    close(log_sigmoid(x), f64(math.log(3 / 4), -math.log(4)))
    close(softplus(x), f64(math.log(4), math.log(4 / 3)))
    close(tanh(x), f64(4 / 5, -4 / 5))
    close(silu(x), f64(0.75 * math.log(3), -0.25 * math.log(3)))
    close(silu(x, beta=2.0), f64(0.9 * math.log(3), -0.1 * math.log(3)))
    close(relu(x), f64(math.log(3), 0))
    close(d_sigmoid(x), f64(3 / 16, 3 / 16))
    close(d_tanh(x), f64(9 / 25, 9 / 25))
    close(d_relu(x), f64(1, 0))
    close(d_silu(x)[0], torch.tensor(3 / 4 + math.log(3) * 3 / 16, dtype=F64))


def test_gelu_is_x_times_the_normal_cdf():
    """Phi(1) = 0.841344746068543 and Phi(-1) = 1 - Phi(1)."""
    phi = 0.8413447460685429
    close(gelu(f64(1, -1, 0)), f64(phi, phi - 1, 0))
    density = math.exp(-1 / 2) / math.sqrt(2 * math.pi)
    close(d_gelu(f64(1, -1, 0)), f64(phi + density, 1 - phi - density, 1 / 2))


def test_each_approximation_is_x_times_its_gate():
    """The tanh form at 1: sqrt(2/pi) * 1.044715 = 0.833558; (1 + tanh) / 2 = 0.841192."""
    x = random(3, 5)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    close(gelu_tanh(x), x / 2 * (1 + torch.tanh(inner)))
    close(gelu_tanh(f64(1)), f64(0.841192), atol=1e-6)
    close(gelu_sigmoid(x), x / (1 + torch.exp(-1.702 * x)))


@every_function
def test_any_shape_is_taken_entry_by_entry(name):
    function, x = FUNCTIONS[name], random(2, 3, 5)
    values = function(x)
    assert values.shape == x.shape
    for index in [(0, 0, 0), (1, 2, 4), (0, 2, 3)]:
        assert values[index] == function(x[index])
    assert function(x[:0]).shape == (0, 3, 5)


def reference(name, value):
    x = mpmath.mpf(value)

    def cdf(t):
        return 1 / (1 + mpmath.exp(-t))

    return {
        "sigmoid": lambda: cdf(x),
        "log_sigmoid": lambda: -mpmath.log1p(mpmath.exp(-x)),
        "softplus": lambda: mpmath.log1p(mpmath.exp(x)),
        "tanh": lambda: mpmath.tanh(x),
        "silu": lambda: x * cdf(x),
        "d_sigmoid": lambda: cdf(x) * cdf(-x),
        "d_tanh": lambda: mpmath.sech(x) ** 2,
        "gelu": lambda: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    }[name]()


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize(
    "name",
    ["sigmoid", "log_sigmoid", "softplus", "tanh", "silu", "d_sigmoid", "d_tanh", "gelu"],
)
def test_every_digit_is_kept_from_the_left_tail_to_the_right(name, dtype):
    """A few units in the last place; for gelu times x^2, to which the argument's rounding grows."""
    limit = 700.0 if dtype == F64 else 85.0
    x = torch.cat([torch.linspace(-limit, limit, 101, dtype=dtype), f64(-9, -6, -1e-9, 1e-9)])
    x = x.to(dtype)
    values = FUNCTIONS[name](x)
    unit = torch.finfo(dtype).eps / 2
    with mpmath.workdps(40):
        for argument, value in zip(x.tolist(), values.tolist(), strict=True):
            exact = reference(name, argument)
            if abs(exact) < torch.finfo(dtype).tiny:
                continue  # rounded to a subnormal number, or to 0
            allowed = 8 + (2 * argument**2 if name == "gelu" else 0)
            assert abs(value - exact) <= allowed * unit * abs(exact), argument


def test_textbook_forms_break_where_these_do_not():
    x = torch.tensor([1000.0, -1000.0])
    assert (x.exp() / (1 + x.exp()))[0].isnan()
    assert (1 / (1 + (-x).exp()))[1] == 0  # the value of this form is right, its gradient is not
    leaf = torch.tensor(-100.0, requires_grad=True)
    assert torch.autograd.grad(1 / (1 + (-leaf).exp()), leaf)[0].isnan()
    assert torch.autograd.grad(sigmoid(leaf), leaf)[0] == math.exp(-100)
    assert (1 + x.exp()).log()[0] == INF
    close(softplus(x), torch.tensor([1000.0, 0.0]))
    close(log_sigmoid(x), torch.tensor([0.0, -1000.0]))
    assert sigmoid(x).tolist() == [1, 0]


def test_tanh_from_the_sigmoid_would_lose_its_digits_near_zero():
    x = f64(1e-10)
    assert abs((2 * sigmoid(2 * x) - 1) / x - 1) > 1e-8
    assert abs(tanh(x) / x - 1) < 1e-15


def test_gelu_from_erf_would_lose_the_left_tail():
    x = torch.tensor([-6.0])
    assert x * (1 + torch.erf(x / math.sqrt(2))) / 2 == 0
    assert abs(gelu(x) / -5.919526e-09 - 1) < 1e-5


@every_pair
def test_derivative_in_closed_form_equals_autograd(name):
    function, derivative = PAIRS[name]
    x = torch.cat([random(40), f64(0, 1e-9, -1e-9, 30, -30, 500, -500)]).requires_grad_()
    (grad,) = torch.autograd.grad(function(x).sum(), x)
    close(grad, derivative(x.detach()))


@every_pair
def test_autograd_agrees_with_finite_differences_twice(name):
    function = FUNCTIONS[name]
    x = f64(-3.7, -0.6, -0.02, 0.03, 1.1, 4.2).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("sigmoid", 1 / 4),
        ("softplus", 1 / 2),
        ("log_sigmoid", 1 / 2),
        ("tanh", 1),
        ("relu", 0),
        ("silu", 1 / 2),
        ("gelu", 1 / 2),
        ("gelu, tanh", 1 / 2),
        ("gelu, sigmoid", 1 / 2),
    ],
)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_autograd_gives_the_slope_at_zero(name, slope, zero):
    """With |x| in the formula autograd would return 0, the slope that torch gives |x| at 0."""
    x = f64(zero).requires_grad_()
    (grad,) = torch.autograd.grad(FUNCTIONS[name](x), x)
    close(grad, f64(slope))


LIMITS = {
    "sigmoid": (0, 1),
    "log_sigmoid": (-INF, 0),
    "softplus": (0, INF),
    "tanh": (-1, 1),
    "relu": (0, INF),
    "silu": (0, INF),
    "silu, beta 2.5": (0, INF),
    "gelu": (0, INF),
    "gelu, tanh": (0, INF),
    "gelu, sigmoid": (0, INF),
    "d_sigmoid": (0, 0),
    "d_tanh": (0, 0),
    "d_relu": (0, 1),
    "d_silu": (0, 1),
    "d_gelu": (0, 1),
}


@every_function
@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 64])  # vectorised kernels start at some size
def test_infinite_arguments_give_the_limits(name, dtype, count):
    x = torch.tensor([-INF, INF], dtype=dtype).repeat(count)
    expected = torch.tensor(LIMITS[name], dtype=dtype).repeat(count)
    assert torch.equal(FUNCTIONS[name](x).abs(), expected.abs())
    assert torch.equal(FUNCTIONS[name](x), expected)


@every_pair
def test_gradients_at_and_near_infinity_are_the_limits(name):
    for dtype in (F64, torch.float32):
        big = torch.finfo(dtype).max
        x = torch.tensor([-INF, -big, -1e20, 1e20, big, INF], dtype=dtype).requires_grad_()
        (grad,) = torch.autograd.grad(FUNCTIONS[name](x).sum(), x)
        left, right = {
            "sigmoid": (0, 0),
            "tanh": (0, 0),
            "log_sigmoid": (1, 0),
        }.get(name, (0, 1))
        close(grad, torch.tensor([left] * 3 + [right] * 3, dtype=dtype), atol=0)
        assert torch.equal(PAIRS[name][1](x.detach()), grad)


@every_function
def test_nan_stays_nan_at_its_entry_alone(name):
    values = FUNCTIONS[name](f64(math.nan, 1, -1))
    assert values.isnan().tolist() == [True, False, False]


@every_function
@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_kept_and_rounded_once(name, dtype):
    x = random(200).to(dtype)
    values = FUNCTIONS[name](x)
    assert values.dtype == dtype
    eps = torch.finfo(dtype).eps
    close(values.double(), FUNCTIONS[name](x.double()), atol=16 * eps)
    if dtype in (torch.bfloat16, torch.float16):
        once = FUNCTIONS[name](x.double()).to(dtype)
        assert (values == once).double().mean() > 0.98


@every_function
def test_no_warning_and_no_nan_over_the_whole_range(name):
    x = torch.cat([torch.linspace(-1e4, 1e4, 2001), torch.tensor([-1e38, 1e38, 0.0, 1e-45])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not FUNCTIONS[name](x).isnan().any()


@every_function
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        FUNCTIONS[name](torch.tensor([0, 1]))


@pytest.mark.parametrize("function", [silu, d_silu])
@pytest.mark.parametrize("beta", [0, -1.0, INF, math.nan])
def test_beta_must_be_positive_and_finite(function, beta):
    with pytest.raises(ValueError, match=rf"beta must be positive and finite, got {beta}"):
        function(f64(1), beta=beta)


@pytest.mark.parametrize("function", [gelu, d_gelu])
def test_an_unknown_approximation_is_refused(function):
    with pytest.raises(
        ValueError, match=r"approximate must be one of \['none', 'tanh', 'sigmoid'\], got 'erf'"
    ):
        function(f64(1), approximate="erf")


@given(numbers)
@law
def test_sigmoids_of_x_and_minus_x_sum_to_one(value):
    x = f64(value)
    close(sigmoid(x) + sigmoid(-x), f64(1))
    close(softplus(x) - softplus(-x), x)
    close(log_sigmoid(x), -softplus(-x))
    close(tanh(-x), -tanh(x))
    close(tanh(x), 2 * sigmoid(2 * x) - 1)


@given(numbers, st.floats(0.1, 8))
@law
def test_gated_functions_at_x_and_minus_x_differ_by_x(value, beta):
    x = f64(value)
    for function in (silu, gelu, gelu_tanh, gelu_sigmoid, relu):
        close(function(x) - function(-x), x)
    close(silu(x, beta), silu(beta * x) / beta, atol=1e-11)
    for slope in (d_silu, d_gelu):
        close(slope(x) + slope(-x), f64(1))


@given(numbers, numbers)
@law
def test_sigmoid_and_softplus_increase(a, b):
    low, high = f64(min(a, b)), f64(max(a, b))
    for function in (sigmoid, softplus, log_sigmoid, tanh, relu):
        assert (function(low) <= function(high)).all()
    for function in (silu, gelu):  # they do not: both have a minimum
        assert function(f64(-3)) > function(f64(-0.8))


def test_slopes_stay_within_their_ranges():
    x = torch.linspace(-20, 20, 40001, dtype=F64)
    assert d_sigmoid(x).min() >= 0
    assert d_sigmoid(x).max() == 0.25
    assert d_tanh(x).max() == 1
    for slope, extreme in ((d_silu(x), 1.099839), (d_gelu(x), 1.128904)):
        assert abs(slope.max() - extreme) < 1e-6
        assert abs(slope.min() - (1 - extreme)) < 1e-6


@pytest.mark.parametrize("beta", [1e39, 1e300])
def test_a_slope_beyond_the_dtype_is_a_step(beta):
    """In float32 such a beta is infinite, and infinity times 0 is NaN: the limit is relu."""
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    y = silu(x, beta=beta)
    assert torch.equal(y.detach(), torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(d_silu(x.detach(), beta=beta), torch.tensor([0.0, 0.5, 1.0]))


def test_derivative_of_silu_is_not_x_times_the_derivative_of_the_sigmoid():
    x = f64(0.7)
    assert abs(x * d_sigmoid(x) - d_silu(x)) > 0.5


def test_the_approximations_of_gelu_are_not_equal_to_it_within_rounding():
    x = torch.linspace(-8, 8, 160001, dtype=F64)
    assert abs((gelu_tanh(x) - gelu(x)).abs().max() - 4.7324e-4) < 1e-8
    assert abs((gelu_sigmoid(x) - gelu(x)).abs().max() - 2.0335e-2) < 1e-6


def test_the_constants_are_the_published_ones():
    assert activations.GELU_CUBIC == 0.044715
    assert activations.GELU_SIGMOID == 1.702
