"""How are the activations and their derivatives computed without overflow or cancellation?

logistic: the sigmoid and what is made of it. gates: the input times a gate. Leaves out: softmax
(see functional.softmax) and the layers that use a gate (see components.swiglu).
Every function takes and returns any shape, entry by entry, and a NaN stays a NaN. float16 and
bfloat16 are computed in float32 and rounded once.
"""

from llmref.functional.activations.gates import (
    GELU_CUBIC,
    GELU_SIGMOID,
    Approximate,
    d_gelu,
    d_relu,
    d_silu,
    gelu,
    relu,
    silu,
)
from llmref.functional.activations.logistic import (
    d_sigmoid,
    d_tanh,
    log_sigmoid,
    sigmoid,
    softplus,
    tanh,
)

__all__ = [
    "GELU_CUBIC",
    "GELU_SIGMOID",
    "Approximate",
    "d_gelu",
    "d_relu",
    "d_sigmoid",
    "d_silu",
    "d_tanh",
    "gelu",
    "log_sigmoid",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]
