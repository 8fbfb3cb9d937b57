"""The loss of a prediction over V classes, its gradient and its Hessian.

Leaves out: heads too large for their logits (see chunked).
"""

import torch
from torch import Tensor

from llmref._numeric import Reduction, check_distribution, widen
from llmref._require import (
    require_floating,
    require_ids,
    require_in,
    require_int,
    require_integers,
    require_shapes,
    require_tensor,
)
from llmref.functional.cross_entropy._options import require_options, require_some
from llmref.functional.softmax import log_softmax, logsumexp, softmax, softmax_jacobian


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
    a mean over nothing, a negative weight, a label_smoothing outside [0, 1), a z_loss that
    is negative, and an unknown reduction.
    """
    require_options(label_smoothing, z_loss, reduction)
    counted = _counted(logits, target, ignore_index)
    rows, chosen = _select(logits, counted), _select(target, counted)
    weights = _class_weights(weight, rows)
    losses = -_expected(log_softmax(rows), chosen, label_smoothing, weights)
    penalties = z_loss * logsumexp(rows).square() if z_loss else torch.zeros_like(losses)
    if reduction == "none":
        each = losses + penalties
        return torch.zeros_like(counted, dtype=each.dtype).masked_scatter(counted, each)
    if reduction == "sum":
        return (losses + penalties).sum()
    require_some(counted, ignore_index)
    return losses.sum() / _denominator(chosen, weights, weight) + penalties.mean()


def cross_entropy_grad(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient of each position's loss with respect to its logits: p - y.

    logits (0, log 3), target 1: (1/4, -1/4).
    Shapes: logits (..., V), target (...) of integers or (..., V) of probabilities -> (..., V)
    Source: Bridle 1990.
    Raises: as cross_entropy; no position is ignored.
    """
    _counted(logits, target, None)
    p = softmax(widen(logits, "logits"))
    if target.is_floating_point():
        return (p - target).to(logits.dtype)
    index = target.long().unsqueeze(-1)
    others = p.scatter(-1, index, 0)
    # eq. eq-ce-gradient: minus the others at the target, since p - 1 cancels near p = 1.
    return others.scatter(-1, index, -others.sum(-1, keepdim=True)).to(logits.dtype)


def cross_entropy_hessian(logits: Tensor) -> Tensor:
    """Hessian of each position's loss in its logits, for any target: diag(p) - p p^T.

    Shapes: logits (..., V) -> (..., V, V)
    Source: Böhning 1992.
    Raises: as functional.softmax.softmax.
    """
    return softmax_jacobian(softmax(widen(logits, "logits"))).to(logits.dtype)  # eq. eq-ce-hessian


def _counted(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """Mask (...) of the positions that count; refuses a target that fits no class."""
    require_floating(logits=logits)
    require_tensor(target=target)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} hold no class: the last axis is the classes"
        )
    if target.is_floating_point():
        require_shapes("logits (..., V), target (..., V)", logits=logits, target=target)
        check_distribution(target, name="target")
        return torch.ones_like(target[..., 0], dtype=torch.bool)
    require_integers(target=target)
    require_shapes("logits (..., V), target (...)", logits=logits, target=target)
    if ignore_index is None:
        require_ids(logits.shape[-1], target=target)
        return torch.ones_like(target, dtype=torch.bool)
    require_int(ignore_index=ignore_index)
    counted = target.long() != ignore_index  # in 8 bits, -100 would be compared as 156
    hint = f", and it is not ignore_index {ignore_index}"
    require_ids(logits.shape[-1], hint=hint, target=target[counted])
    return counted


def _select(x: Tensor, counted: Tensor) -> Tensor:
    """The counted rows, (M,) or (M, V); at least float32 or int64."""
    rows = x.flatten(0, counted.ndim - 1) if counted.ndim and counted.all() else x[counted]
    return widen(rows) if x.is_floating_point() else rows.long()


def _class_weights(weight: Tensor | None, rows: Tensor) -> Tensor:
    if weight is None:
        return rows.new_ones(rows.shape[-1])
    require_shapes("logits (..., V), weight (V,)", logits=rows, weight=weight)
    require_floating(weight=weight)
    require_in("[0, inf)", weight=weight)
    return weight.to(rows.dtype)


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
    # No more is replaced than must be: the slope in a factor that is 0 is the value.
    return factor * value.masked_fill((factor == 0) & value.isinf(), 0)


def _denominator(target: Tensor, weights: Tensor, given: Tensor | None) -> Tensor | int:
    if given is None or target.is_floating_point():
        return target.shape[0]
    total = weights[target].sum()
    if total == 0:
        raise ValueError("a weighted mean needs a positive weight: those of all targets are 0")
    return total
