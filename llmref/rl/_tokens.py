"""What the tensors of a loss over tokens must satisfy: log-probabilities, advantages, values.

Log-probabilities are in nats. The zeros where nothing counts come before any arithmetic: padding
may hold -inf or NaN, and 0 * NaN is NaN.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_constant,
    require_finite,
    require_floating,
    require_shapes,
    require_tensor,
)

WHERE = " where the mask counts"


def narrowed(x: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """Return a result in the dtype of the caller's tensors; `what` names it in the message.

    Shapes: x (...) -> (...)
    Raises: ValueError if it is not finite there.
    """
    result = x.to(dtype)
    if not result.isfinite().all():
        raise ValueError(f"{what} overflows {dtype}: it reaches {x.abs().max().item():g} in size")
    return result


def log_probs(name: str, logp: Tensor, *, where: str = "") -> Tensor:
    """Return log-probabilities in float32 at least.

    Shapes: logp (...) -> (...)
    Raises: ValueError if one is not finite or above 1e-6; TypeError unless floating point.
    """
    require_floating(**{name: logp})
    require_finite(where, **{name: logp})
    if (logp > 1e-6).any():
        raise ValueError(f"{name} holds log-probabilities, at most 0, got {logp.max().item():g}")
    return widen(logp, name)


def token_log_probs(name: str, logp: Tensor, counted: Tensor, *, constant: bool) -> Tensor:
    """Return log-probabilities with zeros where nothing counts, in float32 at least.

    Shapes: logp (N, T), counted (N, T) -> (N, T)
    Raises: ValueError if a counted one is not finite or above 1e-6, or if `constant` and it
    requires grad; TypeError if not floating point.
    """
    return log_probs(name, token_values(name, logp, counted, constant=constant), where=WHERE)


def token_values(name: str, values: Tensor, counted: Tensor, *, constant: bool) -> Tensor:
    """Return one number per token, zero where nothing counts, in float32 at least.

    Shapes: values (N, T), counted (N, T) -> (N, T)
    Raises: ValueError if a counted one is not finite, or if `constant` and they require grad;
    TypeError if not floating point.
    """
    require_shapes(f"mask (N, T), {name} (N, T)", mask=counted, **{name: values})
    require_floating(**{name: values})
    if constant:
        require_constant(**{name: values})
    kept = torch.where(counted, values, 0.0)
    require_finite(WHERE, **{name: kept})
    return widen(kept, name)


def token_advantages(advantages: Tensor, counted: Tensor) -> Tensor:
    """Return one advantage per token, zero where nothing counts, in float32 at least.

    Shapes: advantages (N,) or (N, T), counted (N, T) -> (N, T)
    Raises: as token_values, with constant.
    """
    require_tensor(advantages=advantages)
    if advantages.shape not in (counted.shape, counted.shape[:1]):
        raise ValueError(
            f"advantages must be (N,) or (N, T) = {tuple(counted.shape)}, got "
            f"{tuple(advantages.shape)}"
        )
    tokens = advantages if advantages.ndim == 2 else advantages.unsqueeze(1).expand_as(counted)
    return token_values("advantages", tokens, counted, constant=True)


def last_values(bootstrap: Tensor | None, rewards: Tensor, *, constant: bool) -> Tensor:
    """Return the value after the last token, zeros without one.

    Shapes: bootstrap (N,) or None, rewards (N, T) -> (N,)
    Raises: ValueError if it does not fit, is not finite, or if `constant` and it requires grad;
    TypeError if not floating point.
    """
    if bootstrap is None:
        return rewards.new_zeros(rewards.shape[0])
    require_shapes("rewards (N, T), bootstrap (N,)", rewards=rewards, bootstrap=bootstrap)
    require_floating(bootstrap=bootstrap)
    require_finite(bootstrap=bootstrap)
    if constant:
        require_constant(bootstrap=bootstrap)
    return bootstrap.to(rewards.dtype)
