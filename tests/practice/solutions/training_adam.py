"""Right solutions on AdamW, each written in another way than the code by hand."""

import math
from typing import Any

import torch
from torch import Tensor

State = tuple[Tensor, Tensor, Tensor]


def with_one_step_size(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    lr: float,
    b1: float,
    b2: float,
    eps: float,
    wd: float,
) -> State:
    """Both corrections as factors of a number, as in torch."""
    m = torch.lerp(m, g, 1 - b1)
    v = (b2 * v).addcmul(g, g, value=1 - b2)
    root = v.sqrt() / math.sqrt(1 - b2**t)
    return (p * (1 - lr * wd)).addcdiv(m, root + eps, value=-lr / (1 - b1**t)), m, v


def entry_by_entry(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    lr: float,
    b1: float,
    b2: float,
    eps: float,
    wd: float,
) -> State:
    """A loop over numbers."""
    new = []
    for p_i, g_i, m_i, v_i in zip(*(x.flatten().tolist() for x in (p, g, m, v)), strict=True):
        m_i, v_i = m_i + (1 - b1) * (g_i - m_i), v_i + (1 - b2) * (g_i**2 - v_i)
        size = math.sqrt(v_i / (1 - b2**t)) + eps
        new.append((p_i - lr * (wd * p_i + m_i / (1 - b1**t) / size), m_i, v_i))
    p, m, v = (torch.tensor(x, dtype=p.dtype).view(p.shape) for x in zip(*new, strict=True))
    return p, m, v


def in_place_on_copies(p: Tensor, g: Tensor, m: Tensor, v: Tensor, *options: Any) -> State:
    """As optimisers do, decay last but of the old parameter."""
    t, lr, b1, b2, eps, wd = options
    old, p, m, v = p, p.clone(), m.clone(), v.clone()
    m.mul_(b1).add_(g, alpha=1 - b1)
    v.mul_(b2).add_(g.square(), alpha=1 - b2)
    p.sub_(lr / (1 - b1**t) * m / ((v / (1 - b2**t)) ** 0.5).add_(eps))
    return p.sub_(lr * wd * old), m, v


def with_rescaled_eps(p: Tensor, g: Tensor, m: Tensor, v: Tensor, *options: Any) -> State:
    """The order of the paper's section 2, with the eps that gives the same step."""
    t, lr, b1, b2, eps, wd = options
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    root = (1 - b2**t) ** 0.5
    return p - lr * wd * p - lr * root / (1 - b1**t) * m / (v.sqrt() + eps * root), m, v


SOLUTIONS = {
    "adamw_step": [with_one_step_size, entry_by_entry, in_place_on_copies, with_rescaled_eps]
}
