"""What do losses on preferences give up that need no pairs, or no reference?

KTO on single responses, ORPO on pairs without a reference. Log-probabilities are in nats, and sums
over the tokens of a response, except where a name says mean. Leaves out: DPO, its variants and
SimPO (see dpo), the labels.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from llmref._numeric import widen
from llmref._require import (
    boolean_mask,
    require_at_least,
    require_constant,
    require_finite,
    require_floating,
    require_in,
    require_integers,
    require_positive,
    require_shapes,
)
from llmref.rl._tokens import log_probs, narrowed


def kto_reference_point(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """The baseline of KTO: the mean log-ratio over some responses, 0 if negative, detached.

    It estimates KL(policy||ref) only if the policy drew the responses.
    Shapes: policy_kl_logps (M,), ref_kl_logps (M,) -> ()
    Source: Ethayarajh et al. 2024, arXiv:2402.01306.
    Raises: ValueError if the shapes differ, there is no response, ref_kl_logps require grad, or a
    log-probability is not finite or above 1e-6; TypeError unless floating point.
    """
    named = {"policy_kl_logps": policy_kl_logps, "ref_kl_logps": ref_kl_logps}
    require_floating(**named)
    require_shapes("policy_kl_logps (M,), ref_kl_logps (M,)", **named)
    _require_some(policy_kl_logps, "response")
    require_constant(ref_kl_logps=ref_kl_logps)
    policy, ref = (log_probs(name, logps) for name, logps in named.items())
    mean = (policy.detach() - ref).mean()
    return narrowed(mean.clamp(min=0), policy_kl_logps.dtype, "the reference point")


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """The loss of single responses with a thumb up (desirable) or down, to be minimised.

    Shapes: policy_logps (N,), ref_logps (N,), desirable (N,), reference_point () or (N,) -> ()
    Source: Ethayarajh et al. 2024, arXiv:2402.01306.
    Differs: a baseline for each response, its prompt's own, is allowed.
    Raises: ValueError if shapes do not fit, there is no response, ref_logps or reference_point
    require grad, desirable holds something else than 0 and 1, a log-probability is not finite or
    above 1e-6, the reference point is negative or not finite, beta is not positive, a weight is
    negative, or the loss overflows; TypeError unless floating point.
    """
    require_positive(beta=beta)
    require_at_least(0, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    named = {"policy_logps": policy_logps, "ref_logps": ref_logps, "desirable": desirable}
    require_shapes("policy_logps (N,), ref_logps (N,), desirable (N,)", **named)
    _require_some(policy_logps, "response")
    baseline = _reference_point(reference_point, policy_logps)
    require_constant(ref_logps=ref_logps)
    log_ratio = log_probs("policy_logps", policy_logps) - log_probs("ref_logps", ref_logps)
    h = beta * (log_ratio - baseline)
    up, down = desirable_weight * torch.sigmoid(-h), undesirable_weight * torch.sigmoid(h)
    losses = torch.where(boolean_mask(desirable), up, down)  # eq. eq-preference-kto
    return narrowed(losses.mean(), policy_logps.dtype, "the loss")


def log_odds(mean_logps: Tensor) -> Tensor:
    """Log of P / (1 - P) for P the exponential of a mean log-probability.

    A mean of -log 2 is a probability of 1/2 and gives 0.
    Shapes: mean_logps (...) -> (...)
    Source: Hong et al. 2024, arXiv:2403.07691.
    Differs: 1 - P is -expm1(mean), which keeps its digits, and its gradient, where P is almost 1.
    Raises: ValueError if a mean is not finite, or so near 0 (or above) that the odds or their
    gradient are infinite in its dtype (in float16 above -1.53e-5); TypeError unless floating point.
    """
    require_floating(mean_logps=mean_logps)
    wide = _below_zero("mean_logps", mean_logps, mean_logps.dtype)
    odds = wide - torch.log(-torch.expm1(wide))  # eq. eq-preference-odds
    return narrowed(odds, mean_logps.dtype, "the log-odds")


def odds_ratio_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
) -> Tensor:
    """The part of ORPO that ranks a pair: minus log sigmoid of the log of the ratio of odds.

    Shapes: four times (N,) -> ()
    Source: Hong et al. 2024, arXiv:2403.07691.
    Raises: as orpo_loss.
    """
    chosen, rejected = _mean_pairs(
        policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths
    )
    return narrowed(_ranking(chosen, rejected), policy_chosen_logps.dtype, "the loss")


def orpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    lam: float,
) -> Tensor:
    """The supervised loss of the chosen response plus lam times the odds-ratio loss.

    Shapes: four times (N,) -> ()
    Source: Hong et al. 2024, arXiv:2403.07691.
    Differs: the supervised part is each response's mean over its own tokens, then a mean over
    pairs; the prompt is not in it.
    Raises: ValueError for a negative lam, tensors that are not (N,), no pair, lengths below 1,
    log-probabilities that are not finite or whose mean is 0 (or as near as log_odds refuses, in
    their dtype), a loss that overflows; TypeError for integer log-probabilities and lengths that
    are no integers.
    """
    require_at_least(0, lam=lam)
    chosen, rejected = _mean_pairs(
        policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths
    )
    loss = -chosen.mean() + lam * _ranking(chosen, rejected)  # eq. eq-preference-orpo
    return narrowed(loss, policy_chosen_logps.dtype, "the loss")


def _ranking(chosen: Tensor, rejected: Tensor) -> Tensor:
    return -logsigmoid(log_odds(chosen) - log_odds(rejected)).mean()


def _mean_pairs(
    chosen: Tensor, rejected: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean log-probabilities of chosen and rejected responses, below 0."""
    pair = {"policy_chosen_logps": chosen, "policy_rejected_logps": rejected}
    counts = {"chosen_lengths": chosen_lengths, "rejected_lengths": rejected_lengths}
    axes = ", ".join(f"{name} (N,)" for name in (*pair, *counts))
    require_shapes(axes, **pair, **counts)
    _require_some(chosen, "pair")
    require_integers(**counts)
    require_positive(**counts)
    means = [
        _below_zero(name, log_probs(name, logps) / lengths, logps.dtype)
        for (name, logps), lengths in zip(pair.items(), counts.values(), strict=True)
    ]
    return means[0], means[1]


def _below_zero(name: str, means: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean log-probabilities in float32 at least, once the gradient of the odds is finite."""
    require_finite(**{name: means})
    wide = widen(means, name)
    # The gradient is about -1 / mean, and is returned in the dtype of the caller.
    if (wide > -max(torch.finfo(wide.dtype).tiny, 1 / torch.finfo(dtype).max)).any():
        raise ValueError(
            f"{name} must be below 0 per token, got {wide.max().item():g}: "
            f"the odds of probability 1 are infinite, and so near their gradient is, in {dtype}"
        )
    return wide


def _reference_point(reference_point: Tensor, policy_logps: Tensor) -> Tensor:
    """The baseline in float32 at least, once it is a divergence: one, or one for each response."""
    require_floating(reference_point=reference_point)
    if reference_point.ndim:
        named = {"policy_logps": policy_logps, "reference_point": reference_point}
        require_shapes("policy_logps (N,), reference_point (N,)", **named)
    require_constant(reference_point=reference_point)
    require_in("[0, inf)", reference_point=reference_point)
    return widen(reference_point, "reference_point")


def _require_some(rows: Tensor, what: str) -> None:
    if rows.numel() == 0:
        raise ValueError(f"there is no {what}: a mean over nothing does not exist")
