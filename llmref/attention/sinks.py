"""How can a head say nothing: what does one more logit in the softmax do, which has no value?

Leaves out: where the logit comes from (it is trained), dropout, and the first tokens that models
without such a logit use as one.
"""

import math

import torch
from torch import Tensor

from llmref._numeric import wide_dtype, widen
from llmref._require import require_floating, require_in, require_one_dtype, require_shapes
from llmref.attention._heads import heads_per_group
from llmref.attention._masking import expand_mask, require_heads_axis
from llmref.attention.online_softmax import flash_attention


def sink_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sink: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention in which the softmax of each row has one more entry, the sink, without a value.

    One key, its score 0 and its value 8, sink log 3: 8 / (1 + 3) = 2.
    Shapes: query (B, H, T, D), key (B, G, S, D), value (B, G, S, Dv) with G dividing H, sink (H,),
    attn_mask broadcastable to (B, H, T, S) -> (B, H, T, Dv). Masks as in
    scaled_dot_product_attention; scale=None is 1 / sqrt(D), and is not for the sink.
    Source: Agarwal et al. 2025 (gpt-oss), arXiv:2508.10925.
    Differs: a query that may attend to nothing reads 0, with gradient 0, whatever its sink.
    Raises: as flash_attention and apply_sink; ValueError if a tensor does not have these axes or
    attn_mask has three.
    """
    require_heads_axis(attn_mask)
    require_one_dtype(query=query, key=key, value=value)
    named = {"query": query, "key": key, "value": value, "sink": sink}
    axes = "query (B, H, T, D), key (B, G, S, D), value (B, G, S, Dv), sink (H,)"
    require_shapes(axes, **named)
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    group = (B, G, heads_per_group(H, G))
    if attn_mask is not None:
        attn_mask = expand_mask(attn_mask, (B, H, T, S)).reshape(*group, T, S)
    queries = widen(query).reshape(*group, T, D)
    keys, values = (widen(x).unsqueeze(2).expand(*group, S, -1) for x in (key, value))  # views
    found = flash_attention(queries, keys, values, attn_mask, is_causal, scale, return_lse=True)
    out, lse = (x.reshape(B, H, *x.shape[3:]) for x in found)
    return apply_sink(out, lse, sink).to(value.dtype)  # eq. eq-sink-gate


def apply_sink(output: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    """Attention with a sink, from attention without: times the share that the keys keep.

    output 8 with lse 0 and sink log 3: 8 sigmoid(-log 3) = 2. Where lse is -inf there is no key,
    and the result is 0. Sink -inf is none. The share errs by at most a quarter of what lse does.
    Shapes: output (..., H, T, Dv), lse (..., H, T), sink (H,) -> (..., H, T, Dv)
    Source: Agarwal et al. 2025 (gpt-oss), arXiv:2508.10925, with the exponentials divided out.
    Differs: 16-bit outputs and sinks are computed in float32 and rounded once.
    Raises: TypeError unless all are floating point; ValueError if the shapes differ from these, lse
    is of 16 bits, or an entry of lse or of sink is +inf or NaN.
    """
    require_shapes(
        "output (..., H, T, Dv), lse (..., H, T), sink (H,)", output=output, lse=lse, sink=sink
    )
    share = _kept(lse, sink, widen(output, "output"))
    return (share.unsqueeze(-1) * widen(output)).to(output.dtype)  # eq. eq-sink-gate


def sink_backward(
    grad_output: Tensor, output_with_sink: Tensor, lse: Tensor, sink: Tensor
) -> Tensor:
    """Gradient of each head's sink, from what its attention with a sink returned.

    Output 2 with lse 0, sink log 3 and gradient 1: -(3 / 4) 2 = -3/2.
    Shapes: grad_output and output_with_sink (..., H, T, Dv), lse (..., H, T), sink (H,) -> (H,)
    Source: the derivative of eq. eq-sink-gate; needs no row of scores.
    Raises: as apply_sink.
    """
    axes = (
        "output_with_sink (..., H, T, Dv), grad_output (..., H, T, Dv), lse (..., H, T), sink (H,)"
    )
    named = {"output_with_sink": output_with_sink, "grad_output": grad_output, "lse": lse}
    require_shapes(axes, sink=sink, **named)
    output = widen(output_with_sink, "output_with_sink")
    taken = _kept(lse, sink, output, of_sink=True)
    along = (widen(grad_output, "grad_output") * output).sum(-1)  # (..., H, T)
    return -(taken * along).movedim(-2, 0).flatten(1).sum(1).to(sink.dtype)  # eq. eq-sink-gradient


def _kept(lse: Tensor, sink: Tensor, output: Tensor, *, of_sink: bool = False) -> Tensor:
    """Share of the keys in each row's softmax, or that of the sink; 0 where there is no key.

    Shapes: lse (..., H, T), sink (H,) -> (..., H, T)
    """
    require_floating(lse=lse, sink=sink)
    if lse.dtype.itemsize < 4:
        raise ValueError(f"lse must be of 32 bits at least, got {lse.dtype}")
    require_in("[-inf, inf)", lse=lse, sink=sink)
    dtype = wide_dtype(lse, sink, output)
    empty = lse == -math.inf
    # Filled before the difference: else the gradient of an empty row would be NaN.
    above = lse.to(dtype).masked_fill(empty, 0) - sink.to(dtype)[:, None]
    return torch.sigmoid(-above if of_sink else above).masked_fill(empty, 0)
