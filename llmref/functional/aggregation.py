"""How do token losses become one number?

Leaves out: the losses. Tensors are (N, T), one row a sequence.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_choice, require_positive
from llmref.functional._tokens import Empty, require_rows, token_mask

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]


def aggregate(
    loss: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    denom: float | Tensor | None = None,
    empty: Empty = "raise",
) -> Tensor:
    """Reduce token losses to one number by the normaliser that `agg` names.

    token-mean: sum over all counted tokens, divided by their number.
    seq-mean-token-mean: each row's mean over its tokens, then the mean of the rows.
    seq-mean-token-sum: each row's sum, then the mean of the rows.
    constant: sum over all counted tokens, divided by N * norm, so `norm` is tokens per row.
    Losses without `denom` take a piece of a batch with constant: norm = n / N, where n is the
    tokens that the whole batch counts and N the rows of the piece, divides by n (eq-agg-pieces).

    Shapes: loss (N, T), mask (N, T) -> ()
    Differs: `denom` takes the place of the last divisor (counted tokens, or rows), for a batch that
    comes in pieces. A row without a counted token has no mean. It raises, unless empty="skip": then
    it adds nothing, and the two seq-mean forms do not count it in N ("constant" still does).
    Raises: ValueError for an unknown agg, a norm or denom that is missing, needless or not
    positive, a mask that is not 0/1, an empty row, a NaN where a token counts; TypeError for
    integer losses.
    """
    require_choice(Empty, empty=empty)
    _require_divisors(agg, norm, denom)
    counted = token_mask(mask, loss=loss)
    if loss.isnan().logical_and(counted).any():
        raise ValueError("the loss is NaN at a counted token")
    lengths = counted.sum(dim=-1)  # (N,)
    filled = lengths > 0
    if denom is None or empty == "raise":
        require_rows(lengths, empty=empty, hint=", or aggregate with empty='skip'")
    sums = widen(torch.where(counted, loss, 0.0), "loss").sum(dim=-1)  # (N,)
    if agg == "seq-mean-token-mean":
        sums = sums / lengths.clamp(min=1)
    divisor: float | Tensor
    if agg == "constant":
        divisor = loss.shape[0] * norm  # type: ignore[operator]
    elif agg == "token-mean":
        divisor = lengths.sum()
    else:
        divisor = filled.sum()
    return (sums.sum() / (divisor if denom is None else float(denom))).to(loss.dtype)


def _require_divisors(agg: str, norm: float | None, denom: float | Tensor | None) -> None:
    require_choice(Aggregation, agg=agg)
    if agg == "constant" and norm is None:
        raise ValueError("agg 'constant' needs norm, the tokens that a row is taken to have")
    if agg != "constant" and norm is not None:
        raise ValueError(f"agg {agg!r} takes no norm, got {norm}: only 'constant' divides by one")
    if denom is not None and agg == "constant":
        raise ValueError("agg 'constant' counts nothing that denom could replace: scale norm")
    if norm is not None:
        require_positive(norm=norm)
    if denom is not None and torch.as_tensor(denom).numel() != 1:
        raise ValueError(f"denom must be one number, got {denom}")
    if denom is not None:
        require_positive(denom=denom)
