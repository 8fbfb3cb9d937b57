"""A whole decoder as in Llama, with its cache."""

import torch
from torch.nn.functional import scaled_dot_product_attention, silu


def rms(x, gain, eps):
    return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)  # (B, T, C)


def rope(x, start, base):  # (B, H, T, D), positions start, start + 1, ...
    T, D = x.shape[-2:]
    positions = torch.arange(start, start + T, dtype=torch.float64, device=x.device)
    exponents = torch.arange(0, D, 2, dtype=torch.float64, device=x.device) / D
    angles = positions[:, None] * base**-exponents  # (T, D / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    u, v = x.chunk(2, dim=-1)  # pair i is (x_i, x_{i + D/2})
    return torch.cat([u * cos - v * sin, u * sin + v * cos], dim=-1)


def decoder_block(h, w, H, G, base, eps, cache):
    g1, wq, wk, wv, wo, g2, w_gate, w_up, w_down = w  # in the order of transformers
    B, T, _ = h.shape  # (B, T, C): the new tokens alone
    x = rms(h, g1, eps)
    q = (x @ wq.T).view(B, T, H, -1).transpose(1, 2)  # (B, H, T, D)
    k, v = ((x @ m.T).view(B, T, G, -1).transpose(1, 2) for m in (wk, wv))  # (B, G, T, D)
    v = v if cache is None else torch.cat([cache[1], v], dim=2)  # (B, G, S, D)
    start = v.shape[2] - T  # tokens before these
    q, k = rope(q, start, base), rope(k, start, base)
    k = k if cache is None else torch.cat([cache[0], k], dim=2)  # rotated once and for all
    seen = torch.ones(T, start + T, dtype=torch.bool, device=h.device).tril(start)
    a = scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    h = h + a.transpose(1, 2).flatten(2) @ wo.T
    x = rms(h, g2, eps)
    h = h + (silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T
    return h, (k, v)


def decoder(ids, embedding, layers, gain, head, H, G, base, eps, caches):
    h, kept = embedding[ids], []  # (B, T, C)
    for i, w in enumerate(layers):  # caches: one per layer, or None at first
        h, cache = decoder_block(h, w, H, G, base, eps, caches[i] if caches else None)
        kept.append(cache)
    head = embedding if head is None else head  # tied, or (V, C) of its own
    return rms(h, gain, eps) @ head.T, kept  # (B, T, V)
