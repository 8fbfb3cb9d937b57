"""What every clipped loss keeps, told from its value when all ratios stand beyond the clip."""

from collections.abc import Callable

from torch import Tensor

from llmref.practice.exercise import apart

# The loss with all advantages of a sign, and all ratios so many clips away from 1.
Moved = Callable[[int, float], Tensor]


def pulls_beyond(moved: Moved, near: float, far: float) -> bool:
    """Whether a ratio outside the clip still pulls on the good side."""
    return apart(moved(1, near), moved(1, far)) or apart(moved(-1, -near), moved(-1, -far))


def never_returns(moved: Moved, near: float, far: float) -> bool:
    """Whether a ratio outside the clip is not pulled back on the bad side."""
    gain = moved(1, -far) - moved(1, -near)
    loss = moved(-1, far) - moved(-1, near)
    return bool(gain < 1e-9) or bool(loss < 1e-9)
