"""How fast does each pair of features turn, and how do the recipes for long contexts change that?

Every function returns angular frequencies in radians a position, or the base that makes them.
Leaves out: dynamic NTK (a base that changes with the current length, so that cached keys no longer
fit), and LongRoPE (a searched table of factors, not a formula).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from llmref._require import (
    require_at_least,
    require_choice,
    require_floating,
    require_in,
    require_number,
    require_positive,
    require_size,
)
from llmref.components.rope._pairs import require_rotary_dim

Ramp = Literal["paper", "index"]


def rope_inv_freq(dim: int, base: float = 10000.0, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pair i turns by base^(-2i/dim) radians a position: dim 4 and base 100 give 1 and 1/10.

    Shapes: -> (dim / 2,)
    Source: Su et al. 2021, arXiv:2104.09864.
    Raises: ValueError if dim is odd or below 2, base is not positive and finite, or dtype is
        neither float32 nor float64; TypeError if dim is not an int.
    """
    require_rotary_dim(dim=dim)
    require_number(base=base)
    require_positive(base=base)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"frequencies are float32 or float64, never {dtype}: rounding turns angles"
        )
    exponent = torch.arange(0, dim, 2, dtype=torch.float64) / dim  # (dim / 2,)
    return torch.pow(base, -exponent).to(dtype)  # eq. eq-rope-frequencies


def linear_scaled_inv_freq(inv_freq: Tensor, factor: float) -> Tensor:
    """Position interpolation by `factor`: m -> m / factor is the same as every frequency / factor.

    Shapes: inv_freq (R / 2,) -> (R / 2,)
    Source: Chen et al. 2023, arXiv:2306.15595.
    Raises: ValueError if factor is below 1 or not finite.
    """
    require_floating(inv_freq=inv_freq)
    _require_factor(factor)
    return inv_freq / factor  # eq. eq-rope-interpolation


def ntk_base(base: float, dim: int, factor: float) -> float:
    """The base that divides the last frequency by `factor` and leaves the first one alone.

    Base 100, dim 4, factor 3: 100 * 3^(4/2) = 900; the frequencies 1, 1/10 become 1, 1/30.

    Shapes: numbers.
    Source: the 'NTK-aware' recipe as described by Peng et al. 2023, arXiv:2309.00071.
    Raises: ValueError if dim is odd or below 4 (one pair cannot both stay and slow down), base is
        not positive and finite, factor is below 1 or not finite, or the result overflows; TypeError
        if dim is not an int.
    """
    require_rotary_dim(dim=dim)
    _require_factor(factor)
    require_size(4, dim=dim)
    require_positive(base=base)
    # eq. eq-rope-ntk, as a product of which no part overflows before the whole does
    scaled: float = float(base) * factor * factor ** (2 / (dim - 2))
    if scaled == math.inf:
        raise ValueError(f"base {base} times factor {factor} ^ (dim / (dim - 2)) overflows")
    return scaled


def yarn_inv_freq(
    dim: int,
    base: float,
    factor: float,
    original_max_position: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    ramp: Ramp = "index",
    truncate: bool = True,
    attention_factor: float | None = None,
) -> tuple[Tensor, float]:
    """YaRN: keep the pairs that turn often, interpolate those that turn rarely, blend in between.

    The ramp 'paper' is linear in the number of turns, 'index' (reference code, transformers) in the
    pair's index. They start and stop at the same pairs only while no end of the index ramp is
    rounded (`truncate`: outwards, to integers) or clamped to 0 or dim - 1; the paper ramp has no
    such ends. The second value multiplies cos and sin. It is the given attention_factor, 1.0 too,
    or else `yarn_attention_factor(factor)`; mscale and mscale_all_dim of a configuration, where
    both are there and not 0, go through that function.

    Shapes: -> (dim / 2,), attention_factor
    Source: Peng et al. 2023, arXiv:2309.00071.
    Differs: the default ramp is that of the published code, as checkpoints are tuned with it.
    Raises: ValueError if an argument is out of range (see the messages); TypeError if dim or
        original_max_position is not an int.
    """
    _require_factor(factor)
    if attention_factor is not None:
        require_number(attention_factor=attention_factor)
        require_positive(attention_factor=attention_factor)
    _require_window(original_max_position, beta_slow, beta_fast, ("beta_slow", "beta_fast"))
    require_choice(Ramp, ramp=ramp)
    require_in("(1, inf]", hint=": the ramp divides by its logarithm", base=base)
    inv_freq = rope_inv_freq(dim, base)
    if ramp == "paper":
        turns = original_max_position * inv_freq / math.tau  # (dim / 2,)
        keep = (turns - beta_slow) / (beta_fast - beta_slow)  # eq. eq-rope-by-parts
    else:
        start = _pair_with_turns(beta_fast, dim, base, original_max_position)
        stop = _pair_with_turns(beta_slow, dim, base, original_max_position)
        start, stop = _clamped_range(start, stop, dim, truncate=truncate)
        index = torch.arange(dim // 2, dtype=inv_freq.dtype)
        keep = 1 - (index - start) / (stop - start)  # eq. eq-rope-index-ramp
    keep = keep.clamp(0, 1)
    if attention_factor is None:
        attention_factor = yarn_attention_factor(factor)
    return keep * inv_freq + (1 - keep) * inv_freq / factor, attention_factor


def yarn_attention_factor(
    factor: float, *, mscale: float = 1.0, mscale_all_dim: float = 0.0
) -> float:
    """What YaRN multiplies cos and sin by: (1 + 0.1 mscale ln s) / (1 + 0.1 mscale_all_dim ln s).

    For factor s = 1 it is 1, and so it is for two equal options, as DeepSeek-V3 has them: there the
    scores are scaled instead, by yarn_attention_factor(s, mscale=mscale_all_dim) squared, so that
    features without a rotation are scaled too. The 0.1 is an empirical fit.

    Shapes: numbers.
    Source: Peng et al. 2023, arXiv:2309.00071; the two options are those of DeepSeek's code.
    Differs: transformers takes options of which one is 0 for (1, 0); here 0 means no scaling.
    Raises: ValueError if factor is below 1 or not finite, or an option is negative or not finite.
    """
    _require_factor(factor)
    require_at_least(0, mscale=mscale, mscale_all_dim=mscale_all_dim)
    growth = 0.1 * math.log(factor)
    return (1.0 + mscale * growth) / (1.0 + mscale_all_dim * growth)  # eq. eq-rope-mscale


def llama3_inv_freq(
    dim: int,
    base: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position: int,
) -> Tensor:
    """Llama 3.1: three bands by wavelength, with a blend in the middle one.

    Wavelengths below L / high_freq_factor stay, those above L / low_freq_factor are interpolated.

    Shapes: -> (dim / 2,)
    Source: Grattafiori et al. 2024, arXiv:2407.21783, and the code released with the model.
    Raises: ValueError if an argument is out of range (see the messages); TypeError if dim or
        original_max_position is not an int.
    """
    _require_factor(factor)
    names = ("low_freq_factor", "high_freq_factor")
    _require_window(original_max_position, low_freq_factor, high_freq_factor, names)
    inv_freq = rope_inv_freq(dim, base)
    wavelength = math.tau / inv_freq  # eq. eq-rope-wavelength
    smooth = original_max_position / wavelength - low_freq_factor
    smooth = smooth / (high_freq_factor - low_freq_factor)
    blended = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    # eq. eq-rope-llama3
    slow = wavelength > original_max_position / low_freq_factor
    fast = wavelength < original_max_position / high_freq_factor
    return torch.where(slow, inv_freq / factor, torch.where(fast, inv_freq, blended))


def _pair_with_turns(turns: float, dim: int, base: float, window: int) -> float:
    """The (fractional) index of the pair that makes so many turns in the window."""
    return dim * math.log(window / (math.tau * turns)) / (2 * math.log(base))


def _clamped_range(start: float, stop: float, dim: int, *, truncate: bool) -> tuple[float, float]:
    """The ends of the index ramp, with the reference code's own clamps (dim - 1, not dim/2 - 1)."""
    if truncate:
        start, stop = math.floor(start), math.ceil(stop)
    start, stop = max(start, 0), min(stop, dim - 1)
    if start > stop:
        raise ValueError(
            f"the index ramp would run backwards, from pair {start:g} to pair {stop:g}: with this "
            "base and original_max_position no pair lies in the band; use ramp='paper'"
        )
    return start, stop + 0.001 if start == stop else stop


def _require_factor(factor: float) -> None:
    require_number(factor=factor)
    if not 1 <= factor < math.inf:
        raise ValueError(
            f"factor must be finite and at least 1 (it divides: 8, not 1/8), got {factor}"
        )


def _require_window(length: int, low: float, high: float, names: tuple[str, str]) -> None:
    require_size(1, original_max_position=length)
    require_number(**dict(zip(names, (low, high), strict=True)))
    if not 0 < low < high < math.inf:
        raise ValueError(f"need 0 < {names[0]} < {names[1]}, got {low} and {high}")
