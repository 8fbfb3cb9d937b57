"""Right solutions on Muon, each written in another way than the code by hand."""

import torch
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315


def with_eps_as_in_torch(g: Tensor, steps: int = 5) -> Tensor:
    """The norm clamped, fused products, transposition where it is tall."""
    x = g.T if g.size(0) > g.size(1) else g
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.T if g.size(0) > g.size(1) else x


def with_eps_added(g: Tensor, steps: int = 5) -> Tensor:
    """The right Gram matrix, and a Horner scheme."""
    x = g / (torch.linalg.matrix_norm(g) + 1e-9)
    eye = torch.eye(g.shape[1], dtype=g.dtype)
    for _ in range(steps):
        gram = x.mT @ x
        x = x @ (A * eye + gram @ (B * eye + C * gram))
    return x


def through_the_singular_values(g: Tensor, steps: int = 5) -> Tensor:
    """What the products do, written on the values."""
    u, values, vt = torch.linalg.svd(g, full_matrices=False)
    norm = values.square().sum().sqrt()
    values = values / norm if norm > 0 else values
    for _ in range(steps):
        values = A * values + B * values**3 + C * values**5
    return u @ torch.diag(values) @ vt


def in_place_on_copies(
    w: Tensor, g: Tensor, m: Tensor, lr: float, mu: float, wd: float
) -> tuple[Tensor, Tensor]:
    """As optimisers do."""
    w, m = w.clone(), m.clone()
    m.mul_(mu).add_(g)
    rate = lr * 0.2 * max(w.size(0), w.size(1)) ** 0.5
    w.mul_(1 - lr * wd)
    return w.sub_(with_eps_as_in_torch(g.add(m, alpha=mu)), alpha=rate), m


def with_the_lengths_of_the_update(
    w: Tensor, g: Tensor, m: Tensor, lr: float, mu: float, wd: float
) -> tuple[Tensor, Tensor]:
    """The direction from the old momentum, the factor from the root mean square."""
    direction = (1 + mu) * g + mu * mu * m
    rows, columns = w.shape
    factor = 0.2 * (columns if columns > rows else rows) ** 0.5
    return w - lr * (wd * w + factor * with_eps_added(direction)), mu * m + g


def with_a_mean_inside(
    w: Tensor, g: Tensor, m: Tensor, lr: float, mu: float, wd: float
) -> tuple[Tensor, Tensor]:
    """The direction of torch, which averages; the scale cancels."""
    mean = torch.lerp((1 - mu) * m, g, 1 - mu)
    update = through_the_singular_values(torch.lerp(g, mean, mu))
    size = torch.tensor(w.shape).max().sqrt().item() / 5
    return w - lr * wd * w - lr * size * update, mean / (1 - mu)


SOLUTIONS = {
    "newton_schulz": [with_eps_as_in_torch, with_eps_added, through_the_singular_values],
    "muon_step": [in_place_on_copies, with_the_lengths_of_the_update, with_a_mean_inside],
}
