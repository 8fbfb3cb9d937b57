"""Causal attention of a chunk (a prompt, or one token) that extends a cache; and its layer."""

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


def multi_head_step(x, wq, wk, wv, wo, num_heads, cache):
    B, c, _ = x.shape  # (B, c, C): the new tokens alone

    def split(features):  # (B, c, HD) -> (B, H, c, D)
        return features.view(B, c, num_heads, -1).transpose(1, 2)

    q, k, v = split(x @ wq.T), split(x @ wk.T), split(x @ wv.T)
    heads, cache = kv_cache_step(q, k, v, cache)  # (B, H, c, D)
    merged = heads.transpose(1, 2).reshape(B, c, -1)  # (B, c, HD)
    return merged @ wo.T, cache  # (B, c, C)
