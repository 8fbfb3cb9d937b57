"""Scaled dot-product attention against torch (three kernels, flex, nn) and transformers."""

import math
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmref.attention.scaled_dot_product import (
    attention_weights,
    masked_softmax,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    soft_cap,
)

TOPIC = "attention/scaled_dot_product"
B, H, T, S, D, DV = 2, 3, 5, 7, 4, 6
BACKENDS = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
MASKS = ["none", "boolean", "float", "empty row"]


def inputs(seed=0, value_size=DV):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, H, T, D), (B, H, S, D), (B, H, S, value_size)]
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


def mask_of(kind):
    generator = torch.Generator().manual_seed(2)
    if kind == "none":
        return None
    if kind == "float":
        return torch.randn(B, H, T, S, dtype=torch.float64, generator=generator)
    mask = torch.rand(B, 1, T, S, generator=generator) < 0.7
    mask[..., 0] = True
    if kind == "empty row":
        mask[:, :, 1] = False
    return mask


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_output_and_gradients_equal_torch(agreement, kind, backend):
    # The flash kernel needs values of the size of the queries; math takes any.
    tensors = [x.requires_grad_() for x in inputs(value_size=D if "FLASH" in str(backend) else DV)]
    mask = mask_of(kind)
    with sdpa_kernel(backend):
        theirs = F.scaled_dot_product_attention(*tensors, attn_mask=mask, scale=0.7)
        grad = torch.linspace(-1, 1, theirs.numel(), dtype=torch.float64).reshape(theirs.shape)
        their_gradients = torch.autograd.grad(theirs, tensors, grad)
    ours = scaled_dot_product_attention(*tensors, mask, scale=0.7)
    formula, convention = f"attention, mask: {kind}", "True may attend; floats are added"
    agreement(formula, "torch", ours, theirs, atol=1e-12, convention=convention)
    our_gradients = scaled_dot_product_attention_backward(grad, *tensors, mask, scale=0.7)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        agreement(f"{formula}, gradient", "torch", a, b, atol=1e-12, convention=convention)


def test_causal_attention_of_equal_lengths_equals_torch(agreement):
    _, key, value = inputs()
    ours = scaled_dot_product_attention(key, key, value, is_causal=True)
    theirs = F.scaled_dot_product_attention(key, key, value, is_causal=True)
    agreement("causal attention, T = S", "torch", ours, theirs, atol=1e-12)


def test_causal_attention_of_fewer_queries_equals_lower_right_alignment(agreement):
    from torch.nn.attention.bias import causal_lower_right

    query, key, value = inputs(value_size=D)
    ours = scaled_dot_product_attention(query, key, value, is_causal=True)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=causal_lower_right(T, S))
    convention = "causal_lower_right: the last query sees every key"
    agreement("causal attention, T < S", "torch", ours, theirs, atol=1e-12, convention=convention)


def test_is_causal_of_torch_is_aligned_at_the_upper_left():
    """With one query it sees key 0 alone; ours sees every key."""
    query, key, value = inputs()
    theirs = F.scaled_dot_product_attention(query[:, :, -1:], key, value, is_causal=True)
    torch.testing.assert_close(theirs, value[:, :, :1])


def test_both_mask_and_is_causal_are_refused_by_one_kernel_of_torch_and_combined_by_another():
    """The documentation says that an error is raised; never pass both to torch."""
    _, key, _ = inputs()
    mask = torch.rand(S, S, generator=torch.Generator().manual_seed(3)) < 0.7
    mask.fill_diagonal_(True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        both = F.scaled_dot_product_attention(key, key, key, attn_mask=mask, is_causal=True)
    ours = scaled_dot_product_attention(key, key, key, mask, is_causal=True)
    torch.testing.assert_close(both, ours, atol=1e-12, rtol=0)
    with sdpa_kernel(SDPBackend.MATH), pytest.raises(RuntimeError, match="is_causal"):
        F.scaled_dot_product_attention(key, key, key, attn_mask=mask, is_causal=True)


def test_dropout_of_torch_has_no_eval_mode():
    query, key, value = inputs()
    torch.manual_seed(0)
    dropped = F.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    assert (dropped - F.scaled_dot_product_attention(query, key, value)).abs().max() > 0.1


def test_integer_masks_are_refused_by_torch():
    query, key, value = inputs()
    mask = torch.ones(T, S, dtype=torch.long)
    with pytest.raises(RuntimeError, match="attn_mask"):
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def test_output_equals_flex_attention(agreement):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    query, key, value = inputs()

    def allowed(b, h, i, j):
        return ((i + j + h) % 3 > 0) & (i != 1)  # query 1 may attend to nothing

    block_mask = create_block_mask(allowed, B, H, T, S, device="cpu")
    theirs = flex_attention(query, key, value, block_mask=block_mask)
    i, j, h = torch.arange(T)[:, None], torch.arange(S), torch.arange(H)[:, None, None]
    ours = scaled_dot_product_attention(query, key, value, allowed(0, h, i, j))
    convention = "flex_attention, with an empty row: 0"
    agreement("attention, mask_mod", "torch", ours, theirs, atol=1e-12, convention=convention)


def test_weights_equal_multi_head_attention_of_torch(agreement):
    """One head with identity projections; its masks are inverted: True is blocked."""
    query, key, _ = (x[:, 0] for x in inputs())
    module = nn.MultiheadAttention(D, 1, bias=False, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(D, dtype=torch.float64).repeat(3, 1))
    allowed = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    _, theirs = module(query, key, key, attn_mask=~allowed)
    ours = attention_weights(query, key, is_causal=True)
    convention = "nn.MultiheadAttention, True is blocked"
    agreement("attention weights", "torch", ours, theirs, atol=1e-12, convention=convention)


def test_weights_of_multi_head_attention_in_training_are_after_dropout():
    query = inputs()[0][:, 0]
    torch.manual_seed(0)
    module = nn.MultiheadAttention(D, 1, dropout=0.5, batch_first=True, dtype=torch.float64)
    _, weights = module(query, query, query)
    assert (weights.sum(-1) - 1).abs().max() > 0.1


def test_gradient_of_the_key_bias_vanishes_in_multi_head_attention():
    query = inputs()[0][:, 0].requires_grad_()
    torch.manual_seed(0)
    module = nn.MultiheadAttention(D, 2, batch_first=True, dtype=torch.float64)
    module(query, query, query)[0].square().sum().backward()
    to_query, to_key, to_value = module.in_proj_bias.grad.split(D)
    assert to_key.abs().max() < 1e-14
    assert to_query.abs().max() > 1e-3
    assert to_value.abs().max() > 1e-3


def test_output_and_weights_equal_eager_attention_of_transformers(agreement):
    from transformers.models.llama.modeling_llama import eager_attention_forward

    query, key, value = (x.float() for x in inputs())
    mask = mask_of("boolean")
    additive = torch.zeros(B, 1, T, S).masked_fill(~mask, torch.finfo(torch.float32).min)
    module = types.SimpleNamespace(num_key_value_groups=1, training=False)
    theirs, weights = eager_attention_forward(
        module, query, key, value, additive, scaling=D**-0.5, dropout=0.0
    )
    convention = "softmax in float32; additive mask of finfo.min; output (B, T, H, D)"
    ours = scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)
    library = "transformers"
    agreement("attention", library, ours, theirs, atol=1e-6, convention=convention)
    ours = attention_weights(query, key, mask)
    agreement("attention weights", library, ours, weights, atol=1e-6, convention=convention)


def test_eager_attention_of_transformers_is_single_precision_for_double_inputs():
    from transformers.models.llama.modeling_llama import eager_attention_forward

    query, key, value = inputs()
    module = types.SimpleNamespace(num_key_value_groups=1, training=False)
    theirs, _ = eager_attention_forward(module, query, key, value, None, scaling=D**-0.5)
    assert theirs.dtype == torch.float64
    ours = scaled_dot_product_attention(query, key, value).transpose(1, 2)
    assert 1e-9 < (theirs - ours).abs().max() < 1e-6


def test_an_empty_row_is_uniform_in_eager_attention_of_transformers():
    """finfo.min absorbs the scores: every key, also a future one, gets 1 / S."""
    from transformers.models.llama.modeling_llama import eager_attention_forward

    query, key, value = (x.float() for x in inputs())
    additive = torch.full((B, 1, T, S), torch.finfo(torch.float32).min)
    module = types.SimpleNamespace(num_key_value_groups=1, training=False)
    _, weights = eager_attention_forward(
        module, query, key, value, additive, scaling=D**-0.5, dropout=0.0
    )
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / S))


def test_masked_softmax_equals_torch_where_something_is_allowed(agreement):
    scores, mask = inputs()[0] @ inputs()[1].mT, mask_of("boolean")
    theirs = torch.softmax(scores.masked_fill(~mask, -math.inf), -1)
    agreement("masked_softmax", "torch", masked_softmax(scores, mask), theirs, atol=1e-12)


def test_soft_cap_equals_flex_attention(agreement):
    from torch.nn.attention.flex_attention import flex_attention

    query, key, value = inputs()
    bias = mask_of("float")

    def score_mod(score, b, h, i, j):
        return 0.7 * torch.tanh(score / 0.7) + bias[b, h, i, j]

    theirs = flex_attention(query, key, value, score_mod=score_mod)
    ours = scaled_dot_product_attention(query, key, value, bias, softcap=0.7)
    convention = "flex_attention, score_mod: the cap before the bias"
    agreement("attention, soft cap", "torch", ours, theirs, atol=1e-12, convention=convention)


def test_soft_cap_and_its_gradients_equal_gemma_2(agreement):
    """Eager attention of transformers takes the softmax in float32."""
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    tensors = [x.requires_grad_() for x in inputs()]
    allowed = mask_of("boolean")
    additive = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -math.inf)
    module = types.SimpleNamespace(num_key_value_groups=1, training=False, head_dim=D)
    theirs, _ = eager_attention_forward(module, *tensors, additive, scaling=0.9, softcap=0.7)
    grad = torch.linspace(-1, 1, theirs.numel(), dtype=torch.float64).reshape(theirs.shape)
    their_gradients = torch.autograd.grad(theirs, tensors, grad)
    ours = scaled_dot_product_attention(*tensors, allowed, scale=0.9, softcap=0.7)
    convention = "Gemma 2, eager: softmax in float32"
    agreement(
        "attention, soft cap",
        "transformers",
        ours.transpose(1, 2),
        theirs,
        atol=1e-6,
        convention=convention,
    )
    gradients = scaled_dot_product_attention_backward(
        grad.transpose(1, 2), *tensors, allowed, scale=0.9, softcap=0.7
    )
    for a, b in zip(gradients, their_gradients, strict=True):
        agreement(
            "attention, soft cap, gradient",
            "transformers",
            a,
            b,
            atol=1e-6,
            convention=convention,
        )


def test_last_logits_of_gemma_2_are_capped(agreement):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=29,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.3,
    )
    model = Gemma2ForCausalLM(config).double().eval()
    model.lm_head.weight.data.mul_(20)
    ids = torch.arange(7)[None]
    with torch.no_grad():
        theirs = model(input_ids=ids, use_cache=False).logits
        logits = model.lm_head(model.model(input_ids=ids, use_cache=False).last_hidden_state)
    assert logits.abs().max() > 0.6
    convention = "final_logit_softcapping"
    ours = soft_cap(logits, 0.3)
    agreement("soft cap", "transformers", ours, theirs, atol=1e-12, convention=convention)
