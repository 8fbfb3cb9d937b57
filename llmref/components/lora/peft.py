"""Adapters under the names of peft: what its file holds, and the configuration beside it.

Leaves out: files (safetensors and JSON); reading adapter_config.json, so also its rank_pattern
and alpha_pattern; DoRA, biases, embeddings and modules_to_save; several adapters at once.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llmref.components.lora.layer import LoRALinear

_PREFIX = "base_model.model."


def peft_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The factors of all adapters of a model, under the keys of peft's adapter_model.safetensors.

    A layer at `layers.0.q` gives base_model.model.layers.0.q.lora_A.weight and ...lora_B.weight,
    stored as here: A (r, in), B (out, r).
    Shapes: -> tensors (r, in) and (out, r), copies
    Source: a convention of peft.
    Raises: ValueError if the model holds no adapter, is one itself and so has no name, or has one
    under two names, of which a file could hold but one.
    """
    return {
        key: factor.detach().clone().contiguous()
        for name, layer in _adapters(model).items()
        for key, factor in _named_factors(name, layer).items()
    }


@torch.no_grad()
def load_peft_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy factors saved by peft into the adapters of a model; the file has no scale.

    Rank and scale come from adapter_config.json, for each layer also from its rank_pattern and
    alpha_pattern: build the adapters with them first. No check can see a wrong scale here.
    Shapes: as peft_state_dict
    Source: a convention of peft.
    Raises: as peft_state_dict; ValueError if a layer is merged, a key is missing or left over, or
    a shape differs, or a factor is not exact in the dtype of its layer. Nothing is copied then.
    """
    layers = _adapters(model)
    merged = [name for name, layer in layers.items() if layer.merged]
    if merged:
        raise ValueError(f"unmerge before loading, merged are {merged}")
    factors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        factors.update(_named_factors(name, layer))
    if factors.keys() != state.keys():
        missing, extra = (
            sorted(factors.keys() - state.keys()),
            sorted(state.keys() - factors.keys()),
        )
        raise ValueError(f"keys must be those of the adapters: missing {missing}, extra {extra}")
    for key, factor in factors.items():
        if factor.shape != state[key].shape:
            raise ValueError(f"{key} must be {(*factor.shape,)}, got {(*state[key].shape,)}")
        saved = state[key].to(factor.device)
        if not torch.equal(saved.to(factor.dtype).to(saved.dtype), saved):
            raise ValueError(
                f"{key} in {saved.dtype} must be exact in the {factor.dtype} of its layer"
            )
    for key, factor in factors.items():
        factor.copy_(state[key])


def peft_adapter_config(model: nn.Module) -> dict[str, object]:
    """What peft's adapter_config.json must say for these factors to mean the same.

    Shapes: -> a dictionary for json.dump
    Source: peft.LoraConfig, whose names are used.
    Raises: as peft_state_dict; ValueError unless all adapters share rank, alpha, scale and dropout.
    """
    layers = _adapters(model)
    kinds = {(x.r, x.alpha, x.dropout.p, x.rank_stabilized) for x in layers.values()}
    if len(kinds) > 1:
        raise ValueError(f"adapters must share (r, alpha, dropout, rsLoRA), got {sorted(kinds)}")
    (r, alpha, dropout, rank_stabilized) = kinds.pop()
    return {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rank_stabilized,
        "bias": "none",
        # A pattern is matched in full; in a list of names `q` would also stand for `layers.0.q`.
        "target_modules": "|".join(re.escape(name) for name in layers),
    }


def _adapters(model: nn.Module) -> dict[str, LoRALinear]:
    named = model.named_modules(remove_duplicate=False)
    layers = {n: m for n, m in named if isinstance(m, LoRALinear)}
    if len(set(layers.values())) < len(layers):
        raise ValueError(f"each adapter must have one name, got one under several: {list(layers)}")
    if not layers or "" in layers:
        raise ValueError(
            f"needs a model with LoRALinear inside, under a name, got {type(model).__name__}"
        )
    return layers


def _named_factors(name: str, layer: LoRALinear) -> dict[str, Tensor]:
    return {
        f"{_PREFIX}{name}.lora_A.weight": layer.lora_A,
        f"{_PREFIX}{name}.lora_B.weight": layer.lora_B,
    }
