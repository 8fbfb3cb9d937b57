"""Which average of the values does a query read, and how does a gradient flow back through it?

Leaves out: projections and heads (each leading axis is independent), the builders of masks, and the
blockwise form that never stores the weights.
"""

import math

import torch
from torch import Tensor

from llmref._numeric import check_distribution, widen
from llmref._require import (
    boolean_mask,
    require_in,
    require_number,
    require_one_dtype,
    require_positive,
    require_shapes,
)
from llmref.attention._inputs import require_inputs, require_scores
from llmref.attention._masking import bias_and_allowed, expand_mask


def attention_scores(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Dot product of each query with each key, times the scale.

    query (3, 4), keys (1, 0) and (0, 2), scale 1/2: scores (1.5, 4).
    Shapes: query (B, H, T, D), key (B, H, S, D) -> (B, H, T, S); any leading axes in place of B, H
    Source: Vaswani et al. 2017, arXiv:1706.03762; scale=None is its 1 / sqrt(D).
    Differs: float16 and bfloat16 are multiplied in float32 and rounded once.
    Raises: TypeError unless both are floating point and of one dtype; ValueError if the leading
    axes or the head sizes differ, D is 0, or the scale is not finite.
    """
    require_inputs(query=query, key=key)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    require_number(scale=scale)
    require_in("(-inf, inf)", scale=scale)
    # eq. eq-attention-scores. The scale goes to T D numbers in place of T S.
    scaled = scale * widen(query)
    if (~scaled.isfinite()).sum() > (~query.isfinite()).sum():
        raise ValueError(f"query times scale {scale:g} must be finite in {scaled.dtype}")
    return (scaled @ widen(key).mT).to(query.dtype)


def soft_cap(scores: Tensor, cap: float) -> Tensor:
    """Scores pressed into (-cap, cap), smoothly: cap tanh(scores / cap).

    cap 2 takes 0 to 0, log 3 to 1 and -inf to -2: it belongs before the mask.
    Shapes: scores (...) -> (...)
    Source: Gemma 2, arXiv:2408.00118, section 2: cap 50 in attention, 30 for the last logits.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless scores is floating point; ValueError unless cap is positive and finite.
    """
    require_number(cap=cap)
    require_positive(cap=cap)
    return (cap * torch.tanh(widen(scores, "scores") / cap)).to(scores.dtype)  # eq. eq-soft-cap


def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax over the allowed entries of each row, 0 elsewhere.

    scores (0, log 3, 7), mask (True, True, False): (1/4, 3/4, 0). An entry -inf counts as masked.
    A row with nothing allowed is zero, and so is its gradient: these weights serve a sum, and a sum
    over nothing is 0.
    Shapes: scores (..., T, S), mask broadcastable to it, True may attend -> (..., T, S)
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    Raises: TypeError unless scores is floating point; ValueError if an allowed score is +inf or
    NaN, or the mask holds anything but True and False (or 0 and 1), or does not broadcast.
    """
    wide = widen(scores, "scores")
    if mask is not None:
        expand_mask(mask, scores.shape)  # whether it fits; the mask itself stays small
        wide = wide.masked_fill(~boolean_mask(mask), -math.inf)
    if scores.shape[-1] == 0:
        return scores.clone()
    weights = wide.softmax(-1)  # eq. eq-attention-weights, in one pass over memory
    if weights[..., 0].isnan().any():  # one NaN is a row of them: empty, or without weights
        peak = wide.detach().amax(-1, keepdim=True)  # (..., T, 1)
        if not (peak < math.inf).all():
            raise ValueError("an allowed score is +inf or NaN: the weights of its row do not exist")
        empty = peak == -math.inf
        # Filled before the softmax too: otherwise the gradient of an empty row would be NaN.
        weights = wide.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
    return weights.to(scores.dtype)


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    softcap: float | None = None,
) -> Tensor:
    """Share of each key in the average that each query reads.

    Shapes: query (B, H, T, D), key (B, H, S, D), attn_mask broadcastable to (B, H, T, S) ->
    (B, H, T, S). A boolean (or integer 0/1) mask selects, True may attend; a floating-point mask is
    added to the scores, 0 and 1 included. softcap bounds the scores by soft_cap, before both.
    Source: Vaswani et al. 2017, arXiv:1706.03762; Gemma 2, arXiv:2408.00118 for softcap.
    Differs: is_causal aligns the last query with the last key (query i sees keys up to i + S - T);
    torch aligns the first with the first. With attn_mask as well, a pair must be allowed by both.
    Raises: as attention_scores, masked_softmax and soft_cap; ValueError if is_causal and T > S, or
    the score of a finite query and key overflows to -inf, which would count as masked.
    """
    q, k = widen(query, "query"), widen(key, "key")
    scores = attention_scores(q, k, scale)
    bias, allowed = bias_and_allowed(attn_mask, is_causal, scores.shape, scores.device)
    if softcap is None:
        require_scores(scores, q, k, q.shape[-1] ** -0.5 if scale is None else scale, bias, allowed)
    else:
        scores = soft_cap(scores, softcap)
    scores = scores if bias is None else scores + bias
    return masked_softmax(scores, allowed).to(query.dtype)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    softcap: float | None = None,
) -> Tensor:
    """Average of the values, weighted by the softmax of the scaled scores.

    Shapes: query (B, H, T, D), key (B, H, S, D), value (B, H, S, Dv) -> (B, H, T, Dv), mask and
    softcap as in attention_weights. A query that may attend to nothing reads 0, with gradient 0.
    Source: Vaswani et al. 2017, arXiv:1706.03762.
    Differs: dropout_p acts on the weights whenever it is not 0: a function has no eval mode.
    Raises: as attention_weights; ValueError if key and value differ in S, or dropout_p is not in
    [0, 1).
    """
    require_inputs(query=query, key=key, value=value)
    require_in("[0, 1)", dropout_p=dropout_p)
    weights = attention_weights(
        widen(query), widen(key), attn_mask, is_causal, scale, softcap=softcap
    )
    weights = torch.nn.functional.dropout(weights, dropout_p)
    return (weights @ widen(value)).to(value.dtype)  # eq. eq-attention


def scaled_dot_product_attention_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries, keys and values from the gradient of the output.

    Shapes: grad_output (B, H, T, Dv), the others as in scaled_dot_product_attention -> the shapes
    of query, key and value
    Source: Dao et al. 2022, arXiv:2205.14135, the backward pass in its appendix.
    Raises: as scaled_dot_product_attention; ValueError if grad_output is not (..., T, Dv).
    """
    require_inputs(query=query, key=key, value=value)
    axes = "query (..., T, D), value (..., S, Dv), grad_output (..., T, Dv)"
    require_shapes(axes, query=query, value=value, grad_output=grad_output)
    q, k, v, grad = (*map(widen, (query, key, value)), widen(grad_output, "grad_output"))
    require_one_dtype(query=q, grad_output=grad)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    weights = attention_weights(q, k, attn_mask, is_causal, scale, softcap=softcap)
    # eq. eq-attention-backward, line by line
    grad_value = weights.mT @ grad
    grad_weights = grad @ v.mT  # (B, H, T, S)
    mean = (grad * (weights @ v)).sum(-1, keepdim=True)  # (B, H, T, 1), needs no row of S entries
    grad_scores = weights * (grad_weights - mean)
    if softcap is not None:  # eq. eq-soft-cap-gradient
        share = soft_cap(attention_scores(q, k, scale), softcap) / softcap
        grad_scores = grad_scores * (1 - share.square())
    grad_query = scale * grad_scores @ k
    grad_key = scale * grad_scores.mT @ q
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)


def effective_keys(p: Tensor, dim: int = -1) -> Tensor:
    """Number of keys that a row of weights amounts to: n equal weights count as n.

    effective_keys((1/2, 1/2, 0)) = 2.
    Shapes: p (..., S, ...) -> (..., ...), each in [1, S]
    Source: the inverse of Simpson's index, Simpson 1949.
    Raises: TypeError unless p is floating point; ValueError if dim is no axis of p, or p is not a
    distribution along it; an empty row of attention is none.
    """
    check_distribution(p, dim)
    return widen(p).square().sum(dim).reciprocal().to(p.dtype)  # eq. eq-effective-keys


def nadaraya_watson(query: Tensor, key: Tensor, value: Tensor, bandwidth: float) -> Tensor:
    """Average of the values, each weighted by a Gaussian of its key's distance from the query.

    The bandwidth is the standard deviation sigma of the Gaussian, in the units of the keys.
    Shapes: query (B, H, T, D), key (B, H, S, D), value (B, H, S, Dv) -> (B, H, T, Dv)
    Source: Nadaraya 1964, Watson 1964.
    Raises: as scaled_dot_product_attention; ValueError unless bandwidth is positive and finite, or
    if the squared distances from a query to all keys overflow.
    """
    require_inputs(query=query, key=key, value=value)
    require_positive(bandwidth=bandwidth)
    difference = widen(query).unsqueeze(-2) - widen(key).unsqueeze(-3)  # (B, H, T, S, D)
    squared = difference.square().sum(-1)
    if key.shape[-2] > 0:
        nearest = squared.detach().amin(-1, keepdim=True)  # (B, H, T, 1)
        if not nearest.isfinite().all():
            raise ValueError(
                "the squared distance from each query to its nearest key must be finite, "
                f"got {nearest[~nearest.isfinite()][0]}"
            )
        squared = squared - nearest  # a factor of the row: its largest kernel cannot underflow
    log_kernel = -squared / bandwidth / (2 * bandwidth)  # eq. eq-gaussian-kernel
    return (masked_softmax(log_kernel) @ widen(value)).to(value.dtype)
