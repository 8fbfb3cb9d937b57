"""A whole decoder against transformers: logits, greedy text, caches, weights from a file, sizes.

Every weight is redrawn, gains and biases included: in a fresh model gains are 1 and biases 0, and
then norms that are exchanged, gains and biases that are lost all pass.
"""

import functools

import pytest
import torch

from llmref.attention.kv_cache import generate_greedy
from llmref.components.decoder import Decoder, decoder_parameters, load_transformers
from llmref.components.rope import llama3_inv_freq

TOPIC = "components/decoder"
V, C, L, H, G, D, F, T = 67, 32, 3, 4, 2, 12, 40, 11
# transformers computes norms and rotary angles in float32, whatever the dtype of the model.
FLOAT32_INSIDE = 1e-5
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
SIZES = {
    "vocab_size": V,
    "hidden_size": C,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "attn_implementation": "sdpa",
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}


def llama3(dim, base):
    return llama3_inv_freq(dim, base, 8.0, 1.0, 4.0, 8)


def rope(base, **options):
    return {"rope_type": "llama3" if options else "default", "rope_theta": base, **options}


# name: family, options of its configuration, options of ours
MODELS = {
    "Llama": (
        "Llama",
        {"head_dim": D, "rope_parameters": rope(500.0), "tie_word_embeddings": False},
        {"tied": False},
    ),
    "Llama, tied": (
        "Llama",
        {"head_dim": D, "rope_parameters": rope(1e4), "tie_word_embeddings": True},
        {"tied": True},
    ),
    "Llama 3.1 rotations": (
        "Llama",
        {"head_dim": D, "rope_parameters": rope(500.0, **LLAMA3), "tie_word_embeddings": False},
        {"tied": False, "rope_scaling": llama3},
    ),
    "Qwen3": (
        "Qwen3",
        {"head_dim": D, "rope_parameters": rope(1e3), "tie_word_embeddings": True},
        {"tied": True, "qk_norm": True},
    ),
    "Qwen2": (
        "Qwen2",
        {"rope_parameters": rope(1e3), "tie_word_embeddings": False},
        {"tied": False, "qkv_bias": True, "head_dim": C // H},
    ),
    "Mistral": (
        "Mistral",
        {"head_dim": D, "rope_parameters": rope(1e3), "sliding_window": 64}
        | {"tie_word_embeddings": False},
        {"tied": False},
    ),
}
of_all = pytest.mark.parametrize("name", MODELS)


@functools.cache
def theirs(name):
    """A model of transformers in float64, all of it redrawn."""
    import transformers

    family, options, _ = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**SIZES, **options, rms_norm_eps=1e-3)
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * C**-0.5 * 1.5 if parameter.ndim == 2 else 1 + 0.5 * drawn)
    return model.requires_grad_(False)


def empty(name, **changes):
    """A decoder of ours with the configuration of theirs."""
    config, options = theirs(name).config, MODELS[name][2]
    given = {
        "head_dim": D,
        "rope_base": config.rope_parameters["rope_theta"],
        "eps": config.rms_norm_eps,
        "max_len": 64,
    }
    return Decoder(V, C, L, H, G, F, **given | options | changes).double().requires_grad_(False)


def ours(name, state=None, **changes):
    made = empty(name, **changes)
    load_transformers(made, theirs(name).state_dict() if state is None else state)
    return made


def tokens(length=T, seed=0):
    return torch.randint(V, (2, length), generator=torch.Generator().manual_seed(seed))


@of_all
def test_logits_equal_those_of_transformers(agreement, name):
    wanted = theirs(name)(tokens()).logits
    assert 2 < wanted.abs().max() < 30
    agreement(
        f"logits, {name}",
        "transformers",
        ours(name)(tokens()),
        wanted,
        atol=FLOAT32_INSIDE,
        convention="float64, all weights redrawn; its norms and angles are float32",
    )


@of_all
def test_a_prompt_in_chunks_and_single_tokens_give_the_same_logits(agreement, name):
    wanted, model, cache = theirs(name)(tokens()).logits, ours(name), []
    parts = [model(part, cache) for part in tokens().split([5, 3, 1, 1, 1], 1)]
    agreement(
        "logits, prompt in chunks and then token by token",
        "transformers",
        torch.cat(parts, 1),
        wanted,
        atol=FLOAT32_INSIDE,
        convention="one pass of theirs against our cache, all six models",
    )


@of_all
def test_greedy_text_equals_generate(agreement, name):
    ids, model = tokens(5, seed=1), ours(name)
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
    options["attention_mask"] = torch.ones_like(ids)
    with torch.no_grad():
        wanted = theirs(name).generate(ids, use_cache=True, **options)
    assert len(wanted[0, 5:].unique()) > 3  # a text that repeats one token would tell little
    for use_cache in (True, False):
        agreement(
            "20 greedy tokens, with a cache and without",
            "transformers",
            generate_greedy(model, ids, 20, use_cache=use_cache),
            wanted,
            atol=0,
            convention="generate(do_sample=False), all six models",
        )


@pytest.mark.parametrize("name", ["Llama", "Llama, tied", "Qwen3", "Qwen2"])
def test_weights_of_a_saved_file(agreement, name, tmp_path):
    """What save_pretrained writes, read with safetensors: a tied head is not in it."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    theirs(name).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is not MODELS[name][2]["tied"]  # noqa: SIM118
    state = load_file(tmp_path / "model.safetensors")
    agreement(
        "logits with weights of a saved file",
        "transformers",
        ours(name, state)(tokens()),
        theirs(name)(tokens()).logits,
        atol=FLOAT32_INSIDE,
        convention="save_pretrained, model.safetensors; four models",
    )
    without_prefix = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    assert torch.equal(ours(name, without_prefix)(tokens()), ours(name, state)(tokens()))


def test_a_file_of_another_model_is_refused_and_changes_nothing(tmp_path):
    from safetensors.torch import load_file, save_file

    theirs("Llama").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gate = "model.layers.1.mlp.gate_proj.weight"
    other = {"unknown.weight": torch.ones(2)}
    cases = [
        ({name: it for name, it in state.items() if name != gate}, "gate_proj.weight is missing"),
        (state | other, "unknown.weight is no weight of this decoder"),
        (state | {gate: state[gate].T.contiguous()}, r"gate_proj.weight must be \(40, 32\)"),
    ]
    model = ours("Llama", state)
    before = model(tokens())
    for place, (broken, message) in enumerate(cases):
        save_file(broken, tmp_path / f"{place}.safetensors")
        with pytest.raises(ValueError, match=message):
            load_transformers(model, load_file(tmp_path / f"{place}.safetensors"))
        assert torch.equal(model(tokens()), before)
    with pytest.raises(ValueError, match="and the decoder is tied"):  # as in vllm#51665
        load_transformers(empty("Llama", tied=True), state)
    theirs("Qwen2").save_pretrained(tmp_path / "qwen2")
    qwen2 = load_file(tmp_path / "qwen2" / "model.safetensors")
    with pytest.raises(ValueError, match=r"k_proj\.bias is no weight of this decoder"):
        load_transformers(empty("Qwen2", qkv_bias=False), qwen2)


NORMS = "input_layernorm", "post_attention_layernorm"


def renamed(state, first, second):
    """The same with two names exchanged."""

    def other(key):
        swapped = {first: second, second: first}
        return next((key.replace(a, b) for a, b in swapped.items() if a in key), key)

    return {other(key): tensor for key, tensor in state.items()}


def wrong_logits(name):
    """Mistakes in which all shapes fit: what is wrong, and the logits."""
    state = theirs(name).state_dict()

    def ones(part):
        return {k: torch.ones_like(w) if part in k else w for k, w in state.items()}

    yield "norms exchanged", ours(name, renamed(state, *NORMS))(tokens())
    yield "gate and up exchanged", ours(name, renamed(state, "gate_proj", "up_proj"))(tokens())
    yield "gains lost", ours(name, ones("norm"))(tokens())
    yield "another base", ours(name, rope_base=20.0)(tokens())
    yield "another eps", ours(name, eps=0.3)(tokens())
    interleaved = ours(name)
    for layer in interleaved.layers:
        layer.self_attn.rope.layout = "interleaved"
    yield "interleaved layout", interleaved(tokens())
    without = ours(name)
    without.norm = torch.nn.Identity()
    yield "no final norm", without(tokens())
    if without.lm_head is not None:
        without = ours(name)
        without.lm_head = None
        yield "tied head", without(tokens())
    if name == "Qwen2":
        yield (
            "biases lost",
            ours(name, {k: w * ("bias" not in k) for k, w in state.items()})(tokens()),
        )
    if name == "Llama 3.1 rotations":
        yield "rotations not slowed", ours(name, rope_scaling=None)(tokens())
    if name == "Qwen3":
        late = ours(name)
        for layer in late.layers:
            rotate_first(layer.self_attn)
        yield "norms of q and k after the rotation", late(tokens())


def rotate_first(attention):
    """Norms of q and k after the rotation, done where the rotation was."""
    q_norm, k_norm, turn = attention.q_norm, attention.k_norm, attention.rope.forward
    attention.q_norm = attention.k_norm = None

    def forward(q, k, positions):
        q, k = turn(q, k, positions)
        return q_norm(q), k_norm(k)

    attention.rope.forward = forward


@of_all
def test_mistakes_in_which_all_shapes_fit_are_far_off(name):
    wanted = theirs(name)(tokens()).logits
    for mistake, logits in wrong_logits(name):
        assert (logits - wanted).abs().max() > 0.1, mistake


def fresh(name):
    """A model as transformers makes it: gains 1, biases 0."""
    import transformers

    family, options, _ = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **options, rms_norm_eps=1e-3)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    return model.double().eval().requires_grad_(False)


def test_a_fresh_model_hides_mistakes():
    """Norms exchanged, norms of q and k after the rotation, and biases lost all pass."""
    qwen3, qwen2 = fresh("Qwen3"), fresh("Qwen2")
    late = ours("Qwen3", qwen3.state_dict())
    for layer in late.layers:
        rotate_first(layer.self_attn)
    exchanged = ours("Qwen3", renamed(qwen3.state_dict(), *NORMS))
    state = {key: w for key, w in qwen2.state_dict().items() if "bias" not in key}
    without = ours("Qwen2", state, qkv_bias=False)
    for model, wanted in ((late, qwen3), (exchanged, qwen3), (without, qwen2)):
        assert (model(tokens()) - wanted(tokens()).logits).abs().max() < FLOAT32_INSIDE


@pytest.mark.parametrize(
    ("name", "family", "sizes", "options", "count"),
    [
        ("Llama-2-7B", "Llama", (32000, 4096, 32, 32, 32, 128, 11008), {"tied": False}, 6738415616),
        ("Llama-3-8B", "Llama", (128256, 4096, 32, 32, 8, 128, 14336), {"tied": False}, 8030261248),
        ("Llama-3.2-1B", "Llama", (128256, 2048, 16, 32, 8, 64, 8192), {"tied": True}, 1235814400),
        (
            "Qwen3-0.6B",
            "Qwen3",
            (151936, 1024, 28, 16, 8, 128, 3072),
            {"tied": True, "qk_norm": True},
            596049920,
        ),
        (
            "Qwen2-0.5B",
            "Qwen2",
            (151936, 896, 24, 14, 2, 64, 4864),
            {"tied": True, "qkv_bias": True},
            494032768,
        ),
    ],
)
def test_parameters_equal_those_on_the_meta_device(agreement, name, family, sizes, options, count):
    import transformers

    vocab, width, layers, heads, kv_heads, head_dim, hidden = sizes
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=hidden,
        tie_word_embeddings=options["tied"],
        **({} if family == "Qwen2" else {"head_dim": head_dim}),
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == count
    agreement(
        "parameters",
        "transformers",
        torch.tensor(decoder_parameters(*sizes, **options)),
        torch.tensor(found),
        atol=0,
        convention="meta device: Llama-2-7B, Llama-3-8B, Llama-3.2-1B, Qwen3-0.6B, Qwen2-0.5B",
    )


def test_attention_bias_of_llama_is_on_the_output_too():
    """So it is not qkv_bias: its count has L C more."""
    import transformers

    _, options, _ = MODELS["Llama"]
    config = transformers.LlamaConfig(**SIZES, **options, attention_bias=True)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == decoder_parameters(V, C, L, H, G, D, F, tied=False, qkv_bias=True) + L * C
