"""Dropout and its gradient; the uniforms are an argument, so that both see one mask."""

import torch


def dropout(x, u, p, training):  # u: torch.rand(x.shape), in float32 at least
    if not training:
        return x
    return torch.where(u >= p, x / (1 - p), 0.0)  # kept with probability 1 - p


def dropout_backward(grad, u, p):  # the u of the forward pass
    return torch.where(u >= p, grad / (1 - p), 0.0)
