"""Softmax, log-sum-exp, their derivatives and the entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref._numeric import check_distribution
from llmref.functional.softmax import (
    entropy,
    log_softmax,
    logsumexp,
    softmax,
    softmax_jacobian,
    softmax_vjp,
)
from tests.tensors import close, random

INF = math.inf
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


vectors = st.lists(st.floats(-700, 700), min_size=1, max_size=6).map(
    lambda entries: torch.tensor(entries, dtype=torch.float64)
)
law = settings(deadline=None, max_examples=60)


def test_softmax_of_logarithms_is_their_share():
    """exp(0), exp(log 2), exp(log 5) = 1, 2, 5; the sum is 8."""
    x = torch.tensor([0.0, math.log(2), math.log(5)], dtype=torch.float64)
    close(softmax(x), torch.tensor([1, 2, 5], dtype=torch.float64) / 8)
    close(log_softmax(x), torch.tensor([1 / 8, 2 / 8, 5 / 8], dtype=torch.float64).log())
    close(logsumexp(x), torch.tensor(math.log(8), dtype=torch.float64))


def test_jacobian_of_a_quarter_and_three_quarters():
    """At p = (1/4, 3/4): p_1 (1 - p_1) = 3/16, -p_1 p_2 = -3/16."""
    p = torch.tensor([0.25, 0.75], dtype=torch.float64)
    close(softmax_jacobian(p), torch.tensor([[3, -3], [-3, 3]], dtype=torch.float64) / 16)


def test_vjp_subtracts_the_mean_under_p():
    """With g = (4, 0) the mean under p is 1, so (1/4 * 3, 3/4 * -1)."""
    p = torch.tensor([0.25, 0.75], dtype=torch.float64)
    grad = torch.tensor([4.0, 0.0], dtype=torch.float64)
    close(softmax_vjp(p, grad), torch.tensor([0.75, -0.75], dtype=torch.float64))


def test_entropy_of_a_half_and_two_quarters():
    """1/2 log 2 + 2 * 1/4 log 4 = 1.5 log 2."""
    p = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    close(entropy(p), torch.tensor(1.5 * math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("dim", [0, 1, 2, 3, 4, -1, -3])
def test_every_slice_equals_the_definition_written_as_a_loop(dim):
    x = random(2, 3, 5, 7, 4)
    rows = x.movedim(dim, -1)
    expected = torch.empty_like(rows)
    totals = torch.empty(rows.shape[:-1], dtype=torch.float64)
    for index in torch.cartesian_prod(*[torch.arange(size) for size in rows.shape[:-1]]).tolist():
        exponentials = [math.exp(value) for value in rows[tuple(index)].tolist()]
        expected[tuple(index)] = torch.tensor(exponentials, dtype=torch.float64) / sum(exponentials)
        totals[tuple(index)] = math.log(sum(exponentials))
    expected = expected.movedim(-1, dim)
    close(softmax(x, dim), expected)
    close(log_softmax(x, dim), expected.log())
    close(logsumexp(x, dim), totals)
    close(logsumexp(x, dim, keepdim=True), totals.unsqueeze(dim))
    close(entropy(softmax(x, dim), dim), -(expected * expected.log()).sum(dim))


@given(vectors, st.floats(-1e3, 1e3))
@law
def test_adding_a_constant_changes_nothing_but_the_lse(x, constant):
    close(softmax(x + constant), softmax(x), atol=1e-11)
    close(logsumexp(x + constant), logsumexp(x) + constant, atol=1e-11)


@given(vectors)
@law
def test_probabilities_are_nonnegative_and_sum_to_one(x):
    p = softmax(x)
    assert (p >= 0).all()
    close(p.sum(), torch.ones((), dtype=torch.float64))
    close(log_softmax(x).exp(), p)


@given(vectors)
@law
def test_lse_lies_between_the_max_and_the_max_plus_log_n(x):
    gap = logsumexp(x) - x.max()
    ties = (x == x.max()).sum().item()
    assert math.log(ties) - 1e-12 <= gap <= math.log(len(x)) + 1e-12


@given(vectors)
@law
def test_entropy_is_lse_minus_mean_score(x):
    p = softmax(x)
    close(entropy(p), logsumexp(x) - p @ x, atol=1e-10)
    assert -1e-12 <= entropy(p) <= math.log(len(x)) + 1e-12


@given(vectors)
@law
def test_jacobian_norm_is_at_most_one_half(x):
    p = softmax(x)
    norm = torch.linalg.matrix_norm(softmax_jacobian(p), ord=2)
    assert (p * (1 - p)).max() - 1e-12 <= norm
    assert norm <= min(0.5, 2 * (p * (1 - p)).max()) + 1e-12


def test_scaling_the_scores_does_change_the_probabilities():
    x = random(3)
    assert (softmax(2 * x) - softmax(x)).abs().max() > 0.01


@pytest.mark.parametrize("constant", [-1e4, 0.0, 1e4])
def test_large_scores_neither_overflow_nor_vanish(constant):
    """Without subtracting the max, exp(1000) is infinite and inf / inf is NaN."""
    x = torch.tensor([1000.0, 1001.0, -1000.0]) + constant
    e = math.e
    close(softmax(x), torch.tensor([1 / (1 + e), e / (1 + e), 0.0]), atol=1e-6)
    assert log_softmax(x).isfinite().all()
    close(logsumexp(x), x[1] + math.log1p(1 / e), atol=1e-3)


def test_each_slice_subtracts_its_own_max():
    """With the maximum of the whole tensor, the row at -2000 underflows to 0 / 0."""
    x = torch.tensor([[0.0, 0.0], [-2000.0, -2000.0]])
    close(softmax(x), torch.full((2, 2), 0.5))
    close(log_softmax(x), torch.full((2, 2), -math.log(2)), atol=1e-6)
    close(logsumexp(x), torch.tensor([math.log(2), math.log(2) - 2000]), atol=1e-6)


def test_log_softmax_is_finite_where_the_probability_underflows():
    x = torch.tensor([0.0, -200.0])
    assert softmax(x)[1] == 0
    assert softmax(x).log()[1] == -INF
    assert log_softmax(x)[1] == -200


def test_log_softmax_rounds_at_the_size_of_the_differences():
    """At 1e4 a float32 has steps of 1e-3; x - logsumexp(x) would be wrong by up to half of that."""
    x = torch.tensor([1e4, 1e4])
    close(log_softmax(x), torch.full((2,), -math.log(2)), atol=1e-7)
    assert ((x - logsumexp(x)) + math.log(2)).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [10, 14, 20, 40, 80])
def test_the_loss_of_a_confident_model_keeps_its_digits(dtype, gap):
    """-log p = log1p(exp(-gap)); in float32, 1 + exp(-20) rounds to 1, and its logarithm to 0."""
    x = torch.tensor([-gap, 0.0], dtype=dtype)
    exact = math.log1p(math.exp(-gap))
    tolerance = 4 * torch.finfo(dtype).eps
    assert abs(-log_softmax(x)[1].item() / exact - 1) < tolerance
    assert abs(logsumexp(x).item() / exact - 1) < tolerance


def test_the_logarithm_without_its_one_has_the_gradient_of_the_whole():
    """At ties the 1 is taken from the first; no entry loses its part of the gradient."""
    x = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(logsumexp(x).sum(), x)
    close(grad, softmax(x.detach()))
    (grad,) = torch.autograd.grad(log_softmax(x)[:, 0].sum(), x)
    close(grad, torch.eye(3, dtype=torch.float64)[0] - softmax(x.detach()))


def test_the_jacobian_keeps_its_digits_near_one():
    """With p = 1 - 2^-40, p (1 - p) = 2^-40 - 2^-80; p - p^2 rounds at 2^-53."""
    tail = 2.0**-40
    J = softmax_jacobian(torch.tensor([1 - tail, tail], dtype=torch.float64))
    exact = tail - tail**2
    close(J / exact, torch.tensor([[1, -1], [-1, 1]], dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [50, 32000, 128256])
def test_a_softmax_in_half_precision_is_taken_for_a_distribution(dtype, size):
    """1/128256 is subnormal in float16: the entries sum to 1.00145."""
    p = softmax(torch.zeros(size, dtype=dtype))
    assert abs(entropy(p).item() / math.log(size) - 1) < 0.01
    check_distribution(softmax(random(size)).to(dtype))


def test_half_precision_does_not_excuse_another_sum():
    with pytest.raises(ValueError, match=r"sum to 1 along dim -1, got a sum of 1\.25"):
        check_distribution(torch.full((128,), 1.25 / 128, dtype=torch.float16))


def test_masked_entries_have_probability_zero_and_gradient_zero():
    x = torch.tensor([0.5, -INF, 1.5], dtype=torch.float64, requires_grad=True)
    p = softmax(x)
    assert p[1] == 0
    (grad,) = torch.autograd.grad(p[0], x)
    assert grad[1] == 0
    assert grad.isfinite().all()
    close(p[[0, 2]], softmax(x[[0, 2]]))


def test_one_entry_gets_all_the_mass():
    x = torch.tensor([-3.0])
    assert softmax(x) == 1
    assert log_softmax(x) == 0
    assert logsumexp(x) == -3
    assert softmax_jacobian(softmax(x)) == 0
    assert entropy(softmax(x)) == 0


def test_lse_of_an_empty_sum_is_minus_infinity_with_zero_gradient():
    x = torch.full((2, 3), -INF, dtype=torch.float64, requires_grad=True)
    lse = logsumexp(x)
    assert (lse == -INF).all()
    assert (torch.autograd.grad(lse.sum(), x)[0] == 0).all()
    assert (logsumexp(torch.zeros(2, 0, 4), dim=1) == -INF).all()
    assert logsumexp(torch.zeros(2, 0), keepdim=True).shape == (2, 1)


def test_lse_with_an_infinite_score_is_infinite():
    assert logsumexp(torch.tensor([INF, 0.0])) == INF


@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_autograd_agrees_with_finite_differences(function):
    x = random(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: function(t, dim=1), x)
    assert torch.autograd.gradgradcheck(lambda t: function(t, dim=1), x)


def test_entropy_of_a_softmax_passes_gradcheck():
    x = random(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: entropy(softmax(t)), x)


def test_the_slope_of_the_entropy_is_minus_log_p_minus_1_and_0_at_0():
    p = torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(entropy(p), p)
    expected = [-math.log(0.75) - 1, -math.log(0.25) - 1, 0]
    close(grad, torch.tensor(expected, dtype=torch.float64))


def test_entropy_passes_back_a_finite_gradient_through_an_underflowed_entry():
    x = torch.tensor([0.0, 1.0, -1000.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(entropy(softmax(x)), x)
    assert grad.isfinite().all()
    assert grad[2] == 0


def test_jacobian_and_vjp_equal_autograd():
    x, grad = random(2, 3, 5), random(2, 3, 5, seed=1)
    p = softmax(x)
    jacobian = softmax_jacobian(p)
    for i in range(2):
        for j in range(3):
            close(jacobian[i, j], torch.autograd.functional.jacobian(softmax, x[i, j]))
    close(softmax_vjp(p, grad), (jacobian @ grad.unsqueeze(-1)).squeeze(-1))


def test_vjp_is_not_the_diagonal_alone():
    """The common mistake p (1 - p) g differs as soon as the gradient is not a unit vector."""
    p = softmax(random(5))
    grad = torch.ones(5, dtype=torch.float64)
    close(softmax_vjp(p, grad), torch.zeros(5, dtype=torch.float64))
    assert (p * (1 - p) * grad).abs().max() > 0.01


def test_jacobian_is_symmetric_psd_with_the_constants_as_kernel():
    jacobian = softmax_jacobian(softmax(random(7)))
    close(jacobian, jacobian.T)
    eigenvalues = torch.linalg.eigvalsh(jacobian)
    assert eigenvalues[0].abs() < 1e-14
    assert eigenvalues[1] > 1e-4
    close(jacobian.sum(-1), torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_kept_and_rounded_once(dtype):
    x = (3 * random(3, 40)).to(dtype)
    reference = x.double()
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, torch.finfo(dtype).eps)
    p = softmax(x)
    for actual, expected in [
        (p, softmax(reference)),
        (log_softmax(x), log_softmax(reference)),
        (logsumexp(x), logsumexp(reference)),
        (entropy(p), entropy(p.double() / p.double().sum(-1, keepdim=True))),
        (
            softmax_jacobian(p),
            torch.diag_embed(p.double()) - p.double()[..., None] * p.double()[..., None, :],
        ),
        (
            softmax_vjp(p, x),
            p.double() * (reference - (p.double() * reference).sum(-1, keepdim=True)),
        ),
    ]:
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_half_precision_is_rounded_only_at_the_end(function):
    """Exponentials or sums kept in bfloat16 change a quarter of the results or more."""
    x = random(500, 40).bfloat16()
    assert (function(x) == function(x.double()).bfloat16()).double().mean() > 0.99


def test_thousands_of_half_precision_scores_are_added_in_float32():
    """4096 equal scores: a running sum in bfloat16 stalls at 256, which would give 1/256."""
    x = torch.zeros(4096, dtype=torch.bfloat16)
    assert softmax(x)[0].item() == 1 / 4096
    assert abs(logsumexp(x).item() - math.log(4096)) < 0.03


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("bad", [-INF, INF, math.nan])
def test_a_slice_without_finite_maximum_is_refused(function, bad):
    x = torch.zeros(2, 3)
    x[1] = bad
    with pytest.raises(ValueError, match=rf"needs a finite maximum, got {bad} in the slice .*1, 0"):
        function(x)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_an_axis_without_entries_is_refused(function):
    with pytest.raises(ValueError, match=r"along dim -1 of a tensor \(2, 0\): no entries"):
        function(torch.zeros(2, 0))


def test_lse_refuses_nan():
    with pytest.raises(ValueError, match=r"\(2,\) that holds NaN"):
        logsumexp(torch.tensor([math.nan, 0.0]))


@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp, entropy, softmax_jacobian])
def test_integers_are_refused(function):
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        function(torch.tensor([0, 1]))


@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp, entropy, softmax_jacobian])
def test_float8_is_refused_by_name(function):
    with pytest.raises(TypeError, match=r"must have 16 bits at least, got torch\.float8_e4m3fn"):
        function(torch.zeros(3).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp, entropy])
def test_a_dim_that_is_no_axis_is_refused_by_name(function):
    with pytest.raises(ValueError, match=r"dim must be an axis of . \(2, 3\), in \[-2, 2\), got 2"):
        function(torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match=r"dim must be an axis of . \(\), which has none, got -1"):
        function(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"dim must be an int, got 0\.5"):
        function(torch.ones(2, 3), 0.5)


@pytest.mark.parametrize("function", [entropy, softmax_jacobian, check_distribution])
def test_logits_are_not_taken_for_probabilities(function):
    with pytest.raises(ValueError, match=r"p must hold probabilities >= 0, got -1"):
        function(torch.tensor([2.0, -1.0]))
    with pytest.raises(ValueError, match=r"must sum to 1 along dim -1, got a sum of 1.5"):
        function(torch.tensor([[0.5, 0.5], [1.0, 0.5]]))
    with pytest.raises(ValueError, match="probabilities >= 0, got nan"):
        function(torch.tensor([math.nan, 1.0]))


def test_a_row_of_zeros_is_not_a_distribution():
    with pytest.raises(ValueError, match="got a sum of 0"):
        softmax_jacobian(torch.zeros(3))


def test_the_sum_is_taken_along_the_named_axis():
    p = softmax(random(2, 3), dim=0)
    check_distribution(p, dim=0)
    with pytest.raises(ValueError, match="along dim 1"):
        check_distribution(p, dim=1)


def test_vjp_refuses_another_shape():
    with pytest.raises(
        ValueError, match=r"grad must be \(\.\.\.\) = \(2,\) beside p \(2,\), got \(3,\)"
    ):
        softmax_vjp(torch.tensor([0.5, 0.5]), torch.zeros(3))
    with pytest.raises(ValueError, match="must sum to 1"):
        softmax_vjp(torch.tensor([0.5, 0.6]), torch.zeros(2))
    with pytest.raises(TypeError, match=r"grad must be floating point, got torch\.complex64"):
        softmax_vjp(torch.tensor([0.5, 0.5]), torch.zeros(2, dtype=torch.complex64))
