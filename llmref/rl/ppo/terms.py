"""What else is in PPO's loss: the critic's error and the policy's entropy.

Leaves out: the policy's own term (see ppo), the coefficients of the sum.
"""

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_constant, require_floating
from llmref.functional.softmax import entropy, softmax
from llmref.rl._tokens import token_mask
from llmref.rl.aggregation import aggregate


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float | None = 0.2,
    agg: str = "token-mean",
    norm: float | None = None,
) -> Tensor:
    """Half the squared error of a critic, or of the critic held near its old value if that is more.

    Shapes: values, old_values, returns, mask (N, T) -> ()
    Source: not in the PPO paper; see Engstrom et al. 2020, arXiv:2005.12729.
    Differs: has the factor 1/2. clip is in units of the value, so it depends on the reward's scale;
    None leaves the plain squared error.
    Raises: ValueError if clip is not positive, old_values or returns require grad, something does
    not fit or is not finite where the mask counts, for an empty row; TypeError for integers.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None for no clipping, got {clip}")
    counted = token_mask(mask, values)
    require_constant("old_values", old_values)
    require_constant("returns", returns)
    named = {"values": values, "old_values": old_values, "returns": returns}
    value, old, target = (_counted(name, x, counted) for name, x in named.items())
    loss = (value - target).square()
    if clip is not None:
        near = old + (value - old).clamp(-clip, clip)
        loss = torch.maximum(loss, (near - target).square())  # eq. eq-ppo-value-clip
    return aggregate(loss / 2, counted, agg, norm=norm).to(values.dtype)


def categorical_entropy(logits: Tensor, *, dim: int = -1) -> Tensor:
    """Entropy of the softmax of the logits, in nats.

    Logits (0, 0): log 2. A logit -inf excludes its outcome.
    Shapes: logits (..., V, ...) -> (..., ...), V on axis dim
    Source: Shannon 1948.
    Raises: as functional.softmax.softmax.
    """
    wide = logits.to(at_least_float32(logits)) if logits.is_floating_point() else logits
    return entropy(softmax(wide, dim), dim).to(logits.dtype)  # eq. eq-ppo-entropy


def entropy_bonus(logits: Tensor, mask: Tensor, *, agg: str, norm: float | None = None) -> Tensor:
    """Mean entropy of the counted tokens' laws: a loss subtracts a multiple of it.

    Shapes: logits (N, T, V), mask (N, T) -> ()
    Source: Schulman et al. 2017, arXiv:1707.06347.
    Raises: ValueError unless logits are (N, T, V), for an empty row or an unknown agg, otherwise as
    categorical_entropy.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits must be (N, T, V), got {tuple(logits.shape)}")
    require_floating(logits=logits)
    counted = token_mask(mask, logits[..., 0])
    kept = torch.where(counted.unsqueeze(-1), logits, 0.0)  # padding may hold NaN
    wide = categorical_entropy(kept.to(at_least_float32(logits)))
    return aggregate(wide, counted, agg, norm=norm).to(logits.dtype)


def _counted(name: str, tensor: Tensor, counted: Tensor) -> Tensor:
    if tensor.shape != counted.shape:
        raise ValueError(f"{name} {tuple(tensor.shape)} must be {tuple(counted.shape)}")
    require_floating(**{name: tensor})
    kept = torch.where(counted, tensor, 0.0)
    if not kept.isfinite().all():
        raise ValueError(f"{name} must be finite where the mask counts")
    return kept.to(at_least_float32(tensor))
