"""Right solutions on latent attention, each written in another way than the code by hand."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def expanded(
    q: Tensor, rope: Tensor, c: Tensor, k_rope: Tensor, up_k: Tensor, up_v: Tensor, mask: Tensor
) -> Tensor:
    """Keys and values of every head, and torch's attention, which gives empty rows 0."""
    keys = torch.einsum("bsc,hdc->bhsd", c, up_k)
    shared = k_rope[:, None].expand(-1, len(up_k), -1, -1)
    values = torch.einsum("bsc,hvc->bhsv", c, up_v)
    query = torch.cat([q, rope], -1)
    return F.scaled_dot_product_attention(query, torch.cat([keys, shared], -1), values, mask)


def two_products(
    q: Tensor, rope: Tensor, c: Tensor, k_rope: Tensor, up_k: Tensor, up_v: Tensor, mask: Tensor
) -> Tensor:
    """The parts of the score added, nothing joined; the exponential by hand."""
    scores = torch.einsum("bhtd,hdc,bsc->bhts", q, up_k, c)
    scores = scores + torch.einsum("bhtr,bsr->bhts", rope, k_rope)
    scores = scores / math.sqrt(q.shape[-1] + rope.shape[-1])
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(~mask, lowest)
    weights = (scores - scores.amax(-1, keepdim=True)).exp() * mask
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.einsum("bhts,bsc,hvc->bhtv", weights, c, up_v)


def query_by_query(
    q: Tensor, rope: Tensor, c: Tensor, k_rope: Tensor, up_k: Tensor, up_v: Tensor, mask: Tensor
) -> Tensor:
    """Loops over sequences, heads and queries; only allowed keys are touched."""
    B, H, T, D = q.shape
    out = q.new_zeros(B, H, T, up_v.shape[1])
    size = math.sqrt(D + rope.shape[-1])
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = mask[t].nonzero().flatten()
                if not len(seen):
                    continue
                scores = c[b, seen] @ (up_k[h].T @ q[b, h, t]) + k_rope[b, seen] @ rope[b, h, t]
                out[b, h, t] = up_v[h] @ (c[b, seen].T @ (scores / size).softmax(0))
    return out


SOLUTIONS = {"mla_decode": [expanded, two_products, query_by_query]}
