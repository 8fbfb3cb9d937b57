"""SwiGLU, a feed-forward layer with a gate, without biases."""

import torch


def swiglu(x, w_gate, w_up, w_down):
    gate, up = x @ w_gate.T, x @ w_up.T  # (..., F)
    hidden = gate * torch.sigmoid(gate) * up  # silu of the gate, times the other branch
    return hidden @ w_down.T  # (..., d)
