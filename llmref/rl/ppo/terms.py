"""What else is in PPO's loss: the critic's error and the policy's entropy.

Leaves out: the policy's own term (see ppo), the coefficients of the sum.
"""

import torch
from torch import Tensor

from llmref._numeric import bounded, maximum, widen
from llmref._require import (
    boolean_mask,
    require_dim,
    require_floating,
    require_in,
    require_number,
    require_shapes,
)
from llmref.functional._tokens import token_mask
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.functional.softmax import entropy, softmax
from llmref.rl._tokens import narrowed, token_values


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    clip: float | None = 0.2,
) -> Tensor:
    """Half the squared error of a critic, or of the critic held near its old value if that is more.

    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.
    Shapes: values, old_values, returns, mask (N, T) -> ()
    Source: not in the PPO paper; see Engstrom et al. 2020, arXiv:2005.12729.
    Differs: has the factor 1/2. clip is in units of the value, so it depends on the reward's scale;
    None leaves the plain squared error.
    Raises: ValueError if clip is not positive, old_values or returns require grad, something does
    not fit or is not finite where the mask counts, the loss overflows, for an empty row; TypeError
    for integers.
    """
    counted = token_mask(mask, values=values)
    value = token_values("values", values, counted, constant=False)
    old = token_values("old_values", old_values, counted, constant=True)
    target = token_values("returns", returns, counted, constant=True)
    loss = (value - target).square()
    if clip is not None:
        require_number(clip=clip)
        require_in("(0, inf]", clip=clip)
        near = old + bounded(value - old, -clip, clip)
        loss = maximum(loss, (near - target).square())  # eq. eq-ppo-value-clip
    return narrowed(aggregate(loss / 2, counted, agg=agg, norm=norm), values.dtype, "the loss")


def categorical_entropy(logits: Tensor, *, dim: int = -1) -> Tensor:
    """Entropy of the softmax of the logits, in nats.

    Logits (0, 0): log 2. A logit -inf excludes its outcome.
    Shapes: logits (..., V, ...) -> (..., ...), V on axis dim
    Source: Shannon 1948.
    Raises: as functional.softmax.softmax.
    """
    wide = widen(logits, "logits")
    require_dim(dim, logits=logits)
    p = softmax(wide, dim)
    return entropy(p, dim).to(logits.dtype)  # eq. eq-ppo-entropy


def entropy_bonus(
    logits: Tensor, mask: Tensor, *, agg: Aggregation, norm: float | None = None
) -> Tensor:
    """Mean entropy of the distributions at the counted tokens: a loss subtracts a multiple of it.

    A piece of a batch: agg="constant", norm = tokens of all pieces / N of this one; see aggregate.
    Shapes: logits (N, T, V), mask (N, T) -> ()
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Raises: ValueError unless logits are (N, T, V), for an empty row or an unknown agg, otherwise as
    categorical_entropy.
    """
    require_shapes("logits (N, T, V), mask (N, T)", logits=logits, mask=mask)
    require_floating(logits=logits)
    counted = boolean_mask(mask)
    kept = torch.where(counted.unsqueeze(-1), logits, 0.0)  # padding may hold NaN
    wide = categorical_entropy(widen(kept, "logits"))
    return aggregate(wide, counted, agg=agg, norm=norm).to(logits.dtype)
