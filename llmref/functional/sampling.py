"""What does each decoding filter do to the distribution, and how is one token drawn from it?

Leaves out: beam search and filters by entropy. A filter takes logits and returns logits, -inf where
it removes a token; softmax then renormalises. Tokens are ordered by logit, ties by lower index.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from llmref._numeric import minus_max, widen
from llmref.functional.softmax import log_softmax, softmax

Method = Literal["inverse_cdf", "gumbel", "exponential"]
FILTERS = ("temperature", "top_k", "top_p", "min_p")


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Distances from the largest logit, divided by the temperature.

    logits (3, 1), temperature 2: (0, -1). Divided as they stand, large logits could overflow.
    Shapes: logits (..., V) -> (..., V)
    Source: Ackley, Hinton & Sejnowski 1985.
    Differs: the largest logit becomes 0, which softmax does not see and a repetition penalty does:
    that one comes first.
    Raises: TypeError unless logits are floating point; ValueError if a row has no finite maximum,
    or the temperature is not positive and finite (0 means greedy in `sample`, nowhere else).
    """
    shifted = minus_max(logits, -1, "apply_temperature")
    limits = torch.finfo(shifted.dtype)
    if not limits.tiny <= temperature <= limits.max:  # 0 / 0 and -inf / inf are NaN
        raise ValueError(
            f"temperature must be positive and finite in {shifted.dtype}, got {temperature}"
        )
    return (shifted / temperature).to(logits.dtype)  # eq. eq-sampling-temperature


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row.

    logits (1, 3, 3, 2), k = 1: (-inf, 3, -inf, -inf). With fewer than k finite logits all stay.
    Shapes: logits (..., V) -> (..., V)
    Source: Fan, Lewis & Dauphin 2018, arXiv:1805.04833.
    Raises: TypeError unless logits are floating point and k is an int; ValueError if a row has no
    finite maximum, or k < 1.
    """
    _check_logits(logits, "top_k_filter")
    _check_count("k", k)
    order = _descending(logits)
    kept = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order[..., :k], True)
    return logits.masked_fill(~kept, -math.inf)  # eq. eq-sampling-top-k


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the largest logits whose probabilities reach p together.

    Probabilities (0.6, 0.3, 0.1), p = 0.7: the first two, as 0.6 < 0.7. p = 1 changes nothing.
    Shapes: logits (..., V) -> (..., V)
    Source: Holtzman et al. 2019, arXiv:1904.09751.
    Raises: TypeError unless logits are floating point; ValueError if a row has no finite maximum,
    or p is not in (0, 1].
    """
    _check_logits(logits, "top_p_filter")
    _check_share("top_p", p)
    if p == 1:  # rounded sums may reach 1 before the last token
        return logits.clone()
    order = _descending(logits)
    mass = softmax(widen(logits, "top_p_filter").gather(-1, order)).cumsum(-1)
    before = torch.nn.functional.pad(mass[..., :-1], (1, 0))  # of the tokens in front
    kept = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before < p)
    return logits.masked_fill(~kept, -math.inf)  # eq. eq-sampling-top-p


def min_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as probable as the most probable one.

    Probabilities (0.6, 0.3, 0.1), p = 0.4: the first two, as 0.3 >= 0.24.
    Shapes: logits (..., V) -> (..., V)
    Source: Nguyen et al. 2024, arXiv:2407.01082.
    Raises: TypeError unless logits are floating point; ValueError if a row has no finite maximum,
    or p is not in (0, 1].
    """
    _check_share("min_p", p)
    removed = minus_max(logits, -1, "min_p_filter") < math.log(p)
    return logits.masked_fill(removed, -math.inf)  # eq. eq-sampling-min-p


def repetition_penalty(logits: Tensor, previous: Tensor, penalty: float) -> Tensor:
    """Divide the positive logits of the tokens seen so far by the penalty, multiply the negative.

    logits (2, -1, 3), previous (0, 1, 0), penalty 2: (1, -2, 3). Once for each distinct token.
    Shapes: logits (B, V), previous (B, T), -1 where a row holds no token -> (B, V)
    Source: Keskar et al. 2019, arXiv:1909.05858.
    Differs: the paper divides logits of either sign, which raises the negative ones.
    Raises: TypeError for wrong dtypes; ValueError for wrong shapes, an id outside [-1, V), a row
    without finite maximum, or a penalty that is not positive and finite.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, got {penalty}")
    seen = _counts(logits, previous) > 0
    wide = widen(logits, "repetition_penalty")
    lowered = torch.where(wide > 0, wide / penalty, wide * penalty)
    return torch.where(seen, lowered, wide).to(logits.dtype)  # eq. eq-sampling-repetition


def presence_frequency_penalty(
    logits: Tensor, previous: Tensor, presence: float, frequency: float
) -> Tensor:
    """Subtract `presence` from each token seen so far, and `frequency` for each time it was seen.

    logits (2, -1, 3), previous (0, 1, 0), presence 1, frequency 0.5: (0, -2.5, 3).
    Shapes: logits (B, V), previous (B, T), -1 where a row holds no token -> (B, V)
    Source: the completions API of OpenAI.
    Raises: as repetition_penalty; ValueError if a penalty is not finite.
    """
    if not (math.isfinite(presence) and math.isfinite(frequency)):
        raise ValueError(f"penalties must be finite, got {presence} and {frequency}")
    counts = _counts(logits, previous)
    wide = widen(logits, "presence_frequency_penalty")
    return (wide - presence * (counts > 0) - frequency * counts).to(logits.dtype)


def process_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Sequence[str] = FILTERS,
) -> Tensor:
    """Apply the filters that are set, one after the other in `order`.

    Shapes: logits (..., V) -> (..., V)
    Source: the order of transformers 5.23 is the default.
    Raises: as the filters; ValueError if `order` repeats or misspells a name, or lacks one that is
    set.
    """
    _check_logits(logits, "process_logits")
    filters: dict[str, tuple[Callable[..., Tensor], float | None]] = {
        "temperature": (apply_temperature, None if temperature == 1 else temperature),
        "top_k": (top_k_filter, top_k),
        "top_p": (top_p_filter, top_p),
        "min_p": (min_p_filter, min_p),
    }
    given = {name: step for name, step in filters.items() if step[1] is not None}
    if len(set(order)) != len(order) or not set(given) <= set(order) <= set(filters):
        raise ValueError(f"order must name each filter in use once, got {order} for {list(given)}")
    wide = widen(logits, "process_logits")
    for name in order:
        if name in given:
            function, value = given[name]
            wide = function(wide, value)
    return wide.to(logits.dtype)


def sample(
    logits: Tensor,
    *,
    method: Method = "gumbel",
    generator: torch.Generator | None = None,
    **filters: Any,
) -> Tensor:
    """Draw one token from each row, from the law that the filters leave.

    `filters` are those of process_logits; temperature = 0 takes the largest logit, the lowest index
    among ties.
    Shapes: logits (B, V), or (..., V) -> (B,), or (...)
    Source: gumbel: Maddison, Tarlow & Minka 2014, arXiv:1411.0030.
    Differs: all three methods draw in float64, from uniforms that are never 0 or 1.
    Raises: as process_logits; ValueError for an unknown method.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}")
    law = _sampled_law(logits, filters).double()
    if method == "inverse_cdf":
        mass = softmax(law).cumsum(-1)
        # The last sum may differ from 1; u is below 1, so the product is below the last sum.
        u = _uniform(mass[..., -1:].shape, generator, torch.float64, law.device) * mass[..., -1:]
        return torch.searchsorted(mass, u, right=True).squeeze(-1)  # eq. eq-sampling-inverse-cdf
    if method == "exponential":
        clocks = -_uniform(law.shape, generator, torch.float64, law.device).log()
        return (softmax(law) / clocks).argmax(-1)  # eq. eq-sampling-race
    noise = gumbel_noise(law.shape, generator=generator, device=law.device)
    return (law + noise).argmax(-1)  # eq. eq-sampling-gumbel-max


def gumbel_noise(
    shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """Draws from the law with distribution function exp(-exp(-g)), all of them finite.

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
    Raises: TypeError for wrong dtypes; ValueError if k < 1, or a row has fewer than k tokens of
    positive probability.
    """
    _check_logits(logits, "sample_without_replacement")
    _check_count("k", k)
    possible = logits.isfinite().sum(-1)
    if (possible < k).any():
        raise ValueError(f"cannot draw {k} different tokens from {possible.min()} finite logits")
    noise = gumbel_noise(logits.shape, generator=generator, device=logits.device)
    return (logits.double() + noise).topk(k).indices  # eq. eq-sampling-gumbel-top-k


def filtered_logprob(logits: Tensor, token: Tensor, **filters: Any) -> Tensor:
    """Log-probability of a token under the law that `sample` draws from with these filters.

    Shapes: logits (..., V), token (...) -> (...); -inf for a token that the filters remove
    Source: the definition of conditional probability.
    Differs: half precision gives log-probabilities in float32.
    Raises: as process_logits; TypeError unless token holds integers; ValueError if its shape is not
    that of the rows, or an id is outside [0, V).
    """
    _check_ids("token", token, logits.shape[-1], lowest=0)
    if token.shape != logits.shape[:-1]:
        shapes = tuple(token.shape), tuple(logits.shape)
        raise ValueError(f"needs one token for each row of logits, got shapes {shapes}")
    log_q = log_softmax(_sampled_law(logits, filters))
    return log_q.gather(-1, token.long().unsqueeze(-1)).squeeze(-1)  # eq. eq-sampling-filtered


def _sampled_law(logits: Tensor, filters: dict[str, Any]) -> Tensor:
    """Logits of the law that is drawn from, at least float32; temperature 0 is one-hot."""
    wide = widen(logits, "sample")
    if filters.get("temperature") != 0:
        return process_logits(wide, **filters)
    kept = process_logits(wide, **{**filters, "temperature": 1.0})
    return top_k_filter(kept, 1)


def _uniform(
    shape: Sequence[int],
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | None,
) -> Tensor:
    """Odd multiples of 2^-s, s the digits of the dtype: symmetric about 1/2, never 0 or 1."""
    if not dtype.is_floating_point:
        raise TypeError(f"noise needs a floating-point dtype, got {dtype}")
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    device = generator.device if generator is not None else device
    steps = torch.randint(2 ** (digits - 1), tuple(shape), generator=generator, device=device)
    uniform: Tensor = (2 * steps + 1).to(dtype) / 2**digits
    return uniform


def _descending(logits: Tensor) -> Tensor:
    return logits.argsort(dim=-1, descending=True, stable=True)


def _counts(logits: Tensor, previous: Tensor) -> Tensor:
    """How often each token of the vocabulary stands in `previous`, row by row."""
    _check_logits(logits, "a penalty")
    if logits.ndim != 2 or previous.ndim != 2 or len(previous) != len(logits):
        shapes = tuple(logits.shape), tuple(previous.shape)
        raise ValueError(f"needs logits (B, V) and previous (B, T), got {shapes}")
    _check_ids("previous", previous, logits.shape[1], lowest=-1)
    present = (previous >= 0).to(torch.long)
    return torch.zeros_like(logits, dtype=torch.long).scatter_add(
        1, previous.long().clamp(min=0), present
    )


def _check_logits(logits: Tensor, name: str) -> None:
    minus_max(logits.detach(), -1, name)


def _check_ids(name: str, ids: Tensor, V: int, *, lowest: int) -> None:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got {ids.dtype}")
    outside = ids[(ids < lowest) | (ids >= V)]
    if outside.numel():
        raise ValueError(f"{name} holds the id {outside[0]}, outside [{lowest}, {V})")


def _check_count(name: str, count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} must be an int, got {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {share}")
