"""Right solutions on functions, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def softmax_loops(x: Tensor) -> Tensor:
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        largest = max(row.tolist())
        weights = [math.exp(entry - largest) for entry in row.tolist()]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=x.dtype).reshape(x.shape)


def softmax_numpy(x: Tensor) -> np.ndarray:
    weights = np.exp(x.numpy() - x.numpy().max(-1, keepdims=True))
    return weights / np.einsum("...i->...", weights)[..., None]


def softmax_by_logarithm(x: Tensor) -> Tensor:
    return (x - torch.logsumexp(x, dim=-1, keepdim=True)).exp()


def gelu_by_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def gelu_numbers(x: Tensor) -> Tensor:
    values = [it * 0.5 * math.erfc(-it / math.sqrt(2)) for it in x.flatten().tolist()]
    return torch.tensor(values, dtype=x.dtype).reshape(x.shape)


def silu_quotient(x: Tensor) -> Tensor:
    return torch.where(
        x > 0, x / (1 + torch.exp(-x.abs())), x * torch.exp(-x.abs()) / (1 + torch.exp(-x.abs()))
    )


def silu_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(x / 2)) / 2


SOLUTIONS = {
    "softmax": [softmax_loops, softmax_numpy, softmax_by_logarithm],
    "gelu": [gelu_by_erf, gelu_numbers, functional.gelu],
    "silu": [silu_quotient, silu_tanh, functional.silu],
}
