"""Low-rank adapters against peft and torchtune, weights copied both ways."""

import json

import pytest
import torch
from torch import nn

from llmref.components.lora import (
    LoRALinear,
    add_peft_adapters,
    load_peft_state_dict,
    lora_delta,
    lora_scaling,
    peft_adapter_config,
    peft_state_dict,
    read_peft_config,
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


# --- whole files of peft, on two layers of Llama


def base_of(dtype=torch.float64, *, tied=False):
    """Two layers of Llama; k_proj is 16 x 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=29,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def saved_by_peft(folder, base, **options):
    """A trained adapter of peft, in its folder; all that it trains is random."""
    from peft import LoraConfig, get_peft_model

    options = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "k_proj"], **options}
    theirs = get_peft_model(base, LoraConfig(**options))
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = (0.3 * noise).to(parameter.dtype)
    theirs.save_pretrained(str(folder))
    return theirs.eval()


def loaded(folder, base):
    from safetensors.torch import load_file

    config = read_peft_config(folder / "adapter_config.json")
    add_peft_adapters(base, config)
    load_peft_state_dict(base, load_file(folder / "adapter_model.safetensors"), config)
    return base


def logits(model, **options):
    ids = torch.arange(14).reshape(2, 7) * 5 % 29
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **options).logits


CASES = {
    "alpha_pattern": {"alpha_pattern": {"k_proj": 32}},
    "rank_pattern and alpha_pattern": {
        "rank_pattern": {"0.self_attn.q_proj": 7, "q_proj": 2, "^model.layers.1.*k_proj": 6},
        "alpha_pattern": {r"layers\.1\..*": 11, "k_proj": 2},
    },
    "use_rslora and rank_pattern": {"use_rslora": True, "rank_pattern": {"q_proj": 4}},
    "a regular expression": {"target_modules": r".*\.1\.(mlp\.up|self_attn\.v)_proj"},
    "a whole name": {"target_modules": ["model.layers.0.mlp.down_proj", "o_proj"]},
    "exclude_modules": {"exclude_modules": ["0.self_attn.q_proj", "mlp.k_proj"]},
    "exclude_modules, a regular expression": {"exclude_modules": r".*\.0\..*"},
    "layers_to_transform": {"layers_to_transform": [1]},
    "layers_to_transform, one": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "all-linear": {"target_modules": "all-linear"},
    "rank above a side": {"target_modules": ["k_proj"], "r": 20},
    "dropout": {"lora_dropout": 0.5},
    "Gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal", "r": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_peft_gives_its_logits(agreement, tmp_path, case):
    from peft import PeftModel

    saved_by_peft(tmp_path, base_of(), **CASES[case])
    # Loaded again: peft sorts patterns as it saves them, and the first that matches holds.
    theirs = PeftModel.from_pretrained(base_of(), str(tmp_path))
    plain = logits(base_of())
    ours = loaded(tmp_path, base_of())
    assert (logits(theirs) - plain).abs().max() > 1e-3
    agreement(
        "logits of a saved adapter",
        "peft",
        logits(ours),
        logits(theirs),
        atol=1e-12,
        convention="adapter_config.json read: patterns, targets, layers; Llama in float64",
    )
    names = {n for n, m in ours.named_modules() if isinstance(m, LoRALinear)}
    layers = {
        n: theirs.base_model.model.get_submodule(n)
        for n, m in theirs.base_model.model.named_modules()
        if hasattr(m, "lora_A") and m.lora_A
    }
    assert names == set(layers)
    for name in names:
        layer = ours.get_submodule(name)
        assert layer.r == layers[name].r["default"]
        assert layer.scaling == layers[name].scaling["default"]


@pytest.mark.parametrize("tied", [False, True])
def test_saved_modules_replace_those_of_the_model(agreement, tmp_path, tied):
    options = {"modules_to_save": ["lm_head", "input_layernorm"]}
    theirs = saved_by_peft(tmp_path, base_of(tied=tied), **options)
    ours = loaded(tmp_path, base_of(tied=tied))
    agreement(
        "logits with modules_to_save",
        "peft",
        logits(ours),
        logits(theirs),
        atol=1e-12,
        convention="lm_head and norms saved whole; a tied head is tied no more",
    )
    embedding = base_of(tied=tied).get_input_embeddings().weight
    assert torch.equal(ours.get_input_embeddings().weight, embedding)
    assert not torch.equal(ours.lm_head.weight, embedding)


def test_an_adapted_head_brings_its_base_weight(agreement, tmp_path):
    from safetensors.torch import load_file

    base = base_of()
    base.lm_head.weight.data.mul_(2)  # so that the base layer in the file matters
    theirs = saved_by_peft(tmp_path, base, target_modules=["q_proj", "lm_head"])
    file = load_file(tmp_path / "adapter_model.safetensors")
    assert "base_model.model.lm_head.base_layer.weight" in file
    agreement(
        "logits with an adapted lm_head",
        "peft",
        logits(loaded(tmp_path, base_of())),
        logits(theirs),
        atol=1e-12,
        convention="the file holds base_layer.weight",
    )


def test_embeddings_saved_along_are_loaded(agreement, tmp_path):
    base = base_of()
    base.model.embed_tokens.weight.data.mul_(2)
    theirs = saved_by_peft(tmp_path, base)
    theirs.save_pretrained(str(tmp_path), save_embedding_layers=True)
    agreement(
        "logits with embeddings in the file",
        "peft",
        logits(loaded(tmp_path, base_of())),
        logits(theirs),
        atol=1e-12,
        convention="save_embedding_layers=True",
    )


def test_mixed_ranks_are_written(agreement, tmp_path):
    from peft import PeftModel
    from safetensors.torch import save_file

    ours = base_of()
    kinds = {
        "0.self_attn.q_proj": (3, 5.0),
        "1.self_attn.q_proj": (2, 5.0),
        "0.mlp.up_proj": (3, 7),
    }
    for seed, (name, (r, alpha)) in enumerate(kinds.items()):
        parent, _, child = f"model.layers.{name}".rpartition(".")
        layer = LoRALinear(getattr(ours.get_submodule(parent), child), r, alpha)
        layer.lora_B.data = random(*layer.lora_B.shape, seed=seed)
        setattr(ours.get_submodule(parent), child, layer)
    save_file(peft_state_dict(ours), tmp_path / "adapter_model.safetensors")
    config = json.dumps(peft_adapter_config(ours))
    (tmp_path / "adapter_config.json").write_text(config, encoding="utf-8")
    theirs = PeftModel.from_pretrained(base_of(), str(tmp_path), autocast_adapter_dtype=False)
    agreement(
        "logits after loading our file of mixed ranks",
        "peft",
        logits(ours),
        logits(theirs),
        atol=1e-12,
        convention="rank_pattern and alpha_pattern, anchored by ^",
    )


def test_float32_factors_stay_float32_on_a_bfloat16_base(agreement, tmp_path):
    theirs = saved_by_peft(tmp_path, base_of(torch.bfloat16))
    ours = loaded(tmp_path, base_of(torch.bfloat16))
    factors = {p.dtype for n, p in ours.named_parameters() if ".lora_" in n}
    assert factors == {torch.float32}
    agreement(
        "logits on a bfloat16 base",
        "peft",
        logits(ours),
        logits(theirs),
        atol=0.0,
        convention="factors in float32, as peft loads them",
    )


def test_peft_itself_reads_sorted_patterns_otherwise_than_it_trained(tmp_path):
    from peft import PeftModel

    options = {"alpha_pattern": {r"layers\.1\..*": 11, "k_proj": 2}}
    trained = saved_by_peft(tmp_path, base_of(), **options)
    again = PeftModel.from_pretrained(base_of(), str(tmp_path))
    assert (logits(trained) - logits(again)).abs().max() > 1e-3
    assert torch.equal(logits(loaded(tmp_path, base_of())), logits(again))


REFUSED = {
    "use_dora": ({"use_dora": True}, "use_dora must be off"),
    "lora_bias": ({"lora_bias": True}, "lora_bias must be off"),
    "bias": ({"bias": "lora_only"}, r"bias must be one of \['none'\], got 'lora_only'"),
    "target_parameters": ({"target_parameters": ["w"]}, "target_parameters must be off"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights must be .*got 'pissa'"),
    "olora": ({"init_lora_weights": "olora"}, "init_lora_weights must be .*got 'olora'"),
    "corda": ({"init_lora_weights": "corda"}, "init_lora_weights must be .*got 'corda'"),
    "eva": ({"init_lora_weights": "eva"}, "init_lora_weights must be .*got 'eva'"),
    "replication": ({"layer_replication": [[0, 2]]}, "layer_replication must be off"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices must be off"),
    "alora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens must be off"),
}


@pytest.mark.filterwarnings("ignore")  # peft warns of options that it takes for experimental
@pytest.mark.parametrize("case", REFUSED)
def test_files_that_peft_writes_and_we_do_not_compute_are_refused(tmp_path, case):
    from peft import LoraConfig

    options, message = REFUSED[case]
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
    config.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        read_peft_config(tmp_path / "adapter_config.json")


def test_each_option_of_peft_is_read_refused_or_silent(tmp_path):
    """The defaults of its LoraConfig all pass, so none of them is unknown."""
    from peft import LoraConfig

    LoraConfig(target_modules=["q"]).save_pretrained(str(tmp_path))
    config = read_peft_config(tmp_path / "adapter_config.json")
    assert (config.r, config.lora_alpha, config.target_modules) == (8, 8, ("q",))
