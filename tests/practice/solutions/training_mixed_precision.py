"""Right solutions on mixed precision, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor


def round_by_numpy(x: Tensor, noise: Tensor) -> np.ndarray:
    bits = x.numpy().astype(np.float32).view(np.uint32).astype(np.uint64)
    upper = (bits + noise.numpy().astype(np.uint64)) // 65536
    return (upper * 65536).astype(np.uint32).view(np.float32)


def round_by_neighbours(x: Tensor, noise: Tensor) -> Tensor:
    """The fraction of the gap, in 65536ths, against the noise."""
    out = []
    for entry, draw in zip(x.float().flatten().tolist(), noise.flatten().tolist(), strict=True):
        if entry == 0:
            out.append(0.0)
            continue
        gap = 2.0 ** (math.floor(math.log2(abs(entry))) - 7)
        low = math.floor(abs(entry) / gap)
        up = (abs(entry) / gap - low) * 65536 + draw >= 65536
        out.append(math.copysign((low + up) * gap, entry))
    return torch.tensor(out, dtype=x.dtype).reshape(x.shape)


def round_by_halves(x: Tensor, noise: Tensor) -> Tensor:
    """The two halves of the bits as 16-bit integers."""
    low, high = x.float().unsqueeze(-1).view(torch.int16).long().unbind(-1)
    carry = (low % 65536 + noise) // 65536
    return (high + carry).to(torch.int16).view(torch.bfloat16)


def scale_by_cases(
    scale: float, clean_steps: int, overflow: bool, growth: float, backoff: float, interval: int
) -> tuple[float, int]:
    count = 0 if overflow else clean_steps + 1
    grown = count == interval
    return scale * (backoff if overflow else growth if grown else 1.0), 0 if grown else count


def scale_by_torch(
    scale: float, clean_steps: int, overflow: bool, growth: float, backoff: float, interval: int
) -> tuple[Tensor, Tensor]:
    current, tracker = torch.tensor(scale).float(), torch.tensor(clean_steps, dtype=torch.int32)
    found = torch.tensor(float(overflow)).float()
    torch._amp_update_scale_(current, tracker, found, growth, backoff, interval)
    return current, tracker


def scale_by_remainder(
    scale: float, clean_steps: int, overflow: bool, growth: float, backoff: float, interval: int
) -> list[float]:
    if overflow:
        return [scale * backoff, 0]
    count = (clean_steps + 1) % interval
    return [scale if count else scale * growth, count]


def step_by_torch(
    master: list[Tensor], grads: list[Tensor], scale: float, lr: float, max_norm: float
) -> tuple[list[Tensor], list[Tensor]]:
    weights = [torch.nn.Parameter(w.clone()) for w in master]
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad.clone() / scale
    norm = torch.nn.utils.clip_grad_norm_(weights, max_norm)
    if math.isfinite(norm):
        torch.optim.SGD(weights, lr=lr).step()
    new = [weight.detach() for weight in weights]
    return new, [w.to(torch.float16) for w in new]


def step_by_numpy(
    master: list[Tensor], grads: list[Tensor], scale: float, lr: float, max_norm: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    arrays = [g.numpy().astype(np.float64) / scale for g in grads]
    new = [w.numpy().copy() for w in master]
    if all(np.isfinite(g).all() for g in arrays):
        norm = math.sqrt(sum(float((g**2).sum()) for g in arrays))
        for w, g in zip(new, arrays, strict=True):
            w -= (lr * min(1.0, max_norm / norm) * g).astype(w.dtype)
    return new, [w.astype(np.float16) for w in new]


def step_by_loops(
    master: list[Tensor], grads: list[Tensor], scale: float, lr: float, max_norm: float
) -> tuple[list[Tensor], list[Tensor]]:
    flat = [float(entry) / scale for g in grads for entry in g.flatten()]
    if not all(map(math.isfinite, flat)):
        return [w.clone() for w in master], [w.half() for w in master]
    norm = math.hypot(*flat)
    factor = lr if norm <= max_norm else lr * max_norm / norm
    new = [w - factor * g.to(w.dtype) / scale for w, g in zip(master, grads, strict=True)]
    return new, [w.half() for w in new]


SOLUTIONS = {
    "stochastic_round": [round_by_numpy, round_by_neighbours, round_by_halves],
    "update_loss_scale": [scale_by_cases, scale_by_torch, scale_by_remainder],
    "mixed_precision_step": [step_by_torch, step_by_numpy, step_by_loops],
}
