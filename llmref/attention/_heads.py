"""How features are cut into heads, for all the layers that have some."""

from torch import Tensor

from llmref._require import require_shapes, require_size, require_tensor


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the features into heads: head h gets the features h D to (h + 1) D - 1.

    Two heads of the row (1, 2, 3, 4): (1, 2) and (3, 4).
    Shapes: x (..., T, H D) -> (..., H, T, D), a view
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    Raises: ValueError if x has no position axis or num_heads does not divide its features;
    TypeError unless that is an int.
    """
    require_shapes("x (..., T, HD)", x=x)
    require_size(1, num_heads=num_heads)
    if x.shape[-1] % num_heads:
        raise ValueError(f"num_heads {num_heads} must divide the features of x {tuple(x.shape)}")
    # eq. eq-split-heads. The transpose is needed: a view as (H, T, D) would cut positions.
    head_dim = x.shape[-1] // num_heads
    return x.view(*x.shape[:-1], num_heads, head_dim).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads side by side again: the inverse of split_heads.

    Shapes: x (..., H, T, D) -> (..., T, H D)
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    Raises: ValueError if x has no head axis.
    """
    require_tensor(x=x)
    require_shapes("x (..., H, T, D)", x=x)
    return x.transpose(-3, -2).flatten(-2)


def require_head_dim(embed_dim: int, num_heads: int, head_dim: int | None) -> int:
    """The size of a head: given, or the model width divided by the number of heads.

    Raises: ValueError if a size is below 1 or the division leaves a rest; TypeError unless the
    sizes are ints.
    """
    require_size(1, embed_dim=embed_dim, num_heads=num_heads)
    if head_dim is not None:
        require_size(1, head_dim=head_dim)
        return head_dim
    if embed_dim % num_heads:
        raise ValueError(
            f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}; "
            "choose sizes that divide, or give head_dim"
        )
    return embed_dim // num_heads


def heads_per_group(num_heads: int, num_kv_heads: int) -> int:
    """How many query heads read one key/value head.

    Raises: ValueError unless num_kv_heads divides num_heads and both are at least 1; TypeError
    unless they are ints.
    """
    require_size(1, num_heads=num_heads, num_kv_heads=num_kv_heads)
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads {num_kv_heads} must divide num_heads {num_heads}")
    return num_heads // num_kv_heads
