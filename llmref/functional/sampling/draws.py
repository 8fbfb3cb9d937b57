"""How is a token drawn from the distribution that the filters leave, and how probable was it?

Leaves out: the filters (see filters).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_choice,
    require_ids,
    require_number,
    require_shapes,
    require_size,
    require_wide_dtype,
)
from llmref.functional.sampling._peak import require_peak
from llmref.functional.sampling.filters import FILTERS, process_logits, top_k_filter
from llmref.functional.softmax import log_softmax, softmax

Method = Literal["inverse_cdf", "gumbel", "exponential"]


def sample(
    logits: Tensor,
    *,
    method: Method = "gumbel",
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Sequence[str] = FILTERS,
) -> Tensor:
    """Draw one token from each row, from the distribution that the filters leave.

    The filters are those of process_logits; temperature = 0 takes the largest logit, the lowest
    index among ties.
    Shapes: logits (B, V), or (..., V) -> (B,), or (...)
    Source: gumbel: Maddison, Tarlow & Minka 2014, arXiv:1411.0030.
    Differs: all three methods draw in float64, from uniforms that are never 0 or 1.
    Raises: as process_logits; ValueError for an unknown method.
    """
    require_choice(Method, method=method)
    left = _what_is_left(logits, temperature, top_k, top_p, min_p, order).double()
    if method == "inverse_cdf":
        mass = softmax(left).cumsum(-1)
        # The last sum may differ from 1; u is below 1, so the product is below the last sum.
        u = _uniform(mass[..., -1:].shape, generator, torch.float64, left.device) * mass[..., -1:]
        return torch.searchsorted(mass, u, right=True).squeeze(-1)  # eq. eq-sampling-inverse-cdf
    if method == "exponential":
        clocks = -_uniform(left.shape, generator, torch.float64, left.device).log()
        return (softmax(left) / clocks).argmax(-1)  # eq. eq-sampling-race
    noise = gumbel_noise(left.shape, generator=generator, device=left.device)
    return (_from_peak(left) + noise).argmax(-1)  # eq. eq-sampling-gumbel-max


def gumbel_noise(
    shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """Draws from the Gumbel distribution, with the distribution function exp(-exp(-g)), all finite.

    Shapes: shape -> shape; on the generator's device if there is one
    Source: Gumbel 1954.
    Raises: TypeError unless dtype is floating point.
    """
    return -(-_uniform(shape, generator, dtype, device).log()).log()  # eq. eq-sampling-gumbel


def sample_without_replacement(
    logits: Tensor, k: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw k different tokens from each row, one after the other, in one pass.

    Shapes: logits (B, V), or (..., V) -> (B, k), or (..., k), in the order of the draws
    Source: Kool, van Hoof & Welling 2019, arXiv:1903.06059.
    Raises: TypeError for wrong dtypes or a k that is no int; ValueError if k < 1, or a row has
    fewer than k tokens of positive probability.
    """
    require_peak(logits, "sample_without_replacement")
    require_size(1, k=k)
    possible = logits.isfinite().sum(-1)
    least = int(possible.min()) if possible.numel() else k
    if least < k:
        raise ValueError(f"cannot draw {k} different tokens from {least} finite logits")
    noise = gumbel_noise(logits.shape, generator=generator, device=logits.device)
    return (_from_peak(logits.double()) + noise).topk(k).indices  # eq. eq-sampling-gumbel-top-k


def filtered_logprob(
    logits: Tensor,
    token: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Sequence[str] = FILTERS,
) -> Tensor:
    """Log-probability of a token under what `sample` draws from with these filters.

    Shapes: logits (..., V), token (...) -> (...); -inf for a token that the filters remove
    Source: the definition of conditional probability.
    Differs: half precision gives log-probabilities in float32.
    Raises: as process_logits; TypeError unless token holds integers; ValueError if its shape is not
    that of the rows, or an id is outside [0, V).
    """
    require_shapes("logits (..., V), token (...)", logits=logits, token=token)
    require_ids(logits.shape[-1], token=token)
    log_q = log_softmax(_what_is_left(logits, temperature, top_k, top_p, min_p, order))
    return log_q.gather(-1, token.long().unsqueeze(-1)).squeeze(-1)  # eq. eq-sampling-filtered


def _what_is_left(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    order: Sequence[str],
) -> Tensor:
    """Logits of what is drawn from, at least float32; temperature 0 is one-hot."""
    require_number(temperature=temperature)
    wide = widen(logits, "logits")
    kept = process_logits(
        wide,
        temperature=1.0 if temperature == 0 else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        order=order,
    )
    return top_k_filter(kept, 1) if temperature == 0 else kept


def _from_peak(logits: Tensor) -> Tensor:
    """Distances from the largest logit: beside a large one, noise would be rounded away."""
    return logits - logits.amax(-1, keepdim=True)


def _uniform(
    shape: Sequence[int],
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | None,
) -> Tensor:
    """Odd multiples of 2^-s, s the digits of the dtype: symmetric about 1/2, never 0 or 1."""
    require_wide_dtype(dtype=dtype)
    for size in shape:
        require_size(0, shape=size)
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    device = generator.device if generator is not None else device
    steps = torch.randint(2 ** (digits - 1), tuple(shape), generator=generator, device=device)
    uniform: Tensor = (2 * steps + 1).to(dtype) / 2**digits
    return uniform
