"""Which inputs can an output depend on, after several layers under one mask?

Leaves out: by how much. What can be reached is an upper bound on what has influence.
"""

import torch
from torch import Tensor

from llmref._require import boolean_mask, require_shapes, require_size, require_tensor


def receptive_field(num_layers: int, window: int) -> int:
    """Tokens that the last output can depend on, itself included: L (W - 1) + 1.

    Four layers with a window of 5: 4 * 4 + 1 = 17.
    Shapes: integers -> an integer
    Source: Beltagy et al. 2020, arXiv:2004.05150, for stacked windows.
    Differs: Jiang et al. 2023, arXiv:2310.06825, count L W, with W tokens before the query's own.
    Raises: ValueError if num_layers < 0 or window < 1; TypeError unless both are ints.
    """
    require_size(0, num_layers=num_layers)
    require_size(1, window=window)
    return num_layers * (window - 1) + 1  # eq. eq-mask-receptive-field


def dependency_matrix(mask: Tensor, num_layers: int) -> Tensor:
    """Whether output i can depend on input j after that many layers with residual connections.

    Shapes: mask (..., T, T) -> (..., T, T), bool
    Source: the Boolean matrix power (I or M)^L.
    Raises: ValueError if the mask is not square, holds anything but 0 and 1, or num_layers < 0;
    TypeError unless that is an int.
    """
    require_size(0, num_layers=num_layers)
    require_tensor(mask=mask)
    require_shapes("mask (..., T, T)", mask=mask)
    identity = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    step = boolean_mask(mask) | identity  # the residual connection lets every token see itself
    reach = identity.expand_as(step)
    for _ in range(num_layers):
        wider = reach.double() @ step.double() > 0  # eq. eq-mask-reach; the counts are exact
        if wider.equal(reach):  # further layers add nothing
            break
        reach = wider
    return reach
