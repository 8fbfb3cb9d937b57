"""How many floating-point operations does a linear layer take, forward and backward?

Leaves out: memory traffic, the optimiser's step, and what surrounds the layer.
"""

from typing import Literal

from llmref._require import require_choice, require_size

Convention = Literal["mac2", "exact"]


def linear_flops(
    tokens: int,
    in_features: int,
    out_features: int,
    *,
    bias: bool = False,
    backward: bool = False,
    input_grad: bool = True,
    convention: Convention = "mac2",
) -> int:
    """Operations of the forward pass or, with backward, of the backward pass alone.

    2 tokens, 3 in, 5 out: mac2 60 forward and 120 backward; exact 2 * 5 * (2 * 3 - 1) = 50 forward.
    'mac2' counts 2 for each multiply-add of a matrix product and nothing for the bias; 'exact'
    counts the multiplications and additions of the naive loops. Without input_grad (a first layer)
    the gradient of the input is not counted.
    Shapes: integers -> an integer
    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1, for mac2.
    Raises: ValueError if a size is below 1 or the convention is unknown; TypeError unless the sizes
    are ints.
    """
    m, k, n = tokens, in_features, out_features
    require_size(1, tokens=tokens, in_features=in_features, out_features=out_features)
    require_choice(Convention, convention=convention)
    if convention == "mac2":
        products = 1 + input_grad if backward else 1
        return 2 * m * n * k * products
    if not backward:
        return m * n * (2 * k - 1) + (m * n if bias else 0)  # eq. eq-linear-flops
    grad_input = m * k * (2 * n - 1) if input_grad else 0
    grad_bias = n * (m - 1) if bias else 0
    return grad_input + n * k * (2 * m - 1) + grad_bias  # eq. eq-linear-flops
