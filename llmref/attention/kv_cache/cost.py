"""What does a cache cost in memory, and how much work does it save?"""

from llmref._require import require_size


def kv_cache_bytes(
    num_layers: int,
    num_kv_heads: int,
    head_dim: int,
    seq_len: int,
    batch_size: int = 1,
    bytes_per_element: int = 2,
) -> int:
    """Bytes of keys and values that a model keeps: 2 for K and V, times every size.

    kv_cache_bytes(32, 8, 128, 1) = 131072: 128 KiB a token.
    Shapes: -> bytes
    Source: Pope et al. 2022, arXiv:2211.05102, by counting.
    Raises: ValueError if seq_len is negative or another size is below 1; TypeError unless the sizes
    are ints.
    """
    require_size(0, seq_len=seq_len)
    require_size(1, num_layers=num_layers, num_kv_heads=num_kv_heads, head_dim=head_dim)
    require_size(1, batch_size=batch_size, bytes_per_element=bytes_per_element)
    # eq. eq-cache-bytes
    return 2 * num_layers * num_kv_heads * head_dim * seq_len * batch_size * bytes_per_element


def attention_pairs(prompt_len: int, new_tokens: int, *, cached: bool) -> int:
    """Query-key pairs of one head that are scored to generate new_tokens after a prompt.

    The last generated token is never fed back, so there are new_tokens forward passes: over the
    prompt, then new_tokens - 1 more. Only causal pairs count.
    Prompt 2, two new tokens: cached 3 + 3 = 6, not cached 3 + 6 = 9.
    Shapes: -> pairs for one sequence, one layer, one query head
    Source: by counting.
    Raises: ValueError if prompt_len or new_tokens is below 1; TypeError unless both are ints.
    """
    require_size(1, prompt_len=prompt_len, new_tokens=new_tokens)
    last = prompt_len + new_tokens - 1  # tokens of the last forward pass
    if cached:
        return last * (last + 1) // 2  # eq. eq-cache-pairs
    # Sums of t (t + 1) / 2 telescope: t (t + 1) (t + 2) / 6.
    before = (prompt_len - 1) * prompt_len * (prompt_len + 1) // 6
    return last * (last + 1) * (last + 2) // 6 - before  # eq. eq-no-cache-pairs
