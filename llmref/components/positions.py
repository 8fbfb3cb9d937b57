"""How does a model that sees a set of tokens learn their order?

Codes added to the embeddings (sinusoidal, learned), and biases added to the scores (ALiBi, T5).
Leaves out: rotary embedding, which has a module of its own, and codes for images.
"""

import math
from bisect import bisect_left

import torch
from torch import Tensor, nn

from llmref._numeric import widen
from llmref._require import (
    require_choice,
    require_finite,
    require_float_dtype,
    require_floating,
    require_ids,
    require_integers,
    require_number,
    require_positive,
    require_shapes,
    require_size,
    require_tensor,
)
from llmref.components.rope import Layout, rope_inv_freq


def sinusoidal_embedding(
    positions: Tensor,
    dim: int,
    *,
    base: float = 10000.0,
    layout: Layout,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sine and cosine of each position at dim / 2 frequencies base^(-2i / dim).

    Position pi / 2 with dim 2: (1, 0). interleaved: sine and cosine of a frequency side by side;
    half: all sines, then all cosines. No default, for papers and libraries differ.
    Shapes: positions (...) -> (..., dim)
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5 (interleaved).
    Differs: angles are formed in float64, whatever dtype is.
    Raises: ValueError if dim is odd or below 2, base is not positive, layout is unknown, positions
    are of 16 bits, or an angle is not finite; TypeError if dim is no int, dtype not floating point,
    or positions are complex or booleans.
    """
    require_choice(Layout, layout=layout)
    require_float_dtype(dtype=dtype)
    require_tensor(positions=positions)
    if not positions.is_floating_point():
        require_integers(positions=positions)
    elif positions.dtype.itemsize < 4:
        raise ValueError(f"positions must be of 32 bits at least, got {positions.dtype}")
    inv_freq = rope_inv_freq(dim, base).to(positions.device)
    angles = positions.double().unsqueeze(-1) * inv_freq  # (..., dim / 2)
    require_finite(angles=angles)
    waves = torch.stack([angles.sin(), angles.cos()], -1 if layout == "interleaved" else -2)
    return waves.flatten(-2).to(dtype)  # eq. eq-positions-sinusoidal


class LearnedPositions(nn.Module):
    """A trained vector for each position, drawn N(0, 0.02^2), added to the embeddings.

    Shapes: x (..., T, C), positions (T,) or (..., T) -> x + weight[positions]
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    Raises: ValueError if a size is below 1; TypeError unless both are ints.
    """

    def __init__(self, max_len: int, dim: int) -> None:
        super().__init__()
        require_size(1, max_len=max_len, dim=dim)
        self.weight = nn.Parameter(torch.randn(max_len, dim) * 0.02)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The embeddings, each plus the row of its position.

        Raises: TypeError unless positions are integers; ValueError for a position that the table
        does not have, a negative one too, or shapes that do not fit.
        """
        require_ids(len(self.weight), positions=positions)
        require_floating(x=x)
        axes = "x (..., T, C), weight (_, C)"
        require_shapes(axes, x=x, weight=self.weight)
        if positions.shape not in (x.shape[-2:-1], x.shape[:-1]):
            raise ValueError(
                f"positions must be {tuple(x.shape[-2:-1])} or {tuple(x.shape[:-1])} beside x "
                f"{tuple(x.shape)}, got {tuple(positions.shape)}"
            )
        return x + self.weight[positions.long()]


def alibi_slopes(num_heads: int) -> Tensor:
    """Slopes of ALiBi: 2^(-8 h / H) for h = 1 to H, if H is a power of two.

    4 heads: 1/4, 1/16, 1/64, 1/256. Else those of the power of two below, and then every other one
    of twice that power, from the first on.
    Shapes: -> (H,) in float64
    Source: Press et al. 2021, arXiv:2108.12409, section 3, and its code for other H.
    Raises: ValueError if num_heads is below 1; TypeError unless it is an int.
    """
    require_size(1, num_heads=num_heads)
    power = 2 ** (num_heads.bit_length() - 1)
    steps = [(h + 1) / power for h in range(power)]
    steps += [(2 * h + 1) / (2 * power) for h in range(num_heads - power)]
    return 2.0 ** (-8 * torch.tensor(steps, dtype=torch.float64))  # eq. eq-positions-alibi-slopes


def alibi_bias(slopes: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """What ALiBi adds to the scaled scores: minus slope times distance.

    Slope 1/2, query at 3, keys at 1 and 3: (-1, 0).
    Shapes: slopes (H,), query_positions (T,), key_positions (S,) -> (H, T, S), float32 at least
    Source: Press et al. 2021, arXiv:2108.12409, section 3.
    Differs: defined for keys on both sides; distances are formed in integers.
    Raises: TypeError unless slopes are floating point and positions integers; ValueError for other
    shapes, or a slope that is not positive and finite.
    """
    _require_slopes(slopes, query_positions=query_positions, key_positions=key_positions)
    distance = (query_positions.long().unsqueeze(-1) - key_positions.long()).abs()  # (T, S)
    return -widen(slopes)[:, None, None] * distance  # eq. eq-positions-alibi


def alibi_key_bias(slopes: Tensor, key_positions: Tensor) -> Tensor:
    """ALiBi up to a constant of each row, for causal attention only: slope times key position.

    Equal to alibi_bias after a softmax over keys that are not later than the query, without a sink.
    It grows with the position: do not round it to 16 bits.
    Shapes: slopes (H,), key_positions (S,) -> (H, 1, S), float32 at least
    Source: the form of BLOOM, Le Scao et al. 2022, arXiv:2211.05100.
    Raises: as alibi_bias.
    """
    _require_slopes(slopes, key_positions=key_positions)
    return widen(slopes)[:, None, None] * key_positions.long()  # eq. eq-positions-key-only


def alibi_effective_keys(slope: float) -> float:
    """Keys that a head with equal scores and an endless past reads: 1 / sum of squared weights.

    alibi_effective_keys(log 3) = (3 + 1) / (3 - 1) = 2; about 2 / slope for small slopes.
    Source: the geometric series.
    Raises: ValueError unless slope is positive and finite, or if the number overflows.
    """
    require_number(slope=slope)
    require_positive(slope=slope)
    keys = (1 + math.exp(-slope)) / -math.expm1(-slope)  # eq. eq-positions-effective-keys
    if keys == math.inf:
        raise ValueError(f"slope is so small that the number of keys overflows, got {slope}")
    return keys


def t5_bucket(
    relative: Tensor, *, num_buckets: int, max_distance: int, bidirectional: bool
) -> Tensor:
    """Number of the learned bias of T5 for a key at `relative` = key minus query position.

    8 buckets, max_distance 16, causal: distances 0 to 3 have a bucket each, then come 4, 5; 6, 7;
    8 to 11; from 12 on. bidirectional: later keys have the upper half of the buckets. Otherwise
    they share bucket 0.
    Shapes: relative (...) -> (...), int64
    Source: Raffel et al. 2019, arXiv:1910.10683, section 2.1, and its code.
    Differs: exact in integers, where others take a logarithm in float32.
    Raises: TypeError unless relative and the sizes are integers; ValueError if the buckets of one
    side are odd in number or fewer than 2, or max_distance is not above half of them.
    """
    require_integers(relative=relative)
    if not isinstance(bidirectional, bool):
        raise TypeError(f"bidirectional must be a bool, got {bidirectional!r}")
    sides = 2 if bidirectional else 1
    require_size(2 * sides, num_buckets=num_buckets)
    if num_buckets % (2 * sides):
        raise ValueError(f"num_buckets must be divisible by {2 * sides}, got {num_buckets}")
    one_sided = num_buckets // sides
    exact = one_sided // 2
    require_size(exact + 1, max_distance=max_distance)
    rest = one_sided - exact  # buckets of growing width
    # Bucket exact + j begins at the least d with (d / exact)^rest >= (max_distance / exact)^j.
    starts = [
        bisect_left(
            range(max_distance), exact**rest * max_distance**j, key=lambda d: d**rest * exact**j
        )
        for j in range(1, rest)
    ]
    relative = relative.long()
    distance = relative.abs() if bidirectional else (-relative).clamp(min=0)
    bounds = torch.tensor([*range(1, exact + 1), *starts], device=relative.device)
    bucket = torch.bucketize(distance, bounds, right=True)  # eq. eq-positions-t5
    return bucket + one_sided * (relative > 0) if bidirectional else bucket


def _require_slopes(slopes: Tensor, **positions: Tensor) -> None:
    require_floating(slopes=slopes)
    require_shapes("slopes (H,)", slopes=slopes)
    require_positive(slopes=slopes)
    require_integers(**positions)
    for name, tensor in positions.items():
        require_shapes(f"{name} (n,)", **{name: tensor})
