"""Which experts does a token go to, and with which weights?"""

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import require_finite, require_floating, require_in, require_shapes
from llmref.components.moe._sizes import require_k
from llmref.functional.softmax import softmax


def softmax_top_k(logits: Tensor, k: int, *, renormalize: bool) -> tuple[Tensor, Tensor]:
    """Weights by the softmax over all experts, and the k experts of the largest logits.

    Logits (log 4, log 3, log 1) with k = 2 give (1/2, 3/8) and, renormalised, (4/7, 3/7).
    Experts come in falling order, of equal logits the lower index first; weights are float32 at
    least.
    Shapes: logits (..., E) -> weights (..., k), experts (..., k)
    Source: Fedus et al. 2021, arXiv:2101.03961 (k = 1, not renormalised).
    Differs: chosen by logits, since exponentials that underflow are all equal.
    Raises: TypeError unless logits are floating point; ValueError unless 1 <= k <= E, or if the
    largest logit of a token is not finite or one of them is NaN.
    """
    experts = _largest(logits, k, "logits")
    weights = softmax(widen(logits, "logits")).gather(-1, experts)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)  # eq. eq-moe-renormalized
    return weights, experts


def top_k_softmax(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k experts of the largest logits, and the softmax over these k logits alone.

    The same as softmax_top_k with renormalize, but for rounding.
    Shapes: logits (..., E) -> weights (..., k), experts (..., k)
    Source: the order of Mixtral's paper (Jiang et al. 2024, arXiv:2401.04088) and of gpt-oss.
    Raises: as softmax_top_k.
    """
    experts = _largest(logits, k, "logits")
    wide = widen(logits, "logits")
    return softmax(wide.gather(-1, experts)), experts  # eq. eq-moe-top-k-softmax


def biased_top_k(
    scores: Tensor, bias: Tensor, k: int, *, renormalize: bool
) -> tuple[Tensor, Tensor]:
    """Choose by score plus bias, weigh by the score alone; the bias gets no gradient.

    Scores are nonnegative, such as the sigmoid of logits in DeepSeek-V3, which renormalises them.
    Shapes: scores (..., E), bias (E) -> weights (..., k), experts (..., k)
    Source: Wang et al. 2024, arXiv:2408.15664.
    Differs: no limit on groups of experts; scores that sum to 0 are refused where others add 1e-20.
    Raises: TypeError unless both are floating point; ValueError unless 1 <= k <= E, for a negative
    or infinite score, a bias that is not finite, and chosen scores to renormalise that sum to 0.
    """
    wide = widen(scores, "scores")
    require_floating(bias=bias)
    require_shapes("scores (..., E), bias (E)", scores=scores, bias=bias)
    require_in("[0, inf)", scores=scores)
    require_finite(bias=bias)
    with torch.no_grad():
        experts = _largest(wide + bias.to(wide_dtype(scores, bias)), k, "scores")
    weights = wide.gather(-1, experts)
    if not renormalize:
        return weights, experts
    total = weights.sum(-1, keepdim=True)
    if not (total > 0).all():
        raise ValueError("chosen scores must not all be 0: they cannot be renormalised")
    return weights / total, experts


def _largest(scores: Tensor, k: int, name: str) -> Tensor:
    """The places of the k largest entries, in falling order; of equal ones the first."""
    require_floating(**{name: scores})
    require_shapes(f"{name} (..., E)", **{name: scores})
    require_k(k, scores.shape[-1])
    if scores.isnan().any():
        raise ValueError(f"{name} must not be NaN")
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :k]
