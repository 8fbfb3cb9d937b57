"""Right solutions on off-policy weights, each written in another way than the code by hand."""

import torch
from torch import Tensor


def weights_by_cumprod(logp: Tensor, mu: Tensor, mask: Tensor, level: str) -> Tensor:
    ratio = torch.where(mask, (logp - mu).exp(), 1.0).detach()
    if level == "prefix":
        ratio = ratio.cumprod(1)
    elif level == "sequence":
        ratio = ratio.prod(1, keepdim=True) * torch.ones_like(ratio)
    return ratio * mask


def weights_by_matrix(logp: Tensor, mu: Tensor, mask: Tensor, level: str) -> Tensor:
    T = logp.shape[1]
    sums = {"token": torch.eye(T), "prefix": torch.ones(T, T).triu(), "sequence": torch.ones(T, T)}
    with torch.no_grad():
        diff = (logp - mu).masked_fill(~mask, 0.0)
        return (diff @ sums[level].to(diff.dtype)).exp().masked_fill(~mask, 0.0)


@torch.no_grad()
def weights_by_loop(logp: Tensor, mu: Tensor, mask: Tensor, level: str) -> Tensor:
    out = torch.zeros_like(logp)
    for i in range(len(logp)):
        product = torch.ones((), dtype=logp.dtype)
        for t in range(logp.shape[1]):
            if mask[i, t]:
                ratio = logp[i, t].exp() / mu[i, t].exp()
                product = product * ratio
                out[i, t] = ratio if level == "token" else product
        if level == "sequence":
            out[i, mask[i]] = product
    return out


def cispo_where(logp: Tensor, old: Tensor, A: Tensor, mask: Tensor, high: float) -> Tensor:
    ratio = (logp - old).detach().exp()
    weight = torch.where(ratio > 1 + high, 1 + high, ratio)
    return torch.where(mask, -weight * A * logp, 0.0).sum() / mask.sum()


def cispo_minimum(logp: Tensor, old: Tensor, A: Tensor, mask: Tensor, high: float) -> Tensor:
    with torch.no_grad():
        weight = A * torch.minimum(logp - old, torch.log1p(torch.full_like(old, high))).exp()
    return -torch.masked_select(weight * logp, mask).mean()


def cispo_loop(logp: Tensor, old: Tensor, A: Tensor, mask: Tensor, high: float) -> Tensor:
    total = logp.new_zeros(())
    for i, t in mask.nonzero().tolist():
        ratio = min((logp[i, t] - old[i, t]).exp().item(), 1 + high)
        total = total - ratio * A[i, t] * logp[i, t]
    return total / mask.sum()


def decoupled_losses(
    logp: Tensor, prox: Tensor, mu: Tensor, A: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """Weighted advantages, and PPO with them."""
    A = A * (prox - mu).exp()
    rho = (logp - prox).exp()
    loss = torch.maximum(-rho * A, -rho.clamp(1 - clip, 1 + clip) * A)
    return (loss * mask).sum() / mask.sum()


def decoupled_by_sign(
    logp: Tensor, prox: Tensor, mu: Tensor, A: Tensor, mask: Tensor, clip: float
) -> Tensor:
    rho = (logp - prox).exp()
    good = torch.where(A > 0, rho.clamp(max=1 + clip), rho.clamp(min=1 - clip))
    return -((prox - mu).exp() * good * A)[mask].mean()


def decoupled_loop(
    logp: Tensor, prox: Tensor, mu: Tensor, A: Tensor, mask: Tensor, clip: float
) -> Tensor:
    losses = []
    for i, t in mask.nonzero().tolist():
        rho, a = (logp[i, t] - prox[i, t]).exp(), A[i, t]
        surrogate = torch.min(rho * a, rho.clip(1 - clip, 1 + clip) * a)
        losses.append(surrogate * prox[i, t].exp() / mu[i, t].exp())
    return -torch.stack(losses).mean()


SOLUTIONS = {
    "importance_weights": [weights_by_cumprod, weights_by_matrix, weights_by_loop],
    "cispo_loss": [cispo_where, cispo_minimum, cispo_loop],
    "decoupled_ppo_loss": [decoupled_losses, decoupled_by_sign, decoupled_loop],
}
