"""How many parameters has a decoder, and with which spread are its writing matrices drawn?"""

import math

from llmref._require import require_positive, require_size
from llmref.attention.multi_head import attention_parameters
from llmref.components.swiglu import ffn_params


def decoder_parameters(
    vocab_size: int,
    dim: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    hidden_dim: int,
    *,
    tied: bool,
    qk_norm: bool = False,
    qkv_bias: bool = False,
) -> int:
    """Entries of all weights, each counted once: a tied head is the embedding.

    V = 10, C = 4, L = 1, H = 2, G = 1, D = 2, F = 3, tied: 40 + (48 + 36 + 8) + 4 = 136.
    Shapes: integers -> an integer
    Source: by counting.
    Raises: ValueError if a size is below 1 or num_kv_heads does not divide num_heads; TypeError
    unless the sizes are ints.
    """
    require_size(1, vocab_size=vocab_size, dim=dim, num_layers=num_layers, head_dim=head_dim)
    attention = attention_parameters(dim, num_heads, head_dim=head_dim, num_kv_heads=num_kv_heads)
    layer = attention + ffn_params(dim, hidden_dim, gated=True) + 2 * dim
    layer += 2 * head_dim if qk_norm else 0
    layer += (num_heads + 2 * num_kv_heads) * head_dim if qkv_bias else 0
    # eq. eq-decoder-parameters
    return vocab_size * dim * (1 if tied else 2) + num_layers * layer + dim


def residual_init_std(std: float, num_layers: int) -> float:
    """The spread of o_proj and down_proj that makes the growth of the stream independent of depth.

    residual_init_std(0.02, 8) = 0.02 / sqrt(16) = 0.005: each layer writes twice.
    Shapes: numbers.
    Source: Radford et al. 2019 (GPT-2), section 2.3, which counts residual layers.
    Raises: ValueError if std is not positive and finite, or num_layers is below 1; TypeError unless
    num_layers is an int.
    """
    require_positive(std=std)
    require_size(1, num_layers=num_layers)
    return std / math.sqrt(2 * num_layers)  # eq. eq-decoder-init
