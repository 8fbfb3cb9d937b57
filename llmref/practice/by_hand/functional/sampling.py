"""Filters of logits, top-k, top-p (nucleus sampling) and min-p, and the draw of a token."""

import math

import torch


def top_k(logits, k):
    order = logits.argsort(dim=-1, descending=True, stable=True)  # (..., V)
    removed = torch.ones_like(logits, dtype=torch.bool)
    removed = removed.scatter(-1, order[..., :k], False)
    return logits.masked_fill(removed, -torch.inf)


def top_p(logits, p):
    order = logits.argsort(dim=-1, descending=True, stable=True)
    probs = logits.gather(-1, order).softmax(-1)  # largest first
    before = probs.cumsum(-1) - probs  # the mass in front of each token
    removed = torch.zeros_like(logits, dtype=torch.bool)
    removed = removed.scatter(-1, order, before >= p)  # back in place
    return logits.masked_fill(removed, -torch.inf)


def min_p(logits, p):
    least = logits.amax(-1, keepdim=True) + math.log(p)  # (..., 1)
    return logits.masked_fill(logits < least, -torch.inf)


def next_token(logits, temperature, p, u):  # u: torch.rand of the shape of logits
    kept = top_p(logits / temperature, p)  # the temperature first
    gumbel = -torch.log(-torch.log(u))
    return (kept + gumbel).argmax(dim=-1)  # a draw from kept.softmax(-1)
