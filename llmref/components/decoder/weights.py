"""How do the weights of a model of transformers get into a decoder, all of them or none?

Leaves out: reading files (safetensors does that), quantised weights, fused projections.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from llmref._require import require_finite, require_floating
from llmref.components.decoder.model import Decoder

_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"


def load_transformers(decoder: Decoder, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of a Llama, Qwen2, Qwen3 or Mistral of transformers, by their names.

    Names may have the prefix `model.` or not. A tied decoder also takes an lm_head.weight that
    equals the embedding, as state_dict() has it; saved files have none.
    Shapes: state maps names to tensors of the decoder's shapes
    Source: the names are those of transformers.
    Raises: ValueError that names the tensor if one is missing, unknown, given twice, of another
    shape, not finite in the dtype of the decoder, or a head that differs from the embedding of a
    tied decoder; TypeError if one is not floating point. The decoder is then unchanged.
    """
    given = _without_prefix(state)
    own = dict(decoder.named_parameters())
    if decoder.lm_head is None:
        _drop_tied_head(given)
    for name in own:
        if name not in given:
            hint = ": a checkpoint without it is of a tied decoder" if name == _HEAD else ""
            raise ValueError(f"{name} is missing{hint}")
    for name in given:
        if name not in own:
            raise ValueError(f"{name} is no weight of this decoder")
    copies = {name: _fitting(name, given[name], own[name]) for name in own}
    with torch.no_grad():
        for name, tensor in copies.items():
            own[name].copy_(tensor)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    given: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = name.removeprefix("model.")
        if short in given:
            raise ValueError(f"{short} is given twice, with and without the prefix model.")
        given[short] = tensor
    return given


def _drop_tied_head(given: dict[str, Tensor]) -> None:
    head = given.pop(_HEAD, None)
    if head is not None and _EMBEDDING in given and not torch.equal(head, given[_EMBEDDING]):
        raise ValueError(
            f"{_HEAD} differs from {_EMBEDDING}, and the decoder is tied: its checkpoint is not"
        )


def _fitting(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """A copy in the dtype of the decoder: a checkpoint may be made of the decoder's own tensors."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    require_floating(**{name: tensor})
    if tensor.shape != own.shape:
        raise ValueError(f"{name} must be {tuple(own.shape)}, got {tuple(tensor.shape)}")
    if tensor.is_meta or own.is_meta:
        raise ValueError(f"{name} is on the meta device, which holds no numbers")
    copied = tensor.detach().to(own.dtype, copy=True)
    require_finite(f" in {own.dtype}", **{name: copied})
    return copied
