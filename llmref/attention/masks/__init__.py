"""Which keys may a query see? True may attend, everywhere.

patterns: the masks themselves. algebra: combining and checking them. reach: what several layers
can see. Leaves out: biases that depend on position (ALiBi), block-sparse formats of kernels.
"""

from llmref._require import boolean_mask
from llmref.attention.masks.algebra import (
    additive_mask,
    and_masks,
    check_mask,
    or_masks,
)
from llmref.attention.masks.patterns import (
    causal_mask,
    document_mask,
    padding_mask,
    position_ids,
    prefix_lm_mask,
    sliding_window_mask,
)
from llmref.attention.masks.reach import (
    dependency_matrix,
    receptive_field,
)

__all__ = [
    "additive_mask",
    "and_masks",
    "boolean_mask",
    "causal_mask",
    "check_mask",
    "dependency_matrix",
    "document_mask",
    "or_masks",
    "padding_mask",
    "position_ids",
    "prefix_lm_mask",
    "receptive_field",
    "sliding_window_mask",
]
