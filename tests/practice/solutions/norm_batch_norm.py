"""Right solutions on BatchNorm, each written in another way than the code by hand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    mean, var = mean.clone(), var.clone()
    y = torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, False)
    return y, mean, var


def by_loops(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    columns, means, variances = [], [], []
    for c in range(x.shape[1]):
        column, center, spread = x[:, c], mean[c], var[c]
        if training:
            m = len(column)
            total = sum(column)
            center = total / m
            squares = sum((entry - center) ** 2 for entry in column)
            spread = squares / m
            means.append(mean[c] + momentum * (center - mean[c]))
            variances.append(var[c] + momentum * (squares / (m - 1) - var[c]))
        else:
            means.append(center)
            variances.append(spread)
        columns.append(weight[c] * (column - center) / (spread + eps) ** 0.5 + bias[c])
    return torch.stack(columns, 1), torch.stack(means), torch.stack(variances)


def by_numpy(x: Tensor, *rest: Any) -> tuple[np.ndarray, ...]:
    weight, bias, mean, var = (it.numpy() for it in rest[:4])
    training, momentum, eps = rest[4:]
    array = x.numpy()
    used = (np.mean(array, 0), np.var(array, 0)) if training else (mean, var)
    y = (array - used[0]) / np.sqrt(used[1] + eps) * weight + bias
    if not training:
        return y, mean, var
    unbiased = np.var(array, axis=0, ddof=1)
    return (
        y,
        momentum * used[0] + (1 - momentum) * mean,
        momentum * unbiased + (1 - momentum) * var,
    )


def backward_by_autograd(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    leaves = [it.clone().requires_grad_() for it in (x, weight, torch.zeros_like(weight))]
    y = torch.batch_norm(leaves[0], *leaves[1:], None, None, True, 0.1, eps, False)
    return torch.autograd.grad(y, leaves, grad)


def backward_by_jacobian(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    m = len(x)
    centring = torch.eye(m, dtype=x.dtype) - 1 / m
    columns = centring @ x
    s = (columns.pow(2).sum(0) / m + eps).sqrt()
    hat = columns / s
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        jacobian = (centring - torch.outer(hat[:, c], hat[:, c]) / m) / s[c]
        out[:, c] = weight[c] * (jacobian @ grad[:, c])
    return out, torch.einsum("mc,mc->c", grad, hat), torch.einsum("mc->c", grad)


def backward_by_sums(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    m = x.shape[0]
    mean, s = x.sum(0) / m, (x.var(0, correction=0) + eps).sqrt()
    dweight, dbias = (grad * (x - mean) / s).sum(0), grad.sum(0)
    dx = weight / (m * s) * (m * grad - dbias - (x - mean) / s * dweight)
    return dx, dweight, dbias


SOLUTIONS = {
    "batch_norm": [by_torch, by_loops, by_numpy],
    "batch_norm_backward": [backward_by_autograd, backward_by_jacobian, backward_by_sums],
}
