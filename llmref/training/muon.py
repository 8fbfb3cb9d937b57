"""How does a weight matrix move if its gradient counts as a matrix, not as a bag of numbers?

Leaves out: what is no hidden matrix (embeddings, head, gains: adam), and shards of a matrix.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_at_least,
    require_choice,
    require_finite,
    require_floating,
    require_in,
    require_size,
)
from llmref.training._inputs import widened

Coefficients = tuple[float, float, float]
Rule = Literal["original", "match_rms_adamw", "spectral"]

CUBIC: Coefficients = (3 / 2, -1 / 2, 0.0)
QUINTIC: Coefficients = (15 / 8, -10 / 8, 3 / 8)
JORDAN: Coefficients = (3.4445, -4.7750, 2.0315)


class MuonState(NamedTuple):
    """A weight matrix after a step, and the momentum that the next step needs."""

    param: Tensor
    momentum_buffer: Tensor


def polar_factor(matrix: Tensor) -> Tensor:
    """Every singular value that is not 0 becomes 1, by SVD: U S V' becomes U V'.

    diag(3, -2) becomes diag(1, -1); a matrix of rank r becomes a partial isometry of rank r.
    Singular values up to max(m, n) * eps times the largest one count as 0, with the eps of the
    dtype that is computed in: float32 at least.
    Shapes: matrix (m, n) -> (m, n)
    Source: Bernstein & Newhouse 2024, arXiv:2409.20325, as UV' of the reduced SVD.
    Raises: TypeError unless floating point; ValueError for other axes, no entries, or entries that
    are not finite.
    """
    x, _ = _scaled(matrix)
    u, values, vt = torch.linalg.svd(x, full_matrices=False)
    noise = max(x.shape) * torch.finfo(x.dtype).eps * values[0]
    kept = (values > noise).to(x.dtype)
    polar: Tensor = (u * kept) @ vt  # eq. eq-muon-polar
    return polar.to(matrix.dtype)


def newton_schulz(matrix: Tensor, *, steps: int, coefficients: Coefficients, eps: float) -> Tensor:
    """Steps X <- aX + b(XX')X + c(XX')(XX')X from X = matrix / its Frobenius norm.

    A norm below eps counts as eps; a matrix of zeros stays, for every eps.
    Shapes: matrix (m, n) -> (m, n)
    Source: Jordan et al. 2024, as in torch.optim.Muon.
    Differs: computed in float32 at least, torch in bfloat16; divided by the largest entry first,
    so that no square overflows or vanishes.
    Raises: as polar_factor; ValueError for steps < 0, eps < 0, other coefficients than three
    numbers, or a result that overflows.
    """
    require_size(0, steps=steps)
    require_at_least(0, eps=eps)
    a, b, c = _three(coefficients)
    x, largest = _scaled(matrix)
    norm = x.norm().clamp(min=torch.finfo(x.dtype).tiny)  # only that of zeros is below
    x = x / norm if norm.item() * largest >= eps else x * (largest / eps)
    x = x.T if x.shape[0] > x.shape[1] else x  # the smaller Gram matrix
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x  # eq. eq-muon-iteration
    update: Tensor = (x if x.shape == matrix.shape else x.T).to(matrix.dtype)
    require_finite(f" after {steps} steps", matrix=update)
    return update


def newton_schulz_values(values: Tensor, *, steps: int, coefficients: Coefficients) -> Tensor:
    """What the steps of newton_schulz do to singular values: x <- ax + bx^3 + cx^5.

    Shapes: values (...) -> (...)
    Source: Jordan et al. 2024.
    Differs: values are taken as they are; newton_schulz divides by the norm first.
    Raises: TypeError unless floating point; ValueError as newton_schulz.
    """
    require_size(0, steps=steps)
    a, b, c = _three(coefficients)
    x = widen(values, "values")
    require_finite(values=x)
    for _ in range(steps):
        x = x * (a + x.square() * (b + c * x.square()))  # eq. eq-muon-polynomial
    found = x.to(values.dtype)
    require_finite(f" after {steps} steps", values=found)
    return found


def nesterov_momentum(
    grad: Tensor, momentum_buffer: Tensor, *, momentum: float
) -> tuple[Tensor, Tensor]:
    """The direction g + mu * B with the new buffer B = mu * B + g, and that buffer; B starts at 0.

    Computed in float32 at least; the direction has the dtype of grad, the buffer keeps its own.
    Shapes: grad (...), momentum_buffer (...) -> (...), (...)
    Source: Jordan et al. 2024, as the documentation of torch.optim.Muon has it.
    Differs: torch averages, with (1 - mu) * g for g; its direction is 1 - mu times ours.
    Raises: TypeError unless floating point; ValueError for shapes that differ, momentum outside
    [0, 1), or sums that overflow.
    """
    require_in("[0, 1)", momentum=momentum)
    g, buffer = widened(grad=grad, momentum_buffer=momentum_buffer)
    buffer = momentum * buffer + g  # eq. eq-muon-momentum
    direction = g + momentum * buffer
    found = direction.to(grad.dtype), buffer.to(momentum_buffer.dtype)
    require_finite(" after grad is added", grad=found[0], momentum_buffer=found[1])
    return found


def muon_scale(shape: tuple[int, ...], *, rule: Rule) -> float:
    """The factor of an update whose matrix is (m outputs, n inputs), in units of the learning rate.

    original sqrt(max(1, m/n)), match_rms_adamw 0.2 * sqrt(max(m, n)), spectral sqrt(m/n).
    Shapes: of the matrix that was orthogonalised; a convolution is flattened to (out, rest).
    Source: Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982, as torch has it; derived here.
    Raises: TypeError unless sizes are ints; ValueError for other than two axes, a size of 0, or
    another rule.
    """
    require_choice(Rule, rule=rule)
    _require_two_axes("shape", tuple(shape))
    m, n = shape
    require_size(1, m=m, n=n)
    if rule == "original":
        return math.sqrt(max(1.0, m / n))
    if rule == "spectral":
        return math.sqrt(m / n)
    return 0.2 * math.sqrt(max(m, n))  # eq. eq-muon-scale


def muon_step(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    scale: float,
    steps: int,
    coefficients: Coefficients,
    eps: float,
) -> MuonState:
    """One step of Muon: momentum, then Newton-Schulz, then decay by lr and a move by lr * scale.

    The scale is muon_scale of the shape, by the rule of the paper; the decay does not see it.
    Computed in float32 at least, and rounded once; param and momentum_buffer keep their dtypes.
    Shapes: param (m, n), grad (m, n), momentum_buffer (m, n) -> two of (m, n)
    Source: Jordan et al. 2024; the decay by Liu et al. 2025, arXiv:2502.16982.
    Differs: see newton_schulz and nesterov_momentum.
    Raises: as these two; ValueError for lr, weight_decay or scale < 0, or a result that is not
    finite.
    """
    require_at_least(0, lr=lr, weight_decay=weight_decay, scale=scale)
    require_floating(param=param)
    _require_two_axes("param", tuple(param.shape))
    theta, g, b = widened(param=param, grad=grad, momentum_buffer=momentum_buffer)
    direction, b = nesterov_momentum(g, b, momentum=momentum)
    update = newton_schulz(direction, steps=steps, coefficients=coefficients, eps=eps)
    theta = (1 - lr * weight_decay) * theta - lr * scale * update  # eq. eq-muon
    found = MuonState(theta.to(param.dtype), b.to(momentum_buffer.dtype))
    require_finite(" after the step", param=found.param, momentum_buffer=found.momentum_buffer)
    return found


def _scaled(matrix: Tensor) -> tuple[Tensor, float]:
    """The matrix over its largest entry, in float32 at least, and that entry; 1 for zeros."""
    x = widen(matrix, "matrix")
    _require_two_axes("matrix", tuple(matrix.shape))
    require_size(1, m=matrix.shape[0], n=matrix.shape[1])
    require_finite(matrix=x)
    largest = x.detach().abs().max().item() or 1.0
    return x / largest, largest


def _three(coefficients: Coefficients) -> Coefficients:
    if len(coefficients) != 3 or not all(map(math.isfinite, coefficients)):
        raise ValueError(f"coefficients must be three finite numbers, got {coefficients!r}")
    return coefficients


def _require_two_axes(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(f"{name} must have two axes: flatten to (out, rest), got {shape}")
