"""SwiGLU, a feed-forward layer with a gate, without biases; and the gradients of its branches."""

import torch


def swiglu(x, w_gate, w_up, w_down):
    gate, up = x @ w_gate.T, x @ w_up.T  # (..., F)
    hidden = gate * torch.sigmoid(gate) * up  # silu of the gate, times the other branch
    return hidden @ w_down.T  # (..., d)


def gate_backward(grad_hidden, gate, up):  # each (..., F)
    s = torch.sigmoid(gate)
    grad_gate = grad_hidden * up * (s + gate * s * (1 - s))  # the slope of silu
    grad_up = grad_hidden * gate * s  # silu of the gate
    return grad_gate, grad_up
