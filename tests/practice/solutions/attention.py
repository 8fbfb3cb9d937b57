"""Right solutions on attention, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def causal_loops(T: int, S: int) -> Tensor:
    return torch.tensor([[j <= i + S - T for j in range(S)] for i in range(T)])


def causal_tril(T: int, S: int) -> Tensor:
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


def causal_numpy(T: int, S: int) -> np.ndarray:
    return ~np.triu(np.ones((T, S), dtype=bool), k=S - T + 1)


def causal_last_rows(T: int, S: int) -> Tensor:
    return torch.arange(S).expand(S, S).le(torch.arange(S).unsqueeze(-1))[S - T :]


def window_loops(T: int, S: int, window: int) -> Tensor:
    mask = torch.zeros(T, S, dtype=torch.bool)
    for i in range(T):
        position = i + S - T
        mask[i, max(0, position - window + 1) : position + 1] = True
    return mask


def window_band(T: int, S: int, window: int) -> Tensor:
    return torch.ones(T, S).tril(S - T).triu(S - T - window + 1) > 0


def window_numpy(T: int, S: int, window: int) -> np.ndarray:
    distance = np.arange(T)[:, None] + (S - T) - np.arange(S)[None]
    return np.logical_and(distance >= 0, distance < window)


SOLUTIONS = {
    "causal_mask": [causal_loops, causal_tril, causal_numpy, causal_last_rows],
    "sliding_window_mask": [window_loops, window_band, window_numpy],
}


def attention_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_loops(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    for place in np.ndindex(*q.shape[:-1]):
        *head, i = place
        seen = [j for j in range(k.shape[-2]) if mask is None or mask[i, j]]
        if seen:
            scores = torch.stack([q[place] @ k[(*head, j)] for j in seen]) / len(q[place]) ** 0.5
            weights = (scores - scores.max()).exp()
            values = torch.stack([v[(*head, j)] for j in seen])
            out[place] = (weights[:, None] * values).sum(0) / weights.sum()
    return out


def attention_numpy(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> np.ndarray:
    scores = np.einsum("...id,...jd->...ij", q.numpy(), k.numpy()) / np.sqrt(q.shape[-1])
    seen = np.ones(scores.shape[-2:]) if mask is None else mask.numpy()
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * seen
    total = weights.sum(-1, keepdims=True)
    return np.einsum("...ij,...jd->...id", weights, v.numpy()) / np.where(total == 0, 1, total)


def attention_added_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        scores = scores + torch.zeros(mask.shape, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


def attention_backward_autograd(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [it.clone().requires_grad_() for it in inputs]
    return torch.autograd.grad(attention_added_mask(*leaves), leaves, grad)


def attention_backward_jacobian(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    s = 1 / q.shape[-1] ** 0.5
    p = torch.softmax(s * torch.einsum("...id,...jd->...ij", q, k), -1)
    softmax_jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    dp = torch.einsum("...id,...jd->...ij", grad, v)
    da = torch.einsum("...ijl,...il->...ij", softmax_jacobian, dp)
    dk = s * torch.einsum("...ij,...id->...jd", da, q)
    return s * torch.einsum("...ij,...jd->...id", da, k), dk, p.mT @ grad


def attention_backward_numpy(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> list[np.ndarray]:
    dy, a, b, c = (it.numpy() for it in (grad, q, k, v))
    turned = lambda x: np.swapaxes(x, -1, -2)  # noqa: E731
    b = b / np.sqrt(a.shape[-1])
    weights = a @ turned(b)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    dp = dy @ turned(c)
    da = weights * dp - weights * (weights * dp).sum(-1, keepdims=True)
    return [da @ b, turned(da) @ a / np.sqrt(a.shape[-1]), turned(weights) @ dy]


SOLUTIONS |= {
    "attention": [attention_torch, attention_loops, attention_numpy, attention_added_mask],
    "attention_backward": [
        attention_backward_autograd,
        attention_backward_jacobian,
        attention_backward_numpy,
    ],
}


def multi_head_per_head(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int
) -> Tensor:
    """A sum over heads."""
    size, out = wq.shape[0] // num_heads, torch.zeros_like(x)
    for h in range(num_heads):
        own = slice(h * size, (h + 1) * size)
        q, k, v = x @ wq[own].T, x @ wk[own].T, x @ wv[own].T
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        out = out + attention_added_mask(q, k, v, causal) @ wo[:, own].T
    return out


def multi_head_einsum(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int
) -> Tensor:
    T, C = x.shape[1:]
    wq, wk, wv = (w.view(num_heads, -1, C) for w in (wq, wk, wv))
    q, k, v = (torch.einsum("btc,hdc->bhtd", x, w) for w in (wq, wk, wv))
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    scores = scores + torch.full((T, T), -torch.inf, dtype=x.dtype).triu(1)
    heads = torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v)
    return torch.einsum("bhtd,chd->btc", heads, wo.view(C, num_heads, -1))


def multi_head_torch(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int
) -> Tensor:
    q, k, v = (
        functional.linear(x, w).unflatten(-1, (num_heads, -1)).transpose(1, 2) for w in (wq, wk, wv)
    )
    heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return functional.linear(heads.transpose(1, 2).flatten(2), wo)


def multi_head_numpy(
    x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, num_heads: int
) -> np.ndarray:
    T, out = x.shape[1], []
    for tokens in x.numpy():
        q, k, v = (np.split(tokens @ w.numpy().T, num_heads, axis=1) for w in (wq, wk, wv))
        heads = np.zeros((T, wo.shape[1]), dtype=tokens.dtype)
        size = wo.shape[1] // num_heads
        for h in range(num_heads):
            for t in range(T):
                scores = k[h][: t + 1] @ q[h][t] / np.sqrt(size)
                weights = np.exp(scores - scores.max())
                heads[t, h * size : (h + 1) * size] = weights @ v[h][: t + 1] / weights.sum()
        out.append(heads @ wo.numpy().T)
    return np.stack(out)


def grouped_repeat(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r = q.size(1) // k.size(1)
    return attention_added_mask(q, k.repeat_interleave(r, 1), v.repeat_interleave(r, 1))


def grouped_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def grouped_loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r = q.shape[1] // k.shape[1]
    heads = [attention_loops(q[:, h], k[:, h // r], v[:, h // r]) for h in range(q.shape[1])]
    return torch.stack(heads, 1)


def grouped_as_longer_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The queries of a group as one head with H / G times as many tokens."""
    B, H, T, D = q.shape
    folded = q.reshape(B, k.shape[1], -1, D)
    return functional.scaled_dot_product_attention(folded, k, v).reshape(B, H, T, -1)


def grouped_numpy(q: Tensor, k: Tensor, v: Tensor) -> np.ndarray:
    group = np.arange(q.shape[1]) // (q.shape[1] // k.shape[1])
    return attention_numpy(q, k[:, group], v[:, group])


Cache = tuple[Tensor, Tensor] | None


def cache_token_by_token(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    outputs = []
    for t in range(q.shape[-2]):
        new = k[..., t : t + 1, :], v[..., t : t + 1, :]
        cache = (
            new
            if cache is None
            else tuple(map(lambda old, it: torch.cat([old, it], -2), cache, new))
        )
        outputs.append(functional.scaled_dot_product_attention(q[..., t : t + 1, :], *cache))
    return torch.cat(outputs, -2), cache


def cache_buffer(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> list[object]:
    """A buffer with room for what follows, of which the filled part is returned."""
    seen = cache[0].shape[-2] if cache else 0
    total = seen + q.shape[-2]
    buffer = q.new_empty(2, *q.shape[:-2], 2 * total, q.shape[-1])
    if cache:
        buffer[0, ..., :seen, :], buffer[1, ..., :seen, :] = cache
    buffer[0, ..., seen:total, :], buffer[1, ..., seen:total, :] = k, v
    keys, values = buffer[..., :total, :]
    mask = torch.arange(total) <= torch.arange(seen, total)[:, None]
    return [attention_added_mask(q, keys, values, mask), [keys, values]]


def cache_numpy(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[np.ndarray, tuple]:
    keys = np.concatenate([k.numpy()] if cache is None else [cache[0].numpy(), k.numpy()], -2)
    values = np.concatenate([v.numpy()] if cache is None else [cache[1].numpy(), v.numpy()], -2)
    c, T = q.shape[-2], keys.shape[-2]
    scores = q.numpy() @ keys.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * np.tri(c, T, T - c)
    return (weights / weights.sum(-1, keepdims=True)) @ values, (keys, values)


SOLUTIONS |= {
    "multi_head": [multi_head_per_head, multi_head_einsum, multi_head_torch, multi_head_numpy],
    "grouped_query": [
        grouped_repeat,
        grouped_torch,
        grouped_loop,
        grouped_as_longer_queries,
        grouped_numpy,
    ],
    "kv_cache_step": [cache_token_by_token, cache_buffer, cache_numpy],
}


def online_numbers(x: Tensor) -> Tensor:
    rows = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        largest, total = -math.inf, 0.0
        for score in row:
            if score == -math.inf:
                continue
            if score > largest:
                total = total * math.exp(largest - score) + 1.0
                largest = score
            else:
                total += math.exp(score - largest)
        rows.append([math.exp(score - largest) / total for score in row])
    return torch.tensor(rows, dtype=x.dtype).reshape(x.shape)


def online_by_logarithm(x: Tensor) -> Tensor:
    """The running log-sum-exp in place of two numbers."""
    lse = torch.full_like(x[..., 0], -torch.inf)
    for j in range(x.shape[-1]):
        lse = torch.logaddexp(lse, x[..., j])
    return torch.exp(x - lse.unsqueeze(-1))


def online_all_maxima(x: Tensor) -> Tensor:
    """All running maxima first, then one sum with the telescoped factors."""
    m = x.cummax(-1).values[..., -1:]
    return torch.exp(x - m).div_(torch.exp(x - m).cumsum(-1)[..., -1:])


def online_numpy(x: Tensor) -> np.ndarray:
    array = x.numpy()
    m = np.full(array.shape[:-1], np.finfo(array.dtype).min)
    total = np.zeros_like(m)
    for j in range(array.shape[-1]):
        larger = np.maximum(m, array[..., j])
        total = total * np.exp(m - larger) + np.exp(array[..., j] - larger)
        m = larger
    return np.exp(array - m[..., None]) / total[..., None]


def flash_averages(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """The output so far, normalised in each step."""
    out, lse = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype), None
    for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
        scores = q @ keys.mT / math.sqrt(q.shape[-1])
        now = torch.logsumexp(scores, -1, keepdim=True)
        part = torch.exp(scores - now) @ values
        share = torch.ones_like(now) if lse is None else torch.sigmoid(now - lse)
        out = share * part + (1 - share) * out
        lse = now if lse is None else torch.logaddexp(lse, now)
    return out


def flash_tiles(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Query by query, key by key within a block."""
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    for place in np.ndindex(*q.shape[:-1]):
        head = place[:-1]
        m, total, mean = -math.inf, 0.0, torch.zeros(v.shape[-1], dtype=q.dtype)
        for start in range(0, k.shape[-2], block):
            for j in range(start, min(start + block, k.shape[-2])):
                score = float(q[place] @ k[(*head, j)]) / q.shape[-1] ** 0.5
                largest = max(m, score)
                total = total * math.exp(m - largest) + math.exp(score - largest)
                mean = mean * math.exp(m - largest) + math.exp(score - largest) * v[(*head, j)]
                m = largest
        out[place] = mean / total
    return out


def flash_numpy(q: Tensor, k: Tensor, v: Tensor, block: int) -> np.ndarray:
    a, b, c = q.numpy(), k.numpy(), v.numpy()
    parts = []
    for start in range(0, b.shape[-2], block):
        scores = a @ b[..., start : start + block, :].swapaxes(-1, -2) / np.sqrt(a.shape[-1])
        m = scores.max(-1, keepdims=True)
        p = np.exp(scores - m)
        parts.append((m, p.sum(-1, keepdims=True), p @ c[..., start : start + block, :]))
    largest = np.max([m for m, _, _ in parts], axis=0)
    total = sum(np.exp(m - largest) * ell for m, ell, _ in parts)
    return sum(np.exp(m - largest) * o for m, _, o in parts) / total


SOLUTIONS |= {
    "online_softmax": [online_numbers, online_by_logarithm, online_all_maxima, online_numpy],
    "flash_attention": [
        flash_averages,
        flash_tiles,
        flash_numpy,
        lambda q, k, v, block: functional.scaled_dot_product_attention(q, k, v),
    ],
}
