"""What a parameter, its gradient and its state share: one shape, and a dtype wide enough."""

from torch import Tensor

from llmref._numeric import wide_dtype
from llmref._require import require_floating, require_shapes


def widened(**tensors: Tensor) -> list[Tensor]:
    """Tensors of one shape in the widest of their dtypes, float32 at least.

    Shapes: each (...) -> the same
    Raises: TypeError unless all are floating point; ValueError for shapes that differ.
    """
    require_floating(**tensors)
    require_shapes(", ".join(f"{name} (...)" for name in tensors), **tensors)
    return [tensor.to(wide_dtype(*tensors.values())) for tensor in tensors.values()]
