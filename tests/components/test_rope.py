"""Rotary positions: hand-worked numbers, a slow definition, laws, gradients, errors and traps."""

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmref.components import rope
from tests.tensors import random

LAYOUTS = ("half", "interleaved")
FEW = settings(deadline=None, max_examples=25)
F64 = torch.float64


def tables(positions: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    return rope.rope_cos_sin(positions, inv_freq, dtype=F64)


def rotate(x: Tensor, positions: Tensor, inv_freq: Tensor, layout: str = "half") -> Tensor:
    return rope.apply_rope(x, *tables(positions, inv_freq), layout=layout)


def slow_rope(x: Tensor, positions: list[float], base: float, R: int, layout: str) -> Tensor:
    """The definition, one number at a time, with nothing but math.cos and math.sin."""
    out = x.clone()
    B, H, T, _ = x.shape
    for b, h, t, i in itertools.product(range(B), range(H), range(T), range(R // 2)):
        angle = positions[t] * base ** (-2 * i / R)
        first, second = (i, i + R // 2) if layout == "half" else (2 * i, 2 * i + 1)
        u, v = float(x[b, h, t, first]), float(x[b, h, t, second])
        out[b, h, t, first] = u * math.cos(angle) - v * math.sin(angle)
        out[b, h, t, second] = u * math.sin(angle) + v * math.cos(angle)
    return out


# Frequencies


def test_frequencies_of_dim_4_and_base_100_are_one_and_a_tenth():
    """100^0 = 1 and 100^(-2/4) = 1/10; the exponent counts 0, 2, ..., d - 2."""
    expected = torch.tensor([1.0, 0.1], dtype=F64)
    torch.testing.assert_close(rope.rope_inv_freq(4, 100.0), expected, atol=1e-16, rtol=0)


def test_last_frequency_of_dim_128_has_exponent_126_over_128():
    inv_freq = rope.rope_inv_freq(128)
    assert inv_freq.shape == (64,)
    assert inv_freq.dtype == F64
    assert inv_freq[-1].item() == pytest.approx(10000.0 ** (-126 / 128), rel=1e-15)


def test_float32_frequencies_are_the_float64_ones_rounded_once():
    narrow = rope.rope_inv_freq(64, 5e5, dtype=torch.float32)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, rope.rope_inv_freq(64, 5e5).float())


# Rotation


def test_a_quarter_turn_sends_one_zero_to_zero_one():
    """Frequency 1, position pi/2: (1, 0) -> (cos, sin) = (0, 1), not (0, -1)."""
    x = torch.tensor([1.0, 0.0], dtype=F64).view(1, 1, 1, 2)
    turned = rotate(x, torch.tensor([math.pi / 2], dtype=F64), rope.rope_inv_freq(2))
    expected = torch.tensor([0.0, 1.0], dtype=F64)
    torch.testing.assert_close(turned.flatten(), expected, atol=1e-15, rtol=0)


def test_layouts_pair_different_features():
    """(1, 2, 3, 4) at position 1 with frequencies 1 and 1/10, worked by hand in both layouts."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64).view(1, 1, 1, 4)
    inv_freq, one = rope.rope_inv_freq(4, 100.0), torch.tensor([1])
    c, s, c2, s2 = math.cos(1), math.sin(1), math.cos(0.1), math.sin(0.1)
    half = torch.tensor([c - 3 * s, 2 * c2 - 4 * s2, s + 3 * c, 2 * s2 + 4 * c2], dtype=F64)
    inter = torch.tensor([c - 2 * s, s + 2 * c, 3 * c2 - 4 * s2, 3 * s2 + 4 * c2], dtype=F64)
    for layout, expected in (("half", half), ("interleaved", inter)):
        got = rotate(x, one, inv_freq, layout).flatten()
        torch.testing.assert_close(got, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("R", [2, 6, 8])
def test_equals_the_definition_by_loops_also_for_part_of_the_head(layout, R):
    x = random(2, 3, 5, 8)
    positions = [0.0, 1.0, 2.5, 17.0, 1000.0]
    got = rotate(x, torch.tensor(positions, dtype=F64), rope.rope_inv_freq(R, 500.0), layout)
    torch.testing.assert_close(
        got, slow_rope(x, positions, 500.0, R, layout), atol=1e-12, rtol=0
    )  # angles near 1000 carry 1e-13 of rounding
    assert torch.equal(got[..., R:], x[..., R:])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_matrix_and_the_matrix_equals_its_blocks(layout):
    inv_freq = rope.rope_inv_freq(8, 100.0)
    matrix = rope.rope_matrix(3.0, inv_freq, layout=layout)
    blocks = torch.zeros(8, 8, dtype=F64)
    for i, theta in enumerate(inv_freq.tolist()):
        a, b = (i, i + 4) if layout == "half" else (2 * i, 2 * i + 1)
        blocks[a, a] = blocks[b, b] = math.cos(3 * theta)
        blocks[a, b], blocks[b, a] = -math.sin(3 * theta), math.sin(3 * theta)
    torch.testing.assert_close(matrix, blocks, atol=1e-15, rtol=0)
    x = random(2, 3, 5, 8)
    turned = rotate(x, torch.full((5,), 3), inv_freq, layout)
    torch.testing.assert_close(turned, x @ matrix.T, atol=1e-14, rtol=0)


def test_positions_of_each_row_of_a_batch_are_its_own():
    x, inv_freq = random(2, 3, 5, 8), rope.rope_inv_freq(8)
    positions = torch.tensor([[0, 0, 1, 2, 3], [7, 8, 9, 10, 11]])
    got = rotate(x, positions, inv_freq)
    for b in range(2):
        row = rotate(x[b : b + 1], positions[b], inv_freq)
        torch.testing.assert_close(got[b : b + 1], row, atol=0, rtol=0)
    one_for_all = rotate(x, positions[:1], inv_freq)
    torch.testing.assert_close(one_for_all, rotate(x, positions[0], inv_freq), atol=0, rtol=0)


def test_attention_factor_multiplies_cos_and_sin():
    positions, inv_freq = torch.arange(5), rope.rope_inv_freq(6)
    plain = tables(positions, inv_freq)
    scaled = rope.rope_cos_sin(positions, inv_freq, attention_factor=1.5, dtype=F64)
    for a, b in zip(plain, scaled, strict=True):
        assert torch.equal(1.5 * a, b)


def test_the_largest_factor_is_taken():
    largest = torch.finfo(torch.float32).max
    zero = torch.zeros(1, dtype=torch.int64)
    cos, sin = rope.rope_cos_sin(zero, torch.ones(1), attention_factor=largest)
    assert (cos.item(), sin.item()) == (largest, 0.0)


# Laws

offsets = st.integers(-5000, 5000)


@FEW
@given(m=offsets, n=offsets, shift=st.integers(1, 5000), layout=st.sampled_from(LAYOUTS))
def test_score_depends_on_the_position_difference_only(m, n, shift, layout):
    q, k, inv_freq = random(1, 1, 1, 8, seed=1), random(1, 1, 1, 8, seed=2), rope.rope_inv_freq(8)

    def score(m: int, n: int) -> Tensor:
        at = [rotate(x, torch.tensor([p]), inv_freq, layout) for x, p in ((q, m), (k, n))]
        return (at[0] * at[1]).sum()

    torch.testing.assert_close(score(m, n), score(m + shift, n + shift), atol=1e-10, rtol=0)
    torch.testing.assert_close(
        score(m, n), (q.flatten() @ rope.rope_matrix(n - m, inv_freq, layout=layout) @ k.flatten()),
        atol=1e-10, rtol=0,
    )  # fmt: skip


@FEW
@given(m=offsets, n=offsets, layout=st.sampled_from(LAYOUTS))
def test_rotations_add_their_positions_and_keep_the_norm(m, n, layout):
    x, inv_freq = random(1, 2, 1, 6), rope.rope_inv_freq(6)
    twice = rotate(
        rotate(x, torch.tensor([m]), inv_freq, layout), torch.tensor([n]), inv_freq, layout
    )
    once = rotate(x, torch.tensor([m + n]), inv_freq, layout)
    torch.testing.assert_close(twice, once, atol=1e-11, rtol=0)
    torch.testing.assert_close(once.norm(dim=-1), x.norm(dim=-1), atol=1e-13, rtol=0)


def test_angle_is_linear_in_the_position_not_quadratic():
    """At position 3 the first pair has turned by 3 radians, not 9."""
    cos, sin = tables(torch.tensor([3]), rope.rope_inv_freq(4, 100.0))
    expected = torch.tensor([[math.cos(3), math.cos(0.3)]], dtype=F64)
    torch.testing.assert_close(cos, expected, atol=1e-15, rtol=0)
    expected = torch.tensor([[math.sin(3), math.sin(0.3)]], dtype=F64)
    torch.testing.assert_close(sin, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_the_rotation_by_minus_the_position(layout):
    x = random(2, 3, 5, 8).requires_grad_()
    positions, inv_freq, upstream = (
        torch.arange(5) + 3,
        rope.rope_inv_freq(6),
        random(2, 3, 5, 8, seed=4),
    )
    (gradient,) = torch.autograd.grad((upstream * rotate(x, positions, inv_freq, layout)).sum(), x)
    torch.testing.assert_close(
        gradient, rotate(upstream, -positions, inv_freq, layout), atol=1e-14, rtol=0
    )
    assert torch.autograd.gradcheck(lambda x: rotate(x, positions, inv_freq, layout), (x,))


def test_decoding_with_cached_rotated_keys_equals_full_recomputation():
    q, k, inv_freq = random(1, 2, 7, 8), random(1, 2, 7, 8, seed=1), rope.rope_inv_freq(8)
    full = rotate(q, torch.arange(7), inv_freq) @ rotate(k, torch.arange(7), inv_freq).mT
    cached = torch.cat(
        [rotate(k[:, :, j : j + 1], torch.tensor([j]), inv_freq) for j in range(7)], 2
    )
    step = rotate(q[:, :, 6:], torch.tensor([6]), inv_freq) @ cached.mT
    torch.testing.assert_close(step, full[:, :, 6:], atol=1e-13, rtol=0)
    at_zero = rotate(q[:, :, 6:], torch.tensor([0]), inv_freq) @ cached.mT
    assert (at_zero - full[:, :, 6:]).abs().max() > 0.1  # the query must carry its position
    again = rotate(cached, torch.arange(7), inv_freq)  # a cached key must not be rotated again
    assert (
        rotate(q[:, :, 6:], torch.tensor([6]), inv_freq) @ again.mT - full[:, :, 6:]
    ).abs().max() > 0.1


# Layouts


def test_permutation_of_six_lists_even_features_first():
    assert rope.rope_permutation(6).tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("dim", range(2, 17, 2))
def test_permutation_undoes_itself_only_for_dim_two_and_four(dim):
    p = rope.rope_permutation(dim)
    assert (p[p].tolist() == list(range(dim))) == (dim in (2, 4))


@pytest.mark.parametrize("dim", [2, 4, 6, 8, 10])
def test_layouts_are_each_other_up_to_the_permutation(dim):
    x, positions, inv_freq = random(2, 3, 5, dim), torch.arange(5) + 1, rope.rope_inv_freq(dim)
    p = rope.rope_permutation(dim)
    half = rotate(x[..., p], positions, inv_freq, "half")
    torch.testing.assert_close(
        half, rotate(x, positions, inv_freq, "interleaved")[..., p], atol=0, rtol=0
    )
    if dim > 2:  # the layouts differ; on one pair they are the same
        assert (half - rotate(x, positions, inv_freq, "half")).abs().max() > 0.1


def attention_scores(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    heads: tuple[int, int],
    layout: str,
    R: int,
) -> Tensor:
    """Scores of 4 query heads that share 2 key heads, with a bias, D = 8."""
    rotated = []
    for weight, bias, count in zip(weights, biases, heads, strict=True):
        split = (x @ weight.T + bias).unflatten(-1, (count, 8)).transpose(1, 2)
        rotated.append(rotate(split, torch.arange(x.shape[1]), rope.rope_inv_freq(R), layout))
    q, k = rotated
    return q @ k.repeat_interleave(heads[0] // heads[1], dim=1).mT


@pytest.mark.parametrize("R", [8, 6])
@pytest.mark.parametrize("to", LAYOUTS)
def test_converted_projections_give_the_same_scores_in_the_other_layout(to, R):
    heads, other = (4, 2), {"half": "interleaved", "interleaved": "half"}[to]
    x, weights = random(2, 5, 7), [random(32, 7, seed=1), random(16, 7, seed=2)]
    biases = [random(32, seed=3), random(16, seed=4)]
    before = attention_scores(x, weights, biases, heads, other, R)

    def convert(values: list[Tensor]) -> list[Tensor]:
        pairs = zip(values, heads, strict=True)
        return [rope.convert_qk_weight(v, n, to=to, rotary_dim=R) for v, n in pairs]

    after = attention_scores(x, convert(weights), convert(biases), heads, to, R)
    torch.testing.assert_close(after, before, atol=1e-13, rtol=0)
    for mistake in (
        attention_scores(x, convert(weights), biases, heads, to, R),
        attention_scores(x, [convert(weights)[0], weights[1]], convert(biases), heads, to, R),
        attention_scores(x, weights, biases, heads, to, R),
    ):
        assert (mistake - before).abs().max() > 0.1


def test_conversion_reorders_each_head_and_not_all_rows_at_once():
    """Two heads of four rows 0..3 and 4..7: even rows first, head by head."""
    rows = torch.arange(8)
    half = rope.convert_qk_weight(rows, 2, to="half")
    assert half.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert half.tolist() != rows[rope.rope_permutation(8)].tolist()
    assert rope.convert_qk_weight(half, 2, to="interleaved").tolist() == rows.tolist()


def test_conversion_goes_back_where_the_permutation_is_no_involution():
    weight = random(24, 5)
    half = rope.convert_qk_weight(weight, 3, to="half")
    assert torch.equal(rope.convert_qk_weight(half, 3, to="interleaved"), weight)
    assert not torch.equal(rope.convert_qk_weight(half, 3, to="half"), weight)


def test_conversion_leaves_rows_beyond_the_rotary_dim_in_place():
    """Heads of six rows, four of them rotary: 0 2 1 3 then 4 5."""
    converted = rope.convert_qk_weight(torch.arange(12), 2, to="half", rotary_dim=4)
    assert converted.tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]


# Recipes for longer contexts


def test_interpolated_frequencies_equal_interpolated_positions():
    inv_freq, positions = rope.rope_inv_freq(8), torch.arange(7) * 11
    scaled = tables(positions, rope.linear_scaled_inv_freq(inv_freq, 4.0))
    squeezed = tables(positions / 4, inv_freq)
    for a, b in zip(scaled, squeezed, strict=True):
        torch.testing.assert_close(a, b, atol=1e-14, rtol=0)


def test_ntk_base_100_dim_4_factor_3_is_900():
    """100 * 3^(4/2) = 900: frequencies (1, 1/10) become (1, 1/30)."""
    assert rope.ntk_base(100.0, 4, 3.0) == 900.0
    expected = torch.tensor([1.0, 1 / 30], dtype=F64)
    torch.testing.assert_close(rope.rope_inv_freq(4, 900.0), expected, atol=1e-16, rtol=0)


def test_ntk_base_is_found_wherever_a_float_holds_it():
    """2^-600 (2^600)^2 = 2^600, while (2^600)^2 is beyond float64; the largest stays itself."""
    assert rope.ntk_base(2.0**-600, 4, 2.0**600) == 2.0**600
    largest = torch.finfo(F64).max
    assert rope.ntk_base(largest, 4, 1.0) == largest


@FEW
@given(pairs=st.integers(2, 64), base=st.floats(2, 1e6), factor=st.floats(1, 64))
def test_ntk_keeps_the_first_frequency_and_divides_the_last(pairs, base, factor):
    dim = 2 * pairs
    old, new = (
        rope.rope_inv_freq(dim, base),
        rope.rope_inv_freq(dim, rope.ntk_base(base, dim, factor)),
    )
    assert new[0] == old[0] == 1
    assert new[-1].item() == pytest.approx(old[-1].item() / factor, rel=1e-12, abs=0)


def slow_by_parts(dim, base, factor, window, slow, fast):
    """Turns in the window, a clipped line through (slow, 0) and (fast, 1), and the blend."""
    frequencies = []
    for i in range(dim // 2):
        theta = base ** (-2 * i / dim)
        turns = window * theta / (2 * math.pi)
        keep = min(max((turns - slow) / (fast - slow), 0.0), 1.0)
        frequencies.append(keep * theta + (1 - keep) * theta / factor)
    return torch.tensor(frequencies, dtype=F64)


def slow_yarn_index(dim, base, factor, window, slow, fast, truncate):
    """The published code's ramp, one pair at a time."""

    def at(turns):
        return dim * math.log(window / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = at(fast), at(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high = high + 0.001 if low == high else high
    frequencies = []
    for i in range(dim // 2):
        theta = base ** (-2 * i / dim)
        interpolate = min(max((i - low) / (high - low), 0.0), 1.0)
        frequencies.append(interpolate * theta / factor + (1 - interpolate) * theta)
    return torch.tensor(frequencies, dtype=F64)


@pytest.mark.parametrize(
    ("dim", "base", "window"), [(128, 1e4, 4096), (64, 5e5, 8192), (8, 100.0, 50), (64, 10.0, 64)]
)
def test_recipes_equal_their_definitions_pair_by_pair(dim, base, window):
    paper, factor = rope.yarn_inv_freq(dim, base, 8.0, window, ramp="paper")
    expected = slow_by_parts(dim, base, 8.0, window, 1.0, 32.0)
    torch.testing.assert_close(paper, expected, atol=0, rtol=1e-14)
    assert factor == pytest.approx(1 + 0.1 * math.log(8), rel=1e-15)
    for truncate in (True, False):
        index, _ = rope.yarn_inv_freq(dim, base, 8.0, window, truncate=truncate)
        expected = slow_yarn_index(dim, base, 8.0, window, 1.0, 32.0, truncate)
        torch.testing.assert_close(index, expected, atol=0, rtol=1e-13)
    llama = rope.llama3_inv_freq(dim, base, 8.0, 1.0, 4.0, window)
    expected = slow_by_parts(dim, base, 8.0, window, 1.0, 4.0)
    torch.testing.assert_close(llama, expected, atol=0, rtol=1e-14)


def test_yarn_ramps_differ_in_the_middle_by_more_than_a_factor_of_two():
    index, _ = rope.yarn_inv_freq(128, 1e4, 8.0, 4096)
    paper, _ = rope.yarn_inv_freq(128, 1e4, 8.0, 4096, ramp="paper")
    ratio = index / paper
    assert ratio.argmax() == 36
    assert 2.30 < ratio.max() < 2.31
    assert torch.equal(index[:20], paper[:20])
    torch.testing.assert_close(index[46:], paper[46:], rtol=1e-14, atol=0)


@FEW
@given(
    base=st.floats(10, 1e6), factor=st.floats(1, 64), low=st.floats(0.5, 4),
    width=st.floats(0.5, 40), window=st.integers(100, 100_000),
)  # fmt: skip
def test_by_parts_frequencies_stay_between_and_stay_ordered(base, factor, low, width, window):
    plain = rope.rope_inv_freq(32, base)
    for scaled in (
        rope.llama3_inv_freq(32, base, factor, low, low + width, window),
        rope.yarn_inv_freq(
            32, base, factor, window, beta_slow=low, beta_fast=low + width, ramp="paper"
        )[0],
    ):
        assert (scaled <= plain * (1 + 1e-14)).all()
        assert (scaled >= plain / factor * (1 - 1e-14)).all()
        assert (scaled.diff() < 0).all()


def test_rounded_ends_move_the_index_ramp_away_from_the_turns():
    """For dim 64, base 10^4, L 100: turns 32 end at index -2.4, clamped to 0.

    So pair 0 is kept whole. It makes 100 / 2 pi = 15.9 turns, of 1 to 32, so the other ramp keeps
    (15.9 - 1) / 31 = 0.481 of it and an eighth of the rest: 0.481 + 0.519 / 8 = 0.546.
    """
    index, _ = rope.yarn_inv_freq(64, 1e4, 8.0, 100)
    turns, _ = rope.yarn_inv_freq(64, 1e4, 8.0, 100, ramp="paper")
    assert index[0].item() == 1.0
    assert turns[0].item() == pytest.approx(0.546, abs=1e-3)
    # Rounding alone: of dim 128 and L 4096 the code keeps less of pair 21 than the formula.
    index, _ = rope.yarn_inv_freq(128, 1e4, 8.0, 4096)
    turns, _ = rope.yarn_inv_freq(128, 1e4, 8.0, 4096, ramp="paper")
    assert (index / turns)[21].item() == pytest.approx(0.973, abs=1e-3)


def test_attention_factor_of_e_to_the_ten_is_two():
    """0.1 ln e^10 = 1: (1 + 1) / (1 + 0) = 2, with options 1 and 3 it is 2 / 4."""
    factor = math.exp(10)
    assert rope.yarn_attention_factor(factor) == pytest.approx(2.0, rel=1e-15)
    half = rope.yarn_attention_factor(factor, mscale=1.0, mscale_all_dim=3.0)
    assert half == pytest.approx(0.5, rel=1e-15)
    assert rope.yarn_attention_factor(factor, mscale=0.7, mscale_all_dim=0.7) == 1.0
    assert rope.yarn_attention_factor(1.0, mscale=0.7) == 1.0
    assert rope.yarn_inv_freq(16, 1e4, factor, 64)[1] == rope.yarn_attention_factor(factor)
    for c in (1.0, 0.5):
        inv_freq, returned = rope.yarn_inv_freq(16, 1e4, factor, 64, attention_factor=c)
        assert returned == c
        assert torch.equal(inv_freq, rope.yarn_inv_freq(16, 1e4, factor, 64)[0])


def test_factor_one_changes_nothing():
    plain = rope.rope_inv_freq(16)
    assert torch.equal(rope.linear_scaled_inv_freq(plain, 1.0), plain)
    assert rope.ntk_base(1e4, 16, 1.0) == 1e4
    for ramp in ("paper", "index"):
        scaled, factor = rope.yarn_inv_freq(16, 1e4, 1.0, 2048, ramp=ramp)
        torch.testing.assert_close(scaled, plain, rtol=1e-15, atol=0)
        assert factor == 1.0
    llama = rope.llama3_inv_freq(16, 1e4, 1.0, 1.0, 4.0, 2048)
    torch.testing.assert_close(llama, plain, rtol=1e-15, atol=0)


def test_index_ramp_of_no_width_is_a_step():
    """In 5 positions pair 0 makes 0.8 turns, so both ends of the ramp are pair 0: a step."""
    scaled, _ = rope.yarn_inv_freq(8, 1e4, 8.0, 5)
    expected = torch.tensor([1.0, 0.1 / 8, 0.01 / 8, 0.001 / 8], dtype=F64)
    torch.testing.assert_close(scaled, expected, rtol=1e-14, atol=0)


# Precision


def test_angles_at_position_5000_are_right_whatever_the_output_type():
    inv_freq = rope.rope_inv_freq(8)
    exact = [math.cos(5000 * f) for f in inv_freq.tolist()]
    for dtype, atol in ((F64, 1e-12), (torch.float32, 1e-7), (torch.bfloat16, 2**-8)):
        cos, _ = rope.rope_cos_sin(torch.tensor([5000]), inv_freq, dtype=dtype)
        assert cos.dtype == dtype
        got = cos.double().flatten().tolist()
        assert got == pytest.approx(exact, abs=atol)
    narrow, _ = rope.rope_cos_sin(torch.tensor([5000]), inv_freq.float())
    # 5000 * 2^-23 of relative error in the angle
    assert narrow.double().flatten().tolist() == pytest.approx(exact, abs=6e-4)


def test_autocast_does_not_lower_the_precision_of_angles():
    inv_freq = rope.rope_inv_freq(8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = rope.rope_cos_sin(torch.tensor([5001]), inv_freq)
    outside, _ = rope.rope_cos_sin(torch.tensor([5001]), inv_freq)
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_low_precision_inputs_are_rotated_in_float32_and_rounded_once(dtype, layout):
    x = random(2, 3, 5, 8).to(dtype)
    cos, sin = rope.rope_cos_sin(torch.arange(5) + 5000, rope.rope_inv_freq(8))
    got = rope.apply_rope(x, cos, sin, layout=layout)
    assert got.dtype == dtype
    wide = rope.apply_rope(x.float(), cos, sin, layout=layout)
    assert torch.equal(got, wide.to(dtype))


def test_float64_positions_keep_their_precision_with_float32_frequencies():
    cos, _ = rope.rope_cos_sin(
        torch.tensor([0.1], dtype=F64), rope.rope_inv_freq(2, dtype=torch.float32), dtype=F64
    )
    assert cos.item() == pytest.approx(math.cos(0.1), abs=1e-15)


# The module


@pytest.mark.parametrize("layout", LAYOUTS)
def test_module_rotates_queries_and_keys_of_different_head_counts(layout):
    q, k, positions = random(2, 4, 5, 8), random(2, 2, 5, 8, seed=1), torch.arange(5) + 9
    module = rope.RotaryEmbedding(6, 500.0, layout=layout)
    got_q, got_k = module(q, k, positions)
    inv_freq = rope.rope_inv_freq(6, 500.0)
    assert torch.equal(got_q, rotate(q, positions, inv_freq, layout))
    assert torch.equal(got_k, rotate(k, positions, inv_freq, layout))
    assert not list(module.parameters())
    assert not list(module.buffers())


def test_module_angles_survive_a_cast_to_bfloat16():
    q = random(1, 1, 1, 8).bfloat16()
    position = torch.tensor([5000])
    plain = rope.RotaryEmbedding(8)
    expected = plain(q, q, position)[0]
    assert torch.equal(plain.to(torch.bfloat16)(q, q, position)[0], expected)
    assert (
        expected.double() - rotate(q.double(), position, rope.rope_inv_freq(8))
    ).abs().max() < 2**-7


def test_module_takes_frequencies_or_frequencies_and_a_factor():
    q, positions = random(1, 1, 5, 8), torch.arange(5)
    yarn = functools.partial(rope.yarn_inv_freq, factor=8.0, original_max_position=512)
    got = rope.RotaryEmbedding(8, scaling=yarn)(q, q, positions)[0]
    inv_freq, factor = rope.yarn_inv_freq(8, 1e4, 8.0, 512)
    expected = factor * rotate(q, positions, inv_freq)
    torch.testing.assert_close(got, expected, atol=1e-14, rtol=0)

    def halved(dim: int, base: float) -> Tensor:
        return rope.linear_scaled_inv_freq(rope.rope_inv_freq(dim, base), 2.0)

    got = rope.RotaryEmbedding(8, scaling=halved)(q, q, positions)[0]
    torch.testing.assert_close(
        got, rotate(q, positions / 2, rope.rope_inv_freq(8)), atol=1e-14, rtol=0
    )


def test_everything_stays_on_the_device_of_its_inputs():
    """On 'meta', where mixing in a tensor of the processor raises."""
    q, positions = torch.empty(2, 3, 5, 8, device="meta"), torch.arange(5, device="meta")
    for rotated in rope.RotaryEmbedding(6)(q, q, positions):
        assert rotated.device == q.device
        assert rotated.shape == q.shape
    weight = torch.empty(16, 7, device="meta")
    assert rope.convert_qk_weight(weight, 2, to="half").device == weight.device
    assert rope.rope_matrix(1.0, torch.empty(3, device="meta")).device == weight.device


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rope.rope_inv_freq(5), ValueError, "even and at least 2 .*got 5"),
        (lambda: rope.rope_inv_freq(0), ValueError, "even and at least 2 .*got 0"),
        (lambda: rope.rope_inv_freq(-2), ValueError, "even and at least 2 .*got -2"),
        (lambda: rope.rope_inv_freq(4.0), TypeError, r"dim must be an int, got 4\.0"),
        (lambda: rope.rope_inv_freq(4, 0.0), ValueError, "base must be positive .*got 0.0"),
        (lambda: rope.rope_inv_freq(4, math.nan), ValueError, "base must be positive .*got nan"),
        (lambda: rope.rope_inv_freq(4, math.inf), ValueError, "base must be positive .*got inf"),
        (lambda: rope.rope_inv_freq(4, dtype=torch.bfloat16), ValueError, "never torch.bfloat16"),
        (lambda: rope.linear_scaled_inv_freq(torch.ones(2), 0.5), ValueError, "not 1/8.*got 0.5"),
        (lambda: rope.linear_scaled_inv_freq(torch.ones(2), math.inf), ValueError, "got inf"),
        (lambda: rope.ntk_base(1e4, 2, 4.0), ValueError, "dim must be at least 4.*got 2"),
        (lambda: rope.ntk_base(1e4, 7, 4.0), ValueError, "even and at least 2 .*got 7"),
        (lambda: rope.ntk_base(-1.0, 8, 4.0), ValueError, "base must be positive .*got -1.0"),
        (lambda: rope.ntk_base(1e4, 8, 0.25), ValueError, "at least 1 .*got 0.25"),
        (
            lambda: rope.convert_qk_weight(torch.ones(8), 2, to="half", rotary_dim=3),
            ValueError,
            "rotary_dim must be even .*got 3",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(6), 2, to="half"),
            ValueError,
            "the head size must be even .*got 3",
        ),
        (
            lambda: rope.yarn_inv_freq(8, 1.0, 8, 512),
            ValueError,
            r"base must be in \(1, inf\], got 1.0: the ramp divides by its logarithm",
        ),
        (lambda: rope.yarn_inv_freq(8, 1e4, 0.5, 512), ValueError, "at least 1 .*got 0.5"),
        (lambda: rope.yarn_inv_freq(8, 1e4, 8, 0), ValueError, "original_max_position .*got 0"),
        (
            lambda: rope.yarn_inv_freq(8, 1e4, 8, 512, beta_fast=1.0, beta_slow=32.0),
            ValueError,
            "need 0 < beta_slow < beta_fast, got 32.0 and 1.0",
        ),
        (
            lambda: rope.llama3_inv_freq(8, 1e4, 8, 0.0, 4.0, 8192),
            ValueError,
            "need 0 < low_freq_factor < high_freq_factor, got 0.0 and 4.0",
        ),
        (lambda: rope.llama3_inv_freq(8, 1e4, 8, 1.0, math.inf, 8192), ValueError, "1.0 and inf"),
        (
            lambda: rope.yarn_inv_freq(8, 1e4, 8, 512, ramp="linear"),
            ValueError,
            r"ramp must be one of \['paper', 'index'\], got 'linear'",
        ),
        (lambda: rope.yarn_inv_freq(8, 10.0, 8, 1), ValueError, "from pair 0 to pair -3"),
        (lambda: rope.yarn_inv_freq(8, 2.0, 8, 4096), ValueError, "from pair 17 to pair 7"),
        (
            lambda: rope.llama3_inv_freq(8, 1e4, 8, 4.0, 4.0, 8192),
            ValueError,
            "need 0 < low_freq_factor < high_freq_factor, got 4.0 and 4.0",
        ),
        (lambda: rope.llama3_inv_freq(8, 1e4, 0, 1.0, 4.0, 8192), ValueError, "at least 1 .*got 0"),
        (lambda: rope.rope_permutation(3), ValueError, "even and at least 2 .*got 3"),
        (lambda: rope.rope_permutation(4.0), TypeError, r"dim must be an int, got 4\.0"),
        (
            lambda: rope.rope_matrix(1.0, torch.ones(2), layout="neox"),
            ValueError,
            r"layout must be one of \['half', 'interleaved'\], got 'neox'",
        ),
        (lambda: rope.rope_matrix(1e308, torch.ones(2)), ValueError, "must be finite .*got inf"),
        (lambda: rope.rope_matrix(math.nan, torch.ones(2)), ValueError, "must be finite .*got nan"),
        (lambda: rope.ntk_base(1e308, 4, 2.0), ValueError, "base 1e.308 times factor 2.0 .*overf"),
        (lambda: rope.ntk_base(2.0, 4, 1e200), ValueError, "overflows"),
        (
            lambda: rope.yarn_inv_freq(16, 1e4, 2.0, 64, attention_factor=0.0),
            ValueError,
            "attention_factor must be positive and finite, got 0.0",
        ),
        (lambda: rope.yarn_attention_factor(0.5), ValueError, "factor must be finite and at least"),
        (
            lambda: rope.yarn_attention_factor(2.0, mscale=-1.0),
            ValueError,
            "mscale must be at least 0 and finite, got -1.0",
        ),
        (
            lambda: rope.yarn_attention_factor(2.0, mscale_all_dim=math.inf),
            ValueError,
            "mscale_all_dim must be at least 0 and finite, got inf",
        ),
        (
            lambda: rope.rope_matrix(1.0, torch.ones(2, 1)),
            ValueError,
            r"inv_freq must be \(R / 2,\) with R >= 2, got \(2, 1\)",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2), 2, to="neox"),
            ValueError,
            r"to must be one of \['half', 'interleaved'\], got 'neox'",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2), 3, to="half"),
            ValueError,
            "8 rows do not split into 3 heads",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2), 0, to="half"),
            ValueError,
            "num_heads must be at least 1, got 0",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2, 1), 2, to="half"),
            ValueError,
            r"weight must be .*got \(8, 2, 1\)",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2), 2, to="half", rotary_dim=6),
            ValueError,
            "rotary_dim 6 is larger than the head size 4",
        ),
        (
            lambda: rope.convert_qk_weight(torch.ones(8, 2), 2, to="half", rotary_dim=3),
            ValueError,
            "even and at least 2 .*got 3",
        ),
        (lambda: rope.RotaryEmbedding(5), ValueError, "even and at least 2 .*got 5"),
        (lambda: rope.RotaryEmbedding(4, layout="neox"), ValueError, "layout must be .*got 'neox'"),
        (
            lambda: rope.RotaryEmbedding(4, scaling=lambda dim, base: torch.ones(4)),
            ValueError,
            r"scaling must return \(2,\) frequencies, got \(4,\)",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_the_value_seen(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("positions", "inv_freq", "keywords", "error", "message"),
    [
        (torch.arange(5).bfloat16(), torch.ones(2), {}, ValueError, "torch.bfloat16 rounds them"),
        (torch.arange(5).half(), torch.ones(2), {}, ValueError, "torch.float16 rounds them"),
        (torch.ones(5).bool(), torch.ones(2), {}, TypeError, "real numbers, got torch.bool"),
        (torch.ones(5) * 1j, torch.ones(2), {}, TypeError, "real numbers, got torch.complex64"),
        (torch.arange(5), torch.ones(2).half(), {}, ValueError, "inv_freq must be .*float16"),
        (torch.arange(5), torch.ones(0), {}, ValueError, r"with R >= 2, got \(0,\)"),
        (torch.arange(5), torch.ones(2), {"dtype": torch.int64}, TypeError, "got torch.int64"),
        (torch.arange(5), torch.ones(2), {"attention_factor": 0.0}, ValueError, "got 0.0"),
        (torch.arange(5), torch.ones(2), {"attention_factor": math.nan}, ValueError, "got nan"),
        # Each of these was NaN without a word: inf has no cosine, and inf * sin(0) is NaN.
        (torch.tensor([0.0, math.inf]), torch.ones(2), {}, ValueError, "be finite .*got inf"),
        (torch.tensor([math.nan]), torch.ones(2), {}, ValueError, "be finite .*got nan"),
        (torch.tensor([1e38]), torch.tensor([9.0]), {}, ValueError, "finite in torch.float32"),
        (torch.arange(5), torch.tensor([math.inf]), {}, ValueError, "must be finite"),
        (torch.arange(5), torch.ones(2), {"attention_factor": 1e39}, ValueError, "got 1e.39"),
        (
            torch.arange(5),
            torch.ones(2, dtype=F64),
            {"attention_factor": 1e5, "dtype": torch.float16},
            ValueError,
            r"at most 6\.55e\+04 here, got 100000\.0",
        ),
    ],
)
def test_wrong_tables_are_refused(positions, inv_freq, keywords, error, message):
    with pytest.raises(error, match=message):
        rope.rope_cos_sin(positions, inv_freq, **keywords)


@pytest.mark.parametrize(
    ("x", "cos", "sin", "error", "message"),
    [
        (torch.ones(3, 5, 8), (5, 4), (5, 4), ValueError, r"\(B, H, T, D\), got \(3, 5, 8\)"),
        (torch.ones(2, 3, 5, 8).long(), (5, 4), (5, 4), TypeError, "got torch.int64"),
        (torch.ones(2, 3, 5, 8), (5, 4), (5, 3), ValueError, r"got \(5, 4\) and \(5, 3\)"),
        (torch.ones(2, 3, 5, 8), (4,), (4,), ValueError, r"must both be .*got \(4,\)"),
        # (B, T, H, D) instead of (B, H, T, D): the axis of positions is in the wrong place.
        (torch.ones(2, 5, 3, 8), (5, 4), (5, 4), ValueError, r"cos \(5, 4\) must match"),
        (torch.ones(2, 3, 5, 8), (3, 5, 4), (3, 5, 4), ValueError, r"cos \(3, 5, 4\) must match"),
        (torch.ones(2, 3, 5, 8), (5, 8), (5, 8), ValueError, "rotates 16 features.*only 8"),
    ],
)
def test_wrong_shapes_are_refused(x, cos, sin, error, message):
    with pytest.raises(error, match=message):
        rope.apply_rope(x, torch.ones(*cos), torch.ones(*sin))
