"""How does attention run over blocks of keys, and how does its backward pass rebuild the weights?

Leaves out: the merge of two states, which is in state.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmref._numeric import wide_dtype, widen
from llmref._require import require_constant, require_floating
from llmref.attention.online_softmax._sums import (
    SumOverflowError,
    reference_point,
    require_resolved,
)
from llmref.attention.online_softmax._tiles import Tiles
from llmref.attention.online_softmax.state import (
    SoftmaxState,
    block_state,
    empty_state,
    finalize_state,
    merge_states,
)


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    block_q: int = 64,
    block_k: int = 64,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scaled dot-product attention from tiles of queries and keys: exact, with no T S tensor.

    Shapes: query (B, H, T, D), key (B, H, S, D), value (B, H, S, Dv), any leading axes in place of
    B, H -> (B, H, T, Dv), and with return_lse the log-sum-exp of each row of scores, (B, H, T), in
    float32 at least. Masks as in scaled_dot_product_attention; a mask tensor is never expanded.
    Source: Dao et al. 2022, arXiv:2205.14135; order of the loops of Dao 2023, arXiv:2307.08691.
    Differs: is_causal aligns the last query with the last key. A query without keys gets 0 and lse
    -inf, with gradient 0.
    Raises: TypeError and ValueError as scaled_dot_product_attention; ValueError if a tile is empty,
    or attn_mask or scale requires a gradient (none is computed).
    """
    for name, constant in (("attn_mask", attn_mask), ("scale", scale)):
        if isinstance(constant, Tensor):
            require_constant(**{name: constant})
    # The options in order: Function.apply takes no keywords.
    options = (attn_mask, is_causal, scale, block_q, block_k)
    out, lse = _Flash.apply(query, key, value, *options)  # type: ignore[no-untyped-call]
    return (out, lse) if return_lse else out


def flash_attention_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    reference: Tensor | None = None,
    grad_lse: Tensor | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention, with the weights recomputed tile by tile from the log-sum-exp.

    With `reference`, the largest score m of each row, lse is relative to it: log l in place of
    m + log l, which rounds where scores are large.
    Shapes: grad_output and out (B, H, T, Dv), lse, reference and grad_lse (B, H, T), the others as
    in flash_attention -> the shapes of query, key and value
    Source: Dao et al. 2022, arXiv:2205.14135, the backward pass in its appendix.
    Differs: takes a gradient of the log-sum-exp as well; m and log l may be given apart.
    Raises: as flash_attention; ValueError if the shapes of grad_output, out, lse, reference,
    grad_lse differ from these, or rounding lse changes weights by more than 0.1 %.
    """
    tiles = Tiles(query, key, value, attn_mask, is_causal, scale, block_q, block_k)
    saved = {"grad_output": grad_output, "out": out, "lse": lse, "grad_lse": grad_lse}
    _check_saved(tiles, **saved, lse_reference=reference)
    reference = torch.zeros_like(lse) if reference is None else reference_point(reference)
    delta = (widen(grad_output, "grad_output") * out).sum(-1)  # (B, H, T), the row sums of P * dP
    if grad_lse is not None:
        delta = delta - grad_lse
    # An empty row has lse -inf; against +inf its weights are exp(-inf - inf) = 0, not NaN.
    lse = lse.masked_fill(lse == -math.inf, math.inf)
    grads = [torch.zeros_like(widen(x)) for x in (query, key, value)]
    for rows in tiles.rows():
        for columns in tiles.columns(rows):  # eq. eq-flash-backward, line by line
            q, k, v, grad = (
                widen(x[..., part, :])
                for x, part in (
                    (query, rows),
                    (key, columns),
                    (value, columns),
                    (grad_output, rows),
                )
            )
            scores = tiles.scores(q, k, rows, columns) - reference[..., rows, None]
            p = (scores - lse[..., rows, None]).exp()
            grad_scores = p * (grad @ v.mT - delta[..., rows, None])
            grads[0][..., rows, :] += tiles.scale * grad_scores @ k
            grads[1][..., columns, :] += tiles.scale * grad_scores.mT @ q
            grads[2][..., columns, :] += p.mT @ grad
    dq, dk, dv = (g.to(x.dtype) for g, x in zip(grads, (query, key, value), strict=True))
    return dq, dk, dv


def _forward(tiles: Tiles) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for each row its largest score (0 without keys) and log l."""
    query, value = tiles.query, tiles.value
    out = value.new_empty((*query.shape[:-1], value.shape[-1]))
    m, log_l = query.new_empty((2, *query.shape[:-1]), dtype=wide_dtype(query))
    for rows in tiles.rows():
        shrink = 1.0
        try:
            state = _fold(tiles, rows, shrink)
        except SumOverflowError:  # a sum of values overflows, their average does not
            shrink = 2.0 ** -tiles.S.bit_length()  # below 1 / S, and a power of 2: exact
            state = _fold(tiles, rows, shrink)
        m[..., rows], log_l[..., rows] = reference_point(state.m), state.l.log()
        out[..., rows, :] = (finalize_state(state)[0] / shrink).to(out.dtype)
    return out, m, log_l


def _fold(tiles: Tiles, rows: slice, shrink: float) -> SoftmaxState:
    """The state of all keys for some queries, with the values times `shrink`."""
    q, value_dim = widen(tiles.query[..., rows, :], "query"), tiles.value.shape[-1]
    state = empty_state(q.shape[:-1], value_dim, dtype=q.dtype, device=q.device)
    for columns in tiles.columns(rows):
        scores = tiles.scores(q, widen(tiles.key[..., columns, :], "key"), rows, columns)
        value = shrink * widen(tiles.value[..., columns, :], "value")
        block = block_state(scores, value.unsqueeze(-3))
        state = merge_states(state, block)  # eq. eq-online-merge
    return state


class _Flash(torch.autograd.Function):
    """Saves queries, keys, values, the output and two numbers for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *options: Any) -> Any:
        out, m, log_l = _forward(Tiles(query, key, value, *options))
        ctx.save_for_backward(query, key, value, out, m, log_l, options[0])
        ctx.options = options[1:]
        return out, m + log_l

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_lse: Tensor) -> Any:
        query, key, value, out, m, log_l, mask = ctx.saved_tensors
        is_causal, scale, block_q, block_k = ctx.options
        grads = flash_attention_backward(
            grad_output,
            query,
            key,
            value,
            out,
            log_l,
            mask,
            is_causal,
            scale,
            reference=m,
            grad_lse=grad_lse,
            block_q=block_q,
            block_k=block_k,
        )
        return (*grads, None, None, None, None, None)


def _check_saved(tiles: Tiles, **tensors: Tensor | None) -> None:
    rows = tuple(tiles.query.shape[:-1])
    for name, x in tensors.items():
        expected = rows if "lse" in name else (*rows, tiles.value.shape[-1])
        if x is not None:
            require_floating(**{name.removeprefix("lse_"): x})
        if x is not None and tuple(x.shape) != expected:
            raise ValueError(
                f"{name.removeprefix('lse_')} must be {expected}, got {tuple(x.shape)}"
            )
        if x is not None and name == "lse":
            require_resolved("give the largest scores as reference, and lse minus these", lse=x)
