"""Why may a decoder keep the keys and values of old tokens, and what does it save and cost?

storage: the caches. layer: attention that fills and reads one. cost: bytes and pairs.
Leaves out: sampling other than greedy, batches of unequal lengths, speculative decoding, and
caches of latents (see latent).
"""

from llmref.attention.kv_cache.cost import attention_pairs, kv_cache_bytes
from llmref.attention.kv_cache.layer import (
    CachedAttention,
    generate_greedy,
)
from llmref.attention.kv_cache.storage import (
    KVCache,
    SlidingWindowKVCache,
)

__all__ = [
    "CachedAttention",
    "KVCache",
    "SlidingWindowKVCache",
    "attention_pairs",
    "generate_greedy",
    "kv_cache_bytes",
]
