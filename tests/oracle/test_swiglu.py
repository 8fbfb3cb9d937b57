"""Gated layers against torch, transformers, torchtune and x-transformers."""

import pytest
import torch
from torch.nn import functional

from llmref.components.swiglu import SwiGLU, fuse_gate_up, glu
from tests.tensors import random

TOPIC = "components/swiglu"


def test_glu_of_torch_gates_with_the_second_half(agreement):
    up, gate = random(3, 5), random(3, 5, seed=1)
    theirs = functional.glu(torch.cat([up, gate], dim=-1))
    agreement(
        "glu with the sigmoid",
        "torch",
        glu(gate, up, "sigmoid"),
        theirs,
        atol=1e-12,
        convention="F.glu: the second half is the gate",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_layer_of_llama(agreement, dtype):
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP

    theirs = LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=24, num_attention_heads=1))
    theirs = theirs.to(dtype)
    ours = SwiGLU(8, 24).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x = random(2, 3, 8).to(dtype)
    agreement(
        f"SwiGLU of LlamaMLP, {str(dtype).removeprefix('torch.')}",
        "transformers",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="down(silu(gate) * up), no biases",
    )


def test_the_layer_of_phi_cuts_gate_then_up(agreement):
    from transformers.models.phi3.modeling_phi3 import Phi3Config, Phi3MLP

    config = Phi3Config(hidden_size=8, intermediate_size=24, num_attention_heads=1)
    theirs = Phi3MLP(config).double()
    ours = SwiGLU(8, 24).double()
    ours.down_proj.load_state_dict(theirs.down_proj.state_dict())
    fused = fuse_gate_up(ours.gate_proj.weight, ours.up_proj.weight, order="gate_up")
    theirs.gate_up_proj.weight.data = fused.detach()
    x = random(2, 3, 8)
    agreement(
        "SwiGLU of Phi3MLP",
        "transformers",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="one weight, cut into gate, up",
    )


def test_x_transformers_cuts_up_then_gate(agreement):
    from x_transformers.x_transformers import GLU

    theirs = GLU(8, 24, torch.nn.SiLU()).double()
    ours = SwiGLU(8, 24).double()
    fused = fuse_gate_up(ours.gate_proj.weight, ours.up_proj.weight, order="up_gate")
    theirs.proj.weight.data = fused.detach()
    theirs.proj.bias.data.zero_()  # it has a bias
    x = random(2, 3, 8)
    agreement(
        "SwiGLU of GLU",
        "x-transformers",
        glu(ours.gate_proj(x), ours.up_proj(x)),
        theirs(x),
        atol=1e-12,
        convention="one weight, cut into up, gate; with a bias",
    )


def test_the_layer_of_torchtune(agreement, torchtune_imports):
    from torchtune.modules import FeedForward

    ours = SwiGLU(8, 24).double()
    theirs = FeedForward(gate_proj=ours.gate_proj, up_proj=ours.up_proj, down_proj=ours.down_proj)
    x = random(2, 3, 8)
    agreement(
        "SwiGLU of FeedForward",
        "torchtune",
        ours(x),
        theirs(x),
        atol=1e-12,
        convention="w1 is the gate, w3 up, w2 down",
    )
