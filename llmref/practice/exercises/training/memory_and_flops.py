"""Exercises on parameters, operations and memory; a size is an int, and a result one number."""

from math import isclose
from typing import Any

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake

_LLAMA_2_7B = (32, 4096, 32, 32, 128, 11008, 32000)
_LLAMA_3_2_1B = (16, 2048, 32, 8, 64, 8192, 128256)


def _shapes() -> list[tuple[Any, ...]]:
    return [
        (1, 2, 1, 1, 3, 4, 5, False),
        (1, 2, 1, 1, 3, 4, 5, True),
        (1, 2, 4, 2, 3, 5, 7, False),
        (2, 8, 4, 2, 3, 20, 11, True),
        (3, 8, 6, 2, 5, 7, 13, False),
        (*_LLAMA_3_2_1B, True),
        (*_LLAMA_2_7B, False),
    ]


def _contexts() -> list[tuple[Any, ...]]:
    return [
        (1, 2, 1, 1, 3, 4, 5, 1),
        (1, 2, 1, 1, 3, 4, 5, 4),
        (1, 2, 4, 2, 3, 5, 7, 6),
        (2, 8, 4, 2, 3, 20, 11, 9),
        (3, 8, 6, 2, 5, 7, 13, 4),
        (*_LLAMA_3_2_1B, 8192),
        (*_LLAMA_2_7B, 4096),
    ]


def _ranks() -> list[tuple[Any, ...]]:
    return [
        (1, 1, 0),
        (6, 1, 3),
        (6, 3, 0),
        (6, 3, 1),
        (6, 3, 2),
        (6, 3, 3),
        (7_500_000_000, 64, 2),
        (7_500_000_000, 64, 3),
    ]


def _table(function: Function, *sizes: Any) -> bool:
    *shape, _ = sizes
    return bool(function(*shape, False) - function(*shape, True) != shape[6] * shape[1])


def _query_heads(function: Function, *sizes: Any) -> bool:
    L, C, H, G, D, F, V, tied = sizes
    more = function(L, C, 2 * H, G, D, F, V, tied) - function(*sizes)
    return bool(more != 2 * L * C * H * D)


def _wider(function: Function, *sizes: Any) -> bool:
    L, C, *heads, F, V, tied = sizes
    more = function(L, C, *heads, F + 1, V, tied) - function(*sizes)
    return bool(more != 3 * L * C)


def _deeper(function: Function, *sizes: Any) -> bool:
    L, C, *_, V, tied = sizes
    twice = 2 * function(*sizes) - function(2 * L, *sizes[1:])
    return bool(twice != C + V * C * (1 if tied else 2))


def _one_token(function: Function, *sizes: Any) -> bool:
    L, C, H, G, D, F, V, T = sizes
    more = function(L, C, H, G, D, F, V + 1, T) - function(*sizes)
    return not isclose(more, 6 * C, rel_tol=1e-6)


def _two_more(function: Function, *sizes: Any) -> bool:
    L, _, H, _, D, *_, T = sizes
    more = function(*sizes[:-1], T + 2) - function(*sizes)
    return not isclose(more, 12 * L * H * D, rel_tol=1e-6)


def _key_heads(function: Function, *sizes: Any) -> bool:
    L, C, H, G, D, F, V, T = sizes
    more = function(L, C, H, H, D, F, V, T) - function(*sizes)
    return not isclose(more, 12 * L * C * (H - G) * D, rel_tol=1e-6)


def _one_rank(function: Function, N: int, ranks: int, stage: int) -> bool:
    return not isclose(function(N, 1, stage), 16 * N, rel_tol=1e-6)


def _all_divided(function: Function, N: int, ranks: int, stage: int) -> bool:
    return not isclose(function(N, ranks, 3) * ranks, function(N, 1, 0), rel_tol=1e-6)


def _kept(function: Function, N: int, ranks: int, stage: int) -> bool:
    saved = function(N, ranks, 2) - function(N, ranks, 3)
    return not isclose(saved, 2 * N * (1 - 1 / ranks), rel_tol=1e-6, abs_tol=1e-9)


def _optimizer(function: Function, N: int, ranks: int, stage: int) -> bool:
    saved = function(N, ranks, 0) - function(N, ranks, 1)
    return not isclose(saved, 12 * N * (1 - 1 / ranks), rel_tol=1e-6, abs_tol=1e-9)


_KEYS = "2 * C * G * D"

DECODER_PARAMETERS = Exercise(
    name="decoder_parameters",
    topic="training/memory_and_flops",
    level=1,
    task="Count the parameters of a decoder as Llama's: L layers of width C, H query and G key and "
    "value heads of size D, an MLP of width F, V tokens in the vocabulary; tied if the head is the "
    "embedding table.",
    inputs=_shapes,
    definition="memory-parameters",
    laws=(
        Law("Tying the head saves one table of V times C.", "memory-parameters", _table),
        Law(
            "Twice the query heads add to queries and output alone.",
            "memory-parameters",
            _query_heads,
        ),
        Law("The MLP has three matrices of C times F.", "memory-parameters", _wider),
        Law("Beside the layers stand the tables and one norm.", "memory-parameters", _deeper),
    ),
    mistakes=(
        Mistake(
            "G ignored",
            "Keys and values have G heads; only queries and output have H.",
            ((_KEYS, "2 * C * H * D"),),
        ),
        Mistake(
            "two matrices in the MLP",
            "A gated MLP has three: gate, up and down.",
            (("3 * C * F", "2 * C * F"),),
        ),
        Mistake(
            "two tables when tied",
            "A tied head is the embedding table itself.",
            (("V * C if tied else 2 * V * C", "2 * V * C"),),
        ),
        Mistake(
            "one table when not tied",
            "Then the head has a table of its own.",
            (("V * C if tied else 2 * V * C", "V * C"),),
        ),
        Mistake(
            "last norm lost",
            "One more norm stands before the head.",
            (("L * layer + C + tables", "L * layer + tables"),),
        ),
        Mistake(
            "norms of the layers lost",
            "Each layer has two norms with C gains each.",
            (("3 * C * F + 2 * C", "3 * C * F"),),
        ),
        Mistake(
            "one norm per layer",
            "One stands before the attention, one before the MLP.",
            (("3 * C * F + 2 * C", "3 * C * F + C"),),
        ),
        Mistake(
            "C in place of H D",
            "The heads together need not be as wide as the model.",
            (("2 * C * H * D", "2 * C * C"),),
        ),
        Mistake(
            "output projection lost",
            "The heads are mixed by one more matrix of C times H D.",
            (("2 * C * H * D", "C * H * D"),),
        ),
        Mistake(
            "keys and values in one matrix",
            "They have a matrix of C times G D each.",
            ((_KEYS, "C * G * D"),),
        ),
    ),
    conventions=(
        Convention(
            "non-embedding parameters",
            "Papers on scaling leave the tables out of N. To match, add the embedding, and the "
            "head where it has a table of its own.",
            (("L * layer + C + tables", "L * layer + C"),),
        ),
    ),
    hints=(
        "Go through one layer: four matrices of attention, three of the MLP, two norms.",
        "Two of the four matrices have H heads, two have G.",
        "Outside of the layers: the embedding, the last norm, and a head where it is not tied.",
    ),
    branches={
        "a tied head": lambda *sizes: sizes[7],
        "shared key and value heads": lambda *sizes: sizes[2] != sizes[3],
        "heads that are together not as wide as the model": lambda *sizes: (
            sizes[2] * sizes[4] != sizes[1]
        ),
    },
)

DECODER_FLOPS_PER_TOKEN = Exercise(
    name="decoder_flops_per_token",
    topic="training/memory_and_flops",
    level=2,
    task="Count the operations of training per token, for the same decoder: only matrix products, "
    "two operations for a multiply-add, causal attention as the mean over T positions.",
    inputs=_contexts,
    definition="memory-flops-per-token",
    laws=(
        Law(
            "One more token of the vocabulary costs 6 C: in the head.",
            "memory-flops-per-token",
            _one_token,
        ),
        Law(
            "A context longer by two costs 12 L H D: one key more on average.",
            "memory-flops-per-token",
            _two_more,
        ),
        Law(
            "Shared heads save projections, and no scores.",
            "memory-flops-per-token",
            _key_heads,
        ),
    ),
    mistakes=(
        Mistake(
            "backward equal to forward",
            "Backward has two products for each one of forward.",
            (("return 3 * (", "return 2 * ("),),
        ),
        Mistake(
            "forward alone",
            "Training adds the backward pass, twice the forward pass.",
            (("return 3 * (", "return ("),),
        ),
        Mistake(
            "recomputation counted",
            "That is what the hardware did, not what the model needs.",
            (("return 3 * (", "return 4 * ("),),
        ),
        Mistake(
            "a multiply-add counted once",
            "It is a multiplication and an addition.",
            (("2 * multiplied + scores", "multiplied + scores / 2"),),
        ),
        Mistake(
            "embedding multiplied",
            "The embedding is a look-up; only the head multiplies by V times C.",
            (("L * layer + V * C", "L * layer + 2 * V * C"),),
        ),
        Mistake(
            "head without operations",
            "The head is a product with V times C numbers, also where it is tied.",
            (("L * layer + V * C", "L * layer"),),
        ),
        Mistake(
            "weighted sum forgotten",
            "Attention has two products that grow with the context: scores, and weighted sum.",
            (("4 * L * H * D", "2 * L * H * D"),),
        ),
        Mistake(
            "attention of one layer",
            "Each layer has its own scores.",
            (("4 * L * H * D", "4 * H * D"),),
        ),
        Mistake(
            "key heads in the scores",
            "Each query head has scores of its own, whatever keys it shares.",
            (("4 * L * H * D", "4 * L * G * D"),),
        ),
        Mistake(
            "G ignored",
            "Keys and values are projected to G heads.",
            ((_KEYS, "2 * C * H * D"),),
        ),
        Mistake(
            "two matrices in the MLP",
            "A gated MLP has three: gate, up and down.",
            (("3 * C * F", "2 * C * F"),),
        ),
    ),
    conventions=(
        Convention(
            "dense attention",
            "PaLM, nanoGPT and others count all T keys for each query. To match, count the "
            "keys that a query may attend to.",
            (("D * (T + 1) / 2", "D * T"),),
        ),
        Convention(
            "T/2 for (T + 1)/2",
            "Trainers halve the dense count. To match, count the token's own key: the mean "
            "number of keys is (T + 1)/2.",
            (("D * (T + 1) / 2", "D * T / 2"),),
        ),
        Convention(
            "no scores: 6 times the multiplied parameters",
            "Papers on scaling leave the scores of attention out. To match, add them.",
            (("2 * multiplied + scores", "2 * multiplied"),),
        ),
    ),
    hints=(
        "Which parameters is a token multiplied by? Not all that are stored.",
        "Each costs two operations forward and four backward.",
        "The first position has one key, the last has T; attention has two products with them.",
    ),
    branches={
        "a context of one token": lambda *sizes: sizes[7] == 1,
        "shared key and value heads": lambda *sizes: sizes[2] != sizes[3],
    },
)

ZERO_BYTES = Exercise(
    name="zero_bytes",
    topic="training/memory_and_flops",
    level=1,
    task="Bytes of weights, gradients and optimiser on each rank, with ZeRO of stage 0 to 3: N "
    "parameters, bfloat16 weights and gradients, Adam with float32 copy and moments.",
    inputs=_ranks,
    definition="memory-zero",
    laws=(
        Law("One rank holds 16 bytes per parameter.", "memory-sixteen-bytes", _one_rank),
        Law("Stage 3 divides everything by the ranks.", "memory-zero", _all_divided),
        Law("Stage 3 divides the weights, and stage 2 does not.", "memory-zero", _kept),
        Law("Stage 1 divides the optimiser, and that alone.", "memory-zero", _optimizer),
    ),
    mistakes=(
        Mistake(
            "12 bytes: the float32 copy forgotten",
            "Small steps are lost in bfloat16, so Adam keeps the weights in float32 too.",
            (("(4 + 4 + 4)", "(4 + 4)"),),
        ),
        Mistake(
            "moments in 16 bits",
            "Both moments are float32 here.",
            (("(4 + 4 + 4)", "(4 + 2 + 2)"),),
        ),
        Mistake(
            "weights divided at stage 2",
            "Stage 2 divides optimiser and gradients; only stage 3 divides the weights.",
            (("stage >= 3", "stage >= 2"),),
        ),
        Mistake(
            "gradients divided at stage 1",
            "Stage 1 divides the optimiser alone.",
            (("stage >= 2", "stage >= 1"),),
        ),
        Mistake(
            "optimiser divided without ZeRO",
            "At stage 0 every rank holds everything.",
            (("stage >= 1", "stage >= 0"),),
        ),
        Mistake(
            "weights never divided",
            "Stage 3 divides them too.",
            (("weights = 2 * N / (ranks if stage >= 3 else 1)", "weights = 2 * N"),),
        ),
        Mistake(
            "each stage divides one part alone",
            "Stages build on each other: stage 3 divides all three parts.",
            (("stage >= 2", "stage == 2"), ("stage >= 1", "stage == 1")),
        ),
    ),
    conventions=(
        Convention(
            "float32 gradients",
            "Trainers that add up micro-batches in float32 hold 18 bytes per parameter. To match, "
            "take 2 bytes for a gradient.",
            (("grads = 2 * N", "grads = 4 * N"),),
        ),
        Convention(
            "decimal gigabytes",
            "Papers give 10^9 bytes. To match, give bytes.",
            (("return weights + grads + adam", "return (weights + grads + adam) / 1e9"),),
        ),
        Convention(
            "binary gigabytes",
            "Tools for GPUs give 2^30 bytes. To match, give bytes.",
            (("return weights + grads + adam", "return (weights + grads + adam) / 2**30"),),
        ),
    ),
    hints=(
        "Five numbers per parameter: two of 16 bits, three of 32.",
        "The optimiser's three are divided first, then the gradient, then the weight.",
        "A stage divides what the stages before it divide, and one part more.",
    ),
    branches={
        "one rank": lambda N, ranks, stage: ranks == 1,
        "stage 0": lambda N, ranks, stage: stage == 0,
        "stage 1": lambda N, ranks, stage: stage == 1,
        "stage 2": lambda N, ranks, stage: stage == 2,
        "stage 3": lambda N, ranks, stage: stage == 3,
    },
)

EXERCISES = (
    DECODER_PARAMETERS,
    DECODER_FLOPS_PER_TOKEN,
    ZERO_BYTES,
)
