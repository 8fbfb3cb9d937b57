"""Checks in floating point: what passes, and each way to be refused."""

import math

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
        "nan-kind", x.view(2, 1).expand(2, 2), x, wrong=wrong, **o
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
    check = NAN_KINDS[kind]({"w": values_for(kind, half_nan)}, nan={"w"}, note=NOTE)
    assert check.rejected == {"w": "not a number"}


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
    with pytest.raises(verify.NotANumberError, match="mc-inf: .* no number"):
        verify.monte_carlo("mc-inf", torch.tensor([inf, 1.0]), 1.0, wrong={"w": 9.0}, note=NOTE)


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


def test_monte_carlo_reports_the_z_score() -> None:
    """Samples 1, 3 have mean 2, std sqrt 2 and standard error 1, so 2.5 is z = 0.5 away."""
    check = verify.monte_carlo(
        "mc-mean", torch.tensor([1.0, 3.0]), 2.5, wrong={"far": 12.0}, note=NOTE
    )
    assert check.figure == "z = 0.50, allowed 4, over 2 samples"
    assert check.rejected == {"far": "z = 10.00"}


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
    verify.monte_carlo("mc-constant", torch.ones(5), 1.0, wrong={"other": 1.1}, note=NOTE)
    with pytest.raises(verify.CheckFailedError, match="mc-constant: z = inf"):
        verify.monte_carlo("mc-constant", torch.ones(5), 1.5, wrong={"w": 9.0}, note=NOTE)


def test_monte_carlo_refuses_nan_shape_and_single_samples() -> None:
    with pytest.raises(verify.NotANumberError, match="mc-nan"):
        verify.monte_carlo("mc-nan", torch.tensor([1.0, nan]), 1.0, wrong={"w": 9.0}, note=NOTE)
    with pytest.raises(verify.ShapeMismatchError, match="mc-shape"):
        verify.monte_carlo(
            "mc-shape", torch.ones(5, 2), torch.ones(3), wrong={"w": torch.ones(3)}, note=NOTE
        )
    with pytest.raises(verify.ShapeMismatchError, match="need at least 2 samples"):
        verify.monte_carlo("mc-one", torch.ones(1), 1.0, wrong={"w": 9.0}, note=NOTE)


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
        verify.monte_carlo("kind-mc", x, 1.0, wrong={}, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.gradient("kind-gradient", cube, x, 3 * x**2, wrong={}, note=NOTE)
    with pytest.raises(verify.MissingWrongVariantError):
        verify.bound("kind-bound", x, x, wrong={}, note=NOTE)
