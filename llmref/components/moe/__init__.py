"""Which experts see a token, how are their outputs put together, and what keeps their load equal?

routing: who is chosen. dispatch: how they run. capacity: load, and who is dropped. balance: losses
and the bias. layer: all of it with SwiGLU experts. Leaves out: expert parallelism over devices,
routers that draw at random, and experts that choose tokens.
"""

from llmref.components.moe.balance import (
    load_balancing_loss,
    router_z_loss,
    update_expert_bias,
)
from llmref.components.moe.capacity import (
    capacity_mask,
    expert_capacity,
    expert_load,
)
from llmref.components.moe.dispatch import (
    moe_dense,
    moe_forward,
)
from llmref.components.moe.layer import (
    SparseMoE,
    moe_parameters,
)
from llmref.components.moe.routing import (
    biased_top_k,
    softmax_top_k,
    top_k_softmax,
)

__all__ = [
    "SparseMoE",
    "biased_top_k",
    "capacity_mask",
    "expert_capacity",
    "expert_load",
    "load_balancing_loss",
    "moe_dense",
    "moe_forward",
    "moe_parameters",
    "router_z_loss",
    "softmax_top_k",
    "top_k_softmax",
    "update_expert_bias",
]
