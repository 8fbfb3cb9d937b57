"""How far does a weight move for its gradients, and where does weight decay belong?

Leaves out: AMSGrad, NAdam and the like, parameter groups, and fused kernels.
"""

import math
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from llmref._require import (
    require_at_least,
    require_finite,
    require_floating,
    require_in,
    require_number,
    require_size,
)
from llmref.training._inputs import widened

Betas = tuple[float, float]


class AdamState(NamedTuple):
    """A parameter after a step, and the two running means that the next step needs."""

    param: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


def adam_moments(
    grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *, betas: Betas
) -> tuple[Tensor, Tensor]:
    """Running means of the gradient and of its square, one step on; both start at 0.

    Computed in float32 at least; each moment keeps its dtype.
    Shapes: grad (...), exp_avg (...), exp_avg_sq (...) -> (...), (...)
    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    Raises: TypeError unless all are floating point; ValueError for shapes that differ, a beta
    outside [0, 1), infinite or NaN entries, exp_avg_sq < 0, squares that overflow, and moments that
    their dtype cannot hold: float16, and bfloat16 with 1 - beta <= 2^-8. With a larger 1 - beta a
    bfloat16 mean still stops up to a share 2^-8 / (1 - beta) of itself away: 8 % for 0.95.
    """
    _require_moments(exp_avg, exp_avg_sq, betas)
    (beta1, beta2), dtypes = betas, (exp_avg.dtype, exp_avg_sq.dtype)
    grad, exp_avg, exp_avg_sq = widened(grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    require_finite(grad=grad)
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad  # eq. eq-adam-moments
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    require_finite(" after the square of grad is added", exp_avg_sq=exp_avg_sq)
    return exp_avg.to(dtypes[0]), exp_avg_sq.to(dtypes[1])


def adam_direction(
    exp_avg: Tensor, exp_avg_sq: Tensor, *, step: int, betas: Betas, eps: float
) -> Tensor:
    """The step in units of the learning rate: the corrected mean over the root of that of squares.

    step counts the gradients that are in the moments, from 1. With eps = 0 a weight that never had
    a gradient stays: 0/0 is 0.
    Shapes: exp_avg (...), exp_avg_sq (...) -> (...)
    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    Differs: the root is corrected, not the square, which would overflow first (torch does so too).
    Raises: as adam_moments; ValueError for step < 1, eps < 0, a quotient that overflows, or where
    exp_avg_sq is 0 or subnormal in its dtype beside an exp_avg that is not 0, and eps too small to
    rule the sum: the quotient is then lost.
    """
    require_size(1, step=step)
    require_at_least(0, eps=eps)
    _require_moments(exp_avg, exp_avg_sq, betas)
    m, v = widened(exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    _require_quotient(exp_avg, exp_avg_sq, eps)
    mean = m / (1 - betas[0] ** step)
    root = v.sqrt() / math.sqrt(1 - betas[1] ** step) + eps
    u = mean / root.where(m != 0, 1)  # eq. eq-adam-direction
    require_finite(": exp_avg is too large beside exp_avg_sq and eps", direction=u)
    return u.to(exp_avg.dtype)


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    lr: float,
    betas: Betas,
    eps: float,
) -> AdamState:
    """One step of Adam without weight decay; step counts from 1, the moments start at 0.

    Computed in float32 at least, and rounded once; param and each moment keep their dtypes.
    Shapes: param (...), grad (...), exp_avg (...), exp_avg_sq (...) -> three of (...)
    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    Raises: as adam_moments and adam_direction; ValueError for lr < 0.
    """
    require_at_least(0, lr=lr)
    theta, g, m, v = _wide_state(param, grad, exp_avg, exp_avg_sq, betas, eps)
    m, v = adam_moments(g, m, v, betas=betas)
    u = adam_direction(m, v, step=step, betas=betas, eps=eps)
    theta = theta - lr * u  # eq. eq-adam-step
    return _rounded((theta, m, v), param, exp_avg, exp_avg_sq)


def adam_l2_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    lr: float,
    betas: Betas,
    eps: float,
    weight_decay: float,
) -> AdamState:
    """One step of Adam on the loss plus weight_decay / 2 times the squared norm of param.

    The decay enters both moments: `torch.optim.Adam(weight_decay=)`.
    Shapes: param (...), grad (...), exp_avg (...), exp_avg_sq (...) -> three of (...)
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2 (Adam with L2 regularisation).
    Raises: as adam_step; ValueError for weight_decay < 0.
    """
    require_at_least(0, weight_decay=weight_decay)
    theta, g, m, v = _wide_state(param, grad, exp_avg, exp_avg_sq, betas, eps)
    g = g + weight_decay * theta  # eq. eq-adam-l2
    state = adam_step(theta, g, m, v, step=step, lr=lr, betas=betas, eps=eps)
    return _rounded(state, param, exp_avg, exp_avg_sq)


def adamw_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    lr: float,
    betas: Betas,
    eps: float,
    weight_decay: float,
) -> AdamState:
    """One step of AdamW: param is shrunk by the factor 1 - lr * weight_decay, and then moved.

    Shapes: param (...), grad (...), exp_avg (...), exp_avg_sq (...) -> three of (...)
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    Differs: the decay is multiplied by the learning rate, as in torch; in the paper it is
    multiplied by the factor of the schedule alone. torch takes an lr * weight_decay above 1 too,
    which turns the sign of param.
    Raises: as adam_step; ValueError for weight_decay < 0 or lr * weight_decay > 1.
    """
    require_at_least(0, lr=lr, weight_decay=weight_decay)
    if lr * weight_decay > 1:
        raise ValueError(f"lr * weight_decay must be at most 1, got {lr * weight_decay:g}")
    theta, g, m, v = _wide_state(param, grad, exp_avg, exp_avg_sq, betas, eps)
    theta = (1 - lr * weight_decay) * theta  # eq. eq-adamw
    state = adam_step(theta, g, m, v, step=step, lr=lr, betas=betas, eps=eps)
    return _rounded(state, param, exp_avg, exp_avg_sq)


def adam_update_bound(*, step: int | None, betas: Betas) -> float:
    """The largest step that any gradients can cause, in units of the learning rate.

    step None: the limit for late steps; infinite if beta1^2 >= beta2 (up to the rounding of betas),
    except for betas of 0. Infinite too where the bound is beyond the range of a float.
    Source: derived here; Kingma & Ba 2015, arXiv:1412.6980, section 2.1 have smaller numbers.
    Raises: ValueError for step < 1 or a beta outside [0, 1).
    """
    _require_betas(betas)
    require_size(1, step=1 if step is None else step)
    beta1, beta2 = betas
    if step == 1 or beta1 == beta2:
        return 1.0
    ratio = math.inf if beta2 == 0 else beta1**2 / beta2
    if step is None:
        # eq. eq-adam-bound-limit; 0.7**2 / 0.49 is a little below 1 in floats
        if ratio > 1 - 1e-15:
            return math.inf
        return (1 - beta1) / math.sqrt((1 - beta2) * (1 - ratio))
    first = (1 - beta1) / (1 - beta1**step)
    second = (1 - beta2**step) / (1 - beta2)
    log = math.log(first) + (math.log(second) + _log_geometric_sum(ratio, step)) / 2
    # eq. eq-adam-bound
    return math.exp(log) if log < math.log(sys.float_info.max) else math.inf


def _log_geometric_sum(ratio: float, terms: int) -> float:
    """log(1 + r + ... + r^(terms - 1)), without cancellation for ratios near 1."""
    if ratio in (0, 1, math.inf):
        return math.log(terms) if ratio == 1 else ratio  # log 1 = 0, and log inf = inf
    power = terms * math.log(ratio)
    if power > 40:  # the 1 of r^terms - 1 is then below the precision
        return power - math.log(ratio - 1)
    return math.log(math.expm1(power) / (ratio - 1))


def _wide_state(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, betas: Betas, eps: float
) -> list[Tensor]:
    """All four in the widest of their dtypes, after what only their own dtypes can tell."""
    require_at_least(0, eps=eps)
    _require_moments(exp_avg, exp_avg_sq, betas)
    wide = widened(param=param, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    _require_quotient(exp_avg, exp_avg_sq, eps)
    return wide


def _rounded(state: tuple[Tensor, Tensor, Tensor], *given: Tensor) -> AdamState:
    """Weights and both moments in the dtypes that they were given in."""
    return AdamState(*(new.to(old.dtype) for new, old in zip(state, given, strict=True)))


def _require_betas(betas: Betas) -> None:
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {betas}")
    require_number(beta1=betas[0], beta2=betas[1])
    require_in("[0, 1)", beta1=betas[0], beta2=betas[1])


def _require_moments(exp_avg: Tensor, exp_avg_sq: Tensor, betas: Betas) -> None:
    """Refuse betas and moments with which running means are none."""
    _require_betas(betas)
    require_floating(exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    require_finite(exp_avg=exp_avg)
    require_in("[0, inf)", exp_avg_sq=exp_avg_sq)
    for name, moment, beta in zip(
        ("exp_avg", "exp_avg_sq"), (exp_avg, exp_avg_sq), betas, strict=True
    ):
        stuck = moment.dtype == torch.bfloat16 and 1 - beta <= 2**-8
        if stuck or moment.dtype == torch.float16:
            raise ValueError(
                f"{name} must be float32, or bfloat16 with 1 - beta > 2^-8, "
                f"got {moment.dtype} with beta {beta}"
            )


def _require_quotient(exp_avg: Tensor, exp_avg_sq: Tensor, eps: float) -> None:
    """Refuse mean squares lost below the range of the dtype, unless eps hides the loss."""
    tiny = torch.finfo(exp_avg_sq.dtype).tiny
    lost = (exp_avg_sq < tiny) & (exp_avg != 0)
    if eps < math.sqrt(tiny) and lost.any():
        raise ValueError(
            f"exp_avg_sq must be at least {tiny:g} where exp_avg is not 0 (eps = {eps:g}), "
            f"got {exp_avg_sq[lost][0].item():g}"
        )
