"""How do token losses become one number?

Leaves out: the losses. Tensors are (N, T), one row a sequence.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import at_least_float32
from llmref._require import require_choice
from llmref.rl._tokens import require_rows, token_mask

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


def _norm_of(mode: str, norm: float | None) -> float:
    if (mode == "constant") != (norm is not None):
        raise ValueError(f"norm goes with mode 'constant' and only there, got {mode!r}, {norm}")
    if norm is not None and not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"norm must be positive and finite, got {norm}")
    return 1.0 if norm is None else norm
