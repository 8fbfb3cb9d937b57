"""A layer of SwiGLU experts, and how many weights it has."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import linear

from llmref._numeric import wide_dtype, widen
from llmref._require import require_shapes, require_size
from llmref.components.moe._sizes import require_k
from llmref.components.moe.dispatch import moe_forward
from llmref.components.swiglu import SwiGLU, ffn_params

Router = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def moe_parameters(
    dim: int, hidden: int, num_experts: int, k: int, num_shared: int = 0
) -> tuple[int, int]:
    """Weights of a layer of SwiGLU experts with its router: all of them, and those a token meets.

    Shapes: integers -> two integers
    Source: Shazeer 2020, arXiv:2002.05202, for one expert; the rest is counted here.
    Raises: TypeError unless all are ints; ValueError for sizes below 1, num_shared below 0 or
    k > E.
    """
    require_k(k, num_experts)
    require_size(0, num_shared=num_shared)
    one, router = ffn_params(dim, hidden, gated=True), dim * num_experts
    # eq. eq-moe-parameters
    return (num_experts + num_shared) * one + router, (k + num_shared) * one + router


class SparseMoE(nn.Module):
    """A layer of SwiGLU experts, of which each token meets k, and shared ones that it always meets.

    `router` turns logits (N, E) and k into weights and experts, each (N, k): `top_k_softmax`, or a
    partial of `softmax_top_k`. There is no default: libraries differ. Logits are in float32 at
    least.
    Shapes: (..., dim) -> (..., dim)
    Source: Dai et al. 2024, arXiv:2401.06066, for shared experts.
    Raises: as moe_parameters and moe_forward.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        num_experts: int,
        k: int,
        *,
        router: Router,
        num_shared: int = 0,
    ) -> None:
        super().__init__()
        moe_parameters(dim, hidden_dim, num_experts, k, num_shared)  # raises for wrong sizes
        self.k, self.router = k, router
        self.gate = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim, hidden_dim) for _ in range(num_experts))
        self.shared = nn.ModuleList(SwiGLU(dim, hidden_dim) for _ in range(num_shared))

    def logits(self, x: Tensor) -> Tensor:
        """Scores of all experts, (..., E); the losses on balance take them too."""
        require_shapes("weight (E, dim), x (..., dim)", weight=self.gate.weight, x=x)
        return linear(widen(x), widen(self.gate.weight, "gate.weight").to(wide_dtype(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Route, run the chosen experts, and add the shared ones."""
        weights, experts = self.router(self.logits(x), self.k)
        out = moe_forward(x, weights, experts, list(self.experts))
        for shared in self.shared:
            out = out + shared(x)
        return out
