"""Arithmetic with codes, gradients through them, rounding without bias, the error in decibels.

Leaves out: how codes are made (see uniform).
"""

from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmref._numeric import wide_dtype
from llmref._require import (
    require_integers,
    require_number,
    require_number_or_tensor,
    require_positive,
    require_shapes,
    require_tensor,
)
from llmref.functional.quantization._grid import code_range, decoded_as, finite, grid_of


def int_matmul(
    qx: Tensor,
    zx: Tensor | int,
    sx: Tensor | float,
    qw: Tensor,
    zw: Tensor | int,
    sw: Tensor | float,
) -> Tensor:
    """Product of two quantised matrices: integers are multiplied, and scaled once at the end.

    qx ((1, 2)), qw ((3, 4)), zero points 0, scales 1/2: 11 / 4.
    Shapes: qx (M, K), qw (N, K) int8 or uint8, sx scalar or (M, 1), zw and sw scalar or (N,) or
    (N, 1) -> (M, N)
    Source: Jacob et al. 2017, arXiv:1712.05877.
    Differs: raises where a sum of K products might not fit in int32, whatever the codes are; scales
    in 16 bits are widened, so the result is at least float32.
    Raises: TypeError unless the codes are int8 or uint8; ValueError if the shapes do not fit, K is
    too large, or a product overflows.
    """
    require_tensor(qx=qx, qw=qw)
    require_number_or_tensor(sx=sx, zw=zw, sw=sw)
    require_number(zx=zx)
    require_integers(zx=torch.as_tensor(zx))
    zx, zw = index(zx), _per_channel("zw", zw, qw)
    sx = _scale(sx).to(qx.device)
    sw = _per_channel("sw", _scale(sw), qw)
    _check_product(qx, zx, sx, qw, zw, sw)
    zw = zw.to(torch.int32)  # in 8 bits, K zx zw would wrap around at 128
    # eq. eq-int-matmul. int32 wraps around, so a term may overflow where the bracket does not.
    total = (
        _int32_product(qx, qw)
        - zw * qx.sum(1, dtype=torch.int32).unsqueeze(1)
        - zx * qw.sum(1, dtype=torch.int32)
        + qx.shape[1] * zx * zw
    )
    # The product of the scales alone might underflow, and in 16 bits the sum would overflow.
    return decoded_as(sx.double() * total * sw.double(), wide_dtype(sx, sw))


def fake_quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int, *, bits: int = 8
) -> Tensor:
    """Quantise and come back, with a gradient as if rounding were the identity.

    x = (0.4, 9), scale 1, 3 bits, zero_point 0: (0, 3); the gradient of the sum is (1, 0).
    Shapes: x (...), scale and zero_point scalar or (...) with axes of size 1 -> (...)
    Source: Bengio, Léonard & Courville 2013, arXiv:1308.3432; scale: Esser et al. 2019,
    arXiv:1902.08153.
    Differs: gradcheck must fail here: this is the gradient of another function (eq-ste-surrogate).
    Esser et al. compare x / scale with the end codes before rounding, and scale the gradient of the
    scale down.
    Raises: as quantize; ValueError if a value overflows the dtype of x.
    """
    wide = finite(x)
    steps, offset = grid_of(wide, scale, zero_point, wide.dtype, bits)
    result: Tensor = _StraightThrough.apply(wide.to(steps.dtype), steps, offset, bits)  # type: ignore[no-untyped-call]
    return decoded_as(result, x.dtype)


class _StraightThrough(torch.autograd.Function):
    """Rounding and clipping; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
        low, high = (end - zero_point for end in code_range(bits))
        ctx.save_for_backward(x, scale, low, high)
        return scale * (x / scale).round().clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, low, high = ctx.saved_tensors
        steps = x / scale
        rounded = steps.round()
        inside = (rounded >= low) & (rounded <= high)
        d_x = torch.where(inside, grad, 0)  # eq. eq-ste
        # eq. eq-lsq
        d_scale = grad * torch.where(inside, rounded - steps, rounded.clamp(low, high))
        return d_x, d_scale.sum_to_size(scale.shape), None, None


def stochastic_round(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Round up with the probability of the fractional part, so that the mean is x.

    0.25 becomes 1 one time in four, else 0. Probabilities are multiples of 2^-24 in float32.
    Shapes: x (...) -> (...)
    Source: Gupta et al. 2015, arXiv:1502.02551.
    Raises: TypeError unless x is floating point; ValueError if x is not finite.
    """
    wide = finite(x)
    floor = wide.floor()
    draw = torch.rand(wide.shape, dtype=wide.dtype, device=x.device, generator=generator)
    return (floor + (draw < wide - floor)).to(x.dtype)  # eq. eq-stochastic-rounding


def sqnr_db(x: Tensor, xhat: Tensor) -> Tensor:
    """Signal over quantisation noise, as powers, in decibels.

    x = (3, 4), error (0, 1/2): 10 log10(25 / 0.25) = 20. No error at all: inf.
    Shapes: x (...), xhat (...) -> ()
    Source: Gray & Neuhoff 1998.
    Raises: TypeError unless both are floating point; ValueError if the shapes differ, an entry is
    not finite, or x is 0 throughout.
    """
    require_shapes("x (...), xhat (...)", x=x, xhat=xhat)
    signal, decoded = finite(x), finite(xhat, "xhat")
    if not signal.any():
        raise ValueError("a signal of zeros has no ratio to its noise")
    half = signal.double() / 2 - decoded.double() / 2  # a difference of finite numbers can overflow
    ratio = _power_db(signal.double() / 2) - _power_db(half)  # eq. eq-sqnr
    return ratio.to(wide_dtype(signal, decoded))


def _power_db(x: Tensor) -> Tensor:
    """Decibels of the sum of squares, which itself may neither overflow nor vanish."""
    size = x.abs().max().clamp(min=torch.finfo(x.dtype).tiny)
    return 20 * size.log10() + 10 * (x / size).square().sum().log10()


def _int32_product(qx: Tensor, qw: Tensor) -> Tensor:
    """(M, K), (N, K) -> (M, N): sums of products modulo 2^32, as int32 registers hold them."""
    # Most devices multiply no integer matrices; float64 is exact, since the sums are below 2^53.
    return (qx.double() @ qw.double().T).to(torch.int64).to(torch.int32)


def _scale(value: Tensor | float) -> Tensor:
    """A scale as a tensor; a number is float32, whatever the default dtype is."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)


def _per_channel(name: str, value: Tensor | float, qw: Tensor) -> Tensor:
    value, N = torch.as_tensor(value, device=qw.device), qw.shape[:1].numel()
    if value.ndim and value.shape not in ((1,), (N,), (1, 1), (N, 1)):
        # A scale that varies along K would not factor out of the sum over K.
        raise ValueError(f"{name} must be a scalar, ({N},) or ({N}, 1), got {tuple(value.shape)}")
    return value.flatten() if value.ndim else value


def _check_product(qx: Tensor, zx: int, sx: Tensor, qw: Tensor, zw: Tensor, sw: Tensor) -> None:
    require_integers(zw=zw)
    require_shapes("qx (M, K), qw (N, K)", qx=qx, qw=qw)
    if sx.ndim and sx.shape not in ((1, 1), (qx.shape[0], 1)):
        raise ValueError(f"sx must be a scalar or ({qx.shape[0]}, 1), got {tuple(sx.shape)}")
    require_positive(sx=sx, sw=sw)
    spans = [_span(qx, zx, zx), _span(qw, int(zw.min()), int(zw.max()))]
    longest = torch.iinfo(torch.int32).max // (spans[0] * spans[1])  # eq. eq-int32-length
    if qx.shape[1] > longest:
        raise ValueError(
            f"K = {qx.shape[1]} products of up to {spans[0]} * {spans[1]} may overflow int32: "
            f"at most K = {longest}"
        )


def _span(codes: Tensor, low: int, high: int) -> int:
    """Largest |q - z| over all codes of the dtype and zero points from low to high."""
    if codes.dtype not in (torch.int8, torch.uint8):
        raise TypeError(f"int_matmul needs int8 or uint8 codes, got {codes.dtype}")
    info = torch.iinfo(codes.dtype)
    return max(info.max - low, high - info.min)
