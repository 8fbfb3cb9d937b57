"""Mixed precision: formats code by code, rounding, lost updates, loss scales, fp8."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.training.mixed_precision import (
    float_values,
    fp8_scale,
    round_to_format,
    stochastic_round,
    swallowed,
    unit_roundoff,
    unscale,
    update_loss_scale,
)
from tests.tensors import close, f64, random

law = settings(deadline=None, max_examples=60)
FORMATS = {
    torch.float16: (5, 10, "ieee"),
    torch.bfloat16: (8, 7, "ieee"),
    torch.float8_e5m2: (5, 2, "ieee"),
    torch.float8_e4m3fn: (4, 3, "fn"),
}
NORMAL = r"scale must be in \[1\.1754943e-38, 3\.4028235e38\], got "
OPTIONS = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def values_of(dtype):
    e, stored, special = FORMATS[dtype]
    return float_values(exponent_bits=e, mantissa_bits=stored, special=special)


def noise_of(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**16, shape, generator=generator)


def test_a_format_of_four_bits_by_hand():
    """Bias 1: subnormal 0, 1/2; then 1, 3/2; then 2, 3; the last exponent is infinity and NaN."""
    values = float_values(exponent_bits=2, mantissa_bits=1, special="ieee")
    close(values, f64(0.0, 0.5, 1.0, 1.5, 2.0, 3.0))
    finite = float_values(exponent_bits=2, mantissa_bits=1, special="fn")
    close(finite, f64(0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0))


@pytest.mark.parametrize("dtype", FORMATS)
def test_every_code_is_that_of_torch(dtype):
    integers = torch.int16 if dtype.itemsize == 2 else torch.uint8
    codes = torch.arange(2 ** (8 * dtype.itemsize - 1)).to(integers)
    decoded = codes.view(dtype).double()
    finite = decoded[decoded.isfinite()]
    assert torch.equal(finite, values_of(dtype))
    assert torch.equal(decoded[: len(finite)], finite)


@pytest.mark.parametrize("bits", [(2, 1), (3, 4), (4, 3), (5, 2)])
@pytest.mark.parametrize("special", ["ieee", "fn"])
def test_the_definition_as_a_loop(bits, special):
    e, stored = bits
    bias, seen = 2 ** (e - 1) - 1, []
    for exponent in range(2**e):
        for significand in range(2**stored):
            if special == "ieee" and exponent == 2**e - 1:
                continue
            if special == "fn" and exponent == 2**e - 1 and significand == 2**stored - 1:
                continue
            fraction = Fraction(significand, 2**stored) + (exponent > 0)
            seen.append(float(fraction * Fraction(2) ** (max(exponent, 1) - bias)))
    close(float_values(exponent_bits=e, mantissa_bits=stored, special=special), f64(*seen))


@pytest.mark.parametrize("special", ["ieee", "fn"])
def test_the_widest_format_is_finite_and_rounds_itself(special):
    """10 exponent bits: bias 511, so the least number is 2^-510 / 32."""
    values = float_values(exponent_bits=10, mantissa_bits=5, special=special)
    assert values[1] == 2.0**-515
    assert values[-1] == (2 - 2**-5) * 2.0**511 if special == "ieee" else (2 - 2**-4) * 2.0**512
    assert torch.equal(round_to_format(values, values, overflow="nan"), values)


def test_unit_roundoff_is_half_of_eps():
    """bfloat16 has 8 significant bits, float16 11, float32 24."""
    assert unit_roundoff(torch.bfloat16) == 2**-8
    assert unit_roundoff(torch.float16) == 2**-11
    assert unit_roundoff(torch.float32) == 2**-24
    assert unit_roundoff(torch.float8_e4m3fn) == 2**-4


def test_ties_go_to_the_even_code():
    """In E4M3 numbers from 16 to 32 are 2 apart: 17 -> 16, 19 -> 20; 464 is the tie beyond 448."""
    x = f64(17.0, 19.0, -17.0, 15.5, 464.0, 2**-10, 3 * 2**-10, -0.0)
    rounded = round_to_format(x, values_of(torch.float8_e4m3fn), overflow="nan")
    close(rounded, f64(16.0, 20.0, -16.0, 16.0, 448.0, 0.0, 2**-8, 0.0))
    assert rounded[-1].signbit()


@pytest.mark.parametrize(
    ("overflow", "expected"), [("saturate", 448.0), ("inf", math.inf), ("nan", math.nan)]
)
def test_overflow_is_what_was_asked_for(overflow, expected):
    x = f64(465.0, -1e300, math.inf, -math.inf)
    rounded = round_to_format(x, values_of(torch.float8_e4m3fn), overflow=overflow)
    wanted = f64(expected, expected, expected, expected).copysign(x)
    torch.testing.assert_close(rounded, wanted, rtol=0, atol=0, equal_nan=True)


def test_nan_stays_nan_and_dtype_stays():
    x = torch.tensor([math.nan, 1.3], dtype=torch.bfloat16)
    rounded = round_to_format(x, values_of(torch.float8_e5m2), overflow="saturate")
    assert rounded[0].isnan()
    assert rounded.dtype == torch.bfloat16
    assert rounded[1] == 1.25


@pytest.mark.parametrize("dtype", FORMATS)
@law
@given(st.lists(finite32, min_size=1, max_size=20))
def test_rounding_is_the_cast_of_torch(dtype, row):
    x = torch.tensor(row, dtype=torch.float32)
    overflow = "inf"
    if dtype == torch.float8_e4m3fn:  # NaN before torch 2.12
        overflow = "nan" if torch.tensor(1e6).to(dtype).float().isnan() else "saturate"
    ours = round_to_format(x, values_of(dtype), overflow=overflow)
    torch.testing.assert_close(ours, x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ours.signbit(), x.signbit())


@law
@given(st.lists(finite32, min_size=1, max_size=20), finite32)
def test_rounding_is_monotone_and_odd(row, other):
    x, values = torch.tensor([*row, other]).sort()[0], values_of(torch.float8_e4m3fn)
    rounded = round_to_format(x, values, overflow="saturate")
    assert (rounded.diff() >= 0).all()
    assert torch.equal(round_to_format(-x, values, overflow="saturate"), -rounded)


def test_nearest_as_a_loop():
    values, x = values_of(torch.float8_e5m2), random(200, scale=0.01)
    for entry, ours in zip(x, round_to_format(x, values, overflow="inf"), strict=True):
        assert (ours.abs() - entry.abs()).abs() == (values - entry.abs()).abs().min()


def test_a_quarter_of_the_noises_rounds_a_quarter_up():
    """1 + 2^-9 lies a quarter of the way from 1 to 1 + 2^-7: bits 0x4000 of 0x10000."""
    x = torch.full((2**16,), 1 + 2**-9)
    for sign in (1, -1):
        rounded = stochastic_round(sign * x, noise=torch.arange(2**16))
        assert rounded.dtype == torch.bfloat16
        assert (rounded == sign * (1 + 2**-7)).sum() == 2**14
        assert (rounded == sign * 1.0).sum() == 2**16 - 2**14


@law
@given(st.floats(-(2.0**127), 2.0**127, width=32), st.integers(0, 2**16 - 1))
def test_stochastic_rounding_as_a_loop(entry, noise):
    """The fraction between the neighbours in 65536ths, in whole numbers."""
    x = torch.tensor(entry)
    low = (x.view(torch.int32) // 2**16 * 2**16).view(torch.float32)
    high = (x.view(torch.int32) // 2**16 * 2**16 + 2**16).view(torch.float32)
    part = (Fraction(x.item()) - Fraction(low.item())) / (
        Fraction(high.item()) - Fraction(low.item())
    )
    wanted = high if part * 2**16 + noise >= 2**16 else low
    assert stochastic_round(x, noise=torch.tensor(noise)).float() == wanted


@law
@given(st.integers(0, 2**16 - 1))
def test_what_bfloat16_has_stays(noise):
    x = values_of(torch.bfloat16)
    assert torch.equal(stochastic_round(x, noise=torch.full_like(x, noise).long()).double(), x)


def test_infinity_and_every_nan_stay():
    bits = torch.tensor([0x7F800000, -0x00800000, 0x7FFFFFFF, -1, 0x7F800001], dtype=torch.int32)
    x = bits.view(torch.float32)
    for noise in (0, 1, 65535):
        rounded = stochastic_round(x, noise=torch.full((5,), noise))
        assert rounded[0] == math.inf
        assert rounded[1] == -math.inf
        assert rounded[2:].isnan().all()


def test_beyond_the_largest_number_lies_infinity():
    """Halfway from the largest bfloat16 to 2^128: half of the noises give infinity."""
    x = torch.full((2**16,), float(values_of(torch.bfloat16)[-1]) + 2.0**119).float()
    assert stochastic_round(x, noise=torch.arange(2**16)).isinf().sum() == 2**15


def test_256_and_1_is_256_in_bfloat16():
    """Gaps are 2 from 256 on: 257 is a tie, and 256 has the even code; 258 + 1 goes to 260."""
    weight = torch.tensor([256.0, 255.0, 258.0, 1.0]).bfloat16()
    assert swallowed(weight, torch.ones(4)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_swallowed_is_what_torch_leaves_in_place(dtype):
    weight = random(2000).to(dtype)
    for update in (random(2000, seed=1, scale=1e-3), random(2000, seed=2, scale=1e-7)):
        update = update.float()
        after = weight.clone().add_(update)
        assert torch.equal(swallowed(weight, update), after == weight)


def test_a_float32_update_of_a_bfloat16_weight_is_rounded_to_the_weight():
    """As a float32 sum 1 + 1e-4 is not 1; the weight is 1 nevertheless."""
    assert swallowed(torch.ones(1).bfloat16(), torch.full((1,), 1e-4)).all()
    assert not swallowed(torch.ones(1), torch.full((1,), 1e-4)).any()


def test_the_scale_by_hand():
    """(8, 2) is the third clean step: 16. An overflow halves at once."""
    assert update_loss_scale(8.0, 1, overflow=False, **OPTIONS) == (8.0, 2)
    assert update_loss_scale(8.0, 2, overflow=False, **OPTIONS) == (16.0, 0)
    assert update_loss_scale(8.0, 2, overflow=True, **OPTIONS) == (4.0, 0)


@law
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([1.5, 2.0, 3.0]))
def test_the_scale_is_that_of_torch(overflows, growth):
    options = OPTIONS | {"growth_factor": growth}
    scale, steps = 1000.0, 0
    theirs, tracker = torch.tensor(scale), torch.tensor(steps, dtype=torch.int32)
    for overflow in overflows:
        scale, steps = update_loss_scale(scale, steps, overflow=overflow, **options)
        found = torch.tensor(float(overflow))
        torch._amp_update_scale_(theirs, tracker, found, *options.values())
        assert (scale, steps) == (theirs.item(), tracker.item())


def test_a_scale_that_would_be_infinite_stays():
    assert update_loss_scale(2.0**127, 2, overflow=False, **OPTIONS) == (2.0**127, 0)


def test_a_scale_that_falls_out_of_the_normal_range_is_refused():
    assert update_loss_scale(2.0**-125, 0, overflow=True, **OPTIONS) == (2.0**-126, 0)
    with pytest.raises(ValueError, match=r"scale must stay a normal float32, got 5\.87747e-39"):
        update_loss_scale(2.0**-126, 0, overflow=True, **OPTIONS)


def test_unscaling_by_hand():
    """Float16 gradients become float32; 3 / 4 and 2^-24 / 4."""
    grads = [torch.tensor([3.0, 2.0**-24]).half(), torch.tensor([[8.0]])]
    (first, second), overflow = unscale(grads, scale=4.0)
    assert first.dtype == second.dtype == torch.float32
    assert first.tolist() == [0.75, 2.0**-26]
    assert second.tolist() == [[2.0]]
    assert not overflow


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_any_entry_that_is_not_finite_is_an_overflow(bad):
    assert unscale([torch.ones(3), torch.tensor([1.0, bad])], scale=2.0)[1]


def test_nothing_to_unscale_is_no_overflow():
    assert unscale([], scale=2.0) == ([], False)


def test_the_fp8_scale_by_hand():
    """448 / 2; a tensor of zeros has the scale 1."""
    assert fp8_scale(torch.tensor([-2.0, 1.0]), max_value=448.0) == 224
    assert fp8_scale(torch.zeros(2, 3), max_value=448.0) == 1
    assert fp8_scale(torch.ones(2).bfloat16(), max_value=448.0).dtype == torch.float32


@law
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20))
def test_nothing_overflows_with_the_scale(row):
    x = torch.tensor(row)
    if x.abs().max() < 2e-34:  # 57344 over it is infinite in float32
        return
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        largest = values_of(dtype)[-1].item()
        scaled = x * fp8_scale(x, max_value=largest)
        rounded = round_to_format(scaled, values_of(dtype), overflow="nan")
        assert rounded.isfinite().all()
        assert not x.any() or rounded.abs().max() == largest


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((1, 3, "fn"), r"exponent_bits must be at least 2, got 1"),
        ((4, 0, "fn"), r"mantissa_bits must be at least 1, got 0"),
        ((12, 1, "ieee"), r"exponent_bits must be at most 10, got 12"),
        ((11, 4, "fn"), r"exponent_bits must be at most 10, got 11"),
        ((8, 23, "ieee"), r"exponent_bits \+ mantissa_bits must be at most 15, got 8 \+ 23"),
        ((8, 8, "ieee"), r"exponent_bits \+ mantissa_bits must be at most 15, got 8 \+ 8"),
        ((4, 3, "fnuz"), r"special must be one of \['ieee', 'fn'\], got 'fnuz'"),
    ],
)
def test_formats_that_are_refused(bits, message):
    e, stored, special = bits
    with pytest.raises(ValueError, match=message):
        float_values(exponent_bits=e, mantissa_bits=stored, special=special)


def test_bits_must_be_whole():
    with pytest.raises(TypeError, match=r"exponent_bits must be an int, got 4\.0"):
        float_values(exponent_bits=4.0, mantissa_bits=3, special="fn")
    with pytest.raises(TypeError, match=r"dtype must be floating point, got torch\.int8"):
        unit_roundoff(torch.int8)


def test_rounding_refuses_what_is_no_format():
    unordered, twice = f64(0.0, 2.0, 1.0), f64(0.0, 1.0, 1.0)
    for values in (f64(1.0, 2.0), unordered, twice, f64(0.0), f64((0.0, 1.0))):
        with pytest.raises(ValueError, match=r"values must be \(codes,\) and ascend from 0, got"):
            round_to_format(torch.ones(2), values, overflow="inf")
    for values in (f64(0.0, 1.0, math.inf), f64(0.0, 0.2e308, 1.7e308)):
        message = r"values must be finite, as well as the number after the last, got inf"
        with pytest.raises(ValueError, match=message):
            round_to_format(torch.ones(2), values, overflow="inf")
    with pytest.raises(ValueError, match=r"overflow must be one of .*, got 'wrap'"):
        round_to_format(torch.ones(2), f64(0.0, 1.0), overflow="wrap")
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        round_to_format(torch.ones(2).long(), f64(0.0, 1.0), overflow="inf")


@pytest.mark.parametrize(
    ("x", "dtype", "overflow", "message"),
    [
        (65504.0, torch.bfloat16, "saturate", r"holds 65536, got torch\.float16"),
        (65504.0, torch.bfloat16, "inf", r"holds 65536, got torch\.float16"),
        (1e6, torch.float16, "saturate", r"holds 65504, got torch\.bfloat16"),
        (-1e6, torch.float16, "saturate", r"holds 65504, got torch\.bfloat16"),
    ],
)
def test_rounding_refuses_a_dtype_without_the_nearest_number(x, dtype, overflow, message):
    """The bfloat16 nearest to 65504 is 65536, which float16 lacks; bfloat16 lacks 65504."""
    given = torch.tensor([1.0, x], dtype=torch.float16 if abs(x) < 1e5 else torch.bfloat16)
    with pytest.raises(ValueError, match=r"x must have a dtype that " + message):
        round_to_format(given, values_of(dtype), overflow=overflow)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_rounds_to_its_own_format_as_itself(dtype):
    x = values_of(dtype)
    x = torch.cat([x, -x, f64(math.inf, -math.inf)]).to(dtype)
    rounded = round_to_format(x, values_of(dtype), overflow="inf")
    assert torch.equal(rounded.view(torch.int16), x.view(torch.int16))


def test_stochastic_rounding_refuses_other_noise():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"noise must be in \[0, 65535\], got 65536"):
        stochastic_round(x, noise=torch.tensor([0, 65536]))
    with pytest.raises(ValueError, match=r"noise must be in \[0, 65535\], got -1"):
        stochastic_round(x, noise=torch.tensor([0, -1]))
    with pytest.raises(TypeError, match=r"noise must hold integers, got torch\.float32"):
        stochastic_round(x, noise=torch.rand(2))
    with pytest.raises(ValueError, match=r"noise must be .* = \(2,\) beside x \(2,\), got \(3,\)"):
        stochastic_round(x, noise=noise_of(3))
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        stochastic_round(x.long(), noise=noise_of(2))


def test_swallowed_refuses_other_shapes_and_integers():
    with pytest.raises(ValueError, match=r"update must be .* = \(2,\) beside weight \(2,\), got"):
        swallowed(torch.ones(2), torch.ones(3))
    with pytest.raises(TypeError, match=r"update must be floating point, got torch\.int64"):
        swallowed(torch.ones(2), torch.ones(2).long())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"growth_factor": 1.0}, r"growth_factor must be in \(1, inf\), got 1\.0"),
        ({"backoff_factor": 1.0}, r"backoff_factor must be in \(0, 1\), got 1\.0"),
        ({"backoff_factor": 0.0}, r"backoff_factor must be in \(0, 1\), got 0\.0"),
        ({"growth_interval": 0}, r"growth_interval must be at least 1, got 0"),
        ({"scale": 0.0}, NORMAL + r"0\.0, no normal float32"),
        ({"scale": 1e-39}, NORMAL + r"1e-39, no normal float32"),
        ({"scale": 1e39}, NORMAL + r"1e\+39, no normal float32"),
        ({"scale": math.inf}, NORMAL + r"inf, no normal float32"),
        ({"scale": math.nan}, NORMAL + r"nan, no normal float32"),
        ({"clean_steps": 3}, r"clean_steps must be in \[0, 2\], got 3"),
        ({"clean_steps": -1}, r"clean_steps must be in \[0, 2\], got -1"),
    ],
)
def test_scales_that_are_refused(changed, message):
    given = {"scale": 8.0, "clean_steps": 0, "overflow": False} | OPTIONS | changed
    with pytest.raises(ValueError, match=message):
        update_loss_scale(**given)


def test_steps_must_be_whole_and_the_scale_a_number():
    with pytest.raises(TypeError, match=r"clean_steps must be an int, got 1\.5"):
        update_loss_scale(8.0, 1.5, overflow=False, **OPTIONS)
    with pytest.raises(TypeError, match=r"scale must be a number, got '8'"):
        update_loss_scale("8", 1, overflow=False, **OPTIONS)


def test_the_largest_and_the_least_scale():
    """Both ends of the normal float32 numbers are scales."""
    info = torch.finfo(torch.float32)
    for scale in (info.tiny, info.max):
        assert update_loss_scale(scale, 0, overflow=False, **OPTIONS) == (scale, 1)
        assert not unscale([torch.zeros(2)], scale=scale)[1]


@pytest.mark.parametrize("scale", [0.0, 1e-50, 1e39, math.inf, math.nan])
def test_unscale_refuses_a_scale_that_float32_lacks(scale):
    """As float32 1e39 is infinite, which would make 0 of every gradient and report no overflow."""
    with pytest.raises(ValueError, match=NORMAL):
        unscale([torch.tensor([1e30])], scale=scale)


def test_unscale_refuses_several_scales_and_integers():
    with pytest.raises(TypeError, match=r"scale must be one number, got a tensor \(3,\)"):
        unscale([torch.ones(2, 3)], scale=torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match=r"grads must be floating point, got torch\.int64"):
        unscale([torch.ones(2).long()], scale=1.0)


def test_fp8_scale_refuses_what_has_no_scale():
    with pytest.raises(ValueError, match=r"x must be finite, got inf \(1 of 2 entries\)"):
        fp8_scale(torch.tensor([1.0, math.inf]), max_value=448.0)
    with pytest.raises(ValueError, match=r"x must not be empty, got \(0, 3\)"):
        fp8_scale(torch.ones(0, 3), max_value=448.0)
    with pytest.raises(ValueError, match=r"max_value must be positive and finite, got -1"):
        fp8_scale(torch.ones(2), max_value=-1.0)
    with pytest.raises(ValueError, match=r"x is too small: its scale 448 / 1e-36 is infinite"):
        fp8_scale(torch.tensor([1e-36, 0.0]), max_value=448.0)


def test_fp8_scale_refuses_8_bits_and_integers():
    with pytest.raises(TypeError, match=r"x must have 16 bits at least, got torch\.float8_e4m3fn"):
        fp8_scale(torch.ones(2).to(torch.float8_e4m3fn), max_value=448.0)
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        fp8_scale(torch.ones(2).long(), max_value=448.0)


def test_a_product_in_bfloat16_is_rounded_twice():
    """One rounding errs by 1/17 at most; scale * x of a bfloat16 x is bfloat16: two of them."""
    x = values_of(torch.bfloat16)
    x = x[(x > 0.1) & (x < 1)].bfloat16()
    scale = fp8_scale(x, max_value=448.0)
    assert (scale * x).dtype == torch.bfloat16

    def error(product):
        back = product.to(torch.float8_e4m3fn).double() / scale.double()
        return ((back - x.double()).abs() / x.double()).max().item()

    assert error(x.float() * scale) <= 1 / 17 + 1e-6
    assert error(scale * x) > 1 / 17 + 1e-3


def test_no_gradient_flows_through_rounding():
    x = torch.ones(3, requires_grad=True)
    assert not round_to_format(x, f64(0.0, 1.0), overflow="saturate").requires_grad
    assert not stochastic_round(x, noise=noise_of(3)).requires_grad
    assert not fp8_scale(x, max_value=448.0).requires_grad
