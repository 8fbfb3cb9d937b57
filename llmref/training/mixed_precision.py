"""What do 16 and 8 bits keep of a number, and what must training keep in 32?

Leaves out: the kernels that multiply in low precision, integers (functional.quantization), and
scales for blocks of a tensor.
"""

from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_choice,
    require_finite,
    require_float_dtype,
    require_floating,
    require_in,
    require_int,
    require_integers,
    require_number,
    require_positive,
    require_real,
    require_shapes,
    require_size,
)

Special = Literal["ieee", "fn"]
Overflow = Literal["saturate", "inf", "nan"]
_NORMAL = "[1.1754943e-38, 3.4028235e38]"  # float32, in which scales are kept


def float_values(*, exponent_bits: int, mantissa_bits: int, special: Special) -> Tensor:
    """All finite numbers >= 0 of a binary format, in ascending order: the place is the code.

    2 exponent bits and 1 mantissa bit, "ieee": 0, 1/2, 1, 3/2, 2, 3.
    mantissa_bits are those stored, one less than the significant bits. special: "ieee" keeps the
    codes with all exponent bits set for infinity and NaN, "fn" only the last code, for NaN.
    Shapes: -> (codes,), float64
    Source: IEEE 754-2019, section 3.4; Micikevicius et al. 2022, arXiv:2209.05433, table 1.
    Differs: other biases (fnuz) are left out.
    Raises: TypeError unless the bits are ints; ValueError for less than 2 exponent bits or 1
    mantissa bit, more than 10 exponent bits (float64 has 11), more than 15 bits together (float32
    has 2^31 codes), or another special.
    """
    require_size(2, exponent_bits=exponent_bits)
    require_size(1, mantissa_bits=mantissa_bits)
    require_choice(Special, special=special)
    if exponent_bits > 10:
        raise ValueError(f"exponent_bits must be at most 10, got {exponent_bits}")
    if exponent_bits + mantissa_bits > 15:
        seen = f"{exponent_bits} + {mantissa_bits}"
        raise ValueError(f"exponent_bits + mantissa_bits must be at most 15, got {seen}")
    hidden, bias = 2**mantissa_bits, 2 ** (exponent_bits - 1) - 1
    codes = torch.arange(2 ** (exponent_bits + mantissa_bits))
    exponent = codes // hidden
    significand = codes % hidden + hidden * (exponent > 0)  # subnormals have no hidden bit
    power = exponent.clamp(min=1) - bias - mantissa_bits
    values = torch.ldexp(significand.double(), power)  # eq. eq-precision-value
    return values[:-1] if special == "fn" else values[:-hidden]


def unit_roundoff(dtype: torch.dtype) -> float:
    """The bound u on the relative error of rounding to nearest: half of torch's eps.

    bfloat16 has 8 significant bits, so u = 2^-8.
    Source: Jeannerod & Rump 2018, section 1.
    Raises: TypeError unless the dtype is floating point.
    """
    require_float_dtype(dtype=dtype)
    return torch.finfo(dtype).eps / 2


def round_to_format(x: Tensor, values: Tensor, *, overflow: Overflow) -> Tensor:
    """The nearest number of a format, of two equally near ones the one with the even code.

    In E4M3 17 becomes 16, and 19 becomes 20. What rounds beyond the largest number, infinities
    included, becomes the largest ("saturate"), infinite ("inf") or NaN ("nan"). NaN stays NaN.
    Shapes: x (...), values (codes,), as from float_values -> (...), of the dtype of x
    Source: IEEE 754-2019, section 4.3.1; Micikevicius et al. 2022, arXiv:2209.05433, section 3.
    Differs: overflow has no default, since libraries differ. "saturate" takes an infinity to the
    largest number too, as torch 2.13 does on a CPU; in Micikevicius et al. it becomes NaN in E4M3.
    Raises: TypeError unless x is floating point; ValueError unless the values ascend from 0 and
    are finite, for another overflow, or if the dtype of x lacks a rounded number.
    """
    require_floating(x=x)
    require_choice(Overflow, overflow=overflow)
    require_real(values=values)
    grid = values.double()
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or not (grid.diff() > 0).all():
        raise ValueError(f"values must be (codes,) and ascend from 0, got {tuple(values.shape)}")
    size = x.detach().double().abs().contiguous()
    grid = torch.cat([grid, 2 * grid[-1:] - grid[-2:-1]])  # what would come next
    require_finite(", as well as the number after the last", values=grid)
    above = torch.searchsorted(grid, size).clamp(1, len(grid) - 1)
    low, high = size - grid[above - 1], grid[above] - size
    code = torch.where((low > high) | ((low == high) & (above % 2 == 0)), above, above - 1)
    grid[-1] = {"saturate": grid[-2].item(), "inf": torch.inf, "nan": torch.nan}[overflow]
    rounded = torch.where(size.isnan(), size, grid[code])
    result = rounded.to(x.dtype)
    lost = rounded[(result.double() != rounded) & ~rounded.isnan()]
    if lost.numel():
        raise ValueError(f"x must have a dtype that holds {lost[0].item():.10g}, got {x.dtype}")
    return result.copysign(x.detach())


def stochastic_round(x: Tensor, *, noise: Tensor) -> Tensor:
    """Round to one of the two neighbours in bfloat16, with a mean of x over uniform noise.

    The lower 16 bits of a float32 are the place of x between its neighbours, in 65536ths: adding
    16 random bits carries into the upper ones with that probability. 1 + 2^-9 lies a quarter of
    the way from 1 to 1 + 2^-7, so one noise in four rounds it up. Infinity and NaN stay.
    Shapes: x (...), noise (...), integers uniform on 0..65535 -> (...), bfloat16
    Source: Gupta et al. 2015, arXiv:1502.02551, section 3; Zamirai et al. 2020, arXiv:2010.06192.
    Differs: float64 is rounded to float32 first. In magnitude, a number whose upper neighbour is
    beyond the largest finite one becomes infinite with that probability.
    Raises: TypeError unless x is floating point and the noise integers; ValueError unless the
    shapes agree and the noise is in 0..65535.
    """
    require_floating(x=x)
    require_integers(noise=noise)
    require_shapes("x (...), noise (...)", x=x, noise=noise)
    require_in("[0, 65535]", noise=noise)
    wide = x.detach().float()
    bits = wide.view(torch.int32) + noise.to(torch.int32)
    rounded = (bits & -(2**16)).view(torch.float32)  # eq. eq-precision-stochastic
    return torch.where(wide.isfinite(), rounded, wide).bfloat16()


def swallowed(weight: Tensor, update: Tensor) -> Tensor:
    """Where adding an update in place leaves a weight as it was: fl(weight + update) = weight.

    256 + 1 is 256 in bfloat16. The sum is formed in float32 at least and rounded to the dtype of
    the weight, as torch does in place.
    Shapes: weight (...), update (...) -> (...), boolean
    Source: Zamirai et al. 2020, arXiv:2010.06192, section 3.
    Raises: TypeError unless both are floating point; ValueError unless the shapes agree.
    """
    require_shapes("weight (...), update (...)", weight=weight, update=update)
    total = widen(weight, "weight") + widen(update, "update")
    return total.to(weight.dtype) == weight  # eq. eq-precision-swallowed


def update_loss_scale(
    scale: float,
    clean_steps: int,
    *,
    overflow: bool,
    growth_factor: float,
    backoff_factor: float,
    growth_interval: int,
) -> tuple[float, int]:
    """The next loss scale, and how many steps it has been without an overflow.

    With factors 2 and 1/2 and an interval of 3: (8, 2) becomes (16, 0), after an overflow (4, 0).
    A scale that would be infinite in float32 stays as it is, and the count starts again.
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; torch 2.13,
    torch._amp_update_scale_.
    Differs: torch lets the scale fall to 0.
    Raises: TypeError unless the scale is a number and the steps are ints; ValueError unless the
    scale is a normal float32, growth_factor > 1, backoff_factor is in (0, 1), growth_interval >= 1
    and 0 <= clean_steps < growth_interval; or if the scale falls below the least normal float32,
    since no scale cures what is not an overflow.
    """
    require_number(scale=scale)
    require_in(_NORMAL, scale=scale, hint=", no normal float32")
    require_number(growth_factor=growth_factor, backoff_factor=backoff_factor)
    require_in("(1, inf)", growth_factor=growth_factor)
    require_in("(0, 1)", backoff_factor=backoff_factor)
    require_size(1, growth_interval=growth_interval)
    require_int(clean_steps=clean_steps)
    require_in(f"[0, {growth_interval - 1}]", clean_steps=clean_steps)
    grow = not overflow and clean_steps + 1 == growth_interval
    factor = backoff_factor if overflow else growth_factor if grow else 1.0
    following = torch.tensor(
        float(scale * factor), dtype=torch.float32
    ).item()  # eq. eq-precision-dynamic
    if following < torch.finfo(torch.float32).tiny:
        raise ValueError(f"scale must stay a normal float32, got {following:g}: look for a NaN")
    steps = 0 if overflow or grow else clean_steps + 1
    return (scale if following == torch.inf else following), steps


def unscale(grads: list[Tensor], *, scale: float) -> tuple[list[Tensor], bool]:
    """Divide gradients of a scaled loss by the scale, in float32, and tell whether one overflowed.

    Divide before anything looks at their size, such as clipping, and by the scale that the loss
    was multiplied by.
    Shapes: each of grads (...) -> the same, and whether an entry is infinite or NaN
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    Differs: torch's GradScaler multiplies by 1 / scale rounded to float32, which rounds twice
    unless the scale is a power of two, and refuses float16 gradients.
    Raises: TypeError unless the gradients are floating point and the scale is one number;
    ValueError unless it is a normal float32.
    """
    require_number(scale=scale)
    require_in(_NORMAL, scale=scale, hint=", no normal float32")
    wide = [widen(grad, "grads") / scale for grad in grads]  # eq. eq-precision-loss-scale
    return wide, any(not bool(grad.isfinite().all()) for grad in wide)


def fp8_scale(x: Tensor, *, max_value: float) -> Tensor:
    """What a tensor is multiplied by so that its largest size becomes max_value; 1 for zeros.

    (-2, 1) and 448: 224. Multiply in float32, x.float() * scale: a product in 16 bits is rounded
    once more before the cast.
    Shapes: x (...) -> ()
    Source: Micikevicius et al. 2022, arXiv:2209.05433, section 4.
    Raises: TypeError unless x is floating point; ValueError unless max_value > 0, x is finite and
    not empty, and the scale is finite.
    """
    require_number(max_value=max_value)
    require_positive(max_value=max_value)
    require_floating(x=x)
    wide = widen(x.detach())
    require_finite(x=x)
    if not wide.numel():
        raise ValueError(f"x must not be empty, got {tuple(x.shape)}")
    amax = wide.abs().amax()
    scale = torch.where(amax > 0, max_value / amax, 1.0).to(wide.dtype)  # eq. eq-precision-fp8
    if not scale.isfinite():
        raise ValueError(f"x is too small: its scale {max_value:g} / {amax.item():g} is infinite")
    return scale
