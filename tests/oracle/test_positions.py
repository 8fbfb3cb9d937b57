"""Positions against transformers and x-transformers."""

import math

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.falcon import modeling_falcon as falcon
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention
from x_transformers.x_transformers import (
    AlibiPositionalBias,
    RelativePositionBias,
    ScaledSinusoidalEmbedding,
)

from llmref.components.positions import (
    alibi_bias,
    alibi_key_bias,
    alibi_slopes,
    sinusoidal_embedding,
    t5_bucket,
)

TOPIC = "components/positions"
HEADS = [1, 2, 3, 4, 8, 12, 16, 20, 39]


def code(positions, dim, layout="half"):
    return sinusoidal_embedding(positions, dim, layout=layout, dtype=torch.float64)


def test_sinusoids_equal_marian(agreement):
    theirs = MarianSinusoidalPositionalEmbedding(50, 12).create_weight()
    agreement(
        "sinusoidal_embedding",
        "transformers",
        code(torch.arange(50), 12),
        theirs,
        atol=1e-7,
        convention="Marian: half layout, stored in float32",
    )


def test_sinusoids_equal_m2m_100(agreement):
    """Its last frequency is 1 / base: the exponent is divided by dim / 2 - 1."""
    theirs = M2M100SinusoidalPositionalEmbedding.get_embedding(50, 12)
    base = 10000 ** (12 / 2 / (12 / 2 - 1))
    ours = sinusoidal_embedding(torch.arange(50), 12, base=base, layout="half", dtype=torch.float64)
    agreement(
        "sinusoidal_embedding, base^(6/5)",
        "transformers",
        ours,
        theirs,
        atol=1e-5,
        convention="M2M100: half layout, last frequency 1 / base, angles in float32",
    )
    shifted = M2M100SinusoidalPositionalEmbedding(20, 12, padding_idx=1)
    ids = torch.full((1, 4), 7)
    assert torch.equal(shifted(ids)[0], theirs[2:6])  # positions from padding_idx + 1 on


def test_sinusoids_equal_x_transformers(agreement):
    theirs = ScaledSinusoidalEmbedding(12)(torch.zeros(1, 50, 12))
    agreement(
        "sinusoidal_embedding / sqrt(dim)",
        "x-transformers",
        code(torch.arange(50), 12) / math.sqrt(12),
        theirs.reshape(50, 12),
        atol=1e-6,
        convention="half layout, times a learned scale that starts at dim^(-1/2)",
    )


def test_key_bias_equals_bloom(agreement):
    ours, theirs = [], []
    for num_heads in HEADS:
        made = build_alibi_tensor(torch.ones(1, 30), num_heads, torch.float32)
        theirs.append(made.flatten() / 30)
        ours.append(alibi_key_bias(alibi_slopes(num_heads), torch.arange(30)).flatten() / 30)
    agreement(
        "alibi_key_bias",
        "transformers",
        torch.cat(ours),
        torch.cat(theirs),
        atol=1e-7,
        convention="Bloom: key positions from 0, slopes in float32; divided by 30",
    )


def test_key_bias_equals_mpt(agreement):
    ours, theirs = [], []
    for num_heads in HEADS:
        theirs.append(build_mpt_alibi_tensor(num_heads, 30).flatten() / 30)
        ours.append(alibi_key_bias(alibi_slopes(num_heads), torch.arange(-29, 1)).flatten() / 30)
    agreement(
        "alibi_key_bias, up to 0",
        "transformers",
        torch.cat(ours),
        torch.cat(theirs),
        atol=1e-7,
        convention="Mpt: key positions up to 0, slopes in float32; divided by 30",
    )


def test_falcon_rounds_the_product_to_bfloat16():
    mask = torch.ones(1, 2048, dtype=torch.long)  # as its model makes it
    made = falcon.build_alibi_tensor(mask, 8, torch.float32).view(8, 2048)
    ours = alibi_key_bias(alibi_slopes(8), torch.arange(2048))[:, 0]
    assert torch.equal(made.double(), ours.bfloat16().double())
    assert (made - ours).abs().max() == 2


def test_falcon_adds_the_bias_before_the_scale():
    """So its slopes are m / sqrt(D) in the scores, and its window is that much longer."""
    config = falcon.FalconConfig(
        hidden_size=16,
        num_attention_heads=4,
        num_hidden_layers=1,
        alibi=True,
        multi_query=False,
        new_decoder_architecture=False,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    layer = falcon.FalconAttention(config, layer_idx=0).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    query, key, value = (t.transpose(1, 2) for t in layer._split_heads(layer.query_key_value(x)))
    at = torch.arange(6)
    hidden = torch.ones(6, 6).triu(1).bool()
    alibi = alibi_key_bias(alibi_slopes(4), at).view(4, 1, 6)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64).masked_fill(hidden, -1e300)
    theirs = layer(x, alibi=alibi, attention_mask=mask)[0]

    def ours(slopes):
        scores = query @ key.mT / 2 + alibi_bias(slopes, at, at)
        out = scores.masked_fill(hidden, -math.inf).softmax(-1) @ value
        return layer.dense(out.transpose(1, 2).flatten(2))

    assert (ours(alibi_slopes(4) / 2) - theirs).abs().max() < 1e-6  # its softmax is float32
    assert (ours(alibi_slopes(4)) - theirs).abs().max() > 1e-3


def test_bias_equals_x_transformers(agreement):
    ours, theirs = [], []
    for num_heads in HEADS:
        theirs.append(AlibiPositionalBias(num_heads)(5, 9).flatten())
        bias = alibi_bias(alibi_slopes(num_heads), torch.arange(4, 9), torch.arange(9))
        ours.append(bias.flatten())
    agreement(
        "alibi_bias",
        "x-transformers",
        torch.cat(ours),
        torch.cat(theirs),
        atol=1e-6,
        convention="distances; the last query is at the last key; slopes in float32",
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_equal_t5(agreement, bidirectional):
    relative, ours, theirs, other = torch.arange(-600, 601), [], [], []
    for num_buckets, max_distance in ((32, 128), (32, 100), (8, 40), (64, 500)):
        sizes = {"num_buckets": num_buckets, "max_distance": max_distance}
        ours.append(t5_bucket(relative, bidirectional=bidirectional, **sizes))
        bucket = T5Attention._relative_position_bucket
        theirs.append(bucket(relative, bidirectional=bidirectional, **sizes))
        bucket = RelativePositionBias._relative_position_bucket
        other.append(bucket(relative, causal=not bidirectional, **sizes))
    kind = "bidirectional" if bidirectional else "causal"
    for library, found in (("transformers", theirs), ("x-transformers", other)):
        agreement(
            f"t5_bucket, {kind}",
            library,
            torch.cat(ours),
            torch.cat(found),
            atol=0,
            convention="by a logarithm in float32; distances to 600",
        )
