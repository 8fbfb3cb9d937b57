"""Grouped-query attention against torch, transformers and torchtune."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from llmref.attention.grouped_query import (
    GroupedQueryAttention,
    grouped_query_attention,
    grouped_query_attention_backward,
    repeat_kv,
)
from tests.tensors import random

TOPIC = "attention/grouped_query"
B, H, T, S, D = 2, 6, 5, 7, 4
GROUPS = {1: "multi-query (G = 1)", 3: "grouped (G = 3, H = 6)", 6: "multi-head (G = H)"}


def inputs(groups):
    return (
        random(B, H, T, D, seed=1),
        random(B, groups, S, D, seed=2),
        random(B, groups, S, D, seed=3),
    )


@pytest.mark.parametrize("groups", GROUPS)
def test_output_and_gradients_equal_enable_gqa_of_torch(agreement, groups):
    tensors = [x.requires_grad_() for x in inputs(groups)]
    mask = torch.rand(B, H, T, S, generator=torch.Generator().manual_seed(4)) < 0.7
    mask[..., 1, :] = False
    theirs = F.scaled_dot_product_attention(*tensors, attn_mask=mask, enable_gqa=True)
    grad = random(B, H, T, D, seed=5)
    their_gradients = torch.autograd.grad(theirs, tensors, grad)
    convention = "enable_gqa=True; boolean mask with an empty row"
    formula = f"attention, {GROUPS[groups]}"
    ours = grouped_query_attention(*tensors, mask)
    agreement(formula, "torch", ours, theirs, atol=1e-12, convention=convention)
    our_gradients = grouped_query_attention_backward(grad, *tensors, mask)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        agreement(f"{formula}, gradient", "torch", a, b, atol=1e-12, convention=convention)


def test_without_enable_gqa_torch_broadcasts_one_head_and_refuses_two():
    """G = 1 works by broadcasting; 1 < G < H is an error about sizes that says nothing of heads."""
    query, key, value = inputs(1)
    silent = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(silent, grouped_query_attention(query, key, value))
    query, key, value = inputs(3)
    with pytest.raises(RuntimeError, match="size"):
        F.scaled_dot_product_attention(query, key, value)


def test_repeat_kv_equals_transformers(agreement):
    from transformers.models.llama.modeling_llama import repeat_kv as theirs

    x = random(B, 3, T, D)
    agreement("repeat_kv", "transformers", repeat_kv(x, 4), theirs(x, 4), atol=0.0)


@pytest.mark.parametrize("groups", GROUPS)
def test_module_equals_llama_attention(agreement, groups):
    """At zero angles (cos 1, sin 0) the rotation is the identity, so the module is what is left."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

    config = LlamaConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        num_key_value_heads=groups,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    theirs = LlamaAttention(config, layer_idx=0).double()
    ours = GroupedQueryAttention(H * D, H, groups).double()
    ours.load_state_dict(theirs.state_dict())
    x = random(B, T, H * D)
    cos, sin = torch.ones(1, T, D).double(), torch.zeros(1, T, D).double()
    mask = torch.ones(T, T, dtype=torch.bool).tril()[None, None]
    out, _ = theirs(x, (cos, sin), mask)
    agreement(
        f"module, {GROUPS[groups]}",
        "transformers",
        ours(x, is_causal=True),
        out,
        atol=1e-12,
        convention="LlamaAttention, sdpa, same state dict, positions switched off",
    )


@pytest.mark.usefixtures("torchtune_imports")
def test_module_equals_torchtune(agreement):
    from torch import nn
    from torchtune.modules import MultiHeadAttention

    torch.manual_seed(0)
    ours = GroupedQueryAttention(H * D, H, 3).double()
    theirs = MultiHeadAttention(
        embed_dim=H * D,
        num_heads=H,
        num_kv_heads=3,
        head_dim=D,
        q_proj=ours.q_proj,
        k_proj=ours.k_proj,
        v_proj=ours.v_proj,
        output_proj=ours.o_proj,
        pos_embeddings=nn.Identity(),
        is_causal=True,
        attn_dropout=0.0,
    ).double()

    theirs.pos_embeddings = None
    x = random(B, T, H * D)
    agreement(
        "module, grouped (G = 3, H = 6)",
        "torchtune",
        ours(x, is_causal=True),
        theirs(x, x),
        atol=1e-12,
        convention="modules.MultiHeadAttention, no positions",
    )
