"""How do rotary positions make a score depend on the offset alone, and how are they applied?

rotation: the rotation itself. frequencies: which ones, and the recipes that extend the context.
layouts: which two features form a pair. Leaves out: attention itself, positions in two dimensions,
learned frequencies.
"""

from llmref.components.rope.frequencies import (
    linear_scaled_inv_freq,
    llama3_inv_freq,
    ntk_base,
    rope_inv_freq,
    yarn_attention_factor,
    yarn_inv_freq,
)
from llmref.components.rope.layouts import (
    Layout,
    convert_qk_weight,
    rope_permutation,
)
from llmref.components.rope.rotation import (
    RotaryEmbedding,
    apply_rope,
    rope_cos_sin,
    rope_matrix,
)

__all__ = [
    "Layout",
    "RotaryEmbedding",
    "apply_rope",
    "convert_qk_weight",
    "linear_scaled_inv_freq",
    "llama3_inv_freq",
    "ntk_base",
    "rope_cos_sin",
    "rope_inv_freq",
    "rope_matrix",
    "rope_permutation",
    "yarn_attention_factor",
    "yarn_inv_freq",
]
