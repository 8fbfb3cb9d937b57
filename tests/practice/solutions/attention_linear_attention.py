"""Right solutions on linear attention, each written in another way than the code by hand."""

import torch
from torch import Tensor


def token_by_token(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The recurrence; chunks change nothing."""
    state = torch.zeros(k.shape[1], v.shape[1], dtype=q.dtype)
    out = []
    for t in range(len(q)):
        state = state * log_decay[t].exp() + torch.outer(k[t], v[t])
        out.append(q[t] @ state)
    return torch.stack(out), state


def pair_by_pair(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The sum of the definition, and the state as what every unit query would read."""

    def read(query: Tensor, t: int) -> Tensor:
        left = [log_decay[j + 1 : t + 1].sum().exp() for j in range(t + 1)]
        return sum(left[j] * (query @ k[j]) * v[j] for j in range(t + 1))  # type: ignore[return-value]

    out = torch.stack([read(q[t], t) for t in range(len(q))])
    unit = torch.eye(k.shape[1], dtype=q.dtype)
    return out, torch.stack([read(row, len(q) - 1) for row in unit])


def decays_multiplied(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """One matrix for all tokens, its decays as products, not as sums of logarithms."""
    T = len(q)
    left = torch.zeros(T, T, dtype=q.dtype)
    for t in range(T):
        left[t, t] = 1
        left[t, :t] = left[t - 1, :t] * log_decay[t].exp() if t else 1
    weights = torch.einsum("td,sd,ts->ts", q, k, left)
    return weights @ v, torch.einsum("s,sd,sv->dv", left[-1], k, v)


def errors_one_by_one(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    state = torch.zeros(k.shape[1], v.shape[1], dtype=q.dtype)
    out = torch.zeros(len(q), v.shape[1], dtype=q.dtype)
    for t in range(len(q)):
        state = log_decay[t].exp() * state
        state = state + beta[t] * torch.outer(k[t], v[t] - state.T @ k[t])
        out[t] = state.T @ q[t]
    return out, state


def state_maps(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The map of each step as a matrix, on a state with values in rows."""
    state = torch.zeros(v.shape[1], k.shape[1], dtype=q.dtype)
    unit, out = torch.eye(k.shape[1], dtype=q.dtype), []
    for t in range(len(q)):
        step = log_decay[t].exp() * (unit - beta[t] * torch.outer(k[t], k[t]))
        state = state @ step + beta[t] * torch.outer(v[t], k[t])
        out.append(state @ q[t])
    return torch.stack(out), state.T


def forward_substitution(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """One chunk of all tokens, its writes one after the other."""
    T = len(q)
    left = torch.zeros(T, T, dtype=q.dtype)
    for t in range(T):
        for j in range(t + 1):
            left[t, j] = log_decay[j + 1 : t + 1].sum().exp()
    written = torch.zeros_like(v)
    for t in range(T):
        seen = (left[t, :t] * (k[:t] @ k[t])) @ written[:t]
        written[t] = beta[t] * (v[t] - seen)
    return (q @ k.T * left) @ written, (left[-1, :, None] * k).T @ written


SOLUTIONS = {
    "linear_attention": [token_by_token, pair_by_pair, decays_multiplied],
    "delta_rule": [errors_one_by_one, state_maps, forward_substitution],
}
