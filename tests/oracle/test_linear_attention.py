"""Linear attention and the delta rule against MiniMax, Qwen3-Next and Kimi Linear in transformers.

transformers computes both delta rules in float32; they get float64 through a patched Tensor.to.
"""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from llmref.attention.linear_attention import (
    delta_rule_chunked,
    delta_rule_recurrent,
    linear_attention_chunked,
    linear_attention_recurrent,
)
from tests.tensors import random

TOPIC = "attention/linear_attention"
B, H, T, DK, DV = 2, 3, 11, 5, 7
D = 6  # of MiniMax, even for its rotary layers
# sums of some tens of products in float32, of outputs below 10
SINGLE = 5e-6


def inputs():
    """Query, key of unit length, value, beta, log decay: (B, H, T, D) each."""
    q, k, v = random(B, H, T, DK), random(B, H, T, DK, seed=1), random(B, H, T, DV, seed=2)
    beta, decay = random(B, H, T, seed=3).sigmoid(), -random(B, H, T, seed=4).exp()
    return q, k / k.norm(dim=-1, keepdim=True), v, beta, decay


def theirs(name, q, k, v, beta, decay, **options):
    """Their function, which takes (B, T, H, D) and returns the state as (B, H, Dk, Dv)."""
    from transformers.models.kimi_linear import modeling_kimi_linear as kimi
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen

    function = getattr(qwen, name, None) or getattr(kimi, name)
    q, k, v, beta, decay = (x.transpose(1, 2) for x in (q, k, v, beta, decay))
    if hasattr(kimi, name):
        decay = decay[..., None].expand(*decay.shape, DK)
    out, state = function(q, k, v, decay, beta, output_final_state=True, **options)
    return out.transpose(1, 2), state


@pytest.fixture
def in_float64(monkeypatch):
    """Their float32 becomes float64: Tensor.to with that dtype, and Tensor.float."""
    old = torch.Tensor.to

    def to(x, *arguments, **options):
        wider = [torch.float64 if it is torch.float32 else it for it in arguments]
        return old(x, *wider, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x.double())


def compare(agreement, formula, found, expected, atol, convention):
    for one, other in zip(found, expected, strict=True):
        agreement(
            formula, "transformers", one.double(), other.double(), atol=atol, convention=convention
        )


NAMES = [
    ("torch_recurrent_gated_delta_rule", {}),
    ("torch_chunk_gated_delta_rule", {"chunk_size": 4}),
    ("torch_chunk_gated_delta_rule", {"chunk_size": 64}),
]


@pytest.mark.parametrize("start", [None, random(B, H, DK, DV, seed=5)], ids=["zero", "state"])
@pytest.mark.parametrize(("name", "options"), NAMES, ids=str)
def test_delta_rule_equals_qwen3_next(agreement, name, options, start):
    q, *rest = inputs()
    ours = delta_rule_chunked(q * DK**-0.5, *rest, start, chunk_size=3)
    compare(
        agreement,
        "gated delta rule, outputs and state",
        ours,
        theirs(name, q, *rest, initial_state=start, **options),
        SINGLE,
        "Qwen3-Next, float32 inside: (B, T, H, D), query scaled by 1/sqrt(Dk)",
    )


@pytest.mark.parametrize(("name", "options"), NAMES, ids=str)
def test_delta_rule_equals_qwen3_next_in_float64(agreement, in_float64, name, options):
    q, *rest = inputs()
    compare(
        agreement,
        "gated delta rule, float64",
        delta_rule_recurrent(q * DK**-0.5, *rest),
        theirs(name, q, *rest, **options),
        1e-12,
        "Qwen3-Next, its casts to float32 replaced",
    )


@pytest.mark.parametrize(("name", "options"), NAMES[:2], ids=str)
def test_normalised_keys_equal_qwen3_next(agreement, name, options):
    q, k, *rest = inputs()
    k = 3 * k
    unit = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    q_unit, k_unit = unit
    compare(
        agreement,
        "gated delta rule, unit queries and keys",
        delta_rule_recurrent(q_unit * DK**-0.5, k_unit, *rest),
        theirs(name, q, k, *rest, use_qk_l2norm_in_kernel=True, **options),
        SINGLE,
        "use_qk_l2norm_in_kernel: 1e-6 is added to the sum of squares",
    )


@pytest.mark.parametrize("name", ["chunk_kimi_delta_attention", "recurrent_kimi_delta_attention"])
def test_delta_rule_equals_kimi_linear_with_one_decay_for_all_channels(agreement, in_float64, name):
    q, *rest = inputs()
    compare(
        agreement,
        "gated delta rule, one decay for all channels",
        delta_rule_chunked(q * DK**-0.5, *rest, chunk_size=4),
        theirs(name, q, *rest, initial_state=None),
        1e-12,
        "Kimi Linear, its casts to float32 replaced: a log decay per key channel",
    )


def minimax(length, block):
    """A lightning attention layer, and what it computes before its norm, gate and projection."""
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    config = MiniMaxConfig(
        hidden_size=H * D,
        head_dim=D,
        num_attention_heads=H,
        num_key_value_heads=H,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        block_size=block,
    )
    layer = MiniMaxLightningAttention(config, layer_idx=0).double()
    slopes = layer.get_slope_rate().double()  # their buffers were rounded to float32
    layer.slope_rate = slopes
    layer.query_decay, layer.key_decay, layer.diagonal_decay = layer.decay_factors(slopes)
    x = random(B, length, H * D)
    seen = []
    layer.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    _, state = layer(x, None, None)
    rows = F.silu(layer.qkv_proj(x)).view(B, length, H, 3 * D).transpose(1, 2)
    return rows.split(D, -1), slopes.view(H), seen[0].view(B, length, H, D).transpose(1, 2), state


@torch.no_grad()
@pytest.mark.parametrize("block", [4, 16])
def test_linear_attention_equals_minimax(agreement, block):
    (q, k, v), slopes, out, state = minimax(T, block)
    decay = -slopes.view(1, H, 1).expand(B, H, T)
    for ours in (
        linear_attention_recurrent(q, k, v, decay),
        linear_attention_chunked(q, k, v, decay, chunk_size=3),
    ):
        compare(
            agreement,
            "linear attention with decay, outputs and state",
            ours,
            (out, state),
            1e-12,
            "MiniMax before its norm: one decay per head, silu on queries, keys and values",
        )


def test_chunks_of_qwen3_next_lose_decays_after_a_strong_one():
    """They subtract cumulated log decays: float32 numbers near 1e9 are 64 apart."""
    q, k, v, beta, decay = inputs()
    decay[..., 1] = -1e9
    ours, exact = (
        form(q * DK**-0.5, k, v, beta, decay)[0]
        for form in (
            lambda *x: delta_rule_chunked(*(each.float() for each in x), chunk_size=64),
            delta_rule_recurrent,
        )
    )
    chunks = theirs("torch_chunk_gated_delta_rule", q, k, v, beta, decay)[0]
    steps = theirs("torch_recurrent_gated_delta_rule", q, k, v, beta, decay)[0]
    assert (ours.double() - exact).abs().max() < SINGLE
    assert (steps - exact).abs().max() < SINGLE
    assert (chunks - exact).abs().max() > 0.05
