"""Quantisation against torch, torchao, bitsandbytes and gguf."""

import numpy as np
import pytest
import torch

from llmref.functional.quantization import (
    affine_qparams,
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
    symmetric_scale,
)

TOPIC = "functional/quantization"


def random(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fake_quantisation_equals_torch(agreement, bits):
    x = 2 * random(5, 7)
    scale, zero = affine_qparams(x, bits)
    scale = scale / 2  # half of the range is clipped
    ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    theirs = torch.fake_quantize_per_tensor_affine(x, scale, zero, *ends)
    ours = fake_quantize(x, scale, zero, bits=bits)
    agreement("fake_quantize", "torch", ours, theirs, atol=1e-6, convention="float32")


def test_fake_quantisation_of_channels_equals_torch(agreement):
    x = random(3, 7)
    scale, zero = affine_qparams(x, 8, dim=-1)
    theirs = torch.fake_quantize_per_channel_affine(x, scale[:, 0], zero[:, 0], 0, -128, 127)
    ours = fake_quantize(x, scale, zero)
    convention = "float32, one scale a row"
    agreement("fake_quantize, channels", "torch", ours, theirs, atol=1e-6, convention=convention)


def test_the_straight_through_gradient_equals_torch(agreement):
    """127.3 steps round to 127 and count as inside, 127.7 do not."""
    steps = torch.tensor([-128.7, -128.3, -3.2, 0.4, 127.3, 127.7, 300.0])
    x, x2 = (steps.clone().requires_grad_() for _ in "ab")
    ours = torch.autograd.grad(fake_quantize(x, torch.tensor(1.0), 0).sum(), x)[0]
    theirs = torch.autograd.grad(
        torch.fake_quantize_per_tensor_affine(x2, 1.0, 0, -128, 127).sum(), x2
    )[0]
    assert theirs.tolist() == [0, 1, 1, 1, 1, 0, 0]
    agreement("straight-through gradient", "torch", ours, theirs, atol=0)


@pytest.mark.parametrize("zero", [0, 3])
def test_the_gradient_of_a_learned_scale_equals_torch(agreement, zero):
    x, weights = 20 * random(40), random(40, seed=1)
    scale, scale2 = (torch.tensor([0.9], requires_grad=True) for _ in "ab")
    fake_quantize(x, scale, zero, bits=4).mul(weights).sum().backward()
    theirs = torch._fake_quantize_learnable_per_tensor_affine(
        x, scale2, torch.tensor([float(zero)]), -8, 7, 1.0
    )
    theirs.mul(weights).sum().backward()
    convention = "float32, grad_factor 1"
    agreement(
        "gradient of the scale", "torch", scale.grad, scale2.grad, atol=1e-4, convention=convention
    )


def test_integer_product_equals_the_kernel_of_torch(agreement):
    generator = torch.Generator().manual_seed(0)
    qx, qw = (
        torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)
        for shape in [(24, 40), (16, 40)]
    )
    theirs = torch._int_mm(qx, qw.T.contiguous())
    assert theirs.dtype == torch.int32
    ours = int_matmul(qx, 0, torch.tensor(1.0, dtype=torch.float64), qw, 0, 1.0)
    agreement("int_matmul", "torch", ours, theirs, atol=0, convention="zero points 0")


@pytest.mark.parametrize("dim", [None, -1])
def test_affine_grid_equals_torchao(agreement, dim):
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    x = random(3, 40) + 0.3
    block = (3, 40) if dim is None else (1, 40)
    scale, zero = affine_qparams(x, dim=dim)
    their_scale, their_zero = choose_qparams_affine(x, MappingType.ASYMMETRIC, block, torch.int8)
    convention = "int8, the range includes 0"
    agreement("affine_qparams, scale", "torchao", scale.flatten(), their_scale.flatten(), atol=1e-9)
    agreement("affine_qparams, zero point", "torchao", zero.flatten(), their_zero.flatten(), atol=0)
    codes = quantize_affine(x, block, their_scale, their_zero, torch.int8)
    ours = quantize(x, scale, zero)
    agreement("quantize", "torchao", ours, codes, atol=0, convention=convention)
    theirs = dequantize_affine(codes, block, their_scale, their_zero, torch.int8)
    agreement("dequantize", "torchao", dequantize(ours, scale, zero), theirs, atol=1e-6)


def test_torchao_symmetric_scale_is_absmax_over_half_the_codes(agreement):
    """It divides by 127.5, so that the largest entry is clipped to 127 steps."""
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine

    x = random(3, 40)
    theirs, _ = choose_qparams_affine(x, MappingType.SYMMETRIC, (1, 40), torch.int8)
    ours = symmetric_scale(x, dim=-1).flatten() * 127 / 127.5
    convention = "ours times 127 / 127.5"
    agreement("symmetric_scale", "torchao", ours, theirs, atol=1e-8, convention=convention)


def test_torchao_floors_the_scale_where_we_use_one(agreement):
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine

    x = torch.zeros(2, 3)
    theirs, _ = choose_qparams_affine(x, MappingType.ASYMMETRIC, (2, 3), torch.int8)
    assert theirs.item() == torch.finfo(torch.float32).eps
    assert affine_qparams(x)[0] == 1


def test_nf4_levels_equal_bitsandbytes(agreement):
    from bitsandbytes import functional as bnb

    table = bnb.get_4bit_type("nf4", device="cpu")
    agreement("nf4_codebook", "bitsandbytes", nf4_codebook(), table, atol=3e-7)
    computed = bnb.create_normal_map()  # 16 levels, padded with zeros to 256 entries
    levels = torch.cat([computed[:7], computed.new_zeros(1), computed[-8:]])
    agreement("nf4_codebook", "bitsandbytes", nf4_codebook(), levels, atol=3e-7)


def test_nf4_codes_equal_bitsandbytes(agreement):
    from bitsandbytes import functional as bnb

    x = random(6, 64)
    x[2] = 0
    index, absmax = nf4_quantize(x, block_size=64)
    packed, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4")
    assert state.absmax[2] == absmax[2] == 0
    agreement("nf4_quantize, absmax", "bitsandbytes", absmax, state.absmax, atol=0)
    high_first = index.reshape(-1, 2).flip(-1).flatten()
    ours = pack_int4(high_first.to(torch.int8) - 8) ^ 0x88  # codes 0 to 15, not -8 to 7
    convention = "first entry in the high nibble there, in the low one here"
    agreement(
        "nf4_quantize, bytes", "bitsandbytes", ours, packed.flatten(), atol=0, convention=convention
    )
    decoded = nf4_dequantize(index, absmax, x.shape, 64)
    theirs = bnb.dequantize_4bit(packed, state)
    agreement("nf4_dequantize", "bitsandbytes", decoded, theirs, atol=1e-6)


def test_int8_rows_equal_bitsandbytes(agreement):
    from bitsandbytes import functional as bnb

    x = random(3, 40)
    codes, stats, _ = bnb.int8_vectorwise_quant(x)
    scale = symmetric_scale(x, dim=-1)
    agreement(
        "symmetric_scale",
        "bitsandbytes",
        scale.flatten() * 127,
        stats,
        atol=1e-6,
        convention="absmax is stored, not absmax / 127",
    )
    agreement("quantize", "bitsandbytes", quantize(x, scale), codes, atol=0, convention="int8 rows")


def test_q8_0_equals_gguf(agreement):
    """Blocks of 32; ties away from 0 there (random data have none), and a scale in float16."""
    from gguf import GGMLQuantizationType, quants

    x = random(4, 64)
    raw = quants.quantize(x.numpy(), GGMLQuantizationType.Q8_0).reshape(-1, 34)
    codes, scale = quantize_groupwise(x, 32, bits=8)
    theirs = torch.from_numpy(raw[:, 2:].copy().view(np.int8)).reshape(4, 64)
    agreement("quantize_groupwise", "gguf", codes, theirs, atol=0, convention="Q8_0")
    their_scale = torch.from_numpy(raw[:, :2].copy().view(np.float16)).reshape(4, 2)
    agreement(
        "quantize_groupwise, scale",
        "gguf",
        scale.half(),
        their_scale,
        atol=0,
        convention="Q8_0, float16",
    )


def test_q4_0_puts_the_largest_entry_on_minus_eight():
    """It uses all 16 codes: the scale is the signed extreme over -8, so it may be negative."""
    from gguf import GGMLQuantizationType, quants

    x = torch.zeros(1, 32)
    x[0, 0], x[0, 1] = 4.0, -1.0
    raw = quants.quantize(x.numpy(), GGMLQuantizationType.Q4_0)
    assert raw[0, :2].copy().view(np.float16)[0] == -0.5
    assert quants.dequantize(raw, GGMLQuantizationType.Q4_0)[0, :2].tolist() == [4.0, -1.0]


def test_the_symmetric_observer_of_torch_clips_the_largest_entry(agreement):
    """With absmax over 127.5 the largest entry is 127.5 steps, and half a step is clipped."""
    from torch.ao.quantization import MinMaxObserver

    x = random(3, 40)
    observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    observer(x)
    theirs, zero = observer.calculate_qparams()
    assert zero == 0
    ours = symmetric_scale(x) * 127 / 127.5
    convention = "ours times 127 / 127.5"
    agreement("symmetric_scale", "torch", ours, theirs[0], atol=1e-8, convention=convention)


@pytest.mark.parametrize("shift", [0.0, 0.3, 9.0])
def test_groups_with_zero_points_equal_torchao(agreement, shift):
    """With a shift of 9 all groups have one sign, and 0 is an end of their range."""
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    x, block = random(5, 64) + shift, (1, 16)
    codes, scale, zero = quantize_groupwise_affine(x, 16, bits=4)
    grid = {"quant_min": 0, "quant_max": 15}
    their_scale, their_zero = choose_qparams_affine(
        x, MappingType.ASYMMETRIC, block, torch.uint8, **grid
    )
    convention = "codes 0 to 15, groups of 16, the range includes 0"
    formula = "quantize_groupwise_affine"
    agreement(f"{formula}, scale", "torchao", scale, their_scale.view(5, 4), atol=1e-7)
    agreement(f"{formula}, zero point", "torchao", zero, their_zero.view(5, 4), atol=0)
    theirs = quantize_affine(x, block, their_scale, their_zero, torch.uint8, **grid)
    agreement(formula, "torchao", codes, theirs, atol=0, convention=convention)
    decoded = dequantize_affine(theirs, block, their_scale, their_zero, torch.uint8, **grid)
    ours = dequantize_groupwise(codes, scale, zero)
    agreement("dequantize_groupwise", "torchao", ours, decoded, atol=2e-6, convention=convention)


def test_groups_with_zero_points_equal_torch(agreement):
    """A group as a channel of torch's own fake quantisation."""
    x = random(5, 64) + 0.3
    codes, scale, zero = quantize_groupwise_affine(x, 16, bits=4)
    theirs = torch.fake_quantize_per_channel_affine(
        x.reshape(20, 16), scale.flatten(), zero.flatten().int(), 0, 0, 15
    )
    ours = dequantize_groupwise(codes, scale, zero)
    convention = "fake_quantize_per_channel_affine, a group a channel"
    agreement(
        "dequantize_groupwise",
        "torch",
        ours,
        theirs.reshape(5, 64),
        atol=1e-6,
        convention=convention,
    )


def test_the_dynamic_code_equals_bitsandbytes(agreement):
    from bitsandbytes import functional as bnb

    theirs = bnb.create_dynamic_map()
    agreement("dynamic_codebook", "bitsandbytes", dynamic_codebook(), theirs, atol=6e-8)


def test_double_quantisation_equals_bitsandbytes(agreement):
    """Its search on the CPU is not exact: it takes the next level within 1e-4 of a boundary."""
    from bitsandbytes import functional as bnb

    x = random(700, 64)  # 700 scales, so that the last block is shorter
    index, absmax = nf4_quantize(x, block_size=64)
    packed, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
    codes, mean, peak = double_quantize(absmax)
    agreement("double_quantize, mean", "bitsandbytes", mean, state.offset, atol=1e-6)
    agreement("double_quantize, peak", "bitsandbytes", peak, state.state2.absmax, atol=1e-6)
    levels = dynamic_codebook()
    share = (absmax - mean).double() / peak.repeat_interleave(256)[:700]
    clear = ((levels[1:] + levels[:-1]) / 2 - share.unsqueeze(1)).abs().amin(1) > 1e-4
    assert clear.double().mean() > 0.9
    convention = "absmax of 64 weights, blocks of 256, away from ties"
    agreement(
        "double_quantize",
        "bitsandbytes",
        codes[clear],
        state.absmax[clear],
        atol=0,
        convention=convention,
    )
    theirs = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    ours = double_dequantize(state.absmax, mean, peak)
    agreement("double_dequantize", "bitsandbytes", ours, theirs, atol=1e-6)
    decoded = nf4_dequantize(index, ours, x.shape, 64)
    agreement(
        "nf4_dequantize, double",
        "bitsandbytes",
        decoded,
        bnb.dequantize_4bit(packed, state),
        atol=1e-6,
        convention="compress_statistics=True",
    )
