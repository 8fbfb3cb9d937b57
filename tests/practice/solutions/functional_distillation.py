"""Right solutions on distillation, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def kd_by_torch(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """The divergence of torch takes the student's logarithms first; xlogy knows 0 log 0."""
    p, q = functional.softmax(teacher / tau, -1), functional.softmax(student / tau, -1)
    safe = torch.where(p > 0, q.log(), 0.0)
    return tau * tau * functional.kl_div(safe, p, reduction="none").sum(-1)


def kd_in_loops(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    rows_s, rows_t = (x.reshape(-1, x.shape[-1]) / tau for x in (student, teacher))
    found = []
    for s, t in zip(rows_s.tolist(), rows_t.tolist(), strict=True):
        lse_s, lse_t = (max(x) + math.log(sum(math.exp(z - max(x)) for z in x)) for x in (s, t))
        total = 0.0
        for z_s, z_t in zip(s, t, strict=True):
            if math.exp(z_t - lse_t) > 0:
                total += math.exp(z_t - lse_t) * ((z_t - lse_t) - (z_s - lse_s))
        found.append(tau**2 * total)
    return torch.tensor(found, dtype=torch.float64).reshape(student.shape[:-1])


def kd_by_cross_entropy(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Cross-entropy minus entropy."""
    p = torch.softmax(teacher / tau, dim=-1)
    log_q = torch.log_softmax(student / tau, dim=-1)
    cross = -(p * log_q.masked_fill(p == 0, 0.0)).sum(dim=-1)
    return tau**2 * (cross - torch.special.entr(p).sum(dim=-1))


def charged_in_loops(logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> Tensor:
    total = 0.0
    for row, teacher, counts in zip(logp, teacher_logp, mask, strict=True):
        ahead = 0.0
        for t in reversed(range(len(row))):
            if counts[t]:
                ahead += float(row[t] - teacher[t])
                total = total + ahead * row[t]
    return total / len(logp)


def charged_by_matrix(logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> Tensor:
    """A triangle of ones adds up what follows."""
    T = logp.shape[1]
    k1 = ((logp - teacher_logp) * mask).detach()
    later = torch.ones(T, T, dtype=logp.dtype).tril()  # [u, t]: u is not before t
    return torch.einsum("nu,ut,nt->", k1, later, logp * mask) / logp.shape[0]


def charged_by_numpy(logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> np.ndarray:
    p, t, m = logp.numpy(), teacher_logp.numpy(), mask.numpy()
    k1 = np.where(m, p - t, 0)
    ahead = k1.sum(1, keepdims=True) - k1.cumsum(1) + k1
    return np.asarray((ahead * np.where(m, p, 0)).sum() / len(p))


SOLUTIONS = {
    "kd_loss": [kd_by_torch, kd_in_loops, kd_by_cross_entropy],
    "on_policy_loss": [charged_in_loops, charged_by_matrix, charged_by_numpy],
}
