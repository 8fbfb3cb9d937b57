"""Right solutions on decoders, each written in another way than the code by hand."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Cache = tuple[Tensor, Tensor] | None
Weights = tuple[Tensor, ...]


def _turns(positions: Tensor, D: int, base: float) -> Tensor:
    """Complex numbers cos + i sin, one for each pair of features."""
    angles = positions.double()[:, None] * base ** (-torch.arange(D // 2).double() * 2 / D)
    return torch.polar(torch.ones_like(angles), angles)


def _complex_rope(x: Tensor, positions: Tensor, base: float) -> Tensor:
    D = x.shape[-1]
    turned = torch.complex(x[..., : D // 2].double(), x[..., D // 2 :].double())
    turned = turned * _turns(positions, D, base)
    return torch.cat([turned.real, turned.imag], -1).to(x.dtype)


def by_torch(
    h: Tensor, w: Weights, H: int, G: int, base: float, eps: float, cache: Cache
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Library norms and linear maps, complex rotations, repeated heads."""
    C, old = h.shape[-1], 0 if cache is None else cache[0].shape[-2]
    x = F.rms_norm(h, (C,), w[0], eps)
    q, k, v = (
        F.linear(x, m).unflatten(-1, (n, -1)).movedim(-2, -3)
        for m, n in zip(w[1:4], (H, G, G), strict=True)
    )
    positions = torch.arange(old, old + h.shape[1])
    q, k = _complex_rope(q, positions, base), _complex_rope(k, positions, base)
    if cache is not None:
        k, v = torch.cat([cache[0], k], -2), torch.cat([cache[1], v], -2)
    keys, values = (z.repeat_interleave(H // G, 1) for z in (k, v))
    scores = torch.einsum("bhtd,bhsd->bhts", q, keys) / math.sqrt(q.shape[-1])
    hidden = torch.arange(k.shape[2])[None] > positions[:, None]
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    a = torch.einsum("bhts,bhsd->bthd", weights, values).flatten(2)
    h = h + F.linear(a, w[4])
    x = F.rms_norm(h, (C,), w[5], eps)
    return h + F.linear(F.silu(F.linear(x, w[6])) * F.linear(x, w[7]), w[8]), (k, v)


def token_by_token(
    h: Tensor, w: Weights, H: int, G: int, base: float, eps: float, cache: Cache
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One token after the other, head by head: no mask is needed."""
    g1, wq, wk, wv, wo, g2, w_gate, w_up, w_down = w
    B, D = h.shape[0], wq.shape[0] // H
    k, v = cache or (h.new_zeros(B, G, 0, D), h.new_zeros(B, G, 0, D))
    out = []
    for token in h.unbind(1):  # (B, C)
        x = token * g1 / (token.square().mean(-1, keepdim=True) + eps).sqrt()
        place = torch.tensor([k.shape[2]])
        key = _complex_rope((x @ wk.T).view(B, G, 1, D), place, base)
        k, v = torch.cat([k, key], 2), torch.cat([v, (x @ wv.T).view(B, G, 1, D)], 2)
        query = _complex_rope((x @ wq.T).view(B, H, 1, D), place, base)
        read = []
        for head in range(H):
            group = head * G // H
            p = ((k[:, group] @ query[:, head].mT) / D**0.5).softmax(1)  # (B, S, 1)
            read.append((p * v[:, group]).sum(1))
        token = token + torch.cat(read, -1) @ wo.T
        x = token * g2 / (token.square().mean(-1, keepdim=True) + eps).sqrt()
        gate = x @ w_gate.T
        out.append(token + (gate / (1 + (-gate).exp()) * (x @ w_up.T)) @ w_down.T)
    return torch.stack(out, 1), (k, v)


def with_folded_gains(
    h: Tensor, w: Weights, H: int, G: int, base: float, eps: float, cache: Cache
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Gains in the columns of the matrices that read, and the queries of a group in one product."""
    B, T, C = h.shape
    wq, wk, wv = (m * w[0] for m in w[1:4])
    x = h * (h.pow(2).sum(-1, keepdim=True) / C + eps) ** -0.5
    D = len(wq) // H
    k = torch.stack([x @ part.T for part in wk.split(D)], 1)  # (B, G, T, D)
    v = torch.stack([x @ part.T for part in wv.split(D)], 1)
    q = torch.stack([x @ part.T for part in wq.split(D)], 1)
    old = cache[0].shape[2] if cache else 0
    angles = torch.arange(old, old + T).double()[:, None] / base ** (
        torch.arange(D // 2).double() / (D // 2)
    )
    cos, sin = (z.repeat(1, 2).to(h.dtype) for z in (angles.cos(), angles.sin()))
    half = D // 2
    q, k = (z * cos + torch.cat([-z[..., half:], z[..., :half]], -1) * sin for z in (q, k))
    if cache:
        k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
    folded = q.reshape(B, G, H // G * T, D)
    bias = h.new_zeros(T, old + T).masked_fill(
        torch.ones(T, old + T).triu(old + 1).bool(), -math.inf
    )
    p = (folded @ k.mT / D**0.5 + bias.repeat(H // G, 1)).softmax(-1)
    a = (p @ v).reshape(B, H, T, D).permute(0, 2, 1, 3).reshape(B, T, H * D)
    h = torch.addcmul(h, torch.ones_like(h), a @ w[4].mT)
    x = h * (h.pow(2).sum(-1, keepdim=True) / C + eps) ** -0.5
    gate, up = x @ (w[6] * w[5]).mT, x @ (w[7] * w[5]).mT
    return h + (gate * gate.sigmoid() * up) @ w[8].mT, (k, v)


def _whole(block: Any) -> Any:
    def decoder(
        ids: Tensor, embedding: Tensor, layers: list[Weights], gain: Tensor, head: Any, *rest: Any
    ) -> tuple[Tensor, list[Cache]]:
        *options, caches = rest
        h, kept = F.embedding(ids, embedding), []
        for place, w in enumerate(layers):
            h, cache = block(h, w, *options, caches[place] if caches else None)
            kept.append(cache)
        h = F.rms_norm(h, h.shape[-1:], gain, options[-1])
        return F.linear(h, embedding if head is None else head), kept

    return decoder


SOLUTIONS = {
    "decoder_block": [by_torch, token_by_token, with_folded_gains],
    "decoder": [_whole(by_torch), _whole(token_by_token), _whole(with_folded_gains)],
}
