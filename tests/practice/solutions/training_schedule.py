"""Right solutions on schedules, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR


def cosine_by_cases(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    if step >= total_steps:
        return min_lr
    if step >= warmup_steps:
        angle = math.pi * (step - warmup_steps) / (total_steps - warmup_steps)
        return (max_lr + min_lr) / 2 + (max_lr - min_lr) / 2 * math.cos(angle)
    return step * (max_lr / warmup_steps)


def cosine_by_square(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """(1 + cos a) / 2 is the square of cos(a / 2)."""
    rise = step / warmup_steps if warmup_steps else 1.0
    if rise < 1:
        return rise * max_lr
    left = max(0, total_steps - step) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * math.sin(math.pi / 2 * left) ** 2


def cosine_by_torch(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> torch.Tensor:
    at = torch.tensor(float(step), dtype=torch.float64)
    if at < warmup_steps:
        return max_lr * at / warmup_steps
    x = ((at - warmup_steps) / (total_steps - warmup_steps)).clamp(max=1)
    return torch.lerp(
        torch.tensor(min_lr).double(),
        torch.tensor(max_lr).double(),
        (1 + torch.cos(torch.pi * x)) / 2,
    )


def stable_by_interpolation(
    step: int, max_lr: float, warmup_steps: int, stable_steps: int, decay_steps: int
) -> float:
    top = warmup_steps + stable_steps
    if step < warmup_steps:
        return float(np.interp(step, [0, warmup_steps], [0, max_lr]))
    return float(np.interp(step, [top, top + decay_steps], [max_lr, 0]))


def stable_by_cases(
    step: int, max_lr: float, warmup_steps: int, stable_steps: int, decay_steps: int
) -> float:
    if step < warmup_steps:
        return max_lr / warmup_steps * step
    if step <= warmup_steps + stable_steps:
        return max_lr
    left = warmup_steps + stable_steps + decay_steps - step
    return max_lr * left / decay_steps if left > 0 else 0.0


def stable_by_scheduler(
    step: int, max_lr: float, warmup_steps: int, stable_steps: int, decay_steps: int
) -> float:
    """Torch's own LambdaLR, stepped."""

    def factor(at: int) -> float:
        rise = at / warmup_steps if warmup_steps else 1.0
        fall = 1 - (at - warmup_steps - stable_steps) / decay_steps
        return max(0.0, min(1.0, rise, fall))

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=max_lr)
    scheduler = LambdaLR(optimizer, factor)
    for _ in range(step):
        optimizer.step()
        scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


SOLUTIONS = {
    "warmup_cosine": [cosine_by_cases, cosine_by_square, cosine_by_torch],
    "warmup_stable_decay": [stable_by_interpolation, stable_by_cases, stable_by_scheduler],
}
