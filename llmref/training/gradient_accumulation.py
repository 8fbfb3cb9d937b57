"""What is a batch that comes in pieces divided by, and how is its gradient shortened?

Leaves out: the identity for the token mean itself (see functional.sft), losses that couple
examples, and how gradients are summed over ranks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import (
    require_at_least,
    require_finite,
    require_floating,
    require_number,
    require_positive,
    require_real,
    require_shapes,
    require_size,
)


def token_mean_scale(counts: Tensor, *, world_size: int) -> float:
    """The factor of each piece's summed loss, so that the gradients make up the token mean.

    Where gradients are averaged over ranks, as DistributedDataParallel does, that is W / N; with
    world_size = 1 it is 1 / N.
    Shapes: counts (K,), or (...) -> a number
    Units: counts are counted tokens, of all micro-batches of all ranks.
    Source: eq. eq-sft-accumulation, and the average over ranks.
    Raises: ValueError if world_size < 1, a count is negative or not finite, or no token counts.
    """
    require_size(1, world_size=world_size)
    total = float(_counts(counts).sum())
    if not total:
        raise ValueError("counts must hold a counted token, got only 0")
    return world_size / total  # eq. eq-accumulation-scale


def token_weights(counts: Tensor) -> Tensor:
    """What a token of each piece weighs in the mean of the pieces' means; right would be 1.

    Infinite for a piece without a counted token, whose own mean is 0/0.
    Shapes: counts (K,) -> (K,)
    Source: the ratio of the two divisors, eq. eq-accumulation-weight.
    Raises: ValueError if a count is negative or not finite, or no token counts.
    """
    require_shapes("counts (K)", counts=counts)
    wide = _counts(counts)
    if not wide.sum():
        raise ValueError("counts must hold a counted token, got only 0")
    return wide.sum() / (len(wide) * wide)  # eq. eq-accumulation-weight


def global_norm(grads: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients as one vector.

    Computed in float32 at least, and relative to the largest entry, so that squares neither
    overflow nor vanish. An infinite entry gives infinity, a NaN gives NaN.
    Shapes: each grad (...) -> ()
    Source: Pascanu et al. 2013, arXiv:1211.5063, over all parameters.
    Raises: TypeError for what is no floating-point tensor; ValueError if there is no gradient.
    """
    flat = _flat(grads)
    largest = flat.abs().amax() if flat.numel() else flat.sum()
    if not largest.isfinite() or not largest:
        return largest
    return largest * (flat / largest).square().sum().sqrt()  # eq. eq-accumulation-norm


def clip_by_global_norm(grads: Sequence[Tensor], *, max_norm: float) -> tuple[list[Tensor], Tensor]:
    """Shorten all gradients together to the norm max_norm, if theirs is larger; and their norm.

    Each is scaled in float32 at least and rounded once to its dtype, so in 16 bits the norm of the
    result may be above max_norm by a rounding error.
    Shapes: each grad (...) -> a list of the same, ()
    Source: Pascanu et al. 2013, arXiv:1211.5063.
    Differs: torch divides by the norm plus 1e-6, so that it shortens to a little less.
    Raises: as global_norm; ValueError if max_norm is not positive and finite, or the norm is not
    finite: then skip the step, for no factor mends it.
    """
    require_positive(max_norm=max_norm)
    norm = global_norm(grads)
    require_finite(" as a norm; skip this step", grads=norm)
    if norm <= max_norm:
        return [grad.clone() for grad in grads], norm
    # Divided first: the factor itself may be too small for float32.
    return [
        (widen(g) / norm * max_norm).to(g.dtype) for g in grads
    ], norm  # eq. eq-accumulation-clip


def clip_by_value(grads: Sequence[Tensor], *, max_value: float) -> list[Tensor]:
    """Cut each entry to at most max_value in size, which turns the gradient.

    In 16 bits the limit itself is rounded to the dtype.
    Shapes: each grad (...) -> a list of the same
    Source: `torch.nn.utils.clip_grad_value_`.
    Raises: as global_norm; ValueError if max_value is not positive and finite, or an entry is NaN
    or infinite.
    """
    require_number(max_value=max_value)
    require_positive(max_value=max_value)
    require_finite(grads=_flat(grads))
    tops = [min(max_value, torch.finfo(grad.dtype).max) for grad in grads]
    return [grad.clamp(-top, top) for grad, top in zip(grads, tops, strict=True)]


def _counts(counts: Tensor) -> Tensor:
    """The counts in float64."""
    require_real(counts=counts)
    wide = counts.detach().double()
    for count in wide.flatten():
        require_at_least(0, counts=float(count))
    return wide


def _flat(grads: Sequence[Tensor]) -> Tensor:
    """All entries in a row, in the widest dtype."""
    if not isinstance(grads, Sequence):
        raise TypeError(f"grads must be a list or a tuple of tensors, got {type(grads).__name__}")
    if not grads:
        raise ValueError("grads must hold a gradient, got none: has backward() run?")
    for index, grad in enumerate(grads):
        if not isinstance(grad, Tensor):
            raise TypeError(f"grads[{index}] must be a tensor, got {grad!r}: leave it out")
        require_floating(**{f"grads[{index}]": grad})
    dtype = wide_dtype(*grads)
    return torch.cat([grad.reshape(-1).to(dtype) for grad in grads])
