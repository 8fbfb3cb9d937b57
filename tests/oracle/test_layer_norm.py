"""LayerNorm against torch and transformers."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from llmref.norm.layer_norm import LayerNorm, layer_norm, layer_norm_backward, layer_norm_stats
from tests.tensors import random

TOPIC = "norm/layer_norm"


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_values_equal_torch(agreement, eps, shape):
    x, weight, bias = random(2, 3, 5, 7), random(*shape, seed=1), random(*shape, seed=2)
    theirs = functional.layer_norm(x, shape, weight, bias, eps)
    agreement(
        "layer_norm",
        "torch",
        layer_norm(x, shape, weight, bias, eps=eps),
        theirs,
        atol=1e-12,
        convention="variance divided by n, eps inside the root",
    )


def test_statistics_and_gradients_equal_the_kernels_of_torch(agreement):
    x, weight, bias, dy = (
        random(3, 5, 7),
        *(random(7, seed=s) for s in (1, 2)),
        random(3, 5, 7, seed=3),
    )
    _, mean, rstd = torch.ops.aten.native_layer_norm(x, [7], weight, bias, 1e-5)
    for ours, theirs in zip(layer_norm_stats(x, 7, eps=1e-5), (mean, rstd), strict=True):
        agreement("layer_norm_stats", "torch", ours, theirs, atol=1e-12)
    gradients = torch.ops.aten.native_layer_norm_backward(
        dy, x, [7], mean, rstd, weight, bias, [True, True, True]
    )
    for ours, theirs in zip(layer_norm_backward(dy, x, weight, eps=1e-5), gradients, strict=True):
        agreement("layer_norm_backward", "torch", ours, theirs, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_equal_torch_up_to_one_rounding(agreement, dtype):
    x = (300 * random(8, 64) + 1000).to(dtype)
    agreement(
        "layer_norm, 16 bits",
        "torch",
        layer_norm(x, 64, eps=1e-5),
        functional.layer_norm(x, (64,)),
        atol=2**-6,
        convention="statistics in float32; one unit in the last place of values up to 4",
    )


def test_the_module_equals_the_norm_of_gpt2_and_bert(agreement):
    from transformers.models.bert.modeling_bert import BertConfig, BertOutput
    from transformers.models.gpt2.modeling_gpt2 import GPT2Config, GPT2Model

    gpt2 = GPT2Model(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=5, n_positions=4)).ln_f
    bert = BertOutput(
        BertConfig(hidden_size=8, num_attention_heads=1, intermediate_size=8)
    ).LayerNorm
    for name, theirs, eps in (("GPT-2", gpt2, 1e-5), ("BERT", bert, 1e-12)):
        theirs = theirs.double()
        nn.init.normal_(theirs.weight)
        ours = LayerNorm(8, eps=eps).double()
        ours.load_state_dict(theirs.state_dict())
        x = random(3, 8)
        agreement(
            f"LayerNorm of {name}",
            "transformers",
            ours(x),
            theirs(x),
            atol=1e-12,
            convention=f"eps {eps:g}",
        )
