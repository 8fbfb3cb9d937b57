"""What does a gate change in a feed-forward layer, and how wide should the layer be?

Leaves out: the activations themselves (see functional.activations) and mixtures of experts.
Weights are stored as in nn.Linear, (out, in).
"""

from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from llmref._numeric import widen
from llmref._require import (
    require_choice,
    require_finite,
    require_floating,
    require_in,
    require_number,
    require_positive,
    require_shapes,
    require_size,
)
from llmref.functional.activations import d_silu, gelu, relu, sigmoid, silu

Activation = Literal["sigmoid", "identity", "relu", "gelu", "silu"]
Order = Literal["gate_up", "up_gate"]


def glu(gate: Tensor, up: Tensor, activation: Activation = "silu", *, beta: float = 1.0) -> Tensor:
    """The activation of the gate, times the other branch, entry by entry.

    glu(0, 5) = 0, and with the sigmoid 5/2.
    Shapes: gate and up (..., F) -> (..., F)
    Source: Dauphin et al. 2016, arXiv:1612.08083 (sigmoid); Shazeer 2020, arXiv:2002.05202.
    Differs: the names are those of the activations: silu is SwiGLU, gelu GEGLU, relu ReGLU,
    sigmoid GLU and identity the bilinear layer. beta belongs to silu alone.
    Raises: ValueError if the shapes differ, for another activation, a beta that is not used, or a
    product that overflows or is NaN; TypeError unless both are floating point.
    """
    require_floating(gate=gate, up=up)
    require_shapes("gate (...), up (...)", gate=gate, up=up)
    _require_activation(activation, beta)
    h = _activate(gate, activation, beta) * up  # eq. eq-swiglu
    require_finite(h=h)
    return h


def swiglu_backward(
    grad_h: Tensor, gate: Tensor, up: Tensor, *, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Gradients of the two branches of glu with silu, from that of their product.

    Shapes: grad_h, gate and up (..., F) -> (..., F) twice, of gate and of up
    Source: Shazeer 2020, arXiv:2002.05202 (the forward formula, differentiated).
    Differs: float16 and bfloat16 are computed in float32 and rounded once.
    Raises: ValueError if the shapes differ, beta is not positive and finite, or a gradient
    overflows or is NaN; TypeError unless all are floating point.
    """
    named = {"grad_h": grad_h, "gate": gate, "up": up}
    require_floating(**named)
    require_shapes("gate (...), up (...), grad_h (...)", **named)
    dh, g, v = widen(grad_h), widen(gate), widen(up)
    dg, dv = dh * (v * d_silu(g, beta)), dh * silu(g, beta)  # eq. eq-swiglu-backward
    grad_gate, grad_up = dg.to(gate.dtype), dv.to(up.dtype)
    require_finite(grad_gate=grad_gate, grad_up=grad_up)
    return grad_gate, grad_up


def swiglu_hidden_dim(
    dim: int,
    *,
    ratio: Fraction = Fraction(8, 3),
    multiplier: float | None = None,
    multiple_of: int = 1,
) -> int:
    """Hidden width by the rule of Llama: ratio, cut; multiplier, cut; then up to a multiple.

    swiglu_hidden_dim(4096, multiple_of=256) = 11008.
    Shapes: integers -> an integer
    Source: Shazeer 2020, arXiv:2002.05202, section 2, for 2/3 of 4 d; the roundings, in this
    order, are those of Llama's published code (Touvron et al. 2023, arXiv:2302.13971).
    Raises: ValueError if dim or multiple_of is below 1, ratio or multiplier is not positive, or a
    width becomes 0 or infinite; TypeError unless dim and multiple_of are ints.
    """
    require_size(1, dim=dim, multiple_of=multiple_of)
    factor = 1.0 if multiplier is None else multiplier
    require_number(ratio=ratio, multiplier=factor)
    require_positive(ratio=float(ratio), multiplier=factor)
    require_in("[0, inf)", width=float(ratio) * dim * factor)
    hidden = int(ratio * dim)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    require_size(1, hidden=hidden)
    return -(-hidden // multiple_of) * multiple_of  # eq. eq-swiglu-rounding


def ffn_params(dim: int, hidden: int, *, gated: bool) -> int:
    """Weights of a feed-forward layer without biases: three matrices with a gate, else two.

    Shapes: integers -> an integer
    Source: Shazeer 2020, arXiv:2002.05202, section 2.
    Raises: ValueError if a width is below 1; TypeError unless both are ints.
    """
    require_size(1, dim=dim, hidden=hidden)
    return (3 if gated else 2) * dim * hidden  # eq. eq-swiglu-parameters


class SwiGLU(nn.Module):
    """A feed-forward layer with a gate; the names of its weights are those of transformers.

    Without hidden_dim the width is that of `swiglu_hidden_dim` with multiple_of. Llama's original
    names are w1 for gate_proj, w3 for up_proj and w2 for down_proj.
    Shapes: (..., dim) -> (..., dim)
    Source: Shazeer 2020, arXiv:2002.05202.
    Raises: as swiglu_hidden_dim and glu; ValueError if hidden_dim is below 1.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        *,
        multiple_of: int = 256,
        activation: Activation = "silu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if hidden_dim is None:
            hidden_dim = swiglu_hidden_dim(dim, multiple_of=multiple_of)
        require_size(1, dim=dim, hidden_dim=hidden_dim)
        require_choice(Activation, activation=activation)
        self.activation: Activation = activation
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=bias)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=bias)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, and write back."""
        require_floating(x=x)
        require_shapes("weight (F, dim), x (..., dim)", weight=self.gate_proj.weight, x=x)
        out: Tensor = self.down_proj(glu(self.gate_proj(x), self.up_proj(x), self.activation))
        return out


def fuse_gate_up(gate_w: Tensor, up_w: Tensor, *, order: Order) -> Tensor:
    """One weight for both branches, to be cut in two after the product.

    Libraries differ in the order: Phi-3 in transformers cuts gate, up; x-transformers up, gate.
    Shapes: gate_w and up_w (F, dim) -> (2 F, dim)
    Source: a convention of checkpoints.
    Raises: ValueError if the shapes differ or for another order.
    """
    require_floating(gate_w=gate_w, up_w=up_w)
    require_shapes("gate_w (F, dim), up_w (F, dim)", gate_w=gate_w, up_w=up_w)
    require_choice(Order, order=order)
    return torch.cat((gate_w, up_w) if order == "gate_up" else (up_w, gate_w))


def _activate(gate: Tensor, activation: Activation, beta: float) -> Tensor:
    if activation == "identity":
        return gate
    if activation == "silu":
        return silu(gate, beta)
    return {"sigmoid": sigmoid, "relu": relu, "gelu": gelu}[activation](gate)


def _require_activation(activation: str, beta: float) -> None:
    require_choice(Activation, activation=activation)
    require_number(beta=beta)
    if beta != 1.0 and activation != "silu":
        raise ValueError(f"beta is the slope of silu, got beta {beta} with {activation!r}")
