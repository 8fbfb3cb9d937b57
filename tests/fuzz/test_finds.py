"""What the fuzz has found, each once: the call, and what the error now says.

Where a find was a wrong number, its test stands with its topic. Not here: the errors that a
docstring promises anyway, which the topics' tests have.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmref import attention, components, functional, inference, norm, rl, training
from llmref.components.lora import PeftLoraConfig

Z, ones = torch.zeros, torch.ones
two = torch.tensor([1.0, 2.0])
float8 = torch.float8_e4m3fn
wrong: Any = [[True]]
none: Any = None
state = attention.SoftmaxState(Z(2), ones(2), Z(2, 3))
module = attention.MultiHeadAttention(8, 2).double()
cached = attention.CachedAttention(8, 2)
rates = {"max_lr": 0.1, "warmup_steps": 4, "stable_steps": 8, "decay_steps": 6}
steps = {"growth_factor": two, "backoff_factor": 0.5, "growth_interval": 5}


def pairs() -> tuple[torch.Tensor, ...]:
    """Two pairs for SimPO: sums of log-probabilities, and lengths."""
    counts = torch.tensor([3, 4])
    return -ones(2), -ones(2), counts, counts


TYPE_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "a mask that is a list": (lambda: attention.check_mask(wrong, 1, 1), "mask must be a tensor"),
    "masks that are lists": (lambda: attention.and_masks(wrong), "mask must be a tensor"),
    "no mask to reach by": (lambda: attention.dependency_matrix(none, 2), "mask must be a tensor"),
    "no real tokens": (lambda: attention.padding_mask(none), "valid must be a tensor"),
    "a prefix in words": (
        lambda: attention.prefix_lm_mask(wrong, 3),
        "prefix_len must be a number",
    ),
    "a cap of two": (lambda: attention.soft_cap(two, two), "cap must be one number"),  # type: ignore[arg-type]
    "a scale of two": (
        lambda: attention.attention_scores(Z(1, 2, 3), Z(1, 2, 3), two),  # type: ignore[arg-type]
        "scale must be one number",
    ),
    "a mask of 8 bits": (
        lambda: attention.attention_weights(Z(1, 2, 3), Z(1, 2, 3), Z(2, 2).to(float8)),
        "attn_mask must have 16 bits",
    ),
    "a bias of 8 bits": (
        lambda: attention.additive_mask(ones(2, 2).bool(), float8),
        "dtype must have 16 bits",
    ),
    "values of another dtype": (
        lambda: attention.block_state(Z(2, 3).double(), ones(3, 2)),
        "scores torch.float64, value torch.float32",
    ),
    "a state without a sum": (
        lambda: attention.finalize_state(state._replace(l=none)),
        "l must be a tensor",
    ),
    "a gradient of another dtype": (
        lambda: attention.scaled_dot_product_attention_backward(
            Z(1, 2, 3), *(Z(3, 1, 2, 3).double())
        ),
        "grad_output torch.float32",
    ),
    "integers for a layer": (lambda: cached(Z(1, 3, 8).long()), "x must be floating point"),
    "a query that is a list": (lambda: module([[[1.0]]]), "query must be a tensor"),
    "bases of another dtype": (
        lambda: attention.gauge_transform(module, Z(2, 4, 4), Z(2, 4, 4)),
        "qk torch.float32, vo torch.float32, weight torch.float64",
    ),
    "an index of two": (lambda: functional.top_k_filter(none, 2), "logits must be a tensor"),
    "a slope of two": (lambda: functional.silu(two, beta=two), "beta must be one number"),  # type: ignore[arg-type]
    "no loss": (lambda: functional.mi_lower_bound(none, 3), "loss must be a tensor"),
    "codes of 8 bits": (
        lambda: functional.dequantize(ones(2).long(), 0.5, dtype=float8),
        "dtype must have 16 bits",
    ),
    "a zero point in words": (
        lambda: functional.quantize(two, 0.5, ""),  # type: ignore[arg-type]
        "zero_point must be a number",
    ),
    "codes that are bytes": (
        lambda: functional.unpack_int4(b"ab"),  # type: ignore[arg-type]
        "packed must be a tensor",
    ),
    "a shape of floats": (
        lambda: functional.gumbel_noise([0.5]),  # type: ignore[list-item]
        "shape must be an int",
    ),
    "a base of two": (lambda: components.rope_inv_freq(8, two), "base must be one number"),  # type: ignore[arg-type]
    "no factor": (lambda: components.ntk_base(1e4, 8, none), "factor must be a number"),
    "no frequencies": (lambda: components.rope_matrix(1.0, none), "inv_freq must be a tensor"),
    "no position": (lambda: components.rope_matrix(none, two), "position must be a number"),
    "no cosine": (
        lambda: components.apply_rope(Z(1, 1, 2, 4), none, Z(2, 2)),
        "cos must be a tensor",
    ),
    "a layer of integers": (
        lambda: components.Linear(3, 2, dtype=torch.int8),
        "dtype must be floating point",
    ),
    "a pattern of bytes": (
        lambda: components.pretokenize("a", b"a"),  # type: ignore[arg-type]
        "pattern must be str",
    ),
    "an id of 1.5": (
        lambda: components.BPETokenizer().decode([1.5]),  # type: ignore[list-item]
        "an id must be an integer, got 1.5",
    ),
    "no corpus": (lambda: components.count_words(none, None), "corpus must be str"),
    "nothing allowed": (
        lambda: components.BPETokenizer().encode("a", allowed_special=none),
        "allowed_special",
    ),
    "a vocabulary of no size": (
        lambda: components.BPETokenizer().train("a", none),
        "vocab_size must be an int",
    ),
    "an adapter of rank 1.5": (lambda: PeftLoraConfig(1.5, 4.0, ("q",)), "r must be an int"),  # type: ignore[arg-type]
    "a pool that is a list": (
        lambda: inference.gather_blocks(wrong, ones(2).long(), 3),
        "pool must be a tensor",
    ),
    "no row": (lambda: norm.layer_norm(none, 2, eps=0.1), "x must be a tensor"),
    "a complex weight": (
        lambda: norm.rms_norm(two, 2, two.to(torch.complex64), eps=0.1),
        "weight must be floating point",
    ),
    "a map of another dtype": (
        lambda: norm.fold_layer_norm(Z(3, 2).double(), none, two, two),
        "weight torch.float64, gamma torch.float32",
    ),
    "no advantages": (
        lambda: rl.gspo_loss(-ones(2, 3), -ones(2, 3), none, ones(2, 3)),
        "advantages must be a tensor",
    ),
    "a cap of weights of two": (
        lambda: rl.truncate_weights(two, cap=two),  # type: ignore[arg-type]
        "cap must be one number",
    ),
    "counts that are complex": (
        lambda: training.token_weights(two.to(torch.complex64)),
        "counts must be real",
    ),
    "rates of two": (
        lambda: training.warmup_stable_decay(1, decay="linear", **rates | {"max_lr": two}),  # type: ignore[arg-type]
        "max_lr must be one number",
    ),
    "a growth of two": (
        lambda: training.update_loss_scale(8.0, 1, overflow=False, **steps),  # type: ignore[arg-type]
        "growth_factor must be one number",
    ),
    "a number for each pair": (
        lambda: rl.simpo_loss(*pairs(), beta=ones(2)),  # type: ignore[arg-type]
        r"beta must be one number, got a tensor \(2,\)",
    ),
    "a number for each pair of DPO": (
        lambda: rl.dpo_loss(-ones(2), -ones(2), -ones(2), -ones(2), beta=ones(2)),  # type: ignore[arg-type]
        r"beta must be one number, got a tensor \(2,\)",
    ),
    "no chosen responses": (
        lambda: rl.simpo_loss(None, *pairs()[1:]),  # type: ignore[arg-type]
        "policy_chosen_logps must be a tensor",
    ),
}

VALUE_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "a scale beyond the dtype": (
        lambda: attention.attention_scores(Z(1, 2, 3), Z(1, 2, 3), 1e39),
        "query times scale 1e.39 must be finite in torch.float32",
    ),
    "a state with a negative sum": (
        lambda: attention.finalize_state(state._replace(l=-ones(2))),
        r"l must be in \[0, inf\], got -1",
    ),
    "an input of another width": (
        lambda: cached(Z(1, 3, 7)),
        r"x must be \(B, T, C\) beside weight",
    ),
    "an input without axes": (lambda: cached(torch.tensor(1.0)), r"x must be \(B, T, C\)"),
    "widths and means that do not fit": (
        lambda: rl.kl_gaussian(Z(3), ones(2), Z(3), ones(3)),
        r"needs shapes that broadcast, got mu_p \(3,\), std_p \(2,\)",
    ),
    "costs and bytes that do not fit": (
        lambda: functional.bits_per_byte(ones(2, 3), ones(2)),
        r"n_bytes must be \(...\) = \(2, 3\)",
    ),
    "one decay rate": (
        lambda: training.adam_update_bound(step=2, betas=(0.9,)),  # type: ignore[arg-type]
        "betas must be two numbers, got",
    ),
    "a width beyond all floats": (
        lambda: components.swiglu_hidden_dim(8, ratio=1e308),  # type: ignore[arg-type]
        "width must be in",
    ),
    "a NaN for a count": (
        lambda: components.PairIndex({(1, 2): float("nan")}),  # type: ignore[dict-item]
        "words must map to how often they occur, got nan",
    ),
    "half a character in a pattern": (
        lambda: components.BPETokenizer(pattern="\ud800"),
        r"lone surrogate U\+D800",
    ),
}


@pytest.mark.parametrize("find", TYPE_ERRORS)
def test_a_wrong_kind_is_refused_by_name(find: str) -> None:
    call, message = TYPE_ERRORS[find]
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("find", VALUE_ERRORS)
def test_a_wrong_value_is_refused_by_name(find: str) -> None:
    call, message = VALUE_ERRORS[find]
    with pytest.raises(ValueError, match=message):
        call()
