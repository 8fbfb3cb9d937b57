"""What a layer wrote to its cache is taken back if attention then raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmref.attention.kv_cache.storage import KVCache, SlidingWindowKVCache


@contextmanager
def unchanged_on_error(cache: KVCache | SlidingWindowKVCache | None, count: int) -> Iterator[None]:
    """Put back what a chunk of `count` tokens replaced, if what follows the write raises."""
    if cache is None:
        yield
        return
    length, size = cache.length, cache._key.shape[2]
    slots = torch.arange(length, length + count, device=cache._key.device) % size
    with torch.no_grad():
        key, value = cache._key[:, :, slots], cache._value[:, :, slots]  # copies
    try:
        yield
    except Exception:
        with torch.no_grad():
            cache._key[:, :, slots], cache._value[:, :, slots] = key, value
        cache.length = length
        raise
