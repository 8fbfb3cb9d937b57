"""RMSNorm over the last axis, and its gradients."""

import torch


def rms_norm(x, weight, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # float16 squares overflow at 256
    rrms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)  # (..., 1)
    return (weight * (wide * rrms)).to(x.dtype)  # (..., n), rounded once; Llama: twice


def rms_norm_backward(grad, x, weight, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    grad = grad.to(wide.dtype)
    rrms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)  # (..., 1)
    x_hat = wide * rrms  # (..., n)
    g = weight * grad
    grad_x = rrms * (g - x_hat * (g * x_hat).mean(-1, keepdim=True))  # (..., n)
    grad_weight = (grad * x_hat).reshape(-1, x.shape[-1]).sum(0)  # (n,): over all rows
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)
