"""Rotary positions against transformers, torchtune, rotary-embedding-torch and x-transformers.

The libraries form their frequencies or angles in float32. At positions below 64 that costs about
64 * 2^-23 radians; frequencies agree to a few units in their last place. The rotation itself,
given the same tables, agrees to float64 rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmref.components import rope

TOPIC = "components/rope"
B, H, T, D = 2, 3, 5, 8
ANGLES = 3e-5  # 64 * 2^-23 radians, times values of at most 4
FREQUENCIES = 1e-6  # of frequencies at most 1, in float32
F64 = torch.float64
POSITIONS = torch.arange(T) + 50


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ours(x: Tensor, positions: Tensor, base: float, layout: str, R: int = D) -> Tensor:
    cos, sin = rope.rope_cos_sin(positions, rope.rope_inv_freq(R, base), dtype=F64)
    return rope.apply_rope(x.double(), cos, sin, layout=layout)


def llama_config(
    head_dim: int = D, base: float = 1e4, window: int = 4096, **parameters: Any
) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": base, **parameters},
    )


def init_function(kind: str) -> Callable[..., tuple[Tensor, float]]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return ROPE_INIT_FUNCTIONS[kind]


# The rotation


def test_half_layout_is_llamas(agreement):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = draw(B, H, T, D), draw(B, H - 1, T, D, seed=1)
    positions = torch.stack([POSITIONS, 3 * POSITIONS])
    cos, sin = rope.rope_cos_sin(positions, rope.rope_inv_freq(D), dtype=F64)
    theirs = apply_rotary_pos_emb(q, k, torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    for x, rotated in zip((q, k), theirs, strict=True):
        agreement(
            "rotation, half layout, same tables",
            "transformers",
            rope.apply_rope(x, cos, sin),
            rotated,
            atol=1e-14,
            convention="Llama: pair (i, i + d/2); cos and sin are repeated to the size of the head",
        )


def test_module_is_llamas_rotary_embedding(agreement):
    from transformers.models.llama import modeling_llama as llama

    q = draw(B, H, T, D, dtype=torch.float32)
    cos, sin = llama.LlamaRotaryEmbedding(llama_config())(q, POSITIONS[None])
    theirs, _ = llama.apply_rotary_pos_emb(q, q, cos, sin)
    mine, _ = rope.RotaryEmbedding(D)(q, q, POSITIONS)
    agreement(
        "rotary embedding, half layout",
        "transformers",
        mine,
        theirs,
        atol=ANGLES,
        convention="LlamaRotaryEmbedding: frequencies and angles in float32",
    )
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
    config = llama_config(window=512, **scaling)
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, POSITIONS[None])
    theirs, _ = llama.apply_rotary_pos_emb(q, q, cos, sin)
    module = rope.RotaryEmbedding(D, scaling=lambda d, base: rope.yarn_inv_freq(d, base, 8.0, 64))
    agreement(
        "rotary embedding with YaRN, half layout",
        "transformers",
        module(q, q, POSITIONS)[0],
        theirs,
        atol=ANGLES,
        convention="the attention factor multiplies cos and sin, of q and of k",
    )


def test_interleaved_layout_is_gptjs(agreement):
    from transformers.models.gptj import modeling_gptj as gptj

    x = draw(B, H, T, D)
    cos, sin = rope.rope_cos_sin(POSITIONS, rope.rope_inv_freq(D), dtype=F64)
    theirs = gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin[None], cos[None]).transpose(1, 2)
    agreement(
        "rotation, interleaved layout, same tables",
        "transformers",
        rope.apply_rope(x, cos, sin, layout="interleaved"),
        theirs,
        atol=1e-14,
        convention="GPT-J: pair (2i, 2i + 1); x is (B, T, H, D); sin comes before cos",
    )


def test_neox_rotates_the_first_features_of_a_head_only(agreement):
    from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

    q, k = draw(B, H, T, D), draw(B, H, T, D, seed=1)
    cos, sin = rope.rope_cos_sin(POSITIONS.expand(B, T), rope.rope_inv_freq(6), dtype=F64)
    theirs = apply_rotary_pos_emb(q, k, torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    for x, rotated in zip((q, k), theirs, strict=True):
        agreement(
            "rotation, half layout, the first 6 of 8 features",
            "transformers",
            rope.apply_rope(x, cos, sin),
            rotated,
            atol=1e-14,
            convention="GPT-NeoX: features beyond the rotary size pass through",
        )


def test_shares_of_a_head_that_are_rotated_by_default():
    from transformers import GPTJConfig, GPTNeoXConfig, PhiConfig

    gptj, neox, phi = GPTJConfig(), GPTNeoXConfig(), PhiConfig()
    assert (gptj.rotary_dim, gptj.n_embd // gptj.n_head) == (64, 256)
    assert neox.rope_parameters["partial_rotary_factor"] == 0.25
    assert phi.rope_parameters["partial_rotary_factor"] == 0.5


@pytest.mark.usefixtures("torchtune_imports")
def test_interleaved_layout_is_torchtunes(agreement):
    from torchtune.modules import RotaryPositionalEmbeddings

    x = draw(B, H, T, D, dtype=torch.float32)
    module = RotaryPositionalEmbeddings(D, max_seq_len=64, base=500)
    theirs = module(x.transpose(1, 2), input_pos=POSITIONS.expand(B, T)).transpose(1, 2)
    agreement(
        "rotary embedding, interleaved layout",
        "torchtune",
        ours(x, POSITIONS, 500.0, "interleaved"),
        theirs,
        atol=ANGLES,
        convention="x is (B, T, H, D); a table for max_seq_len positions; float32",
    )


@pytest.mark.parametrize("R", [D, 6])
def test_interleaved_layout_is_rotary_embedding_torchs(agreement, R):
    from rotary_embedding_torch import RotaryEmbedding

    x = draw(B, H, T, D, dtype=torch.float32)
    theirs = RotaryEmbedding(R, theta=500).rotate_queries_or_keys(x, offset=50)
    agreement(
        "rotary embedding, interleaved layout, whole or part of the head",
        "rotary-embedding-torch",
        ours(x, POSITIONS, 500.0, "interleaved", R),
        theirs.detach(),
        atol=ANGLES,
        convention="x is (B, H, T, D); features beyond the rotary size pass through",
    )


def test_interleaved_layout_is_x_transformers(agreement):
    from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

    x = draw(B, H, T, D, dtype=torch.float32)
    frequencies, scale = RotaryEmbedding(D, base=500)(POSITIONS)
    agreement(
        "rotary embedding, interleaved layout",
        "x-transformers",
        ours(x, POSITIONS, 500.0, "interleaved"),
        apply_rotary_pos_emb(x, frequencies, scale),
        atol=ANGLES,
        convention="pair (2i, 2i + 1) in 2.31; x is (B, H, T, D)",
    )


def test_the_two_layouts_are_not_interchangeable():
    x = draw(B, H, T, D)
    difference = ours(x, POSITIONS, 1e4, "half") - ours(x, POSITIONS, 1e4, "interleaved")
    assert difference.abs().max() > 0.5


# Weights


@pytest.mark.usefixtures("torchtune_imports")
@pytest.mark.parametrize("to", ["interleaved", "half"])
def test_weight_conversion_is_torchtunes(agreement, to):
    from torchtune.models.convert_weights import hf_to_tune, tune_to_hf

    sizes = {"num_heads": 4, "num_kv_heads": 2, "dim": 4 * D}
    convert, name = {
        "interleaved": (hf_to_tune, "model.layers.0.self_attn.{}_proj.weight"),
        "half": (tune_to_hf, "layers.0.attn.{}_proj.weight"),
    }[to]
    weights = {"q": draw(4 * D, 4 * D), "k": draw(2 * D, 4 * D, seed=1), "v": draw(2 * D, 4 * D)}
    theirs = convert({name.format(p): w for p, w in weights.items()}, **sizes)
    theirs = {next(p for p in "qkv" if f"{p}_proj" in key): w for key, w in theirs.items()}
    for projection, heads in (("q", 4), ("k", 2)):
        agreement(
            f"weights of q and k, to the {to} layout",
            "torchtune",
            rope.convert_qk_weight(weights[projection], heads, to=to),
            theirs[projection],
            atol=0.0,
            convention="hf_to_tune and tune_to_hf; k by its own number of heads; v is untouched",
        )
    assert torch.equal(theirs["v"], weights["v"])


# Frequencies


def compare_frequencies(agreement, formula: str, mine: Tensor, theirs: Tensor, convention: str):
    # Relative, so that the small frequencies count as much as the large ones.
    agreement(
        f"{formula}: ratio of frequencies",
        "transformers",
        mine / theirs.double(),
        torch.ones_like(mine),
        atol=FREQUENCIES,
        convention=convention,
    )


def test_plain_and_linear_frequencies(agreement):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    plain = LlamaRotaryEmbedding(llama_config(128, 5e5)).inv_freq
    compare_frequencies(
        agreement, "base^(-2i/d)", rope.rope_inv_freq(128, 5e5), plain, "LlamaRotaryEmbedding"
    )
    theirs, factor = init_function("linear")(llama_config(128, rope_type="linear", factor=4.0))
    mine = rope.linear_scaled_inv_freq(rope.rope_inv_freq(128), 4.0)
    compare_frequencies(agreement, "position interpolation", mine, theirs, "rope_type 'linear'")
    assert factor == 1.0


@pytest.mark.parametrize("length", [1024, 4096, 5000, 32768])
def test_dynamic_ntk_is_the_ntk_base_of_the_current_length(agreement, length):
    config = llama_config(128, window=4096, rope_type="dynamic", factor=2.0)
    theirs, _ = init_function("dynamic")(config, seq_len=length)
    factor = 2.0 * max(length, 4096) / 4096 - (2.0 - 1)
    mine = rope.rope_inv_freq(128, rope.ntk_base(1e4, 128, factor))
    convention = "rope_type 'dynamic': s L'/L - (s - 1) as the factor, 1 up to the trained length"
    compare_frequencies(agreement, "NTK base", mine, theirs, convention)


def test_static_ntk_is_rotary_embedding_torchs(agreement):
    from rotary_embedding_torch import RotaryEmbedding

    theirs = RotaryEmbedding(64, theta_rescale_factor=8.0).freqs.detach().double()
    mine = rope.rope_inv_freq(64, rope.ntk_base(1e4, 64, 8.0))
    agreement(
        "NTK base: ratio of frequencies",
        "rotary-embedding-torch",
        mine / theirs,
        torch.ones_like(mine),
        atol=FREQUENCIES,
        convention="theta_rescale_factor",
    )


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("dim", "base", "factor", "window"),
    [(128, 1e4, 8.0, 4096), (64, 1e6, 4.0, 32768), (64, 10.0, 4.0, 64), (8, 1e4, 4.0, 5)],
)
def test_yarn_is_the_index_ramp(agreement, dim, base, factor, window, truncate):
    config = llama_config(
        dim,
        base,
        int(factor * window),
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=window,
        truncate=truncate,
    )
    theirs, attention_factor = init_function("yarn")(config)
    if window == 5 and not truncate:
        with pytest.raises(ValueError, match="would run backwards"):
            rope.yarn_inv_freq(dim, base, factor, window, truncate=False)
        return
    mine, factor_of_mine = rope.yarn_inv_freq(dim, base, factor, window, truncate=truncate)
    convention = "rope_type 'yarn': linear in the index of the pair, ends rounded if truncate"
    compare_frequencies(agreement, "YaRN, index ramp", mine, theirs, convention)
    agreement(
        "YaRN, attention factor",
        "transformers",
        torch.tensor(factor_of_mine),
        torch.tensor(attention_factor),
        atol=1e-15,
        convention="0.1 ln s + 1, on cos and on sin",
    )


@pytest.mark.parametrize(("mscale", "mscale_all_dim"), [(1.0, 1.0), (0.707, 0.707), (1.0, 0.3)])
def test_yarn_attention_factor_with_both_options(agreement, mscale, mscale_all_dim):
    """DeepSeek's options, and where DeepSeek-V3 puts the rest: into the scale of the softmax."""
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import yarn_apply_mscale

    options = {"mscale": mscale, "mscale_all_dim": mscale_all_dim}
    parameters = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}
    _, theirs = init_function("yarn")(llama_config(window=32768, **parameters, **options))
    agreement(
        "YaRN, attention factor with mscale and mscale_all_dim",
        "transformers",
        torch.tensor(rope.yarn_attention_factor(8.0, **options)),
        torch.tensor(theirs),
        atol=1e-15,
        convention="(0.1 mscale ln s + 1) / (0.1 mscale_all_dim ln s + 1), on cos and on sin",
    )
    scale = rope.yarn_attention_factor(8.0, mscale=mscale_all_dim) ** 2
    assert yarn_apply_mscale(parameters | options, 1.0) == pytest.approx(scale, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "attention_factor"),
    [
        ({}, None),
        ({"attention_factor": 1.0}, 1.0),
        ({"attention_factor": 1.25}, 1.25),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({"mscale": 0.707, "mscale_all_dim": 0.3}, "options"),
        ({"mscale": 0.707, "mscale_all_dim": 0.0}, None),
    ],
)
def test_the_module_with_yarn_equals_the_tables_of_transformers(
    agreement, options, attention_factor
):
    """An explicit factor goes before both options, which count only if neither is 0."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}
    config = llama_config(64, window=32768, **parameters, **options)
    if attention_factor == "options":
        attention_factor = rope.yarn_attention_factor(8.0, **options)

    def scaling(dim, base):
        return rope.yarn_inv_freq(dim, base, 8.0, 4096, attention_factor=attention_factor)

    positions = torch.arange(40)
    x = torch.randn(1, 2, 40, 64, generator=torch.Generator().manual_seed(0))
    cos, sin = LlamaRotaryEmbedding(config)(x, positions[None])
    halves = x[..., :32], x[..., 32:]
    theirs = x * cos[:, None] + torch.cat([-halves[1], halves[0]], -1) * sin[:, None]
    ours, _ = rope.RotaryEmbedding(64, 1e4, scaling=scaling)(x, x, positions)
    agreement(
        "queries turned by YaRN",
        "transformers",
        ours,
        theirs,
        atol=1e-5,
        convention="attention_factor, mscale and mscale_all_dim of the configuration; float32",
    )


def test_the_scale_of_the_softmax_in_deepseek_v3(agreement):
    """Its heads have 16 rotated features and 32 others; cos and sin are left as they are."""
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Attention,
        DeepseekV3RotaryEmbedding,
    )

    config = DeepseekV3Config(
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=2,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=16,
        qk_nope_head_dim=32,
        v_head_dim=32,
        max_position_embeddings=163840,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "beta_fast": 32,
            "beta_slow": 1,
        },
    )
    ours = 48**-0.5 * rope.yarn_attention_factor(40.0, mscale=1.0) ** 2
    agreement(
        "YaRN, scale of the softmax",
        "transformers",
        torch.tensor(ours, dtype=torch.float64),
        torch.tensor(DeepseekV3Attention(config, 0).scaling, dtype=torch.float64),
        atol=1e-15,
        convention="DeepSeek-V3: (0.1 mscale_all_dim ln s + 1)^2 / sqrt(D)",
    )
    module = DeepseekV3RotaryEmbedding(config)
    factor = rope.yarn_attention_factor(40.0, mscale=1.0, mscale_all_dim=1.0)
    assert module.attention_scaling == factor == 1.0
    inv_freq, _ = rope.yarn_inv_freq(16, 1e4, 40.0, 4096, attention_factor=factor)
    convention = "DeepSeek-V3: the rotated 16 features, factor 40"
    compare_frequencies(agreement, "YaRN, DeepSeek-V3", inv_freq, module.inv_freq, convention)


def test_yarn_in_transformers_is_not_the_ramp_in_turns():
    config = llama_config(
        128, window=32768, rope_type="yarn", factor=8.0, original_max_position_embeddings=4096
    )
    theirs, _ = init_function("yarn")(config)
    paper, _ = rope.yarn_inv_freq(128, 1e4, 8.0, 4096, ramp="paper")
    assert (theirs.double() / paper).max() > 2


def test_llama3_frequencies(agreement):
    parameters = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    theirs, factor = init_function("llama3")(llama_config(128, 5e5, 131072, **parameters))
    mine = rope.llama3_inv_freq(128, 5e5, 8.0, 1.0, 4.0, 8192)
    compare_frequencies(agreement, "Llama 3.1 frequencies", mine, theirs, "rope_type 'llama3'")
    assert factor == 1.0


@pytest.mark.usefixtures("torchtune_imports")
def test_llama3_frequencies_are_torchtunes(agreement):
    from torchtune.models.llama3_1 import Llama3ScaledRoPE

    theirs = Llama3ScaledRoPE(128, max_seq_len=4, base=500_000, scale_factor=8).theta.double()
    mine = rope.llama3_inv_freq(128, 5e5, 8.0, 1.0, 4.0, 8192)
    agreement(
        "Llama 3.1 frequencies: ratio of frequencies",
        "torchtune",
        mine / theirs,
        torch.ones_like(mine),
        atol=FREQUENCIES,
        convention="Llama3ScaledRoPE",
    )


# What the page says the libraries do


def test_casting_llamas_module_to_bfloat16_rounds_its_frequencies():
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    module = LlamaRotaryEmbedding(llama_config(128))
    kept = module.inv_freq.double()
    rounded = module.to(torch.bfloat16).inv_freq.double()
    worst = ((rounded / kept - 1).abs()).max().item()
    assert 2**-10 < worst <= 2**-8  # 0.1 % or more: at position 5000 several radians
    assert 5000 * (rounded - kept).abs().max() > 1


def test_dynamic_ntk_changes_the_frequencies_of_keys_already_cached():
    config = llama_config(128, window=4096, rope_type="dynamic", factor=2.0)
    at_5000, _ = init_function("dynamic")(config, seq_len=5000)
    at_6000, _ = init_function("dynamic")(config, seq_len=6000)
    assert (4000 * (at_5000 - at_6000)).abs().max() > math.pi


def test_dynamic_ntk_goes_by_the_largest_length_since_the_last_reset():
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    module = LlamaRotaryEmbedding(llama_config(128, window=128, rope_type="dynamic", factor=2.0))

    def last_frequency(length: int) -> float:
        module(torch.zeros(1), torch.arange(length)[None])
        return module.inv_freq[-1].item()

    def of(length: int) -> float:
        base = rope.ntk_base(1e4, 128, 2.0 * max(length, 128) / 128 - 1)
        return rope.rope_inv_freq(128, base)[-1].item()

    assert last_frequency(300) == pytest.approx(of(300), rel=FREQUENCIES)
    assert last_frequency(200) == pytest.approx(of(300), rel=FREQUENCIES)  # shorter: kept
    assert of(200) / of(300) > 1.7
    assert last_frequency(100) == pytest.approx(of(128), rel=FREQUENCIES)  # below 128: reset
