"""How are the chosen experts run, each on its own tokens, and their outputs put together?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmref._numeric import as_rows, wide_dtype
from llmref._require import require_floating, require_ids, require_shapes, require_size


def moe_forward(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    functions: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """The weighted sum of the chosen experts: choices sorted by expert, one call for each expert.

    An expert sees the rows of its tokens, in their order; also none of them, so that its weights
    have gradients of 0 rather than none.
    Shapes: x (..., C), weights (..., k), experts (..., k), each function (n, C) -> (n, C) with one
    result for each row -> (..., C)
    Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 1, of which only the chosen terms are run.
    Differs: products and sums are in float32 at least, rounded once to the dtype of x.
    Raises: TypeError unless x and weights are floating point and experts are integers; ValueError
    for shapes that differ, an expert that is not there, or a function that changes the shape.
    """
    rows, w, chosen = _routed(x, weights, experts, functions)
    flat = chosen.flatten()
    order = flat.argsort(stable=True)  # the choices of the first expert, then of the second, ...
    token = order // chosen.shape[-1]  # with k = 0 there is nothing to divide
    counts = torch.bincount(flat, minlength=len(functions)).tolist()
    parts = zip(functions, torch.split(rows[token], counts), strict=True)
    out = torch.cat([_result(function, part) for function, part in parts])  # (N k, C)
    wide = wide_dtype(x, w, out)
    y = torch.zeros(rows.shape, dtype=wide, device=x.device)
    # eq. eq-moe-dispatch
    y = y.index_add(0, token, w.flatten()[order, None].to(wide) * out.to(wide))
    return y.to(x.dtype).view(x.shape)


def moe_dense(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    functions: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """The same sum over all experts, each of which sees every token: E / k times the work.

    Shapes: as moe_forward
    Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 1.
    Raises: as moe_forward.
    """
    rows, w, chosen = _routed(x, weights, experts, functions)
    # Of a copy: an expert may work in place, and all of them read these rows.
    out = torch.stack([_result(function, rows.clone()) for function in functions], -2)
    wide = wide_dtype(x, w, out)
    full = torch.zeros(len(rows), len(functions), dtype=wide, device=w.device)
    full = full.scatter_add(-1, chosen, w.to(wide))  # (N, E)
    met = torch.zeros_like(full, dtype=torch.bool).scatter(-1, chosen, True)[..., None]
    held = torch.where(met, out.to(wide), 0.0)  # 0 times what overflows would be NaN
    y = (full[..., None] * held).sum(-2)  # (N, C), eq. eq-moe
    return y.to(x.dtype).view(x.shape)


def _routed(
    x: Tensor, weights: Tensor, experts: Tensor, functions: Sequence[Callable[[Tensor], Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, weights and experts as rows, after the checks that both forms share."""
    require_floating(x=x, weights=weights)
    require_size(1, num_functions=len(functions))
    require_ids(len(functions), experts=experts)
    require_shapes(
        "x (..., C), weights (..., k), experts (..., k)", x=x, weights=weights, experts=experts
    )
    return as_rows(x), as_rows(weights), as_rows(experts).long()


def _result(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    out = function(rows)
    require_shapes("rows (n, C), result (n, C)", rows=rows, result=out)
    return out
