"""How do a masked product, a recurrence and chunks give the same causal sum over keys?

Scores are products without an exponential; positions fade by decays that the caller gives.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_axis,
    require_finite,
    require_one_dtype,
    require_shapes,
    require_size,
)
from llmref.attention.linear_attention._steps import pair_decays, prepared, rounded


def linear_attention_parallel(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None = None
) -> Tensor:
    """Causal attention whose weights are products, not a softmax, as one masked matrix product.

    No scale, no feature map and no sum to divide by: whoever wants them changes query and key.
    One feature, queries 1, keys 1, values 4 and 8, log decays 0 and log(1/2): 4, and 4/2 + 8 = 10.
    Shapes: query, key (..., T, Dk), value (..., T, Dv), log_decay (..., T) -> (..., T, Dv)
    Source: Katharopoulos et al. 2020, arXiv:2006.16236.
    Differs: a decay, and no division; computed in float32 at least.
    Raises: TypeError unless query, key and value are floating point and of one dtype, and log_decay
    floating point; ValueError for shapes that do not fit, a log_decay above 0 (-inf is legal: all
    that came before is forgotten), or a result that is not finite.
    """
    q, k, v, g, state = prepared(query, key, value, log_decay, None)
    out = ((q @ k.mT).tril() * pair_decays(g)) @ v  # eq. eq-linear-attention
    return rounded([out], state, value)[0]


def linear_attention_recurrent(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same as linear_attention_parallel, token by token; and the state after the last one.

    The state is decayed, written, and then read.
    Shapes: query, key (..., T, Dk), value (..., T, Dv), log_decay (..., T), initial_state
    (..., Dk, Dv) -> (..., T, Dv), (..., Dk, Dv) in float32 at least
    Source: Katharopoulos et al. 2020, arXiv:2006.16236.
    Differs: a decay, and no division.
    Raises: as linear_attention_parallel; TypeError unless initial_state is floating point.
    """
    q, k, v, g, state = prepared(query, key, value, log_decay, initial_state)
    outputs, decay = [], g.exp()
    for t in range(q.shape[-2]):
        now = slice(t, t + 1)
        # eq. eq-linear-recurrence
        state = decay[..., now, None] * state + k[..., now, :].mT @ v[..., now, :]
        outputs.append(q[..., now, :] @ state)
    return rounded(outputs, state, value)


def linear_attention_chunked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """The same again: products within chunks, and a state between them.

    The last chunk may be shorter, and chunk_size longer than the sequence.
    Shapes: as linear_attention_recurrent
    Source: Yang et al. 2024, arXiv:2406.06484.
    Raises: as linear_attention_recurrent; ValueError if chunk_size is below 1, TypeError unless it
    is an int.
    """
    require_size(1, chunk_size=chunk_size)
    *rows, g, state = prepared(query, key, value, log_decay, initial_state)
    outputs = []
    for start in range(0, query.shape[-2], chunk_size):
        now = slice(start, start + chunk_size)
        q, k, v = (each[..., now, :] for each in rows)
        pair, since = (
            pair_decays(g[..., now]),
            g[..., now].cumsum(-1).exp(),
        )  # (..., c, c), (..., c)
        # eq. eq-linear-chunk
        outputs.append(since.unsqueeze(-1) * (q @ state) + ((q @ k.mT).tril() * pair) @ v)
        left = pair[..., -1, :, None]  # (..., c, 1), of each write at the end of the chunk
        state = since[..., -1, None, None] * state + (left * k).mT @ v
    return rounded(outputs, state, value)


def normalized_linear_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor
) -> Tensor:
    """Causal linear attention divided by its row sums: weights that sum to 1.

    With features that are not negative each output is an average of the values so far; otherwise a
    sum may be close to 0, and its output of any size.
    Shapes: query_features, key_features (..., T, Dk), value (..., T, Dv) -> (..., T, Dv)
    Source: Katharopoulos et al. 2020, arXiv:2006.16236.
    Raises: TypeError unless all are floating point and of one dtype; ValueError for shapes that do
    not fit, a row sum of 0, or a result that is not finite.
    """
    named = {"query_features": query_features, "key_features": key_features, "value": value}
    require_one_dtype(**named)
    axes = "query_features (..., T, Dk), key_features (..., T, Dk), value (..., T, Dv)"
    require_shapes(axes, **named)
    require_axis("Dk", 1, "query_features (..., T, Dk)", query_features=query_features)
    q, k, v = (widen(tensor) for tensor in named.values())
    # The length of a query cancels; with it tiny products would lose their digits.
    q = q / q.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    weights = (q @ k.mT).tril()
    total = weights.sum(-1, keepdim=True)
    if (total == 0).any():
        row = (total == 0).nonzero()[0, :-1].tolist()
        raise ValueError(f"a row of weights must not sum to 0, as it does at {row}")
    out = (weights @ v / total).to(value.dtype)  # eq. eq-linear-normalized
    require_finite(" in the result", output=out)
    return out
