"""Adapters under the names of peft: what its file holds, and the configuration beside it.

Leaves out: the file of tensors (safetensors); DoRA, biases and adapters of embeddings; writing
modules_to_save; several adapters at once.
"""

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llmref._require import require_floating
from llmref.components.lora.adapter_config import PeftLoraConfig
from llmref.components.lora.layer import LoRALinear

_PREFIX = "base_model.model."
_EMBEDDINGS = ("embed_tokens", "lm_head")  # what peft takes for the two ends of a model


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
def load_peft_state_dict(
    model: nn.Module, state: Mapping[str, Tensor], config: PeftLoraConfig | None = None
) -> None:
    """Copy what peft saved into the adapters of a model, and put its saved modules in place.

    The tensors do not tell the scale: without config no check can see a wrong one. With it, rank
    and scale of each adapter must be those of the file, and the file's copies of the modules in
    modules_to_save replace those of the model; a weight that such a module shared is shared no
    more. The base of an adapted layer and, beside config, the embeddings may be in the file too,
    as peft writes them for an lm_head and for a resized vocabulary.
    Shapes: as peft_state_dict; base and modules as in the model
    Source: a convention of peft.
    Differs: peft rounds to the dtype of the layer in silence, and overlooks keys.
    Raises: as peft_state_dict; ValueError if a layer is merged or has another rank or scale than
    config says, a key is missing or left over, or a shape differs, or a tensor is not exact in the
    dtype of its layer. Nothing is copied then.
    """
    layers = _adapters(model)
    merged = [name for name, layer in layers.items() if layer.merged]
    if merged:
        raise ValueError(f"unmerge before loading, merged are {merged}")
    needed: dict[str, Tensor] = {}
    optional: dict[str, Tensor] = {}
    for name, layer in layers.items():
        needed.update(_named_factors(name, layer))
        optional |= {f"{_PREFIX}{name}.base_layer.{k}": v for k, v in layer.base.named_parameters()}
    whole: dict[str, Tensor] = {}
    if config is not None:
        _check_scales(layers, config)
        for name, module in model.named_modules(remove_duplicate=False):
            entries = {f"{_PREFIX}{name}.{k}": v for k, v in module.state_dict().items()}
            if config.is_saved(name):
                whole |= entries
            elif name.endswith(_EMBEDDINGS) and not isinstance(module, LoRALinear):
                optional |= entries
    needed |= whole
    missing = sorted(needed.keys() - state.keys())
    extra = sorted(state.keys() - needed.keys() - optional.keys())
    if missing or extra:
        hint = "; modules_to_save are known from config" if extra and config is None else ""
        raise ValueError(
            f"keys must be those of the adapters: missing {missing}, extra {extra}{hint}"
        )
    found = {key: tensor for key, tensor in (optional | needed).items() if key in state}
    for key, tensor in found.items():
        _check_fits(key, state[key], tensor)
    for key, tensor in found.items():
        if key in whole:
            _replace(model, key.removeprefix(_PREFIX), state[key])
        else:
            tensor.copy_(state[key])


def peft_adapter_config(model: nn.Module) -> dict[str, object]:
    """What peft's adapter_config.json must say for these factors to mean the same.

    r and lora_alpha are the most frequent ones; rank_pattern and alpha_pattern name the layers
    that have others.
    Shapes: -> a dictionary for json.dump
    Source: peft.LoraConfig, whose names are used.
    Raises: as peft_state_dict; ValueError unless all adapters share dropout and kind of scale, for
    which the file has one place.
    """
    layers = _adapters(model)
    kinds = {(x.dropout.p, x.rank_stabilized) for x in layers.values()}
    if len(kinds) > 1:
        raise ValueError(f"adapters must share (dropout, rsLoRA), got {sorted(kinds)}")
    (dropout, rank_stabilized) = kinds.pop()
    ((r, alpha), _), *_ = Counter((x.r, x.alpha) for x in layers.values()).most_common()
    # Without ^ the pattern of layers.0.q would also match decoder.layers.0.q.
    anchored = {f"^{re.escape(name)}": layer for name, layer in layers.items()}
    return {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {name: x.r for name, x in anchored.items() if x.r != r},
        "alpha_pattern": {name: x.alpha for name, x in anchored.items() if x.alpha != alpha},
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


def _check_scales(layers: Mapping[str, LoRALinear], config: PeftLoraConfig) -> None:
    for name, layer in layers.items():
        seen, said = (layer.r, layer.scaling), (config.rank(name), config.scaling(name))
        if seen != said:
            raise ValueError(f"{name} must have the (rank, scale) {said} of config, got {seen}")


def _check_fits(key: str, saved: Tensor, tensor: Tensor) -> None:
    require_floating(**{key: saved})
    if tensor.shape != saved.shape:
        raise ValueError(f"{key} must be {(*tensor.shape,)}, got {(*saved.shape,)}")
    if not torch.equal(saved.to(tensor.dtype).to(saved.dtype), saved):
        raise ValueError(f"{key} in {saved.dtype} must be exact in the {tensor.dtype} of its layer")


def _replace(model: nn.Module, name: str, saved: Tensor) -> None:
    """A new tensor in place of a parameter or buffer: others that share the old one keep it."""
    owner, _, entry = name.rpartition(".")
    module = model.get_submodule(owner)
    old = getattr(module, entry)
    new = saved.to(device=old.device, dtype=old.dtype, copy=True)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(module, entry, new)
