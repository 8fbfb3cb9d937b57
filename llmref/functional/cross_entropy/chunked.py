"""The loss of logits that are never stored together: a chunk of positions at a time.

Leaves out: the loss itself (see loss).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import (
    require_choice,
    require_int,
    require_integers,
    require_one_dtype,
    require_shapes,
    require_size,
)
from llmref.functional.cross_entropy._options import require_options, require_some
from llmref.functional.cross_entropy.loss import cross_entropy


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    *,
    chunk_size: int,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Cross-entropy of the logits hidden @ head^T, chunk_size counted positions at a time.

    Forward and backward each compute the logits of a chunk, use them and drop them.
    Shapes: hidden (..., C), head (V, C), target (...) of integers -> ()
    Source: Wijmans et al. 2024, arXiv:2411.09009.
    Differs: they split the vocabulary too, inside one kernel. Differentiable once; the
    gradient of the head is summed over the chunks in float32.
    Raises: as cross_entropy; TypeError unless hidden and head have one dtype and chunk_size is
    an int; ValueError if that is below 1, or for reduction="none".
    """
    require_options(label_smoothing, z_loss, reduction)
    require_choice(Literal["mean", "sum"], reduction=reduction)
    _require_chunks(hidden, head, target, chunk_size)
    loss = partial(
        cross_entropy,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        reduction="sum",
    )
    require_int(ignore_index=ignore_index)
    counted = target.reshape(-1).long() != ignore_index
    if reduction == "mean":
        require_some(counted, ignore_index)
    rows, classes = hidden.reshape(-1, head.shape[1]), target.reshape(-1)
    if not counted.all():  # selected, not multiplied by 0: what they hold may be NaN
        rows, classes = rows[counted], classes[counted]
    total: Tensor = _ChunkedLoss.apply(rows, head, classes, chunk_size, loss)  # type: ignore[no-untyped-call]
    return total / counted.sum() if reduction == "mean" else total


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the loss over chunks of positions; saves the inputs, never the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        target: Tensor,
        size: int,
        loss: Callable[..., Tensor],
    ) -> Tensor:
        ctx.save_for_backward(hidden, head, target)
        ctx.spans = [slice(i, i + size) for i in range(0, len(hidden), size)]
        ctx.loss = loss
        total = widen(hidden.new_zeros(()), "hidden")
        for span in ctx.spans:
            total = total + loss(hidden[span] @ head.T, target[span])
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # With create_graph=True what follows would be taken for a constant, in silence.
        if torch.is_grad_enabled():
            raise RuntimeError("linear_cross_entropy is differentiable once; use cross_entropy")
        hidden, head, target = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        wide = wide_dtype(head)
        d_head = torch.zeros_like(head, dtype=wide)
        for span in ctx.spans:
            logits = (hidden[span] @ head.T).requires_grad_()
            with torch.enable_grad():
                value = ctx.loss(logits, target[span])
            (d_logits,) = torch.autograd.grad(value, logits, grad)
            d_hidden[span] = d_logits @ head  # eq. eq-chunked-gradient
            d_head.addmm_(d_logits.T.to(wide), hidden[span].to(wide))
        return d_hidden, d_head.to(head.dtype), None, None, None


def _require_chunks(hidden: Tensor, head: Tensor, target: Tensor, chunk_size: int) -> None:
    require_size(1, chunk_size=chunk_size)
    require_one_dtype(hidden=hidden, head=head)
    named = {"hidden": hidden, "head": head, "target": target}
    require_shapes("target (...), head (V, C), hidden (..., C)", **named)
    require_integers(target=target)
