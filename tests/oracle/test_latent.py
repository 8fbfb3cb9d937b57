"""Latent attention against the DeepSeek layers of transformers, and the sizes in the table."""

import pytest
import torch
from torch import nn

from llmref.attention.latent import (
    LatentAttention,
    LatentCache,
    latent_attention_flops,
)
from llmref.components.rope import rope_inv_freq
from tests.tensors import random

TOPIC = "attention/latent"
B, T, C, H = 2, 9, 12, 3
SIZES = {"head_dim": 5, "rope_dim": 4, "value_dim": 7, "latent_dim": 6}
F64 = torch.float64
# transformers norms in float32 whatever the input: 2^-24 of a latent, times values of some tens
SINGLE = 2e-5
VERSIONS = ["v2", "v3"]


def theirs_and_ours(version, query_latent_dim):
    """A DeepseekV2Attention or V3, and ours with its weights."""
    from transformers import DeepseekV2Config, DeepseekV3Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

    config_class, layer_class = {
        "v2": (DeepseekV2Config, DeepseekV2Attention),
        "v3": (DeepseekV3Config, DeepseekV3Attention),
    }[version]
    config = config_class(
        hidden_size=C,
        num_hidden_layers=1,
        num_attention_heads=H,
        num_key_value_heads=H,
        q_lora_rank=query_latent_dim,
        kv_lora_rank=SIZES["latent_dim"],
        qk_nope_head_dim=SIZES["head_dim"],
        qk_rope_head_dim=SIZES["rope_dim"],
        v_head_dim=SIZES["value_dim"],
        rms_norm_eps=0.5,  # the norms of latents do not read it
        attn_implementation="sdpa",
    )
    theirs = layer_class(config, layer_idx=0).double().eval()
    with torch.no_grad():
        for seed, weight in enumerate(theirs.parameters()):
            weight.copy_(random(*weight.shape, seed=seed))
    ours = LatentAttention(C, H, **SIZES, query_latent_dim=query_latent_dim).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, config


def in_float64(layer, monkeypatch):
    """Their layer with norms of torch, and with `.float()`, in which V2 rotates, to float64."""
    for name in ("q_a_layernorm", "kv_a_layernorm"):
        old = getattr(layer, name)
        if old is not None:
            new = nn.RMSNorm(len(old.weight), eps=1e-6, dtype=F64)
            new.weight = old.weight
            setattr(layer, name, new)
    copied = {"dtype": F64, "copy": True, "memory_format": torch.contiguous_format}
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x.to(**copied))


def tables(version, positions):
    """Cosines and sines as the version takes them, from angles in float64."""
    angles = positions.double()[:, None] * rope_inv_freq(SIZES["rope_dim"])
    if version == "v2":
        return torch.polar(torch.ones_like(angles), angles)[None]
    joined = torch.cat([angles, angles], -1)[None]
    return joined.cos(), joined.sin()


def their_tables(version, config):
    """The same by their own module, which forms angles in float32."""
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding

    rotary = {"v2": DeepseekV2RotaryEmbedding, "v3": DeepseekV3RotaryEmbedding}[version](config)
    return lambda _, positions: rotary(torch.ones(1, dtype=F64), positions[None])


def run(version, theirs, x, sizes=(T,), cache=None, tables=tables):
    found, start = [], 0
    for part in x.split(list(sizes), 1):
        stop = start + part.shape[1]
        mask = torch.ones(stop - start, stop, dtype=torch.bool).tril(start)[None, None]
        at = tables(version, torch.arange(start, stop))
        options = {"attention_mask": mask, "past_key_values": cache, "position_embeddings": at}
        found.append(theirs(part, **options)[0])
        start = stop
    return torch.cat(found, 1)


@torch.no_grad()
@pytest.mark.parametrize("query_latent_dim", [None, 8])
@pytest.mark.parametrize("version", VERSIONS)
def test_layer_equals_transformers_up_to_its_float32(agreement, version, query_latent_dim):
    theirs, ours, config = theirs_and_ours(version, query_latent_dim)
    x = random(B, T, C, seed=99)
    expected = run(version, theirs, x, tables=their_tables(version, config))
    for absorbed in (True, False):
        agreement(
            f"layer of DeepSeek-{version.upper()}",
            "transformers",
            ours(x, absorbed=absorbed),
            expected,
            atol=SINGLE,
            convention="as it is: norms and angles in float32, in V2 rotations too",
        )


@torch.no_grad()
@pytest.mark.parametrize("query_latent_dim", [None, 8])
@pytest.mark.parametrize("version", VERSIONS)
def test_layer_equals_transformers_in_float64(agreement, monkeypatch, version, query_latent_dim):
    theirs, ours, _ = theirs_and_ours(version, query_latent_dim)
    in_float64(theirs, monkeypatch)
    x = random(B, T, C, seed=99)
    expected = run(version, theirs, x)
    for absorbed in (True, False):
        agreement(
            f"layer of DeepSeek-{version.upper()}, float64",
            "transformers",
            ours(x, absorbed=absorbed),
            expected,
            atol=1e-12,
            convention="sdpa; its norms replaced by torch's, rotations in float64",
        )
    half = LatentAttention(
        C, H, **SIZES, query_latent_dim=query_latent_dim, rope_layout="half"
    ).double()
    half.load_state_dict(theirs.state_dict())
    assert (half(x, absorbed=True) - expected).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * T, [4, 1, 3, 1]], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_decoding_equals_transformers_with_its_dynamic_cache(
    agreement, monkeypatch, version, sizes
):
    from transformers import DynamicCache

    theirs, ours, config = theirs_and_ours(version, 8)
    in_float64(theirs, monkeypatch)
    x, cache = random(B, T, C, seed=99), DynamicCache(config=config)
    expected = run(version, theirs, x, sizes, cache)
    mine = LatentCache(B, T, SIZES["latent_dim"], SIZES["rope_dim"], dtype=F64)
    found = torch.cat([ours(part, mine, absorbed=True) for part in x.split(sizes, 1)], 1)
    agreement(
        "absorbed decoding, steps and chunks",
        "transformers",
        found,
        expected,
        atol=1e-12,
        convention="expanded there; norms and rotations in float64",
    )
    latents, rotary = mine.update(x[:, :0, : SIZES["latent_dim"]], x[:, :0, : SIZES["rope_dim"]])
    held = cache.layers[0]
    agreement(
        "cached latents",
        "transformers",
        latents[:, None],
        held.keys,
        atol=1e-12,
        convention="DynamicCache: after the norm, as keys of one head",
    )
    # V3 keeps the first numbers of all pairs, then the second ones; V2 pair by pair, as here
    if version == "v3":
        rotary = torch.cat([rotary[..., ::2], rotary[..., 1::2]], -1)
    agreement(
        "cached rotary parts",
        "transformers",
        rotary[:, None],
        held.values,
        atol=1e-12,
        convention="DynamicCache: rotated, as values of one head; V3 in the half order",
    )
    assert held.keys.nbytes + held.values.nbytes == mine.nbytes()


@torch.no_grad()
def test_a_cut_into_halves_gives_other_numbers():
    theirs, ours, _ = theirs_and_ours("v3", None)
    x, key_rows = random(B, T, C, seed=99), H * SIZES["head_dim"]
    weight = ours.kv_b_proj.weight
    halves = [
        half.view(H, -1, SIZES["latent_dim"]) for half in (weight[:key_rows], weight[key_rows:])
    ]
    weight.copy_(torch.cat(halves, 1).flatten(0, 1))
    assert (ours(x, absorbed=True) - run("v3", theirs, x)).abs().max() > 0.1


def test_yarn_multiplies_the_scale_by_the_square_of_the_factor_of_all_dimensions():
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import yarn_apply_mscale

    yarn = {"rope_type": "yarn", "factor": 40.0, "mscale": 0.5}
    expected = 2 * (0.1 * torch.tensor(40.0, dtype=F64).log().item() + 1) ** 2
    assert yarn_apply_mscale({**yarn, "mscale_all_dim": 1.0}, 2.0) == pytest.approx(expected)
    assert yarn_apply_mscale(yarn, 2.0) == 2
    assert yarn_apply_mscale({**yarn, "mscale_all_dim": 0}, 2.0) == 2


def test_sizes_in_the_table_are_those_of_the_configurations():
    from transformers import DeepseekV3Config, Glm4MoeLiteConfig, MiniCPM3Config

    table = {
        DeepseekV3Config: (61, 128, 128, 128, 512, 64),
        Glm4MoeLiteConfig: (47, 20, 192, 256, 512, 64),
        MiniCPM3Config: (62, 40, 64, 64, 256, 32),
    }
    for config_class, (layers, *sizes) in table.items():
        config = config_class()
        heads = config.num_attention_heads
        found = [heads, config.qk_nope_head_dim, config.v_head_dim or config.hidden_size // heads]
        found += [config.kv_lora_rank, config.qk_rope_head_dim]
        assert (config.num_hidden_layers, found) == (layers, sizes)
    flops = latent_attention_flops(128, 128, 128, 512, 64, 1, 131072)
    assert flops["absorbed"] / flops["cached_heads"] == pytest.approx(3.4031, abs=1e-4)
    assert flops["expanded"] / flops["absorbed"] == pytest.approx(120.65, abs=1e-2)
