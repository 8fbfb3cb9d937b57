"""Several heads: shapes, the sum form, circuits, the gauge freedom, and the counts."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmref.attention.masks import and_masks, causal_mask, padding_mask
from llmref.attention.multi_head import (
    MultiHeadAttention,
    attention_flops,
    attention_parameters,
    gauge_transform,
    merge_heads,
    split_heads,
)
from llmref.attention.scaled_dot_product import attention_weights, scaled_dot_product_attention
from tests.tensors import close, random

B, H, T, S, D = 2, 3, 5, 7, 4
WIDTH = H * D
law = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)


def layer(embed_dim=WIDTH, num_heads=H, seed=0, **options):
    made = MultiHeadAttention(embed_dim, num_heads, **options).double()
    with torch.no_grad():
        for n, parameter in enumerate(made.parameters()):
            parameter.copy_(0.5 * random(*parameter.shape, seed=seed + n))
    return made


def test_heads_take_neighbouring_features():
    """Two heads of (1, 2, 3, 4) are (1, 2) and (3, 4), at every position."""
    x = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])
    assert split_heads(x, 2).tolist() == [[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]
    assert x.view(1, 2, 2, 2).tolist() != split_heads(x, 2).tolist()


def test_merging_undoes_splitting():
    x = random(B, T, WIDTH)
    assert split_heads(x, H).shape == (B, H, T, D)
    assert merge_heads(split_heads(x, H)).equal(x)
    y = random(B, H, T, D)
    assert split_heads(merge_heads(y), H).equal(y)
    assert not y.reshape(B, T, WIDTH).equal(merge_heads(y))
    assert split_heads(x[0], H).equal(split_heads(x, H)[0])
    assert split_heads(x[:, :0], H).shape == (B, H, 0, D)


def test_split_heads_is_a_view():
    x = random(B, T, WIDTH)
    split_heads(x, H)[:, 1] = 0
    assert (x[..., D : 2 * D] == 0).all()


def test_one_head_of_size_one_worked_by_hand():
    """All weights 1, x = (0, log 3): row 1 has scores (0, log(3)^2)."""
    made = layer(1, 1, bias=False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1)
    a = math.log(3)
    weight = 1 / (1 + math.exp(-a * a))
    x = torch.tensor([[[0.0], [a]]], dtype=torch.float64)
    close(made(x)[0, 1], weight * x[0, 1])


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_equals_its_slow_definition(bias):
    made, x, y = layer(bias=bias), random(B, T, WIDTH), random(B, S, WIDTH, seed=1)
    heads = []
    for h in range(H):
        rows = slice(h * D, (h + 1) * D)
        q, k, v = (
            z @ p.weight[rows].T + (p.bias[rows] if bias else 0)
            for z, p in ((x, made.q_proj), (y, made.k_proj), (y, made.v_proj))
        )
        heads.append(torch.softmax(q @ k.mT / math.sqrt(D), -1) @ v)
    close(made(x, y, y), made.o_proj(torch.cat(heads, -1)))


@given(seeds, st.booleans(), st.booleans())
@law
def test_the_layer_is_the_sum_of_what_its_heads_write(seed, bias, causal):
    made, x = layer(bias=bias, seed=seed), random(B, T, WIDTH, seed=seed)
    written = made.head_outputs(x, is_causal=causal)
    assert written.shape == (B, H, T, WIDTH)
    offset = made.o_proj.bias if bias else 0
    close(written.sum(1) + offset, made(x, is_causal=causal))


def test_removing_a_head_removes_its_term_only():
    made, x = layer(), random(B, T, WIDTH)
    pruned = copy.deepcopy(made)
    with torch.no_grad():
        pruned.o_proj.weight[:, D : 2 * D] = 0
    close(made(x) - pruned(x), made.head_outputs(x)[:, 1])


def test_weights_are_those_of_each_head():
    made, x = layer(), random(B, T, WIDTH)
    out, weights = made(x, is_causal=True, need_weights=True)
    close(out, made(x, is_causal=True))
    q, k = split_heads(made.q_proj(x), H), split_heads(made.k_proj(x), H)
    close(weights, attention_weights(q, k, is_causal=True))


@pytest.mark.parametrize(
    "mask",
    [
        causal_mask(T, S),
        causal_mask(T, S).expand(1, 1, T, S),
        and_masks(causal_mask(T, S), padding_mask(torch.tensor([[1] * S, [1] * 6 + [0]]))),
        padding_mask(torch.tensor([[1] * S, [0, 1, 1, 1, 1, 1, 1]])),
        random(1, H, T, S),
    ],
)
def test_masks_reach_every_head(mask):
    made, x, y = layer(), random(B, T, WIDTH), random(B, S, WIDTH, seed=1)
    q, k, v = (
        split_heads(p(z), H) for p, z in ((made.q_proj, x), (made.k_proj, y), (made.v_proj, y))
    )
    heads = scaled_dot_product_attention(q, k, v, mask)
    close(made(x, y, y, mask), made.o_proj(merge_heads(heads)))


def test_a_later_token_changes_no_earlier_output_by_a_single_bit():
    made, x = layer(), random(B, T, WIDTH)
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = made(x, is_causal=True), made(changed, is_causal=True)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


def test_a_row_that_may_attend_to_nothing_is_the_output_bias():
    made, x = layer(), random(B, T, WIDTH)
    mask = causal_mask(T)
    mask[2] = False
    close(made(x, attn_mask=mask)[:, 2], made.o_proj.bias.expand(B, WIDTH))


def test_sizes_are_free_of_each_other():
    made = layer(10, H, head_dim=D, kdim=6, vdim=8)
    x, y, z = random(B, T, 10), random(B, S, 6), random(B, S, 8)
    assert made(x, y, z).shape == (B, T, 10)
    assert made.head_outputs(x, y, z).shape == (B, H, T, 10)


def test_circuits_are_scores_and_copies():
    made, x = layer(10, H, head_dim=D, bias=False), random(B, T, 10)
    scores = x[:, None] @ made.qk_circuit() @ x[:, None].mT
    weights = torch.softmax(scores, -1)
    close(weights, made(x, need_weights=True)[1])
    close((weights @ x[:, None] @ made.ov_circuit()).sum(1), made(x))
    for circuit in (made.qk_circuit(), made.ov_circuit()):
        assert circuit.shape == (H, 10, 10)
        assert (torch.linalg.matrix_rank(circuit) == D).all()


def test_circuits_of_other_key_and_value_widths():
    made = layer(10, H, head_dim=D, kdim=6, vdim=8, bias=False)
    assert made.qk_circuit().shape == (H, 10, 6)
    assert made.ov_circuit().shape == (H, 8, 10)


def test_a_constant_feature_absorbs_the_biases_of_the_scores():
    """With biases the scores are (x, 1) M (x, 1)^T."""
    made, x = layer(10, 1, head_dim=D), random(B, T, 10)
    q = torch.cat([made.q_proj.weight.T, made.q_proj.bias[None]])
    k = torch.cat([made.k_proj.weight.T, made.k_proj.bias[None]])
    wide = torch.cat([x, torch.ones(B, T, 1).double()], -1)
    scores = wide @ (q @ k.T / 2) @ wide.mT
    close(torch.softmax(scores, -1), made(x, need_weights=True)[1][:, 0])


@given(seeds, st.booleans())
@law
def test_a_change_of_basis_inside_the_heads_changes_nothing(seed, bias):
    made, x = layer(bias=bias, seed=seed), random(B, T, WIDTH, seed=seed)
    eye = 2 * torch.eye(D).double()
    turned = gauge_transform(
        made, eye + 0.2 * random(H, D, D, seed=seed), eye + 0.2 * random(H, D, D, seed=seed + 1)
    )
    assert (turned.q_proj.weight - made.q_proj.weight).abs().max() > 0.1
    assert (turned.o_proj.weight - made.o_proj.weight).abs().max() > 0.1
    close(turned(x, is_causal=True), made(x, is_causal=True), atol=1e-10)
    close(turned.head_outputs(x), made.head_outputs(x), atol=1e-10)


def test_a_gauge_transformation_leaves_the_original_alone():
    made = layer()
    before = copy.deepcopy(made.state_dict())
    gauge_transform(made, random(H, D, D), random(H, D, D, seed=1))
    assert all(torch.equal(before[name], x) for name, x in made.state_dict().items())


def test_dropout_acts_in_training_alone_and_not_on_the_returned_weights():
    made, x = layer(dropout=0.5), random(B, T, WIDTH)
    close(made.eval()(x), made(x))
    close(made.head_outputs(x).sum(1) + made.o_proj.bias, made(x))
    torch.manual_seed(0)
    out, weights = made.train()(x, need_weights=True)
    assert (out - made.eval()(x)).abs().max() > 0.1
    close(weights.sum(-1), torch.ones(B, H, T).double())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 8}])
def test_a_module_of_torch_is_copied(bias, sizes):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, H, bias=bias, dropout=0.25, **sizes).double().eval()
    ours = MultiHeadAttention.from_torch(theirs)
    assert ours.dropout == 0.25
    assert not ours.training
    assert ours.q_proj.weight.dtype == torch.float64
    x, y, z = random(B, T, WIDTH), random(B, S, ours.k_proj.in_features), random(B, S, 8)
    z = z if sizes else y
    expected = theirs(x.mT.permute(2, 0, 1), y.mT.permute(2, 0, 1), z.mT.permute(2, 0, 1))[0]
    close(ours(x, y, z), expected.transpose(0, 1))


def test_a_copied_module_takes_the_batch_first_whatever_torch_did():
    """(T, B, C) has as many axes, so nothing is raised: the result is another one."""
    torch.manual_seed(0)
    for batch_first in (False, True):
        theirs = nn.MultiheadAttention(WIDTH, H, batch_first=batch_first).double().eval()
        ours, x = MultiHeadAttention.from_torch(theirs), random(B, T, WIDTH)
        given = x if batch_first else x.transpose(0, 1)
        expected = theirs(given, given, given)[0]
        close(ours(x), expected if batch_first else expected.transpose(0, 1))
        assert (ours(x.transpose(0, 1)).transpose(0, 1) - ours(x)).abs().max() > 0.01


GRID = list(itertools.product([8, 12], [1, 2, 4], [None, 5], [True, False]))


@pytest.mark.parametrize(("width", "heads", "head_dim", "bias"), GRID)
def test_parameters_are_counted(width, heads, head_dim, bias):
    made = MultiHeadAttention(width, heads, head_dim=head_dim, bias=bias)
    counted = sum(p.numel() for p in made.parameters())
    assert attention_parameters(width, heads, head_dim=head_dim, bias=bias) == counted
    if head_dim is None:
        assert counted == 4 * width**2 + (4 * width if bias else 0)


def test_shared_heads_save_keys_and_values_only():
    """C = 12, H = 6, D = 2: 2 * 144 for queries and output, 2 * 12 * 4 for two shared heads."""
    assert attention_parameters(12, 6, num_kv_heads=2) == 288 + 96
    assert attention_parameters(12, 6, num_kv_heads=2, bias=True) == 288 + 96 + 12 + 8 + 12
    full, shared = (attention_flops(1, 8, 8, 12, 6, num_kv_heads=g) for g in (6, 2))
    assert shared["key"] * 3 == full["key"]
    assert shared["scores"] == full["scores"]
    assert full["query"] + full["key"] == 2 * full["query"]


def test_operations_worked_by_hand():
    """B = 2, T = 12, C = 16: 8 * 2 * 12 * 256 + 4 * 2 * 144 * 16 = 49152 + 18432."""
    flops = attention_flops(2, 12, 12, 16, 4)
    assert flops["total"] == 67584
    assert sum(flops.values()) == 2 * flops["total"]
    causal = attention_flops(2, 12, 12, 16, 4, causal=True)
    assert causal["scores"] + causal["weighted_sum"] == 2 * 2 * 12 * 13 * 16


def test_operations_are_those_that_torch_counts():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    made = MultiHeadAttention(10, H, head_dim=D, bias=False)
    x, y = torch.randn(B, T, 10), torch.randn(B, S, 10)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        made(x, y, y)
    assert counter.get_total_flops() == attention_flops(B, T, S, 10, H, head_dim=D)["total"]


def test_causal_pairs_are_those_of_the_mask():
    for t, s in [(1, 1), (1, 7), (5, 7), (6, 6)]:
        pairs = int(causal_mask(t, s).sum())
        flops = attention_flops(B, t, s, WIDTH, H, causal=True)
        assert flops["scores"] == 2 * B * H * D * pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_dtype_is_kept(dtype):
    made, x = layer(), random(B, T, WIDTH)
    expected = made(x)
    out = made.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)


def test_the_gradient_agrees_with_finite_differences():
    made = layer(6, 2, bias=True)
    x = random(1, 3, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made(x, is_causal=True), (x,))


def test_heads_that_do_not_divide_the_width_are_refused():
    for call in (MultiHeadAttention, attention_parameters):
        with pytest.raises(ValueError, match="embed_dim 10 is not divisible by num_heads 3"):
            call(10, 3)
    with pytest.raises(ValueError, match=r"num_heads 3 must divide the features of x \(2, 5, 10\)"):
        split_heads(torch.ones(2, 5, 10), 3)
    with pytest.raises(ValueError, match="num_heads must be at least 1, got 0"):
        split_heads(torch.ones(2, 5, 10), 0)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., T, HD\), got \(10,\)"):
        split_heads(torch.ones(10), 2)
    with pytest.raises(ValueError, match=r"must be \(..., H, T, D\), got \(5, 10\)"):
        merge_heads(torch.ones(5, 10))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="num_heads must be at least 1, got 0"):
        MultiHeadAttention(12, 0)
    with pytest.raises(ValueError, match="embed_dim must be at least 1, got 0"):
        attention_parameters(0, 1)
    with pytest.raises(ValueError, match="head_dim must be at least 1, got 0"):
        MultiHeadAttention(12, 3, head_dim=0)
    for name in ("kdim", "vdim"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            MultiHeadAttention(12, 3, **{name: 0})
    with pytest.raises(ValueError, match="num_kv_heads 4 must divide num_heads 6"):
        attention_parameters(12, 6, num_kv_heads=4)
    with pytest.raises(ValueError, match="num_kv_heads must be at least 1, got 0"):
        attention_parameters(12, 6, num_kv_heads=0)
    with pytest.raises(ValueError, match="key_len must be at least 1, got 0"):
        attention_flops(1, 2, 0, 12, 3)
    with pytest.raises(
        ValueError, match="causal attention needs at least as many keys as queries, got 3 keys"
    ):
        attention_flops(1, 5, 3, 12, 3, causal=True)
    for dropout in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {dropout}"):
            MultiHeadAttention(12, 3, dropout=dropout)


def test_inputs_that_do_not_fit_are_refused():
    made, x, y = layer(kdim=6, vdim=8), random(B, T, WIDTH), random(B, S, 6)
    with pytest.raises(ValueError, match="key was given without value"):
        made(x, y)
    with pytest.raises(ValueError, match="value was given without key"):
        made(x, value=y)
    with pytest.raises(ValueError, match=r"value must be \(B, T, 8\), got \(2, 7, 6\)"):
        made(x, y, y)
    with pytest.raises(ValueError, match=r"query must be \(B, T, 12\), got \(5, 12\)"):
        made(x[0])
    with pytest.raises(ValueError, match=r"value must be .*, got \(2, 3, 6, 4\)"):
        made(x, y, random(B, S - 1, 8), torch.ones(T, S, dtype=torch.bool))


def test_masks_that_do_not_fit_are_not_broadcast():
    """(B, T, S) with B == H would mask head b instead of sequence b."""
    made = layer()
    x = random(H, T, WIDTH)
    shapes = [(H, T, T), (T, T - 1), (1, T), (T,), (1, 2, T, T), (H, 1, T, 1), (2, 1, 1, T)]
    for shape in [*shapes, (H, H, T - 1, T)]:
        with pytest.raises(ValueError, match=r"attn_mask must be \(T, S\) or") as caught:
            made(x, attn_mask=torch.ones(shape, dtype=torch.bool))
        assert str(shape) in str(caught.value)


def test_circuits_of_a_layer_with_biases_are_refused():
    for circuit in (layer().qk_circuit, layer().ov_circuit):
        with pytest.raises(ValueError, match="needs bias=False"):
            circuit()


def test_a_change_of_basis_must_be_one():
    made, good = layer(), random(H, D, D)
    with pytest.raises(ValueError, match=r"qk must be \(3, 4, 4\), got \(4, 4\)"):
        gauge_transform(made, good[0], good)
    singular = good.clone()
    singular[1] = 0
    with pytest.raises(ValueError, match="vo must be invertible in every head"):
        gauge_transform(made, good, singular)
    with pytest.raises(ValueError, match="qk must be invertible in every head"):
        gauge_transform(made, good * math.nan, good)


def test_modules_that_append_keys_are_refused():
    for option in ("add_bias_kv", "add_zero_attn"):
        with pytest.raises(ValueError, match="neither add_bias_kv nor add_zero_attn"):
            MultiHeadAttention.from_torch(nn.MultiheadAttention(WIDTH, H, **{option: True}))
