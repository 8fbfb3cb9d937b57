"""Equality without rounding: integers, rationals and symbols, over an exhaustive enumeration."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import sympy as sp
import torch

from llmref.verify.check import Check, passed, reject_all, require_known
from llmref.verify.errors import CheckFailedError, ShapeMismatchError, UndecidedError
from llmref.verify.symbolic import vanishes

_EMPTY = ()  # what stands for an empty list, which has no leaf, among the leaves


def exact(
    result: str, actual: Any, expected: Any, *, wrong: Mapping[str, Any], note: str = ""
) -> Check:
    """Check that `actual` equals `expected` with no rounding anywhere.

    Arguments: int, bool, Fraction, str, bytes, sympy values, integer or bool tensors, or nested
    sequences of them; one leaf is one case, and a text or a truth value equals no number. Each
    `wrong` variant replaces `actual`.
    Raises: TypeError for a float, ShapeMismatchError if the nesting differs, CheckFailedError,
    UndecidedError, MissingWrongVariantError, WrongVariantPassedError, MissingScopeError,
    ResultIdError.
    """
    require_known(result)
    targets = list(_leaves(expected))

    def compare(candidate: Any) -> tuple[bool, str]:
        leaves = list(_leaves(candidate))
        if [path for path, _ in leaves] != [path for path, _ in targets]:
            raise ShapeMismatchError(
                result, f"{len(leaves)} values against {len(targets)}, or nested differently"
            )
        pairs = zip(leaves, targets, strict=True)
        differing = [path for (path, a), (_, b) in pairs if not _equal(result, a, b)]
        first = f", first at {list(differing[0])}" if differing and differing[0] else ""
        return not differing, f"{len(differing)} of {len(targets)} cases differ{first}"

    holds, seen = compare(actual)
    if not holds:
        raise CheckFailedError(result, seen)
    if all(target is _EMPTY for _, target in targets):
        raise CheckFailedError(result, "nothing was compared: the enumeration is empty")
    rejected = reject_all(result, wrong, compare)
    cases = sum(target is not _EMPTY for _, target in targets)
    figure = f"equal in {'the one case' if cases == 1 else f'all {cases} cases'}, no rounding"
    return passed(result, "exact", figure, cases, rejected, note)


def _leaves(value: Any, path: tuple[int, ...] = ()) -> Iterable[tuple[tuple[int, ...], Any]]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() or value.is_complex():
            raise TypeError(f"exact takes no floating-point tensor, got {value.dtype}")
        value = value.tolist()
    if isinstance(value, sp.MatrixBase):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if not value:
            yield path, _EMPTY
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif isinstance(value, (bool, int, Fraction, str, bytes)) or _is_exact(value):
        yield path, value
    else:
        raise TypeError(f"exact compares integers, fractions and symbols, got {value!r}")


def _is_exact(value: Any) -> bool:
    return isinstance(value, sp.Basic) and not value.has(sp.Float)


def _equal(result: str, a: Any, b: Any) -> bool:
    if _sort(a) is not _sort(b):
        return False
    if not isinstance(a, sp.Basic) and not isinstance(b, sp.Basic):
        return bool(a == b)
    zero, _ = vanishes(sp.sympify(a) - sp.sympify(b))
    if zero is None:
        raise UndecidedError(result, f"sympy cannot decide whether {a} equals {b}")
    return zero


def _sort(value: Any) -> type:
    """What a leaf may be equal to: a text, a truth value, an empty list, or else a number."""
    return type(value) if isinstance(value, (str, bytes, bool, tuple)) else sp.Basic
