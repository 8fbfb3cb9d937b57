"""What makes the load of all experts equal: a loss, or a bias on the choice?"""

from torch import Tensor

from llmref._numeric import as_rows, check_distribution, widen
from llmref._require import (
    boolean_mask,
    require_finite,
    require_floating,
    require_in,
    require_integers,
    require_number,
    require_positive,
    require_shapes,
)
from llmref.components.moe._sizes import require_k
from llmref.components.moe.capacity import expert_load
from llmref.functional.softmax import logsumexp


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
    require_integers(experts=experts)
    require_k(experts.shape[-1], probs.shape[-1])
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
    require_number(rate=rate)
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
    require_finite(" after the step", bias=new)
    return new


def _counted(rows: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """The rows of the tokens that count, (n, E)."""
    counted = as_rows(rows) if mask is None else rows[boolean_mask(mask)]
    if not len(counted):
        raise ValueError(f"no token of {name} {tuple(rows.shape)} counts: there is no mean")
    return counted
