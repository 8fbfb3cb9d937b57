"""How are the logits of tokens lowered that stand in the text already?

Leaves out: penalties on repeated runs of tokens.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import (
    require_ids,
    require_in,
    require_number,
    require_positive,
    require_shapes,
)
from llmref.functional.sampling._peak import require_peak


def repetition_penalty(logits: Tensor, previous: Tensor, penalty: float) -> Tensor:
    """Divide the positive logits of the tokens seen so far by the penalty, multiply the negative.

    logits (2, -1, 3), previous (0, 1, 0), penalty 2: (1, -2, 3). Once for each distinct token.
    Shapes: logits (B, V), previous (B, T), -1 where a row holds no token -> (B, V)
    Source: Keskar et al. 2019, arXiv:1909.05858.
    Differs: the paper divides logits of either sign, which raises the negative ones.
    Raises: TypeError for wrong dtypes; ValueError for wrong shapes, an id outside [-1, V), a row
    without finite maximum, a penalty that is not positive and finite, or a result that overflows.
    """
    require_number(penalty=penalty)
    require_positive(penalty=penalty)
    seen = _counts(logits, previous) > 0
    wide = widen(logits, "logits")
    lowered = torch.where(wide > 0, wide / penalty, wide * penalty)
    return _rounded(torch.where(seen, lowered, wide), logits)  # eq. eq-sampling-repetition


def presence_frequency_penalty(
    logits: Tensor, previous: Tensor, presence: float, frequency: float
) -> Tensor:
    """Subtract `presence` from each token seen so far, and `frequency` for each time it was seen.

    logits (2, -1, 3), previous (0, 1, 0), presence 1, frequency 0.5: (0, -2.5, 3).
    Shapes: logits (B, V), previous (B, T), -1 where a row holds no token -> (B, V)
    Source: the completions API of OpenAI.
    Raises: as repetition_penalty; ValueError if a penalty is not finite.
    """
    require_number(presence=presence, frequency=frequency)
    require_in("(-inf, inf)", presence=presence, frequency=frequency)
    counts = _counts(logits, previous)
    seen = (counts > 0).double()  # a boolean would take the default dtype
    return _rounded(logits.double() - (presence * seen + frequency * counts.double()), logits)


def _rounded(penalised: Tensor, logits: Tensor) -> Tensor:
    """In the dtype of the logits; refuse a finite logit that is no longer finite."""
    result = penalised.to(logits.dtype)
    lost = logits[logits.isfinite() & ~result.isfinite()]
    if lost.numel():
        raise ValueError(f"the penalty makes the logit {lost[0].item():g} overflow {logits.dtype}")
    return result


def _counts(logits: Tensor, previous: Tensor) -> Tensor:
    """How often each token of the vocabulary stands in `previous`, row by row."""
    require_peak(logits, "a penalty")
    require_shapes("logits (B, V), previous (B, T)", logits=logits, previous=previous)
    require_ids(logits.shape[1], lowest=-1, previous=previous)
    present = (previous >= 0).to(torch.long)
    return torch.zeros_like(logits, dtype=torch.long).scatter_add(
        1, previous.long().clamp(min=0), present
    )
