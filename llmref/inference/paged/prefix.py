"""Which blocks of an earlier text may a new prompt use again?"""

import hashlib
from collections.abc import Sequence

from llmref._require import require_int, require_size


def block_hashes(
    tokens: Sequence[int], block_size: int, *, extra: Sequence[str] = ()
) -> list[bytes]:
    """A key for each full block, which names all tokens up to its end.

    Two keys are equal if all of these tokens, block_size and `extra` are; otherwise they differ, as
    far as a hash of 128 bits can. `extra` names whatever else the layers see: weights, adapters,
    images; say of each what it is, as in "adapter=a". The keys are the same in every process, which
    Python's own hash of a text is not.
    Source: Kwon et al. 2023, arXiv:2309.06180, section 4.4 (sharing); the chain is a hash tree's.
    Raises: ValueError if a token is negative or not below 2^63, or block_size below 1; TypeError
    unless tokens are ints, and extra a sequence of texts and no text.
    """
    require_size(1, block_size=block_size)
    of_texts = isinstance(extra, Sequence) and all(isinstance(it, str) for it in extra)
    if isinstance(extra, str) or not of_texts:
        raise TypeError(f"extra must be a sequence of texts, got {extra!r}")
    texts = [text.encode(errors="surrogatepass") for text in extra]  # names of files may need it
    # With their lengths: ("a", "bc") is another thing than ("ab", "c").
    root = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    root += str(block_size).encode()
    numbers = [_number(token) for token in tokens]
    keys, parent = [], hashlib.blake2b(root, digest_size=16).digest()
    for end in range(block_size, len(numbers) + 1, block_size):
        block = b"".join(numbers[end - block_size : end])
        parent = hashlib.blake2b(parent + block, digest_size=16).digest()  # eq. eq-paged-hash
        keys.append(parent)
    return keys


def reusable_blocks(prompt_length: int, block_size: int) -> int:
    """Most whole blocks of a prompt that need not be computed: its last token must be.

    reusable_blocks(8, 4) = 1: the logits after token 7 come from running token 7.
    Source: the argument of its page; no logit is in a cache.
    Raises: ValueError if a size is below 1; TypeError unless both are ints.
    """
    require_size(1, prompt_length=prompt_length, block_size=block_size)
    return (prompt_length - 1) // block_size  # eq. eq-paged-hash


def _number(token: int) -> bytes:
    require_int(token=token)
    if not 0 <= token < 2**63:
        raise ValueError(f"a token must be in [0, 2^63), got {token}")
    return token.to_bytes(8, "little")
