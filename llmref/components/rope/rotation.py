"""How are queries and keys rotated by their positions?

Leaves out: where the frequencies come from (see frequencies).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from llmref._numeric import wide_dtype, widen
from llmref._require import (
    require_choice,
    require_float_dtype,
    require_floating,
    require_number,
    require_positive,
    require_shapes,
    require_tensor,
)
from llmref.components.rope.frequencies import (
    rope_inv_freq,
)
from llmref.components.rope.layouts import (
    Layout,
)


def rope_cos_sin(
    positions: Tensor,
    inv_freq: Tensor,
    *,
    attention_factor: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """The cosine and sine of every angle position * frequency, both times `attention_factor`.

    Angles are formed in the wider of float32 and the arguments' types; only the two results are
    cast. Integer positions are exact up to 2^24 with float32 frequencies, 2^53 with float64.

    Shapes: positions (..., T), inv_freq (R / 2,) -> cos (..., T, R / 2), sin (..., T, R / 2)
    Source: Su et al. 2021, arXiv:2104.09864; the factor is YaRN's, arXiv:2309.00071.
    Raises: ValueError for half-precision positions or frequencies, a frequency tensor that is not
        one-dimensional, an angle that is not finite, or a factor that is not positive or too large
        for the dtypes; TypeError for positions that are not real numbers or a dtype that is not
        floating point.
    """
    _require_frequencies(inv_freq)
    _require_positions(positions)
    require_float_dtype(dtype=dtype)
    require_positive(attention_factor=attention_factor)
    exact = positions.to(torch.promote_types(positions.dtype, inv_freq.dtype))
    # A plain product, not a matmul: autocast would form that in bfloat16.
    angles = exact[..., None] * inv_freq  # (..., T, R / 2), eq. eq-rope-angle
    _require_finite_angles(angles)
    _require_representable(attention_factor, angles.dtype, dtype)
    return (attention_factor * angles.cos()).to(dtype), (attention_factor * angles.sin()).to(dtype)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor, *, layout: Layout = "half") -> Tensor:
    """Rotate each pair of the first R features by its angle; features beyond R pass through.

    One pair (1, 0) at angle a becomes (cos a, sin a). For q and k, never for v.

    Shapes: x (B, H, T, D), cos and sin (T, R / 2) or (B, T, R / 2), R <= D -> (B, H, T, D)
    Source: Su et al. 2021, arXiv:2104.09864 (interleaved); Black et al. 2022, arXiv:2204.06745
        (half).
    Differs: computed in float32 at least, and cast back to x.dtype at the end.
    Raises: ValueError if the shapes do not fit or layout is unknown; TypeError if x is not
        floating point.
    """
    require_choice(Layout, layout=layout)
    _require_rope_shapes(x, cos, sin)
    R = 2 * cos.shape[-1]
    if cos.ndim == 3:
        cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, R / 2): all heads turn alike
    pairs, axis = ((2, R // 2), -2) if layout == "half" else ((R // 2, 2), -1)
    wide = widen(x[..., :R])
    first, second = wide.reshape(*x.shape[:-1], *pairs).unbind(axis)  # (B, H, T, R / 2)
    # eq. eq-rope-pair
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=axis)
    return torch.cat([turned.flatten(-2).to(x.dtype), x[..., R:]], dim=-1)


def rope_matrix(position: float, inv_freq: Tensor, *, layout: Layout = "half") -> Tensor:
    """The matrix R(position) that `apply_rope` multiplies by, written out; for proofs and tests.

    Shapes: inv_freq (R / 2,) -> (R, R)
    Source: Su et al. 2021, arXiv:2104.09864.
    Raises: ValueError if inv_freq is in half precision or not one-dimensional, an angle is not
        finite, or layout is unknown.
    """
    _require_frequencies(inv_freq)
    require_choice(Layout, layout=layout)
    require_number(position=position)
    angles = position * inv_freq
    _require_finite_angles(angles)
    pairs = inv_freq.numel()
    index = torch.arange(2 * pairs, device=inv_freq.device)
    first, second = index.view(2, pairs) if layout == "half" else index.view(pairs, 2).T
    cos, sin = angles.cos(), angles.sin()
    matrix = inv_freq.new_zeros(2 * pairs, 2 * pairs)
    matrix[first, first], matrix[first, second] = cos, -sin  # eq. eq-rope-matrix
    matrix[second, first], matrix[second, second] = sin, cos
    return matrix


class RotaryEmbedding(nn.Module):
    """Rotate q and k by their absolute positions; it holds no weights and no buffers.

    `scaling(dim, base)` returns the frequencies, or frequencies and attention factor:
    `functools.partial(yarn_inv_freq, factor=8.0, original_max_position=4096)`.
    The frequencies are formed in float64 at every call: a stored buffer would be rounded by
    `module.to(torch.bfloat16)`.

    Shapes: q (B, H, T, D), k (B, G, T, D), positions (T,) or (B, T) -> q, k; dim <= D
    Source: Su et al. 2021, arXiv:2104.09864.
    Raises: as `rope_inv_freq` and `apply_rope`; ValueError if scaling returns another size.
    """

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        *,
        layout: Layout = "half",
        scaling: Callable[[int, float], Tensor | tuple[Tensor, float]] | None = None,
    ) -> None:
        super().__init__()
        require_choice(Layout, layout=layout)
        self.dim, self.base, self.layout, self.scaling = dim, base, layout, scaling
        self.inv_freq()  # wrong arguments fail here, not at the first batch

    def inv_freq(self) -> tuple[Tensor, float]:
        """The frequencies (dim / 2,) and the factor on cos and sin."""
        scaled = (self.scaling or rope_inv_freq)(self.dim, self.base)
        inv_freq, factor = scaled if isinstance(scaled, tuple) else (scaled, 1.0)
        if inv_freq.shape != (self.dim // 2,):
            raise ValueError(
                f"scaling must return ({self.dim // 2},) frequencies, got {tuple(inv_freq.shape)}"
            )
        return inv_freq, factor

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return q and k, rotated."""
        require_floating(q=q, k=k)
        require_tensor(positions=positions)
        inv_freq, factor = self.inv_freq()
        cos, sin = rope_cos_sin(
            positions,
            inv_freq.to(positions.device),
            attention_factor=factor,
            dtype=wide_dtype(q),
        )
        return apply_rope(q, cos, sin, layout=self.layout), apply_rope(
            k, cos, sin, layout=self.layout
        )


def _require_frequencies(inv_freq: Tensor) -> None:
    require_tensor(inv_freq=inv_freq)
    if inv_freq.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"inv_freq must be float32 or float64, got {inv_freq.dtype}")
    if inv_freq.ndim != 1 or not inv_freq.numel():
        raise ValueError(f"inv_freq must be (R / 2,) with R >= 2, got {tuple(inv_freq.shape)}")


def _require_positions(positions: Tensor) -> None:
    require_tensor(positions=positions)
    if positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(f"positions must be integers or real numbers, got {positions.dtype}")
    if positions.is_floating_point() and positions.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"positions must be integers, float32 or float64: {positions.dtype} rounds them"
        )


def _require_finite_angles(angles: Tensor) -> None:
    """An infinite angle has no cosine: the result would be NaN."""
    if not angles.is_meta and not angles.isfinite().all():
        bad = angles[~angles.isfinite()][0].item()
        raise ValueError(f"position * frequency must be finite in {angles.dtype}, got {bad}")


def _require_representable(factor: float, *dtypes: torch.dtype) -> None:
    """A factor that overflows makes infinity of a cosine, and NaN of a sine that is 0."""
    largest = min(torch.finfo(dtype).max for dtype in dtypes)
    if factor > largest:
        raise ValueError(f"attention_factor must be at most {largest:.3g} here, got {factor}")


def _require_rope_shapes(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    require_floating(x=x, cos=cos, sin=sin)
    require_shapes("x (B, H, T, D)", x=x)
    if cos.shape != sin.shape or cos.ndim not in (2, 3):
        raise ValueError(
            "cos and sin must both be (T, R / 2) or (B, T, R / 2), "
            f"got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    B, _, T, D = x.shape
    if cos.shape[-2] != T or (cos.ndim == 3 and cos.shape[0] not in (1, B)):
        raise ValueError(
            f"cos {tuple(cos.shape)} must match the batch and the positions of x (B, H, T, D) = "
            f"{tuple(x.shape)}"
        )
    if 2 * cos.shape[-1] > D:
        raise ValueError(f"cos rotates {2 * cos.shape[-1]} features, but x has only {D}")
