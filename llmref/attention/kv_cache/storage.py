"""Where do the keys and values of earlier tokens stay between two steps of decoding?

One object holds one layer. Every tensor is checked before the first write, so a call that raises
leaves the cache as it was. Leaves out: paging, quantised entries, reordering the batch.
Gradients: a cache is for inference. Under autograd a single chunk has its true gradients; to go
back through a chunk after which another was written, torch refuses (an in-place error) if the
backward pass needs the buffer itself, and not if it kept a copy, as in bfloat16.
"""

import torch
from torch import Tensor

from llmref._require import (
    require_float_dtype,
    require_in,
    require_int,
    require_shapes,
    require_size,
    require_tensor,
)


class KVCache:
    """Keys and values of every position so far, in one buffer that is allocated once.

    Shapes: keys and values are (B, G, max_len, D)
    Source: Pope et al. 2022, arXiv:2211.05102.
    Raises: ValueError if a size is below 1; TypeError if it is no int, or dtype not floating point.
    """

    def __init__(
        self,
        batch_size: int,
        num_kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        require_size(1, batch_size=batch_size, num_kv_heads=num_kv_heads)
        require_size(1, max_len=max_len, head_dim=head_dim)
        shape = (batch_size, num_kv_heads, max_len, head_dim)
        self._key, self._value = _buffers(shape, dtype, device)
        self.length = 0

    @property
    def max_len(self) -> int:
        """Positions that fit."""
        return self._key.shape[2]

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append a chunk and return everything held: views, valid until the next write.

        Shapes: key and value (B, G, t, D) -> (B, G, length, D) twice
        Raises: ValueError if the chunk does not fit or has other sizes or another device;
        TypeError for another dtype. The cache is then unchanged.
        """
        _check_chunk(self._key, key, value)
        start, stop = self.length, self.length + key.shape[2]
        if stop > self.max_len:
            raise ValueError(
                f"the cache holds {start} of {self.max_len} positions: "
                f"{key.shape[2]} more do not fit"
            )
        self._key[:, :, start:stop] = key
        self._value[:, :, start:stop] = value
        self.length = stop
        return self._key[:, :, :stop], self._value[:, :, :stop]  # eq. eq-cache-row

    def truncate(self, length: int) -> None:
        """Forget every position from `length` on: what a rejected draft needs.

        Raises: ValueError if more positions are asked for than are held, or fewer than none;
        TypeError unless length is an int.
        """
        require_int(length=length)
        require_in(f"[0, {self.length}]", length=length)
        self.length = length

    def nbytes(self) -> int:
        """Bytes allocated, used or not."""
        return self._key.nbytes + self._value.nbytes


class SlidingWindowKVCache:
    """The last window + max_chunk - 1 positions, in a ring: position p lies in slot p mod size.

    It has no truncate: once the ring has wrapped, what a write replaced is gone.
    Shapes: keys and values are (B, G, window + max_chunk - 1, D)
    Source: Jiang et al. 2023, arXiv:2310.06825, section 2 (a ring of window slots).
    Differs: max_chunk - 1 slots more, because a chunk is written before its queries read.
    Raises: ValueError if a size is below 1; TypeError if it is no int, or dtype not floating point.
    """

    def __init__(
        self,
        batch_size: int,
        num_kv_heads: int,
        window: int,
        head_dim: int,
        *,
        max_chunk: int = 1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        require_size(1, hint=": it counts the token itself", window=window)
        require_size(1, max_chunk=max_chunk, batch_size=batch_size)
        require_size(1, num_kv_heads=num_kv_heads, head_dim=head_dim)
        self.window, self.max_chunk = window, max_chunk
        shape = (batch_size, num_kv_heads, window + max_chunk - 1, head_dim)  # eq. eq-cache-ring
        self._key, self._value = _buffers(shape, dtype, device)
        self.length = 0

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write a chunk and return keys, values and the position of each: slot order, not time.

        A returned key may be older than the window of a query, or later than it: mask by position.
        Shapes: key and value (B, G, t, D) -> (B, G, n, D) twice and (n,), n <= window + max_chunk -
        1; views, valid until the next write
        Raises: ValueError if the chunk is longer than max_chunk or has other sizes or another
        device; TypeError for another dtype. The cache is then unchanged.
        """
        _check_chunk(self._key, key, value)
        if key.shape[2] > self.max_chunk:
            raise ValueError(
                f"a chunk may have max_chunk = {self.max_chunk} positions, got {key.shape[2]}: "
                "a longer one replaces keys that its first queries need"
            )
        size = self._key.shape[2]
        length = self.length + key.shape[2]
        slots = torch.arange(self.length, length, device=key.device) % size
        self._key[:, :, slots] = key
        self._value[:, :, slots] = value
        self.length = length
        filled = min(length, size)
        slot = torch.arange(filled, device=key.device)
        positions = slot + (length - 1 - slot) // size * size  # the latest position in each slot
        return self._key[:, :, :filled], self._value[:, :, :filled], positions

    def nbytes(self) -> int:
        """Bytes allocated: they do not grow with the text."""
        return self._key.nbytes + self._value.nbytes


def _buffers(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Tensor, Tensor]:
    dtype = torch.get_default_dtype() if dtype is None else dtype
    require_float_dtype(dtype=dtype)
    return torch.zeros(shape, dtype=dtype, device=device), torch.zeros(
        shape, dtype=dtype, device=device
    )


def _check_chunk(buffer: Tensor, key: Tensor, value: Tensor) -> None:
    require_tensor(key=key, value=value)
    axes = "buffer (B, G, _, D), key (B, G, t, D), value (B, G, t, D)"
    require_shapes(axes, buffer=buffer, key=key, value=value)
    for name, x in (("key", key), ("value", value)):
        if x.dtype != buffer.dtype:
            raise TypeError(f"{name} must be {buffer.dtype} as the cache is, got {x.dtype}")
        if x.device != buffer.device:
            raise ValueError(f"{name} must be on {buffer.device} as the cache is, got {x.device}")
