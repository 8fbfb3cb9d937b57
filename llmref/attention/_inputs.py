"""Whether queries, keys and values fit each other."""

from torch import Tensor

from llmref._require import require_axis, require_one_dtype, require_shapes


def require_inputs(**tensors: Tensor) -> None:
    """The query, the key and, where given, the value have one dtype and shapes that fit.

    Raises: TypeError unless they are floating point and of one dtype; ValueError if the leading
    axes, the head sizes or the numbers of keys differ, or the head size is 0.
    """
    require_one_dtype(**tensors)
    axes = "query (..., T, D), key (..., S, D)" + ", value (..., S, Dv)" * ("value" in tensors)
    require_shapes(axes, **tensors)
    require_axis("D", 1, "query (..., T, D)", query=tensors["query"])
