"""What a function returned beside what it should have: equal, or the difference in words.

Tensors, numpy arrays and numbers are compared as numbers, whatever their dtype; lists and tuples
are alike. Where integers, text or bytes are wanted, such as the ids of tokens, they are compared
exactly, entry by entry. Leaves out: which inputs are tried (judging).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# The error of right code, relative to the largest entry: of code that is float32 inside, whatever
# it is given, as in most libraries; and of code that sums float32 numbers in any order.
TOLERANCE = 2e-6
TOLERANCE_OF_FLOAT32 = 1e-3
_ROUND = 2  # digits of a round number
_MANY = 40  # entries, of which only one is shown


def difference(found: Any, wanted: Any, tolerance: float = TOLERANCE) -> str:
    """How `found` differs from `wanted`, in words; empty if it does not."""
    if is_plain(wanted):
        return _first_difference(_plain(found), _plain(wanted))
    for place, one, other in _pairs(found, wanted):
        what = f"{place} is" if place else "it is"
        if isinstance(other, str) or isinstance(one, str):
            return one if isinstance(one, str) else f"{what} {one!r}, not {other!r}"
        if one.shape != other.shape:
            return f"the shape of {place or 'the result'} is {shape(one)}, not {shape(other)}"
        if (one.isnan() & ~other.isnan()).any():
            return f"{what} not a number where it should be {_first(other, one.isnan())}"
        if not _close(one, other, tolerance):
            if one.numel() >= _MANY:
                return _entry(place, one.double(), other.double(), tolerance)
            seen, right = _brief(_like(one, other)), _brief(other)
            if seen == right:
                return f"{what} off by {float((one.double() - other).abs().max()):.1g}"
            return f"{what} {seen}, not {right}"
    return ""


def other_dtype(found: Any, wanted: Any) -> list[str]:
    """A remark where the numbers are right and their dtype is not that of the model solution."""
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return []
    # What was given is float32 here, so that is right too.
    if not wanted.is_floating_point() or found.dtype in (wanted.dtype, torch.float32):
        return []
    name = str(found.dtype).removeprefix("torch.")
    return [f"for float32 arguments its result is {name}: the next layer may refuse it"]


def _entry(place: str, one: Tensor, other: Tensor, tolerance: float) -> str:
    """The first entry of many that is off."""
    size = float(other[other.isfinite()].abs().max()) if other.isfinite().any() else 0.0
    off = ~((one - other).abs() <= tolerance * max(size, 1e-3)) & (one != other)
    first = tuple(off.nonzero()[0].tolist())
    where = f"[{', '.join(map(str, first))}]" + (f" of {place}" if place else "")
    count = int(off.sum())
    return (
        f"entry {where} is {float(one[first]):.6g}, not {float(other[first]):.6g}; "
        f"{count} of {one.numel()} entries are off"
    )


def error(found: Any, wanted: Any) -> float:
    """The largest difference of finite entries, relative to the largest of them."""
    largest = 0.0
    if is_plain(wanted):
        return largest
    for _, one, other in _pairs(found, wanted):
        if isinstance(one, Tensor) and isinstance(other, Tensor) and other.numel():
            one, other = one.double(), other.double()
            finite = other.isfinite() & one.isfinite()
            size = float(other[finite].abs().max()) if finite.any() else 0.0
            gap = float((one - other)[finite].abs().max()) if finite.any() else 0.0
            largest = max(largest, gap / size if size else gap)
    return largest


def same(found: Any, wanted: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether two functions gave the same, which may be NaN; for finding a known mistake."""
    if is_plain(wanted):
        return bool(_plain(found) == _plain(wanted))
    try:
        pairs = list(_pairs(found, wanted))
    except TypeError:
        return False
    return all(
        isinstance(one, Tensor)
        and isinstance(other, Tensor)
        and one.shape == other.shape
        and bool((one.isnan() == other.isnan()).all())
        and _close(one[~one.isnan()], other[~other.isnan()], tolerance)
        for _, one, other in pairs
    )


def lost(found: Any, wanted: Any) -> bool:
    """Whether it is not a number where one is wanted."""
    if is_plain(wanted):
        return False
    try:
        return any((one.isnan() & ~other.isnan()).any() for _, one, other in _pairs(found, wanted))
    except (AttributeError, RuntimeError, TypeError):  # it is no tensor, or of another shape
        return False


def text(value: Any, *, whole: bool = False) -> str:
    """A value as a reader types it: torch.tensor([[1., 2.]]); six digits of a number.

    If it is `whole`, what six digits would make a round number has all of its digits.
    """
    if isinstance(value, Tensor) and value.numel() == 0:
        kind = "" if value.is_floating_point() else f", dtype={value.dtype}"
        return f"torch.empty({shape(value)}{kind})"
    if isinstance(value, Tensor):
        return f"torch.tensor({_entries(value.tolist(), whole=whole)})"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(text(it, whole=whole) for it in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _brief(value: Tensor) -> str:
    """A number alone, if it is one."""
    return text(value) if value.ndim else _entries(value.item())


def _like(one: Tensor, other: Tensor) -> Tensor:
    """Integers where integers are wanted, if it has no others."""
    is_id = not (other.is_floating_point() or torch.bool in (one.dtype, other.dtype))
    return one.long() if is_id and bool((one == one.long()).all()) else one


def _entries(value: Any, *, whole: bool = False) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_entries(it, whole=whole) for it in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'-' if value < 0 else ''}torch.{'nan' if math.isnan(value) else 'inf'}"
    if isinstance(value, float):
        value += 0.0  # no minus before a zero
        short = f"{value:.6g}"
        if whole and len(short.strip("-0.")) <= _ROUND and float(short) != value:
            return repr(value)
        return short if "." in short or "e" in short else f"{short}."
    return repr(value)


def is_plain(value: Any) -> bool:
    """Whether it is made of integers, text and bytes, and at its bottom holds nothing else."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, (*value.keys(), *value.values())))
    return isinstance(value, (int, str, bytes)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """The same with tuples for lists and for arrays of integers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    return value


def _first_difference(found: Any, wanted: Any) -> str:
    """The first entry that differs, counted from 1; empty if none does."""
    if found == wanted and not _has_float(found):
        return ""
    if not isinstance(wanted, tuple):
        return f"it is {found!r}, not {wanted!r}"
    if not isinstance(found, tuple):
        return f"it returns {_kind(found)}, not a list of {_entry_count(wanted)}"
    for number, (one, other) in enumerate(zip(found, wanted, strict=False), start=1):
        if one != other or _has_float(one):
            what = "pair" if isinstance(other, tuple) else "entry"
            return f"{what} {number} is {one!r}, not {other!r}"
    shared = min(len(found), len(wanted))
    if len(found) > shared:
        return (
            f"it should end after {_entry_count(wanted)}; entry {shared + 1} is {found[shared]!r}"
        )
    return f"it ends after {_entry_count(found)}; entry {shared + 1} should be {wanted[shared]!r}"


def _has_float(value: Any) -> bool:
    """Whether a number stands where an integer should, such as 256.0 for an id."""
    if isinstance(value, tuple):
        return any(map(_has_float, value))
    return isinstance(value, float)


def _entry_count(value: tuple[Any, ...]) -> str:
    return "1 entry" if len(value) == 1 else f"{len(value) or 'no'} entries"


def _pairs(found: Any, wanted: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Tensors side by side, by the place where they stand; a text where there is no pair."""
    if isinstance(wanted, (list, tuple)):
        if not isinstance(found, (list, tuple)):
            yield place, f"it returns {_kind(found)}, not {len(wanted)} values", None
        elif len(found) != len(wanted):
            yield place, f"it returns {len(found)} values, not {len(wanted)}", None
        else:
            for number, (one, other) in enumerate(zip(found, wanted, strict=True), start=1):
                yield from _pairs(one, other, f"value {number}{' of ' + place if place else ''}")
        return
    values = isinstance(found, (list, tuple)) and any(isinstance(it, Tensor) for it in found)
    one = None if values else as_tensor(found)
    if one is None:
        yield place, f"it returns {_kind(found)}, not {_kind(wanted)}", None
    else:
        is_id = isinstance(wanted, Tensor) and not wanted.is_floating_point()
        yield place, one, wanted if is_id else as_tensor(wanted)


def as_tensor(value: Any) -> Tensor | None:
    """A number, an array or a tensor, detached; None if it is none of them.

    It is float64, but what is float32 or boolean stays so: torch.tensor(0.1) is, wherever it is
    written, and a mask is shown as one.
    """
    if value is None or isinstance(value, (str, bytes, dict, set)):
        return None
    try:
        tensor = torch.as_tensor(value, dtype=None if hasattr(value, "dtype") else torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    if tensor.is_complex():
        return None
    kept = tensor.dtype in (torch.float32, torch.bool)
    return tensor.detach().to(tensor.dtype if kept else torch.float64)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, Tensor) and value.is_complex():
        return "complex numbers"
    if isinstance(value, (list, tuple)):
        return f"{len(value)} values"
    return f"a {type(value).__name__}"


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    one, other = one.double(), other.double()
    infinite = other.isinf() | one.isinf()
    if not torch.equal(one[infinite], other[infinite]):
        return False
    finite = ~infinite & ~other.isnan()
    size = float(other[finite].abs().max()) if finite.any() else 0.0
    limit = tolerance * max(size, 1e-3)
    return bool(((one - other)[finite].abs() <= limit).all())


def _first(other: Tensor, where: Tensor) -> str:
    return f"{float(other[where][0]):.6g}"
