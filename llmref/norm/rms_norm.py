"""What is left of LayerNorm without the mean, and when are the two the same?

Leaves out: fused kernels. Statistics are computed in float32 at least. The order of rounding and
scaling in 16 bits is a convention that differs between model families: `RMSNorm(cast=...)`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from llmref._numeric import wide_dtype, widen
from llmref._require import (
    require_at_least,
    require_axis,
    require_choice,
    require_floating,
    require_one_dtype,
    require_shapes,
)
from llmref.norm._scale import divide_by_rms, require_finite
from llmref.norm._shape import Shape, prepare, shape_tuple

Cast = Literal["after_weight", "before_weight"]


def rms_norm(
    x: Tensor, normalized_shape: Shape, weight: Tensor | None = None, *, eps: float | None
) -> Tensor:
    """Divide by the root of the mean square of the features, and scale.

    rms_norm((3, 4), 2, eps=0) = (3, 4) * sqrt(2) / 5. eps None, the default of torch, is the
    machine epsilon of the type computed in: 1.2e-7 for 16 and 32 bits, 2.2e-16 for float64.
    Shapes: x (..., *normalized_shape), weight normalized_shape -> the shape of x
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, section 3.
    Differs: eps inside the root, as in every library; the paper has none. Right for rows of any
    size: where squares would overflow, torch returns 0.
    Raises: TypeError unless x is floating point; ValueError for a shape that does not fit, eps < 0,
    or a row of zeros with eps = 0.
    """
    y, _ = _normalize(x, normalized_shape, eps, weight)  # eq. eq-rms-norm
    return (y if weight is None else weight * y).to(x.dtype)


def rms_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor | None = None,
    normalized_shape: Shape | None = None,
    *,
    eps: float | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight from the gradient of the output.

    normalized_shape defaults to the shape of weight, or else to the last axis.
    Shapes: grad_output and x (..., *normalized_shape) -> that of x, and normalized_shape
    Source: Zhang & Sennrich 2019, arXiv:1910.07467 (the forward formula, differentiated).
    Raises: as rms_norm; ValueError if grad_output has another shape than x, or if 1 / rms
    overflows.
    """
    require_floating(x=x, grad_output=grad_output)
    require_shapes("x (...), grad_output (...)", x=x, grad_output=grad_output)
    shape = normalized_shape
    if shape is None:
        shape = x.shape[-1:] if weight is None else weight.shape
    axes = tuple(range(-len(shape_tuple(shape)), 0))
    x_hat, rrms = _normalize(x, shape, eps, weight)
    require_finite(rrms, "1 / rms")
    dy = grad_output.to(x_hat.dtype)
    g = dy if weight is None else weight * dy
    # eq. eq-rms-norm-backward
    dx = rrms * (g - x_hat * (g * x_hat).mean(axes, keepdim=True))
    rows = tuple(range(x.dim() - len(axes)))
    dweight = (dy * x_hat).sum(rows) if rows else dy * x_hat
    return dx.to(x.dtype), dweight.to(x.dtype if weight is None else weight.dtype)


def rms_norm_jacobian(x: Tensor, *, eps: float | None) -> Tensor:
    """Jacobian of the normalised row (weight 1); symmetric.

    Shapes: x (..., n) -> (..., n, n)
    Source: Zhang & Sennrich 2019, arXiv:1910.07467 (the forward formula, differentiated).
    Raises: as rms_norm; ValueError if 1 / rms overflows.
    """
    require_floating(x=x)
    require_axis("n", 1, "x (..., n)", x=x)
    n = x.size(-1)
    x_hat, rrms = _normalize(x, n, eps, None)
    require_finite(rrms, "1 / rms")
    outer = x_hat.unsqueeze(-1) * x_hat.unsqueeze(-2)
    identity = torch.eye(n, dtype=x_hat.dtype, device=x.device)
    return (rrms.unsqueeze(-1) * (identity - outer / n)).to(x.dtype)  # eq. eq-rms-norm-jacobian


def fold_rms_norm(weight: Tensor, gamma: Tensor) -> Tensor:
    """Weight of the next linear map with the gain taken into its columns.

    A gain that is stored as 1 + w (Gemma) must be passed as 1 + w.
    Shapes: weight (out, n), gamma (n,) -> (out, n)
    Source: Ashkboos et al. 2024, arXiv:2401.15024, section 3.
    Raises: ValueError for shapes that do not fit.
    """
    require_floating(weight=weight, gamma=gamma)
    require_shapes("weight (out, n), gamma (n,)", weight=weight, gamma=gamma)
    return weight * gamma


def layer_norm_to_rms_norm(
    writers: Sequence[tuple[Tensor, Tensor | None]],
) -> list[tuple[Tensor, Tensor | None]]:
    """Centre all that writes to the residual stream, so that RMSNorm can replace LayerNorm.

    Holds if the stream is read through LayerNorms alone. Pass embedding tables transposed, as
    writers without bias: every column of a weight is something that may be added to the stream.
    Shapes: each weight (n, in), bias (n,) or None -> the same
    Source: Jiang et al. 2023, arXiv:2305.14858.
    Raises: ValueError if a bias does not fit its weight.
    """
    centred: list[tuple[Tensor, Tensor | None]] = []
    for weight, bias in writers:
        require_floating(weight=weight, bias=weight if bias is None else bias)
        require_shapes("weight (n, in), bias (n,)", weight=weight, bias=bias)
        columns = weight - weight.mean(0)
        centred.append((columns, None if bias is None else bias - bias.mean()))
    return centred


def rotate_residual(weight_in: Tensor, weight_out: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the basis of the residual stream, x -> x q, in a reader and a writer of it.

    The network's function stays the same if every reader and writer is turned and no gain stands
    between stream and reader (`fold_rms_norm`).
    Shapes: weight_in (out, n) reads, weight_out (n, in) writes, q (n, n) -> the same two
    Source: Ashkboos et al. 2024, arXiv:2401.15024, section 3.
    Raises: TypeError unless all are floating point and of one dtype; ValueError unless q is
    orthogonal and fits.
    """
    named = {"weight_in": weight_in, "q": q, "weight_out": weight_out}
    require_shapes("weight_in (out, n), q (n, n), weight_out (n, in)", **named)
    require_one_dtype(**named)
    error = (q.T @ q - torch.eye(len(q), dtype=q.dtype, device=q.device)).abs().max().item()
    if not error <= max(1e-8, 8 * torch.finfo(q.dtype).eps):
        raise ValueError(f"q must be orthogonal, got q^T q that differs from I by {error:g}")
    return weight_in @ q, q.T @ weight_out  # eq. eq-rms-rotate


class RMSNorm(nn.Module):
    """`rms_norm` with its gain; the names are those of torch, so its weights load.

    zero_centered: the gain is 1 + weight, and weight starts at 0 (Gemma). cast: round to the type
    of the input after the gain (torch, Gemma), or before it (Llama), which rounds twice in 16 bits
    and returns the wider of the two types.
    Shapes: (..., *normalized_shape) -> the same
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, section 3.
    Raises: as rms_norm; ValueError for another cast.
    """

    def __init__(
        self,
        normalized_shape: Shape,
        *,
        eps: float | None,
        elementwise_affine: bool = True,
        zero_centered: bool = False,
        cast: Cast = "after_weight",
    ) -> None:
        super().__init__()
        require_choice(Cast, cast=cast)
        if eps is not None:
            require_at_least(0, eps=eps)
        self.normalized_shape, self.eps = shape_tuple(normalized_shape), eps
        self.zero_centered, self.cast = zero_centered, cast
        start = torch.zeros if zero_centered else torch.ones
        self.weight = nn.Parameter(start(self.normalized_shape)) if elementwise_affine else None

    def gain(self) -> Tensor | None:
        """What the normalised features are multiplied by; 1 + weight is formed in float32."""
        if self.weight is None or not self.zero_centered:
            return self.weight
        return 1 + widen(self.weight, "weight")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the trailing axes."""
        gain = self.gain()
        if gain is None or self.cast == "after_weight":
            return rms_norm(x, self.normalized_shape, gain, eps=self.eps)
        assert self.weight is not None
        return gain.to(self.weight.dtype) * rms_norm(x, self.normalized_shape, eps=self.eps)

    def extra_repr(self) -> str:
        """Shape, eps and the conventions of the gain, for print."""
        gain = f"zero_centered={self.zero_centered}, cast={self.cast!r}"
        affine = self.weight is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, {gain}"


def _normalize(
    x: Tensor, normalized_shape: Shape, eps: float | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The normalised rows in float32 at least, and the reciprocal of their root mean square."""
    if eps is None:
        eps = torch.finfo(wide_dtype(x)).eps
    wide, axes = prepare(x, normalized_shape, eps, "rms_norm", weight=weight)
    if torch.as_tensor(eps, dtype=wide.dtype) == 0 and (wide == 0).all(axes).any():
        raise ValueError("rms_norm of a row of zeros with eps = 0 is 0/0: give eps > 0")
    return divide_by_rms(wide, axes, eps)
