"""Checks in floating point: what passes, and each way to be refused."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from llmref import verify

NOTE = "a few numbers worked by hand"

nan, inf = math.nan, math.inf


def test_numeric_reports_the_largest_error() -> None:
    check = verify.numeric(
        "num-close",
        [1.0, 2.0],
        [1.0, 2.0 + 1e-9],
        atol=1e-8,
        wrong={"swapped": [2.0, 1.0]},
        note=NOTE,
    )
    assert check.figure == "largest error 1e-09, allowed 1e-08 over 2 values"
    assert check.rejected == {"swapped": "largest error 1"}


def test_numeric_fails_on_one_bad_entry() -> None:
    with pytest.raises(verify.CheckFailedError, match="num-bad: largest error 0.1, allowed 0.01"):
        verify.numeric(
            "num-bad", [1.0, 2.1], [1.0, 2.0], atol=1e-2, wrong={"w": [0.0, 0.0]}, note=NOTE
        )


@pytest.mark.parametrize(("actual", "expected"), [([nan], [1.0]), ([1.0], [nan]), ([nan], [nan])])
def test_numeric_refuses_a_nan_on_either_side(actual: list[float], expected: list[float]) -> None:
    with pytest.raises(verify.NotANumberError, match="num-nan: one side holds a NaN"):
        verify.numeric("num-nan", actual, expected, atol=1.0, wrong={"w": [9.0]}, note=NOTE)


def test_equal_infinities_are_equal_and_others_are_not() -> None:
    verify.numeric(
        "num-inf", [inf, -inf], [inf, -inf], atol=0.0, wrong={"sign": [-inf, inf]}, note=NOTE
    )
    with pytest.raises(verify.CheckFailedError, match="num-inf: largest error inf"):
        verify.numeric("num-inf", [inf], [1e300], atol=1.0, wrong={"w": [0.0]}, note=NOTE)


def test_nothing_is_broadcast() -> None:
    with pytest.raises(verify.ShapeMismatchError, match=r"num-shape: shapes \(3,\) and \(2, 3\)"):
        verify.numeric(
            "num-shape",
            torch.ones(3),
            torch.ones(2, 3),
            atol=1.0,
            wrong={"w": torch.zeros(2, 3)},
            note=NOTE,
        )
    with pytest.raises(verify.ShapeMismatchError, match="num-shape"):
        verify.numeric(
            "num-shape", torch.ones(3), torch.ones(3), atol=0.1, wrong={"w": 0.0}, note=NOTE
        )


def test_empty_tensors_prove_nothing() -> None:
    with pytest.raises(verify.CheckFailedError, match="num-empty: nothing was compared"):
        verify.numeric(
            "num-empty",
            torch.ones(0),
            torch.ones(0),
            atol=1.0,
            wrong={"w": torch.ones(0)},
            note=NOTE,
        )


@pytest.mark.parametrize("atol", [nan, inf, -1.0])
def test_a_tolerance_that_accepts_everything_is_refused(atol: float) -> None:
    with pytest.raises(
        verify.VerificationError, match="num-tolerance: the tolerance must be finite"
    ):
        verify.numeric("num-tolerance", [1.0], [1.0], atol=atol, wrong={"w": [2.0]}, note=NOTE)


def test_a_wrong_variant_within_the_tolerance_is_an_error() -> None:
    with pytest.raises(
        verify.WrongVariantPassedError, match="num-loose: the wrong variant 'half' passes"
    ):
        verify.numeric("num-loose", [1.0], [1.0], atol=0.6, wrong={"half": [0.5]}, note=NOTE)


x = torch.ones(2, dtype=torch.float64)
half_nan = torch.tensor([1.0, nan], dtype=torch.float64)
other_nan = torch.tensor([9.0, nan], dtype=torch.float64)
NAN_KINDS = {
    "numeric": lambda wrong, **o: verify.numeric("nan-kind", x, x, atol=0.1, wrong=wrong, **o),
    "monte_carlo": lambda wrong, **o: verify.monte_carlo(
        "nan-kind", x.expand(30, 2), x, wrong=wrong, **o
    ),
    "gradient": lambda wrong, **o: verify.gradient(
        "nan-kind", lambda x: x.sum(), x, x, wrong=wrong, **o
    ),
    "bound": lambda wrong, **o: verify.bound("nan-kind", x, x, wrong=wrong, **o),
}


def values_for(kind: str, sides: Tensor) -> Tensor:
    return 2 - sides if kind == "bound" else sides  # a smaller upper bound is the wrong one


@pytest.mark.parametrize("kind", NAN_KINDS)
def test_a_mistake_that_is_nothing_but_a_nan_is_refused(kind: str) -> None:
    match = "nan-kind: the wrong variant 'w' is not a number; a NaN is no mistake"
    for variant in (half_nan, torch.full((2,), nan, dtype=torch.float64)):
        with pytest.raises(verify.NanOnlyError, match=match):
            NAN_KINDS[kind]({"w": values_for(kind, variant)}, note=NOTE)


@pytest.mark.parametrize("kind", NAN_KINDS)
def test_a_nan_rejects_where_the_author_says_that_it_is_the_point(kind: str) -> None:
    wrong = {"w": values_for(kind, half_nan)}
    number = {"v": values_for(kind, 9 * x)}
    check = NAN_KINDS[kind](wrong | number, nan={"w"}, note=NOTE)
    assert check.rejected["w"] == "not a number"
    with pytest.raises(verify.NanOnlyError, match="give a wrong variant with numbers too"):
        NAN_KINDS[kind](wrong, nan={"w"}, note=NOTE)


@pytest.mark.parametrize("kind", NAN_KINDS)
def test_a_nan_beside_a_wrong_number_does_not_matter(kind: str) -> None:
    wrong = {"w": values_for(kind, other_nan)}
    (seen,) = NAN_KINDS[kind](wrong, note=NOTE).rejected.values()
    assert seen in ("largest error 8", "z = inf", "violated 1 times, by 8")
    with pytest.raises(verify.NanOnlyError, match="take 'w' out of nan: it gives numbers"):
        NAN_KINDS[kind](wrong, nan={"w"}, note=NOTE)


@pytest.mark.parametrize("kind", NAN_KINDS)
def test_nan_names_wrong_variants_only(kind: str) -> None:
    with pytest.raises(verify.NanOnlyError, match="nan names no wrong variant: v"):
        NAN_KINDS[kind]({"w": values_for(kind, 9 * x)}, nan=["v", "w"], note=NOTE)


def test_a_claim_with_a_nan_is_refused_whatever_its_numbers_say() -> None:
    for claim, error in ((half_nan, verify.NotANumberError), (other_nan, verify.CheckFailedError)):
        with pytest.raises(error, match="num-claim"):
            verify.numeric("num-claim", claim, x, atol=0.1, wrong={"w": 9 * x}, note=NOTE)
        with pytest.raises(error, match="num-claim"):
            verify.bound("num-claim", claim, x, wrong={"w": 0 * x}, note=NOTE)
    attained = (half_nan, x)
    with pytest.raises(verify.NotANumberError, match="num-claim"):
        verify.bound("num-claim", x, x, attained=attained, wrong={"w": 0 * x}, note=NOTE)


def test_samples_without_a_finite_mean_are_no_numbers() -> None:
    """(inf - 1) / NaN: the spread of an infinite sample does not exist."""
    samples = torch.tensor([inf, *[1.0] * 29])
    with pytest.raises(verify.NotANumberError, match="mc-inf: .* no number"):
        verify.monte_carlo("mc-inf", samples, 1.0, wrong={"w": 9.0}, note=NOTE)


def test_complex_values_are_compared_in_both_parts() -> None:
    value = torch.tensor([1 + 2j], dtype=torch.complex128)
    verify.numeric(
        "num-complex",
        value,
        value.clone(),
        atol=0.0,
        wrong={"conjugate": value.conj().resolve_conj()},
        note=NOTE,
    )


def test_nothing_is_coerced_into_a_real_number() -> None:
    with pytest.raises(verify.CheckFailedError, match="num-imaginary: largest error 5"):
        verify.numeric("num-imaginary", np.array([1 + 5j]), [1.0], atol=0.0, wrong={"w": [2.0]})
    large = torch.tensor([2**53 + 1])
    with pytest.raises(TypeError, match="integers beyond 2\\^53 .* verify.exact"):
        verify.numeric("num-large", large, large - 1, atol=0.0, wrong={"w": [2.0]}, note=NOTE)
    with pytest.raises(TypeError, match="integers beyond 2\\^53"):
        verify.numeric("num-large", [2**53 + 1], [1], atol=0.0, wrong={"w": [2]}, note=NOTE)


def test_monte_carlo_reports_the_z_score() -> None:
    """25 times 1 and 25 times 3: variance 50 / 49, standard error 1 / 7, so 2.5 is z = 3.5 away."""
    samples = torch.tensor([1.0, 3.0]).repeat(25)
    check = verify.monte_carlo("mc-mean", samples, 2.5, wrong={"far": 12.0}, note=NOTE)
    assert check.figure == "z = 3.50, allowed 4, over 50 samples"
    assert check.rejected == {"far": "z = 70.00"}


def test_a_known_variance_replaces_that_of_the_samples() -> None:
    """The variance 0.5 of each of 50 samples: standard error 0.1."""
    samples = torch.tensor([1.0, 3.0]).repeat(25)
    wrong = {"far": 2.5, "biased": samples + 1}
    check = verify.monte_carlo("mc-known", samples, 2.1, wrong=wrong, variance=0.5, note=NOTE)
    assert check.figure == "z = 1.00, allowed 4, over 50 samples, by the known variance"
    assert check.rejected == {"far": "z = 5.00", "biased": "z = 9.00"}
    for variance in (-1.0, nan, inf):
        with pytest.raises(verify.TooFewSamplesError, match="mc-known: the variance must be"):
            verify.monte_carlo("mc-known", samples, 2.1, wrong=wrong, variance=variance, note=NOTE)


def drawn(kind: str, seed: int, count: int = 20_000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator=generator, dtype=torch.float64)
    if kind == "Cauchy":
        return z / torch.randn(count, generator=generator, dtype=torch.float64)
    if kind == "weights of N(0, 0.1) against N(0, 1)":
        return 0.1 * torch.exp(z**2 * (1 - 0.01) / 2)
    return torch.exp(5 * z)


@pytest.mark.parametrize(
    "kind", ["Cauchy", "weights of N(0, 0.1) against N(0, 1)", "exp(5 normal)"]
)
def test_samples_of_heavy_tails_show_nothing(kind: str) -> None:
    for seed in range(50):
        samples = drawn(kind, seed)
        with pytest.raises(verify.TooFewSamplesError, match="of 20000 samples carry the sum"):
            verify.monte_carlo(
                "mc-heavy", samples, samples.mean(), wrong={"far": samples + 1e9}, note=NOTE
            )


def test_rare_events_show_themselves_once_there_are_enough() -> None:
    """Of 40 events among 10000 draws all 40 carry the sum of squares, of 10 only these."""
    for events, passes in ((40, True), (10, False)):
        samples = (torch.arange(10_000) < events).double()
        if passes:
            verify.monte_carlo("mc-rare", samples, 0.004, wrong={"w": 0.01}, note=NOTE)
            continue
        with pytest.raises(verify.TooFewSamplesError, match=r"10\.0 of 10000 samples"):
            verify.monte_carlo("mc-rare", samples, 0.001, wrong={"w": 0.01}, note=NOTE)


def test_monte_carlo_takes_wrong_samples_and_wrong_values() -> None:
    samples = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    check = verify.monte_carlo(
        "mc-both",
        samples,
        torch.zeros(3),
        wrong={"biased": samples + 1, "value": torch.ones(3)},
        note=NOTE,
    )
    assert len(check.rejected) == 2


def test_monte_carlo_fails_far_from_the_mean() -> None:
    samples = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    with pytest.raises(verify.CheckFailedError, match="mc-far: z = .* allowed 4"):
        verify.monte_carlo("mc-far", samples, 1.0, wrong={"w": 9.0}, note=NOTE)


def test_constant_samples_must_be_exact() -> None:
    verify.monte_carlo("mc-constant", torch.ones(30), 1.0, wrong={"other": 1.1}, note=NOTE)
    with pytest.raises(verify.CheckFailedError, match="mc-constant: z = inf"):
        verify.monte_carlo("mc-constant", torch.ones(30), 1.5, wrong={"w": 9.0}, note=NOTE)


def test_monte_carlo_refuses_nan_shape_and_few_samples() -> None:
    samples = torch.tensor([nan, *[1.0] * 29])
    with pytest.raises(verify.NotANumberError, match="mc-nan"):
        verify.monte_carlo("mc-nan", samples, 1.0, wrong={"w": 9.0}, note=NOTE)
    with pytest.raises(verify.ShapeMismatchError, match="mc-shape"):
        verify.monte_carlo(
            "mc-shape", torch.ones(30, 2), torch.ones(3), wrong={"w": torch.ones(3)}, note=NOTE
        )
    for few in (torch.tensor(1.0), torch.ones(29)):
        with pytest.raises(verify.TooFewSamplesError, match="need at least 30 samples"):
            verify.monte_carlo("mc-few", few, 1.0, wrong={"w": 9.0}, note=NOTE)


def cube(x: Tensor) -> Tensor:
    return (x**3).sum()


def test_gradient_compares_with_autograd_and_finite_differences() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    check = verify.gradient(
        "grad-cube",
        cube,
        x,
        lambda x: 3 * x**2,
        wrong={"power": 2 * x**2, "factor": x**2},
        note=NOTE,
    )
    assert check.cases == 2
    assert "gradcheck passes" in check.figure


def test_gradient_takes_several_inputs() -> None:
    x, y = torch.rand(2, 3, dtype=torch.float64).unbind()
    verify.gradient(
        "grad-product",
        lambda x, y: (x * y).sum(),
        (x, y),
        (y, x),
        wrong={"swapped": (x, y)},
        note=NOTE,
    )
    with pytest.raises(verify.ShapeMismatchError, match="grad-product: 1 gradients for 2 inputs"):
        verify.gradient(
            "grad-product", lambda x, y: (x * y).sum(), (x, y), y, wrong={"w": (x, y)}, note=NOTE
        )


def test_gradient_fails_when_the_derivation_is_wrong() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with pytest.raises(
        verify.CheckFailedError, match="grad-wrong: largest error 8 against autograd"
    ):
        verify.gradient("grad-wrong", cube, x, x**2, wrong={"w": x}, note=NOTE)


class HalfBackward(torch.autograd.Function):
    """x^2 with half its gradient: autograd is wrong, and only finite differences can tell."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x**2).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x


def test_gradient_fails_when_autograd_itself_is_wrong() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with pytest.raises(verify.CheckFailedError, match="grad-backward: .* finite differences"):
        verify.gradient(
            "grad-backward", HalfBackward.apply, x, lambda x: x, wrong={"w": 5 * x}, note=NOTE
        )


def test_finite_differences_resolve_a_small_gradient() -> None:
    """Near the minimum of x^2, at 1e-5: a detached factor gives 0 or half the gradient."""
    near = torch.tensor([1e-5, -2e-5], dtype=torch.float64)
    for detached in (
        lambda x: (x.detach() ** 2).sum() + 0 * x.sum(),
        lambda x: (x.detach() * x).sum(),
    ):
        leaf = near.clone().requires_grad_()
        (wrong,) = torch.autograd.grad(detached(leaf), leaf)
        with pytest.raises(verify.CheckFailedError, match="grad-small: .* finite differences"):
            verify.gradient("grad-small", detached, near, wrong, wrong={"w": 2 * near}, note=NOTE)
    verify.gradient(
        "grad-small", lambda x: (x**2).sum(), near, 2 * near, wrong={"w": near}, note=NOTE
    )


def test_an_error_of_a_thousandth_is_seen() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    stopped = lambda x: (x**2).sum() + 0.0009 * ((x.detach() ** 2).sum() - (x**2).sum())  # noqa: E731
    with pytest.raises(verify.CheckFailedError, match="grad-stop: .* finite differences"):
        verify.gradient("grad-stop", stopped, x, 2 * 0.9991 * x, wrong={"w": x}, note=NOTE)


def test_a_gradient_below_what_finite_differences_see_is_refused() -> None:
    x = torch.tensor([1e-9], dtype=torch.float64)
    with pytest.raises(verify.CheckFailedError, match="2e-09, is too small for finite"):
        verify.gradient(
            "grad-tiny", lambda x: (x**2).sum(), x, 2 * x, wrong={"w": 1 + x}, note=NOTE
        )
    verify.gradient("grad-zero", lambda x: 0 * x.sum(), x, 0 * x, wrong={"w": 1 + x}, note=NOTE)


def test_gradient_refuses_low_precision_and_vector_outputs() -> None:
    with pytest.raises(TypeError, match="grad-single: gradients are checked in float64"):
        verify.gradient(
            "grad-single",
            cube,
            torch.ones(2),
            torch.ones(2),
            wrong={"w": torch.zeros(2)},
            note=NOTE,
        )
    with pytest.raises(verify.ShapeMismatchError, match="must return a scalar"):
        verify.gradient(
            "grad-vector",
            lambda x: x**2,
            torch.ones(2, dtype=torch.float64),
            torch.ones(2),
            wrong={"w": torch.zeros(2)},
            note=NOTE,
        )


def test_bound_reports_violations_and_where_it_is_attained() -> None:
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)
    check = verify.bound(
        "bound-square",
        x**2,
        x.abs(),
        attained=([1.0], [1.0]),
        wrong={"too sharp": x.abs() / 2, "pair": (x.abs(), x**2)},
        note=NOTE,
    )
    assert check.cases == 11
    assert "attained within 0" in check.figure
    assert check.rejected["too sharp"].startswith("violated 6 times")


def test_a_tuple_of_two_numbers_is_an_upper_side_if_there_are_two_entries() -> None:
    lower, upper = [0.0, 0.0], [1.0, 1.0]
    with pytest.raises(verify.WrongVariantPassedError):
        verify.bound("bound-tuple", lower, upper, wrong={"larger": (3.0, 2.0)}, note=NOTE)
    wrong = {"swapped": (upper, lower), "sharper": (0.5, -0.5), "two lists": ([0.5], [0.0])}
    assert len(verify.bound("bound-tuple", lower, upper, wrong=wrong, note=NOTE).rejected) == 3


def test_bound_fails_on_one_violation() -> None:
    with pytest.raises(verify.CheckFailedError, match="bound-one: violated 1 times, by 0.5"):
        verify.bound("bound-one", [0.0, 1.5], [1.0, 1.0], wrong={"w": [-1.0, -1.0]}, note=NOTE)


def test_bound_fails_where_it_is_not_attained() -> None:
    with pytest.raises(verify.CheckFailedError, match="bound-attained: not attained: .* 0.5 apart"):
        verify.bound(
            "bound-attained", [0.0], [1.0], attained=([0.5], [1.0]), wrong={"w": [-1.0]}, note=NOTE
        )


def test_bound_treats_equal_infinities_as_equal_and_refuses_nan() -> None:
    verify.bound("bound-inf", [-inf, inf], [0.0, inf], wrong={"w": [-1.0, 1.0]}, note=NOTE)
    with pytest.raises(verify.NotANumberError, match="bound-nan"):
        verify.bound("bound-nan", [nan], [1.0], wrong={"w": [-1.0]}, note=NOTE)


def test_every_kind_needs_a_wrong_variant() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.numeric("kind-numeric", x, x, atol=0.0, wrong={}, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.monte_carlo("kind-mc", x.repeat(15), 1.0, wrong={}, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.gradient("kind-gradient", cube, x, 3 * x**2, wrong={}, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.bound("kind-bound", x, x, wrong={}, note=NOTE)
