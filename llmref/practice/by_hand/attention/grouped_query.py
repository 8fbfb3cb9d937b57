"""Attention with shared key/value heads, and the conversion of weights to fewer of them."""

import torch


def grouped_query(q, k, v):
    B, H, T, D = q.shape  # k (B, G, S, D), v (B, G, S, Dv)
    G = k.shape[1]
    q = q.reshape(B, G, H // G, T, D)  # neighbouring heads form a group
    k, v = k[:, :, None], v[:, :, None]  # (B, G, 1, S, D): read, not copied
    scores = q @ k.transpose(-2, -1) / D**0.5  # (B, G, H / G, T, S)
    weights = torch.softmax(scores, dim=-1)
    return (weights @ v).flatten(1, 2)  # (B, H, T, Dv)


def repeat_kv(x, n_rep):
    return x.repeat_interleave(n_rep, dim=1)  # (B, G, S, D) -> (B, H, S, D)


def mean_pool_kv(weight, H, G):
    heads = weight.reshape(G, H // G, -1, weight.shape[-1])  # weight (H * D, C)
    return heads.mean(1).flatten(0, 1)  # (G * D, C): a start for further training
