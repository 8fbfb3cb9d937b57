"""Masks against torch (SDPA, flex_attention, biases, nn) and transformers, with their polarity."""

import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from llmref.attention.masks import (
    additive_mask,
    and_masks,
    causal_mask,
    document_mask,
    padding_mask,
    prefix_lm_mask,
    sliding_window_mask,
)
from llmref.attention.scaled_dot_product import scaled_dot_product_attention

TOPIC = "attention/masks"
B, H, T, S, D = 2, 3, 5, 7, 4
VALID = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]])
TRUE_ATTENDS, TRUE_BLOCKS = "True may attend", "True is blocked"


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, H, T, D), (B, H, S, D), (B, H, S, D)]
    return [torch.randn(*shape, dtype=dtype, generator=generator) for shape in shapes]


def config(implementation, window=None):
    from transformers import MistralConfig

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    made = MistralConfig(**sizes, num_hidden_layers=1, sliding_window=window)
    made._attn_implementation = implementation
    return made


def by_transformers(kind, implementation, *, attention_mask=None, positions=None, window=None):
    from transformers import masking_utils

    length = 6
    return getattr(masking_utils, f"create_{kind}_mask")(
        config=config(implementation, window),
        inputs_embeds=torch.zeros(B, length, 8),
        attention_mask=attention_mask,
        past_key_values=None,
        position_ids=positions,
        allow_is_causal_skip=False,
    )


def test_causal_mask_equals_both_biases_of_torch(agreement):
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    for made, offset, name in (
        (causal_lower_right(T, S), None, "lower_right"),
        (causal_upper_left(T, S), 0, "upper_left, offset 0 here"),
    ):
        theirs = made._materialize(device="cpu")
        ours = causal_mask(T, S, offset=offset)
        agreement(f"causal mask, {name}", "torch", ours, theirs, atol=0, convention=TRUE_ATTENDS)


@pytest.mark.parametrize("kind", ["causal", "window", "prefix", "documents"])
def test_masks_equal_flex_attention(agreement, kind):
    from torch.nn.attention.flex_attention import create_mask

    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2, 2]])
    rules = {
        "causal": lambda b, h, i, j: i + (S - T) >= j,
        "window": lambda b, h, i, j: (i + (S - T) >= j) & (i + (S - T) - j < 3),
        "prefix": lambda b, h, i, j: (i + (S - T) >= j) | (j < 4),
        "documents": lambda b, h, i, j: (i >= j) & (ids[b, i] == ids[b, j]),
    }
    ours = {
        "causal": causal_mask(T, S),
        "window": sliding_window_mask(T, S, window=3),
        "prefix": prefix_lm_mask(4, T, S),
        "documents": and_masks(causal_mask(S), document_mask(ids)),
    }[kind]
    queries = S if kind == "documents" else T
    theirs = create_mask(rules[kind], B, 1, queries, S, device="cpu")
    ours = ours.expand(B, 1, queries, S)
    agreement(f"{kind} mask", "torch", ours, theirs, atol=0, convention="flex_attention mask_mod")


def test_true_may_attend_in_scaled_dot_product_attention(agreement):
    q, k, v = inputs()
    mask = causal_mask(T, S)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    ours = scaled_dot_product_attention(q, k, v, mask)
    agreement("mask in attention", "torch", ours, theirs, atol=1e-12, convention=TRUE_ATTENDS)
    flipped = F.scaled_dot_product_attention(q, k, v, attn_mask=~mask)
    assert (flipped - ours).abs().max() > 0.1


def test_true_is_blocked_in_multi_head_attention(agreement):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(D, 1, batch_first=True, dtype=torch.float64).eval()
    x = inputs()[1][:, 0]
    valid = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    mask = and_masks(causal_mask(S), padding_mask(valid))
    _, theirs = module(x, x, x, attn_mask=~causal_mask(S), key_padding_mask=~valid.bool())
    # Which pairs got weight; the softmax never underflows here.
    ours = mask[:, 0]
    convention = f"nn.MultiheadAttention, {TRUE_BLOCKS}, in both masks"
    agreement("attn_mask and padding", "torch", ours, theirs > 0, atol=0, convention=convention)


def test_the_square_subsequent_mask_of_torch_is_additive(agreement):
    theirs = nn.Transformer.generate_square_subsequent_mask(S)
    ours = additive_mask(causal_mask(S), theirs.dtype)
    agreement("additive causal mask", "torch", ours, theirs, atol=0, convention="0 and -inf")


@pytest.mark.parametrize("kind", ["causal", "sliding_window_causal"])
def test_masks_equal_transformers(agreement, kind):
    window = 3 if kind == "sliding_window_causal" else None
    base = sliding_window_mask(6, window=3) if window else causal_mask(6)
    ours = and_masks(base, padding_mask(VALID), allow_empty_rows=True)
    name = f"{kind.replace('_', ' ')} mask with padding"
    theirs = by_transformers(kind, "sdpa", attention_mask=VALID, window=window)
    agreement(name, "transformers", ours, theirs, atol=0, convention=f"sdpa: {TRUE_ATTENDS}")
    theirs = by_transformers(kind, "eager", attention_mask=VALID, window=window)
    least = torch.finfo(theirs.dtype).min
    ours = additive_mask(ours, theirs.dtype, least)
    agreement(f"{name}, additive", "transformers", ours, theirs, atol=0, convention="eager: 0, min")


def test_packed_positions_become_a_document_mask_in_transformers(agreement):
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 3, 0]])
    ids = (positions == 0).cumsum(-1)
    theirs = by_transformers("causal", "sdpa", positions=positions)
    ours = and_masks(causal_mask(6), document_mask(ids))
    convention = "sdpa: from position_ids that restart"
    agreement("packed causal mask", "transformers", ours, theirs, atol=0, convention=convention)


def test_packing_is_not_noticed_beside_an_attention_mask():
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 3, 0]])
    ones = torch.ones(B, 6, dtype=torch.long)
    theirs = by_transformers("causal", "sdpa", positions=positions, attention_mask=ones)
    assert torch.equal(theirs, causal_mask(6).expand_as(theirs))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_notices_packed_positions_only_without_a_cache(implementation, training):
    """Its forward call makes a cache by default, and then the documents see each other."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 20}
    made = LlamaConfig(**sizes, num_attention_heads=2, attn_implementation=implementation)
    model = LlamaModel(made).train(training)
    ids, positions = torch.arange(8)[None], torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20 if weight.ndim > 1 else 1)
        parts = [model(x, use_cache=False)[0] for x in ids.split([3, 5], 1)]
        apart = model(ids, position_ids=positions, use_cache=False)[0]
        leaking = model(ids, position_ids=positions)[0]
    torch.testing.assert_close(apart, torch.cat(parts, 1), atol=1e-5, rtol=0)
    assert (leaking - apart)[:, 3:].abs().max() > 0.01
    torch.testing.assert_close(leaking[:, :3], parts[0], atol=1e-5, rtol=0)


def test_the_cpu_kernel_of_torch_drops_weights_that_float32_has():
    """e^-87 is a normal number, and the unfused softmax keeps it down to e^-103.

    The fused kernel drops it where it works with vectors of 512 bits; narrower ones may keep it.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def masked_keys_get(constant):
        value = torch.zeros(1, 1, 64, 4)
        value[:, :, 1:] = 1e30
        added = torch.full((4, 64), -constant)
        added[:, 0] = 0
        zeros = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 64, 4)
        return F.scaled_dot_product_attention(*zeros, value, attn_mask=added).max().item()

    assert masked_keys_get(86.0) > 0
    assert masked_keys_get(104.0) == 0
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert masked_keys_get(87.0) == 0
    with sdpa_kernel(SDPBackend.MATH):
        assert masked_keys_get(87.0) > 0
        assert masked_keys_get(103.0) > 0
        assert masked_keys_get(104.0) == 0


def test_transformers_makes_no_mask_where_is_causal_is_enough():
    from transformers import masking_utils

    made = masking_utils.create_causal_mask(
        config=config("sdpa"),
        inputs_embeds=torch.zeros(B, 6, 8),
        attention_mask=None,
        past_key_values=None,
    )
    assert made is None


def test_a_decode_step_of_is_causal_sees_key_zero_alone():
    q, k, v = inputs()
    theirs = F.scaled_dot_product_attention(q[:, :, :1], k, v, is_causal=True)
    torch.testing.assert_close(theirs, v[:, :, :1])
    upper_left = causal_mask(1, S, offset=0)
    ours = scaled_dot_product_attention(q[:, :, :1], k, v, upper_left)
    torch.testing.assert_close(theirs, ours)


def test_nan_in_a_masked_value_poisons_torch_as_well():
    q, k, v = inputs()
    v[:, :, -1] = torch.nan
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[:, -1] = False
    assert F.scaled_dot_product_attention(q, k, v, attn_mask=mask).isnan().any()
    assert scaled_dot_product_attention(q, k, v, mask).isnan().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("with_grad", [True, False])
def test_an_empty_row_of_multi_head_attention_depends_on_the_path(
    training, need_weights, with_grad
):
    """NaN with weights, and on the fast path (eval, no grad); otherwise the output bias."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(D, 2, batch_first=True, dtype=torch.float64).train(training)
    blocked = torch.zeros(S, S, dtype=torch.bool)
    blocked[2] = True
    x = inputs()[1][:, 0]
    with torch.set_grad_enabled(with_grad):
        out, _ = module(x, x, x, attn_mask=blocked, need_weights=need_weights)
    not_a_number = need_weights or not (training or with_grad)
    assert out[:, 2].isnan().all() == not_a_number
    if not not_a_number:
        torch.testing.assert_close(out[:, 2], module.out_proj.bias.expand(B, D))


def test_an_empty_row_is_uniform_over_all_keys_in_eager_attention():
    from transformers.models.llama.modeling_llama import eager_attention_forward

    q, k, v = inputs(torch.float32)
    mask = causal_mask(T, S)
    mask[1] = False
    added = additive_mask(mask, value=torch.finfo(torch.float32).min).expand(B, 1, T, S)
    module = types.SimpleNamespace(num_key_value_groups=1, training=False)
    _, weights = eager_attention_forward(module, q, k, v, added, scaling=0.5, dropout=0.0)
    torch.testing.assert_close(weights[:, :, 1], torch.full((B, H, S), 1 / S))
