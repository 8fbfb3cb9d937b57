"""How is a prediction over V classes scored in nats, and what do gradient and average of it mean?

Leaves out: which position predicts which token (see functional.sft). Classes are the last axis;
float16 and bfloat16 logits are widened to float32, and so is the loss.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from llmref._numeric import check_distribution, widen
from llmref.functional.softmax import log_softmax, logsumexp, softmax, softmax_jacobian

Reduction = Literal["mean", "sum", "none"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the log-probability of the target, averaged over the counted positions.

    logits (0, log 3), target 1: -log(3/4). A class with probability 0 costs inf.
    Shapes: logits (..., V), target (...) of integers or (..., V) of probabilities (the
    dtype decides), weight (V,) -> (); "none": (...), 0 at ignored positions
    Source: label smoothing: Szegedy et al. 2015, arXiv:1512.00567; z-loss: Chowdhery et
    al. 2022, arXiv:2204.02311.
    Differs: z_loss adds z_loss * lse^2 at each counted position, without the class weight.
    What the logits are at an ignored position never matters.
    Raises: TypeError for a wrong dtype; ValueError for wrong shapes, a class outside
    [0, V), target probabilities that do not sum to 1, logits without a finite maximum,
    and a mean over nothing.
    """
    _check_options(label_smoothing, z_loss, reduction)
    counted = _counted(logits, target, ignore_index)
    rows, chosen = _select(logits, counted), _select(target, counted)
    weights = _class_weights(weight, rows)
    losses = -_expected(log_softmax(rows), chosen, label_smoothing, weights)
    penalties = z_loss * logsumexp(rows).square() if z_loss else torch.zeros_like(losses)
    if reduction == "none":
        return torch.zeros_like(counted, dtype=rows.dtype).masked_scatter(
            counted, losses + penalties
        )
    if reduction == "sum":
        return (losses + penalties).sum()
    _require_some(counted, ignore_index)
    return losses.sum() / _denominator(chosen, weights, weight) + penalties.mean()


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    *,
    chunk_size: int,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of the logits hidden @ head^T, chunk_size positions at a time.

    Forward and backward each compute the logits of a chunk, use them and drop them.
    Shapes: hidden (..., C), head (V, C), target (...) of integers -> ()
    Source: Wijmans et al. 2024, arXiv:2411.09009.
    Differs: they split the vocabulary too, inside one kernel. Differentiable once; the
    gradient of the head is summed over the chunks in float32.
    Raises: as cross_entropy; ValueError unless chunk_size is at least 1.
    """
    _check_options(label_smoothing, z_loss, reduction)
    if reduction == "none":
        raise ValueError("reduction must be 'mean' or 'sum' for a chunked loss, got 'none'")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if head.ndim != 2 or hidden.shape != (*target.shape, head.shape[1]):
        shapes = tuple(hidden.shape), tuple(head.shape), tuple(target.shape)
        raise ValueError(f"needs hidden (..., C), head (V, C) and target (...), got {shapes}")
    loss = partial(
        cross_entropy,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        reduction="sum",
    )
    counted = target != ignore_index
    if reduction == "mean":
        _require_some(counted, ignore_index)
    rows, classes = hidden.reshape(-1, head.shape[1]), target.reshape(-1)
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
        total = widen(hidden.new_zeros(()), "linear_cross_entropy")
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
        wide = torch.promote_types(head.dtype, torch.float32)
        d_head = torch.zeros_like(head, dtype=wide)
        for span in ctx.spans:
            logits = (hidden[span] @ head.T).requires_grad_()
            with torch.enable_grad():
                value = ctx.loss(logits, target[span])
            (d_logits,) = torch.autograd.grad(value, logits, grad)
            d_hidden[span] = d_logits @ head  # eq. eq-chunked-gradient
            d_head.addmm_(d_logits.T.to(wide), hidden[span].to(wide))
        return d_hidden, d_head.to(head.dtype), None, None, None


def cross_entropy_grad(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient of each position's loss with respect to its logits: p - y.

    logits (0, log 3), target 1: (1/4, -1/4).
    Shapes: logits (..., V), target (...) of integers or (..., V) of probabilities -> (..., V)
    Source: Bridle 1990.
    Raises: as cross_entropy; no position is ignored.
    """
    _counted(logits, target, None)
    p = softmax(widen(logits, "cross_entropy_grad"))
    if target.is_floating_point():
        return (p - target).to(logits.dtype)
    index = target.long().unsqueeze(-1)
    minus_one = p.new_full((), -1).expand(index.shape)
    return p.scatter_add(-1, index, minus_one).to(logits.dtype)  # eq. eq-ce-gradient


def cross_entropy_hessian(logits: Tensor) -> Tensor:
    """Hessian of each position's loss in its logits, for any target: diag(p) - p p^T.

    Shapes: logits (..., V) -> (..., V, V)
    Source: Böhning 1992.
    Raises: as functional.softmax.softmax.
    """
    wide = widen(logits, "cross_entropy_hessian")
    return softmax_jacobian(softmax(wide)).to(logits.dtype)  # eq. eq-ce-hessian


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, the mean of log(p / q) under p.

    p = (1/2, 1/2), q = (1/4, 3/4): log 2 - log(3) / 2. It is inf where q = 0 < p.
    Shapes: p (..., V), q (..., V) -> (...)
    Source: Kullback & Leibler 1951.
    Raises: ValueError if the shapes differ or one is not a distribution.
    """
    if p.shape != q.shape:
        raise ValueError(f"p {tuple(p.shape)} and q {tuple(q.shape)} must have one shape")
    check_distribution(p)
    check_distribution(q)
    wide_p, wide_q = (widen(law, "kl_divergence") for law in (p, q))
    # 0 log 0 = 0: replaced before the logarithm, whose gradient there would be NaN.
    safe_p, safe_q = (torch.where(wide_p > 0, law, 1) for law in (wide_p, wide_q))
    divergence = (wide_p * (safe_p.log() - safe_q.log())).sum(-1)  # eq. eq-kl
    return divergence.to(torch.promote_types(p.dtype, q.dtype))


def perplexity(nll_sum: Tensor, n_tokens: int | Tensor) -> Tensor:
    """Inverse geometric mean of the probabilities: exp(nll_sum / n_tokens).

    Two tokens with probabilities 1/2 and 1/8: exp(log(16) / 2) = 4.
    Shapes: nll_sum (...), n_tokens scalar or (...) -> (...)
    Source: Jelinek et al. 1977.
    Raises: ValueError if nll_sum is negative or NaN, or n_tokens is not positive.
    """
    # eq. eq-perplexity
    return (_nll(nll_sum) / _positive("n_tokens", n_tokens)).exp()


def bits_per_byte(nll_sum: Tensor, n_bytes: int) -> Tensor:
    """Cost of a text in bits for each of its bytes, whatever the tokenizer.

    One byte with probability 1/256: 8 bits.
    Shapes: nll_sum (...) -> (...)
    Source: Gao et al. 2020, arXiv:2101.00027.
    Raises: ValueError if nll_sum is negative or NaN, or n_bytes is not positive.
    """
    # eq. eq-bits-per-byte
    return _nll(nll_sum) / (math.log(2) * _positive("n_bytes", n_bytes))


def combine_microbatches(loss_sums: Tensor, counts: Tensor) -> Tensor:
    """Mean loss over micro-batches: the sum of the sums over the sum of the counts.

    Sums (6, 5) over (3, 1) targets: 11/4. The mean of the means, 7/2, is not it.
    Shapes: loss_sums (K,), counts (K,) -> ()
    Source: arithmetic.
    Raises: ValueError if the shapes differ, a sum is NaN, a count is negative, or all
    counts are 0.
    """
    if loss_sums.shape != counts.shape:
        shapes = tuple(loss_sums.shape), tuple(counts.shape)
        raise ValueError(f"loss_sums and counts must have one shape, got {shapes}")
    if loss_sums.isnan().any():
        raise ValueError("a loss sum is NaN")
    if not (counts >= 0).all() or not counts.sum() > 0:
        raise ValueError(f"counts must be >= 0 with a positive sum, got {counts.tolist()}")
    return loss_sums.sum() / counts.sum()  # eq. eq-microbatch


def _counted(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """Mask (...) of the positions that count; refuses a target that fits no class."""
    widen(logits, "cross_entropy")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} hold no class: the last axis is the classes"
        )
    soft = target.is_floating_point()
    expected = logits.shape if soft else logits.shape[:-1]
    if target.shape != expected:
        kind = "probabilities" if soft else "classes"
        raise ValueError(
            f"target {kind} {tuple(target.shape)} must be {tuple(expected)} for logits "
            f"{tuple(logits.shape)}, whose last axis is the classes"
        )
    if soft:
        check_distribution(target)
        return torch.ones_like(target[..., 0], dtype=torch.bool)
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"target holds integers or probabilities, got {target.dtype}")
    counted = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        counted = target != ignore_index
    outside = target[counted & ((target < 0) | (target >= logits.shape[-1]))]
    if outside.numel():
        ignored = "" if ignore_index is None else f", and is not ignore_index {ignore_index}"
        raise ValueError(f"target {outside[0]} is outside [0, {logits.shape[-1]}){ignored}")
    return counted


def _select(x: Tensor, counted: Tensor) -> Tensor:
    """The counted rows, (M,) or (M, V); at least float32 or int64."""
    rows = x.flatten(0, counted.ndim - 1) if counted.ndim and counted.all() else x[counted]
    return widen(rows, "cross_entropy") if x.is_floating_point() else rows.long()


def _require_some(counted: Tensor, ignore_index: int) -> None:
    if not counted.any():
        raise ValueError(f"a mean needs a target: all {counted.numel()} are {ignore_index}")


def _class_weights(weight: Tensor | None, rows: Tensor) -> Tensor:
    if weight is None:
        return rows.new_ones(rows.shape[-1])
    wide = widen(weight, "a class weight")
    if weight.shape != rows.shape[-1:]:
        raise ValueError(f"weight {tuple(weight.shape)} must be ({rows.shape[-1]},), one a class")
    if not ((wide >= 0) & wide.isfinite()).all():
        raise ValueError(f"weights must be finite and >= 0, got a smallest of {wide.min():g}")
    return wide.to(rows.dtype)


def _expected(log_p: Tensor, target: Tensor, smoothing: float, weights: Tensor) -> Tensor:
    """Weighted mean of log p under the smoothed target, for each row."""
    V = log_p.shape[-1]
    if target.is_floating_point():
        smoothed = (1 - smoothing) * target + smoothing / V
        return _times(smoothed * weights, log_p).sum(-1)  # eq. eq-ce-soft
    chosen = log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    hard = _times(weights[target], chosen)  # eq. eq-ce
    if not smoothing:
        return hard
    uniform = _times(weights / V, log_p).sum(-1)
    return (1 - smoothing) * hard + smoothing * uniform  # eq. eq-smoothing


def _times(factor: Tensor, value: Tensor) -> Tensor:
    """Product in which 0 times inf is 0, as in 0 log 0."""
    return factor * value.masked_fill(factor == 0, 0)


def _denominator(target: Tensor, weights: Tensor, given: Tensor | None) -> Tensor | int:
    if given is None or target.is_floating_point():
        return target.shape[0]
    total = weights[target].sum()
    if total == 0:
        raise ValueError("a weighted mean needs a positive weight: those of all targets are 0")
    return total


def _check_options(label_smoothing: float, z_loss: float, reduction: str) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"z_loss must be finite and >= 0, got {z_loss}")
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _nll(nll_sum: Tensor) -> Tensor:
    if not (nll_sum >= 0).all():
        raise ValueError(f"nll_sum must be >= 0, a sum of -log p, got {nll_sum.min().item():g}")
    return nll_sum


def _positive(name: str, count: int | Tensor) -> int | Tensor:
    if not torch.as_tensor(count > 0).all():
        raise ValueError(f"{name} must be positive, got {count}")
    return count
