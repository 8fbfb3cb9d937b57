"""Stochastic rounding to bfloat16, the loss scale, and one step with master weights."""

import torch


def stochastic_round(x, noise):  # x finite float32; noise: uniform integers 0..65535
    bits = x.float().view(torch.int32) + noise.int()  # the carry rounds up
    return (bits & -(2**16)).view(torch.float32).bfloat16()  # keep the upper 16 bits


def update_loss_scale(scale, clean_steps, overflow, growth, backoff, interval):
    if overflow:  # an inf or NaN among the gradients: this step is skipped
        return scale * backoff, 0
    if clean_steps + 1 < interval:
        return scale, clean_steps + 1
    return scale * growth, 0  # e.g. doubled after 2000 clean steps


def mixed_precision_step(master, grads, scale, lr, max_norm):
    grads = [g.float() / scale for g in grads]  # unscale first, in float32
    norm = sum(g.square().sum() for g in grads).sqrt()  # ()
    if norm.isfinite():  # else an inf or NaN, or a norm beyond 1.8e19: skip
        rate = lr * (max_norm / norm).clamp(max=1)  # clip, then step on float32 weights
        master = [w - rate * grads[i] for i, w in enumerate(master)]
    return master, [w.half() for w in master]  # the copies are for the next forward pass
