"""Right solutions on pieces and clipping, each written in another way than the code by hand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def gradient_by_hand(weight: Tensor, pieces: list[Any]) -> Tensor:
    """The gradient of a square, summed token by token."""
    total, gradient = 0, torch.zeros_like(weight)
    for x, y, mask in pieces:
        for row, target, counts in zip(x, y, mask, strict=True):
            if counts:
                gradient = gradient + 2 * (row @ weight - target) * row
                total += 1
    return gradient / total


def gradient_at_once(weight: Tensor, pieces: list[Any]) -> Tensor:
    x, y, mask = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    weight = weight.clone().requires_grad_()
    loss = torch.nn.functional.mse_loss(x[mask] @ weight, y[mask])
    return torch.autograd.grad(loss, weight)[0]


def gradient_of_sums(weight: Tensor, pieces: list[Any]) -> np.ndarray:
    """Sums in numpy; the division comes last."""
    w = weight.numpy()
    summed, counted = np.zeros_like(w), 0
    for x, y, mask in pieces:
        error = np.where(mask.numpy(), x.numpy() @ w - y.numpy(), 0)
        summed = summed + 2 * error @ x.numpy()
        counted += int(mask.sum())
    return summed / counted


def clip_by_torch(grads: list[Tensor], max_norm: float) -> tuple[list[Tensor], Tensor]:
    flat = torch.cat([g.reshape(-1) for g in grads])
    norm = torch.linalg.vector_norm(flat)
    factor = torch.clamp(max_norm / norm.clamp(min=1e-300), max=1)
    return [g * factor for g in grads], norm


def clip_in_loops(grads: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    total = 0.0
    for g in grads:
        for entry in g.flatten().tolist():
            total += entry * entry
    norm = total**0.5
    return [g.clone() if norm <= max_norm else g / norm * max_norm for g in grads], norm


def clip_by_foreach(grads: list[Tensor], max_norm: float) -> tuple[list[Tensor], Tensor]:
    norms = torch._foreach_norm(grads)
    norm = torch.stack(list(norms)).norm()
    if norm <= max_norm:
        return grads, norm
    return list(torch._foreach_mul(grads, max_norm / float(norm))), norm


SOLUTIONS = {
    "accumulated_gradient": [gradient_by_hand, gradient_at_once, gradient_of_sums],
    "clip_by_global_norm": [clip_by_torch, clip_in_loops, clip_by_foreach],
}
