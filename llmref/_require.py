"""What an argument must satisfy: each requirement once, its message with name, rule and value."""

from typing import get_args

from torch import Tensor


def require_floating(**tensors: Tensor) -> None:
    """Raise TypeError, with its name, for a tensor that is not floating point."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")


def require_constant(name: str, tensor: Tensor) -> None:
    """Raise ValueError if gradients would flow through a tensor that the derivation holds fixed."""
    if tensor.requires_grad:
        raise ValueError(f"{name} must not require grad: it is a constant here, detach it")


def require_choice(name: str, value: object, choices: object) -> None:
    """Raise ValueError unless `value` is one of the literals in `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")
