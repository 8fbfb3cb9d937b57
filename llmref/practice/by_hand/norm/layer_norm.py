"""LayerNorm over the last axis, and its gradients."""

import torch


def layer_norm(x, weight, bias, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(-1, keepdim=True)  # first: E[x^2] - mean^2 cancels digits
    variance = centred.square().mean(-1, keepdim=True)  # (..., 1), divides by n
    return (weight * (centred * torch.rsqrt(variance + eps)) + bias).to(x.dtype)


def layer_norm_backward(grad, x, weight, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    grad = grad.to(wide.dtype)
    centred = wide - wide.mean(-1, keepdim=True)
    rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)  # (..., 1)
    x_hat = centred * rstd
    g = weight * grad
    along = (g * x_hat).mean(-1, keepdim=True)  # (..., 1): how much of g is along x_hat
    grad_x = rstd * (g - g.mean(-1, keepdim=True) - x_hat * along)  # (..., n)
    grad_weight = (grad * x_hat).reshape(-1, x.shape[-1]).sum(0)  # (n,): over all rows
    grad_bias = grad.reshape(-1, x.shape[-1]).sum(0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)
