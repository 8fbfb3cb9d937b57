"""Right solutions on speculative decoding, each written in another way than the code by hand."""

import numpy as np
import torch
from torch import Tensor


def at_once(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """All drafts are tested together, then counted up to the first refusal."""
    rows = torch.arange(len(x))
    kept = u[:-1] * q[rows, x] < p[:-1][rows, x]
    n = int(kept.long().cumprod(0).sum())
    left = p[n] if n == len(x) else torch.relu(p[n] - q[n])
    left = left if left.sum() > 0 else p[n]
    mass = left.cumsum(0)
    return torch.cat([x[:n], torch.searchsorted(mass, mass[-1:] * u[-1:], right=True)])


def with_an_empty_draft(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """After the last draft stands one that gives nothing: its residual is the target."""
    q = torch.cat([q, torch.zeros_like(p[:1])])
    n = 0
    while n < len(x) and p[n, x[n]] > u[n] * q[n, x[n]]:
        n += 1
    left = p[n] - torch.minimum(p[n], q[n])
    if not left.any():
        left = p[n]
    mass = torch.cumsum(left, 0)
    first = int(torch.nonzero(mass > u[-1] * mass[-1])[0])
    return torch.tensor([*x[:n].tolist(), first])


def in_numpy(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> list[int]:
    P, Q, X, U = (np.asarray(it) for it in (p, q, x, u))
    out: list[int] = []
    left = P[-1]
    for i, token in enumerate(X):
        if U[i] * Q[i, token] < P[i, token]:
            out.append(int(token))
            continue
        left = np.maximum(P[i] - Q[i], 0)
        if left.sum() == 0:
            left = P[i]
        break
    point, token = U[-1] * left.cumsum()[-1], 0
    while left[: token + 1].cumsum()[-1] <= point:
        token += 1
    return [*out, token]


def tokens_by_formula(alpha: float, K: int) -> float:
    return K + 1.0 if alpha == 1 else (1 - alpha ** (K + 1)) / (1 - alpha)


def tokens_by_horner(alpha: float, K: int) -> float:
    tokens = 1.0
    for _ in range(K):
        tokens = 1 + alpha * tokens
    return tokens


def tokens_by_paths(alpha: float, K: int) -> float:
    stops = sum((n + 1) * alpha**n * (1 - alpha) for n in range(K))
    return stops + (K + 1) * alpha**K


def length_by_search(alpha: float, c: float, max_length: int) -> int:
    speeds = [tokens_by_horner(alpha, k) / (c * k + 1) for k in range(max_length + 1)]
    return max(range(max_length + 1), key=lambda k: (round(speeds[k], 12), -k))


def length_by_climbing(alpha: float, c: float, max_length: int) -> int:
    k = 0
    while k < max_length and tokens_by_formula(alpha, k + 1) / (c * (k + 1) + 1) > (
        tokens_by_formula(alpha, k) / (c * k + 1) + 1e-15
    ):
        k += 1
    return k


def length_by_tensors(alpha: float, c: float, max_length: int) -> Tensor:
    k = torch.arange(max_length + 1, dtype=torch.float64)
    speeds = (torch.tensor(alpha, dtype=torch.float64) ** k).cumsum(0) / (c * k + 1)
    return (speeds >= speeds.max() - 1e-13).nonzero()[0, 0]


SOLUTIONS = {
    "speculative_step": [at_once, with_an_empty_draft, in_numpy],
    "expected_tokens": [tokens_by_formula, tokens_by_horner, tokens_by_paths],
    "best_draft_length": [length_by_search, length_by_climbing, length_by_tensors],
}
