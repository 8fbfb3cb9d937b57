"""A decoder: numbers by hand, a slow loop, its cache, weights by name, parameters, and errors."""

import math

import pytest
import torch

from llmref.attention.kv_cache import KVCache, SlidingWindowKVCache, generate_greedy
from llmref.components.decoder import (
    Decoder,
    DecoderBlock,
    decoder_parameters,
    load_transformers,
    residual_init_std,
)
from llmref.components.rope import llama3_inv_freq
from tests.tensors import close, f64, random

V, C, L, H, G, D, F, T = 11, 6, 2, 4, 2, 4, 5, 7
F64 = torch.float64
KINDS = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "qwen3": {"tied": True, "qk_norm": True},
    "qwen2": {"tied": False, "qkv_bias": True},
    "all": {"tied": False, "qk_norm": True, "qkv_bias": True},
}
of_all = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def make(*, seed=0, dtype=F64, **options):
    """A decoder with everything drawn, gains and biases included."""
    given = {"tied": False, "rope_base": 100.0, "eps": 1e-3, "head_dim": D, "max_len": 20}
    made = Decoder(V, C, L, H, G, F, **given | options)
    for place, parameter in enumerate(made.parameters()):
        parameter.data = 0.5 * random(*parameter.shape, seed=seed + place).to(dtype)
        if parameter.ndim == 1:
            parameter.data += 1
    return made.requires_grad_(False)


def tokens(B=2, length=T, seed=0):
    return torch.randint(V, (B, length), generator=torch.Generator().manual_seed(seed))


def dot(row, matrix):
    return [sum(x * w for x, w in zip(row, line, strict=True)) for line in matrix.tolist()]


def normed(row, norm):
    r = math.sqrt(sum(x * x for x in row) / len(row) + norm.eps)
    return [g * x / r for g, x in zip(norm.weight.tolist(), row, strict=True)]


def turned(head, position):
    half = len(head) // 2
    out = list(head)
    for i in range(half):
        angle = position * 100.0 ** (-2 * i / len(head))
        a, b = head[i], head[i + half]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + half] = a * math.sin(angle) + b * math.cos(angle)
    return out


def by_loops(model, ids):
    """One text, token by token and head by head, in numbers alone."""
    rows = model.embed_tokens.weight.tolist()
    stream = [list(rows[i]) for i in ids.tolist()]
    for layer in model.layers:
        attention = layer.self_attn

        def heads(name, row, attention=attention):
            linear = getattr(attention, f"{name}_proj")
            flat = dot(row, linear.weight)
            if linear.bias is not None:
                flat = [x + b for x, b in zip(flat, linear.bias.tolist(), strict=True)]
            return [flat[start : start + D] for start in range(0, len(flat), D)]

        keys, values = [], []
        for place, h in enumerate(stream):
            x = normed(h, layer.input_layernorm)
            query, key = heads("q", x), heads("k", x)
            if attention.q_norm is not None:
                query = [normed(q, attention.q_norm) for q in query]
                key = [normed(k, attention.k_norm) for k in key]
            query = [turned(q, place) for q in query]
            keys.append([turned(k, place) for k in key])
            values.append(heads("v", x))
            read = []
            for head, q in enumerate(query):
                group = head * G // H
                scores = [sum(map(lambda a, b: a * b, q, k[group])) / D**0.5 for k in keys]
                weights = [math.exp(s - max(scores)) for s in scores]
                read += [
                    sum(w * v[group][d] for w, v in zip(weights, values, strict=True))
                    / sum(weights)
                    for d in range(D)
                ]
            h = [a + b for a, b in zip(h, dot(read, attention.o_proj.weight), strict=True)]
            x = normed(h, layer.post_attention_layernorm)
            gate, up = dot(x, layer.mlp.gate_proj.weight), dot(x, layer.mlp.up_proj.weight)
            inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
            added = dot(inner, layer.mlp.down_proj.weight)
            stream[place] = [a + b for a, b in zip(h, added, strict=True)]
    head = (model.lm_head or model.embed_tokens).weight
    return f64(*(dot(normed(h, model.norm), head) for h in stream))


# What it computes


def test_silent_branches_leave_the_head_of_the_normed_embedding():
    """Embedding (3, 4), its rms sqrt(12.5), eps 0: logits (3, 4, 7) / sqrt(12.5)."""
    model = Decoder(2, 2, 1, 1, 1, 3, rope_base=10.0, eps=0.0, tied=False, max_len=4).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    for norm in (model.norm, model.layers[0].input_layernorm):
        norm.weight.data.fill_(1)
    model.embed_tokens.weight.data[1] = f64(3, 4)
    model.lm_head.weight.data = f64([1, 0], [0, 1])
    close(model(torch.tensor([[1]])), f64([[3, 4]]) / 12.5**0.5)


@of_all
def test_definition_as_a_loop(options):
    model, ids = make(**options), tokens(1)
    close(model(ids)[0], by_loops(model, ids[0]))


def test_a_block_is_two_steps_of_the_stream():
    block, h = make().layers[0], random(2, T, C)
    half = h + block.self_attn(block.input_layernorm(h))
    close(block(h), half + block.mlp(block.post_attention_layernorm(half)))


def test_scaled_rotations_are_those_of_the_callable():
    def scaling(dim, base):
        return llama3_inv_freq(dim, base, 8.0, 1.0, 4.0, 16)

    model, ids = make(rope_scaling=scaling), tokens()
    assert model.layers[1].self_attn.rope.scaling is scaling
    assert (model(ids) - make()(ids)).abs().max() > 1e-3


def test_a_tied_decoder_has_no_head_of_its_own():
    tied, untied = make(tied=True), make()
    assert tied.lm_head is None
    assert "lm_head.weight" not in tied.state_dict()
    untied.load_state_dict(tied.state_dict() | {"lm_head.weight": tied.embed_tokens.weight})
    assert torch.equal(tied(tokens()), untied(tokens()))


@of_all
def test_a_later_token_changes_no_earlier_logit(options):
    model, ids = make(**options), tokens()
    changed = ids.clone()
    changed[:, 4] = (ids[:, 4] + 1) % V
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(-1).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_ids_of_any_integer_dtype(dtype):
    model, ids = make(), tokens()
    assert torch.equal(model(ids.to(dtype)), model(ids))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_lower_precision(dtype, atol):
    model, ids = make(qk_norm=True), tokens()
    low = make(qk_norm=True).to(dtype)
    cache: list[KVCache] = []
    logits = torch.cat([low(part, cache) for part in ids.split([4, 3], 1)], 1)
    assert logits.dtype == dtype
    close(logits.double(), model(ids), atol=atol)


def test_gradients_reach_every_weight():
    model = make(qk_norm=True, qkv_bias=True).requires_grad_()
    model(tokens()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradient():
    model = make(qk_norm=True, qkv_bias=True)
    ids = tokens(1, 2)
    names = ("layers.1.self_attn.q_norm.weight", "norm.weight")
    weights = [dict(model.named_parameters())[name].clone().requires_grad_() for name in names]

    def logits(*given):
        return torch.func.functional_call(model, dict(zip(names, given, strict=True)), (ids,))

    assert torch.autograd.gradcheck(logits, weights)


# The cache


@of_all
@pytest.mark.parametrize("sizes", [[1] * T, [3, 1, 3], [T]])
def test_chunks_give_what_one_pass_gives(options, sizes):
    model, ids = make(**options), tokens()
    cache: list[KVCache] = []
    parts = [model(part, cache) for part in ids.split(sizes, 1)]
    assert len(cache) == L
    assert [held.length for held in cache] == [T] * L
    close(torch.cat(parts, 1), model(ids))


@of_all
def test_greedy_text_is_the_same_with_a_cache(options):
    model, ids = make(**options), tokens(2, 3)
    with_cache = generate_greedy(model, ids, 9)
    assert torch.equal(with_cache, generate_greedy(model, ids, 9, use_cache=False))


def test_max_len_binds_with_a_cache_only():
    model, ids = make(max_len=5), tokens()
    assert model(ids).shape == (2, T, V)
    cache: list[KVCache] = []
    with pytest.raises(ValueError, match="the cache holds 0 of 5 positions: 7 more do not fit"):
        model(ids, cache)
    assert cache == []
    model(ids[:, :4], cache)
    before = [held._key.clone() for held in cache]
    with pytest.raises(ValueError, match="the cache holds 4 of 5 positions: 3 more do not fit"):
        model(ids[:, 4:], cache)
    assert [held.length for held in cache] == [4, 4]
    assert all(torch.equal(held._key, key) for held, key in zip(cache, before, strict=True))


def test_a_layer_that_raises_takes_back_what_others_wrote():
    model, ids = make(), tokens()
    full = model(ids)
    cache: list[KVCache] = []
    gate = model.layers[1].mlp.gate_proj.weight
    kept = gate.clone()
    for start, lengths in ((0, []), (4, [4, 4])):
        gate.fill_(math.nan)
        with pytest.raises(ValueError, match="h must be finite, got nan"):
            model(ids[:, start:], cache)
        assert [held.length for held in cache] == lengths
        gate.copy_(kept)
        part = model(ids[:, start : start + 4], cache)
        close(part, full[:, start : start + 4])


def test_other_caches_are_refused():
    model, ids = make(), tokens()
    held = [KVCache(2, G, 9, D, dtype=F64) for _ in range(3)]
    with pytest.raises(
        ValueError, match=r"empty or hold 2 layers of one length, got .*\[0, 0, 0\]"
    ):
        model(ids, held)
    model.layers[0](random(2, 1, C), held[0])
    with pytest.raises(ValueError, match=r"of one length, got lengths \[1, 0\]"):
        model(ids, held[:2])
    with pytest.raises(TypeError, match="cache must hold a KVCache for each layer, got .*Sliding"):
        model(ids, [SlidingWindowKVCache(2, G, 3, D), SlidingWindowKVCache(2, G, 3, D)])
    other: list[KVCache] = []
    model(ids, other)
    with pytest.raises(ValueError, match=r"key must be \(B, G, t, D\)"):
        model(ids[:1], other)  # kept from a batch of two
    assert [cache.length for cache in other] == [T, T]


# Weights by name


def named(model, prefix="model.", **changes):
    state = {
        (name if name.startswith("lm_head") else prefix + name): tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    return state | changes


@of_all
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_weights_are_copied_by_name(options, prefix):
    given, model = make(**options), make(seed=50, **options)
    load_transformers(model, named(given, prefix))
    assert torch.equal(model(tokens()), given(tokens()))


def test_a_state_made_of_the_own_tensors_is_copied_first():
    """The two norms exchanged: without copies the second would get what it gave away."""
    model = make()
    state = model.state_dict()
    first, second = (
        f"layers.0.{n}.weight" for n in ("input_layernorm", "post_attention_layernorm")
    )
    one, other = state[first].clone(), state[second].clone()
    load_transformers(model, state | {first: state[second], second: state[first]})
    assert torch.equal(model.state_dict()[first], other)
    assert torch.equal(model.state_dict()[second], one)


def test_weights_are_cast_to_the_decoder():
    given, model = make(), make(seed=50, dtype=torch.float32)
    load_transformers(model, named(given))
    assert model.norm.weight.dtype == torch.float32
    assert torch.equal(model.norm.weight, given.norm.weight.float())


def test_a_tied_head_may_stand_in_the_state_if_it_is_the_embedding():
    tied = make(tied=True)
    head = tied.embed_tokens.weight.clone()
    load_transformers(tied, named(tied) | {"lm_head.weight": head})
    head[0, 0] += 1e-12
    with pytest.raises(ValueError, match=r"lm_head\.weight differs .* and the decoder is tied"):
        load_transformers(tied, named(tied) | {"lm_head.weight": head})


def refusals():
    gate, norm = "model.layers.1.mlp.gate_proj.weight", "model.norm.weight"
    whole = named(make(seed=50))
    without = {name: tensor for name, tensor in whole.items() if name != gate}
    no_head = {name: tensor for name, tensor in whole.items() if "lm_head" not in name}
    inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq"
    big = torch.full((C,), 1e300, dtype=F64)
    return {
        "missing": (without, ValueError, r"layers\.1\.mlp\.gate_proj\.weight is missing$"),
        "missing head": (no_head, ValueError, r"lm_head\.weight is missing: .* tied decoder"),
        "unknown": (whole | {inv_freq: f64(1)}, ValueError, r"inv_freq is no weight of this"),
        "misshapen": (
            whole | {gate: random(C, F)},
            ValueError,
            r"gate_proj\.weight must be \(5, 6\), got \(6, 5\)",
        ),
        "twice": (whole | {"norm.weight": random(C)}, ValueError, r"norm\.weight is given twice"),
        "integers": (
            whole | {gate: torch.ones(F, C).to(torch.int8)},
            TypeError,
            r"gate_proj\.weight must be floating point, got torch\.int8",
        ),
        "no tensor": (whole | {gate: [1.0]}, TypeError, r"gate_proj\.weight must be a tensor"),
        "too large": (
            whole | {norm: big},
            ValueError,
            r"norm\.weight must be finite in torch\.float32",
        ),
        "meta": (whole | {norm: big.to("meta")}, ValueError, r"norm\.weight is on the meta device"),
    }


@pytest.mark.parametrize(("state", "error", "message"), refusals().values(), ids=refusals())
def test_what_does_not_fit_is_named_and_changes_nothing(state, error, message):
    model = make(dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        load_transformers(model, state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_biases_and_norms_of_q_and_k_are_not_lost():
    plain, full = make(), make(qk_norm=True, qkv_bias=True)
    with pytest.raises(ValueError, match=r"self_attn\.q_proj\.bias is missing"):
        load_transformers(full, named(plain))
    with pytest.raises(ValueError, match=r"self_attn\..* is no weight of this decoder"):
        load_transformers(plain, named(full))


# Sizes and spreads


@of_all
def test_parameters_are_those_of_the_module(options):
    count = sum(parameter.numel() for parameter in make(**options).parameters())
    assert decoder_parameters(V, C, L, H, G, D, F, **options) == count


def test_parameters_by_hand():
    """V C = 40; layer: 2 4 3 2 = 48, 3 4 3 = 36, two gains 8; last gain 4: 136, untied 176."""
    assert decoder_parameters(10, 4, 1, 2, 1, 2, 3, tied=True) == 136
    assert decoder_parameters(10, 4, 1, 2, 1, 2, 3, tied=False) == 176
    assert decoder_parameters(10, 4, 1, 2, 1, 2, 3, tied=True, qk_norm=True, qkv_bias=True) == 148


def test_llama_3_8b_has_8_billion():
    assert decoder_parameters(128256, 4096, 32, 32, 8, 128, 14336, tied=False) == 8_030_261_248


def test_residual_std_by_hand():
    """0.02 / sqrt(16) = 0.005."""
    assert residual_init_std(0.02, 8) == pytest.approx(0.005, rel=1e-15)


def test_a_tied_decoder_with_the_default_embedding_starts_at_a_loss_of_about_its_width():
    """N(0, 1) rows and small branches: its own row has the logit C, all others some root of C."""
    torch.manual_seed(0)
    sizes = {"rope_base": 100.0, "eps": 1e-6, "max_len": 1}
    model = Decoder(500, 64, 2, 2, 2, 8, tied=True, **sizes)
    for layer in model.layers:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight.data *= 0.1
    ids = torch.randint(500, (4, 20))
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert 0.8 * 64 < loss < 1.2 * 64


# Errors


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (tokens().double(), TypeError, "ids must hold integers, got torch.float64"),
        (tokens() > 3, TypeError, "ids must hold integers, got torch.bool"),
        (torch.tensor([[V]]), ValueError, r"ids holds the id 11, outside \[0, 11\)"),
        (torch.tensor([[-1]]), ValueError, r"ids holds the id -1, outside \[0, 11\)"),
        (tokens()[:, :0], ValueError, r"ids must be \(B, T\) with T >= 1, got \(2, 0\)"),
        (tokens()[0], ValueError, r"ids must be \(B, T\), got \(7,\)"),
    ],
)
def test_wrong_ids_are_refused_before_anything_is_cached(ids, error, message):
    cache: list[KVCache] = []
    with pytest.raises(error, match=message):
        make()(ids, cache)
    assert cache == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"eps": -1e-6}, ValueError, "eps must be at least 0 and finite, got -1e-06"),
        ({"eps": None}, TypeError, "eps must be a number, got None"),
        ({"rope_base": 0.0}, ValueError, "base must be positive and finite, got 0.0"),
        ({"max_len": 0}, ValueError, "max_len must be at least 1, got 0"),
        ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
        ({"vocab_size": 2.0}, TypeError, "vocab_size must be an int, got 2.0"),
        ({"hidden_dim": 0}, ValueError, "hidden_dim must be at least 1, got 0"),
        ({"num_kv_heads": 3}, ValueError, "num_kv_heads 3 must divide num_heads 4"),
        ({"head_dim": 3}, ValueError, "head_dim must be even"),
    ],
)
def test_wrong_sizes_are_named(changes, error, message):
    sizes = {"vocab_size": V, "dim": C, "num_layers": L, "num_heads": H, "num_kv_heads": G}
    sizes |= {"hidden_dim": F, "head_dim": D, "rope_base": 100.0, "eps": 1e-3}
    with pytest.raises(error, match=message):
        Decoder(**sizes | {"tied": True, "max_len": 4} | changes)


def test_a_block_has_biases_and_norms_of_heads_only_if_asked():
    block = DecoderBlock(C, H, G, F, head_dim=D, rope_base=10.0, eps=1e-3)
    assert sum(p.numel() for p in block.parameters()) == 2 * C * D * (H + G) + 3 * C * F + 2 * C


def test_a_block_needs_an_eps():
    with pytest.raises(ValueError, match="eps must be at least 0 and finite, got nan"):
        DecoderBlock(C, H, G, F, head_dim=D, rope_base=10.0, eps=math.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: residual_init_std(0.0, 2), ValueError, "std must be positive and finite, got 0.0"),
        (lambda: residual_init_std(0.02, 0), ValueError, "num_layers must be at least 1, got 0"),
        (lambda: residual_init_std(0.02, 1.5), TypeError, "num_layers must be an int, got 1.5"),
        (
            lambda: decoder_parameters(0, 4, 1, 2, 1, 2, 3, tied=True),
            ValueError,
            "vocab_size must be at least 1, got 0",
        ),
        (
            lambda: decoder_parameters(10, 4, 0, 2, 1, 2, 3, tied=True),
            ValueError,
            "num_layers must be at least 1, got 0",
        ),
        (
            lambda: decoder_parameters(10, 4, 1, 2, 1, 0, 3, tied=True),
            ValueError,
            "head_dim must be at least 1, got 0",
        ),
        (
            lambda: decoder_parameters(10, 4, 1, 4, 3, 2, 3, tied=True),
            ValueError,
            "num_kv_heads 3 must divide num_heads 4",
        ),
        (
            lambda: decoder_parameters(10, 4, 1, 2, 1, 2, 0, tied=True),
            ValueError,
            "hidden must be at least 1, got 0",
        ),
    ],
)
def test_wrong_numbers_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_cache_for_two_layers_is_refused():
    model, ids = make(), tokens()
    held = KVCache(2, G, 20, D, dtype=F64)
    with pytest.raises(ValueError, match="cache holds one KVCache twice: each layer needs its own"):
        model(ids, [held] * L)
    assert held.length == 0
    with pytest.raises(TypeError, match="cache must be a list, got .*tuple"):
        model(ids, ())


def test_an_interrupt_takes_back_what_was_written():
    model, ids, cache = make(), tokens(), []
    model(ids[:, :2], cache)

    def stop(*_):
        raise KeyboardInterrupt

    hook = model.layers[1].mlp.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model(ids[:, 2:], cache)
    hook.remove()
    assert [held.length for held in cache] == [2] * L
    close(model(ids[:, 2:], cache), model(ids)[:, 2:])


def test_in_16_bits_every_norm_rounds_before_its_gain():
    """(3, 5) / sqrt(17) rounds to bfloat16, is multiplied by its gain, and rounds again."""
    model = make(qk_norm=True).bfloat16()
    norms = {n: m for n, m in model.named_modules() if n.endswith("norm")}
    assert len(norms) == 4 * L + 1
    for name, norm in norms.items():
        x = random(200, *norm.weight.shape).bfloat16()
        wide = x.float()
        unit = (wide * (wide.square().mean(-1, keepdim=True) + 1e-3).rsqrt()).bfloat16()
        assert torch.equal(norm(x), norm.weight * unit), name


def test_a_decoder_without_numbers_is_refused():
    with torch.device("meta"):
        empty = Decoder(V, C, L, H, G, F, head_dim=D, rope_base=1.0, eps=0.0, tied=True, max_len=1)
    with pytest.raises(ValueError, match="embed_tokens.weight is on the meta device"):
        load_transformers(empty, make(tied=True).state_dict())


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (random(V, C).to("meta"), ValueError, r"lm_head\.weight is on the meta device"),
        ([1.0], TypeError, r"lm_head\.weight must be a tensor"),
        (random(V + 1, C), ValueError, r"lm_head\.weight must be \(11, 6\), got \(12, 6\)"),
    ],
)
def test_a_tied_head_is_checked_like_any_weight(wrong, error, message):
    tied = make(tied=True)
    with pytest.raises(error, match=message):
        load_transformers(tied, named(tied) | {"lm_head.weight": wrong})


def test_a_name_with_the_prefix_twice_is_unknown():
    model = make()
    with pytest.raises(ValueError, match=r"model\.norm\.weight is no weight"):
        load_transformers(model, named(model) | {"model.model.norm.weight": model.norm.weight})
