"""What may stand in place of a value: of another kind, size, dtype or layout, or at an extreme.

Each replacement has a name, which a find shows. Not here: which arguments are replaced.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from random import Random
from typing import Any, get_args

import numpy
import torch
from torch import Tensor, nn

from llmref.components.lora import PeftLoraConfig
from tests.fuzz.objects import File

DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128),
)
FILLINGS = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1.0, 1e30, 1e200, 1e-40, 1e-310, -1e30)
WHOLE = (0, -1, 1, 2, 3, 7, 255, 2**31, -(2**63), 2**63 - 1)
INTS: tuple[Any, ...] = (0, -1, 1, 2, 3, 5, 16, 2**31, 2**70, -(2**70))
REALS: tuple[Any, ...] = (
    *(0.0, -0.0, 0.5, 1.0, -1.0, 2.5, 1e-300, 1e-39, 1e39, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf),
)
NUMBERS_ELSEWHERE: tuple[Any, ...] = (
    *(True, False, 1j, numpy.float64(2.0), numpy.int64(3)),
    *(torch.tensor(0.5), torch.tensor(2), torch.tensor([1.0, 2.0]), torch.tensor(2.0).double()),
)
PLAIN = (Tensor, int, float, Fraction, str, bytes, torch.dtype)
OTHERS: tuple[Any, ...] = (None, "", "2", "text", b"ab", (), [], [1, 2], {}, object, 3, 0.5)
TEXTS: tuple[Any, ...] = ("", "none", "mean", "sum", "\ud800", "é€ 12\n", "a" * 500, "[", "<s>")


def replaced(value: Any, hint: Any, rng: Random, *, inside: bool = False) -> tuple[str, Any]:
    """Something else in place of the value, and its name; inside a list it keeps its kind."""
    if "PathLike" in str(hint) and isinstance(value, str):
        return _one_of(("", "no/such/folder", ".", "other"), rng)
    if not inside and hint is not str and isinstance(value, PLAIN) and rng.random() < 0.12:
        other = rng.choice(OTHERS)
        return f"{_shown(other)} in place of it", other
    choices = [it for it in get_args(hint) if isinstance(it, str)]
    if isinstance(value, Tensor):
        return tensor(value, rng)
    if isinstance(value, bool) or (isinstance(value, str) and choices):
        return _one_of([True, False, *choices, *TEXTS[:3], 0, 1, 2, torch.tensor(True)], rng)
    if isinstance(value, torch.dtype) or "dtype" in str(hint):
        return _one_of([*DTYPES, "float32", None], rng)
    if isinstance(value, Fraction | int | float) or (value is None and _is_number(hint)):
        return _one_of([*INTS, *REALS, *([] if inside else rng.sample(NUMBERS_ELSEWHERE, 5))], rng)
    if isinstance(value, (str, bytes)):
        return _one_of([*TEXTS, *([] if inside or hint is str else [b"ab \xff"])], rng)
    if value is None:
        return tensor(torch.ones(2, 3, dtype=rng.choice([torch.float64, torch.bool])), rng)
    for kind, change in CONTAINERS:
        if isinstance(value, kind):
            return sequence(value, rng, inside) if change is sequence else change(value, rng)
    raise TypeError(f"nothing stands in place of a {type(value).__name__}")


def is_replaceable(value: Any, hint: Any) -> bool:
    """Whether something may stand in place of it.

    Functions and caches stay: what is no function or cache at all, a type checker sees.
    """
    if value is None:
        is_tensor = "Tensor" in str(hint) and "Callable" not in str(hint)
        return is_tensor or "dtype" in str(hint) or _is_number(hint)
    return isinstance(value, PLAIN) or any(isinstance(value, kind) for kind, _ in CONTAINERS)


def tensor(value: Tensor, rng: Random) -> tuple[str, Tensor]:
    """A tensor of another dtype, size, layout or content."""
    if rng.random() < 0.25:
        dtype = rng.choice(DTYPES)
        return str(dtype), value.detach().to(dtype)
    name, change = rng.choice(CHANGES)
    return name, change(value.detach().clone(), rng)


def _empty(value: Tensor, rng: Random) -> Tensor:
    return value.narrow(rng.randrange(value.ndim), 0, 0) if value.ndim else value.new_zeros(0)


def _one_more(value: Tensor, rng: Random) -> Tensor:
    axis = rng.randrange(value.ndim) if value.ndim else 0
    value = value if value.ndim else value[None]
    return torch.cat([value, value.narrow(axis, 0, min(1, value.shape[axis]))], dim=axis)


def _fewer(value: Tensor, rng: Random) -> Tensor:
    axis = rng.randrange(value.ndim) if value.ndim else 0
    value = value if value.ndim else value[None]
    return value.narrow(axis, 0, rng.choice([1, max(value.shape[axis] - 1, 0)]))


def _axis_less(value: Tensor, rng: Random) -> Tensor:
    fits = value.ndim and value.shape[-1] and value.shape[0]
    return value.select(rng.choice([0, -1]), 0) if fits else value


def _turned(value: Tensor, rng: Random) -> Tensor:
    return value.transpose(*rng.sample(range(value.ndim), 2)) if value.ndim > 1 else value


def _expanded(value: Tensor, _: Random) -> Tensor:
    return value[:1].expand_as(value) if value.ndim else value


def _filled(value: Tensor, rng: Random) -> Tensor:
    return value.fill_(_filling(value, rng)) if value.numel() else value


def _one_entry(value: Tensor, rng: Random) -> Tensor:
    if value.numel():
        value = value.contiguous()
        value.view(-1)[rng.randrange(value.numel())] = _filling(value, rng)
    return value


def _filling(value: Tensor, rng: Random) -> Any:
    if value.dtype == torch.bool:
        return rng.random() < 0.5
    if value.is_floating_point() or value.is_complex():
        return torch.tensor(rng.choice(FILLINGS), dtype=torch.float64).to(value.dtype)
    limits = torch.iinfo(value.dtype)
    return min(max(rng.choice(WHOLE), limits.min), limits.max)


def _scaled(value: Tensor, rng: Random) -> Tensor:
    return (
        value * rng.choice([0.0, -1.0, 1e15, 1e-30, 1e200]) if value.is_floating_point() else value
    )


def _leaf(value: Tensor, _: Random) -> Tensor:
    return value.requires_grad_() if value.is_floating_point() else value


CHANGES: tuple[tuple[str, Callable[[Tensor, Random], Tensor]], ...] = (
    ("an empty axis", _empty),
    ("empty", lambda value, _: value.new_zeros(0)),
    ("without axes", lambda value, _: value.flatten()[0] if value.numel() else value.new_zeros(())),
    ("an axis more in front", lambda value, _: value[None]),
    ("an axis more at the end", lambda value, _: value[..., None]),
    ("an axis less", _axis_less),
    ("one entry more", _one_more),
    ("fewer entries", _fewer),
    ("two axes exchanged", _turned),
    ("reversed", lambda value, _: value.flip(tuple(range(value.ndim)))),
    ("expanded", _expanded),
    ("filled", _filled),
    ("another filling", _filled),
    ("one entry at an extreme", _one_entry),
    ("another entry at an extreme", _one_entry),
    ("scaled", _scaled),
    ("requires grad", _leaf),
    ("no tensor but its list", lambda value, _: value.tolist()),
)


def file(value: File, rng: Random) -> tuple[str, Any]:
    """A file with other content, or one that is not there."""
    kind, content = rng.randrange(5), bytearray(value.content)
    if kind == 0:
        return "no such file", "missing"
    if kind == 1:
        return "an empty file", File(value.name, b"")
    if kind == 2:
        return "cut", File(value.name, value.content[: rng.randrange(len(content))])
    for _ in range(rng.choice([1, 1, 2, 20])):
        content[rng.randrange(len(content))] = (
            rng.randrange(256) if kind == 3 else rng.choice(b'09"[{}],-')
        )
    return "damaged", File(value.name, bytes(content))


def sequence(value: Any, rng: Random, inside: bool = False) -> tuple[str, Any]:
    """A list or tuple of another length, or with another item; a tuple with names keeps them."""
    named = hasattr(value, "_fields")
    kind = rng.randrange(8)
    items = list(value)
    places = [place for place, it in enumerate(items) if is_replaceable(it, None)]
    if (kind < 4 or named or inside) and places:
        place = rng.choice(places)
        name, items[place] = replaced(items[place], None, rng, inside=True)
        at = value._fields[place] if named else place
        return f"{at}: {name}", type(value)(*items) if named else type(value)(items)
    if kind == 4:
        return "its first items", tuple(items[: len(items) // 2])
    if kind == 5:
        return "twice", type(value)(items * 2)
    if kind == 6:
        return "reversed", type(value)(items[::-1])
    return "empty", type(value)()


def mapping(value: Mapping[Any, Any], rng: Random) -> tuple[str, Any]:
    """A mapping without a key, with a key more, or with another value."""
    items, kind = dict(value), rng.randrange(5)
    key = rng.choice(list(items)) if items else "key"
    if kind == 0 or not items:
        more = type(key)() if isinstance(key, (str, bytes)) else (7, 8)
        return "a key more", items | {more: next(iter(items.values()), 1)}
    if kind == 1:
        del items[key]
        return f"without {_shown(key)}", items
    if kind == 2:
        return "empty", {}
    name, items[key] = replaced(items[key], None, rng, inside=True)
    return f"{_shown(key)}: {name}", items


def module(value: nn.Module, rng: Random) -> tuple[str, nn.Module]:
    """A module of another dtype, frozen, or with an extreme weight."""
    kind, dtype = rng.randrange(3), rng.choice([it for it in DTYPES if it.is_floating_point])
    if kind == 0:
        return str(dtype), value.to(dtype)
    if kind == 1:
        return "frozen", value.requires_grad_(False)
    for name, weight in value.named_parameters():
        if rng.random() < 0.5:
            with torch.no_grad():
                weight.copy_(_one_entry(weight.detach().clone(), rng))
            return f"{name}: one entry at an extreme", value
    return "in training", value.train()


def instance(value: Any, rng: Random) -> tuple[str, Any]:
    """A dataclass with another value in one of its fields."""
    known = {it.name: getattr(value, it.name) for it in dataclasses.fields(value)}
    field = rng.choice([name for name, it in known.items() if is_replaceable(it, None)])
    name, other = replaced(known[field], None, rng, inside=True)
    try:
        return f"{field}: {name}", dataclasses.replace(value, **{field: other})
    except (ValueError, TypeError):  # it is checked where it is made
        return "as it was", value


CONTAINERS: tuple[tuple[Any, Callable[[Any, Random], tuple[str, Any]]], ...] = (
    (File, file),
    (Mapping, mapping),
    ((tuple, list), sequence),
    (nn.Module, module),
    (PeftLoraConfig, instance),
)


def _one_of(values: Iterable[Any], rng: Random) -> tuple[str, Any]:
    value = rng.choice(list(values))
    return _shown(value), value


def _is_number(hint: Any) -> bool:
    return any(it in (int, float) for it in (hint, *get_args(hint)))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}... ({len(text)})"
