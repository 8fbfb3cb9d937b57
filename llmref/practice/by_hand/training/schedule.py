"""Learning rates after a number of updates: warm-up and cosine, warm-up and plateau."""

import math


def warmup_cosine(step, max_lr, min_lr, warmup_steps, total_steps):
    if step < warmup_steps:
        return max_lr * step / warmup_steps  # step counts updates, from 0
    x = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))  # past the end: 1
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * x))


def warmup_stable_decay(step, max_lr, warmup_steps, stable_steps, decay_steps):
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    x = max(0, step - warmup_steps - stable_steps) / decay_steps  # 0 on the plateau
    return max_lr * (1 - min(1.0, x))
