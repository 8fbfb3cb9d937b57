"""Right solutions on the mixture of experts, each written in another way than the code by hand."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def token_by_token(x: Tensor, logits: Tensor, w1: Tensor, w2: Tensor, k: int) -> Tensor:
    out = []
    for row, scores in zip(x, logits, strict=True):
        best = sorted(range(len(scores)), key=lambda e: -float(scores[e]))[:k]
        share = torch.exp(scores[best] - scores.max())
        share = share / share.sum()
        out.append(
            sum(
                p * (w2[e] @ functional.silu(w1[e] @ row)) for p, e in zip(share, best, strict=True)
            )
        )
    return torch.stack(out)


def dense(x: Tensor, logits: Tensor, w1: Tensor, w2: Tensor, k: int) -> Tensor:
    kept = torch.full_like(logits, -torch.inf)
    top, idx = logits.topk(k, -1)
    share = kept.scatter(-1, idx, top).softmax(-1)
    hidden = functional.silu(torch.einsum("nc,efc->nef", x, w1))
    return torch.einsum("ne,nef,ecf->nc", share, hidden, w2)


def expert_by_expert(x: Tensor, logits: Tensor, w1: Tensor, w2: Tensor, k: int) -> Tensor:
    p = logits.softmax(-1)
    share, idx = p.topk(k, -1)
    share = share / share.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for e in range(len(w1)):
        token, place = torch.where(idx == e)
        hidden = x[token] @ w1[e].T
        y[token] += share[token, place][:, None] * (hidden / (1 + (-hidden).exp()) @ w2[e].T)
    return y


def by_counting(logits: Tensor, idx: Tensor) -> Tensor:
    E, (N, k) = logits.shape[1], idx.shape
    total = torch.zeros((), dtype=logits.dtype)
    for e in range(E):
        total = total + (idx == e).sum() / N * logits.softmax(1)[:, e].mean()
    return E / k * total


def by_one_hot(logits: Tensor, idx: Tensor) -> Tensor:
    chosen = functional.one_hot(idx, logits.shape[-1]).sum(1).to(logits.dtype)  # (N, E)
    f, p = chosen.mean(0), torch.softmax(logits, -1).mean(0)
    return torch.dot(f, p) * logits.shape[-1] / idx.shape[-1]


def by_numpy(logits: Tensor, idx: Tensor) -> Tensor:
    z, chosen = logits.double().numpy(), idx.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    load = np.bincount(chosen.ravel(), minlength=z.shape[1]) / chosen.size
    return torch.tensor(z.shape[1] * (load * p.mean(0)).sum(), dtype=logits.dtype)


SOLUTIONS = {
    "moe_forward": [token_by_token, dense, expert_by_expert],
    "load_balancing_loss": [by_counting, by_one_hot, by_numpy],
}
