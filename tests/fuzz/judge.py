"""What a call may end in: a result that holds what is promised, a clear error, or else a find.

A clear error is a ValueError or TypeError that names an argument which was replaced. A result is
finite if the arguments are, leaves them as they were, and is the same for another layout of memory
and nearly the same in float32. Not here: the exceptions, function by function (see documented).
"""

import math
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import llmref
from tests.fuzz.documented import (
    ALSO_NAMED,
    COARSE,
    ERRORS,
    IN_PLACE,
    INFINITE,
    LAYERS,
    NAN,
    OF_BLOCKS,
    OF_LAYERS,
    WARNINGS,
)
from tests.fuzz.draw import Drawn, copied, in_dtype, mapped
from tests.fuzz.objects import File
from tests.fuzz.targets import MADE, NotReadyError

_PACKAGE = str(Path(llmref.__file__).parent)
RESULT, ERROR, LARGE, FIND = "result", "clear error", "too large", "find"


@dataclass(frozen=True)
class Verdict:
    """One of the four kinds, and what a find is."""

    kind: str
    words: str = ""


def judge(drawn: Drawn) -> Verdict:
    """Make the call, and those beside it that must give the same."""
    given, error, result = copied(drawn.values), None, None
    try:
        result = made(drawn, given)
    except Exception as raised:
        error = raised
    if drawn.name not in IN_PLACE and not same(numbers(given), numbers(drawn.values), 0.0):
        return Verdict(FIND, "an argument is changed")
    if error is not None:
        return of_error(drawn, error)
    found = list(numbers(result))
    return Verdict(FIND, wrong) if (wrong := of_result(drawn, found)) else Verdict(RESULT)


def made(drawn: Drawn, values: dict[str, Any]) -> Any:
    """What the call gives; where it draws, it draws the same each time."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "overflow encountered")  # of numpy's own numbers
        if drawn.name in WARNINGS:
            warnings.filterwarnings("ignore", WARNINGS[drawn.name])
        return drawn.valid.make(
            {name: it.write() if isinstance(it, File) else it for name, it in values.items()}
        )


def of_error(drawn: Drawn, error: Exception) -> Verdict:
    """Whether it says which argument is wrong, or that the machine is too small."""
    words = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, (NotReadyError, *ERRORS.get(drawn.name, ()))):
        return Verdict(ERROR)
    if isinstance(error, RuntimeError) and is_passed_on(drawn.name, str(error)):
        return Verdict(ERROR)
    if is_large(drawn) and (isinstance(error, MemoryError | TimeoutError) or _of_memory(error)):
        return Verdict(LARGE)
    if isinstance(error, OSError) and any(
        "PathLike" in str(drawn.valid.hints.get(it)) for it in drawn.changes
    ):
        return Verdict(ERROR)
    if not isinstance(error, ValueError | TypeError):
        return Verdict(FIND, words)
    if is_named(drawn, error):
        return Verdict(ERROR)
    who = "names no argument" if is_own(error) else "comes from below"
    return Verdict(FIND, f"{who}: {words}")


def is_passed_on(name: str, message: str) -> bool:
    """Whether it is torch's own refusal, of what a layer passes on to it."""
    of_layers = name.endswith(LAYERS) and OF_LAYERS in message
    return of_layers or (name in OF_BLOCKS and OF_BLOCKS[name] in message)


def _of_memory(error: Exception) -> bool:
    text = str(error)
    found = re.search(
        "allocate memory|[Oo]verflow|too large|too big|out of memory|int to unsigned", text
    )
    return found is not None and not is_own(error)


def is_named(drawn: Drawn, error: Exception) -> bool:
    """Whether a message has the name of a replaced argument, or of a part of it, as a word.

    What the package raises itself may name another argument, to which the replaced one is no fit.
    """
    message, own = str(error), is_own(error)
    names = set(drawn.values) if own or "all" in drawn.changes else set(drawn.changes)
    names |= {it.partition(": ")[0].strip("'") for it in drawn.changes.values() if ": " in it}
    names = {it.removeprefix(MADE) for it in names}
    names |= {it.replace("_", " ") for it in names}
    names |= {it.name for it in drawn.values.values() if isinstance(it, File)}
    if own:  # of a result
        names |= {"finite", "inf", "NaN", "nan", "overflow", "overflows", "must fit"}
    names |= {also for it in names for also in ALSO_NAMED.get(it, ())}
    return any(re.search(rf"\b{re.escape(it)}\b", message) for it in names)


def is_own(error: Exception) -> bool:
    """Whether a `raise` of the package has raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename.startswith(_PACKAGE) and str(frame.line).startswith("raise ")


def of_result(drawn: Drawn, found: list[Tensor]) -> str:
    """What is wrong with a result, or nothing."""
    if not all(it.isfinite().all() for it in numbers(drawn.values)):
        return ""  # what is made of a NaN or an infinity is the caller's
    if any(it.isnan().any() for it in found) and drawn.name not in NAN:
        return "NaN from finite arguments"
    extreme = is_extreme(drawn)
    infinite = any(it.isinf().any() for it in found)
    if infinite and not extreme and drawn.name not in INFINITE:
        return "an infinity from finite arguments"
    if extreme:
        return ""
    if wrong := beside(drawn, spread, found, 1e-9):
        return f"strided arguments: {wrong}"
    tensors = [it for it in numbers(drawn.values) if it.is_floating_point() and it.ndim]
    if drawn.name in COARSE or not tensors or {it.dtype for it in tensors} != {torch.float64}:
        return ""
    size = (
        max(float(it.abs().max()) for it in tensors if it.numel())
        if any(it.numel() for it in tensors)
        else 0.0
    )
    narrow = in_dtype(copied(drawn.values), torch.float32)
    try:
        wanted = list(numbers(made(drawn, in_dtype(narrow, torch.float64))))
    except (ValueError, TypeError):
        return ""  # what is rounded may not be valid
    wrong = beside(drawn, lambda it: in_dtype(it, torch.float32), wanted, 1e-3, 1e-6 * size)
    return f"float32: {wrong}" if wrong else ""


def beside(
    drawn: Drawn,
    change: Callable[[Any], Any],
    wanted: list[Tensor],
    rtol: float,
    atol: float = 0.0,
) -> str:
    """What is wrong with the call on changed tensors, if they must give what is wanted."""
    try:
        found = list(numbers(made(drawn, change(copied(drawn.values)))))
    except (ValueError, TypeError) as error:
        return "" if rtol > 1e-6 else f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if same(found, wanted, rtol, atol) else "another result"


def spread(value: Any) -> Any:
    """Each tensor as every second entry of one of twice as many."""
    if isinstance(value, Tensor):
        if not value.ndim:
            return value
        twice = torch.stack([value, value], dim=-1).flatten(-2)
        return twice.detach()[..., ::2].requires_grad_(value.requires_grad)
    return mapped(value, spread, lambda it: it)


def numbers(value: Any, depth: int = 5) -> Iterator[Tensor]:
    """All numbers in arguments or in a result."""
    if isinstance(value, Tensor):
        small = value.is_floating_point() and value.dtype.itemsize < 2  # has no arithmetic
        yield value.detach().float() if small else value.detach()
    elif isinstance(value, int | float):
        exceeds = isinstance(value, int) and abs(value) > 2**1000  # which no float holds
        yield torch.tensor(1e300 if exceeds else float(value), dtype=torch.float64)
    elif isinstance(value, complex):
        yield torch.tensor(value, dtype=torch.complex128)
    elif isinstance(value, nn.Module):
        yield from numbers([*value.parameters(), *value.buffers()])
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item, depth)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and depth:
        yield from numbers(vars(value), depth - 1)


def same(found: Any, wanted: Any, rtol: float, atol: float = 0.0) -> bool:
    """Whether two lists of tensors are equal, up to atol and rtol of the largest entry of each."""
    one, other = list(found), list(wanted)
    return len(one) == len(other) and all(
        _close(a, b, rtol, atol) for a, b in zip(one, other, strict=True)
    )


def _close(found: Tensor, wanted: Tensor, rtol: float, atol: float) -> bool:
    if found.shape != wanted.shape:
        return False
    if rtol and wanted.is_floating_point():
        rtol = max(rtol, 10 * torch.finfo(wanted.dtype).eps)
    a, b = (it.to(torch.complex128 if it.is_complex() else torch.float64) for it in (found, wanted))
    finite = b[b.isfinite()].abs()
    size = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=rtol, atol=atol + rtol * size, equal_nan=True)


def is_extreme(drawn: Drawn) -> bool:
    """Whether a square or a reciprocal of an argument may leave the range of its dtype."""
    for it in numbers(drawn.values):
        if it.is_floating_point() and it.numel():
            info, sizes = torch.finfo(it.dtype), it.abs()[it != 0].double()
            low, high = max(1e-15, math.sqrt(info.tiny)), min(1e15, math.sqrt(info.max))
            if ((sizes <= low) | (sizes >= high)).any():
                return True
    return is_large(drawn)


def is_large(drawn: Drawn) -> bool:
    """Whether an argument is so large an integer that a machine may be too small."""
    return any(abs(it) >= 2**16 for it in _integers(drawn.values))


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, Tensor) and value.numel() == 1 and value.dtype == torch.int64:
        yield int(value)
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _integers(item)
