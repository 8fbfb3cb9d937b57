"""Low-rank adapters: scale, update, gradients, the wrapped layer, merging, and peft's names."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from llmref.components.lora import (
    LoRALinear,
    PeftLoraConfig,
    add_peft_adapters,
    load_peft_state_dict,
    lora_backward,
    lora_delta,
    lora_param_count,
    lora_scaling,
    peft_adapter_config,
    peft_state_dict,
    read_peft_config,
)
from tests.tensors import close, random

law = settings(deadline=None, max_examples=40)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def adapter(k=7, n=5, r=2, alpha=3.0, *, dtype=torch.float64, bias=True, **options):
    """A layer whose two factors are random, with alpha / r = 1.5."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(k, n, bias=bias, dtype=dtype), r, alpha, **options)
    layer.lora_B.data = random(n, r, seed=9).to(layer.lora_B.dtype)
    return layer


# --- scale, update, gradients, size


def test_scale_sixteen_at_rank_four():
    """16 / 4 = 4; 16 / sqrt(4) = 8."""
    assert lora_scaling(16, 4) == 4.0
    assert lora_scaling(16, 4, rank_stabilized=True) == 8.0


def test_update_of_one_row():
    """2 (3, 4)^T (1, 2) has rows (6, 12) and (8, 16)."""
    A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    assert lora_delta(A, B, 2.0).tolist() == [[6.0, 12.0], [8.0, 16.0]]


def test_update_is_its_sum_over_the_rank():
    A, B = random(2, 7), random(5, 2, seed=1)
    loop = torch.zeros(5, 7, dtype=torch.float64)
    for i in range(5):
        for j in range(7):
            loop[i, j] = 1.5 * sum(B[i, q] * A[q, j] for q in range(2))
    close(lora_delta(A, B, 1.5), loop)


def test_sixteen_bit_update_is_rounded_once():
    A, B = random(7, 4).bfloat16(), random(5, 7, seed=1).bfloat16()
    assert torch.equal(lora_delta(A, B, 1.5), (1.5 * (B.float() @ A.float())).bfloat16())


@pytest.mark.parametrize("lead", [(3,), (2, 3), ()])
def test_gradients_equal_autograd_and_sum_over_leading_axes(lead):
    layer = adapter(bias=False)
    x, grad = random(*lead, 7), random(*lead, 5, seed=3)
    expected = torch.autograd.grad((layer(x) * grad).sum(), (layer.lora_A, layer.lora_B))
    actual = lora_backward(grad, x, layer.lora_A, layer.lora_B, layer.scaling)
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours.detach(), theirs)


def test_gradients_are_those_of_the_full_weight_times_a_factor():
    A, B, x, grad = random(2, 7), random(5, 2), random(3, 7), random(3, 5, seed=4)
    full = grad.T @ x
    grad_A, grad_B = lora_backward(grad, x, A, B, 1.5)
    close(grad_A, 1.5 * B.T @ full)
    close(grad_B, 1.5 * full @ A.T)


def test_gradcheck_of_the_adapter():
    x, A, B = (random(*s).requires_grad_() for s in ((3, 5), (2, 5), (4, 2)))
    assert torch.autograd.gradcheck(lambda x, A, B: 1.5 * (x @ A.T) @ B.T, (x, A, B))
    grad = random(3, 4)
    for ours, theirs in zip(
        lora_backward(grad, x, A, B, 1.5),
        torch.autograd.grad((functional.linear(x, lora_delta(A, B, 1.5)) * grad).sum(), (A, B)),
        strict=True,
    ):
        close(ours.detach(), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_keep_the_dtype(dtype):
    args = [t.to(dtype) for t in (random(3, 5), random(3, 7), random(2, 7), random(5, 2))]
    assert {g.dtype for g in lora_backward(*args, 1.5)} == {dtype}


def test_parameters_are_those_of_the_module():
    """2 (7 + 5) = 24; and nothing else is trained."""
    layer = adapter()
    trained = [p.numel() for p in layer.parameters() if p.requires_grad]
    assert lora_param_count(7, 5, 2) == sum(trained) == 24
    assert lora_param_count(4096, 4096, 8) == 65536


# --- the layer


def test_the_given_layer_is_wrapped_not_replaced():
    linear = nn.Linear(7, 5)
    weight, bias = linear.weight, linear.bias
    layer = LoRALinear(linear, r=2)
    assert layer.base is linear
    assert layer.base.weight is weight
    assert layer.base.bias is bias
    assert not weight.requires_grad
    assert not bias.requires_grad
    assert sorted(layer.state_dict()) == ["base.bias", "base.weight", "lora_A", "lora_B"]
    assert layer.lora_A.shape == (2, 7)
    assert layer.lora_B.shape == (5, 2)


def test_an_adapter_has_rank_8_and_scale_2_unless_told():
    layer = LoRALinear(nn.Linear(7, 5))
    assert (layer.r, layer.alpha, layer.scaling) == (8, 16.0, 2.0)
    assert layer.lora_A.shape == (8, 7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_new_adapter_changes_nothing(dtype):
    linear = nn.Linear(7, 5, dtype=dtype)
    x = random(2, 3, 7).to(dtype)
    before = linear(x)
    layer = LoRALinear(linear, r=2, alpha=1e3, dropout=0.5)
    assert layer.lora_A.dtype == torch.promote_types(dtype, torch.float32)
    assert layer(x).dtype == dtype
    assert torch.equal(layer(x), before)
    assert layer.lora_A.abs().max() > 0


def test_an_overflow_in_the_code_is_not_the_identity():
    layer = LoRALinear(nn.Linear(2, 2, dtype=torch.bfloat16), r=1)
    layer.lora_A.data.fill_(3e38)
    assert layer(torch.full((1, 2), 3e38, dtype=torch.bfloat16)).isnan().all()


def test_a_is_drawn_alike_at_every_rank():
    """Uniform on +-1/sqrt(400), so the variance is 1/1200; at rank 1 and at rank 100."""
    torch.manual_seed(0)
    for r in (4, 100):
        A = LoRALinear(nn.Linear(400, 300), r=r).lora_A
        assert A.abs().max() <= 1 / 20
        assert A.var().item() == pytest.approx(1 / 1200, rel=0.1)


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_equals_its_loop(bias):
    layer, x = adapter(bias=bias), random(2, 3, 7)
    for row, y in zip(x.flatten(0, 1), layer(x).flatten(0, 1), strict=True):
        code = [1.5 * sum(layer.lora_A[q, j] * row[j] for j in range(7)) for q in range(2)]
        expected = [
            sum(layer.base.weight[i, j] * row[j] for j in range(7))
            + sum(layer.lora_B[i, q] * code[q] for q in range(2))
            + (layer.base.bias[i] if bias else 0)
            for i in range(5)
        ]
        close(y, torch.stack(expected))


def test_dropout_leaves_the_base_path_alone():
    layer, x = adapter(dropout=0.5), random(400, 7)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    layer.lora_B.data.zero_()
    assert torch.equal(layer.train()(x), layer.base(x))


def test_it_runs_under_autocast():
    layer = adapter(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(random(3, 7).float()).dtype == torch.bfloat16


def test_training_moves_the_adapter_and_not_the_base():
    layer, x = LoRALinear(nn.Linear(7, 5).double(), r=2), random(3, 7)
    before = copy.deepcopy(layer.state_dict())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    layer(x).square().sum().backward()
    assert layer.lora_A.grad.count_nonzero() == 0
    assert layer.lora_B.grad.count_nonzero() == 10
    optimizer.step()
    assert torch.equal(layer.base.weight, before["base.weight"])
    assert torch.equal(layer.base.bias, before["base.bias"])


def test_the_first_step_of_adam_has_the_signs_of_the_gradient():
    """On its own input it is -lr s sign(g) times the 1-norm of A x."""
    layer, x, g = LoRALinear(nn.Linear(7, 5).double(), r=3), random(7), random(5)
    before, code = layer(x).detach(), (layer.lora_A @ x).detach()
    optimizer = torch.optim.Adam([layer.lora_A, layer.lora_B], lr=0.01, eps=1e-100)
    (layer(x) @ g).backward()
    optimizer.step()
    close(layer(x).detach() - before, -0.01 * layer.scaling * g.sign() * code.abs().sum())


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_two_zero_factors_never_learn(optimizer):
    layer, x = LoRALinear(nn.Linear(7, 5), r=2), random(3, 7).float()
    nn.init.zeros_(layer.lora_A)
    steps = optimizer([layer.lora_A, layer.lora_B], lr=0.1, weight_decay=0.1)
    for _ in range(10):
        steps.zero_grad()
        layer(x).square().sum().backward()
        steps.step()
    assert layer.lora_A.count_nonzero() == layer.lora_B.count_nonzero() == 0


# --- merging


@law
@given(st.integers(1, 4), st.floats(0.1, 64), st.booleans())
def test_merging_changes_nothing_at_inference(r, alpha, rank_stabilized):
    layer = adapter(r=r, alpha=alpha, rank_stabilized=rank_stabilized)
    x = random(2, 3, 7)
    expected, weight = layer(x).detach(), layer.base.weight.clone()
    scale = alpha / (math.sqrt(r) if rank_stabilized else r)
    close(layer.merged_weight(), (weight + scale * layer.lora_B @ layer.lora_A).detach(), 1e-11)
    linear = layer.to_linear()
    layer.merge()
    close(layer(x), expected, 1e-10)
    close(linear(x).detach(), expected, 1e-10)
    layer.unmerge()
    assert torch.equal(layer.base.weight, weight)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("keep_base", [True, False])
def test_merge_and_unmerge_are_idempotent(keep_base):
    layer = adapter()
    weight = layer.base.weight
    before = weight.clone()
    layer.unmerge()
    assert torch.equal(weight, before)
    for _ in range(3):
        layer.merge(keep_base)
    assert layer.merged
    assert layer.base.weight is weight
    close(weight, (before + 1.5 * layer.lora_B @ layer.lora_A).detach())
    close(layer.merged_weight(), weight)
    for _ in range(3):
        layer.unmerge()
    assert not layer.merged
    close(weight, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kept_copy_makes_unmerge_exact(dtype):
    layer = adapter(64, 48, dtype=dtype)
    before = layer.base.weight.clone()
    for _ in range(5):
        layer.merge()
        assert not torch.equal(layer.base.weight, before)
        layer.unmerge()
    assert torch.equal(layer.base.weight, before)
    layer.merge(keep_base=False)
    layer.unmerge()
    assert not torch.equal(layer.base.weight, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_and_unmerge_err_by_no_more_than_they_say(dtype):
    layer = adapter(64, 48, dtype=dtype)
    layer.lora_B.data.mul_(0.01)
    wide = torch.promote_types(dtype, torch.float32)
    D = lora_delta(layer.lora_A.detach().to(wide), layer.lora_B.detach().to(wide), layer.scaling)
    W, D = layer.base.weight.double(), D.double()
    u = torch.finfo(dtype).eps / 2
    slack = 2**-24 if dtype == torch.bfloat16 else 1e-15
    layer.merge(keep_base=False)
    M = layer.base.weight.double()
    assert ((M - (W + D)).abs() <= (u + 1.01 * slack) * (W + D).abs()).all()
    layer.unmerge()
    U = layer.base.weight.double()
    assert ((U - W).abs() <= (u + 1.01 * slack) * ((W + D).abs() + (M - D).abs())).all()


def test_sixteen_bit_weights_are_merged_in_float32():
    """Rounding the update first gives other weights than rounding the sum alone."""
    layer = adapter(64, 48, dtype=torch.bfloat16)
    W, A, B = (p.detach().float() for p in (layer.base.weight, layer.lora_A, layer.lora_B))
    expected = (W + 1.5 * (B @ A)).bfloat16()
    assert torch.equal(layer.merged_weight(), expected)
    twice = layer.base.weight + lora_delta(layer.lora_A, layer.lora_B, 1.5).bfloat16()
    assert not torch.equal(twice, expected)


def test_unmerge_subtracts_what_was_added():
    for keep_base in (True, False):
        layer = adapter()
        before = layer.base.weight.clone()
        layer.merge(keep_base)
        layer.lora_A.data.mul_(2)  # a step of an optimizer, say
        layer.unmerge()
        close(layer.base.weight, before)


def test_a_merged_layer_moves_and_is_copied_with_its_base():
    layer = adapter()
    before = layer.base.weight.clone()
    layer.merge()
    twin = copy.deepcopy(layer)
    twin.unmerge()
    layer.float().unmerge()
    assert torch.equal(twin.base.weight, before)
    assert torch.equal(layer.base.weight, before.float())


@pytest.mark.parametrize("bias", [True, False])
def test_the_merged_linear_is_independent_and_trainable(bias):
    layer = adapter(bias=bias).eval()
    state = torch.random.get_rng_state()
    linear = layer.to_linear()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.requires_grad for p in linear.parameters())
    assert not linear.training
    assert (linear.bias is not None) == bias
    assert (linear.in_features, linear.out_features) == (7, 5)
    linear.weight.data.zero_()
    assert layer.base.weight.count_nonzero() == 35
    layer.merge()
    again = layer.to_linear()
    again.weight.data.zero_()
    assert layer.base.weight.count_nonzero() == 35


def test_a_shared_weight_is_merged_for_both():
    linear, other = nn.Linear(7, 5).double(), nn.Linear(7, 5).double()
    other.weight = linear.weight
    layer = LoRALinear(linear, r=2)
    layer.lora_B.data.fill_(1.0)
    before = other.weight.clone()
    layer.merge()
    assert not torch.equal(other.weight, before)


# --- the names of peft


class Model(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"q": nn.Linear(7, 5)}) for _ in range(2)])
        self.q = nn.Linear(5, 3)
        for block in self.layers:
            block["q"] = LoRALinear(block["q"], r=2, alpha=3.0, **options)


def test_the_keys_are_those_of_peft():
    state = peft_state_dict(Model())
    assert list(state) == [
        f"base_model.model.layers.{i}.q.lora_{x}.weight" for i in (0, 1) for x in "AB"
    ]
    assert state["base_model.model.layers.0.q.lora_A.weight"].shape == (2, 7)


def test_saved_adapters_load_again():
    source, target = Model(), Model()
    for block in source.layers:
        block["q"].lora_B.data.normal_()
    state = peft_state_dict(source)
    load_peft_state_dict(target, state)
    for a, b in zip(source.layers, target.layers, strict=True):
        assert torch.equal(a["q"].lora_A, b["q"].lora_A)
        assert torch.equal(a["q"].lora_B, b["q"].lora_B)
    state["base_model.model.layers.0.q.lora_A.weight"].zero_()
    assert source.layers[0]["q"].lora_A.count_nonzero() == 14


def test_a_failed_load_changes_nothing():
    model = Model()
    state = peft_state_dict(model)
    before = {k: v.clone() for k, v in state.items()}
    state = {k: torch.ones_like(v) for k, v in state.items()}
    state["base_model.model.layers.1.q.lora_B.weight"] = torch.ones(5, 3)
    with pytest.raises(ValueError, match=r"lora_B.weight must be \(5, 2\), got \(5, 3\)"):
        load_peft_state_dict(model, state)
    assert all(torch.equal(v, before[k]) for k, v in peft_state_dict(model).items())


def test_the_configuration_names_the_wrapped_layers_only():
    import re

    config = peft_adapter_config(Model(dropout=0.25, rank_stabilized=True))
    assert json.loads(json.dumps(config)) == config
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 3.0, 0.25)
    assert config["use_rslora"] is True
    assert re.fullmatch(config["target_modules"], "layers.1.q")
    assert not re.fullmatch(config["target_modules"], "q")


def test_factors_stay_in_float32_on_a_sixteen_bit_base():
    """Twenty steps of 1e-5 on entries up to 1/32: bfloat16 steps are 6e-5 and more near 1/64."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(1024, 8, dtype=torch.bfloat16), r=4)
    before = layer.lora_A.detach().clone()
    steps = torch.optim.Adam([layer.lora_A, layer.lora_B], lr=1e-5)
    x = random(16, 1024).bfloat16()
    for _ in range(20):
        steps.zero_grad()
        layer(x).float().square().sum().backward()
        steps.step()
    assert (layer.lora_A != before).double().mean() > 0.99


def test_the_sum_is_rounded_once_to_the_dtype_of_the_base():
    layer, x = adapter(dtype=torch.bfloat16), random(3, 7).bfloat16()
    update = 1.5 * (x.float() @ layer.lora_A.T) @ layer.lora_B.T
    assert torch.equal(layer(x), (layer.base(x) + update).bfloat16())


def test_a_factor_that_its_layer_cannot_hold_is_refused():
    """0.1 is no bfloat16, 0.5 is one."""
    model = Model()
    state = peft_state_dict(model)
    model.bfloat16()
    load_peft_state_dict(model, {k: torch.full_like(v, 0.5) for k, v in state.items()})
    with pytest.raises(
        ValueError, match=r"lora_A.weight in torch.float32 must be exact in the torch.bfloat16"
    ):
        load_peft_state_dict(model, {k: torch.full_like(v, 0.1) for k, v in state.items()})
    assert all((v == 0.5).all() for v in peft_state_dict(model).values())


def test_an_adapter_under_two_names_is_refused():
    model = nn.Module()
    model.a = model.b = adapter()
    for call in (peft_state_dict, peft_adapter_config):
        with pytest.raises(ValueError, match=r"one under several: \['a', 'b'\]"):
            call(model)


def test_no_features_are_no_features():
    """A weight without inputs has the gradients (1, 0) and (2, 1): all of B's entries 0."""
    grad_A, grad_B = lora_backward(
        torch.ones(3, 2), torch.ones(3, 0), torch.ones(1, 0), torch.ones(2, 1), 1.0
    )
    assert grad_A.shape == (1, 0)
    assert grad_B.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_update_or_a_gradient_that_overflows_is_refused(dtype):
    big = torch.full((1, 1), torch.finfo(dtype).max ** 0.5 * 2, dtype=dtype)
    with pytest.raises(ValueError, match="delta must be finite, got inf"):
        lora_delta(big, big, 1.0)
    with pytest.raises(ValueError, match="grad_A must be finite, got inf"):
        lora_backward(big, big, big * 0, big * 0 + 1, 1.0)


# --- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lora_scaling(1, 0), ValueError, "r must be at least 1, got 0"),
        (lambda: lora_scaling(1, 2.0), TypeError, r"r must be an int, got 2\.0"),
        (lambda: lora_scaling(1, True), TypeError, "r must be an int, got True"),
        (lambda: lora_scaling(0, 2), ValueError, "alpha must be positive and finite, got 0"),
        (
            lambda: lora_scaling(math.nan, 2),
            ValueError,
            "alpha must be positive and finite, got nan",
        ),
        (lambda: lora_param_count(0, 5, 2), ValueError, "in_features must be at least 1, got 0"),
        (lambda: lora_param_count(5, 5, 0), ValueError, "r must be at least 1"),
        (
            lambda: lora_delta(torch.ones(2, 7), torch.ones(2, 5), 1.0),
            ValueError,
            r"B must be \(out, r\) beside A \(2, 7\), got \(2, 5\)",
        ),
        (
            lambda: lora_delta(torch.ones(2, 7), torch.ones(5, 2).double(), 1.0),
            TypeError,
            r"needs floating-point tensors of one dtype, got A torch\.float32, B",
        ),
        (
            lambda: lora_delta(torch.ones(2, 7).long(), torch.ones(5, 2).long(), 1.0),
            TypeError,
            r"needs floating-point tensors of one dtype, got A torch\.int64, B",
        ),
    ],
)
def test_errors_of_the_functions(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_errors_of_backward():
    A, B = random(2, 7), random(5, 2)
    with pytest.raises(
        ValueError, match=r"x must be \(\.\.\., in\) beside A \(2, 7\), B \(5, 2\), got \(3, 5\)"
    ):
        lora_backward(random(3, 5), random(3, 5), A, B, 1.0)
    with pytest.raises(
        ValueError,
        match=r"grad_out must be \(\.\.\., out\) = \(3, 5\) beside A \(2, 7\), B \(5, 2\), x \(3",
    ):
        lora_backward(random(4, 5), random(3, 7), A, B, 1.0)
    with pytest.raises(
        TypeError, match=r"needs floating-point tensors of one dtype, got A torch\.float64, B"
    ):
        lora_backward(random(3, 5).float(), random(3, 7), A, B, 1.0)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda x: LoRALinear(x, r=0), ValueError, "r must be at least 1, got 0"),
        (
            lambda x: LoRALinear(x, 2, dropout=1.0),
            ValueError,
            r"dropout must be in \[0, 1\), got 1\.0",
        ),
        (
            lambda x: LoRALinear(x, 2, dropout=-0.1),
            ValueError,
            r"dropout must be in \[0, 1\), got -0\.1",
        ),
        (lambda x: LoRALinear(nn.Conv1d(7, 5, 1), 2), TypeError, "must be an nn.Linear.*Conv1d"),
        (
            lambda x: LoRALinear(LoRALinear(x, 2), 2),
            TypeError,
            "must be an nn.Linear, .*got LoRALinear",
        ),
    ],
)
def test_errors_of_the_layer(build, error, message):
    with pytest.raises(error, match=message):
        build(nn.Linear(7, 5))


def test_a_base_of_integers_is_refused():
    linear = nn.Linear(7, 5)
    linear.weight = nn.Parameter(torch.ones(5, 7, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"base_weight must be floating point, got torch\.int8"):
        LoRALinear(linear, 2)


def test_errors_of_forward():
    layer = adapter()
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        layer(torch.ones(3, 7).long())
    with pytest.raises(
        ValueError, match=r"x must be \(\.\.\., in\) beside weight \(5, 7\), got \(3, 5\)"
    ):
        layer(random(3, 5))


def test_a_broken_adapter_is_not_merged():
    layer = adapter()
    before = layer.base.weight.clone()
    layer.lora_B.data[0, 0] = math.nan
    for call in (layer.merge, layer.merged_weight, layer.to_linear):
        with pytest.raises(ValueError, match=r"delta must be finite, got nan \(7 of 35 entries\)"):
            call()
    assert not layer.merged
    assert torch.equal(layer.base.weight, before)


def test_a_lost_base_cannot_be_asked_for():
    layer = adapter()
    layer.merge(keep_base=False)
    with pytest.raises(ValueError, match="merged with keep_base=False: its base is lost"):
        layer.merge()


def test_a_merged_layer_is_not_saved_or_loaded():
    layer = adapter()
    state = layer.state_dict()
    layer.merge()
    with pytest.raises(ValueError, match=r"a merged layer is not saved or loaded.*unmerge\(\)"):
        nn.Sequential(layer).state_dict()
    with pytest.raises(ValueError, match="would be added twice"):
        layer.load_state_dict(state)
    layer.unmerge()
    layer.load_state_dict(layer.state_dict())


def test_errors_of_the_names_of_peft():
    with pytest.raises(ValueError, match="needs a model with LoRALinear inside, .*got Linear"):
        peft_state_dict(nn.Linear(7, 5))
    with pytest.raises(ValueError, match="under a name, got LoRALinear"):
        peft_state_dict(adapter())
    model = Model()
    with pytest.raises(ValueError, match=r"missing \['base.*'\], extra \['other'\]"):
        load_peft_state_dict(model, {"other": torch.ones(1)})
    state = peft_state_dict(model)
    model.layers[0]["q"].merge()
    with pytest.raises(ValueError, match=r"unmerge before loading, merged are \['layers.0.q'\]"):
        load_peft_state_dict(model, state)
    model.q = LoRALinear(model.q, r=3)
    model.q = LoRALinear(model.q.base, r=3, rank_stabilized=True)
    with pytest.raises(
        ValueError, match=r"share \(dropout, rsLoRA\), got \[\(0\.0, False\), \(0\.0, True\)\]"
    ):
        peft_adapter_config(model)


# --- files of peft


def config_of(**options):
    return read_peft_config({"target_modules": ["q", "k"], **options})


def test_rank_and_alpha_of_the_first_pattern_that_matches():
    """Whole parts of the name from its end; ^ is the start of the whole name."""
    config = config_of(
        r=4,
        lora_alpha=8,
        rank_pattern={"0.q": 2, "q": 16, "^k": 1},
        alpha_pattern={r"layers\.1\..*": 32, "q": 64},
        use_rslora=True,
    )
    names = ["layers.0.q", "layers.1.q", "layers.10.q", "layers.1.k", "k", "layers.0.mq"]
    assert [config.rank(n) for n in names] == [2, 16, 16, 4, 1, 4]
    assert [config.alpha(n) for n in names] == [64, 32, 64, 32, 8, 8]
    assert config.scaling("layers.1.q") == 32 / 4
    assert config_of(r=4, alpha_pattern={"k": 2}).scaling("layers.0.k") == 1 / 2


@pytest.mark.parametrize(
    ("options", "adapted"),
    [
        ({}, ["layers.0.q", "layers.1.k", "k"]),
        ({"target_modules": ["layers.0.q"]}, ["layers.0.q"]),
        ({"target_modules": r".*\.q"}, ["layers.0.q"]),
        ({"target_modules": "q"}, []),
        ({"exclude_modules": ["k"]}, ["layers.0.q"]),
        ({"exclude_modules": r"layers\..*"}, ["k"]),
        ({"modules_to_save": ["layers"]}, ["k"]),
        ({"layers_to_transform": [1, 2]}, ["layers.1.k", "k"]),
        ({"layers_to_transform": 0}, ["k"]),
        ({"layers_to_transform": 0, "layers_pattern": "layers"}, ["layers.0.q", "k"]),
        ({"layers_to_transform": [1], "layers_pattern": ["h", "layers"]}, ["layers.1.k", "k"]),
    ],
)
def test_the_layers_that_a_file_adapts(options, adapted):
    """Without layers_pattern the number must not stand behind the first name; k is a whole name."""
    names = ["layers.0.q", "layers.1.k", "k", "layers.0.mq", "q.norm", "layers.0"]
    config = config_of(**options)
    if options == {"layers_to_transform": [1, 2]}:
        names = [f"model.{n}" if "." in n else n for n in names]
        adapted = [f"model.{n}" if "." in n else n for n in adapted]
    assert [n for n in names if config.is_target(n)] == adapted


def test_a_file_is_read_as_its_mapping(tmp_path):
    mapping = {"peft_type": "LORA", "r": 2, "target_modules": ["q"], "rank_pattern": None}
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(mapping), encoding="utf-8")
    assert read_peft_config(path) == read_peft_config(str(path)) == read_peft_config(mapping)
    assert read_peft_config(mapping) == PeftLoraConfig(2, 8, ("q",))


def test_a_file_that_says_neither_rank_nor_alpha_means_8():
    assert read_peft_config({"target_modules": ["q"]}) == PeftLoraConfig(8, 8, ("q",))


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_a_start_that_leaves_the_base_alone_is_read(start):
    assert config_of(init_lora_weights=start) == config_of()


def test_a_file_without_an_object_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(TypeError, match=r"must hold an object, got list"):
        read_peft_config(tmp_path / "adapter_config.json")


def test_adapters_are_added_with_the_rank_and_scale_of_the_file():
    model = Model()
    model.layers = nn.ModuleList([nn.ModuleDict({"q": nn.Linear(7, 5)}) for _ in range(2)])
    model.layers[1].eval()
    x = random(3, 7).float()
    before = [block["q"](x) for block in model.layers]
    config = config_of(r=2, target_modules=["layers.0.q", "layers.1.q"], rank_pattern={"1.q": 9})
    assert add_peft_adapters(model, config) == ["layers.0.q", "layers.1.q"]
    layers = [block["q"] for block in model.layers]
    assert [(m.r, m.scaling, m.training) for m in layers] == [(2, 4.0, True), (9, 8 / 9, False)]
    assert all(torch.equal(m(x), y) for m, y in zip(layers, before, strict=True))
    assert type(model.q) is nn.Linear


def test_a_rank_above_a_side_is_a_layer_like_others():
    layer = adapter(7, 5, r=9, alpha=13.5)
    assert layer.lora_A.shape == (9, 7)
    close(layer.merged_weight(), (layer.base.weight + 1.5 * layer.lora_B @ layer.lora_A).detach())


def test_mixed_ranks_are_written_as_patterns_and_read_again():
    model = Model()
    model.layers[1]["q"] = LoRALinear(nn.Linear(7, 5), r=3, alpha=8.0)
    model.q = LoRALinear(model.q, r=2, alpha=8.0)
    config = peft_adapter_config(model)
    assert (config["r"], config["lora_alpha"]) == (2, 3.0)
    assert config["rank_pattern"] == {r"^layers\.1\.q": 3}
    assert config["alpha_pattern"] == {r"^layers\.1\.q": 8.0, "^q": 8.0}
    again = read_peft_config(json.loads(json.dumps(config)))
    for name, layer in model.named_modules():
        assert again.is_target(name) == isinstance(layer, LoRALinear)
        if isinstance(layer, LoRALinear):
            assert (again.rank(name), again.scaling(name)) == (layer.r, layer.scaling)


class Tied(nn.Module):
    """An adapted projection, and an output layer that shares the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(5, 7), nn.Linear(7, 5, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.q = LoRALinear(nn.Linear(7, 7), r=2, alpha=8.0)


SAVED = "base_model.model.lm_head.weight"


def test_a_saved_module_replaces_that_of_the_model_alone():
    model, config = Tied(), config_of(r=2, modules_to_save=["lm_head"])
    embedding = model.embed_tokens.weight.clone()
    saved = torch.full((5, 7), 3.0)
    load_peft_state_dict(model, peft_state_dict(model) | {SAVED: saved}, config)
    saved.zero_()
    assert (model.lm_head.weight == 3.0).all()
    assert model.lm_head.weight.requires_grad
    assert torch.equal(model.embed_tokens.weight, embedding)


def test_the_base_of_an_adapted_layer_and_embeddings_may_be_in_the_file():
    model = Model()
    state = peft_state_dict(model)
    key = "base_model.model.layers.0.q.base_layer.weight"
    load_peft_state_dict(model, state | {key: torch.full((5, 7), 3.0)})
    assert (model.layers[0]["q"].base.weight == 3.0).all()
    assert not (model.layers[1]["q"].base.weight == 3.0).any()
    model = Tied()
    key = "base_model.model.embed_tokens.weight"
    state = peft_state_dict(model) | {key: torch.full((5, 7), 2.0)}
    load_peft_state_dict(model, state, config_of(r=2))
    assert (model.lm_head.weight == 2.0).all()


def test_a_module_under_two_names_may_be_in_the_file_under_both():
    model = Tied()
    model.decoder = nn.ModuleDict({"embed_tokens": model.embed_tokens})
    ends = ("embed_tokens", "decoder.embed_tokens")
    both = {f"base_model.model.{name}.weight": torch.full((5, 7), 2.0) for name in ends}
    load_peft_state_dict(model, peft_state_dict(model) | both, config_of(r=2))
    assert (model.embed_tokens.weight == 2.0).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"base_model.model.q.base.weight": torch.ones(7, 7)}, {}, r"extra \['base.*weight'\]$"),
        ({SAVED: torch.ones(5, 7)}, None, r"extra \['base_model.*\]; modules_to_save are known"),
        ({}, {"modules_to_save": ["lm_head"]}, r"missing \['base_model.model.lm_head.weight'\]"),
        ({SAVED: torch.ones(5, 6)}, {"modules_to_save": ["lm_head"]}, r"must be \(5, 7\), got"),
        (
            {SAVED: torch.full((5, 7), 0.1, dtype=torch.float64)},
            {"modules_to_save": ["lm_head"]},
            "must be exact in the torch.float32 of its layer",
        ),
        ({}, {"alpha_pattern": {"q": 16}}, r"q must have the \(rank, scale\) \(2, 8.0\) of conf"),
        ({}, {"rank_pattern": {"q": 1}}, r"\(1, 8.0\) of config, got \(2, 4.0\)"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(change, options, message):
    model = Tied()
    state = {k: torch.ones_like(v) for k, v in peft_state_dict(model).items()} | change
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = None if options is None else config_of(r=2, **options)
    with pytest.raises(ValueError, match=message):
        load_peft_state_dict(model, state, config)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.lm_head.weight is model.embed_tokens.weight


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"use_dora": True}, ValueError, "use_dora must be off, .*got True"),
        ({"of_tomorrow": 3}, ValueError, "of_tomorrow must be off, .*got 3"),
        ({"fan_in_fan_out": True}, ValueError, "fan_in_fan_out must be off"),
        ({"megatron_config": {"a": 1}}, ValueError, "megatron_config must be off"),
        ({"bias": "all"}, ValueError, r"bias must be one of \['none'\], got 'all': the trained"),
        ({"peft_type": "LOHA"}, ValueError, r"peft_type must be one of \['LORA'\], got 'LOHA'"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            ValueError,
            "init_lora_weights must be one of .*'orthogonal'.*got 'pissa_niter_4': the start",
        ),
        ({"target_modules": None}, ValueError, r"target_modules must be names .*got \(\)"),
        ({"target_modules": "all-linear"}, ValueError, "as peft saves them, got 'all-linear'"),
        (
            {"target_modules": "q", "layers_to_transform": [1]},
            ValueError,
            "layers_to_transform needs a list of target_modules, got a string",
        ),
        ({"layers_pattern": "h"}, ValueError, r"needs layers_to_transform, got \('h',\)"),
        ({"lora_dropout": 1.0}, ValueError, r"lora_dropout must be in \[0, 1\), got 1\.0"),
        ({"r": 0}, ValueError, "r must be at least 1, got 0"),
        ({"r": "8"}, TypeError, "r must be an int, got '8'"),
        ({"lora_alpha": "8"}, TypeError, "lora_alpha must be a number, got '8'"),
        ({"alpha_pattern": {"q": "8"}}, TypeError, r"alpha_pattern\['q'\] must be a number"),
        (
            {"rank_pattern": ["q"]},
            TypeError,
            r"rank_pattern must map patterns to values, got \['q'",
        ),
        ({"lora_alpha": -1}, ValueError, "lora_alpha must be positive and finite, got -1"),
        ({"rank_pattern": {"q": 0}}, ValueError, r"rank_pattern\['q'\] must be at least 1, got 0"),
        ({"rank_pattern": {"q": 2.0}}, TypeError, r"rank_pattern\['q'\] must be an int, got 2\.0"),
        ({"alpha_pattern": {"q": 0}}, ValueError, r"alpha_pattern\['q'\] must be positive"),
        ({"rank_pattern": {"(": 2}}, ValueError, r"'\(' must be a regular expression: missing"),
    ],
)
def test_files_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        config_of(**options)


def test_what_is_off_or_says_nothing_of_outputs_is_read():
    config_of(use_dora=False, eva_config=None, loftq_config={}, of_tomorrow=None, task_type="X")


def test_layers_that_cannot_be_adapted_leave_the_model_whole():
    model = nn.ModuleDict({"a": nn.Linear(7, 5), "e": nn.Embedding(5, 7)})
    with pytest.raises(TypeError, match="e must be an nn.Linear, got Embedding"):
        add_peft_adapters(model, config_of(target_modules=["a", "e"]))
    assert type(model["a"]) is nn.Linear
    with pytest.raises(ValueError, match=r"target_modules must match a layer, got \('q', 'k'\)"):
        add_peft_adapters(model, config_of())
    model["q"] = model["a"]
    with pytest.raises(ValueError, match=r"one under several: \['a', 'q'\]"):
        add_peft_adapters(model, config_of(target_modules=["a", "q"]))
    with pytest.raises(
        ValueError, match=r"must hold no adapter, got \['layers.0.q', 'layers.1.q'\]"
    ):
        add_peft_adapters(Model(), config_of())
