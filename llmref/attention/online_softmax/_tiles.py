"""Which tiles does blockwise attention visit, and what are the scores of each?

Leaves out: what is done with them (see flash).
"""

import math

from torch import Tensor

from llmref._require import boolean_mask, require_size
from llmref.attention._inputs import require_inputs, require_scores
from llmref.attention._masking import causal_offset, expand_mask, position_distance
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
        require_inputs(query=query, key=key, value=value)
        attention_scores(query[..., :0, :], key[..., :0, :], scale)  # raises for a wrong scale
        require_size(1, block_q=block_q, block_k=block_k)
        self.query, self.key, self.value = query, key, value
        self.T, self.S = query.shape[-2], key.shape[-2]
        self.offset = causal_offset(self.T, self.S) if is_causal else 0
        scores = (*query.shape[:-1], self.S)
        self.mask = None if attn_mask is None else expand_mask(attn_mask, scores)
        self.is_causal, self.block_q, self.block_k = is_causal, block_q, block_k
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale

    def rows(self) -> list[slice]:
        """The tiles of queries; the last one may be shorter."""
        return [slice(i, min(i + self.block_q, self.T)) for i in range(0, self.T, self.block_q)]

    def columns(self, rows: slice) -> list[slice]:
        """The tiles of keys that some query of these rows may see."""
        end = min(self.S, rows.stop + self.offset) if self.is_causal else self.S
        return [slice(j, min(j + self.block_k, self.S)) for j in range(0, end, self.block_k)]

    def scores(self, q: Tensor, k: Tensor, rows: slice, columns: slice) -> Tensor:
        """Scores of one tile, -inf where a query may not attend."""
        scores = attention_scores(q, k, self.scale)
        bias = allowed = None
        if self.mask is not None:
            part = self.mask[..., rows, columns]
            bias, allowed = (part, None) if part.is_floating_point() else (None, boolean_mask(part))
        first = rows.start + self.offset - columns.start  # the first query, counted from the tile
        width = columns.stop - columns.start
        if self.is_causal and first < width - 1:
            past = position_distance(rows.stop - rows.start, width, first, q.device) >= 0
            allowed = past if allowed is None else allowed & past
        require_scores(scores, q, k, self.scale, bias, allowed)
        scores = scores if bias is None else scores + bias
        return scores if allowed is None else scores.masked_fill(~allowed, -math.inf)
