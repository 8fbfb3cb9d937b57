"""Functions that are homogeneous: arguments times c give results times a power of c, for any c.

c is a power of two, so nothing is rounded: what deviates has added a small number of its own, or
has met squares and products that are too large or too small.
"""

import pytest
import torch
from torch import Tensor

from tests.laws.calls import CALLS
from tests.laws.test_laws import changed, run

# The function, the arguments that are multiplied together, and the power of c of each result.
DEGREES: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("attention.attention_scores", (0,), (1,)),
    ("attention.attention_scores", (1,), (1,)),
    ("attention.scaled_dot_product_attention", (2,), (1,)),
    ("attention.scaled_dot_product_attention_backward", (0,), (1, 1, 1)),
    ("attention.scaled_dot_product_attention_backward", (3,), (1, 1, 0)),
    ("attention.nadaraya_watson", (2,), (1,)),
    ("attention.grouped_query_attention", (2,), (1,)),
    ("attention.grouped_query_attention_backward", (0,), (1, 1, 1)),
    ("attention.grouped_query_attention_backward", (3,), (1, 1, 0)),
    ("attention.linear_attention_parallel", (0,), (1,)),
    ("attention.linear_attention_parallel", (2,), (1,)),
    ("attention.linear_attention_recurrent", (0,), (1, 0)),
    ("attention.linear_attention_recurrent", (1, 4), (1, 1)),
    ("attention.linear_attention_chunked", (2, 4), (1, 1)),
    ("attention.normalized_linear_attention", (0,), (0,)),
    ("attention.normalized_linear_attention", (1,), (0,)),
    ("attention.normalized_linear_attention", (2,), (1,)),
    ("attention.delta_rule_recurrent", (0,), (1, 0)),
    ("attention.delta_rule_chunked", (0,), (1, 0)),
    ("attention.delta_rule_chunked", (2, 5), (1, 1)),
    ("attention.repeat_kv", (0,), (1,)),
    ("attention.mean_pool_kv_weight", (0,), (1,)),
    ("attention.tie_kv_weight", (0,), (1,)),
    ("attention.split_heads", (0,), (1,)),
    ("attention.merge_heads", (0,), (1,)),
    ("attention.flash_attention", (2,), (1,)),
    ("attention.flash_attention_backward", (0,), (1, 1, 1)),
    ("attention.flash_attention_backward", (3, 4), (1, 1, 0)),
    ("attention.merge_outputs", (0, 2), (1, 0)),
    ("attention.block_state", (1,), (0, 0, 1)),
    ("components.apply_rope", (0,), (1,)),
    ("components.apply_rope", (1, 2), (1,)),
    ("components.convert_qk_weight", (0,), (1,)),
    ("components.fuse_gate_up", (0, 1), (1,)),
    ("components.glu", (1,), (1,)),
    ("components.linear", (0, 2), (1,)),
    ("components.linear", (1, 2), (1,)),
    ("components.linear_backward", (0,), (1, 1, 1)),
    ("components.linear_backward", (1,), (0, 1, 0)),
    ("components.linear_backward", (2,), (1, 0, 0)),
    ("components.linear_scaled_inv_freq", (0,), (1,)),
    ("components.lora_backward", (0,), (1, 1)),
    ("components.lora_backward", (1,), (1, 1)),
    ("components.lora_backward", (2,), (0, 1)),
    ("components.lora_backward", (3,), (1, 0)),
    ("components.lora_delta", (0,), (1,)),
    ("components.lora_delta", (1,), (1,)),
    ("components.swiglu_backward", (0,), (1, 1)),
    ("components.swiglu_backward", (2,), (1, 0)),
    ("functional.d_relu", (0,), (0,)),
    ("functional.relu", (0,), (1,)),
    ("functional.softmax_vjp", (1,), (1,)),
    ("functional.dropout", (0,), (1, 0)),
    ("functional.aggregate", (0,), (1,)),
    ("functional.bits_per_byte", (0,), (1,)),
    ("functional.combine_microbatches", (0,), (1,)),
    ("functional.alignment", (0, 1), (2,)),
    ("functional.clip_loss", (0,), (0,)),
    ("functional.clip_loss", (1,), (0,)),
    ("functional.info_nce", (0,), (0,)),
    ("functional.info_nce", (1,), (0,)),
    ("functional.affine_qparams", (0,), (1, 0)),
    ("functional.symmetric_scale", (0,), (1,)),
    ("functional.quantize_groupwise", (0,), (0, 1)),
    ("functional.dequantize_groupwise", (1,), (1,)),
    ("functional.nf4_quantize", (0,), (0, 1)),
    ("functional.nf4_dequantize", (1,), (1,)),
    ("functional.sqnr_db", (0, 1), (0,)),
    ("functional.apply_temperature", (0,), (1,)),
    ("functional.top_k_filter", (0,), (1,)),
    ("functional.repetition_penalty", (0,), (1,)),
    ("norm.batch_norm_backward", (0,), (1, 1, 1)),
    ("norm.fold_batch_norm", (4, 5), (1, 1)),
    ("norm.update_running", (0, 2), (1, 0)),
    ("norm.layer_norm", (2, 3), (1,)),
    ("norm.layer_norm_backward", (0,), (1, 1, 1)),
    ("norm.layer_norm_backward", (2,), (1, 0, 0)),
    ("norm.rms_norm", (2,), (1,)),
    ("norm.rms_norm_backward", (0,), (1, 1)),
    ("norm.rms_norm_backward", (2,), (1, 0)),
    ("norm.fold_layer_norm", (2,), (1, 0)),
    ("norm.fold_layer_norm", (0, 1), (1, 1)),
    ("norm.fold_layer_norm", (1, 3), (0, 1)),
    ("norm.fold_rms_norm", (0,), (1,)),
    ("norm.fold_rms_norm", (1,), (1,)),
    ("norm.rotate_residual", (0,), (1, 0)),
    ("norm.rotate_residual", (1,), (0, 1)),
    ("rl.cispo_loss", (2,), (1,)),
    ("rl.clip_fraction", (2,), (0,)),
    ("rl.clipped_surrogate", (2,), (1,)),
    ("rl.dapo_loss", (2,), (1,)),
    ("rl.decoupled_ppo_loss", (3,), (1,)),
    ("rl.dr_grpo_loss", (2,), (1,)),
    ("rl.effective_sample_size", (0,), (0,)),
    ("rl.gspo_loss", (2,), (1,)),
    ("rl.gspo_token_loss", (2,), (1,)),
    ("rl.ppo_policy_loss", (2,), (1,)),
    ("rl.reinforce_loss", (0,), (1,)),
    ("rl.reinforce_loss", (1,), (1,)),
    ("rl.discounted_returns", (0,), (1,)),
    ("rl.gae", (0, 1), (1, 1)),
    ("rl.k_step_advantage", (0, 1), (1,)),
    ("rl.mean_baseline_advantages", (0,), (1,)),
    ("rl.rloo_advantages", (0,), (1,)),
    ("rl.implicit_reward", (0, 1), (1,)),
    ("rl.kl_loss", (0, 1), (2,)),
    ("rl.kl_reward", (0, 1), (1,)),
    ("rl.sequence_kl_loss", (0, 1), (2,)),
    ("rl.optimal_baseline", (0,), (1,)),
    ("rl.optimal_baseline", (1,), (0,)),
    ("training.adam_direction", (0,), (1,)),
    ("training.polar_factor", (0,), (0,)),
    ("training.newton_schulz", (0,), (0,)),
    ("training.nesterov_momentum", (0, 1), (1, 1)),
    ("training.muon_step", (1, 2), (0, 1)),
    ("training.global_norm", (0,), (1,)),
    ("training.token_mean_scale", (0,), (-1,)),
    ("training.token_weights", (0,), (0,)),
    ("training.fp8_scale", (0,), (-1,)),
    ("training.round_to_format", (0, 1), (1,)),
    ("training.swallowed", (0, 1), (0,)),
]
BY_NAME = {call.name: call for call in CALLS}


# Exponents of c, to be divided by the largest power: squares leave the range of the dtype, and what
# should come out does not.
EXPONENTS = [(torch.float64, e) for e in (-900, -30, 30, 900)] + [
    (torch.float32, e) for e in (-90, 90)
]


@pytest.mark.parametrize(("name", "which", "powers"), DEGREES)
@pytest.mark.parametrize(("dtype", "exponent"), EXPONENTS)
def test_results_scale_as_their_arguments(
    name: str,
    which: tuple[int, ...],
    powers: tuple[int, ...],
    dtype: torch.dtype,
    exponent: int,
) -> None:
    exponent //= max(1, *powers)
    call = BY_NAME[name]
    given = changed(call.arguments, lambda it: it.to(dtype) if it.is_floating_point() else it)
    scaled = tuple(
        changed(argument, lambda it: it * 2.0**exponent) if place in which else argument
        for place, argument in enumerate(given)
    )
    base = run(call, given)
    assert all(fits(it, power * exponent) for it, power in zip(base, powers, strict=True))
    found = run(call, scaled)
    for one, other, power in zip(found, base, powers, strict=True):
        wanted = other * 2.0 ** (power * exponent) if power else other
        torch.testing.assert_close(
            one, wanted, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0
        )


def fits(tensor: Tensor, exponent: int) -> bool:
    """Whether all of a result, times a power of two, are normal numbers of its dtype."""
    if not tensor.is_floating_point() or not exponent:
        return True
    sizes = tensor.double().abs()
    sizes = sizes[(sizes > 0) & sizes.isfinite()].log2() + exponent
    limits = torch.finfo(tensor.dtype)
    low, high = torch.tensor([limits.tiny, limits.max], dtype=torch.float64).log2()
    return bool(((sizes > low + 20) & (sizes < high - 20)).all())
