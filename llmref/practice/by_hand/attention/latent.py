"""Latent attention in its absorbed form: what one decoding step computes, or a chunk."""

import math

import torch


def mla_decode(q_nope, q_rope, c, k_rope, w_uk, w_uv, mask):
    # (B, H, T, D) (B, H, T, Dr) (B, S, Dc) (B, S, Dr) (H, D, Dc) (H, Dv, Dc) (T, S)
    q = torch.cat([q_nope @ w_uk, q_rope], dim=-1)  # (B, H, T, Dc + Dr): W_UK absorbed
    k = torch.cat([c, k_rope], dim=-1)[:, None]  # (B, 1, S, Dc + Dr): one key for all heads
    scale = (q_nope.shape[-1] + q_rope.shape[-1]) ** -0.5  # of the key before absorption
    empty = ~mask.any(-1, keepdim=True)  # queries that may read nothing
    scores = (scale * q @ k.transpose(-2, -1)).masked_fill(~(mask | empty), -math.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(empty, 0.0)
    return (weights @ c[:, None]) @ w_uv.transpose(-2, -1)  # average latents, then W_UV
