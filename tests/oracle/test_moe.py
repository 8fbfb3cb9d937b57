"""Mixture of experts against transformers: layers, routers, balance losses, capacity."""

from functools import partial

import pytest
import torch
from torch import Tensor

from llmref.components.moe import (
    SparseMoE,
    biased_top_k,
    capacity_mask,
    expert_load,
    load_balancing_loss,
    moe_forward,
    moe_parameters,
    router_z_loss,
    softmax_top_k,
    top_k_softmax,
)
from tests.tensors import random

TOPIC = "components/moe"
plain = partial(softmax_top_k, renormalize=False)


def by_expert(weights: Tensor, experts: Tensor, E: int) -> Tensor:
    """Weights at the places of their experts: libraries do not all sort them."""
    return weights.new_zeros(len(weights), E).scatter(1, experts, weights)


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    with torch.no_grad():
        for place, tensor in enumerate([*module.parameters(), *module.buffers()]):
            tensor.copy_(random(*tensor.shape, seed=seed + place, scale=0.5))


def with_weights_of(theirs: torch.nn.Module, ours: SparseMoE) -> SparseMoE:
    """The weights of stacked experts, gate and up in one."""
    ours.gate.weight.data = theirs.gate.weight.data.to(ours.gate.weight.dtype)
    for e, expert in enumerate(ours.experts):
        gate, up = theirs.experts.gate_up_proj[e].data.chunk(2)
        expert.gate_proj.weight.data, expert.up_proj.weight.data = gate.clone(), up.clone()
        expert.down_proj.weight.data = theirs.experts.down_proj[e].data.clone()
    return ours


def mixtral_experts() -> torch.nn.Module:
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralExperts

    config = MixtralConfig(
        hidden_size=6, intermediate_size=5, num_attention_heads=1, num_local_experts=3
    )
    config._experts_implementation = "eager"
    experts = MixtralExperts(config).double()
    fill(experts)
    return experts


def test_the_layer_of_mixtral(agreement):
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=6,
        intermediate_size=10,
        num_attention_heads=1,
        num_local_experts=5,
        num_experts_per_tok=2,
    )
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config).double()
    fill(theirs)
    ours = with_weights_of(theirs, SparseMoE(6, 10, 5, 2, router=top_k_softmax).double())
    x = random(2, 7, 6, seed=9)
    agreement(
        "layer of MixtralSparseMoeBlock",
        "transformers",
        ours(x),
        theirs(x),
        atol=2e-6,
        convention="softmax in float32, top-k, renormalised",
    )


def test_the_layer_of_deepseek_v3(agreement):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Config,
        DeepseekV3MoE,
    )

    config = DeepseekV3Config(
        hidden_size=6,
        moe_intermediate_size=10,
        n_routed_experts=8,
        num_local_experts=8,
        num_experts_per_tok=3,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=2.5,
    )
    config._experts_implementation = "eager"
    theirs = DeepseekV3MoE(config).double()
    fill(theirs)
    bias = theirs.gate.e_score_correction_bias

    def router(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        weights, experts = biased_top_k(logits.sigmoid(), bias, k, renormalize=True)
        return 2.5 * weights, experts

    ours = SparseMoE(6, 10, 8, 3, router=router, num_shared=1).double()
    with_weights_of(theirs, ours)
    ours.shared[0].load_state_dict(theirs.shared_experts.state_dict())
    x = random(2, 7, 6, seed=9)
    agreement(
        "layer of DeepseekV3MoE without groups",
        "transformers",
        ours(x),
        theirs(x),
        atol=5e-6,
        convention="sigmoid, chosen with the bias, renormalised, times routed_scaling_factor",
    )


def test_the_router_of_deepseek_v3_chooses_within_groups(agreement):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Config,
        DeepseekV3TopkRouter,
    )

    config = DeepseekV3Config(
        hidden_size=6, num_local_experts=12, num_experts_per_tok=3, n_group=4, topk_group=2
    )
    theirs = DeepseekV3TopkRouter(config)
    fill(theirs)
    x = random(9, 6, seed=4)
    logits, weights, experts = theirs(x)
    scores, bias = logits.sigmoid(), theirs.e_score_correction_bias
    # A group is worth the sum of its two best biased scores; the others cannot be chosen.
    groups = (scores + bias).view(9, 4, 3).topk(2).values.sum(-1).topk(2).indices
    free = torch.zeros(9, 4).scatter(1, groups, 1).bool().repeat_interleave(3, 1)
    rows = [biased_top_k(scores[t], bias - 100.0 * ~free[t], 3, renormalize=True) for t in range(9)]
    ours, chosen = (torch.stack(both) for both in zip(*rows, strict=True))
    assert not torch.equal(biased_top_k(scores, bias, 3, renormalize=True)[1], chosen)
    agreement(
        "router of DeepseekV3TopkRouter",
        "transformers",
        by_expert(2.5 * ours, chosen, 12),
        by_expert(weights, experts, 12),
        atol=2e-6,
        convention="two of four groups, by the sum of their two best biased scores",
    )


@pytest.mark.parametrize("renormalize", [True, False])
def test_the_router_of_qwen3(agreement, renormalize):
    from transformers.models.qwen3_moe.modeling_qwen3_moe import (
        Qwen3MoeConfig,
        Qwen3MoeTopKRouter,
    )

    assert not Qwen3MoeConfig().norm_topk_prob
    config = Qwen3MoeConfig(
        hidden_size=6, num_experts=7, num_experts_per_tok=3, norm_topk_prob=renormalize
    )
    theirs = Qwen3MoeTopKRouter(config)
    fill(theirs)
    logits, weights, experts = theirs(random(9, 6, seed=4).float())
    ours, chosen = softmax_top_k(logits, 3, renormalize=renormalize)
    assert torch.equal(chosen, experts)
    agreement(
        f"router of Qwen3MoeTopKRouter, norm_topk_prob={renormalize}",
        "transformers",
        ours,
        weights,
        atol=2e-6,
        convention="softmax in float32; False is the default",
    )


def test_routers_that_do_not_renormalise(agreement):
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import (
        DeepseekV2Config,
        DeepseekV2TopkRouter,
    )
    from transformers.models.olmoe.modeling_olmoe import OlmoeConfig, OlmoeTopKRouter

    assert not OlmoeConfig().norm_topk_prob
    sizes = {"hidden_size": 6, "num_experts": 7, "num_experts_per_tok": 3}
    for name, theirs in {
        "OlmoeTopKRouter": OlmoeTopKRouter(OlmoeConfig(**sizes)),
        "DeepseekV2TopkRouter": DeepseekV2TopkRouter(
            DeepseekV2Config(num_attention_heads=1, num_key_value_heads=1, **sizes)
        ),
    }.items():
        fill(theirs)
        logits, weights, experts = theirs(random(9, 6, seed=4).float())
        agreement(
            f"router of {name}",
            "transformers",
            by_expert(*plain(logits, 3), 7),
            by_expert(weights, experts, 7),
            atol=2e-6,
            convention="not renormalised by default",
        )


def test_the_router_of_gpt_oss(agreement):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssConfig, GptOssTopKRouter

    theirs = GptOssTopKRouter(
        GptOssConfig(hidden_size=6, num_local_experts=7, num_experts_per_tok=3)
    ).double()
    fill(theirs)
    logits, weights, experts = theirs(random(9, 6, seed=4))
    ours, chosen = top_k_softmax(logits, 3)
    assert torch.equal(chosen, experts)
    agreement(
        "router of GptOssTopKRouter",
        "transformers",
        ours,
        weights,
        atol=1e-12,
        convention="top-k, then softmax",
    )


def test_llama_4_weighs_the_input(agreement):
    from transformers.models.llama4.modeling_llama4 import Llama4TextConfig, Llama4TextMoe

    theirs = Llama4TextMoe(
        Llama4TextConfig(
            hidden_size=6,
            intermediate_size=10,
            num_attention_heads=1,
            num_local_experts=5,
            num_experts_per_tok=2,
        )
    ).double()
    fill(theirs)
    x = random(9, 6, seed=4)
    logits = theirs.router(x)[1].detach()
    weights = logits.gather(1, top_k_softmax(logits, 2)[1]).sigmoid()
    experts = top_k_softmax(logits, 2)[1]

    def run(e: int, rows: Tensor) -> Tensor:
        every = torch.zeros(5, *rows.shape, dtype=rows.dtype)
        every[e] = rows
        return theirs.experts(every.flatten(0, 1)).view(5, *rows.shape)[e]

    maps = [partial(run, e) for e in range(5)]
    one = torch.ones(9, 1, dtype=x.dtype)
    parts = [
        moe_forward(x * weights[:, i : i + 1], one, experts[:, i : i + 1], maps) for i in (0, 1)
    ]
    agreement(
        "layer of Llama4TextMoe",
        "transformers",
        parts[0] + parts[1] + theirs.shared_expert(x),
        theirs(x)[0],
        atol=2e-6,
        convention="the sigmoid of the logit, on the input of the expert",
    )
    usual = moe_forward(x, weights, experts, maps) + theirs.shared_expert(x)
    assert (usual - theirs(x)[0]).abs().max() > 1e-3


def test_mixtral_in_transformers_is_k_times_as_large_and_pools_layers(agreement):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    layers = tuple(2 * random(12, 5, seed=s) for s in (0, 1, 2))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]])
    pooled = torch.cat(layers)
    ours = [
        2 * load_balancing_loss(z.softmax(-1), top_k_softmax(z, 2)[1], m)
        for z, m in (
            (layers[0], None),
            (pooled, None),
            (pooled, mask.flatten().repeat(3).bool()),
        )
    ]
    theirs = [
        load_balancing_loss_func(layers[:1], 5, 2),
        load_balancing_loss_func(layers, 5, 2),
        load_balancing_loss_func(layers, 5, 2, mask),
    ]
    agreement(
        "balance loss of Mixtral",
        "transformers",
        torch.stack(ours),
        torch.stack(theirs),
        atol=2e-6,
        convention="times k; the tokens of all layers pooled",
    )
    collapsed = tuple(60 * row.expand(3, 4) for row in torch.eye(4, dtype=torch.float64))
    assert abs(load_balancing_loss_func(collapsed, 4, 1) - 1) < 1e-6  # 4 for each of them


def test_switch_in_transformers_averages_over_sequences(agreement):
    from transformers.models.switch_transformers import modeling_switch_transformers as switch

    logits = 2 * random(3, 7, 5)
    probs, experts = logits.softmax(-1), plain(logits, 1)[1]
    each = [load_balancing_loss(p, e) for p, e in zip(probs, experts, strict=True)]
    agreement(
        "balance loss of Switch",
        "transformers",
        torch.stack(each).mean(),
        switch.load_balancing_loss_func(probs, experts[..., 0]),
        atol=2e-6,
        convention="k = 1, the mean over sequences",
    )
    agreement(
        "router z-loss",
        "transformers",
        router_z_loss(logits),
        switch.router_z_loss_func(logits),
        atol=1e-12,
        convention="Switch: none",
    )


def test_switch_counts_places_within_a_sequence(agreement):
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersConfig,
        SwitchTransformersTop1Router,
    )

    theirs = SwitchTransformersTop1Router(
        SwitchTransformersConfig(d_model=6, num_experts=3, expert_capacity=2)
    ).eval()
    fill(theirs)
    taken, weights, logits = theirs(random(2, 8, 6, seed=4).float())
    w, experts = plain(logits, 1)
    kept = torch.stack([capacity_mask(idx, 3, 2, priority="token") for idx in experts])
    assert not kept.all()
    assert not torch.equal(
        kept.view(-1, 1), capacity_mask(experts.view(-1, 1), 3, 2, priority="token")
    )
    agreement(
        "router of Switch, with capacity",
        "transformers",
        torch.zeros(2, 8, 3).scatter(-1, experts, w * kept),
        taken * weights,
        atol=2e-6,
        convention="not renormalised; capacity within each sequence",
    )


def test_nllb_takes_all_first_choices_first(agreement):
    from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeConfig, NllbMoeTop2Router

    config = NllbMoeConfig(
        d_model=6,
        num_experts=4,
        expert_capacity=3,
        second_expert_policy="all",
        normalize_router_prob_before_dropping=True,
    )
    router = NllbMoeTop2Router(config).train()
    fill(router)
    logits = 2 * random(9, 4, seed=4).float()
    theirs = router.route_tokens(logits.clone(), torch.float32)[1]
    weights, experts = softmax_top_k(logits, 2, renormalize=True)
    kept = {p: capacity_mask(experts, 4, 3, priority=p) for p in ("token", "choice")}
    assert not torch.equal(kept["token"], kept["choice"])
    agreement(
        "router of NLLB-MoE, with capacity",
        "transformers",
        by_expert(weights * kept["choice"], experts, 4),
        theirs,
        atol=2e-6,
        convention="all first choices before second ones; renormalised before the drop if asked",
    )
    router.normalize_router_prob_before_dropping = False
    after = weights * kept["choice"]
    after = after / after.sum(-1, keepdim=True).clamp(min=1e-9)
    theirs = router.route_tokens(logits.clone(), torch.float32)[1]
    assert (by_expert(after, experts, 4) - theirs).abs().max() < 2e-6


def test_the_parameters_of_mixtral(agreement):
    from transformers import MixtralConfig, MixtralForCausalLM

    with torch.device("meta"):
        model = MixtralForCausalLM(MixtralConfig(num_hidden_layers=1))
    block = model.model.layers[0].mlp
    total, _ = moe_parameters(4096, 14336, 8, 2)
    agreement(
        "parameters of a layer of Mixtral 8x7B",
        "transformers",
        torch.tensor(total),
        torch.tensor(sum(p.numel() for p in block.parameters())),
        atol=0.0,
        convention="experts and router",
    )
    rest = sum(p.numel() for p in model.parameters()) - total
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    assert rest + total + 31 * layer == 46_702_792_704


def test_experts_without_tokens_have_no_gradient_or_zeros():
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersConfig,
        SwitchTransformersExperts,
    )

    config = SwitchTransformersConfig(d_model=6, d_ff=5, num_experts=3, dropout_rate=0.0)
    theirs = SwitchTransformersExperts(config)
    chosen = torch.nn.functional.one_hot(torch.tensor([0, 2, 0]), 3)[:, None]
    theirs(torch.ones(3, 6), chosen, torch.ones(3, 1)).sum().backward()
    assert all(p.grad is None for p in theirs.expert_1.parameters())
    stacked = mixtral_experts()
    weights = torch.ones(3, 1, dtype=torch.float64)
    stacked(random(3, 6), torch.tensor([[0], [2], [0]]), weights).sum().backward()
    for weight in stacked.parameters():
        assert [bool((g != 0).any()) for g in weight.grad] == [True, False, True]
    ours = SparseMoE(
        6, 5, 3, 1, router=lambda logits, k: (torch.ones(3, 1), torch.tensor([[0], [2], [0]]))
    )
    ours(torch.ones(3, 6)).sum().backward()
    assert all((p.grad == 0).all() for p in ours.experts[1].parameters())
    assert expert_load(torch.tensor([[0], [2], [0]]), 3).tolist() == [2, 0, 1]
