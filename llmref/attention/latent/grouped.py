"""Which latent layer computes what a layer with shared key/value heads does?

Leaves out: rotary positions, which would need their own part, norms and biases.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_finite, require_one_dtype, require_shapes
from llmref.attention._heads import heads_per_group


def latent_from_grouped(
    key_weight: Tensor, value_weight: Tensor, num_kv_heads: int, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Down-projection and head maps that give each query head the keys and values it had.

    The latent of x is down @ x, and its size the rank of both weights together: singular values up
    to max(rows, columns) machine epsilons of the largest count as 0; a rank of 0 gives one zero
    latent. The rows of down are orthonormal, the largest entry of each is positive. Queries and
    scale stay as they are.
    Shapes: key_weight (G * D, C), value_weight (G * Dv, C) -> down (Dc, C), key_up (H, D, Dc),
    value_up (H, Dv, Dc)
    Source: Meng et al. 2025, arXiv:2502.07864, for the embedding; here by singular values.
    Raises: TypeError unless both are floating point and of one dtype; ValueError unless
    num_kv_heads divides num_heads and the rows of both, or if an entry is not finite.
    """
    ratio = heads_per_group(num_heads, num_kv_heads)
    named = {"key_weight": key_weight, "value_weight": value_weight}
    require_one_dtype(**named)
    require_shapes("key_weight (GD, C), value_weight (GDv, C)", **named)
    for name, weight in named.items():
        if not weight.numel() or weight.shape[0] % num_kv_heads:
            raise ValueError(
                f"{name} must have {num_kv_heads} blocks of rows and some columns, "
                f"got {tuple(weight.shape)}"
            )
    require_finite(**named)
    stacked = torch.cat([widen(weight) for weight in named.values()])  # (G D + G Dv, C)
    largest = stacked.abs().max()
    unit = stacked / torch.where(largest > 0, largest, 1)  # squares of what is large overflow
    left, values, right = torch.linalg.svd(unit, full_matrices=False)
    signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()  # (n, 1), the SVD's choice
    left, right = left * signs.mT, right * signs
    floor = max(unit.shape) * torch.finfo(unit.dtype).eps * values[0]
    rank = max(int((values > floor).sum()), 1)
    up = left[:, :rank] * values[:rank] * largest  # (G D + G Dv, Dc)
    keys, others = up.split([len(key_weight), len(value_weight)])
    found = [right[:rank]]
    for part in (keys, others):  # eq. eq-mla-contains
        found.append(part.reshape(num_kv_heads, -1, rank).repeat_interleave(ratio, 0))
    down, key_up, value_up = (part.to(key_weight.dtype) for part in found)
    require_finite(" in the result", key_up=key_up, value_up=value_up)
    return down, key_up, value_up
