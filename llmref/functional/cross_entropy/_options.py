"""What the options of both forms of the loss must satisfy."""

from torch import Tensor

from llmref._numeric import Reduction
from llmref._require import require_at_least, require_choice, require_in


def require_options(label_smoothing: float, z_loss: float, reduction: str) -> None:
    """Raise ValueError for an option out of its range."""
    require_in("[0, 1)", label_smoothing=label_smoothing)
    require_at_least(0, z_loss=z_loss)
    require_choice(Reduction, reduction=reduction)


def require_some(counted: Tensor, ignore_index: int) -> None:
    """Raise ValueError if a mean would be taken over nothing."""
    if not counted.any():
        raise ValueError(f"a mean needs a target: all {counted.numel()} are {ignore_index}")
