"""Memory and FLOPs: numbers by hand, counts as loops, laws over random decoders, and errors."""

from fractions import Fraction
from math import isclose, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.components import decoder
from llmref.training.memory_and_flops import (
    DecoderShape,
    checkpoint_units,
    decoder_activation_elements,
    decoder_flops_per_token,
    decoder_parameters,
    model_flops_utilization,
    training_seconds,
    zero_bytes,
    zero_traffic,
)

TINY = DecoderShape(1, 2, 1, 1, 2, 3, 5, tied=False)
LLAMA_2_7B = DecoderShape(32, 4096, 32, 32, 128, 11008, 32000, tied=False)
LLAMA_3_8B = DecoderShape(32, 4096, 32, 8, 128, 14336, 128256, tied=False)
LLAMA_3_2_1B = DecoderShape(16, 2048, 32, 8, 64, 8192, 128256, tied=True)
ADAM = {"weight_bytes": 2, "grad_bytes": 2, "optimizer_bytes": 12}

law = settings(deadline=None, max_examples=60)
size = st.integers(1, 9)


@st.composite
def decoders(draw):
    layers, width, groups, shared, head, hidden, words = (draw(size) for _ in range(7))
    return DecoderShape(
        layers, width, groups * shared, groups, head, hidden, words, draw(st.booleans())
    )


def matrices(shape):
    """Shapes of the matrices that a token is multiplied by, one after the other."""
    _, C, H, G, D, F, V, _ = shape
    layer = [(H * D, C), (G * D, C), (G * D, C), (C, H * D), (F, C), (F, C), (C, F)]
    return [*(shape.layers * layer), (V, C)]


def test_parameters_of_a_tiny_decoder():
    """Attention 4 * 2 * 2, MLP 3 * 2 * 3, norms 3 * 2, tables 5 * 2 each: 16 + 18 + 6 + 20."""
    assert decoder_parameters(TINY) == {
        "embedding": 10,
        "attention": 16,
        "mlp": 18,
        "norms": 6,
        "head": 10,
        "total": 60,
        "matmul": 44,
    }


@pytest.mark.parametrize(
    ("shape", "published"),
    [(LLAMA_2_7B, 6738415616), (LLAMA_3_8B, 8030261248), (LLAMA_3_2_1B, 1235814400)],
)
def test_parameters_of_released_models(shape, published):
    assert decoder_parameters(shape)["total"] == published


@law
@given(decoders())
def test_parameters_are_entries_of_matrices_tables_and_norms(shape):
    parts = decoder_parameters(shape)
    assert parts["matmul"] == sum(map(prod, matrices(shape)))
    norms = (2 * shape.layers + 1) * shape.embed_dim
    embedding = shape.vocab_size * shape.embed_dim
    without_tied_head = parts["matmul"] - shape.tied * embedding
    assert parts["total"] == without_tied_head + norms + embedding


@law
@given(decoders())
def test_tying_saves_parameters_and_no_operations(shape):
    tied, free = shape._replace(tied=True), shape._replace(tied=False)
    saved = decoder_parameters(free)["total"] - decoder_parameters(tied)["total"]
    assert saved == shape.vocab_size * shape.embed_dim
    assert decoder_parameters(tied)["head"] == 0
    options = {"context": 3, "causal": True, "backward": True}
    assert decoder_flops_per_token(tied, **options) == decoder_flops_per_token(free, **options)


def test_operations_of_a_tiny_decoder():
    """2 * 44 for the matrices; at T = 3 a query has 2 keys on average: 4 * 2 * 2 = 16."""
    assert decoder_flops_per_token(TINY, context=3, causal=True, backward=False) == 104
    assert decoder_flops_per_token(TINY, context=3, causal=False, backward=False) == 112
    assert decoder_flops_per_token(TINY, context=3, causal=True, backward=True) == 312


@law
@given(decoders(), st.integers(1, 12), st.booleans())
def test_operations_are_a_loop_over_positions_and_matrices(shape, context, causal):
    total = 0
    for position in range(1, context + 1):
        total += sum(2 * prod(it) for it in matrices(shape))
        keys = position if causal else context
        total += shape.layers * shape.num_heads * 2 * (2 * shape.head_dim * keys)
    found = decoder_flops_per_token(shape, context=context, causal=causal, backward=False)
    assert Fraction(found) == Fraction(total, context)
    both = decoder_flops_per_token(shape, context=context, causal=causal, backward=True)
    assert both == 3 * found


@law
@given(decoders())
def test_a_single_token_has_one_key_either_way(shape):
    options = {"context": 1, "backward": True}
    assert decoder_flops_per_token(shape, causal=True, **options) == decoder_flops_per_token(
        shape, causal=False, **options
    )


@pytest.mark.parametrize(
    ("stage", "gigabytes"), [(0, 120.0), (1, 31.40625), (2, 16.640625), (3, 1.875)]
)
def test_zero_bytes_of_the_paper(stage, gigabytes):
    """7.5e9 parameters on 64 ranks; stage 1: 7.5 * (2 + 2 + 12 / 64) = 31.40625."""
    assert zero_bytes(7_500_000_000, ranks=64, stage=stage, **ADAM) == gigabytes * 1e9


@law
@given(st.integers(1, 1000), st.integers(1, 9), st.tuples(*[st.integers(0, 8)] * 3))
def test_each_stage_divides_one_part_more(params, ranks, parts):
    w, g, o = parts
    sizes = {"weight_bytes": w, "grad_bytes": g, "optimizer_bytes": o}
    for stage, divided in enumerate([0, o, g + o, w + g + o]):
        expected = params * (w + g + o - divided + divided / ranks)
        assert isclose(zero_bytes(params, ranks=ranks, stage=stage, **sizes), expected)


def test_one_rank_holds_everything_and_sends_nothing():
    for stage in range(4):
        assert zero_bytes(10, ranks=1, stage=stage, **ADAM) == 160
        assert zero_traffic(10, ranks=1, stage=stage, micro_batches=3) == 0


def test_traffic_by_hand():
    """8 parameters on 4 ranks: a collective sends 6 of them; K = 3: 2, 2, 4 and 9 collectives."""
    found = [zero_traffic(8, ranks=4, stage=s, micro_batches=3) for s in range(4)]
    assert found == [12, 12, 24, 54]
    assert zero_traffic(8, ranks=4, stage=3, micro_batches=1) == 1.5 * found[0]


def test_activations_of_a_tiny_layer():
    """4 * 2 + 2 * 2 + 2 * 2 + 4 * 3 = 28 for each of 7 tokens."""
    assert decoder_activation_elements(TINY, tokens=7) == 196


def test_activations_of_llama_in_widths():
    for shape, widths in ((LLAMA_2_7B, 18.75), (LLAMA_3_8B, 20.5)):
        assert decoder_activation_elements(shape, tokens=1) == widths * shape.embed_dim


@law
@given(decoders())
def test_activations_are_the_tensors_of_one_layer(shape):
    _, C, H, G, D, F, _, _ = shape
    names = {"norm inputs": 2 * C, "norm outputs": 2 * C, "q": H * D, "k": G * D, "v": G * D}
    names |= {"attention": H * D, "gate": F, "silu": F, "up": F, "product": F}
    assert decoder_activation_elements(shape, tokens=3) == 3 * sum(names.values())


def simulated(layers, segment, units):
    """The peak of a list of what is held: inputs first, then one segment after the other."""
    held, most = layers // segment, 0.0
    while held:
        most = max(most, held + segment * units - 1)
        held -= 1
    return most


@pytest.mark.parametrize("units", [1, 2.5, 19])
def test_checkpoints_as_a_loop(units):
    for layers in (1, 12, 16):
        for segment in (k for k in range(1, layers + 1) if layers % k == 0):
            found = checkpoint_units(layers, segment=segment, units_per_layer=units)
            assert found == simulated(layers, segment, units)


def test_checkpoints_by_hand():
    """32 inputs and one layer of 18.75 units, whose input is one of them."""
    assert checkpoint_units(32, segment=1, units_per_layer=18.75) == 49.75
    assert checkpoint_units(32, segment=32, units_per_layer=18.75) == 600


@law
@given(st.integers(1, 40), st.integers(1, 30))
def test_every_layer_is_best_up_to_two_a_layers(layers, units):
    divisors = [k for k in range(1, layers + 1) if layers % k == 0]
    peaks = {k: checkpoint_units(layers, segment=k, units_per_layer=units) for k in divisors}
    if layers <= 2 * units:
        assert min(peaks.values()) == peaks[1]
    assert min(peaks.values()) >= 2 * (layers * units) ** 0.5 - 1 - 1e-9


def test_utilization_by_hand():
    """100 tokens/s of 30 operations are 3000 of 12000."""
    given = {"tokens_per_second": 100, "flops_per_token": 30}
    assert model_flops_utilization(**given, peak_flops=12000) == 0.25
    assert model_flops_utilization(**given, peak_flops=3000) == 1


def test_time_by_hand():
    """1000 tokens of 30 operations at a quarter of 12000 per second: 10 s."""
    assert training_seconds(1000, flops_per_token=30, mfu=0.25, peak_flops=12000) == 10


@given(*[st.floats(1, 1e15)] * 3, st.floats(0.01, 1))
@law
def test_time_and_utilization_say_the_same(tokens, flops, peak, mfu):
    seconds = training_seconds(tokens, flops_per_token=flops, mfu=mfu, peak_flops=peak)
    back = min(1.0, tokens / seconds * flops / peak)
    assert isclose(back, mfu, rel_tol=1e-12)


@pytest.mark.parametrize("field", DecoderShape._fields[:-1])
def test_sizes_are_ints_of_one_at_least(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        decoder_parameters(TINY._replace(**{field: 0}))
    with pytest.raises(TypeError, match=rf"{field} must be an int, got 2\.0"):
        decoder_activation_elements(TINY._replace(**{field: 2.0}), tokens=1)


def traffic(**changed):
    return zero_traffic(**{"params": 8, "ranks": 4, "stage": 1, "micro_batches": 1} | changed)


def held(**changed):
    return zero_bytes(**{"params": 8, "ranks": 4, "stage": 1, **ADAM} | changed)


def utilization(**changed):
    given = {"tokens_per_second": 1.0, "flops_per_token": 2.0, "peak_flops": 4.0}
    return model_flops_utilization(**given | changed)


def time(**changed):
    given = {"tokens": 1.0, "flops_per_token": 2.0, "mfu": 0.5, "peak_flops": 4.0}
    return training_seconds(**given | changed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: decoder_parameters(TINY._replace(num_heads=3, num_kv_heads=2)),
            ValueError,
            "num_heads must be a multiple of num_kv_heads, got 3 and 2",
        ),
        (
            lambda: decoder_parameters(TINY._replace(tied=1)),
            TypeError,
            "tied must be True or False, got 1",
        ),
        (
            lambda: decoder_flops_per_token(TINY, context=0, causal=True, backward=True),
            ValueError,
            "context must be at least 1, got 0",
        ),
        (
            lambda: decoder_activation_elements(TINY, tokens=0),
            ValueError,
            "tokens must be at least 1, got 0",
        ),
        (lambda: held(params=0), ValueError, "params must be at least 1, got 0"),
        (lambda: held(ranks=0), ValueError, "ranks must be at least 1, got 0"),
        (lambda: held(stage=4), ValueError, "stage must be 0, 1, 2 or 3, got 4"),
        (lambda: held(stage=-1), ValueError, "stage must be at least 0, got -1"),
        (lambda: held(grad_bytes=-2), ValueError, "grad_bytes must be at least 0, got -2"),
        (
            lambda: held(weight_bytes=float("nan")),
            ValueError,
            "weight_bytes must be at least 0 and finite, got nan",
        ),
        (
            lambda: held(optimizer_bytes=float("inf")),
            ValueError,
            "optimizer_bytes must be at least 0 and finite, got inf",
        ),
        (lambda: traffic(params=0), ValueError, "params must be at least 1, got 0"),
        (lambda: traffic(ranks=0), ValueError, "ranks must be at least 1, got 0"),
        (lambda: traffic(micro_batches=0), ValueError, "micro_batches must be at least 1, got 0"),
        (lambda: traffic(stage=4), ValueError, "stage must be 0, 1, 2 or 3, got 4"),
        (
            lambda: checkpoint_units(12, segment=5, units_per_layer=2),
            ValueError,
            "segment must divide layers, got 5 and 12 layers",
        ),
        (
            lambda: checkpoint_units(12, segment=0, units_per_layer=2),
            ValueError,
            "segment must be at least 1, got 0",
        ),
        (
            lambda: checkpoint_units(0, segment=1, units_per_layer=2),
            ValueError,
            "layers must be at least 1, got 0",
        ),
        (
            lambda: checkpoint_units(12, segment=3, units_per_layer=0.5),
            ValueError,
            r"units_per_layer must be at least 1 and finite, got 0\.5",
        ),
        (
            lambda: utilization(peak_flops=1.0),
            ValueError,
            r"mfu must be in \(0, 1\], got 2\.0: another peak, or operations that were not done",
        ),
        (
            lambda: utilization(peak_flops=0.0),
            ValueError,
            r"peak_flops must be positive and finite, got 0\.0",
        ),
        (
            lambda: utilization(tokens_per_second=-1.0),
            ValueError,
            r"tokens_per_second must be positive and finite, got -1\.0",
        ),
        (
            lambda: utilization(flops_per_token=0),
            ValueError,
            "flops_per_token must be positive and finite, got 0",
        ),
        (lambda: time(mfu=1.5), ValueError, r"mfu must be in \(0, 1\], got 1\.5"),
        (lambda: time(mfu=0.0), ValueError, r"mfu must be in \(0, 1\], got 0\.0"),
        (lambda: time(tokens=0), ValueError, "tokens must be positive and finite, got 0"),
        (
            lambda: time(flops_per_token=float("inf")),
            ValueError,
            "flops_per_token must be positive and finite, got inf",
        ),
        (
            lambda: time(peak_flops=-4.0),
            ValueError,
            r"peak_flops must be positive and finite, got -4\.0",
        ),
    ],
)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("tied", [True, False])
def test_the_total_is_that_of_the_decoder(tied):
    shape = DecoderShape(3, 8, 4, 2, 5, 7, 11, tied)
    of_decoder = decoder.decoder_parameters(11, 8, 3, 4, 2, 5, 7, tied=tied)
    assert decoder_parameters(shape)["total"] == of_decoder
