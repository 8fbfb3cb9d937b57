"""Attention with a sink in the softmax, the same from a log-sum-exp, and the sink's gradient."""

import torch


def sink_attention(q, k, v, mask, sink):  # True in mask may attend, sink: (H,)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, H, T, S)
    scores = scores.masked_fill(~mask, -torch.inf)
    z = sink[:, None, None]  # (H, 1, 1): one more column, without scale and mask
    m = torch.maximum(scores.amax(-1, keepdim=True), z)  # (B, H, T, 1)
    p = torch.exp(scores - m)
    total = p.sum(-1, keepdim=True) + torch.exp(z - m)  # the sink has no value
    return p @ v / total


def apply_sink(out, lse, sink):  # plain attention (B, H, T, Dv), lse (B, H, T)
    return torch.sigmoid(lse - sink[:, None])[..., None] * out


def sink_backward(grad_out, out, lse, sink):  # out: with the sink
    taken = torch.sigmoid(sink[:, None] - lse)  # (B, H, T): the sink's share
    return -(taken * (grad_out * out).sum(-1)).sum((0, 2))  # (H,)
