"""Linear layers: values, gradients, the spread of weights, and counted operations."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from tests.tensors import close, f64

law = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)
sizes = st.integers(1, 5)


def inputs(seed=0, lead=(2, 3), k=5, n=4):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(*lead, k), (n, k), (n,)]
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


def test_a_layer_worked_by_hand():
    """1 * 3 + 2 * 4 = 11, and 1 * 5 + 2 * 6 + 1 = 18."""
    x, weight = f64(1.0, 2.0), f64([3.0, 4.0], [5.0, 6.0])
    close(linear(x, weight, f64(0.0, 1.0)), f64(11.0, 18.0))
    close(linear(x, weight), f64(11.0, 17.0))


def test_gradients_worked_by_hand():
    """Rows x (1, 2) and (3, 4), W = (5, 6), G = 10 and 1: dX = G W, dW = 10 (1, 2) + (3, 4)."""
    x, weight, grad = f64([1.0, 2.0], [3.0, 4.0]), f64([5.0, 6.0]), f64([10.0], [1.0])
    grad_x, grad_weight, grad_bias = linear_backward(grad, x, weight)
    close(grad_x, f64([50.0, 60.0], [5.0, 6.0]))
    close(grad_weight, f64([13.0, 24.0]))
    close(grad_bias, f64(11.0))


def test_a_layer_equals_its_definition_written_as_a_loop():
    x, weight, bias = inputs()
    expected = torch.empty(2, 3, 4, dtype=torch.float64)
    for a, b, j in itertools.product(range(2), range(3), range(4)):
        expected[a, b, j] = sum(x[a, b, i] * weight[j, i] for i in range(5)) + bias[j]
    close(linear(x, weight, bias), expected)


@given(seeds, st.lists(sizes, max_size=3), sizes, sizes)
@law
def test_backward_equals_autograd_for_any_leading_axes(seed, lead, k, n):
    leaves = [t.requires_grad_() for t in inputs(seed, lead, k, n)]
    out = linear(*leaves)
    grad = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape)
    expected = torch.autograd.grad(out, leaves, grad)
    for ours, theirs in zip(linear_backward(grad, *leaves[:2]), expected, strict=True):
        close(ours, theirs)


def test_the_weight_gradient_is_out_by_in_also_when_the_layer_is_square():
    """X^T G has the right shape when in = out, and the wrong numbers."""
    x, weight, _ = inputs(k=4, n=4)
    grad = inputs(seed=1, k=4)[0]
    _, grad_weight, _ = linear_backward(grad, x, weight)
    close(grad_weight, torch.einsum("abj,abi->ji", grad, x))
    assert (grad_weight - grad_weight.T).abs().max() > 0.1


def test_weight_and_bias_gradients_sum_over_every_leading_axis():
    x, weight, _ = inputs()
    grad = inputs(seed=1, k=4)[0]
    _, grad_weight, grad_bias = linear_backward(grad, x, weight)
    parts = [linear_backward(g, t, weight) for g, t in zip(grad, x, strict=True)]
    close(grad_weight, parts[0][1] + parts[1][1])
    close(grad_bias, grad[0].sum(0) + grad[1].sum(0))


def test_gradcheck():
    assert torch.autograd.gradcheck(linear, [t.requires_grad_() for t in inputs()])


def test_without_bias_there_is_no_bias_gradient():
    x, weight, _ = inputs()
    assert linear_backward(linear(x, weight), x, weight, has_bias=False)[2] is None


def test_no_features_give_no_gradients():
    """No inputs: dX and dW are empty, db is the sum of 3 ones; no outputs: dX is 0."""
    dx, dw, db = linear_backward(torch.ones(3, 2), torch.ones(3, 0), torch.ones(2, 0))
    assert (dx.shape, dw.shape, db.tolist()) == ((3, 0), (2, 0), [3.0, 3.0])
    dx, dw, db = linear_backward(torch.ones(2, 3, 0), torch.ones(2, 3, 5), torch.ones(0, 5))
    assert not dx.any()
    assert (dx.shape, dw.shape, db.shape) == ((2, 3, 5), (0, 5), (0,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_overflows_is_refused(dtype):
    big = torch.full((1, 1), 2 * torch.finfo(dtype).max ** 0.5, dtype=dtype)
    with pytest.raises(ValueError, match="y must be finite, got inf"):
        linear(big, big)
    with pytest.raises(ValueError, match="grad_x must be finite, got inf"):
        linear_backward(big, big * 0, big)
    with pytest.raises(ValueError, match="grad_weight must be finite, got inf"):
        linear_backward(big, big, big * 0)


def test_no_rows_give_zero_gradients():
    x, weight, _ = inputs(lead=(0, 3))
    _, grad_weight, grad_bias = linear_backward(linear(x, weight), x, weight)
    assert (grad_weight == 0).all()
    assert (grad_bias == 0).all()


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_the_rank_of_a_weight_gradient_is_at_most_the_number_of_tokens(tokens):
    x, weight, _ = inputs(lead=(tokens,), k=5, n=5)
    grad = inputs(seed=1, lead=(tokens,), k=5)[0]
    assert torch.linalg.matrix_rank(linear_backward(grad, x, weight)[1]) == tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_kept_and_rounded_once(dtype):
    x, weight, bias = (t.to(dtype) for t in inputs(k=200))
    out = linear(x, weight, bias)
    assert out.dtype == dtype
    exact = linear(x.double(), weight.double(), bias.double())
    # One rounding of the result; in float32 the 200 products and sums round as well.
    unit = torch.finfo(dtype).eps * (8 if dtype == torch.float32 else 1)
    close(out.double(), exact, atol=unit * exact.abs().max().item())
    grads = linear_backward(out, x, weight)
    assert [g.dtype for g in grads] == [dtype] * 3


def test_standard_deviations_worked_by_hand():
    """Fans 300 and 100: 2 / 400, 1 / 300, 1 / 100, 1 / 900 are the variances."""
    variances = {"xavier": 1 / 200, "kaiming_in": 1 / 300, "kaiming_out": 1 / 100}
    for scheme, variance in {**variances, "torch": 1 / 900}.items():
        assert math.isclose(init_std(300, 100, scheme), math.sqrt(variance))
        assert math.isclose(init_std(300, 100, scheme, 3.0), 3 * math.sqrt(variance))


def test_the_bound_of_a_uniform_variable():
    """U(-a, a) has variance a^2 / 3; the xavier bound is sqrt(6 / (k + n))."""
    assert math.isclose(uniform_bound(2.0), math.sqrt(12))
    assert math.isclose(uniform_bound(init_std(300, 100, "xavier")), math.sqrt(6 / 400))
    assert uniform_bound(0.0) == 0


def test_gains_undo_the_second_moment_of_the_activation():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400_000, dtype=torch.float64, generator=generator)
    functions = {
        "linear": lambda z: z,
        "relu": torch.relu,
        "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.3),
        "tanh": torch.tanh,
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
    }
    for name, function in functions.items():
        squares = (activation_gain(name, 0.3) * function(z)).square()
        z_score = (squares.mean() - 1) / (squares.std() / math.sqrt(len(z)))
        assert abs(z_score) < 4, name


def test_gains_known_in_closed_form():
    """2 for relu, 2 / (1 + a^2) for leaky_relu, 1 for a = 1; tanh by another quadrature."""
    assert activation_gain("relu") == math.sqrt(2)
    assert math.isclose(activation_gain("leaky_relu"), math.sqrt(2 / 1.0001))
    assert activation_gain("leaky_relu", 1.0) == 1
    assert math.isclose(activation_gain("tanh"), 1.5925374197, rel_tol=1e-9)


@pytest.mark.parametrize("init", ["xavier", "kaiming_in", "kaiming_out", "torch"])
def test_weights_have_the_standard_deviation_of_their_scheme(init):
    """Kaiming with the wrong fan, or a variance taken for a standard deviation, fails here."""
    torch.manual_seed(0)
    layer = Linear(300, 100, init=init)
    gain = math.sqrt(2) if init.startswith("kaiming") else 1.0
    expected = init_std(300, 100, init, gain)
    squares = (layer.weight / expected).square().detach()
    assert abs(squares.mean() - 1) < 4 * squares.std() / math.sqrt(squares.numel())
    assert layer.weight.abs().max() <= math.sqrt(3) * expected


def test_the_module_applies_the_function_with_and_without_bias():
    """A Parameter in a boolean context raises for more than one output."""
    torch.manual_seed(0)
    x = inputs()[0]
    layer = Linear(5, 4, dtype=torch.float64)
    close(layer(x), linear(x, layer.weight, layer.bias), atol=0)
    assert (layer.bias != 0).all()
    bare = Linear(5, 4, bias=False, dtype=torch.float64)
    assert bare.bias is None
    close(bare(x), x @ bare.weight.T)
    assert set(dict(bare.named_parameters())) == {"weight"}
    assert (Linear(5, 4, init="xavier").bias == 0).all()


def test_outputs_have_the_predicted_size():
    """Drawing weights from N(0, 1) would give a standard deviation of sqrt(512) = 22.6."""
    torch.manual_seed(0)
    x = torch.randn(64, 512)
    std = Linear(512, 400, bias=False, init="kaiming_in")(x).std().item()
    assert 0.9 * math.sqrt(2) < std < 1.1 * math.sqrt(2)


def test_equal_seeds_draw_the_weights_of_torch():
    torch.manual_seed(3)
    ours = Linear(5, 4)
    torch.manual_seed(3)
    theirs = torch.nn.Linear(5, 4)
    close(ours.weight, theirs.weight, atol=1e-7)
    close(ours.bias, theirs.bias, atol=1e-7)


class Counted:
    """A number that counts the operations done with it."""

    done = 0

    def __init__(self, value):
        self.value = value

    def __mul__(self, other):
        Counted.done += 1
        return Counted(self.value * other.value)

    def __add__(self, other):
        Counted.done += 1
        return Counted(self.value + other.value)


def product(a, b):
    """Rows of a times columns of b, with the first product as the start of each sum."""
    out = []
    for row in a:
        out.append([])
        for column in zip(*b, strict=True):
            terms = [x * y for x, y in zip(row, column, strict=True)]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            out[-1].append(total)
    return out


def counted(function):
    Counted.done = 0
    function()
    return Counted.done


def matrix(rows, columns):
    return [[Counted(1) for _ in range(columns)] for _ in range(rows)]


def transpose(a):
    return [list(row) for row in zip(*a, strict=True)]


@given(sizes, sizes, sizes)
@law
def test_exact_counts_are_those_of_the_naive_loops(m, k, n):
    x, weight, grad = matrix(m, k), matrix(n, k), matrix(m, n)
    bias = [Counted(1) for _ in range(n)]
    forward = counted(lambda: product(x, transpose(weight)))
    grad_x = counted(lambda: product(grad, weight))
    grad_weight = counted(lambda: product(transpose(grad), x))

    def add_bias():
        for row in matrix(m, n):
            for value, b in zip(row, bias, strict=True):
                value + b

    def sum_rows():
        for column in transpose(grad):
            total = column[0]
            for value in column[1:]:
                total = total + value

    grad_bias, bias_adds = counted(sum_rows), counted(add_bias)
    exact = {"convention": "exact"}
    assert linear_flops(m, k, n, **exact) == forward
    assert linear_flops(m, k, n, bias=True, **exact) == forward + bias_adds == 2 * m * n * k
    assert linear_flops(m, k, n, backward=True, **exact) == grad_x + grad_weight
    both = linear_flops(m, k, n, bias=True, backward=True, **exact)
    assert both == grad_x + grad_weight + grad_bias
    first = linear_flops(m, k, n, backward=True, input_grad=False, **exact)
    assert first == grad_weight


@pytest.mark.parametrize("input_grad", [True, False])
def test_the_convention_mac2_is_that_of_the_counter_of_torch(input_grad):
    """2, 4 and 6 m n k for 7 rows, 11 in, 13 out: 2002, 4004 and 6006."""
    x, weight, bias = inputs(lead=(7,), k=11, n=13)
    x.requires_grad_(input_grad), weight.requires_grad_(), bias.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        out = linear(x, weight, bias)
    assert counter.get_total_flops() == linear_flops(7, 11, 13, bias=True) == 2002
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    backward = linear_flops(7, 11, 13, bias=True, backward=True, input_grad=input_grad)
    assert counter.get_total_flops() == backward == (4004 if input_grad else 2002)


def test_the_variance_of_an_output_is_the_second_moment_of_the_input_times_that_of_the_weights():
    """All 16 rows of signs: E y^2 = sum of x^2, whatever the mean of x."""
    x = [Fraction(3, 2), Fraction(-1), Fraction(2), Fraction(5)]
    outputs = [
        sum(w * t for w, t in zip(row, x, strict=True))
        for row in itertools.product((-1, 1), repeat=4)
    ]
    assert sum(outputs) == 0
    assert sum(y * y for y in outputs) / 16 == sum(t * t for t in x)


def test_shapes_that_do_not_fit_are_refused():
    x, weight, bias = inputs()
    with pytest.raises(
        ValueError, match=r"x must be \(\.\.\., in\) beside weight \(4, 3\), got \(2, 3, 5\)"
    ):
        linear(x, weight[:, :3])
    with pytest.raises(ValueError, match=r"weight must be \(out, in\), got \(5,\)"):
        linear(x, weight[0])
    with pytest.raises(
        ValueError,
        match=r"bias must be \(out,\) = \(4,\) beside weight \(4, 5\), x \(2, 3, 5\), got \(1,\)",
    ):
        linear(x, weight, bias[:1])
    with pytest.raises(
        ValueError,
        match=r"grad_out must be \(\.\.\., out\) = \(2, 3, 4\) beside weight \(4, 5\), x \(2",
    ):
        linear_backward(linear(x, weight)[0], x, weight)
    with pytest.raises(
        ValueError, match=r"x must be \(\.\.\., in\) beside weight \(4, 5\), got \(2, 3, 1\)"
    ):
        linear_backward(x, x[..., :1], weight)


def test_dtypes_that_do_not_fit_are_refused():
    x, weight, bias = inputs()
    with pytest.raises(TypeError, match="floating-point tensors of one dtype"):
        linear(x.long(), weight.long())
    with pytest.raises(
        TypeError, match=r"needs floating-point tensors of one dtype, got x torch\.float64"
    ):
        linear(x, weight.float())
    with pytest.raises(
        TypeError, match=r"needs floating-point tensors of one dtype, got x torch\.float64"
    ):
        linear(x, weight, bias.float())
    with pytest.raises(
        TypeError, match=r"needs floating-point tensors of one dtype, got x torch\.float64"
    ):
        linear_backward(linear(x, weight).float(), x, weight)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="fan_in must be at least 1, got 0"):
        init_std(0, 3, "xavier")
    with pytest.raises(ValueError, match="scheme must be one of"):
        init_std(2, 3, "he")
    with pytest.raises(ValueError, match="gain must be positive and finite"):
        init_std(2, 3, "torch", 0.0)
    with pytest.raises(ValueError, match="std must be at least 0 and finite"):
        uniform_bound(-1.0)
    with pytest.raises(ValueError, match="name must be one of"):
        activation_gain("softmax")
    with pytest.raises(ValueError, match=r"a must be in \[-1e150, 1e150\], got nan"):
        activation_gain("leaky_relu", math.nan)
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        linear_flops(0, 2, 3)
    with pytest.raises(
        ValueError, match=r"convention must be one of \['mac2', 'exact'\], got 'mac'"
    ):
        linear_flops(1, 2, 3, convention="mac")
    with pytest.raises(ValueError, match="init must be one of .* got 'he'"):
        Linear(2, 3, init="he")
    with pytest.raises(ValueError, match="in_features must be at least 1, got 0"):
        Linear(0, 3)


def test_printing_a_layer_shows_its_sizes_and_init():
    assert repr(Linear(2, 3)) == "Linear(in_features=2, out_features=3, bias=True, init='torch')"
