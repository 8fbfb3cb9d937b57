"""What both rules share: arguments that fit, decays of pairs, and results that are numbers."""

import torch
from torch import Tensor

from llmref._numeric import wide_dtype
from llmref._require import (
    require_axis,
    require_finite,
    require_floating,
    require_in,
    require_one_dtype,
    require_shapes,
)

_AXES = (
    "query (..., T, Dk), key (..., T, Dk), value (..., T, Dv), log_decay (..., T), "
    "initial_state (..., Dk, Dv)"
)


def prepared(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments in one dtype, float32 at least; without decay the logarithms are 0.

    Shapes: query, key (..., T, Dk), value (..., T, Dv), log_decay (..., T), initial_state
    (..., Dk, Dv) -> the same
    Raises: TypeError unless query, key and value are floating point and of one dtype, and the
    others floating point; ValueError for shapes that do not fit, or a log_decay above 0.
    """
    require_one_dtype(query=query, key=key, value=value)
    given = {"log_decay": log_decay, "initial_state": initial_state}
    present = {name: tensor for name, tensor in given.items() if tensor is not None}
    require_floating(**present)
    require_shapes(_AXES, query=query, key=key, value=value, **given)
    require_axis("Dk", 1, "query (..., T, Dk)", query=query)
    if log_decay is None:
        log_decay = query.new_zeros(query.shape[:-1])
    require_in("[-inf, 0]", log_decay=log_decay)
    if initial_state is None:
        initial_state = query.new_zeros(*query.shape[:-2], query.shape[-1], value.shape[-1])
    dtype = wide_dtype(query, *present.values())
    q, k, v, g = (tensor.to(dtype) for tensor in (query, key, value, log_decay))
    return q, k, v, g, initial_state.to(dtype, copy=True)


def pair_decays(log_decay: Tensor) -> Tensor:
    """What is left at step t of a write at step j: exp of the log decays after j up to t.

    Each sum is formed from its own terms. A difference of two sums from the start would lose every
    later decay after a strong one, and -inf - -inf is NaN.
    Shapes: log_decay (..., c) -> (..., c, c); above the diagonal stands 1,
    which callers mask
    """
    steps = log_decay.unsqueeze(-1).expand(*log_decay.shape, log_decay.shape[-1])
    return steps.tril(-1).cumsum(-2).exp()  # eq. eq-linear-pair


def rounded(outputs: list[Tensor], state: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of all steps or chunks in the dtype of value, and the state as it is.

    Shapes: outputs (..., c, Dv) each, state (..., Dk, Dv), value (..., T, Dv) -> (..., T, Dv),
    (..., Dk, Dv)
    Raises: ValueError if one of them is infinite or NaN.
    """
    out = torch.cat(outputs, -2) if outputs else torch.zeros_like(value)
    out = out.to(value.dtype)
    require_finite(" in the result", output=out, state=state)
    return out, state
