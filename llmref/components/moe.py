"""Which experts see a token, how are their outputs put together, and what keeps their load equal?

Leaves out: expert parallelism over devices, routers that draw at random, and experts that choose
tokens. Weights are those of the router, (..., k) beside the chosen experts (..., k).
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot

from llmref._numeric import as_rows, check_distribution, wide_dtype, widen
from llmref._require import (
    boolean_mask,
    require_choice,
    require_finite,
    require_floating,
    require_ids,
    require_in,
    require_integers,
    require_number,
    require_positive,
    require_shapes,
    require_size,
)
from llmref.components.swiglu import SwiGLU, ffn_params
from llmref.functional.softmax import logsumexp, softmax

Priority = Literal["token", "choice"]
Router = Callable[[Tensor, int], tuple[Tensor, Tensor]]


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
    token = order // max(chosen.shape[-1], 1)
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
    full = torch.zeros(len(rows), len(functions), dtype=w.dtype, device=w.device)
    full = full.scatter_add(-1, chosen, w)  # (N, E)
    out = torch.stack([_result(function, rows) for function in functions], -2)  # (N, E, C)
    wide = wide_dtype(x, w, out)
    y = (full[..., None].to(wide) * out.to(wide)).sum(-2)  # eq. eq-moe
    return y.to(x.dtype).view(x.shape)


def expert_load(experts: Tensor, num_experts: int, mask: Tensor | None = None) -> Tensor:
    """How many choices each expert got; tokens outside the mask do not count.

    Shapes: experts (..., k), mask (...) -> (E), int64
    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 5, times the number of tokens.
    Raises: TypeError unless experts are integers; ValueError for an expert that is not there, or a
    mask of another shape.
    """
    require_size(1, num_experts=num_experts)
    require_ids(num_experts, experts=experts)
    require_shapes("experts (..., k), mask (...)", experts=experts, mask=mask)
    counted = experts if mask is None else experts[boolean_mask(mask)]
    return torch.bincount(counted.long().flatten(), minlength=num_experts)


def expert_capacity(
    num_tokens: int, num_experts: int, k: int, *, factor: int | float | Fraction
) -> int:
    """The choices that each expert takes: the factor times the mean load, rounded up.

    A float is read as the decimal that it is written as: a factor of 1.1 with a mean load of 50
    gives 55, where the product of floats is above 55 and its ceiling 56.
    Shapes: integers -> an integer
    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 3, for k = 1.
    Raises: TypeError unless sizes are ints and factor is a number; ValueError for negative sizes,
    k > E, or a factor that is not positive and finite.
    """
    require_size(0, num_tokens=num_tokens)
    _require_k(k, num_experts)
    require_number(factor=factor)
    require_positive(factor=float(factor))
    exact = factor if isinstance(factor, int | Fraction) else Fraction(str(float(factor)))
    return math.ceil(Fraction(exact) * num_tokens * k / num_experts)  # eq. eq-moe-capacity


def capacity_mask(
    experts: Tensor,
    num_experts: int,
    capacity: int,
    *,
    priority: Priority,
    mask: Tensor | None = None,
) -> Tensor:
    """True for the choices that their expert still takes: the first `capacity` of them.

    "token": in the order of tokens. "choice": all first choices before any second one. Tokens
    outside the mask take no place, and none of their choices is kept. Weights times the mask drop
    what does not fit: it adds 0.
    Shapes: experts (N, k), mask (N) -> (N, k), boolean
    Source: "choice" is the order of GShard (Lepikhin et al. 2020, arXiv:2006.16668), as DeepSpeed
    and NLLB-MoE in transformers have it.
    Raises: TypeError unless experts are integers; ValueError for an expert that is not there, a
    negative capacity, another priority or a mask of another shape.
    """
    require_size(1, num_experts=num_experts)
    require_size(0, capacity=capacity)
    require_choice(Priority, priority=priority)
    require_ids(num_experts, experts=experts)
    require_shapes("experts (N, k), mask (N)", experts=experts, mask=mask)
    takes = one_hot(experts.long(), num_experts)  # (N, k, E)
    if mask is not None:
        takes = takes * boolean_mask(mask)[:, None, None]
    if priority == "choice":
        takes = takes.transpose(0, 1)  # (k, N, E)
    shape = takes.shape
    takes = takes.reshape(-1, num_experts)
    place = takes.cumsum(0) * takes  # from 1, in the expert's queue
    kept = ((place > 0) & (place <= capacity)).any(-1).view(shape[:2])
    return kept.mT if priority == "choice" else kept


def load_balancing_loss(probs: Tensor, experts: Tensor, mask: Tensor | None = None) -> Tensor:
    """E / k times the sum of load share times mean probability: 1 when all loads are equal.

    It can be below 1. Loads are counts and have no gradient; float32 at least.
    Shapes: probs (..., E), experts (..., k), mask (...) -> ()
    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 4 to 6, for k = 1.
    Differs: divided by k, as in Megatron; transformers' Mixtral does not, and pools all layers.
    Raises: TypeError unless probs are floating point and experts integers; ValueError unless each
    row of probs is a distribution (normalise sigmoid scores by their sum first), for an expert that
    is not there, shapes that differ, or no token that counts.
    """
    require_floating(probs=probs)
    require_shapes(
        "probs (..., E), experts (..., k), mask (...)", probs=probs, experts=experts, mask=mask
    )
    _require_k(experts.shape[-1], probs.shape[-1])
    counted = _counted(probs, mask, "probs")
    check_distribution(counted, name="probs")
    load = expert_load(experts, probs.shape[-1], mask)
    mean = widen(counted, "probs").mean(0)  # (E)
    scale = probs.shape[-1] / (experts.shape[-1] * len(counted))
    return scale * (load * mean).sum()  # eq. eq-moe-balance


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean square of the log-sum-exp of the logits; float32 at least.

    It fixes the shift that the softmax ignores; that alone does not keep logits small.
    Shapes: logits (..., E), mask (...) -> ()
    Source: Zoph et al. 2022, arXiv:2202.08906, eq. 5.
    Raises: TypeError unless logits are floating point; ValueError for a mask of another shape, no
    token that counts, NaN, or a log-sum-exp that is not finite.
    """
    require_floating(logits=logits)
    require_shapes("logits (..., E), mask (...)", logits=logits, mask=mask)
    lse = logsumexp(widen(_counted(logits, mask, "logits"), "logits"))
    require_finite(" as the log-sum-exp of each token", logits=lse)
    loss = lse.square().mean()  # eq. eq-moe-z-loss
    require_finite(router_z_loss=loss)
    return loss


def update_expert_bias(bias: Tensor, load: Tensor, *, rate: float) -> Tensor:
    """One step up for each expert whose load is below the mean, one step down above it.

    Shapes: bias (E), load (E) -> (E)
    Source: Wang et al. 2024, arXiv:2408.15664.
    Raises: TypeError unless bias is floating point and load holds integers; ValueError for shapes
    that differ, negative loads, a rate that is not positive, a bias that is not finite, of 16 bits,
    or so large that a step is lost in rounding.
    """
    require_floating(bias=bias)
    require_integers(load=load)
    require_shapes("bias (E), load (E)", bias=bias, load=load)
    require_positive(rate=rate)
    require_finite(bias=bias)
    require_in("[0, inf)", load=load)
    if bias.dtype.itemsize < 4:
        raise ValueError(f"bias must be float32 at least: steps are small, got {bias.dtype}")
    load = load.long()
    sign = (load.sum() - len(load) * load).sign()  # exact: the mean need not be an integer
    new = bias + rate * sign.to(bias.dtype)  # eq. eq-moe-bias
    if ((new == bias) & (sign != 0)).any():
        raise ValueError(f"a step of {rate:g} is lost beside a bias of {bias.abs().max():g}")
    return new


def moe_parameters(
    dim: int, hidden: int, num_experts: int, k: int, num_shared: int = 0
) -> tuple[int, int]:
    """Weights of a layer of SwiGLU experts with its router: all of them, and those a token meets.

    Shapes: integers -> two integers
    Source: Shazeer 2020, arXiv:2002.05202, for one expert; the rest is counted here.
    Raises: TypeError unless all are ints; ValueError for sizes below 1, num_shared below 0 or
    k > E.
    """
    _require_k(k, num_experts)
    require_size(0, num_shared=num_shared)
    one, router = ffn_params(dim, hidden, gated=True), dim * num_experts
    # eq. eq-moe-parameters
    return (num_experts + num_shared) * one + router, (k + num_shared) * one + router


class SparseMoE(nn.Module):
    """A layer of SwiGLU experts, of which each token meets k, and shared ones that it always meets.

    `router` turns logits (N, E) and k into weights and experts, each (N, k): `top_k_softmax`, or a
    partial of `softmax_top_k`. There is no default: libraries differ. Logits are in float32 at
    least.
    Shapes: (..., dim) -> (..., dim)
    Source: Dai et al. 2024, arXiv:2401.06066, for shared experts.
    Raises: as moe_parameters and moe_forward.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        num_experts: int,
        k: int,
        *,
        router: Router,
        num_shared: int = 0,
    ) -> None:
        super().__init__()
        moe_parameters(dim, hidden_dim, num_experts, k, num_shared)  # raises for wrong sizes
        self.k, self.router = k, router
        self.gate = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim, hidden_dim) for _ in range(num_experts))
        self.shared = nn.ModuleList(SwiGLU(dim, hidden_dim) for _ in range(num_shared))

    def logits(self, x: Tensor) -> Tensor:
        """Scores of all experts, (..., E); the losses on balance take them too."""
        return linear(widen(x), widen(self.gate.weight, "gate.weight").to(wide_dtype(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Route, run the chosen experts, and add the shared ones."""
        weights, experts = self.router(self.logits(x), self.k)
        out = moe_forward(x, weights, experts, list(self.experts))
        for shared in self.shared:
            out = out + shared(x)
        return out


def _require_k(k: int, num_experts: int) -> None:
    require_size(1, num_experts=num_experts, k=k)
    if k > num_experts:
        raise ValueError(f"k must be at most the {num_experts} experts, got {k}")


def _largest(scores: Tensor, k: int, name: str) -> Tensor:
    """The places of the k largest entries, in falling order; of equal ones the first."""
    require_floating(**{name: scores})
    require_shapes(f"{name} (..., E)", **{name: scores})
    _require_k(k, scores.shape[-1])
    if scores.isnan().any():
        raise ValueError(f"{name} must not be NaN")
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :k]


def _counted(rows: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """The rows of the tokens that count, (n, E)."""
    counted = as_rows(rows) if mask is None else rows[boolean_mask(mask)]
    if not len(counted):
        raise ValueError(f"no token of {name} {tuple(rows.shape)} counts: there is no mean")
    return counted


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
