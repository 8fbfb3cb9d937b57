"""Which tokens does a filter leave, and with what logits?

Leaves out: penalties on tokens seen before (see penalties), and drawing (see draws).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmref._numeric import minus_max, widen
from llmref._require import require_in, require_number, require_size
from llmref.functional.sampling._peak import require_peak
from llmref.functional.softmax import softmax

FILTERS = ("temperature", "top_k", "top_p", "min_p")


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Distances from the largest logit, divided by the temperature.

    logits (3, 1), temperature 2: (0, -1). Divided as they stand, large logits could overflow.
    Shapes: logits (..., V) -> (..., V)
    Source: Ackley, Hinton & Sejnowski 1985.
    Differs: the largest logit becomes 0, which softmax does not see and a repetition penalty does:
    that one comes first.
    A distance beyond the dtype becomes -inf; its probability is 0 there anyway.
    Raises: TypeError unless logits are floating point and the temperature is a number; ValueError
    if a row has no finite maximum, or the temperature is not positive and finite (0 means greedy
    in `sample` and `filtered_logprob`, nowhere else).
    """
    require_number(temperature=temperature)
    shifted = minus_max(logits, -1, "apply_temperature", name="logits")
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
    require_peak(logits, "top_k_filter")
    require_size(1, k=k)
    order = _descending(logits)
    kept = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order[..., :k], True)
    return logits.masked_fill(~kept, -math.inf)  # eq. eq-sampling-top-k


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the largest logits whose probabilities reach p together.

    Probabilities (0.6, 0.3, 0.1), p = 0.7: the first two, as 0.6 < 0.7. p = 1 changes nothing.
    Shapes: logits (..., V) -> (..., V)
    Source: Holtzman et al. 2019, arXiv:1904.09751.
    Raises: TypeError unless logits are floating point and p is a number; ValueError if a row has no
    finite maximum, or p is not in (0, 1].
    """
    require_peak(logits, "top_p_filter")
    require_number(p=p)
    require_in("(0, 1]", p=p)
    if p == 1:  # rounded sums may reach 1 before the last token
        return logits.clone()
    order = _descending(logits)
    mass = softmax(logits.double().gather(-1, order)).cumsum(-1)  # float32 loses small tails
    before = torch.nn.functional.pad(mass[..., :-1], (1, 0))  # of the tokens in front
    kept = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before < p)
    return logits.masked_fill(~kept, -math.inf)  # eq. eq-sampling-top-p


def min_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as probable as the most probable one.

    Probabilities (0.6, 0.3, 0.1), p = 0.4: the first two, as 0.3 >= 0.24.
    Shapes: logits (..., V) -> (..., V)
    Source: Nguyen et al. 2024, arXiv:2407.01082.
    Raises: TypeError unless logits are floating point and p is a number; ValueError if a row has no
    finite maximum, or p is not in (0, 1].
    """
    require_number(p=p)
    require_in("(0, 1]", p=p)
    removed = minus_max(logits, -1, "min_p_filter", name="logits") < math.log(p)
    return logits.masked_fill(removed, -math.inf)  # eq. eq-sampling-min-p


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
    require_peak(logits, "process_logits")
    require_number(temperature=temperature)
    _require_filters(top_k, top_p, min_p)
    filters: dict[str, tuple[Callable[..., Tensor], float | None]] = {
        "temperature": (apply_temperature, None if temperature == 1 else temperature),
        "top_k": (top_k_filter, top_k),
        "top_p": (top_p_filter, top_p),
        "min_p": (min_p_filter, min_p),
    }
    given = {name: step for name, step in filters.items() if step[1] is not None}
    if len(set(order)) != len(order) or not set(given) <= set(order) <= set(filters):
        raise ValueError(f"order must name each filter in use once, got {order} for {list(given)}")
    wide = widen(logits, "logits")
    for name in order:
        if name in given:
            function, value = given[name]
            wide = function(wide, value)
    return wide.to(logits.dtype)


def _require_filters(top_k: int | None, top_p: float | None, min_p: float | None) -> None:
    """The requirements of the filters, by the names that they have in process_logits."""
    if top_k is not None:
        require_size(1, top_k=top_k)
    if top_p is not None:
        require_number(top_p=top_p)
        require_in("(0, 1]", top_p=top_p)
    if min_p is not None:
        require_number(min_p=min_p)
        require_in("(0, 1]", min_p=min_p)


def _descending(logits: Tensor) -> Tensor:
    return logits.argsort(dim=-1, descending=True, stable=True)
