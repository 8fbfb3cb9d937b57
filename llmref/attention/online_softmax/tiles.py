"""Which tiles does blockwise attention visit, and what are the scores of each?

Leaves out: what is done with them (see online_softmax).
"""

import math

import torch
from torch import Tensor

from llmref.attention.masks.algebra import boolean_mask, expand_mask
from llmref.attention.scaled_dot_product import attention_scores


class Tiles:
    """The tiles of the T by S scores: which there are, and the masked scores of each.

    Shapes: query (..., T, D), key (..., S, D), value (..., S, Dv), mask as in
    flash_attention
    Raises: as flash_attention.
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
        block_q: int,
        block_k: int,
    ) -> None:
        shapes = [tuple(x.shape) for x in (query, key, value)]
        if min(len(shape) for shape in shapes) < 2:
            raise ValueError(f"needs tensors (..., length, size), got {shapes}")
        # Every rule about shapes and dtypes is that of the scores; none of them is computed here.
        attention_scores(query[..., :0, :], key[..., :0, :], scale)
        if value.dtype != key.dtype:
            raise TypeError(f"needs one dtype, got key {key.dtype} and value {value.dtype}")
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(f"there must be one value for each key, got {shapes[1:]}")
        if min(block_q, block_k) < 1:
            raise ValueError(f"tiles hold at least one row, got {block_q} by {block_k}")
        self.query, self.key, self.value = query, key, value
        self.T, self.S = query.shape[-2], key.shape[-2]
        if is_causal and self.T > self.S:
            raise ValueError(
                f"is_causal needs at least as many keys as queries, got {self.S} and {self.T}"
            )
        scores = (*query.shape[:-1], self.S)
        self.mask = None if attn_mask is None else expand_mask(attn_mask, scores)
        self.is_causal, self.block_q, self.block_k = is_causal, block_q, block_k
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale

    def rows(self) -> list[slice]:
        """The tiles of queries; the last one may be shorter."""
        return [slice(i, min(i + self.block_q, self.T)) for i in range(0, self.T, self.block_q)]

    def columns(self, rows: slice) -> list[slice]:
        """The tiles of keys that some query of these rows may see."""
        end = min(self.S, rows.stop + self.S - self.T) if self.is_causal else self.S
        return [slice(j, min(j + self.block_k, self.S)) for j in range(0, end, self.block_k)]

    def scores(self, q: Tensor, k: Tensor, rows: slice, columns: slice) -> Tensor:
        """Scores of one tile, -inf where a query may not attend."""
        scores = attention_scores(q, k, self.scale)
        if self.mask is not None:
            part = self.mask[..., rows, columns]
            scores = (
                scores + part
                if part.is_floating_point()
                else scores.masked_fill(~boolean_mask(part), -math.inf)
            )
        if self.is_causal and columns.stop - 1 > rows.start + self.S - self.T:
            i = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
            j = torch.arange(columns.start, columns.stop, device=q.device)
            scores = scores.masked_fill(j > i + self.S - self.T, -math.inf)
        return scores
