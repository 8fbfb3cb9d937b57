"""What an argument must satisfy: each requirement once, its message with name, rule and value."""

import re
from numbers import Real
from typing import get_args

import torch
from torch import Tensor

# One tensor of a signature such as 'x (..., n), w (n,)': its name, and its axes.
_WRITTEN = r"([\w\[\]]+) \(([^)]*)\)"


def require_tensor(**values: object) -> None:
    """Raise TypeError for a value that is no tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def require_floating(**tensors: Tensor) -> None:
    """Raise TypeError for a tensor that is not floating point, of 16 bits at least."""
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
        if tensor.dtype.itemsize < 2:  # torch has no arithmetic for float8
            raise TypeError(f"{name} must have 16 bits at least, got {tensor.dtype}")


def require_one_dtype(**tensors: Tensor) -> None:
    """Raise TypeError unless the tensors are floating point and of one dtype."""
    require_tensor(**tensors)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        seen = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise TypeError(f"needs floating-point tensors of one dtype, got {seen}")


def require_float_dtype(**dtypes: torch.dtype) -> None:
    """Raise TypeError for a dtype that is not floating point."""
    for name, dtype in dtypes.items():
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{name} must be a dtype of torch, got {dtype!r}")
        if not dtype.is_floating_point:
            raise TypeError(f"{name} must be floating point, got {dtype}")


def require_wide_dtype(**dtypes: torch.dtype) -> None:
    """Raise TypeError for a dtype that is not floating point, of 16 bits at least."""
    require_float_dtype(**dtypes)
    for name, dtype in dtypes.items():
        if dtype.itemsize < 2:
            raise TypeError(f"{name} must have 16 bits at least, got {dtype}")


def require_integers(**tensors: Tensor) -> None:
    """Raise TypeError for a tensor of real or complex numbers, or of booleans."""
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"{name} must hold integers, got {tensor.dtype}")


def require_ids(size: int, /, *, lowest: int = 0, hint: str = "", **tensors: Tensor) -> None:
    """Raise unless a tensor holds integers from `lowest` to size - 1; `hint` ends the message."""
    require_integers(**tensors)
    for name, ids in tensors.items():
        ids = ids.long()  # in 8 bits, a size of 256 would be compared as 0
        outside = ids[(ids < lowest) | (ids >= size)]
        if outside.numel():
            raise ValueError(f"{name} holds the id {outside[0]}, outside [{lowest}, {size}){hint}")


def require_int(**values: object) -> None:
    """Raise TypeError for a value that is no int; a boolean is none."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {value!r}")


def require_number(**values: object) -> None:
    """Raise TypeError for a value that is neither a number nor a tensor without axes."""
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim:
            raise TypeError(f"{name} must be one number, got a tensor {tuple(value.shape)}")
        if isinstance(value, bool) or not isinstance(value, Real | Tensor):
            raise TypeError(f"{name} must be a number, got {value!r}")


def require_number_or_tensor(**values: object) -> None:
    """Raise TypeError for a value that is neither a number nor a tensor."""
    require_number(**{name: it for name, it in values.items() if not isinstance(it, Tensor)})


def require_size(least: int, /, *, hint: str = "", **values: object) -> None:
    """Raise unless a value is an int, of `least` at least; `hint` ends the message."""
    require_int(**values)
    for name, value in values.items():
        if value < least:  # type: ignore[operator]
            raise ValueError(f"{name} must be at least {least}, got {value}{hint}")


def require_index(least: int, /, **values: object) -> None:
    """Raise unless a value is an int from `least` on, and below 2^63, as torch and range need."""
    require_size(least, hint="", **values)
    for name, value in values.items():
        if value >= 2**63:  # type: ignore[operator]
            bits = value.bit_length()  # type: ignore[attr-defined]
            raise ValueError(f"{name} must be below 2^63, got an int of {bits} bits")


def require_at_least(least: int, /, **values: float) -> None:
    """Raise unless a value is a number, of `least` at least and finite."""
    require_number(**values)
    for name, value in values.items():
        if not least <= value < float("inf"):
            finite = " and finite" if isinstance(value, float) else ""
            raise ValueError(f"{name} must be at least {least}{finite}, got {value}")


def require_positive(**values: float | Tensor) -> None:
    """Raise ValueError unless a value, or every entry of a tensor, is positive and finite."""
    for name, value in values.items():
        seen = _first_outside("(0, inf)", name, value)
        if seen is not None:
            raise ValueError(f"{name} must be positive and finite, got {seen}")


def require_in(interval: str, /, *, hint: str = "", **values: float | Tensor) -> None:
    """Raise ValueError unless a value, or every entry of a tensor, lies in '[0, 1)' or the like.

    `hint` ends the message.
    """
    for name, value in values.items():
        seen = _first_outside(interval, name, value)
        if seen is not None:
            raise ValueError(f"{name} must be in {interval}, got {seen}{hint}")


def require_finite(where: str = "", /, **tensors: Tensor) -> None:
    """Raise ValueError if an entry is infinite or NaN; `where` says which ones were looked at."""
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 2 else tensor
        bad = wide[~wide.isfinite()]
        if bad.numel():
            raise ValueError(
                f"{name} must be finite{where}, got {bad[0].item()} "
                f"({bad.numel()} of {tensor.numel()} entries)"
            )


def require_real(**tensors: Tensor) -> None:
    """Raise TypeError unless a tensor holds integers, booleans or floating-point numbers."""
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise TypeError(f"{name} must be real, got {tensor.dtype}")


def require_broadcastable(**tensors: Tensor) -> None:
    """Raise ValueError unless the shapes broadcast to one."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        torch.broadcast_shapes(*shapes.values())  # type: ignore[no-untyped-call]
    except RuntimeError:
        seen = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"needs shapes that broadcast, got {seen}") from None


def require_constant(**tensors: Tensor) -> None:
    """Raise ValueError if gradients would flow through a tensor that the derivation holds fixed."""
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(f"{name} must not require grad: it is a constant here, detach it")


def require_choice(choices: object, /, **values: object) -> None:
    """Raise ValueError unless a value is one of the literals in `choices`."""
    for name, value in values.items():
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def require_dim(dim: int, /, **tensors: Tensor) -> None:
    """Raise unless `dim` is an int, and an axis of each tensor."""
    require_int(dim=dim)
    require_tensor(**tensors)
    for name, tensor in tensors.items():
        if not -tensor.ndim <= dim < tensor.ndim:
            known = f"in [{-tensor.ndim}, {tensor.ndim})" if tensor.ndim else "which has none"
            shape = tuple(tensor.shape)
            raise ValueError(f"dim must be an axis of {name} {shape}, {known}, got {dim}")


def require_axis(letter: str, least: int, axes: str, /, **tensors: Tensor) -> None:
    """Raise ValueError unless one axis is long enough: 'G', 2, 'rewards (B, G)'."""
    require_tensor(**tensors)
    require_shapes(axes, **tensors)
    for name, written in re.findall(_WRITTEN, axes):
        size = _bind(_letters(written), tuple(tensors[name].shape)).get(letter)  # type: ignore[union-attr]
        if size is not None and size[0] < least:
            shape = tuple(tensors[name].shape)
            raise ValueError(f"{name} must be ({written}) with {letter} >= {least}, got {shape}")


def require_shapes(axes: str, /, **tensors: Tensor | None) -> None:
    """Raise ValueError unless the axes of each tensor are those written: 'x (..., n), w (n,)'.

    A letter has one size throughout, `...` stands for any leading axes, the same ones throughout,
    and `_` is any size. None is a tensor that was not given, and fits.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    fitting: list[str] = []
    for name, written in re.findall(_WRITTEN, axes):
        tensor = tensors[name]
        if tensor is None:
            continue
        require_tensor(**{name: tensor})
        shape = tuple(tensor.shape)
        letters = _letters(written)
        seen = _bind(letters, shape)
        if seen is None or any(sizes.get(letter, size) != size for letter, size in seen.items()):
            beside = f" beside {', '.join(fitting)}" if fitting else ""
            expected, known = _expected(letters, sizes)
            raise ValueError(f"{name} must be ({written}){expected}{beside}, got {shape}{known}")
        sizes.update(seen)
        fitting.append(f"{name} {shape}")


def boolean_mask(mask: Tensor) -> Tensor:
    """The mask as True and False; exact zeros and ones of any dtype are taken for them.

    Shapes: mask (...) -> (...)
    Source: a convention of this package; torch takes a floating-point mask for a bias.
    Raises: TypeError unless it is a tensor; ValueError if an entry is neither 0 nor 1 (as in an
    additive mask).
    """
    require_tensor(mask=mask)
    if mask.dtype == torch.bool:
        return mask
    outside = mask[(mask != 0) & (mask != 1)]
    if outside.numel():
        raise ValueError(f"a mask holds zeros and ones only, got {outside[0].item()}")
    return mask.bool()


def _first_outside(interval: str, name: str, value: float | Tensor) -> str | None:
    """The value, or the first entry, that is not in the interval; None if there is none."""
    _require_real(name, value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if not isinstance(value, Tensor):
        return None if above and below else str(value)
    outside = value[~torch.logical_and(above, below)]  # type: ignore[arg-type]
    return f"{outside.flatten()[0].item():g}" if outside.numel() else None


def _require_real(name: str, value: object) -> None:
    """Raise TypeError unless it is a real number, or a tensor of such."""
    require_number_or_tensor(**{name: value})
    if not isinstance(value, Tensor):
        return
    if value.is_floating_point():
        require_floating(**{name: value})
    else:
        require_real(**{name: value})


def _letters(written: str) -> list[str]:
    return [letter for letter in re.split(r",\s*", written) if letter]


def _expected(letters: list[str], sizes: dict[str, tuple[int, ...]]) -> tuple[str, str]:
    """The whole shape if every letter is known, or else the letters that are: '; in = 5'."""
    known = {letter: sizes[letter] for letter in letters if letter in sizes}
    if len(known) == len(set(letters)):
        return f" = {sum((sizes[letter] for letter in letters), ())}", ""
    shown = [f"{x} = {n if x == '...' else n[0]}" for x, n in known.items()]
    return "", f"; {', '.join(shown)}" if shown else ""


def _bind(letters: list[str], shape: tuple[int, ...]) -> dict[str, tuple[int, ...]] | None:
    """The size of each letter, or None if the number of axes or a repeated letter does not fit."""
    found: dict[str, tuple[int, ...]] = {}
    if letters[:1] == ["..."]:
        letters = letters[1:]
        split = len(shape) - len(letters)
        if split < 0:
            return None
        found["..."], shape = shape[:split], shape[split:]
    if len(letters) != len(shape):
        return None
    for letter, size in zip(letters, shape, strict=True):
        if letter != "_" and found.setdefault(letter, (size,)) != (size,):
            return None
    return found
