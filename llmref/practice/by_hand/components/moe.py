"""A mixture of experts, sorted by expert, and the loss that balances it."""

import torch
from torch.nn.functional import silu


def moe_forward(x, logits, w1, w2, k):  # x (N,C), logits (N,E), w1 (E,F,C), w2 (E,C,F)
    top, idx = logits.sort(dim=-1, descending=True, stable=True)
    w, idx = top[:, :k].softmax(-1), idx[:, :k]  # (N,k)
    order = idx.flatten().argsort()  # the N k choices, grouped by expert
    token = order // k  # whose choices they are
    counts = torch.bincount(idx.flatten(), minlength=len(w1)).tolist()
    rows = x[token].split(counts)  # one slice for each expert
    out = torch.cat([silu(r @ w1[e].T) @ w2[e].T for e, r in enumerate(rows)])
    out = w.flatten()[order, None] * out  # (Nk,C)
    return torch.zeros_like(x).index_add(0, token, out.to(x.dtype))


def load_balancing_loss(logits, idx):  # (N,E), (N,k)
    E = logits.shape[-1]
    n = torch.bincount(idx.flatten(), minlength=E)  # counts: no gradient
    P = logits.softmax(-1).mean(0)  # (E)
    return E / idx.numel() * (n * P).sum()
