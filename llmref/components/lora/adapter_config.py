"""Which layers does an adapter_config.json of peft adapt, with which rank and alpha?

Leaves out: what the reader refuses by name; the tensors of the adapter (see peft).
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from llmref._require import (
    require_floating,
    require_in,
    require_number,
    require_positive,
    require_size,
)
from llmref.components.lora.factors import lora_scaling
from llmref.components.lora.layer import LoRALinear

# What describes the file or its training, and changes no output of a saved adapter.
_SILENT = {
    *("auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode"),
    *("peft_version", "megatron_core", "qalora_group_size", "runtime_config"),
}
_CHOICES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
_HINTS = {
    "peft_type": "",
    "bias": ": the trained biases would be lost",
    "init_lora_weights": ": the start of such an adapter may change the base weights too",
}
_LISTS = (
    *("target_modules", "exclude_modules", "modules_to_save"),
    *("layers_to_transform", "layers_pattern"),
)


@dataclass(frozen=True)
class PeftLoraConfig:
    """What an adapter_config.json says of the layers of a model; made by read_peft_config.

    A name is that of a module in the base model, such as model.layers.0.self_attn.q_proj.
    Source: peft 0.21.2, whose names are used, and whose way to match names.
    Raises: as read_peft_config for these values.
    """

    r: int
    lora_alpha: float
    target_modules: str | tuple[str, ...]
    lora_dropout: float = 0.0
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    exclude_modules: str | tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def rank(self, name: str) -> int:
        """The rank of a layer: that of the first pattern which matches the end of its name, or r.

        A pattern is a regular expression for whole parts of the name: k_proj and 0.k_proj match
        layers.0.k_proj, proj does not. One that matches no layer is ignored. The order is that of
        the file, in which peft sorts them.
        """
        return int(_of_pattern(self.rank_pattern, name, self.r))

    def alpha(self, name: str) -> float:
        """The alpha of a layer, from alpha_pattern as the rank."""
        return _of_pattern(self.alpha_pattern, name, self.lora_alpha)

    def scaling(self, name: str) -> float:
        """The factor of the update of a layer, from its own rank and alpha; as lora_scaling."""
        return lora_scaling(self.alpha(name), self.rank(name), rank_stabilized=self.use_rslora)

    def is_target(self, name: str) -> bool:
        """Whether the module of this name is adapted.

        A string is a regular expression for the whole name; of a list, each is a name or its last
        parts. Excluded names and what lies in saved modules are not.
        """
        saved = any(re.match(rf"(^|.*\.){m}($|\..*)", name) for m in self.modules_to_save)
        if saved or _matches(self.exclude_modules, name):
            return False
        if name in self.target_modules and not isinstance(self.target_modules, str):
            return True  # a whole name is taken in spite of layers_to_transform
        return _matches(self.target_modules, name) and self._in_layers(name)

    def is_saved(self, name: str) -> bool:
        """Whether the file holds the whole module of this name: its name ends as one of those.

        Plain endings of the text, as in peft: `head` stands for lm_head too.
        """
        return any(name.endswith(module) for module in self.modules_to_save)

    def _in_layers(self, name: str) -> bool:
        if not self.layers_to_transform:
            return True
        # The first number behind one of the given names, or behind any name that is not the first.
        behind = [rf"(?:^|.*?\.){p}" for p in self.layers_pattern] or [r".*?\.[^.]*"]
        found = (re.match(rf"{part}\.(\d+)\.", name) for part in behind)
        return next((int(m[1]) in self.layers_to_transform for m in found if m), False)


def read_peft_config(source: Mapping[str, object] | str | os.PathLike[str]) -> PeftLoraConfig:
    """What an adapter_config.json says; anything that llmref does not compute is refused by name.

    `source` is the file, or the mapping that json.load makes of it. An option that is unknown here
    passes only if it is off: null, false or empty.
    Shapes: none
    Source: peft.LoraConfig of peft 0.21.2; missing keys have its defaults, r = lora_alpha = 8.
    Raises: OSError or ValueError of a file that is not there or no JSON; TypeError unless each r is
    an int and each alpha a number; ValueError for another kind of adapter, an option or a start
    that is not supported, a pattern that is no regular expression, or a value outside its range.
    """
    if isinstance(source, Mapping):
        given = dict(source)
    else:
        given = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(given, dict):
        raise TypeError(f"adapter_config.json must hold an object, got {type(given).__name__}")
    for key, choices in _CHOICES.items():
        value = given.pop(key, choices[0])
        if value not in choices:
            raise ValueError(f"{key} must be one of {list(choices)}, got {value!r}{_HINTS[key]}")
    known = {field.name for field in fields(PeftLoraConfig)}
    for key, value in given.items():
        if key not in known | _SILENT and value:
            raise ValueError(f"{key} must be off, llmref computes no such adapter, got {value!r}")
    values: dict[str, Any] = {"r": 8, "lora_alpha": 8, "target_modules": ()}
    values |= {key: given[key] for key in known if given.get(key) is not None}
    if isinstance(values.get("layers_to_transform"), int):
        values["layers_to_transform"] = [values["layers_to_transform"]]
    if isinstance(values.get("layers_pattern"), str):
        values["layers_pattern"] = [values["layers_pattern"]]
    for key in _LISTS:  # a string stays a regular expression
        if not isinstance(values.get(key, ""), str):
            values[key] = tuple(values[key])
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(values.get(key, {}), Mapping):
            raise TypeError(f"{key} must map patterns to values, got {values[key]!r}")
    return PeftLoraConfig(**values)


def add_peft_adapters(model: nn.Module, config: PeftLoraConfig) -> list[str]:
    """Wrap each layer that the configuration names, with its own rank and alpha, in place.

    The adapters are new, so the model's output stays as it was until load_peft_state_dict. What is
    not wrapped stays trainable if it was. Names are returned in the order of the model.
    Shapes: -> the names of the wrapped layers
    Source: peft.get_peft_model.
    Differs: layers other than nn.Linear are refused, Conv1D and embeddings among them.
    Raises: TypeError for such a layer; ValueError if the model holds an adapter, or no name
    matches, or a layer has two names. Nothing is wrapped then.
    """
    named = list(model.named_modules(remove_duplicate=False))
    adapters = [name for name, module in named if isinstance(module, LoRALinear)]
    if adapters:
        raise ValueError(f"the model must hold no adapter, got {adapters}")
    targets = {name: module for name, module in named if name and config.is_target(name)}
    if not targets:
        raise ValueError(f"target_modules must match a layer, got {config.target_modules!r}")
    if len(set(targets.values())) < len(targets):
        raise ValueError(f"each layer must have one name, got one under several: {list(targets)}")
    linear = {name: module for name, module in targets.items() if isinstance(module, nn.Linear)}
    for name, module in targets.items():
        if name not in linear:
            raise TypeError(f"{name} must be an nn.Linear, got {type(module).__name__}")
        require_floating(**{f"{name}.weight": linear[name].weight})
    for name, module in linear.items():
        layer = LoRALinear(
            module,
            config.rank(name),
            config.alpha(name),
            dropout=config.lora_dropout,
            rank_stabilized=config.use_rslora,
        )
        layer.train(module.training)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return list(targets)


def _of_pattern(patterns: Mapping[str, float], name: str, otherwise: float) -> float:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return otherwise


def _matches(modules: str | tuple[str, ...], name: str) -> bool:
    if isinstance(modules, str):
        return re.fullmatch(modules, name) is not None
    return any(name == module or name.endswith(f".{module}") for module in modules)


def _check(config: PeftLoraConfig) -> None:
    targets = config.target_modules
    if not targets or targets == "all-linear":
        raise ValueError(
            "target_modules must be names or a regular expression, as peft saves them, "
            f"got {targets!r}"
        )
    if isinstance(targets, str) and (config.layers_to_transform or config.layers_pattern):
        raise ValueError("layers_to_transform needs a list of target_modules, got a string")
    if config.layers_pattern and not config.layers_to_transform:
        raise ValueError(f"layers_pattern needs layers_to_transform, got {config.layers_pattern}")
    alphas: dict[str, Any] = {f"alpha_pattern[{p!r}]": a for p, a in config.alpha_pattern.items()}
    require_number(lora_dropout=config.lora_dropout, lora_alpha=config.lora_alpha, **alphas)
    require_in("[0, 1)", lora_dropout=config.lora_dropout)
    require_size(1, r=config.r)
    require_positive(lora_alpha=config.lora_alpha)
    ranks: dict[str, Any] = {f"rank_pattern[{p!r}]": r for p, r in config.rank_pattern.items()}
    require_size(1, **ranks)
    require_positive(**alphas)
    patterns = [*config.rank_pattern, *config.alpha_pattern, *config.layers_pattern]
    strings = [text for text in (targets, config.exclude_modules) if isinstance(text, str)]
    for pattern in (*patterns, *strings, *config.modules_to_save):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} must be a regular expression: {error}") from error
