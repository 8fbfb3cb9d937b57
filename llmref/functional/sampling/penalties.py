"""How are the logits of tokens lowered that stand in the text already?

Leaves out: penalties on repeated runs of tokens.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_ids, require_in, require_positive, require_shapes
from llmref.functional.sampling._peak import require_peak


def repetition_penalty(logits: Tensor, previous: Tensor, penalty: float) -> Tensor:
    """Divide the positive logits of the tokens seen so far by the penalty, multiply the negative.

    logits (2, -1, 3), previous (0, 1, 0), penalty 2: (1, -2, 3). Once for each distinct token.
    Shapes: logits (B, V), previous (B, T), -1 where a row holds no token -> (B, V)
    Source: Keskar et al. 2019, arXiv:1909.05858.
    Differs: the paper divides logits of either sign, which raises the negative ones.
    Raises: TypeError for wrong dtypes; ValueError for wrong shapes, an id outside [-1, V), a row
    without finite maximum, or a penalty that is not positive and finite.
    """
    require_positive(penalty=penalty)
    seen = _counts(logits, previous) > 0
    wide = widen(logits, "logits")
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
    require_in("(-inf, inf)", presence=presence, frequency=frequency)
    wide = widen(logits, "logits")
    # A count times a number has the default dtype, whatever the logits have.
    counts = _counts(logits, previous).to(wide.dtype)
    return (wide - presence * counts.clamp(max=1) - frequency * counts).to(logits.dtype)


def _counts(logits: Tensor, previous: Tensor) -> Tensor:
    """How often each token of the vocabulary stands in `previous`, row by row."""
    require_peak(logits, "a penalty")
    require_shapes("logits (B, V), previous (B, T)", logits=logits, previous=previous)
    require_ids(logits.shape[1], lowest=-1, previous=previous)
    present = (previous >= 0).to(torch.long)
    return torch.zeros_like(logits, dtype=torch.long).scatter_add(
        1, previous.long().clamp(min=0), present
    )
