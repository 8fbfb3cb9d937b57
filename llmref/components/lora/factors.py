"""The two factors of a low-rank update: its scale, its matrix, its gradients, its size.

Leaves out: the layer that holds them (see `lora`).
"""

import math

import torch
from torch import Tensor


def lora_scaling(alpha: float, r: int, *, rank_stabilized: bool = False) -> float:
    """The factor of the update: alpha / r, or alpha / sqrt(r).

    lora_scaling(16, 4) = 4, and 8 with rank_stabilized.
    Shapes: numbers -> a number
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Kalajdzievski 2023, arXiv:2312.03732.
    Raises: TypeError unless r is an integer; ValueError if r < 1, or alpha is not finite and
    positive.
    """
    _check_rank(r)
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be finite and positive, got {alpha}")
    return alpha / math.sqrt(r) if rank_stabilized else alpha / r  # eq. eq-lora-scale


def lora_delta(A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The update of the weight, s B A.

    A = (1, 2), B = (3, 4)^T and s = 2 give rows (6, 12) and (8, 16).
    Shapes: A (r, in), B (out, r) -> (out, in)
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: TypeError unless both are floating point and of one dtype; ValueError if the shapes do
    not fit.
    """
    _check_factors(A, B)
    return (scaling * (_widen(B) @ _widen(A))).to(A.dtype)  # eq. eq-lora-delta


def lora_backward(
    grad_out: Tensor, x: Tensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Gradients of A and of B; no matrix of the size of the weight is formed.

    Shapes: grad_out (..., out), x (..., in), A (r, in), B (out, r) -> (r, in), (out, r)
    Source: Hu et al. 2021, arXiv:2106.09685 (the forward formula, differentiated).
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: as lora_delta, for all four; ValueError if grad_out or x does not fit.
    """
    _check_factors(A, B)
    for tensor in (grad_out, x):
        if tensor.dtype != A.dtype:
            raise TypeError(f"needs one dtype, got {tensor.dtype} and A {A.dtype}")
    if x.ndim < 1 or x.shape[-1] != A.shape[1]:
        raise ValueError(f"the last axis of x {(*x.shape,)} must be the last of A {(*A.shape,)}")
    expected = (*x.shape[:-1], B.shape[0])
    if tuple(grad_out.shape) != expected:
        raise ValueError(f"grad_out must be {expected}, got {tuple(grad_out.shape)}")
    rows, inputs = (_widen(t).reshape(-1, t.shape[-1]) for t in (grad_out, x))  # (m, ...)
    # eq. eq-lora-gradients, line by line
    grad_B = scaling * rows.T @ (inputs @ _widen(A).T)
    grad_A = scaling * (rows @ _widen(B)).T @ inputs
    return grad_A.to(A.dtype), grad_B.to(B.dtype)


def lora_param_count(in_features: int, out_features: int, r: int) -> int:
    """Trainable parameters of one adapter: r (in + out).

    lora_param_count(4096, 4096, 8) = 65536, of 16777216.
    Shapes: integers -> an integer
    Source: Hu et al. 2021, arXiv:2106.09685.
    Raises: TypeError unless r is an integer; ValueError if a size is below 1.
    """
    _check_rank(r)
    if in_features < 1 or out_features < 1:
        raise ValueError(f"sizes must be at least 1, got in {in_features} and out {out_features}")
    return r * (in_features + out_features)  # eq. eq-lora-count


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_rank(r: int) -> None:
    if isinstance(r, bool) or not isinstance(r, int):
        raise TypeError(f"r must be an integer, got {r!r}")
    if r < 1:
        raise ValueError(f"r must be at least 1, got {r}")


def _check_factors(A: Tensor, B: Tensor) -> None:
    if not A.is_floating_point() or A.dtype != B.dtype:
        raise TypeError(f"needs floating-point factors of one dtype, got {A.dtype} and {B.dtype}")
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise ValueError(
            f"A must be (r, in) and B (out, r), got A {tuple(A.shape)} and B {tuple(B.shape)}"
        )
