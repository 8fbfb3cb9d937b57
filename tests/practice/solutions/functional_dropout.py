"""Right solutions on dropout, each written in another way than the code by hand."""

import numpy as np
import torch
from torch import Tensor


def by_product(x: Tensor, u: Tensor, p: float, training: bool) -> Tensor:
    return x * (u >= p) / (1 - p) if training else x


def by_filling(x: Tensor, u: Tensor, p: float, training: bool) -> Tensor:
    return (x / (1 - p)).masked_fill(u < p, 0.0) if training else x


def by_numpy(x: Tensor, u: Tensor, p: float, training: bool) -> np.ndarray:
    array = x.numpy().copy()
    if training:
        array[u.numpy() < p] = 0
        array /= 1 - p
    return array


def by_loop(x: Tensor, u: Tensor, p: float, training: bool) -> Tensor:
    if not training:
        return x
    pairs = zip(x.flatten().tolist(), u.flatten().tolist(), strict=True)
    kept = [0.0 if draw < p else entry / (1 - p) for entry, draw in pairs]
    return torch.tensor(kept, dtype=x.dtype).reshape(x.shape)


def backward_by_autograd(grad: Tensor, u: Tensor, p: float) -> Tensor:
    x = torch.ones_like(grad).requires_grad_()
    by_product(x, u, p, True).backward(grad)
    return x.grad  # type: ignore[return-value]


def backward_by_product(grad: Tensor, u: Tensor, p: float) -> Tensor:
    return grad * (u >= p).to(grad.dtype).div(1 - p)


def backward_by_filling(grad: Tensor, u: Tensor, p: float) -> Tensor:
    return grad.masked_fill(u < p, 0.0) / (1 - p)


SOLUTIONS = {
    "dropout": [by_product, by_filling, by_numpy, by_loop],
    "dropout_backward": [backward_by_autograd, backward_by_product, backward_by_filling],
}
