"""Sinks against gpt-oss in transformers: output and gradients."""

from types import SimpleNamespace

import torch
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from llmref.attention.masks import additive_mask, causal_mask
from llmref.attention.sinks import sink_attention

TOPIC = "attention/sinks"
SHAPES = ((2, 6, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8), (6,))


def given():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in SHAPES
    ]


def gpt_oss(query, key, value, sink):
    module = SimpleNamespace(num_key_value_groups=2, sinks=sink, training=False)
    mask = additive_mask(causal_mask(5), dtype=torch.float64)
    return eager_attention_forward(module, query, key, value, mask, 8**-0.5)[0].transpose(1, 2)


def test_output_equals_gpt_oss(agreement):
    tensors = given()
    agreement(
        "sink_attention",
        "transformers",
        sink_attention(*tensors, is_causal=True),
        gpt_oss(*tensors),
        atol=1e-12,
        convention="GptOss, eager: a column beside the scores, dropped after the softmax",
    )


def test_gradients_equal_gpt_oss(agreement):
    tensors = given()
    upstream = torch.randn(
        2, 6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    ours, theirs = (
        torch.autograd.grad(out, tensors, upstream)
        for out in (sink_attention(*tensors, is_causal=True), gpt_oss(*tensors))
    )
    agreement(
        "sink_attention, gradients",
        "transformers",
        torch.cat([x.flatten() for x in ours]),
        torch.cat([x.flatten() for x in theirs]),
        atol=1e-12,
        convention="GptOss, eager, by autograd: queries, keys, values, sinks",
    )
