"""Positions: values by hand, definitions as loops, laws, dtypes, edges, and errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.components.positions import (
    LearnedPositions,
    alibi_bias,
    alibi_effective_keys,
    alibi_key_bias,
    alibi_slopes,
    sinusoidal_embedding,
    t5_bucket,
)
from llmref.components.rope import rope_inv_freq, rope_matrix
from tests.tensors import close, f64, random

INF = math.inf
law = settings(deadline=None, max_examples=25)


def code(positions, dim=6, base=100.0, **options):
    options = {"layout": "interleaved", "dtype": torch.float64} | options
    return sinusoidal_embedding(positions, dim, base=base, **options)


def test_a_quarter_turn_is_one_and_zero():
    close(code(f64(math.pi / 2), dim=2), f64((1.0, 0.0)))
    close(code(torch.tensor(0)), f64(0, 1, 0, 1, 0, 1))


def test_sinusoids_as_a_loop_in_both_layouts():
    positions = torch.tensor([[0, 3], [17, 2047]])
    found, half = code(positions), code(positions, layout="half")
    assert found.shape == half.shape == (2, 2, 6)
    for place, t in zip(
        [(0, 0), (0, 1), (1, 0), (1, 1)], positions.flatten().tolist(), strict=True
    ):
        for i in range(3):
            angle = t / 100 ** (2 * i / 6)
            close(found[place][2 * i], f64(math.sin(angle))[0], atol=1e-12)
            close(found[place][2 * i + 1], f64(math.cos(angle))[0], atol=1e-12)
            assert half[place][i] == found[place][2 * i]
            assert half[place][3 + i] == found[place][2 * i + 1]


@law
@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_shift_is_a_rotation(t, k):
    turn = rope_matrix(float(k), rope_inv_freq(6, 100.0), layout="interleaved")
    close(code(torch.tensor(t + k)), turn.T @ code(torch.tensor(t)), atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_angles_are_formed_in_float64_whatever_the_positions_are(dtype):
    positions = torch.tensor([0, 7, 255])
    close(code(positions.to(dtype)), code(positions))
    far = sinusoidal_embedding(torch.tensor([131_071]), 64, layout="half")
    assert far.dtype == torch.float32
    wide = sinusoidal_embedding(torch.tensor([131_071]), 64, layout="half", dtype=torch.float64)
    assert (far - wide).abs().max() < 1e-7


def test_the_base_is_10000_unless_told():
    options = {"layout": "half", "dtype": torch.float64}
    close(
        sinusoidal_embedding(torch.arange(99), 6, **options),
        code(torch.arange(99), base=1e4, **options),
    )


def test_no_positions_give_no_codes():
    assert code(torch.arange(0)).shape == (0, 6)
    assert alibi_bias(alibi_slopes(2), torch.arange(0), torch.arange(3)).shape == (2, 0, 3)
    sizes = {"num_buckets": 8, "max_distance": 16, "bidirectional": False}
    assert t5_bucket(torch.zeros(0, 2).long(), **sizes).shape == (0, 2)


def test_four_heads_have_the_slopes_of_the_paper():
    close(alibi_slopes(4), f64(1 / 4, 1 / 16, 1 / 64, 1 / 256))
    close(alibi_slopes(1), f64(1 / 256))
    close(alibi_slopes(3), f64(1 / 16, 1 / 256, 1 / 4))


@pytest.mark.parametrize("num_heads", range(1, 40))
def test_slopes_are_those_of_the_power_below_and_every_other_one_of_its_double(num_heads):
    found = alibi_slopes(num_heads)
    power = 2 ** int(math.log2(num_heads))
    close(found[:power], 2 ** (-8 * torch.arange(1, power + 1).double() / power))
    close(found[power:], alibi_slopes(2 * power)[::2][: num_heads - power])
    assert len(found.unique()) == num_heads


def test_the_bias_by_hand_and_as_a_loop():
    close(alibi_bias(f64(0.5), torch.tensor([3]), torch.tensor([1, 3])), f64((-1.0, 0.0))[None])
    slopes, query, key = alibi_slopes(3), torch.tensor([9, 0, 4]), torch.tensor([2, 9, 5, 30])
    found = alibi_bias(slopes, query, key)
    for h, m in enumerate(slopes.tolist()):
        for i, t in enumerate(query.tolist()):
            for j, s in enumerate(key.tolist()):
                assert found[h, i, j] == -m * abs(t - s)


def test_positions_in_8_bits_do_not_wrap():
    query, key = torch.tensor([3], dtype=torch.uint8), torch.tensor([250], dtype=torch.uint8)
    assert alibi_bias(f64(1.0), query, key).item() == -247
    assert alibi_key_bias(f64(200.0), key).item() == 50_000
    sizes = {"num_buckets": 32, "max_distance": 128, "bidirectional": True}
    assert t5_bucket(torch.tensor([-128], dtype=torch.int8), **sizes).item() == 15


def test_slopes_in_16_bits_give_biases_in_float32():
    slopes = torch.tensor([0.5], dtype=torch.bfloat16)
    keys = torch.arange(2040, 2048)
    assert alibi_key_bias(slopes, keys).dtype == torch.float32
    close(alibi_key_bias(slopes, keys)[0, 0].double(), keys.double() / 2)


@law
@given(st.integers(0, 10**6))
def test_key_positions_give_the_same_weights_in_causal_rows(seed):
    scores, at, slopes = random(3, 7, 7, seed=seed), torch.arange(7) + seed % 50, alibi_slopes(3)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    by_key, by_distance = (
        (scores + bias).masked_fill(hidden, -INF).softmax(-1)
        for bias in (alibi_key_bias(slopes, at), alibi_bias(slopes, at, at))
    )
    close(by_key, by_distance)


def test_effective_keys_of_geometric_weights():
    assert alibi_effective_keys(math.log(3)) == pytest.approx(2, abs=1e-12)
    for slope in (2.0, 0.1, 2**-8):
        weights = (-slope * torch.arange(100_000).double()).softmax(0)
        assert alibi_effective_keys(slope) == pytest.approx(1 / weights.square().sum().item())


def test_buckets_by_hand():
    sizes = {"num_buckets": 8, "max_distance": 16}
    found = t5_bucket(-torch.arange(14), bidirectional=False, **sizes)
    assert found.tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7]
    assert t5_bucket(torch.tensor([1, 5, 99]), bidirectional=False, **sizes).tolist() == [0, 0, 0]
    both = t5_bucket(torch.tensor([-99, -1, 0, 1, 99]), bidirectional=True, **sizes)
    assert both.tolist() == [3, 1, 0, 5, 7]


@pytest.mark.parametrize("num_buckets", [2, 4, 6, 16, 32])
@pytest.mark.parametrize("max_distance", [9, 20, 128])
def test_buckets_grow_with_the_distance_and_all_are_used(num_buckets, max_distance):
    sizes = {"num_buckets": num_buckets, "max_distance": max(max_distance, num_buckets)}
    found = t5_bucket(-torch.arange(1000), bidirectional=False, **sizes)
    assert (found.diff() >= 0).all()
    assert found[0] == 0
    assert found[-1] == num_buckets - 1
    other = t5_bucket(
        torch.arange(1, 1000), bidirectional=True, **sizes | {"num_buckets": 2 * num_buckets}
    )
    assert (other == found[1:] + num_buckets).all()


def test_a_start_that_is_an_integer_is_met_exactly():
    """3 (M / 3)^(j / 3) is one for M = 24 and 81: no rounding may put it a bucket lower."""
    for M, starts in ((24, (6, 12)), (81, (9, 27))):
        sizes = {"num_buckets": 6, "max_distance": M, "bidirectional": False}
        found = t5_bucket(-torch.tensor([s + d for s in starts for d in (-1, 0)]), **sizes)
        assert found.tolist() == [3, 4, 4, 5]


def test_learned_positions_are_rows_of_a_table():
    layer = LearnedPositions(9, 4).double()
    x = random(2, 3, 4)
    expected = x + layer.weight[[2, 3, 8]]
    close(layer(x, torch.tensor([2, 3, 8])), expected)
    close(layer(x, torch.tensor([[2, 3, 8]] * 2, dtype=torch.uint8)), expected)
    layer(x, torch.tensor([2, 3, 8])).sum().backward()
    assert layer.weight.grad.sum(-1).tolist() == [0, 0, 8, 8, 0, 0, 0, 0, 8]


def test_learned_positions_start_small():
    """40000 normal numbers of deviation 0.02: their own deviates from it by 0.35 % or so."""
    torch.manual_seed(0)
    weight = LearnedPositions(400, 100).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().abs() < 0.0005


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (torch.tensor([0, 1, 9]), ValueError, r"positions holds the id 9, outside \[0, 9\)"),
        (torch.tensor([0, 1, -1]), ValueError, r"positions holds the id -1"),
        (torch.tensor([0.0, 1, 2]), TypeError, "positions must hold integers"),
        (torch.arange(2), ValueError, r"positions must be \(3,\) or \(2, 3\) beside x"),
    ],
)
def test_positions_outside_the_table_are_refused(positions, error, message):
    with pytest.raises(error, match=message):
        LearnedPositions(9, 4).double()(random(2, 3, 4), positions)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dim": 5}, ValueError, "dim"),
        ({"dim": 4.0}, TypeError, "dim must be an int"),
        ({"base": 0.0}, ValueError, "base must be positive"),
        ({"layout": "other"}, ValueError, "layout must be one of"),
        ({"dtype": torch.int32}, TypeError, "dtype must be floating point"),
        ({"positions": torch.ones(2).half()}, ValueError, "positions must be of 32 bits at least"),
        ({"positions": torch.ones(2).bool()}, TypeError, "positions must hold integers"),
        ({"positions": torch.tensor([1j])}, TypeError, "positions must hold integers"),
        ({"positions": f64(1.0, INF)}, ValueError, "angles must be finite"),
    ],
)
def test_what_has_no_code_is_refused_by_name(given, error, message):
    with pytest.raises(error, match=message):
        code(**({"positions": torch.arange(2)} | given))


@pytest.mark.parametrize(
    ("slopes", "query", "error", "message"),
    [
        (f64(0.0), torch.arange(2), ValueError, "slopes must be positive and finite, got 0"),
        (f64(-1.0), torch.arange(2), ValueError, "slopes must be positive"),
        (f64(INF), torch.arange(2), ValueError, "slopes must be positive"),
        (f64((1.0, 1.0)), torch.arange(2), ValueError, r"slopes must be \(H,\)"),
        (torch.tensor([1]), torch.arange(2), TypeError, "slopes must be floating point"),
        (f64(1.0), torch.ones(2), TypeError, "query_positions must hold integers"),
        (f64(1.0), torch.ones(2, 2).long(), ValueError, r"query_positions must be \(n,\)"),
    ],
)
def test_what_is_no_bias_is_refused_by_name(slopes, query, error, message):
    with pytest.raises(error, match=message):
        alibi_bias(slopes, query, torch.arange(2))
    with pytest.raises(error, match=message.replace("query", "key")):
        alibi_key_bias(slopes, query)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_buckets": 1}, ValueError, "num_buckets must be at least 2"),
        ({"num_buckets": 7}, ValueError, "num_buckets must be divisible by 2, got 7"),
        ({"num_buckets": 2, "bidirectional": True}, ValueError, "num_buckets must be at least 4"),
        ({"num_buckets": 6, "bidirectional": True}, ValueError, "must be divisible by 4"),
        ({"max_distance": 4}, ValueError, "max_distance must be at least 5"),
        ({"max_distance": 9.0}, TypeError, "max_distance must be an int"),
        ({"relative": torch.ones(2)}, TypeError, "relative must hold integers"),
    ],
)
def test_what_is_no_bucket_is_refused_by_name(given, error, message):
    options = {"relative": torch.arange(3), "num_buckets": 8, "max_distance": 16}
    with pytest.raises(error, match=message):
        t5_bucket(**(options | {"bidirectional": False} | given))


@pytest.mark.parametrize("function", [alibi_slopes, lambda n: LearnedPositions(n, 4)])
def test_sizes_below_one_are_refused(function):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        function(0)
    with pytest.raises(TypeError, match="must be an int"):
        function(2.0)


@pytest.mark.parametrize("slope", [0.0, -1.0, INF, math.nan])
def test_a_slope_that_is_not_positive_is_refused(slope):
    with pytest.raises(ValueError, match="slope must be positive and finite"):
        alibi_effective_keys(slope)


def test_starts_that_a_float_misses():
    for (n, M), start in (((10, 160), 80), ((12, 384), 192)):
        sizes = {"num_buckets": n, "max_distance": M, "bidirectional": False}
        assert t5_bucket(-torch.tensor([start - 1, start]), **sizes).tolist() == [n - 2, n - 1]


def test_far_positions_and_16_bit_slopes_lose_nothing():
    far = 2**24
    query, key = torch.tensor([far + 1]), torch.tensor([far, far + 1])
    assert alibi_bias(torch.tensor([0.5]), query, key).tolist() == [[[-0.5, 0.0]]]
    assert alibi_key_bias(f64(0.5), query).item() == (far + 1) / 2
    found = alibi_bias(torch.tensor([0.5]).bfloat16(), torch.tensor([2047]), torch.arange(2))
    assert found.tolist() == [[[-1023.5, -1023.0]]]


def test_a_width_of_one_is_not_broadcast():
    with pytest.raises(ValueError, match="weight must be"):
        LearnedPositions(9, 4)(torch.zeros(2, 3, 1), torch.arange(3))


def test_a_slope_without_a_finite_number_of_keys_is_refused():
    with pytest.raises(ValueError, match="slope is so small"):
        alibi_effective_keys(5e-324)


def test_a_word_is_no_side():
    with pytest.raises(TypeError, match="bidirectional must be a bool, got 'no'"):
        t5_bucket(torch.arange(3), num_buckets=8, max_distance=16, bidirectional="no")
