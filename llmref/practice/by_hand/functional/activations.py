"""SiLU and GELU with their gradients, and the tanh form of GELU."""

import math

import torch


def silu(x):
    return x * torch.sigmoid(x)


def silu_backward(grad, x):
    s = torch.sigmoid(x)
    return grad * (s + x * s * (1 - s))


def gelu(x):
    return x * torch.erfc(-x / math.sqrt(2)) / 2  # x times the normal distribution function


def gelu_backward(grad, x):
    gate = torch.erfc(-x / math.sqrt(2)) / 2
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)  # the slope of the gate
    return grad * (gate + x * density)


def gelu_tanh(x):  # another function: up to 0.00047 away
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / 2 * (1 + torch.tanh(inner))
