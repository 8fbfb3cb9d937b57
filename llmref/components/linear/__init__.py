"""What does a linear layer compute, and what are its three gradients?

layer: the map and its gradients. init: how its weights are drawn. cost: what it takes.
Leaves out: convolutions, quantised weights, and layers split across devices.
"""

from llmref.components.linear.cost import (
    linear_flops,
)
from llmref.components.linear.init import (
    activation_gain,
    init_std,
    uniform_bound,
)
from llmref.components.linear.layer import (
    Linear,
    linear,
    linear_backward,
)

__all__ = [
    "Linear",
    "activation_gain",
    "init_std",
    "linear",
    "linear_backward",
    "linear_flops",
    "uniform_bound",
]
