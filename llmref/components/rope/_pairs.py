"""What rotations act on: pairs of features, so an even number of them."""

from llmref._require import require_int


def require_rotary_dim(dim: int) -> None:
    """Raise unless `dim` is an even int of at least 2."""
    require_int(dim=dim)
    if dim < 2 or dim % 2:
        raise ValueError(f"dim must be even and at least 2 (rotations act on pairs), got {dim}")
