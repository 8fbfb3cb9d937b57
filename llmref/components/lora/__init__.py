"""What does a low-rank adapter compute, how is it scaled, and when is merging it exact?

factors: the two matrices and their gradients. layer: an adapter around a linear layer.
adapter_config: which layers a file of peft adapts, and how. peft: the tensors of that file. Leaves
out: adapters of embeddings and convolutions, quantised bases, and how the rank is chosen.
"""

from llmref.components.lora.adapter_config import (
    PeftLoraConfig,
    add_peft_adapters,
    read_peft_config,
)
from llmref.components.lora.factors import (
    lora_backward,
    lora_delta,
    lora_param_count,
    lora_scaling,
)
from llmref.components.lora.layer import (
    LoRALinear,
)
from llmref.components.lora.peft import (
    load_peft_state_dict,
    peft_adapter_config,
    peft_state_dict,
)

__all__ = [
    "LoRALinear",
    "PeftLoraConfig",
    "add_peft_adapters",
    "load_peft_state_dict",
    "lora_backward",
    "lora_delta",
    "lora_param_count",
    "lora_scaling",
    "peft_adapter_config",
    "peft_state_dict",
    "read_peft_config",
]
