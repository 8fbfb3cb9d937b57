"""Right solutions on norms, each written in another way than the code by hand."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def rms_loops(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        total = 0.0
        for entry in row:
            total = total + entry * entry
        root = (total / len(row) + eps) ** 0.5
        rows.append(torch.stack([g * entry / root for g, entry in zip(weight, row, strict=True)]))
    return torch.stack(rows).reshape(x.shape)


def rms_numpy(x: Tensor, weight: Tensor, eps: float) -> np.ndarray:
    array = x.numpy()
    return weight.numpy() * array / np.sqrt(np.mean(array**2, axis=-1, keepdims=True) + eps)


def rms_torch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, eps)


def rms_by_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.einsum("...i,i->...i", x / (length**2 / x.shape[-1] + eps).sqrt(), weight)


def rms_backward_autograd(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> list[Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    rms_by_norm(x, weight, eps).backward(grad)
    return [x.grad, weight.grad]  # type: ignore[list-item]


def rms_backward_by_jacobian(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    rows, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, x.shape[-1])
    n, out = x.shape[-1], []
    for row, dy in zip(rows, grads, strict=True):
        r = ((row**2).mean() + eps).sqrt()
        jacobian = torch.eye(n, dtype=x.dtype) / r - torch.outer(row, row) / (n * r**3)
        out.append(jacobian @ (weight * dy))
    roots = ((rows**2).mean(-1, keepdim=True) + eps).sqrt()
    return torch.stack(out).reshape(x.shape), torch.einsum("ri,ri->i", grads, rows / roots)


def rms_backward_by_quotient(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    mean = x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + eps
    inner = (grad * weight * x).sum(-1, keepdim=True)
    grad_x = (grad * weight * mean - x * inner / x.shape[-1]) / mean**1.5
    axes = list(range(x.ndim - 1))
    product = grad * x / mean.sqrt()
    return grad_x, product.sum(axes) if axes else product


SOLUTIONS = {
    "rms_norm": [rms_loops, rms_numpy, rms_torch, rms_by_norm],
    "rms_norm_backward": [
        rms_backward_autograd,
        rms_backward_by_jacobian,
        rms_backward_by_quotient,
    ],
}


def layer_loops(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        mean = sum(row) / len(row)
        variance = sum((entry - mean) ** 2 for entry in row) / len(row)
        rows.append(weight * (row - mean) / (variance + eps) ** 0.5 + bias)
    return torch.stack(rows).reshape(x.shape)


def layer_numpy(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> np.ndarray:
    array = x.numpy()
    mean, variance = array.mean(-1, keepdims=True), array.var(-1, keepdims=True)
    return weight.numpy() * (array - mean) / np.sqrt(variance + eps) + bias.numpy()


def layer_torch(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(x, weight.shape, weight, bias, eps)


def layer_backward_autograd(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> list[Tensor]:
    leaves = [it.clone().requires_grad_() for it in (x, weight, torch.zeros_like(weight))]
    layer_loops(*leaves, eps).backward(grad)
    return [it.grad for it in leaves]  # type: ignore[misc]


def layer_backward_by_jacobian(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    n = x.shape[-1]
    centring = torch.eye(n, dtype=x.dtype) - 1 / n
    rows, grads = x.reshape(-1, n) @ centring, grad.reshape(-1, n)
    s = (rows.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    hat = rows / s
    g = grads * weight
    out = (g @ centring - hat * (g * hat).sum(-1, keepdim=True) / n) / s
    return out.reshape(x.shape), (grads * hat).sum(0), grads.sum(0)


def layer_backward_torch(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    leaves = [it.clone().requires_grad_() for it in (x, weight, torch.zeros_like(weight))]
    return torch.autograd.grad(
        functional.layer_norm(leaves[0], weight.shape, *leaves[1:], eps), leaves, grad
    )


SOLUTIONS |= {
    "layer_norm": [layer_loops, layer_numpy, layer_torch],
    "layer_norm_backward": [
        layer_backward_autograd,
        layer_backward_by_jacobian,
        layer_backward_torch,
    ],
}
