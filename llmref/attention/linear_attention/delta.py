"""How does a write replace what its key held, and how are many such writes made at once?

Each step writes the error of what the state returns for the key. Within a chunk the errors depend
on each other through a triangular system.
"""

import torch
from torch import Tensor

from llmref._numeric import wide_dtype
from llmref._require import (
    require_axis,
    require_finite,
    require_floating,
    require_shapes,
    require_size,
)
from llmref.attention.linear_attention._steps import pair_decays, prepared, rounded


def delta_rule_recurrent(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write beta times the error of what the decayed state returns for the key, then read.

    The decay acts before the error is taken. Keys are used as they are: with longer ones than
    beta * |key|^2 = 2 the state may grow at each step, so models normalise them.
    One feature, state 0, keys 1, beta 1/2, values 4 and 8: states 2, then 2 + (8 - 2)/2 = 5.
    Shapes: query, key (..., T, Dk), value (..., T, Dv), beta, log_decay (..., T), initial_state
    (..., Dk, Dv) -> (..., T, Dv), (..., Dk, Dv) in float32 at least
    Source: Schlag et al. 2021, arXiv:2102.11174; with decay Yang et al. 2024,
    arXiv:2412.06464.
    Raises: TypeError unless query, key and value are floating point and of one dtype, and the
    others floating point; ValueError for shapes that do not fit, a log_decay above 0 (-inf is
    legal), or a result that is not finite.
    """
    q, k, v, b, g, state = _prepared(query, key, value, beta, log_decay, initial_state)
    outputs, decay = [], g.exp()
    for t in range(q.shape[-2]):
        now = slice(t, t + 1)
        state = decay[..., now, None] * state
        error = v[..., now, :] - k[..., now, :] @ state  # (..., 1, Dv)
        state = state + b[..., now, None] * k[..., now, :].mT @ error  # eq. eq-linear-delta
        outputs.append(q[..., now, :] @ state)
    return rounded(outputs, state, value)


def delta_rule_chunked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """The same as delta_rule_recurrent, with one triangular solve for all writes of a chunk.

    The last chunk may be shorter, and chunk_size longer than the sequence.
    Shapes: as delta_rule_recurrent
    Source: Yang et al. 2024, arXiv:2406.06484; with decay arXiv:2412.06464.
    Raises: as delta_rule_recurrent; ValueError if chunk_size is below 1, TypeError unless it is an
    int.
    """
    require_size(1, chunk_size=chunk_size)
    *rows, b, g, state = _prepared(query, key, value, beta, log_decay, initial_state)
    outputs = []
    for start in range(0, query.shape[-2], chunk_size):
        now = slice(start, start + chunk_size)
        q, k, v = (each[..., now, :] for each in rows)
        pair, since = pair_decays(g[..., now]), g[..., now].cumsum(-1).exp().unsqueeze(-1)
        written = _solved(k, b[..., now, None], pair, v - since * (k @ state))
        # eq. eq-linear-delta-chunk
        outputs.append(since * (q @ state) + ((q @ k.mT).tril() * pair) @ written)
        left = pair[..., -1, :, None]  # (..., c, 1), of each write at the end of the chunk
        state = since[..., -1:, :] * state + (left * k).mT @ written
    return rounded(outputs, state, value)


def wy_factor(key: Tensor, beta: Tensor) -> Tensor:
    """W with (I - beta_c k_c k_c') ... (I - beta_1 k_1 k_1') = I - K' W, for any keys.

    One key: W = beta * key.
    Shapes: key (..., c, Dk), beta (..., c) -> (..., c, Dk)
    Source: Yang et al. 2024, arXiv:2406.06484.
    Raises: TypeError unless both are floating point; ValueError for shapes that do not fit, or a
    result that is not finite.
    """
    require_floating(key=key, beta=beta)
    require_shapes("key (..., c, Dk), beta (..., c)", key=key, beta=beta)
    require_axis("Dk", 1, "key (..., c, Dk)", key=key)
    dtype = wide_dtype(key, beta)
    k, b = key.to(dtype), beta.to(dtype).unsqueeze(-1)
    factor = _solved(k, b, torch.ones_like(k[..., :1]), k).to(key.dtype)  # eq. eq-linear-wy
    require_finite(" in the result", factor=factor)
    return factor


def _solved(k: Tensor, b: Tensor, pair: Tensor, wanted: Tensor) -> Tensor:
    """(I + tril(b k k' pair, -1))^-1 b wanted; torch reads what is below the diagonal, no more."""
    system = b * (k @ k.mT).tril(-1) * pair
    rows: Tensor = torch.linalg.solve_triangular(
        system, b * wanted, upper=False, unitriangular=True
    )
    return rows


def _prepared(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments in one dtype, float32 at least."""
    require_floating(beta=beta)
    q, k, v, g, state = prepared(query, key, value, log_decay, initial_state)
    require_shapes("query (..., T, Dk), beta (..., T)", query=query, beta=beta)
    dtype = wide_dtype(q, beta)
    q, k, v, b, g, state = (each.to(dtype) for each in (q, k, v, beta, g, state))
    return q, k, v, b, g, state
