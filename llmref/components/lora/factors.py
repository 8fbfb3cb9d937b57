"""The two factors of a low-rank update: its scale, its matrix, its gradients, its size.

Leaves out: the layer that holds them (see `lora`).
"""

import math

from torch import Tensor

from llmref._numeric import as_rows, widen
from llmref._require import (
    require_finite,
    require_number,
    require_one_dtype,
    require_positive,
    require_shapes,
    require_size,
)


def lora_scaling(alpha: float, r: int, *, rank_stabilized: bool = False) -> float:
    """The factor of the update: alpha / r, or alpha / sqrt(r).

    lora_scaling(16, 4) = 4, and 8 with rank_stabilized.
    Shapes: numbers -> a number
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Kalajdzievski 2023, arXiv:2312.03732.
    Raises: TypeError unless r is an integer; ValueError if r < 1, or alpha is not finite and
    positive.
    """
    require_size(1, r=r)
    require_number(alpha=alpha)
    require_positive(alpha=alpha)
    return alpha / math.sqrt(r) if rank_stabilized else alpha / r  # eq. eq-lora-scale


def lora_delta(A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The update of the weight, s B A.

    A = (1, 2), B = (3, 4)^T and s = 2 give rows (6, 12) and (8, 16).
    Shapes: A (r, in), B (out, r) -> (out, in)
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless both are floating point and of one dtype; ValueError if the shapes do
    not fit, or an entry overflows or is NaN.
    """
    require_one_dtype(A=A, B=B)
    require_shapes("A (r, in), B (out, r)", A=A, B=B)
    require_number(scaling=scaling)
    delta = (scaling * (widen(B) @ widen(A))).to(A.dtype)  # eq. eq-lora-delta
    require_finite(delta=delta)
    return delta


def lora_backward(
    grad_out: Tensor, x: Tensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Gradients of A and of B; no matrix of the size of the weight is formed.

    Shapes: grad_out (..., out), x (..., in), A (r, in), B (out, r) -> (r, in), (out, r)
    Source: Hu et al. 2021, arXiv:2106.09685 (the forward formula, differentiated).
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: as lora_delta, for all four; ValueError if grad_out or x does not fit, or a gradient
    overflows or is NaN.
    """
    named = {"A": A, "B": B, "x": x, "grad_out": grad_out}
    require_one_dtype(**named)
    require_shapes("A (r, in), B (out, r), x (..., in), grad_out (..., out)", **named)
    require_number(scaling=scaling)
    rows, inputs = as_rows(widen(grad_out)), as_rows(widen(x))  # (m, out), (m, in)
    # eq. eq-lora-gradients, line by line
    grad_B = (scaling * rows.T @ (inputs @ widen(A).T)).to(B.dtype)
    grad_A = (scaling * (rows @ widen(B)).T @ inputs).to(A.dtype)
    require_finite(grad_A=grad_A, grad_B=grad_B)
    return grad_A, grad_B


def lora_param_count(in_features: int, out_features: int, r: int) -> int:
    """Trainable parameters of one adapter: r (in + out).

    lora_param_count(4096, 4096, 8) = 65536, of 16777216.
    Shapes: integers -> an integer
    Source: Hu et al. 2021, arXiv:2106.09685.
    Raises: TypeError unless all are ints; ValueError if a size is below 1.
    """
    require_size(1, r=r, in_features=in_features, out_features=out_features)
    return r * (in_features + out_features)  # eq. eq-lora-count
