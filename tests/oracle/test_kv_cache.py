"""Cached decoding against transformers and torch, and the shapes of the models in the table."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from llmref.attention.kv_cache import (
    CachedAttention,
    KVCache,
    SlidingWindowKVCache,
    generate_greedy,
    kv_cache_bytes,
)
from tests.tensors import random

TOPIC = "attention/kv_cache"
B, H, G, D, T, V = 2, 6, 3, 4, 12, 31
F64 = torch.float64
# transformers forms the rotary angles in float32: 12 * 2^-24 radians, times values of a few units
ANGLES = 1e-6


def llama_config(layers=2, **options):
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=H * D,
        intermediate_size=20,
        num_hidden_layers=layers,
        num_attention_heads=H,
        num_key_value_heads=G,
        vocab_size=V,
        attn_implementation="sdpa",
        **options,
    )


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the default 0.02 makes attention nearly uniform
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model


def llama_attention(window=None):
    """A LlamaAttention (or a MistralAttention with a window), and ours with its weights."""
    if window is None:
        from transformers.models.llama.modeling_llama import LlamaAttention as Theirs
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding as Rotary

        config = llama_config()
    else:
        from transformers import MistralConfig
        from transformers.models.mistral.modeling_mistral import MistralAttention as Theirs
        from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding as Rotary

        config = MistralConfig(
            hidden_size=H * D,
            num_attention_heads=H,
            num_key_value_heads=G,
            sliding_window=window,
            attn_implementation="sdpa",
        )
    torch.manual_seed(0)
    theirs = Theirs(config, layer_idx=0).double().eval()
    ours = CachedAttention(H * D, H, G, window=window).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, Rotary(config), ours, config


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * T, [5, 1, 4, 2]])
def test_cached_layer_equals_llama_attention_with_its_dynamic_cache(agreement, sizes):
    from transformers import DynamicCache

    theirs, rotary, ours, config = llama_attention()
    x, cache, mine = (
        random(B, T, H * D),
        DynamicCache(config=config),
        KVCache(B, G, T, D, dtype=F64),
    )
    outputs, start = ([], []), 0
    for part in x.split(sizes, 1):
        stop = start + part.shape[1]
        positions = torch.arange(start, stop)[None]
        mask = torch.ones(stop - start, stop, dtype=torch.bool).tril(start)[None, None]
        out, _ = theirs(part, rotary(part, positions), mask, past_key_values=cache)
        outputs[0].append(out)
        outputs[1].append(ours(part, mine))
        start = stop
    agreement(
        "cached layer, steps and chunks",
        "transformers",
        torch.cat(outputs[1], 1),
        torch.cat(outputs[0], 1),
        atol=ANGLES,
        convention="LlamaAttention, DynamicCache; angles in float32",
    )
    keys, _ = mine.update(*(torch.zeros(B, G, 0, D, dtype=F64),) * 2)
    agreement(
        "cached keys",
        "transformers",
        keys,
        cache.layers[0].keys,
        atol=ANGLES,
        convention="DynamicCache: rotated before they are cached",
    )


@torch.no_grad()
def test_ring_equals_mistral_attention_with_its_sliding_window_layer(agreement):
    from transformers import DynamicCache

    window = 4
    theirs, rotary, ours, config = llama_attention(window)
    cache = DynamicCache(config=config)
    ring = SlidingWindowKVCache(B, G, window, D, max_chunk=3, dtype=F64)
    x, start, outputs = random(B, T, H * D), 0, ([], [])
    for part in x.split([3, 1, 1, 2, 3, 1, 1], 1):
        stop = start + part.shape[1]
        positions = torch.arange(start, stop)
        held = torch.arange(max(0, start - window + 1), stop)  # it keeps window - 1, then appends
        distance = positions[:, None] - held
        mask = ((distance >= 0) & (distance < window))[None, None]
        out, _ = theirs(part, rotary(part, positions[None]), mask, past_key_values=cache)
        outputs[0].append(out)
        outputs[1].append(ours(part, ring))
        start = stop
    agreement(
        "windowed layer, ring",
        "transformers",
        torch.cat(outputs[1], 1),
        torch.cat(outputs[0], 1),
        atol=ANGLES,
        convention="MistralAttention, DynamicCache with a sliding layer of window - 1 old keys",
    )


@torch.no_grad()
def test_a_llama_with_its_cache_equals_its_full_pass_up_to_rounding(llama):
    ids = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(0))
    full = llama(ids, use_cache=False).logits
    cache, parts = None, []
    for part in ids.split([5, 1, 4, 2], 1):
        out = llama(part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits)
    difference = (torch.cat(parts, 1) - full).abs().max()
    # The fp32 norm and angles of the model round alike in both passes, but not the products.
    assert difference < 1e-6
    assert full.abs().max() > 1e-2


@torch.no_grad()
def test_greedy_generation_equals_generate(agreement, llama):
    ids = torch.randint(3, V, (B, 5), generator=torch.Generator().manual_seed(1))

    def model(ids, cache=None):
        if cache is None:
            return llama(ids, use_cache=False).logits
        out = llama(ids, past_key_values=cache[0] if cache else None, use_cache=True)
        cache[:] = [out.past_key_values]
        return out.logits

    options = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
        "attention_mask": torch.ones_like(ids),
    }
    for use_cache in (True, False):
        theirs = llama.generate(ids, use_cache=use_cache, **options)
        ours = generate_greedy(model, ids, 6, use_cache=use_cache)
        convention = "generate(do_sample=False), with and without its cache"
        agreement("greedy generation", "transformers", ours, theirs, atol=0, convention=convention)


@torch.no_grad()
def test_a_decoding_step_equals_sdpa_of_torch_with_the_lower_right_mask(agreement):
    from torch.nn.attention.bias import causal_lower_right

    from llmref.attention.grouped_query import grouped_query_attention

    cache = KVCache(B, G, T, D, dtype=F64)
    cache.update(random(B, G, 9, D, seed=1), random(B, G, 9, D, seed=2))
    key, value = cache.update(random(B, G, 3, D, seed=3), random(B, G, 3, D, seed=4))
    query = random(B, H, 3, D, seed=5)
    theirs = F.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), causal_lower_right(3, T)
    )
    ours = grouped_query_attention(query, key, value, is_causal=True)
    agreement(
        "chunk of 3 after 9 cached",
        "torch",
        ours,
        theirs,
        atol=1e-12,
        convention="causal_lower_right; is_causal=True of torch would align at the upper left",
    )


@torch.no_grad()
def test_static_cache_returns_its_unused_slots():
    """All slots come back, zeros after the last token: without a mask they attract weight."""
    from transformers import StaticCache

    cache = StaticCache(config=llama_config(layers=1), max_cache_len=T)
    key, value = random(B, G, 3, D), random(B, G, 3, D, seed=1)
    keys, _ = cache.update(key, value, 0, {"cache_position": torch.arange(3)})
    assert keys.shape == (B, G, T, D)
    assert torch.equal(keys[:, :, :3], key)
    assert not keys[:, :, 3:].any()


def test_bytes_equal_those_of_a_dynamic_cache(agreement, llama):
    from transformers import DynamicCache

    cache = DynamicCache(config=llama.config)
    with torch.no_grad():
        llama(torch.zeros(B, T, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    agreement(
        "bytes of the cache",
        "transformers",
        torch.tensor(kv_cache_bytes(2, G, D, T, B, 8)),
        torch.tensor(held),
        atol=0,
        convention="DynamicCache of a Llama: num_key_value_heads, not num_attention_heads",
    )


def test_default_configurations_have_the_shapes_of_the_table():
    """LlamaConfig() is Llama-2 7B and DeepseekV3Config() is DeepSeek-V3."""
    from transformers import DeepseekV3Config, LlamaConfig

    llama2 = LlamaConfig()
    assert (llama2.num_hidden_layers, llama2.num_key_value_heads) == (32, 32)
    assert llama2.hidden_size // llama2.num_attention_heads == 128
    deepseek = DeepseekV3Config()
    assert deepseek.num_hidden_layers == 61
    assert (deepseek.kv_lora_rank, deepseek.qk_rope_head_dim) == (512, 64)
