"""What token tensors must satisfy to enter a loss: (N, T), one row a sequence, with a mask.

The mask is True where a token counts; a log-probability is per token, in nats.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_constant, require_floating


def token_mask(mask: Tensor, tokens: Tensor) -> Tensor:
    """Return the mask as booleans, once it fits `tokens` and holds nothing but zeros and ones.

    Shapes: mask (N, T), tokens (N, T) -> (N, T)
    Raises: ValueError, TypeError if `tokens` are not floating point.
    """
    if tokens.ndim != 2:
        raise ValueError(f"token tensors are (N, T), got {tuple(tokens.shape)}")
    require_floating(tokens=tokens)
    if mask.shape != tokens.shape:
        raise ValueError(f"mask {tuple(mask.shape)} must have the tokens' {tuple(tokens.shape)}")
    if mask.dtype == torch.bool:
        return mask
    binary = mask.eq(0) | mask.eq(1)
    if not binary.all():
        raise ValueError(f"a mask holds zeros and ones only, got {mask[~binary][0].item()}")
    return mask.bool()


def token_log_probs(name: str, logp: Tensor, counted: Tensor, *, constant: bool) -> Tensor:
    """Return log-probabilities with zeros where nothing counts, in float32 at least.

    The zeros come before any exp: padding may hold -inf or NaN, and 0 * NaN is NaN.
    Shapes: logp (N, T), counted (N, T) -> (N, T)
    Raises: ValueError if a counted one is not finite or above 1e-6, or if `constant` and it
    requires grad; TypeError if not floating point.
    """
    if logp.shape != counted.shape:
        raise ValueError(f"{name} {tuple(logp.shape)} must be {tuple(counted.shape)}")
    require_floating(**{name: logp})
    if constant:
        require_constant(name, logp)
    logp = torch.where(counted, logp, 0.0)
    if not logp.isfinite().all():
        raise ValueError(f"{name} must be finite where the mask counts")
    if (logp > 1e-6).any():
        raise ValueError(f"{name} holds log-probabilities, at most 0, got {logp.max().item():g}")
    return logp.to(at_least_float32(logp))


def token_advantages(advantages: Tensor, counted: Tensor) -> Tensor:
    """Return one advantage a token, zero where nothing counts, in float32 at least.

    Shapes: advantages (N,) or (N, T), counted (N, T) -> (N, T)
    Raises: ValueError if they require grad, do not fit, or are not finite where something counts;
    TypeError if not floating point.
    """
    require_floating(advantages=advantages)
    require_constant("advantages", advantages)
    if advantages.shape not in (counted.shape, counted.shape[:1]):
        raise ValueError(
            f"advantages {tuple(advantages.shape)} must be (N,) or (N, T) = {tuple(counted.shape)}"
        )
    tokens = advantages if advantages.ndim == 2 else advantages.unsqueeze(1)
    tokens = torch.where(counted, tokens, 0.0)
    if not tokens.isfinite().all():
        raise ValueError("advantages must be finite where the mask counts")
    return tokens.to(at_least_float32(advantages))


def require_rows(lengths: Tensor, *, empty: Literal["raise", "skip"] = "raise") -> Tensor:
    """Return which rows count a token; raise ValueError where a mean over nothing would be taken.

    Shapes: lengths (N,) -> (N,)
    """
    filled = lengths > 0
    if not filled.any():
        raise ValueError("no token is counted: a mean over nothing does not exist")
    if empty == "raise" and not filled.all():
        rows = (~filled).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} count no token: drop them from the batch")
    return filled
