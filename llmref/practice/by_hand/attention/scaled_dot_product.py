"""Scaled dot-product attention with a mask (True may attend), and its gradients without one."""

import torch


def attention(q, k, v, mask=None):
    if mask is None:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., T, S)
    lowest = torch.finfo(scores.dtype).min  # with -inf, a row without any key would be NaN
    weights = torch.softmax(scores.masked_fill(~mask, lowest), dim=-1) * mask  # empty row: 0
    return weights @ v  # (..., T, Dv)


def attention_backward(grad, q, k, v):
    scale = q.shape[-1] ** -0.5
    weights = torch.softmax(scale * q @ k.transpose(-2, -1), dim=-1)  # (..., T, S)
    grad_v = weights.transpose(-2, -1) @ grad  # (..., S, Dv)
    grad_weights = grad @ v.transpose(-2, -1)  # (..., T, S)
    delta = (grad * (weights @ v)).sum(-1, keepdim=True)  # (..., T, 1): one number per query
    grad_scores = weights * (grad_weights - delta)
    grad_q = scale * grad_scores @ k  # (..., T, D)
    grad_k = scale * grad_scores.transpose(-2, -1) @ q  # (..., S, D)
    return grad_q, grad_k, grad_v
