"""With which spread must weights be drawn, so that a signal keeps its size?

Leaves out: orthogonal initialisation, and rules that depend on the depth of a residual network.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from llmref._require import (
    require_at_least,
    require_choice,
    require_in,
    require_number,
    require_positive,
    require_size,
)
from llmref.functional.activations import gelu, silu

Scheme = Literal["xavier", "kaiming_in", "kaiming_out", "torch"]
GainOf = Literal["linear", "relu", "leaky_relu", "tanh", "silu", "gelu"]


def init_std(
    fan_in: int,
    fan_out: int,
    scheme: Scheme,
    gain: float = 1.0,
) -> float:
    """Standard deviation of one weight.

    fan_in 300, fan_out 100: xavier sqrt(2 / 400), kaiming_in sqrt(1 / 300) times the gain, torch
    sqrt(1 / 900).
    Shapes: integers -> a float
    Source: Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852.
    Differs: He et al. have the gain sqrt(2) of a ReLU built in; here it is an argument. 'torch' is
    what torch.nn.Linear draws: its gain is applied to 1 / sqrt(3 fan_in).
    Raises: ValueError if a fan is below 1, the gain is not positive and finite, or the scheme is
    unknown; TypeError unless the fans are ints.
    """
    require_size(1, fan_in=fan_in, fan_out=fan_out)
    require_positive(gain=gain)
    require_choice(Scheme, scheme=scheme)
    variances = {  # eq. eq-linear-init
        "xavier": 2 / (fan_in + fan_out),
        "kaiming_in": 1 / fan_in,
        "kaiming_out": 1 / fan_out,
        "torch": 1 / (3 * fan_in),
    }
    return gain * math.sqrt(variances[scheme])


def uniform_bound(std: float) -> float:
    """The a for which a uniform variable on (-a, a) has this standard deviation: sqrt(3) times it.

    Shapes: a float -> a float
    Source: Glorot & Bengio 2010.
    Raises: ValueError unless std is at least 0 and finite.
    """
    require_at_least(0, std=std)
    return math.sqrt(3) * std  # eq. eq-linear-uniform


def activation_gain(name: GainOf, a: float = 0.01) -> float:
    """What keeps the second moment through an activation: 1 / sqrt(E phi(z)^2), z standard normal.

    relu: sqrt(2). leaky_relu with slope a = 1: 1.
    Shapes: a name -> a float
    Source: He et al. 2015, arXiv:1502.01852, for relu and leaky_relu.
    Differs: torch.nn.init.calculate_gain has the empirical 5 / 3 for tanh; here it is 1.5925.
    Raises: ValueError if the name is unknown, or a is beyond 1e150 in size.
    """
    require_number(a=a)
    require_in("[-1e150, 1e150]", a=a)
    require_choice(GainOf, name=name)
    exact = {"linear": 1.0, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + a * a))}
    smooth: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "silu": silu, "gelu": gelu}
    if name in exact:
        return exact[name]  # eq. eq-linear-relu-moment
    # The trapezoidal rule converges exponentially here; beyond 12 the density is below 1e-31.
    z = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    density = (-z * z / 2).exp() / math.sqrt(2 * math.pi)
    second_moment = (smooth[name](z).square() * density).sum().item() * 0.01
    return 1 / math.sqrt(second_moment)
