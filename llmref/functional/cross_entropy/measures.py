"""What is read off a loss: divergence, perplexity, bits per byte, the mean over micro-batches.

Leaves out: the loss of a position (see loss).
"""

import math

import torch
from torch import Tensor

from llmref._numeric import check_distribution, widen
from llmref._require import require_in, require_shapes


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, the mean of log(p / q) under p.

    p = (1/2, 1/2), q = (1/4, 3/4): log 2 - log(3) / 2. It is inf where q = 0 < p.
    Shapes: p (..., V), q (..., V) -> (...)
    Source: Kullback & Leibler 1951.
    Differs: float16 and bfloat16 give a float32.
    Raises: ValueError if the shapes differ or one is not a distribution; TypeError for integers.
    """
    require_shapes("p (...), q (...)", p=p, q=q)
    check_distribution(p, name="p")
    check_distribution(q, name="q")
    wide_p, wide_q = (widen(law) for law in (p, q))
    # 0 log 0 = 0: replaced before the logarithm, whose gradient there would be NaN.
    safe_p, safe_q = (torch.where(wide_p > 0, law, 1) for law in (wide_p, wide_q))
    far = (safe_q - safe_p).abs() > safe_p / 2  # elsewhere a difference of logarithms cancels
    change = (safe_q - safe_p).masked_fill(far, 0) / safe_p
    log_ratio = torch.where(far, safe_p.log() - safe_q.log(), -change.log1p())
    return (wide_p * log_ratio).sum(-1)  # eq. eq-kl


def perplexity(nll_sum: Tensor, n_tokens: int | Tensor) -> Tensor:
    """Inverse geometric mean of the probabilities: exp(nll_sum / n_tokens).

    Two tokens with probabilities 1/2 and 1/8: exp(log(16) / 2) = 4.
    Shapes: nll_sum (...), n_tokens scalar or (...) -> (...)
    Source: Jelinek et al. 1977.
    Differs: float16 and bfloat16 give a float32.
    Raises: TypeError unless nll_sum is floating point; ValueError if it is negative or NaN, or
    n_tokens is not positive or has another shape.
    """
    total = _cost(nll_sum)
    require_in("(0, inf]", n_tokens=n_tokens)
    if isinstance(n_tokens, Tensor) and n_tokens.ndim:
        require_shapes("nll_sum (...), n_tokens (...)", nll_sum=nll_sum, n_tokens=n_tokens)
    return (total / n_tokens).exp()  # eq. eq-perplexity


def bits_per_byte(nll_sum: Tensor, n_bytes: int) -> Tensor:
    """Cost of a text in bits for each of its bytes, whatever the tokenizer.

    One byte with probability 1/256: 8 bits.
    Shapes: nll_sum (...) -> (...)
    Source: Gao et al. 2020, arXiv:2101.00027.
    Differs: float16 and bfloat16 give a float32.
    Raises: TypeError unless nll_sum is floating point; ValueError if it is negative or NaN, or
    n_bytes is not positive.
    """
    total = _cost(nll_sum)
    require_in("(0, inf]", n_bytes=n_bytes)
    if isinstance(n_bytes, Tensor) and n_bytes.ndim:
        require_shapes("nll_sum (...), n_bytes (...)", nll_sum=nll_sum, n_bytes=n_bytes)
    return total / (math.log(2) * n_bytes)  # eq. eq-bits-per-byte


def combine_microbatches(loss_sums: Tensor, counts: Tensor) -> Tensor:
    """Mean loss over micro-batches: the sum of the sums over the sum of the counts.

    Sums (6, 5) over (3, 1) targets: 11/4. The mean of the means, 7/2, is not it.
    Shapes: loss_sums (K,), counts (K,) -> ()
    Source: arithmetic.
    Differs: float16 and bfloat16 give a float32.
    Raises: TypeError unless loss_sums is floating point; ValueError if the shapes differ, a sum is
    NaN, a count is negative, or all counts are 0.
    """
    require_shapes("loss_sums (...), counts (...)", loss_sums=loss_sums, counts=counts)
    total = widen(loss_sums, "loss_sums").sum()
    require_in("[-inf, inf]", loss_sums=loss_sums)
    require_in("[0, inf]", counts=counts)
    count = counts.to(torch.float64).sum()  # in 16 bits a sum of counts would be rounded
    if not count > 0:
        raise ValueError(f"counts must have a positive sum, got {counts.tolist()}")
    return total / count.to(total.dtype)  # eq. eq-microbatch


def _cost(nll_sum: Tensor) -> Tensor:
    """A sum of -log p, in float32 at least."""
    wide = widen(nll_sum, "nll_sum")
    require_in("[0, inf]", hint=": it is a sum of -log p", nll_sum=nll_sum)
    return wide
