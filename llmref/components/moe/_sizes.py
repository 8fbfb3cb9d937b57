"""What a number of chosen experts must satisfy."""

from llmref._require import require_size


def require_k(k: int, num_experts: int) -> None:
    """Refuse sizes of a routing that cannot be."""
    require_size(1, num_experts=num_experts, k=k)
    if k > num_experts:
        raise ValueError(f"k must be at most the {num_experts} experts, got {k}")
