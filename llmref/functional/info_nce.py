"""What does it cost to pick a query's own key out of N candidates, and what does that tell?

Leaves out: where candidates come from (queues, gathering over devices, mining of hard ones) and the
encoders. The positive key is one of the N. float16 and bfloat16 are widened to float32, and so is
the loss.
"""

import math

import torch
from torch import Tensor

from llmref._numeric import Reduction, reduce_rows, wide_dtype, widen
from llmref._require import (
    require_axis,
    require_finite,
    require_floating,
    require_ids,
    require_number,
    require_positive,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.functional.softmax import log_softmax, logsumexp


def info_nce(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    negatives: Tensor | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the log-probability of each query's own key among the candidates.

    Without `negatives` the candidates are the B keys of the batch; with them, the own key and the K
    negatives, and no other key of the batch.
    Shapes: query (B, D), key (B, D), negatives (K, D) for all or (B, K, D) for each -> (), or (B,)
    Source: van den Oord, Li & Vinyals 2018, arXiv:1807.03748.
    Raises: TypeError unless floating point; ValueError if the shapes do not fit, there is no
    negative, the temperature is not one positive and finite number, a vector to be normalised is 0,
    or the reduction is unknown.
    """
    require_tensor(query=query, key=key)
    require_shapes("query (B, D), key (B, D)", query=query, key=key)
    _require_number(temperature=temperature)
    direction = _unit if normalize else widen
    query, key = _one_dtype(direction(query, "query"), direction(key, "key"))
    if negatives is None:
        return info_nce_from_scores(query @ key.T / temperature, reduction=reduction)
    require_tensor(negatives=negatives)
    axes = "B, K, D" if negatives.ndim == 3 else "K, D"
    require_shapes(f"query (B, D), negatives ({axes})", query=query, negatives=negatives)
    query, key, negatives = _one_dtype(query, key, direction(negatives, "negatives"))
    own = (query * key).sum(-1, keepdim=True)  # (B, 1)
    others = (negatives @ query.unsqueeze(-1)).squeeze(-1)  # (B, K)
    scores = torch.cat([own, others], dim=1) / temperature
    first = torch.zeros_like(scores[:, 0], dtype=torch.long)
    return info_nce_from_scores(scores, first, reduction=reduction)


def info_nce_from_scores(
    scores: Tensor, positive: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Minus the log-softmax of the positive's score, the positive being one of the candidates.

    Scores ((0, log 3), (0, 0)), positives on the diagonal: (log 4, log 2).
    Shapes: scores (B, N), already divided by the temperature, -inf for no candidate; positive (B,)
    integers, None for the diagonal -> (), or (B,) with reduction "none"
    Source: van den Oord, Li & Vinyals 2018, arXiv:1807.03748.
    Raises: TypeError for a wrong dtype; ValueError if the shapes do not fit, a positive is outside
    [0, N), there is no negative, a row has no finite maximum, or the reduction is unknown.
    """
    index = _positive_index(scores, positive)
    # eq. eq-info-nce
    losses = -log_softmax(widen(scores, "scores")).gather(1, index).squeeze(1)
    return reduce_rows(losses, reduction)


def decoupled_contrastive(
    scores: Tensor, positive: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Log-sum-exp of the negatives minus the positive: the positive is left out on purpose.

    It has no lower bound and bounds no mutual information.
    Scores ((0, log 3), (0, 0)), positives on the diagonal: (log 3, 0).
    Shapes: as info_nce_from_scores
    Source: Yeh et al. 2021, arXiv:2110.06848.
    Raises: as info_nce_from_scores; ValueError unless the positive and one more score of each row
    are finite.
    """
    index = _positive_index(scores, positive)
    wide = widen(scores, "scores")
    own = wide.gather(1, index)  # (B, 1)
    require_finite(" where it is the positive's", scores=own)
    others = logsumexp(wide.scatter(1, index, -math.inf))
    if not others.isfinite().all():
        raise ValueError("a row has no negative with a finite score")
    # eq. eq-decoupled
    return reduce_rows(others - own.squeeze(1), reduction)


def clip_loss(
    image: Tensor, text: Tensor, *, logit_scale: Tensor | float, reduction: Reduction = "mean"
) -> Tensor:
    """InfoNCE from images to texts and from texts to images, averaged.

    Shapes: image (B, D), text (B, D), normalised here; logit_scale scalar, 1 / temperature (not its
    logarithm, which is the usual parameter) -> (), or (B,) with reduction "none"
    Source: Radford et al. 2021, arXiv:2103.00020.
    Raises: as info_nce.
    """
    require_shapes("image (B, D), text (B, D)", image=image, text=text)
    _require_number(logit_scale=logit_scale)
    image, text = _one_dtype(_unit(image, "image"), _unit(text, "text"))
    scores = logit_scale * image @ text.T
    return clip_loss_from_scores(scores, reduction=reduction)


def clip_loss_from_scores(scores: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean of the loss over rows and the loss over columns, the positives on the diagonal.

    Scores ((0, log 3), (0, 0)): rows (log 4, log 2), columns (log 2, log 4), so 1.5 log 2 each.
    Shapes: scores (B, B), already times the scale -> (), or (B,) with reduction "none"
    Source: Radford et al. 2021, arXiv:2103.00020.
    Raises: as info_nce_from_scores; ValueError if scores is not square.
    """
    require_floating(scores=scores)
    require_shapes("scores (B, B)", scores=scores)
    rows, columns = (info_nce_from_scores(s, reduction="none") for s in (scores, scores.T))
    return reduce_rows((rows + columns) / 2, reduction)  # eq. eq-clip


def mi_lower_bound(loss: Tensor, n_candidates: int) -> Tensor:
    """Nats of mutual information that an expected InfoNCE loss certifies: log N - loss.

    Loss 0 with 4 candidates: log 4, the most that 4 candidates can show.
    Shapes: loss (...) -> (...)
    Source: Poole et al. 2019, arXiv:1905.06922.
    Raises: ValueError if n_candidates, which counts the positive, is below 2, or a loss is negative
    or NaN: such a loss left the positive out of its denominator, and bounds nothing; TypeError
    unless n_candidates is an int.
    """
    require_size(2, n_candidates=n_candidates)
    require_floating(loss=loss)
    if not (loss >= 0).all():
        raise ValueError(
            f"an InfoNCE loss is >= 0, got {loss.min().item():g}: is the positive in the "
            "denominator?"
        )
    return math.log(n_candidates) - loss  # eq. eq-mi-bound


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance of positive pairs, to the power alpha.

    x = ((1, 0),), y = ((0, 1),), alpha 2: 2.
    Shapes: x (B, D), y (B, D), meant to be unit vectors -> ()
    Source: Wang & Isola 2020, arXiv:2005.10242.
    Differs: the gradient of a pair at distance 0, the least one, is 0 for every alpha.
    Raises: TypeError unless both are floating point; ValueError if the shapes differ, there is no
    pair, a distance is not finite, or alpha is not positive.
    """
    require_shapes("x (B, D), y (B, D)", x=x, y=y)
    require_axis("B", 1, "x (B, D)", x=x)
    require_positive(alpha=alpha)
    apart = widen(x) - widen(y, "y")
    distance: Tensor = torch.linalg.vector_norm(apart, dim=-1)  # (B,)
    require_finite(distance=distance)
    return distance[distance > 0].pow(alpha).sum() / len(x)  # eq. eq-alignment


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean of exp(-t |x_i - x_j|^2) over all pairs i < j; lower is more uniform.

    x = ((1, 0), (-1, 0)), t = 2: -8.
    Shapes: x (B, D), meant to be unit vectors -> ()
    Source: Wang & Isola 2020, arXiv:2005.10242.
    Raises: TypeError unless x is floating point; ValueError unless there are at least two vectors,
    all distances are finite and t is positive.
    """
    require_floating(x=x)
    require_axis("B", 2, "x (B, D)", x=x)
    require_number(t=t)
    require_positive(t=t)
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    wide = widen(x)
    square = (wide[i] - wide[j]).square().sum(-1)  # (B (B - 1) / 2,)
    require_finite(square_distance=square)
    return logsumexp(-t * square) - math.log(len(i))  # eq. eq-uniformity


def _positive_index(scores: Tensor, positive: Tensor | None) -> Tensor:
    """The column of each row's positive, (B, 1)."""
    require_floating(scores=scores)
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise ValueError(
            f"scores must be (B, N) with at least one negative, so N >= 2, got "
            f"{tuple(scores.shape)}"
        )
    B, N = scores.shape
    if positive is None:
        if N < B:
            raise ValueError(f"the diagonal needs a column for each row, got {tuple(scores.shape)}")
        positive = torch.arange(B, device=scores.device)
    require_shapes("scores (B, N), positive (B,)", scores=scores, positive=positive)
    require_ids(N, positive=positive)
    return positive.long().unsqueeze(1)


def _unit(x: Tensor, name: str) -> Tensor:
    """Each vector divided by its length, in at least float32."""
    require_axis("D", 1, f"{name} (..., D)", **{name: x})
    wide = widen(x, name)
    peak = wide.detach().abs().amax(-1, keepdim=True)  # squares neither overflow nor vanish
    bad = peak[~((peak > 0) & peak.isfinite())]
    if bad.numel():
        raise ValueError(f"a vector of {name} has length {bad[0].item():g} and no direction")
    scaled = wide / peak
    length: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / length


def _one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.to(wide_dtype(*tensors)) for tensor in tensors)


def _require_number(**values: float | Tensor) -> None:
    for name, value in values.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{name} must be one number, got {tuple(value.shape)}")
    require_positive(**values)
