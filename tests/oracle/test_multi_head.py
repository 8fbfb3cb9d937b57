"""Multi-head attention against torch's module and function, and two models of transformers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from llmref.attention.masks import and_masks, causal_mask, padding_mask
from llmref.attention.multi_head import MultiHeadAttention, attention_flops, attention_parameters
from tests.tensors import random

TOPIC = "attention/multi_head"
B, H, T, S, WIDTH = 2, 3, 5, 7, 12


def torch_module(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, H, batch_first=True, dtype=torch.float64, **options)
    if module.in_proj_bias is not None:
        nn.init.normal_(module.in_proj_bias)
        nn.init.normal_(module.out_proj.bias)
    return module.eval()


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 8}])
def test_outputs_and_weights_equal_torch(agreement, options):
    theirs = torch_module(**options)
    ours = MultiHeadAttention.from_torch(theirs)
    x = random(B, T, WIDTH)
    y, z = random(B, S, theirs.kdim, seed=1), random(B, S, theirs.vdim, seed=2)
    expected, weights = theirs(x, y, z, average_attn_weights=False)
    out, our_weights = ours(x, y, z, need_weights=True)
    name = ", ".join(f"{key}={value}" for key, value in options.items()) or "default"
    convention = "in_proj_weight: rows in the order q, k, v"
    agreement(f"output, {name}", "torch", out, expected, atol=1e-12, convention=convention)
    agreement(f"weights, {name}", "torch", our_weights, weights, atol=1e-12)


def test_masked_outputs_equal_torch_with_both_masks_inverted(agreement):
    theirs = torch_module()
    ours = MultiHeadAttention.from_torch(theirs)
    x, valid = random(B, S, WIDTH), torch.ones(B, S, dtype=torch.bool)
    valid[1, 5:] = False
    expected, _ = theirs(x, x, x, key_padding_mask=~valid, attn_mask=~causal_mask(S))
    out = ours(x, attn_mask=and_masks(causal_mask(S), padding_mask(valid)))
    convention = "True is blocked in both masks"
    agreement("masked output", "torch", out, expected, atol=1e-12, convention=convention)


def test_weights_of_torch_are_averaged_over_the_heads_by_default(agreement):
    theirs = torch_module()
    x = random(B, T, WIDTH)
    _, weights = MultiHeadAttention.from_torch(theirs)(x, need_weights=True)
    averaged = theirs(x, x, x)[1]
    convention = "mean over heads is torch's default"
    agreement("mean weights", "torch", weights.mean(1), averaged, atol=1e-12, convention=convention)


def test_weights_of_torch_in_training_are_those_after_dropout():
    """Dropped weights are 0 and the others doubled, so that rows do not sum to 1."""
    theirs = torch_module(dropout=0.5)
    ours, x = MultiHeadAttention.from_torch(theirs), random(B, T, WIDTH)
    weights = theirs.train()(x, x, x, average_attn_weights=False)[1]
    before = ours.train()(x, need_weights=True)[1]
    kept = weights != 0
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(weights[kept], 2 * before[kept])


def test_fresh_input_projections_of_torch_are_xavier_and_their_biases_zero():
    """Uniform up to sqrt(6 / (C + 3 C)) = 1.22 / sqrt(C), where nn.Linear stops at 1 / sqrt(C)."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(64, 4)
    ours = MultiHeadAttention(64, 4)
    assert 1.2 < 8 * theirs.in_proj_weight.abs().max() < 1.5**0.5
    assert 0.98 < 8 * ours.q_proj.weight.abs().max() <= 1
    assert (theirs.in_proj_bias == 0).all()
    assert (theirs.out_proj.bias == 0).all()
    assert (ours.q_proj.bias != 0).any()


def test_the_function_of_torch_takes_the_sequence_first(agreement):
    module = torch_module()
    x = random(T, B, WIDTH)
    expected, _ = F.multi_head_attention_forward(
        *(x, x, x, WIDTH, H, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0),
        *(module.out_proj.weight, module.out_proj.bias),
    )
    out = MultiHeadAttention.from_torch(module)(x.transpose(0, 1)).transpose(0, 1)
    convention = "F.multi_head_attention_forward: (T, B, C)"
    agreement("function", "torch", out, expected, atol=1e-12, convention=convention)


def test_gradients_equal_torch(agreement):
    theirs = torch_module()
    ours = MultiHeadAttention.from_torch(theirs)
    x, grad = random(B, T, WIDTH), random(B, T, WIDTH, seed=3)
    theirs(x, x, x)[0].backward(grad)
    ours(x).backward(grad)
    stacked = torch.cat([p.weight.grad for p in (ours.q_proj, ours.k_proj, ours.v_proj)])
    agreement("weight gradients", "torch", stacked, theirs.in_proj_weight.grad, atol=1e-11)


def spread_out(module):
    """Weights of size 1/2: fresh ones are so small that attention is nearly uniform."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def copied(module, names, out_proj, embed_dim, num_heads, *, bias):
    ours = MultiHeadAttention(embed_dim, num_heads, bias=bias).double()
    layers = [*(getattr(module, name) for name in names), out_proj]
    with torch.no_grad():
        for target, source in zip(
            (ours.q_proj, ours.k_proj, ours.v_proj, ours.o_proj), layers, strict=True
        ):
            target.weight.copy_(source.weight)
            if bias:
                target.bias.copy_(source.bias)
    return ours


def test_heads_equal_bert_of_transformers(agreement):
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertSelfAttention

    torch.manual_seed(0)
    config = BertConfig(hidden_size=WIDTH, num_attention_heads=H)
    config._attn_implementation = "sdpa"
    module = spread_out(BertSelfAttention(config))
    identity = nn.Linear(WIDTH, WIDTH).double()
    with torch.no_grad():
        identity.weight.copy_(torch.eye(WIDTH))
        identity.bias.zero_()
    ours = copied(module, ("query", "key", "value"), identity, WIDTH, H, bias=True)
    x = random(B, T, WIDTH)
    convention = "BertSelfAttention: without the output projection"
    agreement(
        "heads side by side",
        "transformers",
        ours(x),
        module(x)[0],
        atol=1e-12,
        convention=convention,
    )


def test_output_equals_gpt2_of_transformers(agreement):
    """Conv1D holds its weight as (in, out): the transpose of nn.Linear."""
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_head=H, n_positions=16)
    config._attn_implementation = "sdpa"
    module = spread_out(GPT2Attention(config, layer_idx=0))
    ours = MultiHeadAttention(WIDTH, H).double()
    weights = [*module.c_attn.weight.chunk(3, -1), module.c_proj.weight]
    biases = [*module.c_attn.bias.chunk(3), module.c_proj.bias]
    layers = (ours.q_proj, ours.k_proj, ours.v_proj, ours.o_proj)
    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
    x = random(B, T, WIDTH)
    mask = causal_mask(T).expand(B, 1, T, T)
    theirs = module(x, attention_mask=mask)[0]
    convention = "GPT2Attention: Conv1D weights are (in, out)"
    out = ours(x, is_causal=True)
    agreement("causal output", "transformers", out, theirs, atol=1e-12, convention=convention)


def test_parameters_equal_torch(agreement):
    for bias in (True, False):
        module = nn.MultiheadAttention(WIDTH, H, bias=bias)
        theirs = torch.tensor(sum(p.numel() for p in module.parameters()))
        ours = torch.tensor(attention_parameters(WIDTH, H, bias=bias))
        agreement("parameters", "torch", ours, theirs, atol=0, convention="4 C^2, biases 4 C")


def test_operations_equal_the_counter_of_torch(agreement):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for causal in (False, True):
        layers = [nn.Linear(16, 16, bias=False) for _ in range(4)]
        x = torch.randn(2, 12, 16)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            q, k, v = (p(x).view(2, 12, 4, 4).transpose(1, 2) for p in layers[:3])
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            layers[3](out.transpose(1, 2).flatten(2))
        theirs = torch.tensor(counter.get_total_flops())
        ours = torch.tensor(attention_flops(2, 12, 12, 16, 4)["total"])
        convention = "FlopCounterMode, MATH kernel; causality not counted"
        agreement("operations", "torch", ours, theirs, atol=0, convention=convention)


def test_the_counter_of_torch_misses_the_fused_kernel_on_cpu():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    q = torch.randn(2, 4, 12, 4)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        F.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 0
