"""RMSNorm against torch, transformers and torchtune."""

import pytest
import torch
from torch.nn import functional

from llmref.norm.rms_norm import RMSNorm, rms_norm, rms_norm_backward
from tests.tensors import random

TOPIC = "norm/rms_norm"


@pytest.mark.parametrize("eps", [None, 1e-6, 1e-3])
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_values_equal_torch(agreement, eps, shape):
    x, weight = random(2, 3, 5, 7), random(*shape, seed=1)
    theirs = functional.rms_norm(x, shape, weight, eps)
    agreement(
        "rms_norm",
        "torch",
        rms_norm(x, shape, weight, eps=eps),
        theirs,
        atol=1e-12,
        convention="eps inside the root; None is the epsilon of the type computed in",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_default_eps_is_that_of_the_type_computed_in(agreement, dtype):
    """Rows as small as the root of eps show which one was used."""
    x = (3e-4 * random(8, 64)).to(dtype)
    agreement(
        "rms_norm with eps None, small rows",
        "torch",
        rms_norm(x, 64, eps=None),
        functional.rms_norm(x, (64,)),
        atol=2**-6,
        convention="1.2e-7 for 16 and 32 bits",
    )


def test_gradients_equal_autograd_of_torch(agreement):
    x, weight, dy = (
        random(3, 5, 7).requires_grad_(),
        random(7, seed=1).requires_grad_(),
        random(3, 5, 7),
    )
    theirs = torch.autograd.grad(
        (functional.rms_norm(x, (7,), weight, 1e-5) * dy).sum(), (x, weight)
    )
    for ours, expected in zip(rms_norm_backward(dy, x, weight, eps=1e-5), theirs, strict=True):
        agreement("rms_norm_backward", "torch", ours, expected, atol=1e-12)


def llama():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    return LlamaRMSNorm(64, eps=1e-6), {"cast": "before_weight"}


def gemma():
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    return GemmaRMSNorm(64, eps=1e-6), {"zero_centered": True}


def olmo2():
    from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

    return Olmo2RMSNorm(64, eps=1e-6), {}


def t5():
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    return T5LayerNorm(64, eps=1e-6), {"cast": "before_weight"}


def qwen3():
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    return Qwen3RMSNorm(64, eps=1e-6), {"cast": "before_weight"}


@pytest.mark.parametrize(
    ("family", "convention"),
    [
        (llama, "rounds, then multiplies by the gain"),
        (gemma, "gain 1 + w, rounds once at the end"),
        (olmo2, "rounds once at the end"),
        (t5, "rounds, then multiplies by the gain"),
        (qwen3, "rounds, then multiplies by the gain"),
    ],
)
def test_each_family_is_reproduced_bit_by_bit_in_bfloat16(agreement, family, convention):
    theirs, options = family()
    theirs.weight.data = random(64, seed=1).bfloat16()
    ours = RMSNorm(64, eps=1e-6, **options)
    ours.load_state_dict(theirs.state_dict())
    ours.weight.data = theirs.weight.data
    x = random(32, 64).bfloat16()
    agreement(
        f"RMSNorm of {type(theirs).__name__}, bfloat16",
        "transformers",
        ours(x),
        theirs(x),
        atol=0.0,
        convention=convention,
    )


def test_the_norm_of_llama_always_computes_in_float32(agreement):
    theirs, _ = llama()
    x = random(32, 64)
    agreement(
        "RMSNorm of LlamaRMSNorm, float64",
        "transformers",
        rms_norm(x, 64, eps=1e-6),
        theirs(x),
        atol=1e-6,
        convention="float64 input is computed in float32",
    )


def test_the_norm_of_torchtune(agreement, torchtune_imports):
    from torchtune.modules import RMSNorm as Theirs

    theirs = Theirs(64, eps=1e-6)
    theirs.scale.data = random(64, seed=1).float()
    x = random(32, 64).float()
    agreement(
        "RMSNorm",
        "torchtune",
        rms_norm(x, 64, theirs.scale.detach(), eps=1e-6),
        theirs(x),
        atol=1e-5,
        convention="the gain is named scale",
    )
