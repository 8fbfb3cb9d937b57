"""Right solutions on KTO, ORPO and SimPO, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def kto_signs(
    policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, beta: float, w_d: float, w_u: float
) -> Tensor:
    sign, weight = torch.where(up, 1.0, -1.0), torch.where(up, w_d, w_u)
    return (weight * (1 - torch.sigmoid(sign * beta * (policy - ref - kl.detach())))).mean()


def kto_loop(
    policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, beta: float, w_d: float, w_u: float
) -> float:
    total = 0.0
    for a, b, liked in zip(policy.tolist(), ref.tolist(), up.tolist(), strict=True):
        h = beta * (a - b - float(kl))
        h = h if liked else -h
        total += (w_d if liked else w_u) * (1 - math.tanh(h / 2)) / 2
    return total / len(policy)


def kto_parts(
    policy: Tensor, ref: Tensor, up: Tensor, kl: Tensor, beta: float, w_d: float, w_u: float
) -> Tensor:
    h = beta * (policy - ref) - beta * kl.item()
    liked, not_liked = h[up], h[~up]
    total = w_d * (1 - liked.sigmoid()).sum() + w_u * (1 - (-not_liked).sigmoid()).sum()
    return total / len(h)


def odds_branches(w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> Tensor:
    def log1mexp(x: Tensor) -> Tensor:
        far = torch.log1p(-x.clamp(max=-0.693).exp())
        return torch.where(x > -0.693, torch.log(-torch.expm1(x)), far)

    a, b = w / n_w, r / n_l
    return functional.softplus((b - log1mexp(b)) - (a - log1mexp(a))).mean()


def odds_numpy(w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> np.ndarray:
    a, b = (w / n_w).numpy(), (r / n_l).numpy()
    ratio = np.exp(b - a) * np.expm1(a) / np.expm1(b)
    return np.log1p(ratio).mean()


def odds_inverse(w: Tensor, r: Tensor, n_w: Tensor, n_l: Tensor) -> float:
    """Odds as 1 / (1 / P - 1), whose logarithm is minus that of expm1 of minus the mean."""
    total = 0.0
    for one, two, n, m in zip(w.tolist(), r.tolist(), n_w.tolist(), n_l.tolist(), strict=True):
        gap = math.log(math.expm1(-two / m)) - math.log(math.expm1(-one / n))
        total += math.log1p(math.exp(-abs(gap))) + max(-gap, 0.0)
    return total / len(w)


def simpo_softplus(
    w: Tensor,
    r: Tensor,
    n_w: Tensor,
    n_l: Tensor,
    beta: float,
    gamma: float,
) -> Tensor:
    return functional.softplus(gamma + beta * (r / n_l - w / n_w)).mean()


def simpo_numpy(
    w: Tensor,
    r: Tensor,
    n_w: Tensor,
    n_l: Tensor,
    beta: float,
    gamma: float,
) -> np.ndarray:
    h = beta * ((w / n_w).numpy() - (r / n_l).numpy()) - gamma
    return np.logaddexp(0, -h).mean()


def simpo_ratio(
    w: Tensor,
    r: Tensor,
    n_w: Tensor,
    n_l: Tensor,
    beta: float,
    gamma: float,
) -> Tensor:
    """The margin divided by beta inside, as in TRL."""
    gap = w / n_w - r / n_l - gamma / beta
    return -functional.logsigmoid(beta * gap).mean()


SOLUTIONS = {
    "kto_loss": [kto_signs, kto_loop, kto_parts],
    "odds_ratio_loss": [odds_branches, odds_numpy, odds_inverse],
    "simpo_loss": [simpo_softplus, simpo_numpy, simpo_ratio],
}
