"""The requirements that all formulas share: what they let pass, and what a refusal says."""

import math
from typing import Literal

import pytest
import torch

from llmref._require import (
    boolean_mask,
    require_at_least,
    require_axis,
    require_broadcastable,
    require_choice,
    require_constant,
    require_dim,
    require_finite,
    require_float_dtype,
    require_floating,
    require_ids,
    require_in,
    require_index,
    require_int,
    require_integers,
    require_number,
    require_number_or_tensor,
    require_one_dtype,
    require_positive,
    require_real,
    require_shapes,
    require_size,
    require_tensor,
    require_wide_dtype,
)
from llmref.attention import (
    GroupedQueryAttention,
    KVCache,
    MultiHeadAttention,
    SlidingWindowKVCache,
    attention_flops,
    attention_pairs,
    attention_parameters,
    causal_mask,
    decode_intensity,
    dependency_matrix,
    empty_state,
    hbm_elements,
    kv_cache_bytes,
    kv_head_index,
    receptive_field,
    repeat_kv,
    sliding_window_mask,
    standard_hbm_elements,
)
from llmref.components import (
    Linear,
    SwiGLU,
    convert_qk_weight,
    ffn_params,
    init_std,
    learn_merges,
    linear_flops,
    lora_param_count,
    swiglu_hidden_dim,
    yarn_inv_freq,
)
from llmref.functional import (
    linear_cross_entropy,
    mi_lower_bound,
    nf4_quantize,
    pack_sequences,
    quantize_groupwise,
    response_mask,
    sample_without_replacement,
)
from llmref.norm import LayerNorm, RMSNorm
from llmref.rl import binary_group_weight, k_step_advantage, masked_whiten

ONES = torch.ones(2, 3)
COMPLEX = torch.zeros(2, dtype=torch.complex64)
NAN, WIDE, LEAF = ONES * math.nan, ONES.double(), torch.ones(1, requires_grad=True)
IDS = torch.tensor([1, 3])
Letters = Literal["a", "b"]


@pytest.mark.parametrize(
    ("axes", "x", "y"),
    [
        ("x (B, D), y (B, D)", (2, 3), (2, 3)),
        ("x (..., n), y (n,)", (2, 5, 3), (3,)),
        ("x (..., n), y (...)", (2, 5, 3), (2, 5)),
        ("x (..., n), y (...)", (3,), ()),
        ("x (B, _), y (_, B)", (2, 3), (7, 2)),
        ("x (B, B), y (n,)", (4, 4), (0,)),
    ],
)
def test_shapes_that_fit_pass(axes, x, y):
    require_shapes(axes, x=torch.ones(x), y=torch.ones(y))


@pytest.mark.parametrize(
    ("axes", "x", "y", "message"),
    [
        ("x (B, D), y (B, D)", (2, 3), (3, 2), r"y must be \(B, D\) = \(2, 3\) beside x \(2, 3\)"),
        ("x (B, D), y (D, K)", (2, 3), (2, 5), r"y must be \(D, K\) .*, got \(2, 5\); D = 3$"),
        ("x (..., D), y (..., K)", (2, 3), (5,), r"y .*, got \(5,\); \.\.\. = \(2,\)$"),
        ("x (B, D), y (K, L)", (2, 3), (5,), r"y must be \(K, L\) beside x .*, got \(5,\)$"),
        ("x (..., n), y (n,)", (), (3,), r"x must be \(\.\.\., n\), got \(\)"),
        ("x (..., n), y (..., n)", (2, 3), (3,), r"y must be \(\.\.\., n\) = \(2, 3\)"),
        ("x (B, B), y (n,)", (2, 3), (3,), r"x must be \(B, B\), got \(2, 3\)"),
        ("x (B, D), y (B,)", (2, 3), (2, 1), r"y must be \(B,\) = \(2,\) .* got \(2, 1\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_those_beside_it(axes, x, y, message):
    with pytest.raises(ValueError, match=message):
        require_shapes(axes, x=torch.ones(x), y=torch.ones(y))


def test_a_tensor_that_was_not_given_fits_any_shape():
    require_shapes("x (B, D), y (B, D)", x=ONES, y=None)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", (0, 0.5, 0.9999999999), (1, -1e-9, math.nan, math.inf)),
        ("(0, 1]", (1e-300, 1), (0, 1.0000000001, math.nan)),
        ("(0, inf]", (1, math.inf), (0, math.nan)),
        ("[-inf, inf)", (-math.inf, 0), (math.inf, math.nan)),
    ],
)
def test_the_ends_of_an_interval_belong_to_it_as_written(interval, inside, outside):
    for value in inside:
        require_in(interval, p=value)
        require_in(interval, p=torch.tensor([value], dtype=torch.float64))
    for value in outside:
        with pytest.raises(ValueError, match=f"p must be in .*, got {value}"):
            require_in(interval, p=value)
        with pytest.raises(ValueError, match="p must be in"):
            require_in(interval, p=torch.tensor([inside[0], value], dtype=torch.float64))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x must be floating point, got torch.int64", lambda: require_floating(x=IDS)),
        (TypeError, "d must be floating point", lambda: require_float_dtype(d=torch.int8)),
        (
            TypeError,
            "one dtype, got x .*32, y .*64",
            lambda: require_one_dtype(x=ONES, y=WIDE),
        ),
        (
            TypeError,
            "x must hold integers, got torch.bool",
            lambda: require_integers(x=IDS.bool()),
        ),
        (TypeError, "k must be an int, got True", lambda: require_int(k=True)),
        (TypeError, "t must be a number, got True", lambda: require_number(t=True)),
        (TypeError, r"t must be one number, got a tensor \(2, 3\)", lambda: require_number(t=ONES)),
        (TypeError, "k must be an int, got 2.0", lambda: require_size(1, k=2.0)),
        (ValueError, "k must be at least 1, got 0: so", lambda: require_size(1, hint=": so", k=0)),
        (ValueError, "k must be at least 1, got 0", lambda: require_index(1, k=0)),
        (
            ValueError,
            r"k must be below 2\^63, got an int of 64 bits",
            lambda: require_index(1, k=2**63),
        ),
        (TypeError, "dim must be an int, got None", lambda: require_dim(None, x=ONES)),
        (
            ValueError,
            r"dim must be an axis of x \(2, 3\), in \[-2, 2\), got -3",
            lambda: require_dim(-3, x=ONES),
        ),
        (
            ValueError,
            r"dim must be an axis of x \(\), which has none, got -1",
            lambda: require_dim(-1, x=ONES.sum()),
        ),
        (
            ValueError,
            r"x must be \(N, T\) with N >= 3, got \(2, 3\)",
            lambda: require_axis("N", 3, "x (N, T)", x=ONES),
        ),
        (
            ValueError,
            r"x must be \(N,\), got \(2, 3\)",
            lambda: require_axis("N", 1, "x (N,)", x=ONES),
        ),
        (
            ValueError,
            r"p must be in \[0, 1\), got 1: so",
            lambda: require_in("[0, 1)", hint=": so", p=1),
        ),
        (
            ValueError,
            r"x holds the id 3, outside \[0, 3\)!",
            lambda: require_ids(3, hint="!", x=IDS),
        ),
        (ValueError, r"outside \[2, 9\)", lambda: require_ids(9, lowest=2, x=IDS)),
        (ValueError, "k must be at least 2, got 1", lambda: require_at_least(2, k=1)),
        (ValueError, "at least 0 and finite, got inf", lambda: require_at_least(0, k=math.inf)),
        (ValueError, "t must be positive and finite, got 0", lambda: require_positive(t=0.0)),
        (ValueError, "positive and finite, got -1", lambda: require_positive(t=-ONES)),
        (
            ValueError,
            r"finite here, got nan \(6 of 6",
            lambda: require_finite(" here", x=NAN),
        ),
        (
            ValueError,
            "must not require grad",
            lambda: require_constant(x=LEAF),
        ),
        (
            ValueError,
            r"m must be one of \['a', 'b'\], got 'c'",
            lambda: require_choice(Letters, m="c"),
        ),
        (ValueError, "zeros and ones only, got 0.5", lambda: boolean_mask(ONES / 2)),
        (TypeError, "mask must be a tensor, got list", lambda: boolean_mask([True])),
        (TypeError, "x must be a tensor, got list", lambda: require_tensor(x=[1.0])),
        (TypeError, "x must be a tensor, got str", lambda: require_shapes("x (...)", x="a")),
        (TypeError, "x must be real, got", lambda: require_real(x=COMPLEX)),
        (TypeError, "x must be real, got", lambda: require_in("[0, 1]", x=COMPLEX)),
        (TypeError, "x must be a number, got 'a'", lambda: require_positive(x="a")),
        (TypeError, "x must be a number, got None", lambda: require_at_least(0, x=None)),
        (TypeError, "x must be a number, got None", lambda: require_number_or_tensor(x=None)),
        (
            TypeError,
            "dtype must be a dtype of torch, got 'float32'",
            lambda: require_float_dtype(dtype="float32"),
        ),
        (
            TypeError,
            "dtype must have 16 bits at least, got torch.float8_e4m3fn",
            lambda: require_wide_dtype(dtype=torch.float8_e4m3fn),
        ),
        (
            ValueError,
            r"needs shapes that broadcast, got a \(2,\), b \(3,\)",
            lambda: require_broadcastable(a=torch.zeros(2), b=torch.zeros(3)),
        ),
        (ValueError, "zeros and ones only, got nan", lambda: boolean_mask(NAN)),
    ],
)
def test_a_refusal_names_argument_rule_and_value(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_narrow_ids_are_compared_with_the_size_in_full(dtype):
    """In uint8 a size of 256 would be 0, in int8 one of 200 would be -56."""
    for size in (200, 256, 40000):
        require_ids(size, x=torch.tensor([0, 5, 127], dtype=dtype))
    with pytest.raises(ValueError, match=r"x holds the id 127, outside \[0, 100\)"):
        require_ids(100, x=torch.tensor([127], dtype=dtype))


def test_float8_is_named_with_the_rule():
    with pytest.raises(TypeError, match=r"x must have 16 bits at least, got torch\.float8_e5m2"):
        require_floating(x=torch.zeros(2).to(torch.float8_e5m2))


def test_a_mask_of_zeros_and_ones_is_boolean_whatever_its_dtype():
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64):
        mask = boolean_mask(torch.tensor([0, 1], dtype=dtype))
        assert mask.dtype == torch.bool
        assert mask.tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("query_len", lambda: causal_mask(2.5)),
        ("window", lambda: sliding_window_mask(3, window=1.5)),
        ("offset", lambda: causal_mask(3, offset=0.5)),
        ("num_layers", lambda: receptive_field(2.5, 3)),
        ("num_layers", lambda: dependency_matrix(torch.ones(2, 2), 1.5)),
        ("embed_dim", lambda: attention_parameters(8.0, 2)),
        ("batch", lambda: attention_flops(1.5, 2, 2, 4, 2)),
        ("embed_dim", lambda: MultiHeadAttention(8.0, 2)),
        ("kdim", lambda: MultiHeadAttention(8, 2, kdim=2.5)),
        ("num_kv_heads", lambda: GroupedQueryAttention(8, 2, 1.0)),
        ("num_heads", lambda: kv_head_index(6.0, 2)),
        ("num_heads", lambda: decode_intensity(4.0, 2, 2)),
        ("n_rep", lambda: repeat_kv(torch.ones(1, 2, 3, 4), 2.0)),
        ("prompt_len", lambda: attention_pairs(2.5, 2, cached=True)),
        ("seq_len", lambda: kv_cache_bytes(1, 1, 2, 2.5)),
        ("head_dim", lambda: KVCache(1, 1, 4, 2.0)),
        ("max_chunk", lambda: SlidingWindowKVCache(1, 1, 4, 2, max_chunk=1.5)),
        ("key_len", lambda: standard_hbm_elements(4, 4.5, 2, 2)),
        ("block_q", lambda: hbm_elements(4, 4, 2, 2, 1.5)),
        ("value_dim", lambda: empty_state((2,), 1.5)),
        ("dim", lambda: swiglu_hidden_dim(10.5)),
        ("dim", lambda: SwiGLU(2.5)),
        ("dim", lambda: ffn_params(2.5, 3, gated=True)),
        ("in_features", lambda: lora_param_count(2.5, 2, 2)),
        ("tokens", lambda: linear_flops(2.5, 2, 2)),
        ("fan_in", lambda: init_std(2.5, 2, "torch")),
        ("in_features", lambda: Linear(2.0, 3)),
        ("rotary_dim", lambda: convert_qk_weight(torch.ones(8), 2, to="half", rotary_dim=2.0)),
        ("num_heads", lambda: convert_qk_weight(torch.ones(8), 2.0, to="half")),
        ("original_max_position", lambda: yarn_inv_freq(4, 1e4, 2.0, 8.5)),
        ("num_merges", lambda: learn_merges({(97, 97): 1}, 1.5)),
        ("n_candidates", lambda: mi_lower_bound(ONES, 2.5)),
        (
            "chunk_size",
            lambda: linear_cross_entropy(ONES, torch.ones(5, 3), IDS, chunk_size=1.5),
        ),
        ("block_size", lambda: nf4_quantize(ONES, 2.5)),
        ("group_size", lambda: quantize_groupwise(ONES, 1.5)),
        ("max_len", lambda: response_mask(IDS, IDS, 4.5)),
        ("max_len", lambda: pack_sequences([IDS], [IDS > 1], 4.5, 0)),
        ("k", lambda: sample_without_replacement(ONES, 1.5)),
        ("normalized_shape", lambda: RMSNorm(4.0, eps=None)),
        ("normalized_shape", lambda: LayerNorm((2, 4.0), eps=0.0)),
        ("G", lambda: binary_group_weight(ONES / 2, 4.5)),
        ("k", lambda: k_step_advantage(ONES, ONES, 1.5, gamma=1.0)),
        ("ddof", lambda: masked_whiten(ONES, ONES, eps=1.0, ddof=0.5)),
    ],
)
def test_a_size_or_a_count_that_is_no_int_is_refused_everywhere(name, call):
    with pytest.raises(TypeError, match=rf"^{name} must be an int, got \d+\.\d"):
        call()
