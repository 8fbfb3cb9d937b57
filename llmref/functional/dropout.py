"""Which moments does dropout keep, and which not?

Leaves out: evaluation, where dropout is left out altogether; whole channels or layers; and how a
checkpointed forward pass finds the same mask again, which is to keep the generator's state.
"""

import torch
from torch import Tensor

from llmref._numeric import widen
from llmref._require import require_in, require_number, require_shapes, require_tensor


def dropout(
    x: Tensor, *, p: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Set each entry to 0 with probability p, divide the others by 1 - p; return the mask too.

    For training; in evaluation do not call it. Entries are kept where a uniform number from [0, 1)
    is p or more: of float64 whatever x is, so a seed gives one mask for every dtype.
    Shapes: x (...) -> (...), and a boolean (...), True where x is kept
    Source: Srivastava et al. 2014, Journal of Machine Learning Research 15(56).
    Differs: the paper leaves training as it is and scales the weights in evaluation. A dropped
    infinity or NaN is 0; torch 2.13 multiplies it by 0, which is NaN.
    Raises: TypeError unless x is floating point; ValueError for p outside [0, 1).
    """
    wide = widen(x)
    _require_p(p)
    uniform = torch.rand(x.shape, generator=generator, dtype=torch.float64, device=x.device)
    mask = uniform >= p
    return torch.where(mask, wide / (1 - p), 0.0).to(x.dtype), mask  # eq. eq-dropout


def dropout_backward(grad_output: Tensor, mask: Tensor, *, p: float) -> Tensor:
    """Gradient of the input: that of the output through the very mask of the forward pass.

    Shapes: grad_output (...), mask (...), boolean -> (...)
    Source: the derivative of eq. eq-dropout with the mask held.
    Raises: TypeError unless grad_output is floating point and mask boolean; ValueError if their
    shapes differ, or for p outside [0, 1).
    """
    wide = widen(grad_output, "grad_output")
    _require_p(p)
    require_tensor(mask=mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, got {mask.dtype}")
    require_shapes("mask (...), grad_output (...)", mask=mask, grad_output=grad_output)
    return torch.where(mask, wide / (1 - p), 0.0).to(grad_output.dtype)  # eq. eq-dropout-backward


def _require_p(p: float) -> None:
    """Of p = 1 nothing would be left, and 1 / (1 - p) is infinite."""
    require_number(p=p)
    require_in("[0, 1)", p=p, hint=": it is the probability to drop, not to keep")
