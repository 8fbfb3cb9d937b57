"""Right solutions on attention, each written in another way than the code by hand."""

import numpy as np
import torch
from torch import Tensor


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
