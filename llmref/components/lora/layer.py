"""A linear layer with a trainable low-rank update, which can be merged and taken out again.

Leaves out: the update as a function of its factors (see factors).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmref._numeric import wide_dtype
from llmref._require import require_finite, require_floating, require_in, require_shapes
from llmref.components.lora.factors import (
    lora_delta,
    lora_scaling,
)


class LoRALinear(nn.Module):
    """A given nn.Linear, frozen, plus a trainable update of rank r.

    It wraps the layer that it is given (the same Parameter objects) and freezes its weight and
    bias. lora_A (r, in) is drawn as nn.Linear draws its weight, lora_B (out, r) is zero, so the
    new layer starts with the output of the old one. Dropout acts on the adapter's input alone.
    Both factors are float32 at least: a step of 1e-5 would vanish in 16 bits. The sum is rounded
    to the dtype of the base's output.
    Shapes: x (..., in) -> (..., out)
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Differs: A is uniform, as in the code of the paper; the paper says Gaussian.
    Raises: TypeError unless base is an nn.Linear with a floating-point weight; ValueError if
    dropout is outside [0, 1); as lora_scaling. An r above a side of the weight reaches no more
    updates than that side, and is allowed as in libraries.
    """

    _kept_weight: Tensor | None
    _merged_a: Tensor | None
    _merged_b: Tensor | None

    def __init__(
        self,
        base: nn.Linear,
        r: int = 8,
        alpha: float = 16.0,
        *,
        dropout: float = 0.0,
        rank_stabilized: bool = False,
    ) -> None:
        super().__init__()
        _check_base(base)
        self.scaling = lora_scaling(alpha, r, rank_stabilized=rank_stabilized)
        require_in("[0, 1)", dropout=dropout)
        self.r, self.alpha, self.rank_stabilized = r, alpha, rank_stabilized
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        like, wide = base.weight, wide_dtype(base.weight)
        require_finite(f" in {wide}", scaling=torch.as_tensor(self.scaling, dtype=wide))
        self.lora_A = nn.Parameter(like.new_empty(r, base.in_features, dtype=wide))
        self.lora_B = nn.Parameter(like.new_zeros(base.out_features, r, dtype=wide))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # bound 1 / sqrt(in), for every r
        self.merged = False
        # Buffers move with the layer; what they hold is no part of a checkpoint.
        for name in ("_kept_weight", "_merged_a", "_merged_b"):
            self.register_buffer(name, None, persistent=False)
        self.register_state_dict_pre_hook(_refuse_merged)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_refuse_merged)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """The layer and its adapter; of a merged layer the base alone, which trains nothing.

        Shapes: x (..., in) -> (..., out)
        Raises: TypeError unless x is floating point; ValueError if its last axis is not in.
        """
        require_floating(x=x)
        require_shapes("weight (out, in), x (..., in)", weight=self.base.weight, x=x)
        y: Tensor = self.base(x)
        if self.merged:
            return y
        code = functional.linear(self.dropout(x).to(self.lora_A.dtype), self.lora_A)  # (..., r)
        update = self.scaling * functional.linear(code, self.lora_B)
        return (y + update).to(y.dtype)  # eq. eq-lora

    def merged_weight(self) -> Tensor:
        """The weight with the adapter added, as a new tensor; the layer stays as it is.

        Each entry is rounded once: at most u |W + D| from the sum of the weight W and the computed
        update D, with u = eps / 2 of the weight's dtype. Sixteen-bit weights are added in float32,
        which costs about 2^-24 |W + D| more, and may round a sum just above a tie down to it.
        Shapes: -> (out, in)
        Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
        Raises: ValueError if an entry overflows or is NaN.
        """
        weight = self.base.weight.detach()
        if self.merged:
            return weight.clone()
        merged = self._plus(weight, self.lora_A, self.lora_B, 1.0)  # eq. eq-lora-merge
        require_finite(merged_weight=merged)
        return merged

    def to_linear(self) -> nn.Linear:
        """An ordinary layer with the merged weight; it shares no memory and is trainable.

        Shapes: -> an nn.Linear, in -> out
        Source: as merged_weight, whose rounding it has.
        Raises: as merged_weight.
        """
        base, weight, bias = self.base, self.merged_weight(), self.base.bias
        # On 'meta' nothing is drawn, and so no random number is used up.
        linear = nn.Linear(
            base.in_features, base.out_features, bias=bias is not None, device="meta"
        )
        linear.weight = nn.Parameter(weight)
        if bias is not None:
            linear.bias = nn.Parameter(bias.detach().clone())
        linear.train(self.training)
        return linear

    @torch.no_grad()
    def merge(self, keep_base: bool = True) -> None:
        """Add the update to the base weight, in place; merging twice is merging once.

        With keep_base a copy of the weight is kept, so that unmerge is exact to the bit; without
        it, two small matrices, so that unmerge subtracts what was added. A weight that another
        module shares changes there too.
        Shapes: none
        Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
        Raises: as merged_weight; ValueError if keep_base is asked of a layer merged without.
        """
        if self.merged:
            if keep_base and self._kept_weight is None:
                raise ValueError("the layer was merged with keep_base=False: its base is lost")
            return
        merged = self.merged_weight()
        if keep_base:
            self._kept_weight = self.base.weight.detach().clone()
        else:
            self._merged_a, self._merged_b = self.lora_A.clone(), self.lora_B.clone()
        self.base.weight.copy_(merged)
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Undo merge; of a layer that is not merged, nothing.

        Exact after merge(keep_base=True). Otherwise D is subtracted from the merged weight M: at
        most u |W + D| + u |M - D| from W, as merged_weight. Changes of lora_A and lora_B since
        then do no harm; changes of the base weight are lost with a copy, and kept without.
        Shapes: none
        Source: a convention of libraries, made exact.
        """
        if not self.merged:
            return
        if self._kept_weight is not None:
            self.base.weight.copy_(self._kept_weight)
        elif self._merged_a is not None and self._merged_b is not None:
            weight = self._plus(self.base.weight, self._merged_a, self._merged_b, -1.0)
            self.base.weight.copy_(weight)
        self._kept_weight = self._merged_a = self._merged_b = None
        self.merged = False

    def extra_repr(self) -> str:
        """Rank and scale, for print."""
        return f"r={self.r}, scaling={self.scaling:g}, merged={self.merged}"

    def _plus(self, weight: Tensor, A: Tensor, B: Tensor, sign: float) -> Tensor:
        """Weight plus or minus the update, in float32 at least, rounded once."""
        wide = wide_dtype(weight)
        delta = lora_delta(A.detach().to(wide), B.detach().to(wide), self.scaling)
        return (weight.to(wide) + sign * delta).to(weight.dtype)


def _check_base(base: nn.Linear) -> None:
    if not isinstance(base, nn.Linear):
        raise TypeError(f"base must be an nn.Linear, weight (out, in), got {type(base).__name__}")
    require_floating(base_weight=base.weight)


def _refuse_merged(module: LoRALinear, *_: object) -> None:
    if module.merged:
        raise ValueError(
            "a merged layer is not saved or loaded: its weight already holds the adapter, which "
            "would be added twice. Call unmerge() first, or save to_linear()"
        )
