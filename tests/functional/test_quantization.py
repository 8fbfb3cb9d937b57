"""Uniform grids, groups, four-bit packing, NF4, integer products, gradients and rounding."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.functional.quantization import (
    affine_qparams,
    bits_per_weight,
    dequantize,
    dequantize_groupwise,
    double_dequantize,
    double_quantize,
    dynamic_codebook,
    fake_quantize,
    int_matmul,
    nf4_codebook,
    nf4_dequantize,
    nf4_quantize,
    pack_int4,
    quantize,
    quantize_groupwise,
    quantize_groupwise_affine,
    sqnr_db,
    stochastic_round,
    symmetric_scale,
    unpack_int4,
)
from llmref.functional.quantization._grid import code_range
from tests.tensors import close, random

F64 = torch.float64
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

law = settings(deadline=None, max_examples=60)
all_bits = st.integers(2, 16)
vectors = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8).map(
    lambda entries: torch.tensor(entries, dtype=F64)
)


def round_trip(x, bits, *, symmetric=False, dim=None):
    if symmetric:
        scale, zero = symmetric_scale(x, bits, dim=dim), 0
    else:
        scale, zero = affine_qparams(x, bits, dim=dim)
    return scale, dequantize(quantize(x, scale, zero, bits=bits), scale, zero, dtype=F64)


def test_affine_grid_of_minus_one_to_two_in_two_bits():
    """Range 3 over 3 steps: scale 1; zero_point -2 - (-1) = -1; the codes are -2, -1, 0, 1."""
    x = torch.tensor([-1.0, 0.0, 0.4, 1.0, 2.0], dtype=F64)
    scale, zero = affine_qparams(x, 2)
    assert (scale, zero) == (1, -1)
    assert quantize(x, scale, zero, bits=2).tolist() == [-2, -1, -1, 0, 1]
    assert dequantize(torch.tensor([-2, -1, 0, 1]), scale, zero).tolist() == [-1, 0, 1, 2]


def test_symmetric_grid_of_minus_three_to_one_in_three_bits():
    """Largest |x| 3 over 2^2 - 1 = 3 steps: scale 1; the code -4 is not used."""
    x = torch.tensor([-3.0, 0.6, 1.0], dtype=F64)
    assert symmetric_scale(x, 3) == 1
    assert quantize(x, symmetric_scale(x, 3), bits=3).tolist() == [-3, 1, 1]


def test_ties_go_to_the_even_code():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert quantize(x, torch.tensor(1.0), bits=8).tolist() == [-2, -2, 0, 0, 2, 2]


def test_what_is_off_the_grid_gets_the_end_code():
    x = torch.tensor([-1e30, 1e30])
    assert quantize(x, torch.tensor(1e-30), bits=8).tolist() == [-128, 127]
    assert quantize(x, torch.tensor(1.0), 7, bits=4).tolist() == [-8, 7]


def test_decibels_of_three_and_four_with_an_error_of_one_half():
    """25 over 1/4 is 100, which is 20 dB."""
    x = torch.tensor([3.0, 4.0], dtype=F64)
    close(sqnr_db(x, x + torch.tensor([0.0, 0.5])), torch.tensor(20.0, dtype=F64))
    assert sqnr_db(x, x) == math.inf
    close(sqnr_db(1e-200 * x, 1.1e-200 * x), torch.tensor(20.0, dtype=F64))


def test_integer_product_of_one_row_by_hand():
    """(1, 2) times (3, 4) is 11, times 1/2 * 1/2."""
    qx, qw = torch.tensor([[1, 2]], dtype=torch.int8), torch.tensor([[3, 4]], dtype=torch.int8)
    assert int_matmul(qx, 0, 0.5, qw, 0, 0.5) == 2.75
    # With zero points 1 and 2: (0, 1) times (1, 2) is 2.
    assert int_matmul(qx, 1, 0.5, qw, 2, 0.5) == 0.5


def test_packing_one_and_minus_two_by_hand():
    """-2 is 14 in four bits, so the byte is 1 + 16 * 14."""
    packed = pack_int4(torch.tensor([1, -2], dtype=torch.int8))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [1 + 16 * 14]
    assert unpack_int4(packed).tolist() == [1, -2]


@given(st.lists(st.fractions(-8, 8, max_denominator=60), min_size=1, max_size=5), st.integers(2, 8))
@law
def test_the_grid_equals_the_definition_in_fractions(entries, bits):
    """The tensors hold multiples of 2^-20, so both sides start from the same numbers."""
    entries = [Fraction(round(entry * 2**20), 2**20) for entry in entries]
    x = torch.tensor([float(entry) for entry in entries], dtype=F64)
    low, high = min(0, *entries, 0), max(0, *entries, 0)
    scale, zero = affine_qparams(x, bits)
    if low == high:
        assert (scale, zero) == (1, 0)
        return
    q_min, q_max = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    step = (high - low) / (2**bits - 1)
    offset = q_min - round(low / step)
    close(scale, torch.tensor(float(step), dtype=F64), atol=1e-14)
    assert q_min <= offset <= q_max
    codes = [min(max(round(entry / step) + offset, q_min), q_max) for entry in entries]
    near_tie = [abs((abs(entry / step) % 1) - Fraction(1, 2)) < 1e-9 for entry in (*entries, low)]
    if not any(near_tie):  # there the last digit of the division decides
        assert zero == offset
        assert quantize(x, scale, zero, bits=bits).tolist() == codes


@given(vectors, all_bits)
@law
def test_affine_error_is_at_most_half_a_step_and_zero_is_exact(x, bits):
    scale, decoded = round_trip(x, bits)
    assert ((decoded - x).abs() <= scale / 2 * (1 + 1e-10)).all() or (x == 0).all()
    _, zero = affine_qparams(x, bits)
    zeros = torch.zeros(1, dtype=F64)
    assert dequantize(quantize(zeros, scale, zero, bits=bits), scale, zero).item() == 0
    assert code_range(bits)[0] <= zero <= code_range(bits)[1]


@given(vectors, all_bits)
@law
def test_symmetric_error_is_at_most_half_a_step_and_the_grid_is_odd(x, bits):
    scale, decoded = round_trip(x, bits, symmetric=True)
    assert ((decoded - x).abs() <= scale / 2 * (1 + 1e-10)).all() or (x == 0).all()
    codes = quantize(x, scale, bits=bits)
    assert codes.min() >= -code_range(bits)[1]  # the most negative code is never used
    assert (quantize(-x, scale, bits=bits) == -codes).all()


@given(vectors, st.integers(2, 8))
@law
def test_quantising_again_changes_nothing(x, bits):
    scale, zero = affine_qparams(x, bits)
    codes = quantize(x, scale, zero, bits=bits)
    again = quantize(dequantize(codes, scale, zero, dtype=F64), scale, zero, bits=bits)
    assert (again == codes).all()


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_every_code_survives_float32(bits):
    q_min, q_max = code_range(bits)
    codes = torch.arange(q_min, q_max + 1, dtype=torch.int16)
    scale = torch.tensor(0.1)
    for zero in (q_min, 0, q_max):
        decoded = dequantize(codes, scale, zero)
        assert (quantize(decoded, scale, zero, bits=bits) == codes).all()


def test_all_positive_data_still_have_an_exact_zero():
    """With the range [1, 3] instead of [0, 3], 0 would be off the grid."""
    x = torch.tensor([1.0, 3.0], dtype=F64)
    scale, zero = affine_qparams(x)
    close(scale, torch.tensor(3 / 255, dtype=F64))
    assert zero == -128
    assert dequantize(quantize(torch.zeros(1), scale, zero), scale, zero) == 0


@pytest.mark.parametrize("value", [5.0, -0.3, 1e-30, 1e30])
def test_constant_tensors_come_back_without_nan(value):
    x = torch.full((2, 3), value, dtype=F64)
    for symmetric in (False, True):
        _, decoded = round_trip(x, 8, symmetric=symmetric)
        torch.testing.assert_close(decoded, x, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_get_scale_one_and_code_zero(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    assert affine_qparams(x) == (1, 0)
    assert symmetric_scale(x) == 1
    assert (quantize(x, *affine_qparams(x)) == 0).all()
    assert (dequantize(quantize(x, *affine_qparams(x)), *affine_qparams(x)) == 0).all()


def test_a_slice_of_zeros_does_not_disturb_its_neighbours():
    x = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    scale, zero = affine_qparams(x, dim=-1)
    assert scale[0] == 1
    assert zero[0] == 0
    close(scale[1], torch.tensor([2 / 255]), atol=1e-9)
    assert symmetric_scale(x, dim=-1)[0] == 1


def test_subnormal_data_are_treated_as_zero():
    x = torch.full((3,), 1e-44)  # scale 1e-44 / 255 would be 0 in float32
    assert affine_qparams(x) == (1, 0)
    assert symmetric_scale(x) == 1
    assert (quantize(x, *affine_qparams(x)) == 0).all()
    tiny = torch.finfo(torch.float32).tiny  # normal, if only just
    assert symmetric_scale(torch.tensor([127 * tiny])) == tiny


def test_the_widest_range_does_not_overflow():
    """The range is twice the largest number, and the scale would be infinite with it."""
    for dtype in (torch.float32, torch.float64):
        largest = torch.finfo(dtype).max
        x = torch.tensor([-largest, 0.0, largest], dtype=dtype)
        scale, zero = affine_qparams(x)
        assert scale.isfinite()
        steps = quantize(x, scale, zero) - zero
        assert steps[1] == 0
        assert ((steps - x / scale).abs() <= 0.5 + 1e-4).all()


@pytest.mark.parametrize(
    ("bits", "expected"), [(2, torch.int8), (4, torch.int8), (8, torch.int8), (9, torch.int16)]
)
def test_codes_are_integers_of_the_stated_size(bits, expected):
    """A common mistake leaves the codes in float32, which saves no memory at all."""
    x = random(3, 5)
    codes = quantize(x, symmetric_scale(x, bits), bits=bits)
    assert codes.dtype == expected
    assert codes.element_size() == (1 if bits <= 8 else 2)
    assert affine_qparams(x)[1].dtype == torch.int32


def test_zero_point_does_not_wrap_around_in_int8():
    """127 - (-128) = 255 is no int8, and a scalar int32 tensor does not widen an int8 tensor."""
    codes = torch.tensor([127, -128], dtype=torch.int8)
    zero = torch.tensor(-128, dtype=torch.int32)
    assert dequantize(codes, torch.tensor(1.0), zero).tolist() == [255, 0]
    assert dequantize(codes, torch.tensor(1.0), -128).tolist() == [255, 0]


def test_rounding_is_not_truncation():
    """Conversion to an integer truncates towards 0: the mean of |x| would fall by half a step."""
    x = 100 * torch.rand(4000, dtype=F64, generator=torch.Generator().manual_seed(0))
    codes = quantize(x, torch.tensor(1.0), bits=8).double()
    assert (codes - x).mean().abs() < 4 / math.sqrt(12 * 4000)
    assert (codes - x).abs().max() <= 0.5


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_a_scale_for_each_slice_equals_a_loop(dim):
    x = random(2, 3, 5)
    scale, zero = affine_qparams(x, 5, dim=dim)
    symmetric = symmetric_scale(x, 5, dim=dim)
    assert scale.shape == zero.shape == symmetric.shape == x.amax(dim, keepdim=True).shape
    codes = quantize(x, scale, zero, bits=5)
    rows = x.movedim(dim, -1).reshape(-1, x.shape[dim])
    for i, row in enumerate(rows):
        step, offset = affine_qparams(row, 5)
        assert scale.flatten()[i] == step
        assert zero.flatten()[i] == offset
        assert symmetric.flatten()[i] == symmetric_scale(row, 5)
        expected = quantize(row, step, offset, bits=5)
        assert (codes.movedim(dim, -1).reshape(rows.shape)[i] == expected).all()


def test_finer_scales_are_never_larger():
    x = random(4, 6)
    assert (symmetric_scale(x, dim=-1) <= symmetric_scale(x)).all()
    assert (affine_qparams(x, dim=-1)[0] <= affine_qparams(x)[0]).all()


def test_a_finer_scale_can_make_the_error_larger():
    """0.5 is a multiple of 0.01, and 63.5/0.7 = 90.71 steps of 0.7/127: wrong by 1/635."""
    x = torch.tensor([[1.27, 0.5], [0.7, 0.5]], dtype=F64)
    _, whole = round_trip(x, 8, symmetric=True)
    _, rows = round_trip(x, 8, symmetric=True, dim=-1)
    close(whole, x, atol=1e-15)
    close((rows - x)[1, 1], torch.tensor(1 / 635, dtype=F64))


def test_groups_equal_a_loop_over_runs_of_the_last_axis():
    x = random(2, 3, 12)
    codes, scales = quantize_groupwise(x, 4, bits=4)
    assert codes.shape == x.shape
    assert scales.shape == (2, 3, 3)
    decoded = dequantize_groupwise(codes, scales, dtype=F64)
    for i in range(2):
        for j in range(3):
            for k in range(3):
                group = x[i, j, 4 * k : 4 * k + 4]
                scale, expected = round_trip(group, 4, symmetric=True)
                assert scales[i, j, k] == scale
                close(decoded[i, j, 4 * k : 4 * k + 4], expected, atol=1e-15)


def test_one_group_is_one_row():
    x = random(3, 8)
    codes, scales = quantize_groupwise(x, 8, bits=8)
    assert (codes == quantize(x, symmetric_scale(x, dim=-1))).all()
    assert scales.shape == (3, 1)


def test_packing_is_a_bijection_of_pairs_and_bytes():
    codes = torch.arange(-8, 8, dtype=torch.int8)
    pairs = torch.cartesian_prod(codes, codes)
    packed = pack_int4(pairs)
    assert packed.shape == (256, 1)
    assert packed.flatten().unique().numel() == 256
    assert (unpack_int4(packed) == pairs).all()
    every = torch.arange(256).to(torch.uint8)
    assert (pack_int4(unpack_int4(every)) == every).all()


def test_packed_codes_take_half_a_byte_each():
    codes, _ = quantize_groupwise(random(3, 5, 8), 4)
    packed = pack_int4(codes)
    assert packed.shape == (3, 5, 4)
    assert packed.numel() * packed.element_size() * 2 == codes.numel()
    assert (unpack_int4(packed) == codes).all()
    assert pack_int4(torch.zeros(2, 0, dtype=torch.int8)).shape == (2, 0)


def test_the_even_entry_is_in_the_low_nibble():
    assert pack_int4(torch.tensor([3, 0], dtype=torch.int64)).item() == 3
    assert pack_int4(torch.tensor([0, 3], dtype=torch.int16)).item() == 48


def test_nf4_has_sixteen_ascending_levels_with_zero_and_both_ends():
    levels = nf4_codebook()
    assert levels.shape == (16,)
    assert (levels.diff() > 0).all()
    assert levels[0] == -1
    assert levels[7] == 0
    assert levels[15] == 1
    assert (levels < 0).sum() == 7
    assert (levels != -levels.flip(0)).any()
    assert nf4_codebook(torch.float32).dtype == torch.float32


def test_nf4_levels_are_quantiles_of_the_normal_law():
    """Probabilities in equal steps on each side of 1/2, up to 1 - (1/30 + 1/32)/2 on both."""
    levels = nf4_codebook()
    offset = 1 - (1 / 30 + 1 / 32) / 2
    largest = math.sqrt(2) * torch.erfinv(torch.tensor(2 * offset - 1, dtype=F64))
    p = torch.special.ndtr(levels * largest)
    close(p[7:].diff(), torch.full((8,), (offset - 0.5) / 8, dtype=F64))
    close(p[:8].diff(), torch.full((7,), (offset - 0.5) / 7, dtype=F64))


@pytest.mark.parametrize("n", [1, 4, 10])
def test_nf4_equals_a_search_for_the_nearest_level(n):
    x = random(n)
    index, absmax = nf4_quantize(x, block_size=4)
    assert index.dtype == torch.uint8
    assert absmax.shape == (math.ceil(n / 4),)
    levels = nf4_codebook()
    for i, value in enumerate(x):
        block = x[4 * (i // 4) : 4 * (i // 4) + 4]
        assert absmax[i // 4] == block.abs().max()
        assert index[i] == (levels - value / block.abs().max()).abs().argmin()


def test_nf4_decodes_levels_times_absmax():
    index = torch.tensor([0, 7, 15], dtype=torch.uint8)
    assert nf4_dequantize(index, torch.tensor([2.0]), (3,)).tolist() == [-2, 0, 2]
    levels = nf4_codebook().repeat(2)
    index, absmax = nf4_quantize(torch.cat([3 * levels[:16], levels[16:] / 7]), block_size=16)
    decoded = nf4_dequantize(index, absmax, (2, 16), block_size=16, dtype=F64)
    close(decoded, torch.stack([3 * levels[:16], levels[16:] / 7]))


def test_nf4_keeps_zeros_and_blocks_of_zeros():
    x = torch.tensor([0.0, 2.0, 0.0, 0.0])
    index, absmax = nf4_quantize(x, block_size=2)
    assert absmax.tolist() == [2, 0]
    assert index.tolist() == [7, 15, 7, 7]
    assert nf4_dequantize(index, absmax, (4,), 2).tolist() == [0, 2, 0, 0]


def test_nf4_indices_can_be_packed():
    index, absmax = nf4_quantize(random(6, 64))
    packed = pack_int4(index.to(torch.int8) - 8)
    bits = 8 * (packed.numel() + absmax.to(torch.float32).numel() * 4) / index.numel()
    assert bits == 4.5
    assert (unpack_int4(packed) + 8 == index).all()


def test_nf4_of_nothing_is_nothing():
    index, absmax = nf4_quantize(torch.zeros(0))
    assert nf4_dequantize(index, absmax, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize("dtypes", [(torch.int8, torch.int8), (torch.uint8, torch.int8)])
def test_integer_product_equals_the_product_of_the_decoded_matrices(dtypes):
    generator = torch.Generator().manual_seed(0)
    qx, qw = (
        torch.randint(
            torch.iinfo(d).min, torch.iinfo(d).max + 1, shape, dtype=d, generator=generator
        )
        for d, shape in zip(dtypes, [(2, 7), (3, 7)], strict=True)
    )
    zw = torch.tensor([3, -128, 0])
    sx, sw = random(2, 1).abs(), random(3, seed=1).abs()
    expected = (sx * (qx.double() - 5)) @ (sw[:, None] * (qw.double() - zw[:, None])).T
    close(int_matmul(qx, 5, sx, qw, zw, sw), expected, atol=1e-10)
    close(int_matmul(qx, 5, sx, qw, zw[:, None], sw[:, None]), expected, atol=1e-10)
    close(int_matmul(qx, torch.tensor(5), sx, qw, zw, sw), expected, atol=1e-10)


def test_integer_product_of_a_quantised_layer_is_its_decoded_product():
    x, w = random(5, 7), random(3, 7, seed=1)
    sx, zx = affine_qparams(x)
    sw = symmetric_scale(w, dim=-1)
    qx, qw = quantize(x, sx, zx), quantize(w, sw)
    decoded = dequantize(qx, sx, zx, dtype=F64) @ dequantize(qw, sw, dtype=F64).T
    close(int_matmul(qx, zx, sx, qw, 0, sw), decoded)
    assert (decoded - x @ w.T).abs().max() < 0.2


def test_integer_product_takes_one_scale_in_any_shape():
    """One for all rows, or one for each, as a row of numbers or a column."""
    qx, qw = (torch.arange(n * 4).view(n, 4).to(torch.int8) for n in (2, 3))
    product = qx.double() @ qw.double().T
    for sx in ((), (1, 1), (2, 1)):
        for sw in ((), (1,), (1, 1), (3,), (3, 1)):
            left, right = torch.full(sx, 0.5, dtype=F64), torch.full(sw, 0.25, dtype=F64)
            zero = torch.zeros(sw, dtype=torch.int32)
            close(int_matmul(qx, 0, left, qw, zero, right), product / 8)


@pytest.mark.parametrize("zw", [[-128, 0], [0, 127], [-128, 127]])
def test_the_longest_safe_product_is_that_of_the_farthest_zero_point(zw):
    """A code is up to 255 away from -128 and from 127, and 128 from 0."""
    qx, qw = torch.ones(1, 33026, dtype=torch.int8), torch.ones(2, 33026, dtype=torch.int8)
    with pytest.raises(ValueError, match="at most K = 33025"):
        int_matmul(qx, -128, 1.0, qw, torch.tensor(zw), 1.0)


def test_the_longest_safe_product_is_exact_and_one_more_is_refused():
    """255 * 255 * 33025 < 2^31 <= 255 * 255 * 33026."""
    qx = torch.full((1, 33026), 127, dtype=torch.int8)
    longest = qx[:, :33025]
    assert int_matmul(longest, -128, 1.0, longest, -128, 1.0) == float(255 * 255 * 33025)
    with pytest.raises(ValueError, match=r"K = 33026 .* 255 \* 255 .* at most K = 33025"):
        int_matmul(qx, -128, 1.0, qx, -128, 1.0)


@pytest.mark.parametrize(
    ("zx", "zw", "x_type", "longest"),
    [
        (-128, -128, torch.int8, 33025),
        (-128, 0, torch.int8, 65793),
        (0, 0, torch.int8, 131071),
        (0, 0, torch.uint8, 65793),
        (128, 0, torch.uint8, 131071),
    ],
)
def test_the_longest_sum_depends_on_the_zero_points(zx, zw, x_type, longest):
    qx, qw = torch.ones(1, longest, dtype=x_type), torch.ones(1, longest, dtype=torch.int8)
    assert int_matmul(qx, zx, 1.0, qw, zw, 1.0) == float(longest * (1 - zx) * (1 - zw))
    one_more = [torch.ones(1, longest + 1, dtype=d) for d in (x_type, torch.int8)]
    with pytest.raises(ValueError, match=f"at most K = {longest}"):
        int_matmul(one_more[0], zx, 1.0, one_more[1], zw, 1.0)


def test_a_term_may_overflow_int32_where_the_bracket_does_not():
    """Sum of 255 * 127 over 131071 is 4.2e9, but the bracket has (255 - 128) * 127."""
    qx = torch.full((1, 131071), 255, dtype=torch.uint8)
    qw = torch.full((1, 131071), 127, dtype=torch.int8)
    assert 131071 * 255 * 127 > 2**31
    assert int_matmul(qx, 128, 1.0, qw, 0, 1.0).double() == float(torch.tensor(127.0**2 * 131071))


def test_products_are_not_accumulated_in_int8():
    """100 * 100 * 5 is far beyond 127."""
    q = torch.full((1, 5), 100, dtype=torch.int8)
    assert int_matmul(q, 0, 1.0, q, 0, 1.0) == 50000


def test_fake_quantisation_is_there_and_back():
    x = 3 * random(4, 5)
    scale, zero = affine_qparams(x, 4)
    expected = dequantize(quantize(x, scale, zero, bits=4), scale, zero, dtype=F64)
    close(fake_quantize(x, scale, zero, bits=4), expected, atol=1e-15)
    scale = symmetric_scale(x, 3, dim=-1) / 2  # some entries are clipped
    expected = dequantize(quantize(x, scale, bits=3), scale, dtype=F64)
    close(fake_quantize(x, scale, 0, bits=3), expected, atol=1e-15)


def test_what_is_not_said_is_eight_bits_and_blocks_of_256_and_64_and_groups_of_four_bits():
    x = random(600).abs() + 0.1
    assert torch.equal(fake_quantize(x, 0.001, 0), fake_quantize(x, 0.001, 0, bits=8))
    index, _, peak = double_quantize(x)
    same, _, other = double_quantize(x, 256)
    assert torch.equal(index, same)
    assert torch.equal(peak, other)
    assert not torch.equal(fake_quantize(x, 0.001, 0), fake_quantize(x, 0.001, 0, bits=9))
    assert len(double_quantize(x, 300)[2]) != len(peak)
    code = index, x.mean(), torch.tensor([1.0, 2, 3], dtype=F64)
    assert torch.equal(double_dequantize(*code), double_dequantize(*code, 256))
    index, absmax = nf4_quantize(x)
    for found, wanted in zip((index, absmax), nf4_quantize(x, 64), strict=True):
        assert torch.equal(found, wanted)
    code = index, absmax, x.shape
    assert torch.equal(nf4_dequantize(*code), nf4_dequantize(*code, 64))
    for function in (quantize_groupwise, quantize_groupwise_affine):
        for found, wanted in zip(function(x, 8), function(x, 8, 4), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("size", [1.0, 0.25])
def test_the_gradient_passes_unless_the_rounded_value_is_clipped(size):
    """Codes -4 to 3: 3.4 rounds to 3 and counts as inside, 3.6 rounds to 4 and does not."""
    x = size * torch.tensor([-4.6, -4.4, 0.2, 3.4, 3.6, 9.0], dtype=F64)
    x.requires_grad_()
    fake_quantize(x, torch.tensor(size, dtype=F64), 0, bits=3).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("size", [1.0, 0.25])
def test_the_gradient_of_the_scale_is_that_of_learned_step_sizes(size):
    """Inside round(v) - v, so -0.2 and 0.4; outside the end code, 3 and -4; weights 1, 2, 3, 5."""
    x = size * torch.tensor([0.2, 0.6, 9.0, -9.0], dtype=F64)
    scale = torch.tensor(size, dtype=F64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=F64)
    (fake_quantize(x, scale, 0, bits=3) * weights).sum().backward()
    close(scale.grad, torch.tensor(-0.2 + 2 * 0.4 + 3 * 3 - 5 * 4, dtype=F64))


def test_the_gradient_of_a_scale_for_each_row_has_its_shape():
    x = random(3, 5).float().requires_grad_()
    scale = (symmetric_scale(x.detach(), 4, dim=-1) / 2).double().requires_grad_()
    fake_quantize(x, scale, torch.zeros(3, 1, dtype=torch.int32), bits=4).sum().backward()
    assert scale.grad.shape == (3, 1)
    assert x.grad.dtype == torch.float32
    for i in range(3):
        row = scale.detach()[i].squeeze().requires_grad_()
        fake_quantize(x.detach()[i], row, 0, bits=4).sum().backward()
        close(scale.grad[i, 0], row.grad, atol=1e-6)


def test_finite_differences_do_not_see_the_straight_through_gradient():
    x = torch.tensor([0.2], dtype=F64, requires_grad=True)
    assert not torch.autograd.gradcheck(
        lambda t: fake_quantize(t, 1.0, 0), x, raise_exception=False
    )


@given(vectors)
@law
def test_stochastic_rounding_returns_a_neighbour(x):
    rounded = stochastic_round(x, generator=torch.Generator().manual_seed(0))
    assert ((rounded == x.floor()) | (rounded == x.ceil())).all()


def test_stochastic_rounding_has_the_right_mean_and_variance():
    """At 0.25 the mean is 0.25 and the variance 3/16, also below 0 (-0.75 is -1 + 0.25)."""
    n = 20000
    generator = torch.Generator().manual_seed(0)
    for value in (0.25, -0.75, 3.25):
        x = torch.full((n,), value, dtype=F64)
        rounded = stochastic_round(x, generator=generator)
        assert (rounded.mean() - value).abs() < 4 * math.sqrt(3 / 16 / n)
        assert (rounded.var() - 3 / 16).abs() < 0.01


def test_stochastic_rounding_keeps_integers_and_repeats_with_a_seed():
    x = torch.tensor([-2.0, 0.0, 5.0])
    assert (stochastic_round(x) == x).all()
    y = random(50)
    first, second = (stochastic_round(y, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert (first == second).all()


def test_an_integer_stays_whatever_is_drawn(monkeypatch):
    """torch.rand may give 0, once in 2^24 draws of float32."""
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape))
    assert stochastic_round(torch.tensor([-2.0, 0.0, 5.0, 0.5])).tolist() == [-2, 0, 5, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_accepted_with_statistics_in_float32_or_wider(dtype):
    x = random(4, 8).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    scale, zero = affine_qparams(x, dim=-1)
    assert scale.dtype == symmetric_scale(x).dtype == wide
    reference_scale, reference_zero = affine_qparams(x.double(), dim=-1)
    torch.testing.assert_close(scale.double(), reference_scale, rtol=1e-6, atol=0)
    assert (zero == reference_zero).all()
    assert (quantize(x, scale, zero) == quantize(x.double(), reference_scale, reference_zero)).all()
    assert dequantize(quantize(x, scale, zero), scale, zero, dtype=dtype).dtype == dtype
    assert fake_quantize(x, scale, zero).dtype == dtype
    assert stochastic_round(x).dtype == dtype
    index, absmax = nf4_quantize(x, block_size=16)
    assert absmax.dtype == wide
    assert nf4_dequantize(index, absmax, x.shape, 16, dtype=dtype).dtype == dtype
    assert sqnr_db(x, x + 0.5).dtype == wide
    codes, scales = quantize_groupwise(x, 4)
    assert scales.dtype == wide
    assert dequantize_groupwise(codes, scales, dtype=dtype).dtype == dtype


REDUCTIONS = [affine_qparams, symmetric_scale, lambda x: quantize_groupwise(x, 2)]
MAPS = [
    lambda x: quantize(x, torch.tensor(1.0)),
    lambda x: fake_quantize(x, torch.tensor(1.0), 0),
    stochastic_round,
    nf4_quantize,
    lambda x: sqnr_db(x, x),
]


@pytest.mark.parametrize("function", REDUCTIONS + MAPS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_entries_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(ValueError, match="x must be finite, got"):
        function(torch.tensor([0.0, bad, 1.0, 2.0]))


@pytest.mark.parametrize("function", REDUCTIONS + MAPS)
def test_integers_are_refused_where_numbers_are_needed(function):
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        function(torch.tensor([1, 2, 3, 4]))


@pytest.mark.parametrize("function", [affine_qparams, symmetric_scale])
def test_an_empty_tensor_has_no_range(function):
    with pytest.raises(ValueError, match=r"an empty tensor \(2, 0\) has no range"):
        function(torch.zeros(2, 0))


@pytest.mark.parametrize("bits", [0, 1, 17, -3])
def test_bits_outside_two_to_sixteen_are_refused(bits):
    x = torch.ones(2)
    for call in (
        lambda: affine_qparams(x, bits),
        lambda: symmetric_scale(x, bits),
        lambda: quantize(x, torch.tensor(1.0), bits=bits),
        lambda: fake_quantize(x, torch.tensor(1.0), 0, bits=bits),
    ):
        with pytest.raises(ValueError, match=rf"bits must be in \[2, 16\], got {bits}"):
            call()


def test_bits_that_are_no_integer_are_refused():
    with pytest.raises(TypeError, match=r"bits must be an int, got 4.0"):
        affine_qparams(torch.ones(2), 4.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale):
    for call in (
        lambda: quantize(torch.ones(2), torch.tensor(scale)),
        lambda: dequantize(torch.ones(2, dtype=torch.int8), torch.tensor(scale)),
        lambda: fake_quantize(torch.ones(2), scale, 0),
    ):
        with pytest.raises(ValueError, match=f"positive and finite, got {scale:g}"):
            call()


def test_a_real_zero_point_is_refused():
    with pytest.raises(TypeError, match=r"zero_point must hold integers, got torch\.float32"):
        quantize(torch.ones(2), torch.tensor(1.0), torch.tensor(0.5))
    with pytest.raises(TypeError, match=r"zero_point must hold integers, got torch\.float32"):
        dequantize(torch.ones(2, dtype=torch.int8), torch.tensor(1.0), 0.5)


@pytest.mark.parametrize("zero", [-9, 8, torch.tensor([3, -9])])
def test_a_zero_point_off_the_grid_is_refused(zero):
    with pytest.raises(ValueError, match=r"zero_point must be in \[-8, 7\], got"):
        quantize(torch.ones(2), torch.tensor(1.0), zero, bits=4)


def test_codes_must_be_integers():
    for call in (
        lambda: dequantize(torch.ones(2), torch.tensor(1.0)),
        lambda: pack_int4(torch.ones(2)),
        lambda: nf4_dequantize(torch.ones(2), torch.ones(1), (2,)),
    ):
        with pytest.raises(TypeError, match=r"(q|idx) must hold integers, got torch\.float32"):
            call()


def test_a_flat_scale_against_a_matrix_is_refused():
    """(3,) against (3, 3) would broadcast along the inputs where the outputs were meant."""
    with pytest.raises(ValueError, match=r"scale \(3,\) must be a scalar or have the axes of"):
        quantize(torch.ones(3, 3), torch.ones(3))
    with pytest.raises(ValueError, match=r"zero_point \(3,\) must be a scalar or have the axes of"):
        quantize(torch.ones(3, 3), torch.tensor(1.0), torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"scale \(2, 1\) .* axes of \(3, 3\)"):
        quantize(torch.ones(3, 3), torch.ones(2, 1))


@pytest.mark.parametrize("size", [0, -1])
def test_a_group_or_block_without_entries_is_refused(size):
    with pytest.raises(ValueError, match=f"group_size must be at least 1, got {size}"):
        quantize_groupwise(torch.ones(4), size)
    with pytest.raises(ValueError, match=f"block_size must be at least 1, got {size}"):
        nf4_quantize(torch.ones(4), size)


def test_groups_must_divide_the_last_axis():
    with pytest.raises(ValueError, match=r"group_size 3 must divide the last axis of \(2, 4\)"):
        quantize_groupwise(torch.ones(2, 4), 3)
    codes = torch.ones(2, 4, dtype=torch.int8)
    with pytest.raises(ValueError, match="3 scales do not divide the last axis 4"):
        dequantize_groupwise(codes, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"needs codes .* got \(\(2, 4\), \(4, 2\)\)"):
        dequantize_groupwise(codes, torch.ones(4, 2))


def test_packing_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"last axis must be even to pack pairs, got \(2, 3\)"):
        pack_int4(torch.ones(2, 3, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"q must be in \[-8, 7\], got 8"):
        pack_int4(torch.tensor([0, 8], dtype=torch.int8))
    with pytest.raises(TypeError, match=r"needs bytes, torch.uint8, got torch.int8"):
        unpack_int4(torch.ones(2, dtype=torch.int8))
    with pytest.raises(ValueError, match="needs an axis of bytes"):
        unpack_int4(torch.tensor(3, dtype=torch.uint8))


def test_nf4_decoding_refuses_sizes_that_do_not_fit():
    index = torch.zeros(5, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"5 indices in blocks of 4 need 2 absmax .* got .*\(1,\)"):
        nf4_dequantize(index, torch.ones(1), (5,), 4)
    with pytest.raises(ValueError, match=r"a shape with 5 entries, .* shape \(2, 2\)"):
        nf4_dequantize(index, torch.ones(2), (2, 2), 4)
    with pytest.raises(ValueError, match=r"idx must be in \[0, 15\], got 16"):
        nf4_dequantize(torch.tensor([0, 16]), torch.ones(1), (2,))


def test_integer_product_refuses_what_it_cannot_multiply():
    q = torch.ones(2, 3, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"needs int8 or uint8 codes, got torch.int32"):
        int_matmul(q.int(), 0, 1.0, q, 0, 1.0)
    with pytest.raises(TypeError, match=r"zw must hold integers, got torch\.float32"):
        int_matmul(q, 0, 1.0, q, 0.5, 1.0)
    with pytest.raises(TypeError, match="integer"):
        int_matmul(q, 0.5, 1.0, q, 0, 1.0)
    with pytest.raises(ValueError, match=r"qw must be \(N, K\) beside qx \(2, 3\), got \(2, 4\)"):
        int_matmul(q, 0, 1.0, torch.ones(2, 4, dtype=torch.int8), 0, 1.0)
    with pytest.raises(ValueError, match=r"sx must be a scalar or \(2, 1\), got \(3,\)"):
        int_matmul(q, 0, torch.ones(3), q, 0, 1.0)
    with pytest.raises(ValueError, match=r"sw must be a scalar, \(2,\) or \(2, 1\), got \(3,\)"):
        int_matmul(q, 0, 1.0, q, 0, torch.ones(3))
    with pytest.raises(ValueError, match="sx must be positive and finite, got 0"):
        int_matmul(q, 0, 0.0, q, 0, 1.0)


def test_decibels_refuse_a_signal_of_zeros_and_another_shape():
    with pytest.raises(ValueError, match="a signal of zeros has no ratio"):
        sqnr_db(torch.zeros(3), torch.ones(3))
    with pytest.raises(
        ValueError, match=r"xhat must be \(\.\.\.\) = \(3,\) beside x \(3,\), got \(2,\)"
    ):
        sqnr_db(torch.ones(3), torch.ones(2))


@pytest.mark.parametrize("function", [affine_qparams, symmetric_scale])
def test_a_dim_that_is_no_axis_is_refused(function):
    with pytest.raises(ValueError, match=r"dim must be an axis of x \(2, 3\), in \[-2, 2\), got 2"):
        function(torch.ones(2, 3), dim=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_integer_product_widens_scales_in_sixteen_bits(dtype):
    """2e7 products of 1e-4 * 1e-4 are 0.2: in float16 the scales vanish and the sum overflows."""
    qx, qw = torch.full((1, 2000), 100, dtype=torch.int8), torch.full((1, 2000), 100).to(torch.int8)
    sx, sw = torch.tensor(1e-4, dtype=dtype), torch.tensor([1e-4], dtype=dtype)
    product = int_matmul(qx, 0, sx, qw, 0, sw)
    assert product.dtype == torch.float32
    close(product, torch.tensor([[2e7 * sx.item() * sw.item()]]), atol=1e-7)


def test_integer_product_of_scales_whose_own_product_vanishes():
    """1e-30 * 1e-30 is 0 in float32, and 1e-30 * 1e8 * 1e-10 is not."""
    q = torch.full((1, 10000), 100, dtype=torch.int8)
    tiny, small = torch.tensor(1e-30), torch.tensor(1e-14)
    expected = 1e8 * tiny.double() * small.double()
    torch.testing.assert_close(int_matmul(q, 0, tiny, q, 0, small)[0, 0].double(), expected)
    with pytest.raises(ValueError, match=r"must fit into torch.float32, got 1e\+68 in size"):
        int_matmul(q, 0, torch.tensor(1e30), q, 0, torch.tensor(1e30))


@pytest.mark.parametrize("zw", [5, torch.tensor(5), torch.tensor([5, -5, 0])])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int64])
def test_integer_product_takes_zero_points_of_any_integer_type(zw, dtype):
    """K zx zw = 64 * 3 * 5 = 960 wraps around in 8 bits."""
    zw = torch.as_tensor(zw).clamp(min=0 if dtype == torch.uint8 else -5).to(dtype)
    generator = torch.Generator().manual_seed(0)
    qx, qw = (torch.randint(-128, 128, (n, 64), generator=generator).to(torch.int8) for n in (2, 3))
    expected = (qx.double() - 3) @ (qw.double() - zw.double().reshape(-1, 1)).T
    close(int_matmul(qx, 3, 1.0, qw, zw, 1.0).double(), expected)


def test_zero_points_and_codes_beyond_32_bits_do_not_wrap():
    q = torch.tensor([2**32 + 5])
    assert dequantize(q, 1.0, 2**32, dtype=F64) == 5
    assert dequantize(q - 2**32, 1.0, 2**32, dtype=F64) == 5 - 2**32


def test_a_decoded_value_that_does_not_fit_is_refused():
    """The step of [-M, M] is 2 M / 255, and its code -128 stands for -1.004 M."""
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([-largest, largest])
    scale, zero = affine_qparams(x)
    with pytest.raises(ValueError, match="decoded values must fit into torch.float32, got inf"):
        dequantize(quantize(x, scale, zero), scale, zero)
    assert dequantize(quantize(x, scale, zero), scale.double(), zero, dtype=F64).isfinite().all()
    with pytest.raises(ValueError, match="fit into torch.float16, got 70000 in size"):
        dequantize(torch.tensor([7], dtype=torch.int8), 1e4, dtype=torch.float16)
    with pytest.raises(ValueError, match="fit into torch.float16, got 66000 in size"):
        fake_quantize(torch.tensor([65504.0]).half(), 1000.0, 0)
    with pytest.raises(ValueError, match="fit into torch.float16, got 70000 in size"):
        nf4_dequantize(torch.tensor([15]), torch.tensor([7e4]), (1,), dtype=torch.float16)
    with pytest.raises(ValueError, match="fit into torch.float16, got 70000 in size"):
        dequantize_groupwise(
            torch.tensor([7], dtype=torch.int8), torch.tensor([1e4]), dtype=torch.float16
        )


def test_a_result_of_integers_is_refused():
    with pytest.raises(TypeError, match=r"dtype must be floating point, got torch\.int8"):
        dequantize(torch.ones(2, dtype=torch.int8), 1.0, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"dtype must be floating point, got torch\.int8"):
        nf4_dequantize(torch.tensor([15]), torch.ones(1), (1,), dtype=torch.int8)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_an_absmax_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match=r"absmax must be in \[0, inf\), got"):
        nf4_dequantize(torch.tensor([15]), torch.tensor([bad]), (1,))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_decibels_of_numbers_near_the_ends_of_the_dtype(dtype):
    """The error of -x for x is twice as large as x: -6.02 dB."""
    for size in (torch.finfo(dtype).max, 1.0, torch.finfo(dtype).tiny):
        x = torch.tensor([size, size / 2], dtype=dtype)
        close(sqnr_db(x, -x), torch.tensor(-20 * math.log10(2), dtype=dtype), atol=1e-5)
    small = torch.tensor([torch.finfo(dtype).tiny], dtype=dtype)
    large = torch.tensor([torch.finfo(dtype).max], dtype=dtype)
    expected = 20 * (small.double().log10() - large.double().log10())
    close(sqnr_db(small, large).double(), expected[0], atol=1e-3)


# --- groups with zero points


def test_two_groups_with_zero_points_by_hand():
    """(-1, 2): step 1, 0 has the code 1. (1, 3): the range is 0 to 3, and 0 has the code 0."""
    codes, scale, zero = quantize_groupwise_affine(torch.tensor([-1.0, 2, 1, 3], dtype=F64), 2, 2)
    assert codes.tolist() == [0, 3, 1, 3]
    assert scale.tolist() == [1, 1]
    assert zero.tolist() == [1, 0]
    assert {codes.dtype, zero.dtype} == {torch.uint8}
    assert dequantize_groupwise(codes, scale, zero, dtype=F64).tolist() == [-1, 2, 1, 3]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_groups_with_zero_points_equal_their_loop(bits):
    x = random(3, 12) + 0.7
    codes, scale, zero = quantize_groupwise_affine(x, 4, bits)
    decoded = dequantize_groupwise(codes, scale, zero, dtype=F64)
    top = 2**bits - 1
    for i in range(3):
        for g in range(3):
            group = x[i, 4 * g : 4 * g + 4]
            low, high = min(0.0, group.min().item()), max(0.0, group.max().item())
            step = (high - low) / top
            z = round(-low / step)
            assert scale[i, g].item() == pytest.approx(step)
            assert zero[i, g] == z
            for j in range(4):
                q = min(max(round(group[j].item() / step) + z, 0), top)
                assert codes[i, 4 * g + j] == q
                assert decoded[i, 4 * g + j].item() == pytest.approx(step * (q - z))


@law
@given(st.integers(2, 8), st.floats(-3, 3))
def test_with_a_zero_point_no_entry_moves_by_more_than_half_a_step(bits, shift):
    x = random(2, 8) + shift
    codes, scale, zero = quantize_groupwise_affine(x, 4, bits)
    decoded = dequantize_groupwise(codes, scale, zero, dtype=F64)
    assert ((decoded - x).abs() <= scale.repeat_interleave(4, -1) / 2 + 1e-12).all()
    zeros = dequantize_groupwise(zero.repeat_interleave(4, -1), scale, zero)
    assert zeros.count_nonzero() == 0


def test_a_group_of_zeros_stays_zero():
    codes, scale, zero = quantize_groupwise_affine(torch.zeros(1, 4), 2)
    assert scale.tolist() == [[1, 1]]
    assert dequantize_groupwise(codes, scale, zero).count_nonzero() == 0


def test_unsigned_codes_take_half_a_byte():
    codes, _, _ = quantize_groupwise_affine(random(2, 8), 4)
    packed = pack_int4(codes.to(torch.int8) - 8)
    assert torch.equal(unpack_int4(packed) + 8, codes.to(torch.int8))


def test_errors_of_groups_with_zero_points():
    x = random(2, 8)
    with pytest.raises(ValueError, match=r"bits must be in \[2, 8\], got 9"):
        quantize_groupwise_affine(x, 4, 9)
    with pytest.raises(TypeError, match=r"bits must be an int, got 4\.0"):
        quantize_groupwise_affine(x, 4, 4.0)
    with pytest.raises(ValueError, match=r"group_size 3 must divide the last axis of \(2, 8\)"):
        quantize_groupwise_affine(x, 3)
    codes, scale, zero = quantize_groupwise_affine(x, 4)
    with pytest.raises(ValueError, match=r"zero_point must be \(\.\.\.\) = \(2, 2\) beside scale"):
        dequantize_groupwise(codes, scale, zero[:1])
    with pytest.raises(TypeError, match=r"zero_point must hold integers, got torch\.float32"):
        dequantize_groupwise(codes, scale, zero.float())


# --- double quantisation


def test_bits_per_weight_by_hand():
    """4 + 20 / 128; and 4 + (8 + 32 / 256) / 64 for NF4 with quantised scales."""
    assert bits_per_weight(4, 128, scale_bits=16, zero_point_bits=4) == 4 + 20 / 128
    scale = bits_per_weight(8, 256, scale_bits=32)
    assert bits_per_weight(4, 64, scale_bits=scale) == 4 + 8 / 64 + 32 / (64 * 256)


def test_levels_of_the_dynamic_code():
    """64 cells of [0.1, 1], with middles 0.1 + 0.9 (j + 1/2) / 64; 1 is a level, -1 is none."""
    levels = dynamic_codebook()
    assert levels.unique().shape == (256,)
    top = torch.tensor([0.1 + 0.9 * (j + 0.5) / 64 for j in range(64)], dtype=F64)
    close(levels[-65:-1], top)
    close(levels[:64], -top.flip(0))
    close(levels[128:131] * 1e6, torch.tensor([0.55, 3.25, 7.75], dtype=F64))
    assert levels[-1] == 1
    assert levels[127] == 0
    assert [((levels > 10.0 ** (e - 7)) & (levels < 10.0 ** (e - 6))).sum() for e in range(7)] == [
        2**e for e in range(7)
    ]


def test_two_scales_quantised_by_hand():
    """Mean 2, deviations -1 and 1: the levels -(1 - 0.9 / 128) and 1, so 1.00703125 and 3."""
    index, mean, peak = double_quantize(torch.tensor([1.0, 3.0], dtype=F64))
    assert (index.tolist(), mean, peak.tolist()) == ([0, 255], 2, [1])
    decoded = double_dequantize(index, mean, peak, dtype=F64)
    close(decoded, torch.tensor([1.00703125, 3.0], dtype=F64))


def test_double_quantisation_equals_its_loop():
    absmax = random(7).abs() + 1
    index, mean, peak = double_quantize(absmax, 3)
    levels, mu = dynamic_codebook().tolist(), sum(absmax.tolist()) / 7
    decoded = double_dequantize(index, mean, peak, 3, dtype=F64)
    for b in range(3):
        block = absmax[3 * b : 3 * b + 3].tolist()
        largest = max(abs(s - mu) for s in block)
        assert peak[b].item() == pytest.approx(largest)
        for i, s in enumerate(block):
            nearest = min(range(256), key=lambda k: abs(levels[k] - (s - mu) / largest))
            assert index[3 * b + i] == nearest
            assert decoded[3 * b + i].item() == pytest.approx(mu + largest * levels[nearest])


def test_equal_scales_are_exact_and_none_turns_negative():
    equal = torch.full((5,), 0.3, dtype=F64)
    assert double_quantize(equal)[0].tolist() == [127] * 5  # the level 0
    assert torch.equal(double_dequantize(*double_quantize(equal), dtype=F64), equal)
    index, mean, peak = torch.tensor([0]), torch.tensor(1.0), torch.tensor([2.0])
    assert double_dequantize(index, mean, peak).item() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bits_per_weight(4, 0, scale_bits=16), ValueError, "group_size must be at least 1"),
        (lambda: bits_per_weight(4, 8.0, scale_bits=1), TypeError, "group_size must be an int"),
        (
            lambda: bits_per_weight(4, 8, scale_bits=-1),
            ValueError,
            "scale_bits must be at least 0, got -1",
        ),
        (lambda: dynamic_codebook(torch.int8), TypeError, "dtype must be floating point"),
        (lambda: double_quantize(torch.ones(2, 2)), ValueError, r"absmax must be \(n,\), got \(2"),
        (
            lambda: double_quantize(-torch.ones(2)),
            ValueError,
            r"absmax must be in \[0, inf\), got -1",
        ),
        (
            lambda: double_quantize(torch.ones(0)),
            ValueError,
            "must hold a scale at least, got none",
        ),
        (lambda: double_quantize(torch.tensor([math.nan])), ValueError, "absmax must be finite"),
        (lambda: double_quantize(torch.ones(2), 0), ValueError, "block_size must be at least 1"),
        (
            lambda: double_dequantize(torch.tensor([0]), torch.tensor(1.0), torch.ones(1), 0),
            ValueError,
            "block_size must be at least 1",
        ),
        (
            lambda: double_dequantize(torch.tensor([256]), torch.tensor(1.0), torch.ones(1)),
            ValueError,
            r"index must be in \[0, 255\], got 256",
        ),
        (
            lambda: double_dequantize(torch.tensor([0, 1]), torch.tensor(1.0), torch.ones(1), 1),
            ValueError,
            r"2 scales in blocks of 1 need 2 peaks, got \(1,\)",
        ),
        (
            lambda: double_dequantize(torch.tensor([0]), torch.tensor(-1.0), torch.ones(1)),
            ValueError,
            r"mean must be in \[0, inf\), got -1",
        ),
    ],
)
def test_errors_of_double_quantisation(call, error, message):
    with pytest.raises(error, match=message):
        call()
