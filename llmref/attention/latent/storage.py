"""Where do the latents of earlier tokens stay between two steps of decoding?

One object holds one layer. As the cache of keys and values: what raises leaves it as it was, and
it is for inference. Leaves out: paging, quantised entries, reordering the batch.
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


class LatentCache:
    """The latent and the rotated key part of every position so far, in a buffer allocated once.

    What is stored is what latent_attention takes: the latent *after* its norm, the key part *after*
    its rotation.
    Shapes: latents (B, max_len, Dc), key parts (B, max_len, Dr); Dr may be 0
    Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
    Raises: ValueError if rope_dim is negative or another size below 1; TypeError if it is no int,
    or dtype not floating point.
    """

    def __init__(
        self,
        batch_size: int,
        max_len: int,
        latent_dim: int,
        rope_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        require_size(1, batch_size=batch_size, max_len=max_len, latent_dim=latent_dim)
        require_size(0, rope_dim=rope_dim)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        require_float_dtype(dtype=dtype)
        self._latent = torch.zeros(batch_size, max_len, latent_dim, dtype=dtype, device=device)
        self._key_rope = torch.zeros(batch_size, max_len, rope_dim, dtype=dtype, device=device)
        self.length = 0

    @property
    def max_len(self) -> int:
        """Positions that fit."""
        return self._latent.shape[1]

    def update(self, latent: Tensor, key_rope: Tensor) -> tuple[Tensor, Tensor]:
        """Append a chunk and return everything held: views, valid until the next write.

        Shapes: latent (B, t, Dc), key_rope (B, t, Dr) -> (B, length, Dc), (B, length, Dr)
        Raises: ValueError if the chunk does not fit or has other sizes or another device;
        TypeError for another dtype. The cache is then unchanged.
        """
        require_tensor(latent=latent, key_rope=key_rope)
        axes = "cache (B, _, Dc), latent (B, t, Dc)"
        require_shapes(axes, cache=self._latent, latent=latent)
        axes = "latent (B, t, _), cache (_, _, Dr), key_rope (B, t, Dr)"
        require_shapes(axes, latent=latent, cache=self._key_rope, key_rope=key_rope)
        held = self._latent
        for name, x in (("latent", latent), ("key_rope", key_rope)):
            if x.dtype != held.dtype:
                raise TypeError(f"{name} must be {held.dtype} as the cache is, got {x.dtype}")
            if x.device != held.device:
                raise ValueError(f"{name} must be on {held.device} as the cache is, got {x.device}")
        start, stop = self.length, self.length + latent.shape[1]
        if stop > self.max_len:
            raise ValueError(
                f"the cache holds {start} of {self.max_len} positions: "
                f"{latent.shape[1]} more do not fit"
            )
        self._latent[:, start:stop] = latent
        self._key_rope[:, start:stop] = key_rope
        self.length = stop
        return self._latent[:, :stop], self._key_rope[:, :stop]

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
        return self._latent.nbytes + self._key_rope.nbytes  # eq. eq-mla-cache
