"""How can attention read all earlier tokens from a state that does not grow with their number?

forms: linear attention with decay, as one product, a recurrence, and in chunks. delta: the delta
rule, which replaces what a key held. cost: operations of each form.
Leaves out: feature maps, normalisation of keys, decay per key channel, short convolutions, gates on
the output, kernels.
"""

from llmref.attention.linear_attention.cost import linear_attention_flops
from llmref.attention.linear_attention.delta import (
    delta_rule_chunked,
    delta_rule_recurrent,
    wy_factor,
)
from llmref.attention.linear_attention.forms import (
    linear_attention_chunked,
    linear_attention_parallel,
    linear_attention_recurrent,
    normalized_linear_attention,
)

__all__ = [
    "delta_rule_chunked",
    "delta_rule_recurrent",
    "linear_attention_chunked",
    "linear_attention_flops",
    "linear_attention_parallel",
    "linear_attention_recurrent",
    "normalized_linear_attention",
    "wy_factor",
]
