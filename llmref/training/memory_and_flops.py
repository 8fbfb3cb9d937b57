"""Does a run fit into memory, how long does it take, and how well is the hardware used?

A decoder: attention, gated MLP and RMSNorm before each of them, no biases; a multiply-add counts as
two operations, and only matrix products count. Leaves out: mixtures of experts, tensor, pipeline
and sequence parallelism, temporary buffers, fragmentation, and the time that communication takes.
"""

from typing import NamedTuple

from llmref._require import require_at_least, require_in, require_positive, require_size


class DecoderShape(NamedTuple):
    """Sizes of a decoder; tied if the head is the embedding table.

    Llama-2 7B is (32, 4096, 32, 32, 128, 11008, 32000, tied=False).
    """

    layers: int
    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    tied: bool


def decoder_parameters(shape: DecoderShape) -> dict[str, int]:
    """Parameters by part, their total, and `matmul`: those that a token is multiplied by.

    (1, 2, 1, 1, 2, 3, 5, tied=False): attention 4 * 2 * 2 = 16, mlp 3 * 2 * 3 = 18, norms
    3 * 2 = 6, embedding and head 5 * 2 = 10 each; total 60, matmul 16 + 18 + 10 = 44.
    Shapes: sizes -> {"embedding", "attention", "mlp", "norms", "head", "total", "matmul"}
    Source: Touvron et al. 2023, arXiv:2307.09288, section 2.2, for the layers; counted here.
    Differs: a tied head has no parameters of its own, but its products count in matmul.
    Raises: ValueError if a size is below 1 or num_kv_heads does not divide num_heads; TypeError
    unless the sizes are ints.
    """
    L, C, H, G, D, F, V, tied = _checked(shape)
    parts = {  # eq. eq-memory-parameters
        "embedding": V * C,
        "attention": L * (2 * C * H * D + 2 * C * G * D),
        "mlp": L * 3 * C * F,
        "norms": L * 2 * C + C,
        "head": 0 if tied else V * C,
    }
    matmul = parts["attention"] + parts["mlp"] + V * C
    return {**parts, "total": sum(parts.values()), "matmul": matmul}


def decoder_flops_per_token(
    shape: DecoderShape, *, context: int, causal: bool, backward: bool
) -> float:
    """Operations per token, mean over the positions of a sequence of `context` tokens.

    backward: forward and backward pass together, 3 times the forward pass. causal counts the keys
    that a query may attend to, (context + 1) / 2 on average; not causal counts them all.
    (1, 2, 1, 1, 2, 3, 5, tied=False), context 3: forward 2 * 44 + 4 * 2 * 2 = 104 if causal.
    Shapes: sizes -> a number of operations
    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B, for the form; 2001.08361, 2.1.
    Differs: theirs is not causal, and takes all parameters for those that are multiplied.
    Raises: as decoder_parameters; ValueError if context is below 1.
    """
    matmul = decoder_parameters(shape)["matmul"]
    require_size(1, context=context)
    keys = (context + 1) / 2 if causal else context
    attention = 4 * shape.layers * shape.num_heads * shape.head_dim * keys
    return (3 if backward else 1) * (2.0 * matmul + attention)  # eq. eq-memory-flops


def zero_bytes(
    params: int,
    *,
    ranks: int,
    stage: int,
    weight_bytes: float,
    grad_bytes: float,
    optimizer_bytes: float,
) -> float:
    """Bytes of weights, gradients and optimiser on each rank; no activations, no buffers.

    Each is given in bytes per parameter: 2, 2 and 12 for Adam in mixed precision. Stage 1 divides
    the optimiser's, 2 the gradients too, 3 the weights too: 120, 31.4, 16.6 and 1.9 GB for 7.5e9
    parameters on 64 ranks, stages 0 to 3.
    Shapes: numbers -> a number of bytes
    Source: Rajbhandari et al. 2019, arXiv:1910.02054.
    Raises: ValueError if a size is below 1, stage is not 0 to 3, or a number of bytes is negative.
    """
    require_size(1, params=params, ranks=ranks)
    _require_stage(stage)
    require_at_least(
        0, weight_bytes=weight_bytes, grad_bytes=grad_bytes, optimizer_bytes=optimizer_bytes
    )
    weights = params * weight_bytes / (ranks if stage >= 3 else 1)
    grads = params * grad_bytes / (ranks if stage >= 2 else 1)
    optimizer = params * optimizer_bytes / (ranks if stage >= 1 else 1)
    return weights + grads + optimizer  # eq. eq-memory-zero


def zero_traffic(params: int, *, ranks: int, stage: int, micro_batches: int) -> float:
    """Elements that each rank sends in one step, with collectives on a ring.

    A reduce-scatter or an all-gather sends (ranks - 1) / ranks of the parameters. Stages 0 and 1
    take 2 of them, 2 takes micro_batches + 1, 3 takes 3 * micro_batches.
    Shapes: numbers -> a number of elements
    Source: Rajbhandari et al. 2019, arXiv:1910.02054, who count one micro-batch.
    Raises: ValueError if a size is below 1, or stage is not 0 to 3.
    """
    require_size(1, params=params, ranks=ranks, micro_batches=micro_batches)
    _require_stage(stage)
    collectives = (2, 2, micro_batches + 1, 3 * micro_batches)[stage]
    return collectives * params * (ranks - 1) / ranks  # eq. eq-memory-zero-traffic


def decoder_activation_elements(shape: DecoderShape, *, tokens: int) -> int:
    """Elements that one layer saves for the backward pass, in the dtype of the activations.

    For attention that keeps no scores and takes the key and value heads unrepeated, a fused norm
    that keeps its input, and an MLP of separate operations. Not counted: float32 statistics.
    (1, 2, 1, 1, 2, 3, 5, tied=False): 4 * 2 + 2 * 2 + 2 * 2 + 4 * 3 = 28 for each token.
    Shapes: sizes -> a number of elements
    Source: after Korthikanti et al. 2022, arXiv:2205.05198, who count a GPT layer.
    Raises: as decoder_parameters; ValueError if tokens is below 1.
    """
    _, C, H, G, D, F, _, _ = _checked(shape)
    require_size(1, tokens=tokens)
    return tokens * (4 * C + 2 * H * D + 2 * G * D + 4 * F)  # eq. eq-memory-activations


def checkpoint_units(layers: int, *, segment: int, units_per_layer: float) -> float:
    """Most that is saved at once, in inputs of one layer, with a checkpoint every `segment` layers.

    Each layer saves units_per_layer, its input included. 32 layers of 18.75 units, a checkpoint at
    every layer: 32 + 18.75 - 1 = 49.75; without checkpoints 600.
    Shapes: numbers -> a number of units
    Source: after Chen et al. 2016, arXiv:1604.06174, section 4.
    Differs: a layer saves units_per_layer rather than one unit.
    Raises: ValueError if a size is below 1, or segment does not divide layers.
    """
    require_size(1, layers=layers, segment=segment)
    require_at_least(1, units_per_layer=units_per_layer)
    if layers % segment:
        raise ValueError(f"segment must divide layers, got {segment} and {layers} layers")
    return layers / segment + segment * units_per_layer - 1  # eq. eq-memory-checkpointing


def model_flops_utilization(
    *, tokens_per_second: float, flops_per_token: float, peak_flops: float
) -> float:
    """Share of the peak that the operations of the model take; recomputation does not count.

    All chips together: PaLM 540B, 238.3e3 tokens/s of 3.278e12 operations, 6144 chips of 275e12
    operations/s: 0.462.
    Shapes: numbers -> a number in (0, 1]
    Source: Chowdhery et al. 2022, arXiv:2204.02311, section 4.1 and appendix B.
    Raises: ValueError unless all are positive, or if the result is above 1.
    """
    require_positive(
        tokens_per_second=tokens_per_second, flops_per_token=flops_per_token, peak_flops=peak_flops
    )
    mfu = tokens_per_second * flops_per_token / peak_flops  # eq. eq-memory-mfu
    require_in("(0, 1]", hint=": another peak, or operations that were not done", mfu=mfu)
    return mfu


def training_seconds(
    tokens: float, *, flops_per_token: float, mfu: float, peak_flops: float
) -> float:
    """Time that a run takes at a given utilisation; peak_flops is that of all chips together.

    2e12 tokens of 4.3e10 operations at 41 % of 1024 chips of 312e12: 6.6e5 s, 7.6 days.
    Shapes: numbers -> seconds
    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B, solved for the time.
    Raises: ValueError unless all are positive and mfu is at most 1.
    """
    require_positive(tokens=tokens, flops_per_token=flops_per_token, peak_flops=peak_flops)
    require_in("(0, 1]", mfu=mfu)
    return tokens * flops_per_token / (mfu * peak_flops)  # eq. eq-memory-mfu


def _checked(shape: DecoderShape) -> DecoderShape:
    """The shape, if its sizes are ints of 1 at least and the heads can be grouped."""
    sizes = shape._asdict()
    tied = sizes.pop("tied")
    require_size(1, **sizes)
    if not isinstance(tied, bool):
        raise TypeError(f"tied must be True or False, got {tied!r}")
    if shape.num_heads % shape.num_kv_heads:
        raise ValueError(
            f"num_heads must be a multiple of num_kv_heads, "
            f"got {shape.num_heads} and {shape.num_kv_heads}"
        )
    return shape


def _require_stage(stage: int) -> None:
    require_size(0, stage=stage)
    if stage > 3:
        raise ValueError(f"stage must be 0, 1, 2 or 3, got {stage}")
