"""Low-rank adapters against peft and torchtune, weights copied both ways."""

import json

import pytest
import torch
from torch import nn

from llmref.components.lora import (
    LoRALinear,
    load_peft_state_dict,
    lora_delta,
    lora_scaling,
    peft_adapter_config,
    peft_state_dict,
)
from tests.tensors import random

TOPIC = "components/lora"


class Model(nn.Module):
    """Two projections, of which one is adapted."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.q = nn.Linear(7, 5, dtype=dtype)
        self.out = nn.Linear(5, 3, dtype=dtype)

    def forward(self, x):
        return self.out(self.q(x))


def ours_of(r, alpha, *, rank_stabilized=False, dtype=torch.float64):
    model = Model(dtype)
    model.q = LoRALinear(model.q, r, alpha, rank_stabilized=rank_stabilized)
    model.q.lora_B.data = random(5, r, seed=1).to(model.q.lora_B.dtype)
    return model


def theirs_of(ours, dtype=torch.float64, **options):
    """The model of peft with our factors, set through its own loader."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = LoraConfig(
        r=ours.q.r,
        lora_alpha=ours.q.alpha,
        use_rslora=ours.q.rank_stabilized,
        target_modules=["q"],
    )
    theirs = get_peft_model(Model(dtype), config, **options)
    result = set_peft_model_state_dict(theirs, peft_state_dict(ours))
    assert not result.unexpected_keys
    return theirs.eval()


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize("r", [2, 3])
def test_scale_and_output_of_peft(agreement, r, rank_stabilized):
    ours = ours_of(r, 5.0, rank_stabilized=rank_stabilized)
    theirs = theirs_of(ours)
    layer = theirs.base_model.model.q
    kind = "alpha / sqrt(r)" if rank_stabilized else "alpha / r"
    agreement(
        f"scale {kind}",
        "peft",
        torch.tensor(lora_scaling(5.0, r, rank_stabilized=rank_stabilized)),
        torch.tensor(layer.scaling["default"]),
        atol=1e-15,
        convention="use_rslora",
    )
    x = random(2, 3, 7)
    agreement(
        f"output with {kind}",
        "peft",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="A (r, in), B (out, r); alpha = 8 by default",
    )
    agreement(
        "update s B A",
        "peft",
        lora_delta(ours.q.lora_A, ours.q.lora_B, ours.q.scaling),
        layer.get_delta_weight("default"),
        atol=1e-12,
    )


def test_gradients_of_peft(agreement):
    ours = ours_of(2, 5.0)
    theirs = theirs_of(ours)
    x = random(2, 3, 7)
    for model in (ours, theirs):
        model(x).square().sum().backward()
    layer = theirs.base_model.model.q
    for name in ("A", "B"):
        agreement(
            f"gradient of {name}",
            "peft",
            getattr(ours.q, f"lora_{name}").grad,
            getattr(layer, f"lora_{name}")["default"].weight.grad,
            atol=1e-11,
        )
    frozen = {n for n, p in theirs.named_parameters() if not p.requires_grad}
    assert "base_model.model.q.base_layer.weight" in frozen


def test_merge_and_unmerge_of_peft(agreement):
    ours = ours_of(2, 5.0)
    theirs = theirs_of(ours).base_model.model.q
    ours.q.merge(keep_base=False)
    theirs.merge(safe_merge=True)
    agreement("merged weight", "peft", ours.q.base.weight, theirs.base_layer.weight, atol=1e-12)
    ours.q.unmerge()
    theirs.unmerge()
    agreement("unmerged weight", "peft", ours.q.base.weight, theirs.base_layer.weight, atol=1e-12)
    merged = theirs_of(ours).merge_and_unload().q
    assert type(merged) is nn.Linear
    agreement("merge_and_unload", "peft", ours.q.to_linear().weight, merged.weight, atol=1e-12)


@pytest.mark.parametrize("safe_merge", [False, True])
def test_sixteen_bit_merge_of_peft_rounds_once_or_twice(agreement, safe_merge):
    """Adapters in float32, as peft makes them; only safe_merge rounds the update before."""
    ours = ours_of(2, 5.0, dtype=torch.bfloat16)
    layer = theirs_of(ours, torch.bfloat16).base_model.model.q
    assert layer.lora_A["default"].weight.dtype == torch.float32
    weight = layer.base_layer.weight.clone()
    delta = layer.get_delta_weight("default")
    layer.merge(safe_merge=safe_merge)
    if not safe_merge:
        agreement(
            "merged weight, bfloat16",
            "peft",
            ours.q.merged_weight(),
            layer.base_layer.weight,
            atol=0.0,
            convention="float32 adapters, safe_merge=False",
        )
        merged = layer.base_layer.weight.clone()
        layer.unmerge()
        assert torch.equal(layer.base_layer.weight, merged - delta.bfloat16())
        return
    assert torch.equal(layer.base_layer.weight, weight + delta.bfloat16())
    assert not torch.equal(layer.base_layer.weight, ours.q.merged_weight())


def test_unmerge_of_peft_subtracts_the_update_of_today(agreement):
    ours = ours_of(2, 5.0)
    theirs = theirs_of(ours).base_model.model.q
    before = ours.q.base.weight.clone()
    ours.q.merge(keep_base=False)
    theirs.merge()
    ours.q.lora_A.data.mul_(2)
    theirs.lora_A["default"].weight.data.mul_(2)
    ours.q.unmerge()
    theirs.unmerge()
    assert (theirs.base_layer.weight - before).abs().max() > 0.1
    agreement(
        "unmerge after a change, plus the difference",
        "peft",
        ours.q.base.weight - lora_delta(ours.q.lora_A, ours.q.lora_B, ours.q.scaling) / 2,
        theirs.base_layer.weight,
        atol=1e-12,
        convention="peft recomputes the update from the factors",
    )


def test_the_initial_factors_of_peft():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["0"])
    assert (config.r, config.lora_alpha) == (8, 8)
    layer = get_peft_model(nn.Sequential(nn.Linear(400, 300)), config).base_model.model[0]
    A = layer.lora_A["default"].weight
    assert A.abs().max() <= 1 / 20
    assert A.var().item() == pytest.approx(1 / 1200, rel=0.1)
    assert layer.lora_B["default"].weight.count_nonzero() == 0


def test_our_files_load_into_peft(agreement, tmp_path):
    from peft import PeftModel
    from safetensors.torch import save_file

    ours = ours_of(2, 5.0, rank_stabilized=True)
    save_file(peft_state_dict(ours), tmp_path / "adapter_model.safetensors")
    config = peft_adapter_config(ours)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = PeftModel.from_pretrained(Model(), str(tmp_path), autocast_adapter_dtype=False)
    x = random(2, 3, 7)
    agreement(
        "output after loading our file",
        "peft",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="adapter_model.safetensors and adapter_config.json",
    )


def test_files_of_peft_load_into_ours(agreement, tmp_path):
    from safetensors.torch import load_file

    source = ours_of(2, 5.0)
    theirs = theirs_of(source)
    theirs.save_pretrained(str(tmp_path))
    ours = ours_of(2, 5.0)
    ours.q.lora_B.data.zero_()
    load_peft_state_dict(ours, load_file(tmp_path / "adapter_model.safetensors"))
    x = random(2, 3, 7)
    agreement("output after loading its file", "peft", ours(x), theirs(x), atol=1e-12)


def test_the_layer_of_torchtune(agreement, torchtune_imports):
    from torchtune.modules.peft import LoRALinear as Theirs

    ours = ours_of(2, 5.0).q
    theirs = Theirs(7, 5, rank=2, alpha=5.0, use_bias=True).double()
    theirs.load_state_dict(
        {
            "weight": ours.base.weight,
            "bias": ours.base.bias,
            "lora_a.weight": ours.lora_A,
            "lora_b.weight": ours.lora_B,
        }
    )
    x = random(2, 3, 7)
    agreement(
        "output with alpha / r",
        "torchtune",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="holds its own weight, wraps no layer",
    )
