"""Causal multi-head self-attention; weights are (out, in), without biases."""

import torch


def multi_head(x, wq, wk, wv, wo, num_heads):
    B, T, _ = x.shape  # (B, T, C)

    def split(features):  # (B, T, HD) -> (B, H, T, D)
        return features.view(B, T, num_heads, -1).transpose(1, 2)

    q, k, v = split(x @ wq.T), split(x @ wk.T), split(x @ wv.T)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, H, T, T)
    future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)  # causal
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    heads = weights @ v  # (B, H, T, D)
    merged = heads.transpose(1, 2).reshape(B, T, -1)  # (B, T, HD)
    return merged @ wo.T  # (B, T, C)
