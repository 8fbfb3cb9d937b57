"""How token losses become one number, and what a token tensor must satisfy to enter a loss.

Leaves out: the losses. A log-probability is per token, in nats; tensors are (N, T), one row a
sequence, and a mask that is True where a token counts.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]


def aggregate(
    loss: Tensor,
    mask: Tensor,
    mode: str = "token-mean",
    *,
    norm: float | None = None,
    empty: Literal["raise", "skip"] = "raise",
) -> Tensor:
    """Reduce token losses to one number by the normaliser that `mode` names.

    token-mean: sum over all counted tokens, divided by their number.
    seq-mean-token-mean: each row's mean over its tokens, then the mean of the rows.
    seq-mean-token-sum: each row's sum, then the mean of the rows.
    constant: sum over all counted tokens, divided by N * norm.

    Shapes: loss (N, T), mask (N, T) -> ()
    Differs: a row without a counted token has no mean. It raises, unless empty="skip": then it adds
    nothing, and the two seq-mean modes do not count it in N ("constant" still does).
    Raises: ValueError for an unknown mode, a missing or needless norm, a mask that is not 0/1, an
    empty row, a NaN where a token counts; TypeError for integer losses.
    """
    require_choice("mode", mode, Aggregation)
    require_choice("empty", empty, Literal["raise", "skip"])
    tokens_a_row = _norm_of(mode, norm)
    counted = token_mask(mask, loss)
    if loss.isnan().logical_and(counted).any():
        raise ValueError("the loss is NaN at a counted token")
    lengths = counted.sum(dim=-1)  # (N,)
    filled = require_rows(lengths, empty=empty)
    sums = torch.where(counted, loss, 0.0).to(at_least_float32(loss)).sum(dim=-1)  # (N,)
    if mode == "token-mean":
        result = sums.sum() / lengths.sum()
    elif mode == "seq-mean-token-mean":
        result = (sums / lengths.clamp(min=1)).sum() / filled.sum()
    elif mode == "seq-mean-token-sum":
        result = sums.sum() / filled.sum()
    else:
        result = sums.sum() / (loss.shape[0] * tokens_a_row)
    return result.to(loss.dtype)


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


def require_floating(**tensors: Tensor) -> None:
    """Raise TypeError, with its name, for a tensor that is not floating point."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")


def require_constant(name: str, tensor: Tensor) -> None:
    """Raise ValueError if gradients would flow through a tensor that the derivation holds fixed."""
    if tensor.requires_grad:
        raise ValueError(f"{name} must not require grad: it is a constant here, detach it")


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


def require_choice(name: str, value: object, choices: object) -> None:
    """Raise ValueError unless `value` is one of the literals in `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def at_least_float32(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which sums over `tensor` are taken."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _norm_of(mode: str, norm: float | None) -> float:
    if (mode == "constant") != (norm is not None):
        raise ValueError(f"norm goes with mode 'constant' and only there, got {mode!r}, {norm}")
    if norm is not None and not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"norm must be positive and finite, got {norm}")
    return 1.0 if norm is None else norm
