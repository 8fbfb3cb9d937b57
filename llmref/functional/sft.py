"""Which token predicts which, which tokens count, and what is their sum divided by?

Leaves out: the loss of one position (functional.cross_entropy), chat templates and tokenisation.
A mask is aligned with the tokens, True where a token is a target; the shift is made here, once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmref._require import (
    boolean_mask,
    require_ids,
    require_int,
    require_integers,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.functional.aggregation import Aggregation, aggregate
from llmref.functional.cross_entropy import cross_entropy


class PackedBatch(NamedTuple):
    """Documents side by side in rows of one length.

    Shapes: all (N, T), in int64 but for `mask`. `segment_ids` number the documents of a row from 0,
    `position_ids` restart with each; padding has segment -1, position 0 and mask False.
    """

    tokens: Tensor
    mask: Tensor
    segment_ids: Tensor
    position_ids: Tensor


def sft_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    agg: Aggregation,
    norm: float | None = None,
    denom: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each counted token under the logits at the position before it, averaged.

    logits (0, log 3) at every position, tokens (1, 1, 0), mask (0, 1, 1): the losses -log(3/4) and
    -log(1/4). The first token is never a target, whatever its mask.
    Shapes: logits (B, T, V), tokens (B, T), mask (B, T) -> ()
    Source: Ouyang et al. 2022, arXiv:2203.02155.
    Differs: a row that counts nothing adds nothing, and is not counted among the rows. `norm` and
    `denom` are those of aggregate. Half precision gives a loss in float32.
    Raises: as sft_token_losses and aggregate; a mean over nothing only with a `denom`.
    """
    losses, counted = sft_token_losses(logits, tokens, mask)
    # eq. eq-sft, eq-sft-sequence-mean, eq-sft-accumulation
    return aggregate(losses, counted, agg=agg, norm=norm, denom=denom, empty="skip")


def sft_token_losses(logits: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of tokens 2 to T, 0 where they do not count, and which of them count.

    Shapes: logits (B, T, V), tokens (B, T), mask (B, T) -> (B, T - 1), (B, T - 1)
    Source: Ouyang et al. 2022, arXiv:2203.02155.
    Differs: logits that predict nothing counted do not enter.
    Raises: ValueError for wrong shapes, a mask that is not 0/1, a counted token outside [0, V);
    TypeError for a wrong dtype.
    """
    named = {"logits": logits, "tokens": tokens, "mask": mask}
    require_tensor(**named)
    require_shapes("logits (B, T, V), tokens (B, T), mask (B, T)", **named)
    counted = boolean_mask(mask)[:, 1:]
    require_ids(logits.shape[2], tokens=tokens[:, 1:][counted])
    labels = tokens[:, 1:].long().masked_fill(~counted, -100)
    return cross_entropy(logits[:, :-1], labels, reduction="none"), counted  # eq. eq-sft-shift


def sequence_logprob(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of the counted tokens of each row, given those before them: a sum.

    The shift is made here; rl.dpo.aligned_sequence_logprob takes labels that are shifted already.
    Shapes: logits (B, T, V), tokens (B, T), mask (B, T) -> (B,); 0 for a row that counts nothing
    Source: the chain rule of probability.
    Raises: as sft_token_losses.
    """
    losses, _ = sft_token_losses(logits, tokens, mask)
    return -losses.sum(-1)  # eq. eq-sft-chain-rule


def response_mask(prompt_lengths: Tensor, lengths: Tensor, max_len: int) -> Tensor:
    """Count the tokens after the prompt, up to the end of the sequence and including it.

    A prompt of 2 in a sequence of 4, in rows of 5: (0, 0, 1, 1, 0). Ids are not looked at, so an
    end-of-sequence token counts even where the padding has the same id.
    Shapes: prompt_lengths (B,), lengths (B,), prompt included -> (B, max_len)
    Raises: TypeError unless both hold integers and max_len is an int; ValueError for wrong shapes
    or unless 0 <= prompt_length <= length <= max_len.
    """
    begins, ends = _require_lengths(prompt_lengths, lengths, max_len)
    positions = torch.arange(max_len, device=lengths.device)
    return (positions >= begins[:, None]) & (positions < ends[:, None])


def pack_sequences(
    seqs: Sequence[Tensor], masks: Sequence[Tensor], max_len: int, pad_id: int
) -> PackedBatch:
    """Put documents side by side into rows of max_len, longest first into the tightest row.

    Within a row they keep the given order, and become int64. The first token of a document is
    masked: in a row of its own nothing predicts it.
    Shapes: seqs and masks, of one length each: (T_1,), (T_2,), ... -> (N, max_len)
    Source: Krell et al. 2021, arXiv:2107.02027.
    Raises: TypeError for tokens that are not integers, or a max_len or pad_id that is no int;
    ValueError if there is nothing to pack, a document is empty or longer than max_len, or its mask
    does not fit.
    """
    require_int(pad_id=pad_id)
    counted = _check_documents(seqs, masks, max_len)
    rows = _best_fit([len(seq) for seq in seqs], max_len)
    # In int64, which holds the ids of every document and of padding, whatever their dtypes.
    tokens = seqs[0].new_full((len(rows), max_len), pad_id, dtype=torch.long)
    segment_ids = torch.full_like(tokens, -1)
    position_ids = torch.zeros_like(tokens)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for r, row in enumerate(rows):
        end = 0
        for segment, i in enumerate(row):
            start, end = end, end + len(seqs[i])
            tokens[r, start:end] = seqs[i]
            mask[r, start + 1 : end] = counted[i][1:]
            segment_ids[r, start:end] = segment
            position_ids[r, start:end] = torch.arange(end - start)
    return PackedBatch(tokens, mask, segment_ids, position_ids)


def packed_attention_mask(segment_ids: Tensor) -> Tensor:
    """Allow each token the earlier tokens of its own document, and itself.

    Padding (a negative id) attends to itself alone, so that no row is empty.
    Shapes: segment_ids (B, T) -> (B, 1, T, T), True may attend
    Source: Krell et al. 2021, arXiv:2107.02027.
    Raises: TypeError unless the ids are integers; ValueError unless (B, T), or if an id stands in
    two separate places of a row: two documents would read each other.
    """
    _require_pieces(segment_ids)
    same = segment_ids[:, :, None] == segment_ids[:, None, :]  # (B, T, T)
    itself = torch.eye(segment_ids.shape[1], dtype=torch.bool, device=segment_ids.device)
    allowed = (same & (segment_ids >= 0)[:, None, :]).tril() | itself  # eq. eq-sft-packed-mask
    return allowed[:, None]


def _require_lengths(
    prompt_lengths: Tensor, lengths: Tensor, max_len: int
) -> tuple[Tensor, Tensor]:
    """Both lengths in int64, in which any max_len can be compared with them, once they fit."""
    require_size(0, max_len=max_len)
    named = {"prompt_lengths": prompt_lengths, "lengths": lengths}
    require_integers(**named)
    require_shapes("prompt_lengths (B,), lengths (B,)", **named)
    begins, ends = prompt_lengths.long(), lengths.long()
    fits = (begins >= 0) & (begins <= ends) & (ends <= max_len)
    if not fits.all():
        row = int((~fits).nonzero()[0])
        raise ValueError(
            f"needs 0 <= prompt length <= length <= max_len {max_len}, prompt included, got "
            f"{begins[row]} and {ends[row]} in row {row}"
        )
    return begins, ends


def _require_pieces(segment_ids: Tensor) -> None:
    require_integers(segment_ids=segment_ids)
    require_shapes("segment_ids (B, T)", segment_ids=segment_ids)
    ordered = segment_ids.sort(-1).values
    runs, ids = (x.diff(dim=-1).ne(0).sum(-1) for x in (segment_ids, ordered))
    if not runs.equal(ids):
        row = int((runs != ids).nonzero()[0])
        raise ValueError(f"each document must be in one piece, got {segment_ids[row].tolist()}")


def _check_documents(seqs: Sequence[Tensor], masks: Sequence[Tensor], max_len: int) -> list[Tensor]:
    """The masks as booleans, once every document fits."""
    require_size(1, max_len=max_len)
    if not seqs or len(seqs) != len(masks):
        raise ValueError(f"needs seqs, each with one of masks, got {len(seqs)} and {len(masks)}")
    for i, (seq, mask) in enumerate(zip(seqs, masks, strict=True)):
        named = {f"seqs[{i}]": seq, f"masks[{i}]": mask}
        require_integers(**{f"seqs[{i}]": seq})
        require_shapes(f"seqs[{i}] (T,), masks[{i}] (T,)", **named)
        if not 1 <= len(seq) <= max_len:
            raise ValueError(f"seqs[{i}] must hold 1 to {max_len} tokens, got {len(seq)}")
    return [boolean_mask(mask) for mask in masks]


def _best_fit(lengths: list[int], max_len: int) -> list[list[int]]:
    """Best fit decreasing: which documents share a row, in the given order."""
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [r for r in range(len(rows)) if free[r] >= lengths[i]]
        if not fitting:
            rows.append([])
            free.append(max_len)
        r = min(fitting, key=free.__getitem__) if fitting else len(rows) - 1
        rows[r].append(i)
        free[r] -= lengths[i]
    return sorted(sorted(row) for row in rows)
