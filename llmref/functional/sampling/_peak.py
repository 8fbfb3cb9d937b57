"""Logits from which something can be drawn."""

from torch import Tensor

from llmref._numeric import minus_max
from llmref._require import require_floating


def require_peak(logits: Tensor, function: str) -> None:
    """Raise unless the logits are floating point and every row has a finite maximum."""
    require_floating(logits=logits)
    minus_max(logits.detach(), -1, function, name="logits")
