"""Whether queries, keys and values fit each other, and their scores a dtype."""

import math

import torch
from torch import Tensor

from llmref._require import require_axis, require_one_dtype, require_shapes


def require_inputs(**tensors: Tensor) -> None:
    """The query, the key and, where given, the value have one dtype and shapes that fit.

    Raises: TypeError unless they are floating point and of one dtype; ValueError if the leading
    axes, the head sizes or the numbers of keys differ, or the head size is 0.
    """
    require_one_dtype(**tensors)
    axes = "query (..., T, D), key (..., S, D)" + ", value (..., S, Dv)" * ("value" in tensors)
    require_shapes(axes, **tensors)
    require_axis("D", 1, "query (..., T, D)", query=tensors["query"])


def require_scores(
    scores: Tensor,
    query: Tensor,
    key: Tensor,
    scale: float,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
) -> None:
    """Refuse -inf as the score of a finite query and key that may attend: it would be masked.

    The T S scores are looked at only if the longest query and key could have such a score.
    Shapes: scores (..., T, S), bias and allowed broadcastable to it
    Raises: ValueError that names dtype and lengths.
    """
    if not scores.numel():
        return
    longest = [x.detach().norm(dim=-1).amax().item() for x in (query, key)]
    if longest[0] * longest[1] * abs(scale) < torch.finfo(scores.dtype).max / 2:
        return  # Cauchy and Schwarz; what is NaN or infinite goes on
    finite = [x.isfinite().all(-1) for x in (query, key)]
    lost = (scores == -math.inf) & finite[0].unsqueeze(-1) & finite[1].unsqueeze(-2)
    lost = lost if allowed is None else lost & allowed
    lost = lost if bias is None else lost & (bias > -math.inf)
    if lost.any():
        raise ValueError(
            f"the score of a finite query and key overflows {scores.dtype} to -inf, and would "
            f"count as masked: the longest are {longest[0]:.3g} and {longest[1]:.3g}, scale one "
            "of them down"
        )
