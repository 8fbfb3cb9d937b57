"""A valid call of each public function that takes no tensor, or a module beside it.

Not here: functions of tensors, whose calls are those of the laws.
"""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from llmref import attention, components, functional, inference, rl, training
from llmref.components.lora import PeftLoraConfig
from tests.laws.calls import Call, call

SHAPE = training.DecoderShape(2, 8, 4, 2, 2, 12, 10, tied=True)
WORDS = {(97, 98, 97, 98): 3, (98, 97): 2, (99,): 1}
MERGES = [(97, 98), (256, 99)]
TOKENS = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"abc": 257}
PEFT = {"r": 2, "lora_alpha": 4, "target_modules": ["q"], "rank_pattern": {"0.q": 3}}


def next_log_probs(tokens: Tensor) -> Tensor:
    """Five tokens, of which each prefers the one after the last."""
    last = tokens[:, -1:] if tokens.shape[1] else torch.zeros(len(tokens), 1)
    return -(torch.arange(5) - last - 1).abs().double().log_softmax(-1).abs()


def next_logits(ids: Tensor, cache: object = None) -> Tensor:
    """(B, t) -> (B, t, 5)."""
    return -(torch.arange(5) - ids[..., None] - 1).abs().double()


def decoder(**options: Any) -> components.Decoder:
    sizes = (11, 8, 2, 2, 1, 6)
    return components.Decoder(*sizes, rope_base=1e4, eps=1e-5, tied=False, max_len=9, **options)


def layers() -> nn.Module:
    """Two layers under names, that adapters can be put on."""
    return nn.ModuleDict({"q": nn.Linear(4, 3), "v": nn.Linear(4, 5)})


def adapted() -> nn.Module:
    model = layers()
    model["q"] = components.LoRALinear(model["q"], 2, 4.0)  # type: ignore[index, operator]
    return model


def of_attention() -> list[Call]:
    heads, square = attention.MultiHeadAttention(8, 2).double(), torch.eye(4).double()
    turned = torch.stack([square, square.flip(0)])
    return [
        call(attention.attention_flops, 2, 5, 7, 8, 4, head_dim=3, num_kv_heads=2, causal=False),
        call(attention.attention_pairs, 5, 3, cached=True),
        call(attention.attention_parameters, 8, 4, head_dim=3, num_kv_heads=2),
        call(attention.causal_mask, 5, 7, offset=1),
        call(attention.decode_intensity, 8, 2, 2),
        call(attention.empty_state, (2, 3), 4, dtype=torch.float64),
        call(attention.gauge_transform, heads, turned, 2 * turned),
        call(attention.generate_greedy, next_logits, torch.tensor([[1, 2]]), 3),
        call(attention.hbm_elements, 5, 7, 4, 6, 2),
        call(attention.kv_cache_bytes, 2, 3, 4, 5, 2, 2),
        call(attention.kv_head_index, 6, 3),
        call(attention.latent_attention_flops, 3, 4, 5, 6, 2, 7, 9),
        call(attention.linear_attention_flops, 7, 4, 5, 2),
        call(attention.receptive_field, 2, 3),
        call(attention.sliding_window_mask, 5, 7, window=3, offset=1),
        call(attention.standard_hbm_elements, 5, 7, 4, 6),
    ]


def of_components() -> list[Call]:
    state = {name: it.detach() for name, it in decoder().state_dict().items()}
    saved = components.peft_state_dict(adapted())
    config = PeftLoraConfig(2, 4.0, ("q",))
    return [
        call(components.activation_gain, "leaky_relu", 0.1),
        call(components.add_peft_adapters, layers(), config),
        call(components.alibi_effective_keys, 0.5),
        call(components.alibi_slopes, 6),
        call(components.apply_merges, [97, 98, 99], MERGES),
        call(components.count_pairs, WORDS),
        call(components.count_words, "a b, a b", components.GPT2_PATTERN, ("<s>",)),
        call(components.decoder_parameters, 10, 8, 2, 4, 2, 3, 12, tied=True),
        call(components.expert_capacity, 12, 4, 2, factor=1.25),
        call(components.expert_capacity, 12, 4, 2, factor=Fraction(5, 4)),
        call(components.ffn_params, 8, 12, gated=True),
        call(components.init_std, 8, 12, "xavier", 1.5),
        call(components.learn_merges, WORDS, 2),
        call(components.linear_flops, 5, 8, 12, bias=True, backward=True, convention="exact"),
        call(components.llama3_inv_freq, 8, 1e4, 8.0, 1.0, 4.0, 64),
        call(components.load_peft_state_dict, adapted(), saved, config),
        call(components.load_transformers, decoder(), state),
        call(components.lora_param_count, 8, 12, 2),
        call(components.lora_scaling, 16.0, 4, rank_stabilized=True),
        call(components.merge_by_rank, [97, 98, 99], {(97, 98): 0, (256, 99): 1}),
        call(components.merge_pair, [1, 1, 1], (1, 1), 9),
        call(components.merges_from_ranks, TOKENS),
        call(components.moe_parameters, 8, 12, 4, 2, 1),
        call(components.ntk_base, 1e4, 8, 4.0),
        call(components.pairs_from_ranks, TOKENS),
        call(components.peft_adapter_config, adapted()),
        call(components.peft_state_dict, adapted()),
        call(components.pretokenize, "a b, c", components.GPT2_PATTERN),
        call(components.read_peft_config, PEFT),
        call(components.residual_init_std, 0.02, 8),
        call(components.rope_inv_freq, 8, 1e4),
        call(components.rope_permutation, 8),
        call(components.swiglu_hidden_dim, 8, ratio=Fraction(8, 3), multiplier=1.3, multiple_of=4),
        call(components.uniform_bound, 0.1),
        call(components.yarn_attention_factor, 4.0, mscale=0.7, mscale_all_dim=0.5),
        call(components.yarn_inv_freq, 8, 1e4, 4.0, 64, attention_factor=1.1),
    ]


def of_inference() -> list[Call]:
    prompt = torch.tensor([1, 2])
    search: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 3, "eos_token_id": 4}
    search |= {"length_penalty": 0.6, "finish": "ranked"}
    found = inference.beam_search(next_log_probs, prompt, **search)
    return [
        call(inference.beam_search, next_log_probs, prompt, **search),
        call(inference.best_draft_length, 0.7, draft_cost=0.1, max_length=9),
        call(inference.block_hashes, [1, 2, 3, 4, 5], 2, extra=("a",)),
        call(inference.blocks_needed, 9, 4),
        call(inference.certificate, found),
        call(inference.decode_steps, [3, 1, 2], 2, continuous=True),
        call(inference.expected_tokens, 0.7, 4),
        call(inference.reusable_blocks, 9, 4),
        call(inference.speedup, 0.7, 4, draft_cost=0.1),
    ]


def of_training() -> list[Call]:
    rates = {"max_lr": 0.1, "min_lr": 0.01, "warmup_steps": 4, "total_steps": 20}
    stable = {"max_lr": 0.1, "warmup_steps": 4, "stable_steps": 8, "decay_steps": 6}
    grow = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5}
    sizes = {"weight_bytes": 2.0, "grad_bytes": 2.0, "optimizer_bytes": 12.0}
    return [
        call(training.adam_update_bound, step=7, betas=(0.9, 0.95)),
        call(training.checkpoint_units, 12, segment=4, units_per_layer=3.0),
        call(training.decoder_activation_elements, SHAPE, tokens=5),
        call(training.decoder_flops_per_token, SHAPE, context=5, causal=True, backward=True),
        call(training.decoder_parameters, SHAPE),
        call(training.float_values, exponent_bits=4, mantissa_bits=3, special="fn"),
        call(
            training.model_flops_utilization,
            tokens_per_second=3.0,
            flops_per_token=7.0,
            peak_flops=50.0,
        ),
        call(training.muon_scale, (3, 5), rule="original"),
        call(training.quadratic_second_moment, [0.1, 0.2], curvature=1.5, noise_var=0.3, start=2.0),
        call(training.training_seconds, 100.0, flops_per_token=7.0, mfu=0.4, peak_flops=50.0),
        call(training.unit_roundoff, torch.float32),
        call(training.update_loss_scale, 1024.0, 4, overflow=False, **grow),
        call(training.warmup_cosine, 9, **rates),
        call(training.warmup_stable_decay, 15, decay="linear", **stable),
        call(training.zero_bytes, 100, ranks=4, stage=2, **sizes),
        call(training.zero_traffic, 100, ranks=4, stage=3, micro_batches=2),
    ]


def functions() -> list[Call]:
    """All calls of this module."""
    return [
        *of_attention(),
        *of_components(),
        *of_inference(),
        *of_training(),
        call(functional.bits_per_weight, 4.0, 32, scale_bits=16.0, zero_point_bits=4.0),
        call(functional.code_range, 4),
        call(functional.dynamic_codebook),
        call(functional.gumbel_noise, (2, 3)),
        call(functional.nf4_codebook),
        call(rl.best_of_n_kl_bound, 4),
    ]
