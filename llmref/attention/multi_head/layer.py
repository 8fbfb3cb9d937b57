"""How is attention computed in several heads, and which weights give the same function?

Leaves out: how features are cut into heads, which grouped-query attention and the cache need too.
"""

import copy

import torch
from torch import Tensor, nn

from llmref._numeric import wide_dtype
from llmref._require import (
    require_floating,
    require_in,
    require_one_dtype,
    require_size,
    require_tensor,
)
from llmref.attention._heads import merge_heads, require_head_dim, split_heads
from llmref.attention.scaled_dot_product import attention_weights, scaled_dot_product_attention


class MultiHeadAttention(nn.Module):
    """Attention in H heads, each with its own projections, written back through one matrix.

    Shapes: query (B, T, C), key (B, S, kdim), value (B, S, vdim) -> (B, T, C); attn_mask (T, S) or
    (B or 1, H or 1, T or 1, S), True may attend, a floating-point mask is added to the scores
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    Differs: weights are initialised as in nn.Linear; head_dim is free of embed_dim.
    Raises: ValueError if num_heads does not divide embed_dim without head_dim, a size is below 1,
    dropout is not in [0, 1), a tensor or mask has another shape, or key comes without value;
    TypeError unless the sizes are ints.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        head_dim = require_head_dim(embed_dim, num_heads, head_dim)
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        require_size(1, kdim=kdim, vdim=vdim)
        require_in("[0, 1)", dropout=dropout)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, head_dim
        self.dropout = dropout
        inner = num_heads * head_dim
        self.q_proj = nn.Linear(embed_dim, inner, bias)
        self.k_proj = nn.Linear(kdim, inner, bias)
        self.v_proj = nn.Linear(vdim, inner, bias)
        self.o_proj = nn.Linear(inner, embed_dim, bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output, and with need_weights the weights (B, H, T, S) of each head before dropout.

        Without key and value the layer attends to the query's own sequence.
        """
        q, k, v = self._project(query, key, value, attn_mask)
        dropout_p = self.dropout if self.training else 0.0
        heads = scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal)
        out: Tensor = self.o_proj(merge_heads(heads))  # eq. eq-multi-head
        return (out, attention_weights(q, k, attn_mask, is_causal)) if need_weights else out

    def head_outputs(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """What each head writes: (B, H, T, C). Their sum, plus the output bias, is the layer."""
        q, k, v = self._project(query, key, value, attn_mask)
        dropout_p = self.dropout if self.training else 0.0
        heads = scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal)
        return heads @ self._output_blocks()  # eq. eq-head-sum, one term for each head

    def qk_circuit(self) -> Tensor:
        """The matrix (H, C, kdim) of each head's scores, scale included: A = X Omega X^T."""
        self._require_no_bias("qk_circuit")
        q, k = self._blocks(self.q_proj), self._blocks(self.k_proj)
        scores: Tensor = self.head_dim**-0.5 * q @ k.mT  # eq. eq-circuits
        return scores

    def ov_circuit(self) -> Tensor:
        """The matrix (H, vdim, C) through which each head copies: it writes P X Omega."""
        self._require_no_bias("ov_circuit")
        return self._blocks(self.v_proj) @ self._output_blocks()  # eq. eq-circuits

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> "MultiHeadAttention":
        """The same layer with copied weights, for other inputs in two respects.

        Masks are opposite, there True is blocked; and inputs are (B, T, C) here, whatever
        module.batch_first says. With batch_first=False, torch's default, exchange the first axes.
        Raises: ValueError for bias_k, bias_v and add_zero_attn, which append keys to the sequence.
        """
        if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
            raise ValueError("from_torch handles neither add_bias_kv nor add_zero_attn")
        if module.in_proj_weight is None:  # kdim or vdim differs from embed_dim
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        else:  # rows in the order query, key, value
            weights = module.in_proj_weight.chunk(3)
        biases = module.in_proj_bias.chunk(3) if module.in_proj_bias is not None else [None] * 3
        ours = cls(
            module.embed_dim,
            module.num_heads,
            kdim=module.kdim,
            vdim=module.vdim,
            bias=module.in_proj_bias is not None,
            dropout=module.dropout,
        ).to(weights[0])
        sources = [*zip(weights, biases, strict=True)]
        sources.append((module.out_proj.weight, module.out_proj.bias))
        layers = (ours.q_proj, ours.k_proj, ours.v_proj, ours.o_proj)
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers, sources, strict=True):
                layer.weight.copy_(weight)
                if bias is not None:
                    layer.bias.copy_(bias)
        return ours.train(module.training)

    def _project(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, attn_mask: Tensor | None
    ) -> list[Tensor]:
        if (key is None) != (value is None):
            given, missing = ("value", "key") if key is None else ("key", "value")
            raise ValueError(f"{given} was given without {missing}: give both or neither")
        inputs = (query, query if key is None else key, query if value is None else value)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        for name, x, layer in zip(("query", "key", "value"), inputs, layers, strict=True):
            require_floating(**{name: x})
            if x.ndim != 3 or x.shape[-1] != layer.in_features:
                raise ValueError(
                    f"{name} must be (B, T, {layer.in_features}), got {tuple(x.shape)}"
                )
        B, T, S = query.shape[0], query.shape[1], inputs[1].shape[1]
        if attn_mask is not None:
            _require_mask_shape(attn_mask, (B, self.num_heads, T, S))
        return [
            split_heads(layer(x), self.num_heads) for layer, x in zip(layers, inputs, strict=True)
        ]

    def _blocks(self, layer: nn.Linear) -> Tensor:
        """The columns of one input projection, head by head: (H, C, D)."""
        return layer.weight.view(self.num_heads, self.head_dim, -1).mT

    def _output_blocks(self) -> Tensor:
        """The rows of the output projection, head by head: (H, D, C)."""
        return self.o_proj.weight.mT.reshape(self.num_heads, self.head_dim, -1)

    def _require_no_bias(self, name: str) -> None:
        if self.q_proj.bias is not None:
            raise ValueError(
                f"{name} needs bias=False: with biases the scores are no form X Omega X^T "
                "(append a constant 1 to x to absorb them)"
            )


def gauge_transform(module: MultiHeadAttention, qk: Tensor, vo: Tensor) -> MultiHeadAttention:
    """Other weights, the same function: change the basis inside every head.

    W_Q U, W_K U^-T for U = qk and W_V U, U^-1 W_O for U = vo; biases change with their weights.
    Shapes: qk (H, D, D), vo (H, D, D), invertible -> a new module
    Source: Elhage et al. 2021, 'A mathematical framework for transformer circuits', for the
    products that stay the same.
    Raises: TypeError unless both have the dtype of the weights; ValueError if a shape differs or a
    matrix is singular.
    """
    H, D = module.num_heads, module.head_dim
    require_one_dtype(qk=qk, vo=vo, weight=module.q_proj.weight)
    inverses = []
    for name, matrix in (("qk", qk), ("vo", vo)):
        if matrix.shape != (H, D, D):
            raise ValueError(f"{name} must be {(H, D, D)}, got {tuple(matrix.shape)}")
        inverse, info = torch.linalg.inv_ex(matrix.to(wide_dtype(matrix)))
        if info.any() or not inverse.isfinite().all():
            raise ValueError(f"{name} must be invertible in every head")
        inverses.append(inverse.to(matrix.dtype))
    result = copy.deepcopy(module)
    turns = ((result.q_proj, qk), (result.k_proj, inverses[0].mT), (result.v_proj, vo))
    with torch.no_grad():
        for layer, turn in turns:  # eq. eq-gauge; weights are stored transposed
            layer.weight.copy_((turn.mT @ layer.weight.view(H, D, -1)).flatten(0, 1))
            if layer.bias is not None:
                layer.bias.copy_((layer.bias.view(H, 1, D) @ turn).flatten())
        result.o_proj.weight.copy_((inverses[1] @ module._output_blocks()).flatten(0, 1).mT)
    return result


def _require_mask_shape(mask: Tensor, shape: tuple[int, int, int, int]) -> None:
    require_tensor(attn_mask=mask)
    B, H, T, S = shape
    # Three axes are refused: (B, T, S) would be taken for (H, T, S) whenever B equals H.
    sizes = zip(mask.shape[:-1], (B, H, T), strict=False)
    full = mask.ndim == 4 and mask.shape[-1] == S and all(m in (1, n) for m, n in sizes)
    if not full and tuple(mask.shape) != (T, S):
        raise ValueError(
            f"attn_mask must be (T, S) or (B or 1, H or 1, T or 1, S) with (B, H, T, S) = {shape}, "
            f"got {tuple(mask.shape)}"
        )
