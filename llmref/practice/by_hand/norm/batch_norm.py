"""BatchNorm over the first axis, with its running statistics, and its gradients."""

import torch


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # (m, C): one row per token
    mean, var = running_mean, running_var  # (C,)
    if training:
        m = len(wide)
        mean = wide.mean(0)
        var = (wide - mean).square().mean(0)  # divides by m; this one normalises
        unbiased = var.detach() * (m / (m - 1))  # this one is stored; m = 1 raises
        running_mean = (1 - momentum) * running_mean + momentum * mean.detach()
        running_var = (1 - momentum) * running_var + momentum * unbiased
    y = weight * (wide - mean) * torch.rsqrt(var + eps) + bias
    return y.to(x.dtype), running_mean, running_var


def batch_norm_backward(grad, x, weight, eps):  # in training
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    grad = grad.to(wide.dtype)
    centred = wide - wide.mean(0)
    rstd = torch.rsqrt(centred.square().mean(0) + eps)  # (C,)
    x_hat = centred * rstd
    along = (grad * x_hat).mean(0)  # (C,)
    grad_x = weight * rstd * (grad - grad.mean(0) - x_hat * along)  # (m, C)
    grad_weight, grad_bias = (grad * x_hat).sum(0), grad.sum(0)  # (C,)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)
