"""Checks in floating point: values, sample means, gradients and inequalities.

What differs in a number is judged by that number. A NaN where all numbers agree is no answer: it
refuses the claim, and it rejects a wrong variant only if the author lists it in `nan`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmref.verify.check import Check, passed, reject_all, require_known, require_tolerance
from llmref.verify.errors import (
    CheckFailedError,
    NotANumberError,
    ShapeMismatchError,
    TooFewSamplesError,
)

_FEWEST_SAMPLES = 30
_FEWEST_CARRIERS = 20  # then the standard error is known to about a tenth
_LARGEST_INTEGER = 2**53
_RESOLVED = 1e-8  # of a gradient, by finite differences with steps of 1e-5 in float64


def numeric(
    result: str,
    actual: Any,
    expected: Any,
    *,
    atol: float,
    wrong: Mapping[str, Any],
    nan: Collection[str] = (),
    note: str = "",
) -> Check:
    """Check that `actual` equals `expected` within `atol`, entry by entry.

    Arguments: tensors, numbers or nested sequences of numbers, of one shape; equal infinities are
    equal. Each `wrong` variant replaces `actual`; `nan` names those that only a NaN gives away.
    Raises: CheckFailedError, NotANumberError, NanOnlyError, ShapeMismatchError,
    MissingWrongVariantError, WrongVariantPassedError, MissingScopeError, ResultIdError.
    """
    require_known(result)
    require_tolerance(result, atol)
    target = _as_tensor(expected)

    def compare(candidate: Any) -> tuple[bool, str]:
        error = _largest_error(result, [(_as_tensor(candidate), target)], atol)
        return error <= atol, f"largest error {error:.2g}"

    holds, seen = compare(actual)
    if not holds:
        raise CheckFailedError(result, f"{seen}, allowed {atol:.2g}")
    rejected = reject_all(result, wrong, compare, nan)
    figure = f"{seen}, allowed {atol:.2g}{_over(target.numel(), 'value')}"
    return passed(result, "numeric", figure, target.numel(), rejected, note)


def monte_carlo(
    result: str,
    samples: Tensor,
    expected: Any,
    *,
    wrong: Mapping[str, Any],
    sigmas: float = 4.0,
    variance: Any = None,
    nan: Collection[str] = (),
    note: str = "",
) -> Check:
    """Check that the mean of `samples` over its first axis agrees with `expected`.

    Shapes: samples (N, ...), expected (...), N >= 30 independent draws.
    The z-score is |mean - expected| / (std / sqrt N), the largest over the entries. The spread is
    that of the samples, which assumes that they show it: they are refused if few of them carry
    their sum of squares, as those of a distribution with heavy tails do. `variance`, a known one
    of each entry or a bound on it (a number, or of the shape of `expected`), needs no such
    assumption. A `wrong` variant with the shape of `samples` replaces them (a mistaken estimator);
    any other replaces `expected` (a mistaken formula).
    Raises: as `numeric`; TooFewSamplesError.
    """
    require_known(result)
    require_tolerance(result, sigmas)
    drawn, target = _as_tensor(samples), _as_tensor(expected)
    if drawn.ndim == 0 or drawn.shape[0] < _FEWEST_SAMPLES:
        raise TooFewSamplesError(
            result, f"need at least {_FEWEST_SAMPLES} samples, got {tuple(drawn.shape)}"
        )
    known = None if variance is None else _as_tensor(variance).expand(target.shape)
    if known is not None and not ((known >= 0) & known.isfinite()).all():
        raise TooFewSamplesError(result, f"the variance must be finite and >= 0, got {variance}")

    def compare(rows: Tensor, mean: Tensor) -> tuple[bool, str]:
        if rows.shape[1:] != mean.shape:
            raise ShapeMismatchError(
                result, f"samples {tuple(rows.shape)} do not average to {tuple(mean.shape)}"
            )
        error = (rows.mean(dim=0) - mean).abs()
        spread = _require_spread(result, rows).sqrt() if known is None else known.sqrt()
        standard_error = spread / rows.shape[0] ** 0.5
        # Constant samples have no spread: their mean must then be exact.
        z = torch.where(error == 0, torch.zeros_like(error), error / standard_error)
        if z.isnan().any() and not (z > sigmas).any():
            raise NotANumberError(result, "a sample or the expected value is no number")
        largest = z[~z.isnan()].max().item()
        return largest <= sigmas, f"z = {largest:.2f}"

    def replace(variant: Any) -> tuple[bool, str]:
        variant = _as_tensor(variant)
        replaces_samples = variant.shape == drawn.shape
        return compare(variant, target) if replaces_samples else compare(drawn, variant)

    holds, seen = compare(drawn, target)
    if not holds:
        raise CheckFailedError(result, f"{seen}, allowed {sigmas:g}")
    rejected = reject_all(result, wrong, replace, nan)
    bounded = "" if known is None else ", by the known variance"
    figure = f"{seen}, allowed {sigmas:g}, over {drawn.shape[0]} samples{bounded}"
    return passed(result, "monte_carlo", figure, drawn.shape[0], rejected, note)


def gradient(
    result: str,
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    gradient: Any,
    *,
    wrong: Mapping[str, Any],
    atol: float = 1e-10,
    nan: Collection[str] = (),
    note: str = "",
) -> Check:
    """Check a hand-derived gradient against autograd, and autograd against finite differences.

    Finite differences see errors of 1e-5 of an entry, and of 1e-8; a gradient that is smaller than
    that, and not zero, is refused: they could not tell it from zero.

    Arguments: `function(*inputs)` returns a scalar; `inputs` are float64 tensors; `gradient` and
    each `wrong` variant are the gradients (one tensor, or one for each input), or a function of
    the inputs that returns them.
    Raises: as `numeric`; TypeError if an input is not float64; CheckFailedError if gradcheck fails
    or could not see the gradient.
    """
    require_known(result)
    require_tolerance(result, atol)
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if any(x.dtype != torch.float64 for x in given):
        raise TypeError(f"{result}: gradients are checked in float64")
    leaves = tuple(x.detach().clone().requires_grad_() for x in given)
    value = function(*leaves)
    if value.ndim:
        raise ShapeMismatchError(result, f"the function must return a scalar, got {value.shape}")
    target = torch.autograd.grad(value, leaves)

    def compare(candidate: Any) -> tuple[bool, str]:
        derived = candidate(*given) if callable(candidate) else candidate
        derived = (derived,) if isinstance(derived, Tensor) else tuple(derived)
        if len(derived) != len(target):
            raise ShapeMismatchError(result, f"{len(derived)} gradients for {len(target)} inputs")
        pairs = [(_as_tensor(a), b) for a, b in zip(derived, target, strict=True)]
        error = _largest_error(result, pairs, atol)
        return error <= atol, f"largest error {error:.2g}"

    holds, seen = compare(gradient)
    if not holds:
        raise CheckFailedError(result, f"{seen} against autograd, allowed {atol:.2g}")
    size = max((float(x.abs().max()) for x in target if x.numel()), default=0.0)
    if 0 < size <= 10 * _RESOLVED:
        raise CheckFailedError(
            result, f"the gradient, at most {size:.2g}, is too small for finite differences"
        )
    if not torch.autograd.gradcheck(
        function, leaves, eps=1e-5, atol=_RESOLVED, rtol=1e-5, raise_exception=False
    ):
        raise CheckFailedError(result, "autograd disagrees with finite differences (gradcheck)")
    rejected = reject_all(result, wrong, compare, nan)
    cases = sum(x.numel() for x in target)
    figure = f"{seen} against autograd, allowed {atol:.2g}{_over(cases, 'entry', 'entries')}"
    return passed(result, "gradient", f"{figure}; gradcheck passes", cases, rejected, note)


def bound(
    result: str,
    lower: Any,
    upper: Any,
    *,
    wrong: Mapping[str, Any],
    attained: tuple[Any, Any] | None = None,
    atol: float = 1e-12,
    nan: Collection[str] = (),
    note: str = "",
) -> Check:
    """Check `lower <= upper` on every sample and, where stated, that the two meet.

    Arguments: tensors of one shape; `attained` is a pair (lower, upper) at points of equality.
    Each `wrong` variant is a sharper, false `upper`, or a tuple (lower, upper); a tuple of two
    numbers is an upper side if `lower` has two entries. `atol` absorbs the rounding of the two
    sides.
    Raises: as `numeric`.
    """
    require_known(result)
    require_tolerance(result, atol)

    def compare(sides: Any) -> tuple[bool, str]:
        below, above = (_as_tensor(side) for side in _pair(sides))
        _require_comparable(result, below, above)
        excess = torch.where(below == above, torch.zeros_like(below), below - above)
        violations = int((excess > atol).sum())
        if excess.isnan().any() and not violations:
            raise NotANumberError(result, "one side holds a NaN")
        worst = excess[~excess.isnan()].max().item()
        gap = f"smallest gap {max(0.0, -worst):.2g}"
        return not violations, f"violated {violations} times, by {worst:.2g}" if violations else gap

    def _pair(sides: Any) -> tuple[Any, Any]:
        numbers = isinstance(sides, tuple) and all(_as_tensor(side).ndim == 0 for side in sides)
        if not isinstance(sides, tuple) or (numbers and _as_tensor(lower).shape == (2,)):
            return lower, sides
        below, above = sides
        return below, above

    holds, seen = compare((lower, upper))
    if not holds:
        raise CheckFailedError(result, seen)
    cases = _as_tensor(lower).numel()
    figure = f"no violation{_over(cases, 'sample')}, {seen}"
    if attained is not None:
        pair = (_as_tensor(attained[0]), _as_tensor(attained[1]))
        distance = _largest_error(result, [pair], atol)
        if distance > atol:
            raise CheckFailedError(result, f"not attained: the two sides are {distance:.2g} apart")
        figure += f", attained within {distance:.2g}"
    rejected = reject_all(result, wrong, compare, nan)
    return passed(result, "bound", figure, cases, rejected, note)


def _as_tensor(value: Any) -> Tensor:
    tensor: Tensor = torch.as_tensor(value).detach()
    if tensor.is_floating_point() and not hasattr(value, "dtype"):
        # By way of the default dtype a list has lost half its digits.
        return torch.as_tensor(value, dtype=torch.float64)
    if tensor.is_complex():
        return tensor
    wide = tensor.to(torch.float64)
    if not tensor.is_floating_point() and (wide.abs() >= _LARGEST_INTEGER).any():
        raise TypeError("integers beyond 2^53 have no float64 of their own; use verify.exact")
    return wide


def _require_spread(result: str, rows: Tensor) -> Tensor:
    """The variance of the samples, entry by entry, which must not be that of a few of them.

    (sum d^2)^2 / sum d^4 samples carry the sum of the squared distances d^2 from the mean, and
    1 / sqrt of their number is about the relative error of the variance.
    """
    squares = (rows - rows.mean(dim=0)).abs().square()
    total = squares.sum(dim=0)
    share = squares / total.where(total > 0, torch.ones_like(total))
    carried = 1 / share.square().sum(dim=0)  # infinite for samples that are all equal
    fewest = carried[~carried.isnan()].min() if not carried.isnan().all() else torch.inf
    if fewest < _FEWEST_CARRIERS:
        raise TooFewSamplesError(
            result,
            f"{float(fewest):.1f} of {rows.shape[0]} samples carry the sum of squares, at least "
            f"{_FEWEST_CARRIERS} must: draw more, or give variance=, a known one or a bound",
        )
    return total / (rows.shape[0] - 1)


def _require_comparable(result: str, a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ShapeMismatchError(result, f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    if a.numel() == 0:
        raise CheckFailedError(result, "nothing was compared: the tensors are empty")


def _largest_error(result: str, pairs: Sequence[tuple[Tensor, Tensor]], atol: float) -> float:
    """The largest error of the numbers; a NaN beside numbers that agree raises."""
    largest, holes = 0.0, False
    for a, b in pairs:
        _require_comparable(result, a, b)
        is_hole = a.isnan() | b.isnan()
        # inf - inf is NaN, and two equal infinities do not differ.
        error = (a - b).abs().masked_fill(is_hole | (a == b), 0.0)
        largest, holes = max(largest, float(error.max())), holes or bool(is_hole.any())
    if holes and largest <= atol:
        raise NotANumberError(result, "one side holds a NaN")
    return largest


def _over(cases: int, singular: str, plural: str = "") -> str:
    return f" over {cases} {singular if cases == 1 else plural or singular + 's'}"
