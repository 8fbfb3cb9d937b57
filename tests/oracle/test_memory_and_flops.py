"""Counts of a decoder against transformers' Llama and torch's counter of operations."""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from llmref.training.memory_and_flops import (
    DecoderShape,
    decoder_activation_elements,
    decoder_flops_per_token,
    decoder_parameters,
)

TOPIC = "training/memory_and_flops"

# L, C, H, G, D, F, V, tied: the released configurations, written out.
MODELS = {
    "Llama-2 7B": DecoderShape(32, 4096, 32, 32, 128, 11008, 32000, tied=False),
    "Llama-2 13B": DecoderShape(40, 5120, 40, 40, 128, 13824, 32000, tied=False),
    "Llama-2 70B": DecoderShape(80, 8192, 64, 8, 128, 28672, 32000, tied=False),
    "Llama-3 8B": DecoderShape(32, 4096, 32, 8, 128, 14336, 128256, tied=False),
    "Llama-3 70B": DecoderShape(80, 8192, 64, 8, 128, 28672, 128256, tied=False),
    "Llama-3.2 1B": DecoderShape(16, 2048, 32, 8, 64, 8192, 128256, tied=True),
}
SMALL = [
    DecoderShape(1, 8, 2, 1, 4, 12, 11, tied=False),
    DecoderShape(2, 24, 6, 2, 6, 20, 7, tied=True),
    DecoderShape(3, 20, 4, 4, 4, 14, 13, tied=False),
]


def config(shape, attention="eager"):
    from transformers import LlamaConfig

    return LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.embed_dim,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.ffn_dim,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tied,
        use_cache=False,
        attn_implementation=attention,
    )


def llama(shape, attention="eager", device="cpu"):
    from transformers import LlamaForCausalLM

    with torch.device(device):
        return LlamaForCausalLM(config(shape, attention))


def test_the_default_configuration_is_llama_2_7b(agreement):
    from transformers import LlamaConfig

    theirs = LlamaConfig()
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    sizes = [getattr(theirs, it) for it in (*names, "head_dim", "intermediate_size", "vocab_size")]
    agreement(
        "sizes of Llama-2 7B",
        "transformers",
        torch.tensor(list(MODELS["Llama-2 7B"][:-1])),
        torch.tensor(sizes),
        atol=0.0,
        convention="the defaults of LlamaConfig",
    )


@pytest.mark.parametrize("shape", [*MODELS.values(), *SMALL])
def test_parameters_equal_those_of_transformers(agreement, shape):
    theirs = sum(it.numel() for it in llama(shape, device="meta").parameters())
    agreement(
        "decoder_parameters, total",
        "transformers",
        torch.tensor(decoder_parameters(shape)["total"]),
        torch.tensor(theirs),
        atol=0.0,
        convention="six released configurations and three small ones, on the meta device",
    )


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("shape", SMALL)
def test_operations_equal_what_torch_counts_in_transformers(agreement, shape, backward):
    model, tokens = llama(shape), torch.zeros(2, 9, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        out = model(tokens).logits
        if backward:
            out.sum().backward()
    ours = decoder_flops_per_token(shape, context=9, causal=False, backward=backward)
    agreement(
        "decoder_flops_per_token, dense",
        "transformers",
        torch.tensor(ours),
        torch.tensor(counter.get_total_flops() / 18),
        atol=0.0,
        convention="eager attention, counted by FlopCounterMode",
    )


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("shape", SMALL)
def test_operations_with_checkpoints_at_every_layer(agreement, shape, reentrant):
    """Without reentrance torch stops before the down projection, which saves nothing more."""
    model, tokens = llama(shape), torch.zeros(2, 9, dtype=torch.long)
    model.train()
    for layer in model.model.layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=reentrant)
    with FlopCounterMode(display=False) as counter:
        model(tokens).logits.sum().backward()
    options = {"context": 9, "causal": False}
    forward = decoder_flops_per_token(shape, backward=False, **options)
    again = forward - 2 * shape.vocab_size * shape.embed_dim
    if not reentrant:
        again -= 2 * shape.layers * shape.embed_dim * shape.ffn_dim
    agreement(
        f"operations with checkpoints, use_reentrant={reentrant}",
        "transformers",
        torch.tensor(3 * forward + again),
        torch.tensor(counter.get_total_flops() / 18),
        atol=0.0,
        convention="the layers run again, the head does not"
        + ("" if reentrant else "; nor does the down projection"),
    )


def saved_bytes(run, known):
    """Bytes of all storages that autograd keeps, without the known ones."""
    known = {it.untyped_storage().data_ptr() for it in known}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda it: it):
        run()
    return sum(it.nbytes() for it in kept.values())


@pytest.mark.parametrize("masked", [False, True])
def test_activations_of_a_layer_of_transformers(agreement, masked):
    """Its norm keeps float32 input, and what it multiplies by the gain: 8 C more for two norms."""
    B, T = 2, 24
    shape = DecoderShape(1, 48, 6, 2, 16, 112, 5, tied=True)
    model = llama(shape, "sdpa").bfloat16()
    layer = model.model.layers[0]
    x = torch.randn(B, T, shape.embed_dim).bfloat16().requires_grad_()
    angles = model.model.rotary_emb(x, torch.arange(T)[None])
    mask = torch.ones(B, 1, T, T).tril().bool() if masked else None
    theirs = saved_bytes(
        lambda: layer(x, attention_mask=mask, position_embeddings=angles),
        [*layer.parameters(), *angles],
    )
    statistics = 4 * shape.num_heads + 2 * 4
    more = 8 * shape.embed_dim + statistics
    if masked:  # keys and values repeated, and the mask as numbers of 16 bits
        more += 4 * (shape.num_heads - shape.num_kv_heads) * shape.head_dim + 2 * T
    ours = 2 * decoder_activation_elements(shape, tokens=B * T) + B * T * more
    agreement(
        "bytes saved by a layer, " + ("sdpa with a mask" if masked else "sdpa without a mask"),
        "transformers",
        torch.tensor(ours),
        torch.tensor(theirs),
        atol=0.0,
        convention="8C more per token for its norms"
        + (", keys and values of H heads" if masked else ""),
    )


def test_the_counter_does_not_see_fused_attention_on_a_cpu(agreement):
    """The page says so of torch 2.13; where this fails, the page has to change."""
    q = torch.randn(1, 2, 5, 8)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    agreement(
        "operations of scaled_dot_product_attention on a CPU, as counted",
        "torch",
        torch.tensor(0),
        torch.tensor(counter.get_total_flops()),
        atol=0.0,
        convention="FlopCounterMode has no rule for this kernel",
    )
