"""Causal attention of a chunk (a prompt, or one token) that extends a cache of keys and values."""

import torch


def kv_cache_step(q, k, v, cache):
    if cache is not None:  # keys and values of all earlier tokens, each (B, H, T - c, D)
        k = torch.cat([cache[0], k], dim=-2)  # (B, H, T, D)
        v = torch.cat([cache[1], v], dim=-2)
    c, T = q.shape[-2], k.shape[-2]  # tokens of the chunk, tokens so far
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, H, c, T)
    future = torch.ones(c, T, dtype=torch.bool, device=q.device).triu(T - c + 1)
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    return weights @ v, (k, v)  # (B, H, c, D)
