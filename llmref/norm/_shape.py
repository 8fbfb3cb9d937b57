"""Which axes a norm runs over, and whether its parameters fit them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import require_at_least, require_floating, require_in, require_size

Shape = int | Sequence[int]


def shape_tuple(normalized_shape: Shape) -> tuple[int, ...]:
    """The shape as a tuple; an int is the size of the last axis.

    Raises: ValueError if it names no axis or a size is below 1; TypeError if one is no int.
    """
    one = not isinstance(normalized_shape, Sequence)
    shape = (normalized_shape,) if one else tuple(normalized_shape)  # type: ignore[arg-type]
    if not shape:
        raise ValueError(f"normalized_shape must name an axis at least, got {normalized_shape}")
    for size in shape:
        require_size(1, normalized_shape=size)
    return shape  # type: ignore[return-value]


def prepare(
    x: Tensor, normalized_shape: Shape, eps: float, name: str, **parameters: Tensor | None
) -> tuple[Tensor, tuple[int, ...]]:
    """The input in float32 at least, and the axes that `normalized_shape` names.

    Raises: TypeError unless x is floating point; ValueError if the trailing axes of x or the shape
    of a parameter differ from normalized_shape, if that is empty, or if eps is negative, infinite
    or NaN.
    """
    shape = shape_tuple(normalized_shape)
    require_at_least(0, eps=eps)
    given = {parameter: value for parameter, value in parameters.items() if value is not None}
    require_floating(x=x, **given)
    require_in(f"[0, {torch.finfo(wide_dtype(x)).max}]", eps=eps)
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"{name} over {shape} needs an input (..., *{shape}), got {(*x.shape,)}")
    for parameter, value in parameters.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{parameter} must have the shape {shape}, got {(*value.shape,)}")
    return widen(x), tuple(range(-len(shape), 0))
