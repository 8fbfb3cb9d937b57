"""The gradient of a batch in pieces, and clipping by the global norm."""

import torch


def accumulated_gradient(weight, pieces):
    weight = weight.detach().requires_grad_()
    total = sum(mask.sum() for _, _, mask in pieces)  # of all pieces, not of one
    for x, y, mask in pieces:  # x (T, C), y (T,), mask (T,)
        loss = (x @ weight - y).square()[mask].sum()  # the sum, not the mean
        (loss / total).backward()  # .grad adds up
    return weight.grad  # (C,)


def clip_by_global_norm(grads, max_norm):
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()  # of all as one vector
    if not norm.isfinite():
        raise ValueError("skip this step")
    if norm > max_norm:
        grads = [g * (max_norm / norm) for g in grads]
    return grads, norm
