"""Mixed precision against torch's casts, loss scaler and autocast, and torchao's rounding."""

import pytest
import torch

from llmref.training.mixed_precision import (
    float_values,
    round_to_format,
    stochastic_round,
    swallowed,
    unscale,
    update_loss_scale,
)

TOPIC = "training/mixed_precision"
FORMATS = {
    torch.float16: (5, 10, "ieee", "inf"),
    torch.bfloat16: (8, 7, "ieee", "inf"),
    torch.float8_e5m2: (5, 2, "ieee", "inf"),
    torch.float8_e4m3fn: (4, 3, "fn", "saturate"),
}


def numbers(dtype, values):
    """Of all sizes, all midpoints, and what lies beyond the largest."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.empty(100_000).uniform_(-150, 128, generator=generator)
    sizes = 2.0**exponents * torch.randn(100_000, generator=generator).sign()
    middle = (values[1:] + values[:-1]) / 2
    step = values[-1] - values[-2]
    beyond = values[-1] + step * torch.tensor([0.25, 0.5, 0.51, 1.0, 8.0])
    around = torch.cat([values, middle, beyond]).float()
    special = torch.tensor([torch.inf, -torch.inf, torch.nan])
    return torch.cat([sizes, around, -around, special]).float()


@pytest.mark.parametrize("dtype", FORMATS)
def test_casts_of_torch(agreement, dtype):
    e, stored, special, overflow = FORMATS[dtype]
    values = float_values(exponent_bits=e, mantissa_bits=stored, special=special)
    x = numbers(dtype, values)
    ours = round_to_format(x, values, overflow=overflow)
    integers = torch.int16 if dtype.itemsize == 2 else torch.uint8
    assert torch.equal(ours.isnan(), x.isnan())
    assert torch.equal(ours.to(dtype).float()[:-1], ours[:-1])  # the last one is NaN
    agreement(
        f"rounding to {str(dtype).removeprefix('torch.')}",
        "torch",
        ours.to(dtype).view(integers),
        x.to(dtype).view(integers),
        atol=0.0,
        convention=f'overflow="{overflow}"; codes of midpoints, limits, NaN, 100 000 numbers',
    )


def test_the_loss_scale_of_torch(agreement):
    generator = torch.Generator().manual_seed(0)
    options = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5}
    scale, steps, ours, theirs = 65536.0, 0, [], []
    current, tracker = torch.tensor(scale), torch.tensor(0, dtype=torch.int32)
    for overflow in (torch.rand(300, generator=generator) < 0.1).tolist():
        scale, steps = update_loss_scale(scale, steps, overflow=overflow, **options)
        torch._amp_update_scale_(current, tracker, torch.tensor(float(overflow)), *options.values())
        ours.append([scale, steps])
        theirs.append([current.item(), tracker.item()])
    agreement(
        "dynamic loss scale",
        "torch",
        torch.tensor(ours, dtype=torch.float64),
        torch.tensor(theirs, dtype=torch.float64),
        atol=0.0,
        convention="torch._amp_update_scale_, 300 steps; ours raises where torch reaches 0",
    )


def test_grad_scaler_unscales_as_we_do(agreement):
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(64))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu")
    assert scaler.get_scale() == 65536
    assert scaler.get_growth_interval() == 2000
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor()) == (2.0, 0.5)
    factors = torch.randn(64, generator=generator)
    scaler.scale((weight * factors).sum()).backward()
    (ours,), overflow = unscale([weight.grad.clone()], scale=65536.0)
    scaler.unscale_(optimizer)
    assert not overflow
    agreement("unscaled gradients", "torch", ours, weight.grad, atol=0.0, convention="GradScaler")


def test_grad_scaler_multiplies_by_the_rounded_inverse():
    """So it rounds twice where S is no power of two, and each time by 2^-24 at most."""
    factors = torch.randn(64, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(64))
    scaler = torch.amp.GradScaler("cpu", init_scale=1000.0)
    scaler.scale((weight * factors).sum()).backward()
    (ours,), _ = unscale([weight.grad.clone()], scale=1000.0)
    scaler.unscale_(torch.optim.SGD([weight], lr=1.0))
    assert not torch.equal(ours, weight.grad)
    torch.testing.assert_close(ours, weight.grad, rtol=2**-22, atol=0)


def test_grad_scaler_refuses_float16_gradients():
    weight = torch.nn.Parameter(torch.ones(2).half())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(weight.float().sum()).backward()
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        scaler.unscale_(torch.optim.SGD([weight], lr=1.0))


def test_grad_scaler_skips_the_step_and_halves():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale((weight * torch.tensor([1.0, torch.inf])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight, torch.ones(2))
    assert scaler.get_scale() == 32768


def test_the_scale_of_torch_falls_to_zero_and_stays_at_the_top():
    current, tracker = torch.tensor(65536.0), torch.tensor(0, dtype=torch.int32)
    for _ in range(200):
        torch._amp_update_scale_(current, tracker, torch.tensor(1.0), 2.0, 0.5, 2000)
    assert current == 0
    current = torch.tensor(2.0**127)
    torch._amp_update_scale_(current, tracker, torch.tensor(0.0), 2.0, 0.5, 1)
    assert current == 2.0**127


def test_torchao_rounds_as_we_do_with_the_opposite_noise(agreement):
    from torchao.optim.quant_utils import _fp32_to_bf16_sr

    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    theirs = _fp32_to_bf16_sr(x)
    torch.manual_seed(1)
    noise = torch.randint(0, 1 << 16, x.shape, dtype=torch.int32)
    agreement(
        "stochastic rounding to bfloat16",
        "torchao",
        stochastic_round(x, noise=65535 - noise),
        theirs,
        atol=0.0,
        convention="up where noise < fraction: 65535 minus our noise; no guard for NaN",
    )


def test_torchao_makes_a_negative_zero_of_a_nan():
    from torchao.optim.quant_utils import _fp32_to_bf16_sr

    nan = torch.full((1000,), 2**31 - 1, dtype=torch.int32).view(torch.float32)
    assert nan.isnan().all()
    rounded = _fp32_to_bf16_sr(nan)
    assert (rounded == 0).sum() > 990
    assert stochastic_round(nan, noise=torch.arange(1000)).isnan().all()


def test_updates_in_place_are_those_that_we_call_swallowed(agreement):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20_000, generator=generator).bfloat16()
    update = 0.01 * torch.randn(20_000, generator=generator)
    after = weight.clone().add_(update)
    agreement(
        "updates lost in bfloat16",
        "torch",
        swallowed(weight, update).double(),
        (after == weight).double(),
        atol=0.0,
        convention="add_ of a float32 update",
    )


@pytest.mark.parametrize("fused", [False, True])
def test_adamw_keeps_its_moments_in_the_dtype_of_the_weight(fused):
    weight = torch.nn.Parameter(torch.ones(3).bfloat16())
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=fused)
    optimizer.step()
    state = optimizer.state[weight]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16


def test_autocast_on_the_cpu():
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = layer(x)
        assert hidden.dtype == torch.bfloat16
        assert hidden.softmax(-1).dtype == torch.bfloat16
        assert torch.nn.functional.layer_norm(hidden, (8,)).dtype == torch.bfloat16
        loss = torch.nn.functional.mse_loss(hidden, torch.zeros_like(hidden))
        assert loss.dtype == torch.float32
    loss.backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
