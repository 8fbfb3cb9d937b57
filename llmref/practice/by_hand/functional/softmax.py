"""Softmax and log-softmax over the last axis, and the gradient of softmax."""

import torch


def softmax(x):
    shifted = x - x.amax(-1, keepdim=True)  # (..., n), at most 0: exp cannot overflow
    weights = torch.exp(shifted)
    return weights / weights.sum(-1, keepdim=True)


def log_softmax(x):
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - torch.exp(shifted).sum(-1, keepdim=True).log()  # no log of a probability


def softmax_backward(grad, p):
    mean = (p * grad).sum(-1, keepdim=True)  # (..., 1), under the distribution p
    return p * (grad - mean)
