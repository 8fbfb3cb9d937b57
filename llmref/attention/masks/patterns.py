"""Which pattern of True does each kind of attention need, and where is it aligned?

Leaves out: combining masks (see algebra).
"""

import torch
from torch import Tensor

from llmref._require import (
    boolean_mask,
    require_in,
    require_integers,
    require_number_or_tensor,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.attention._masking import causal_offset, position_distance
from llmref.attention.masks._rows import require_rows


def causal_mask(
    query_len: int,
    key_len: int | None = None,
    *,
    offset: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """A query sees its own position and those before it; the last query is the last token.

    Two queries of three tokens: (1, 1, 0) and (1, 1, 1).
    Shapes: integers T and S (default T) -> (T, S)
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    Differs: offset, the position of the first query, is S - T by default; is_causal of torch has 0.
    Give the number of cached tokens where the cache has more slots than tokens.
    Raises: ValueError if a length is below 1, the offset is negative, or there are fewer keys than
    queries without an offset; TypeError unless they are ints.
    """
    distance = _distance(query_len, key_len, offset, device)
    return distance >= 0  # eq. eq-mask-causal


def sliding_window_mask(
    query_len: int,
    key_len: int | None = None,
    *,
    window: int,
    offset: int | None = None,
    device: torch.device | str | None = None,
    allow_empty_rows: bool = False,
) -> Tensor:
    """A query sees the last `window` positions up to its own, which counts as one of them.

    Three tokens, window 2: (1, 0, 0), (1, 1, 0), (0, 1, 1).
    Shapes: integers T and S (default T) -> (T, S)
    Source: Beltagy et al. 2020, arXiv:2004.05150, one-sided as in Jiang et al. 2023,
    arXiv:2310.06825.
    Differs: flash-attn's window_size=(left, right) does not count the token itself: left is
    window - 1.
    Raises: as causal_mask; ValueError if window < 1, or a query beyond the last key sees nothing
    and allow_empty_rows is False.
    """
    require_size(1, hint=": it counts the token itself", window=window)
    distance = _distance(query_len, key_len, offset, device)
    mask = (distance >= 0) & (distance < window)  # eq. eq-mask-window
    return mask if allow_empty_rows else require_rows(mask)


def prefix_lm_mask(
    prefix_len: int | Tensor,
    query_len: int,
    key_len: int | None = None,
    *,
    offset: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Every query sees the whole prefix, and causally what follows it.

    A prefix of 2 in three tokens: (1, 1, 0), (1, 1, 0), (1, 1, 1).
    Shapes: an integer prefix_len -> (T, S); prefix_len (B,) -> (B, 1, T, S)
    Source: Raffel et al. 2019, arXiv:1910.10683, section 3.2.1.
    Raises: as causal_mask; TypeError unless prefix_len is an integer; ValueError if it has more
    than one axis or is not in [0, S].
    """
    require_number_or_tensor(prefix_len=prefix_len)
    lengths = torch.as_tensor(prefix_len, device=device)
    require_integers(prefix_len=lengths)
    if lengths.ndim > 1:
        raise ValueError(f"prefix_len must be an integer or (B,), got {tuple(lengths.shape)}")
    causal = causal_mask(query_len, key_len, offset=offset, device=lengths.device)
    S = causal.shape[-1]
    require_in(f"[0, {S}]", prefix_len=lengths)
    if lengths.ndim:
        lengths = lengths[:, None, None, None]  # (B, 1, 1, 1)
    in_prefix = torch.arange(S, device=lengths.device) < lengths
    return causal | in_prefix  # eq. eq-mask-prefix


def padding_mask(valid: Tensor) -> Tensor:
    """Every query sees the real tokens of its sequence, and no padding.

    Build `valid` from lengths. Comparing token ids with the pad id is wrong where that id also
    occurs as a token (pad = end of sequence, or id 0).
    Shapes: valid (B, S), 1 or True for a real token -> (B, 1, 1, S)
    Source: a convention of this package and of transformers' attention_mask.
    Raises: ValueError if valid is not (B, S), an entry is neither 0 nor 1, or a sequence has no
    real token.
    """
    return _real_tokens(valid)[:, None, None, :]


def document_mask(
    segment_ids: Tensor,
    key_segment_ids: Tensor | None = None,
    *,
    allow_empty_rows: bool = False,
) -> Tensor:
    """A query sees the keys of its own document. Not causal: combine with a causal mask.

    Every id is a document, also 0 and -1; combine with a padding mask if there is padding.
    Shapes: segment_ids (B, T), key_segment_ids (B, S), default the same -> (B, 1, T, S)
    Source: Krell et al. 2021, arXiv:2107.02027.
    Raises: TypeError unless the ids are integers; ValueError if they are not (B, T) and (B, S), or
    a query's document has no key and allow_empty_rows is False.
    """
    keys = segment_ids if key_segment_ids is None else key_segment_ids
    named = {"segment_ids": segment_ids, "key_segment_ids": keys}
    require_integers(**named)
    require_shapes("segment_ids (B, T), key_segment_ids (B, S)", **named)
    mask = segment_ids[:, None, :, None] == keys[:, None, None, :]  # eq. eq-mask-document
    return mask if allow_empty_rows else require_rows(mask)


def position_ids(valid: Tensor) -> Tensor:
    """The position of each real token among the real tokens of its sequence; padding gets 0.

    Two pads on the left of three tokens: (0, 0, 0, 1, 2).
    Shapes: valid (B, T), 1 or True for a real token -> (B, T), int64
    Source: a convention of decoder implementations with left padding.
    Raises: as padding_mask.
    """
    real = _real_tokens(valid)
    return (real.cumsum(-1) - 1).masked_fill(~real, 0)  # eq. eq-mask-positions


def _distance(
    query_len: int,
    key_len: int | None,
    offset: int | None,
    device: torch.device | str | None,
) -> Tensor:
    """Position of each query minus position of each key: (T, S)."""
    key_len = query_len if key_len is None else key_len
    require_size(1, query_len=query_len, key_len=key_len)
    if offset is None:
        offset = causal_offset(
            query_len, key_len, "; or give offset, the position of the first query"
        )
    require_size(0, offset=offset)
    return position_distance(query_len, key_len, offset, device)


def _real_tokens(valid: Tensor) -> Tensor:
    require_tensor(valid=valid)
    require_shapes("valid (B, T)", valid=valid)
    real = boolean_mask(valid)
    if not real.any(-1).all():
        row = int((~real.any(-1)).nonzero()[0])
        raise ValueError(f"sequence {row} of {len(valid)} has no real token")
    return real
