"""One call of every public function that takes tensors, with arguments of distinct sizes.

Everything is float64, boolean or int64; the laws change dtype and layout themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmref import attention, components, functional, inference, norm, rl, training
from llmref.training.muon import JORDAN

_generator = torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Call:
    """A function, its positional arguments, and its options."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.function.__module__.split('.')[1]}.{self.function.__name__}"


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Call:
    return Call(function, arguments, options)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return 0.5 + torch.rand(*shape, generator=_generator, dtype=torch.float64)


def ids(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=_generator)


def logps(*shape: int) -> Tensor:
    return -positive(*shape)


def some(*shape: int) -> Tensor:
    """A mask in which every row counts its first token, and not all count all."""
    mask = torch.rand(*shape, generator=_generator) < 0.7
    mask[..., 0] = True
    mask[..., -1] = False
    return mask


def probabilities(*shape: int) -> Tensor:
    return normal(*shape).softmax(-1)


q, k, v = normal(2, 3, 5, 4), normal(2, 3, 7, 4), normal(2, 3, 7, 6)
grad = normal(2, 3, 5, 6)
gq, gk, gv = normal(2, 6, 5, 4), normal(2, 3, 7, 4), normal(2, 3, 7, 8)
allowed = attention.causal_mask(5, 7)
lq, lk, lv = normal(2, 3, 5, 4), 0.5 * normal(2, 3, 5, 4), normal(2, 3, 5, 6)
beta, log_decay, held = probabilities(2, 3, 5), -normal(2, 3, 5).abs(), normal(2, 3, 4, 6)
latent = normal(2, 3, 5, 4), normal(2, 3, 5, 2), normal(2, 7, 6), normal(2, 7, 2)
latent_maps = normal(3, 4, 6), normal(3, 8, 6)
out, lse = attention.flash_attention(q, k, v, return_lse=True)  # type: ignore[misc]
state, other_state = (attention.block_state(normal(5, 3), normal(3, 4)) for _ in range(2))

ATTENTION = [
    call(attention.additive_mask, allowed),
    call(attention.and_masks, allowed, attention.sliding_window_mask(5, 7, window=3)),
    call(attention.or_masks, allowed, attention.sliding_window_mask(5, 7, window=3)),
    call(attention.check_mask, allowed, 5, 7),
    call(attention.boolean_mask, allowed),
    call(attention.dependency_matrix, attention.causal_mask(5), 2),
    call(attention.document_mask, torch.tensor([[0, 0, 1, 1, 1]])),
    call(attention.padding_mask, torch.tensor([[True, True, False]])),
    call(attention.position_ids, torch.tensor([[False, True, True]])),
    call(attention.prefix_lm_mask, torch.tensor([1, 3]), 5),
    call(attention.attention_scores, q, k),
    call(attention.attention_weights, q, k, allowed),
    call(attention.masked_softmax, normal(2, 5, 7), allowed),
    call(attention.effective_keys, probabilities(2, 5, 7)),
    call(attention.scaled_dot_product_attention, q, k, v, allowed),
    call(attention.scaled_dot_product_attention_backward, grad, q, k, v, allowed),
    call(attention.scaled_dot_product_attention, q, k, v, allowed, softcap=2.0),
    call(attention.scaled_dot_product_attention_backward, grad, q, k, v, allowed, softcap=2.0),
    call(attention.soft_cap, normal(3, 5), 2.0),
    call(attention.nadaraya_watson, normal(5, 3), normal(7, 3), normal(7, 2), 0.8),
    call(attention.grouped_query_attention, gq, gk, gv, allowed),
    call(attention.grouped_query_attention_backward, normal(2, 6, 5, 8), gq, gk, gv, allowed),
    call(attention.linear_attention_parallel, lq, lk, lv, log_decay),
    call(attention.linear_attention_recurrent, lq, lk, lv, log_decay, held),
    call(attention.linear_attention_chunked, lq, lk, lv, log_decay, held, chunk_size=2),
    call(attention.normalized_linear_attention, lq.exp(), lk.exp(), lv),
    call(attention.delta_rule_recurrent, lq, lk, lv, beta, log_decay, held),
    call(attention.delta_rule_chunked, lq, lk, lv, beta, log_decay, held, chunk_size=2),
    call(attention.wy_factor, lk, beta),
    call(attention.latent_attention, *latent, *latent_maps, allowed),
    call(attention.absorbed_latent_attention, *latent, *latent_maps, allowed),
    call(attention.latent_from_grouped, normal(6, 9), normal(4, 9), 2, 4),
    call(attention.repeat_kv, gk, 2),
    call(attention.mean_pool_kv_weight, normal(24, 5), 6, 3),
    call(attention.tie_kv_weight, normal(12, 5), 3, 6),
    call(attention.split_heads, normal(2, 5, 12), 3),
    call(attention.merge_heads, q),
    call(attention.flash_attention, q, k, v, allowed, block_q=2, block_k=3),
    call(attention.flash_attention_backward, grad, q, k, v, out, lse, block_q=2, block_k=3),
    call(attention.merge_outputs, normal(5, 4), normal(5), normal(5, 4), normal(5)),
    call(attention.block_state, normal(5, 7), normal(7, 4)),
    call(attention.merge_states, state, other_state),
    call(attention.finalize_state, state),
    call(attention.online_logsumexp, normal(5, 7)),
    call(attention.sink_attention, gq, gk, gv, normal(6), is_causal=True),
    call(attention.apply_sink, q, normal(2, 3, 5), normal(3)),
    call(attention.sink_backward, grad, normal(2, 3, 5, 6), normal(2, 3, 5), normal(3)),
]

cos, sin = components.rope_cos_sin(
    torch.arange(5), components.rope_inv_freq(8), dtype=torch.float64
)

COMPONENTS = [
    call(components.apply_rope, normal(2, 3, 5, 8), cos, sin),
    call(components.convert_qk_weight, normal(24, 5), 3, to="half"),
    call(components.fuse_gate_up, normal(7, 5), normal(7, 5), order="gate_up"),
    call(components.glu, normal(2, 5, 7), normal(2, 5, 7)),
    call(components.linear, normal(2, 5, 4), normal(3, 4), normal(3)),
    call(components.linear_backward, normal(2, 5, 3), normal(2, 5, 4), normal(3, 4)),
    call(components.linear_scaled_inv_freq, components.rope_inv_freq(8), 4.0),
    call(
        components.lora_backward, normal(2, 5, 6), normal(2, 5, 4), normal(3, 4), normal(6, 3), 0.5
    ),
    call(components.lora_delta, normal(3, 4), normal(6, 3), 0.5),
    call(
        components.rope_cos_sin, torch.arange(5), components.rope_inv_freq(8), dtype=torch.float64
    ),
    call(components.rope_matrix, 3.0, components.rope_inv_freq(8)),
    call(components.swiglu_backward, normal(2, 5, 7), normal(2, 5, 7), normal(2, 5, 7)),
]

# Of a generator of their own: the numbers of all other calls stay what they are.
_of_experts = torch.Generator().manual_seed(0)


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_of_experts, dtype=torch.float64)


routed = components.top_k_softmax(scores(5, 6), 2)
maps = [torch.tanh, torch.sin, torch.exp, torch.sigmoid, torch.cos, torch.neg]
chosen_experts, seen = scores(5, 6).argsort(-1)[:, :2], torch.tensor([1, 1, 0, 1, 0]).bool()

EXPERTS = [
    call(components.biased_top_k, scores(5, 6).sigmoid(), scores(6), 2, renormalize=True),
    call(components.capacity_mask, chosen_experts, 6, 1, priority="choice"),
    call(components.expert_load, chosen_experts, 6, seen),
    call(components.load_balancing_loss, scores(5, 6).softmax(-1), chosen_experts, seen),
    call(components.moe_dense, scores(5, 3), *routed, maps),
    call(components.moe_forward, scores(5, 3), *routed, maps),
    call(components.router_z_loss, scores(5, 6), seen),
    call(components.softmax_top_k, scores(5, 6), 2, renormalize=False),
    call(components.top_k_softmax, scores(5, 6), 2),
    call(components.update_expert_bias, scores(6), torch.tensor([4, 0, 2, 2, 1, 1]), rate=0.1),
]

slopes, places = components.alibi_slopes(3), torch.tensor([4, 0, 9, 2])

POSITIONS = [
    call(components.alibi_bias, slopes, places, torch.arange(6)),
    call(components.alibi_key_bias, slopes, places),
    call(components.sinusoidal_embedding, places, 6, layout="half", dtype=torch.float64),
    call(components.t5_bucket, places - 5, num_buckets=8, max_distance=20, bidirectional=True),
]

# Of a generator of their own too.
_of_teachers = torch.Generator().manual_seed(0)


def judged(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_of_teachers, dtype=torch.float64)


graded = judged(3, 4, 7), judged(3, 4, 7), torch.arange(4) < torch.tensor([[3], [2], [1]])
stored = judged(3, 4, 7).log_softmax(-1).topk(2)
written = -judged(3, 4).abs(), -judged(3, 4).abs(), graded[2]
at_mean: dict[str, Any] = {"agg": "token-mean"}
at_two: dict[str, Any] = {"agg": "token-mean", "temperature": 2.0}

DISTILLATION = [
    call(functional.forward_kl_loss, *graded, **at_two),
    call(functional.reverse_kl_loss, *graded, **at_two),
    call(functional.generalized_jsd_loss, *graded, beta=0.3, **at_mean),
    call(functional.top_k_kl_loss, graded[0], *stored, graded[2], tail="bucket", **at_mean),
    call(functional.on_policy_kl_loss, *written, future=True, agg="seq-mean-token-sum"),
]

x, p = normal(2, 5, 7), probabilities(2, 5, 7)
target, chosen = ids(7, 2, 5), ids(7, 2, 5)
codes, scale = functional.quantize_groupwise(normal(3, 8), 4)
unsigned, group_scale, group_zero = functional.quantize_groupwise_affine(normal(3, 8), 4)
double = functional.double_quantize(positive(7), 4)
nf4 = functional.nf4_quantize(normal(3, 8), 4)
documents = [ids(9, 3), ids(9, 5)], [torch.ones(3).bool(), torch.ones(5).bool()]
tokens, counted = ids(7, 2, 5), some(2, 5)

OF_SCORES = (
    functional.cross_entropy_hessian,
    functional.d_gelu,
    functional.d_relu,
    functional.d_sigmoid,
    functional.d_silu,
    functional.d_tanh,
    functional.gelu,
    functional.log_sigmoid,
    functional.log_softmax,
    functional.logsumexp,
    functional.relu,
    functional.sigmoid,
    functional.silu,
    functional.softmax,
    functional.softplus,
    functional.tanh,
)
FUNCTIONAL = [
    *(call(function, normal(2, 5, 7)) for function in OF_SCORES),
    call(functional.softmax_jacobian, p),
    call(functional.softmax_vjp, p, x),
    call(functional.entropy, p),
    call(functional.kl_divergence, p, probabilities(2, 5, 7)),
    call(functional.aggregate, normal(2, 5), some(2, 5), agg="token-mean"),
    call(functional.bits_per_byte, positive(1)[0], 7),
    call(functional.perplexity, positive(1)[0], 7),
    call(functional.combine_microbatches, normal(3), torch.tensor([3, 5, 1])),
    call(functional.cross_entropy, x, target, label_smoothing=0.1, z_loss=0.01),
    call(functional.cross_entropy_grad, x, target),
    call(functional.linear_cross_entropy, normal(2, 5, 4), normal(7, 4), target, chunk_size=3),
    call(functional.alignment, normal(5, 4), normal(5, 4)),
    call(functional.uniformity, torch.nn.functional.normalize(normal(5, 4), dim=-1)),
    call(functional.clip_loss, normal(5, 4), normal(5, 4), logit_scale=3.0),
    call(functional.clip_loss_from_scores, normal(5, 5)),
    call(functional.decoupled_contrastive, normal(5, 5)),
    call(functional.info_nce, normal(5, 4), normal(5, 4)),
    call(functional.info_nce_from_scores, normal(5, 7), ids(7, 5)),
    call(functional.mi_lower_bound, positive(1)[0], 7),
    call(functional.affine_qparams, x),
    call(functional.symmetric_scale, x),
    call(functional.quantize, x, 0.05),
    call(functional.fake_quantize, x, 0.05, 3),
    call(functional.dequantize, ids(99, 2, 5), 0.05, 3, dtype=torch.float64),
    call(functional.quantize_groupwise, normal(3, 8), 4),
    call(functional.dequantize_groupwise, codes, scale, dtype=torch.float64),
    call(functional.int_matmul, ids(99, 3, 5).byte(), 4, 0.05, ids(99, 2, 5).byte(), 7, 0.25),
    call(functional.quantize_groupwise_affine, normal(3, 8), 4),
    call(functional.dequantize_groupwise, unsigned, group_scale, group_zero, dtype=torch.float64),
    call(functional.double_quantize, positive(7), 4),
    call(functional.double_dequantize, *double, 4, dtype=torch.float64),
    call(functional.nf4_quantize, normal(3, 8), 4),
    call(functional.nf4_dequantize, *nf4, (3, 8), 4, dtype=torch.float64),
    call(functional.pack_int4, ids(7, 3, 8).to(torch.int8)),
    call(functional.unpack_int4, functional.pack_int4(ids(7, 3, 8).to(torch.int8))),
    call(functional.sqnr_db, x, x + 0.1 * normal(2, 5, 7)),
    call(functional.stochastic_round, x),
    call(functional.apply_temperature, x, 0.7),
    call(functional.top_k_filter, x, 3),
    call(functional.top_p_filter, x, 0.7),
    call(functional.min_p_filter, x, 0.2),
    call(functional.process_logits, x, temperature=0.7, top_k=4, top_p=0.9),
    call(functional.filtered_logprob, x, x.argmax(-1), top_k=3),
    call(functional.presence_frequency_penalty, normal(2, 7), ids(7, 2, 5), 0.3, 0.2),
    call(functional.repetition_penalty, normal(2, 7), ids(7, 2, 5), 1.3),
    call(functional.sample, normal(2, 7)),
    call(functional.sample_without_replacement, normal(2, 7), 3),
    call(functional.pack_sequences, *documents, 6, 0),
    call(functional.packed_attention_mask, torch.tensor([[0, 0, 1, 1, 1]])),
    call(functional.response_mask, torch.tensor([1, 2]), torch.tensor([4, 5]), 5),
    call(functional.sequence_logprob, x, tokens, counted),
    call(functional.sft_loss, x, tokens, counted, agg="token-mean"),
    call(functional.sft_token_losses, x, tokens, counted),
]

NORM = [
    call(norm.layer_norm, x, 7, normal(7), normal(7), eps=0.1),
    call(norm.layer_norm_backward, normal(2, 5, 7), x, normal(7), 7, eps=0.1),
    call(norm.layer_norm_jacobian, normal(7), eps=0.1),
    call(norm.layer_norm_stats, x, 7, eps=0.1),
    call(norm.rms_norm, x, 7, normal(7), eps=0.1),
    call(norm.rms_norm_backward, normal(2, 5, 7), x, normal(7), 7, eps=0.1),
    call(norm.rms_norm_jacobian, normal(7), eps=0.1),
    call(norm.fold_layer_norm, normal(3, 7), normal(3), normal(7), normal(7)),
    call(norm.fold_rms_norm, normal(3, 7), normal(7)),
    call(norm.layer_norm_to_rms_norm, [(normal(7, 3), normal(7)), (normal(7, 4), None)]),
    call(norm.rotate_residual, normal(3, 7), normal(7, 4), torch.linalg.qr(normal(7, 7))[0]),
]

# Of a generator of their own, as above.
_of_batches = torch.Generator().manual_seed(0)


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_of_batches, dtype=torch.float64)


running, of_parts = (batch(5), batch(5).square()), (batch(3, 5), batch(3, 5).square())

BATCH = [
    call(functional.dropout, batch(2, 5, 7), p=0.3),
    call(functional.dropout_backward, batch(2, 5, 7), batch(2, 5, 7) > 0, p=0.3),
    call(norm.batch_norm_train, batch(4, 5, 3), batch(5), batch(5), eps=0.1),
    call(norm.batch_norm_eval, batch(4, 5, 3), *running, batch(5), batch(5), eps=0.1),
    call(norm.batch_norm_backward, batch(4, 5, 3), batch(4, 5, 3), batch(5), eps=0.1),
    call(norm.update_running, *running, batch(5), batch(5).square(), count=12, momentum=0.1),
    call(norm.fold_batch_norm, batch(5, 2), batch(5), *running, batch(5), batch(5), eps=0.1),
    call(norm.merge_batch_stats, *of_parts, torch.tensor([4, 1, 2])),
]

logp, old, ref, mask = logps(3, 5), logps(3, 5), logps(3, 5), some(3, 5)
pairs = [logps(4) for _ in range(4)]


def reward_calls() -> list[Call]:
    """With numbers of their own, so that the calls beside them keep theirs."""
    drawn = torch.Generator().manual_seed(1)
    chosen, rejected, scores = torch.randn(3, 5, generator=drawn, dtype=torch.float64)
    rankings = torch.randn(3, 4, generator=drawn, dtype=torch.float64)
    return [
        call(rl.best_of_n_estimate, scores, n=3),
        call(rl.best_of_n_probs, chosen.softmax(-1), scores, n=3),
        call(rl.bradley_terry_loss, chosen, rejected, margin=scores.abs()),
        call(rl.centering_penalty, chosen, rejected),
        call(rl.plackett_luce_loss, rankings),
    ]


RL = [
    call(rl.aligned_sequence_logprob, x, tokens, counted),
    call(rl.binary_group_weight, positive(3) / 2, 4),
    call(rl.categorical_entropy, x),
    call(rl.clip_fraction, logp, old, normal(3, 5), mask),
    call(rl.clipped_surrogate, logp, old, normal(3, 5)),
    call(rl.clipped_value_loss, normal(3, 5), normal(3, 5), normal(3, 5), mask, agg="token-mean"),
    call(rl.dapo_loss, logp, old, normal(3), mask),
    call(rl.dr_grpo_loss, logp, old, normal(3), mask, norm=5.0),
    call(rl.grpo_loss, logp, old, normal(3), mask, agg="token-mean", ref_logp=ref, beta=0.1),
    call(rl.gspo_loss, logp, old, normal(3), mask),
    call(rl.gspo_token_loss, logp, old, normal(3, 5), mask),
    call(rl.ppo_policy_loss, logp, old, normal(3, 5), mask, agg="seq-mean-token-mean"),
    call(rl.reinforce_loss, logp, normal(3, 5), mask, agg="token-mean"),
    call(rl.discounted_returns, normal(3, 5), gamma=0.9),
    call(rl.gae, normal(3, 5), normal(3, 5)),
    call(rl.k_step_advantage, normal(3, 5), normal(3, 5), 2, gamma=0.9),
    call(rl.dpo_loss, *pairs),
    call(rl.simpo_loss, pairs[0], pairs[1], torch.tensor([3, 5, 1, 2]), torch.tensor([2, 2, 4, 1])),
    call(rl.entropy_bonus, x, counted, agg="token-mean"),
    call(rl.expm1_minus_x, normal(3, 5)),
    call(rl.group_advantages, normal(3, 4), eps=1e-4),
    call(rl.mean_baseline_advantages, normal(3, 4)),
    call(rl.rloo_advantages, normal(3, 4)),
    call(rl.implicit_reward, pairs[0], pairs[1], beta=0.1),
    call(rl.importance_ratio, logp, old),
    call(rl.cispo_loss, logp, old, normal(3, 5), mask, clip_high=0.2, agg="token-mean"),
    call(rl.decoupled_ppo_loss, logp, old, ref, normal(3, 5), mask, agg="token-mean"),
    call(rl.effective_sample_size, positive(5)),
    call(rl.importance_weights, logp, old, mask, level="prefix"),
    call(rl.mask_weights, positive(3, 5), low=0.5, high=2.0),
    call(rl.truncate_weights, positive(3, 5), cap=1.0),
    call(rl.sequence_ratio, logp, old, mask),
    call(rl.kl_categorical, x, normal(2, 5, 7)),
    call(rl.kl_estimate, logp, ref),
    call(rl.kl_gaussian, normal(3), positive(3), normal(3), positive(3)),
    call(rl.kl_loss, logp, ref, mask, agg="token-mean"),
    call(rl.kl_reward, logp, ref, mask),
    call(rl.sequence_kl_loss, logp, ref, mask),
    call(rl.masked_whiten, normal(3, 5), mask, eps=1e-8),
    call(rl.optimal_baseline, normal(5), positive(5)),
    call(rl.optimal_policy, probabilities(3, 5).log(), normal(3, 5), beta=0.5),
    *reward_calls(),
]

moments, adam = (normal(3, 5), positive(3, 5)), {"betas": (0.9, 0.95), "eps": 0.1}
of_step = {"step": 3, "lr": 0.1, **adam}
jordan = {"coefficients": JORDAN}
five = {"steps": 5, "eps": 0.0, **jordan}
of_muon = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3, "scale": 0.4, **five}
e4m3 = training.float_values(exponent_bits=4, mantissa_bits=3, special="fn")

TRAINING = [
    call(training.adam_moments, normal(3, 5), *moments, betas=(0.9, 0.95)),
    call(training.adam_direction, *moments, step=3, **adam),
    call(training.adam_step, normal(3, 5), normal(3, 5), *moments, **of_step),
    call(training.adam_l2_step, normal(3, 5), normal(3, 5), *moments, weight_decay=0.3, **of_step),
    call(training.adamw_step, normal(3, 5), normal(3, 5), *moments, weight_decay=0.3, **of_step),
    call(training.clip_by_global_norm, [normal(3, 5), normal(7)], max_norm=0.5),
    call(training.clip_by_value, [normal(3, 5), normal(7)], max_value=0.5),
    call(training.global_norm, [normal(3, 5), normal(7)]),
    call(training.token_mean_scale, positive(4), world_size=2),
    call(training.token_weights, positive(4)),
    call(training.polar_factor, normal(3, 5)),
    call(training.newton_schulz, normal(3, 5), **five),
    call(training.newton_schulz_values, 0.1 + 0.5 * positive(4), steps=2, **jordan),
    call(training.nesterov_momentum, normal(3, 5), normal(3, 5), momentum=0.9),
    call(training.muon_step, normal(3, 5), normal(3, 5), normal(3, 5), **of_muon),
    call(training.fp8_scale, normal(3, 5), max_value=448.0),
    call(training.round_to_format, normal(3, 5), e4m3, overflow="saturate"),
    call(training.stochastic_round, normal(3, 5), noise=ids(2**16, 3, 5)),
    call(training.swallowed, normal(3, 5), normal(3, 5) * some(3, 5)),
    call(training.unscale, [normal(3, 5), normal(7)], scale=8.0),
]

_of_inference = torch.Generator().manual_seed(8)


def held(*shape: int) -> Tensor:
    """Normal numbers that leave those of other calls as they are."""
    return torch.randn(*shape, generator=_of_inference, dtype=torch.float64)


tables = torch.tensor([[5, 2, 0], [1, 4, -1]])
target, drafts = held(4, 7).softmax(-1), held(3, 7).softmax(-1)
uniforms = torch.rand(4, generator=_of_inference, dtype=torch.float64)

INFERENCE = [
    call(inference.acceptance_rate, target[:3], drafts),
    call(inference.beam_step, -held(3).abs(), held(3, 5).log_softmax(-1), num_beams=4),
    call(inference.gather_blocks, held(6, 4, 3, 2), tables[0], 10),
    call(
        inference.length_normalized_score,
        -held(2, 3).abs(),
        torch.tensor([[4, 1, 7], [2, 9, 3]]),
        alpha=0.6,
    ),
    call(
        inference.paged_attention,
        held(2, 6, 1, 5),
        held(7, 4, 3, 5),
        held(7, 4, 3, 2),
        tables,
        torch.tensor([10, 7]),
    ),
    call(inference.residual_probs, target[:3], drafts),
    call(inference.slot_index, tables[0], torch.tensor([9, 3, 4, 0]), block_size=4),
    call(inference.speculative_step, target, drafts, torch.tensor([2, 0, 5]), uniforms),
]

_of_preferences = torch.Generator().manual_seed(0)
singles, odds = -5 * torch.rand(2, 4, 3, generator=_of_preferences, dtype=torch.float64) - 0.1
thumbs = torch.tensor([1, 0, 0])  # labels, no mask
three, counts = torch.tensor(0.3, dtype=torch.float64), torch.tensor([[3, 5, 1], [2, 2, 4]])
PREFERENCES = [
    call(rl.kto_reference_point, singles[0], singles[1]),
    call(
        rl.kto_loss,
        *(singles[2], singles[3], thumbs, three),
        beta=0.5,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    ),
    call(rl.log_odds, odds[0]),
    call(rl.odds_ratio_loss, odds[1], odds[2], *counts),
    call(rl.orpo_loss, odds[1], odds[2], *counts, lam=0.4),
]

CALLS = [
    *ATTENTION,
    *COMPONENTS,
    *EXPERTS,
    *POSITIONS,
    *FUNCTIONAL,
    *NORM,
    *RL,
    *TRAINING,
    *INFERENCE,
    *BATCH,
    *DISTILLATION,
    *PREFERENCES,
]
