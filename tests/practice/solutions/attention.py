"""Right solutions on attention, each written in another way than the code by hand."""

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
    weights = np.exp(a @ turned(b))
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
