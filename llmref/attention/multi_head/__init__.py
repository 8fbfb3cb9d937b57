"""How do several heads share one layer, and what of their weights can be seen from outside?

layer: the module and its circuits. cost: parameters and operations.
Leaves out: shared keys and values, positions, a cache, and the blockwise kernels.
"""

from llmref.attention._heads import merge_heads, split_heads
from llmref.attention.multi_head.cost import (
    attention_flops,
    attention_parameters,
)
from llmref.attention.multi_head.layer import (
    MultiHeadAttention,
    gauge_transform,
)

__all__ = [
    "MultiHeadAttention",
    "attention_flops",
    "attention_parameters",
    "gauge_transform",
    "merge_heads",
    "split_heads",
]
