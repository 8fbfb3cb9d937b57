"""What rotations act on: pairs of features, so an even number of them."""

from llmref._require import require_int


def require_rotary_dim(**sizes: int) -> None:
    """Raise unless a size is an even int of at least 2."""
    require_int(**sizes)
    for name, size in sizes.items():
        if size <= 0 or size % 2:
            raise ValueError(
                f"{name} must be even and at least 2 (rotations act on pairs), got {size}"
            )
