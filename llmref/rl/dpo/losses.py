"""The losses on preference pairs that follow from the reward that a policy implies.

Leaves out: how a response's log-probability is summed (see policy).
"""

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from llmref._require import require_choice
from llmref.rl.dpo.policy import (
    log_ratio,
    require_positive,
    response_logps,
)

LossType = Literal["sigmoid", "ipo", "hinge", "robust"]
Reduction = Literal["mean", "sum", "none"]


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """How badly the implied rewards rank each pair, to be minimised.

    For "ipo", beta is that paper's tau, and the gap of the log-ratios is not multiplied by it.

    Shapes: four times (N,) -> (), or (N,) with reduction="none"
    Source: Rafailov et al. 2023, arXiv:2305.18290 (sigmoid); Mitchell 2023 (label_smoothing);
    Chowdhury et al. 2024, arXiv:2403.00409 (robust); Azar et al. 2023, arXiv:2310.12036 (ipo).
    Differs: label_smoothing is used wherever it has a meaning, and refused elsewhere.
    Raises: ValueError for an unknown loss_type or reduction, beta not positive, label_smoothing
    outside [0, 0.5) or with ipo and hinge, no pair, tensors that are not (N,), references that
    require grad, log-probabilities that are not finite or above 1e-6; TypeError for integers.
    """
    require_choice("loss_type", loss_type, LossType)
    require_positive("beta", beta)
    _require_smoothing(label_smoothing, loss_type)
    _require_pairs(policy_chosen_logps, policy_rejected_logps)
    chosen = log_ratio("chosen_", policy_chosen_logps, ref_chosen_logps)
    gap = chosen - log_ratio("rejected_", policy_rejected_logps, ref_rejected_logps)
    if loss_type == "ipo":
        loss = (gap - 1 / (2 * beta)).square()  # eq. eq-dpo-ipo
    elif loss_type == "hinge":
        loss = (1 - beta * gap).clamp(min=0)  # eq. eq-dpo-hinge
    else:
        loss = _logistic(beta * gap, label_smoothing, debias=loss_type == "robust")
    return _reduced(loss, reduction).to(policy_chosen_logps.dtype)


def simpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Tensor:
    """The loss on mean log-probabilities with a margin and without a reference, to be minimised.

    Shapes: four times (N,) -> ()
    Source: Meng et al. 2024, arXiv:2405.14734.
    Differs: gamma is subtracted as in the paper; some code divides it by beta and then multiplies.
    Raises: ValueError for beta not positive, gamma negative, lengths that are not positive, no
    pair, tensors that are not (N,), log-probabilities that are not finite or above 1e-6; TypeError
    for integer log-probabilities.
    """
    require_positive("beta", beta)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and at least 0, got {gamma}")
    _require_pairs(policy_chosen_logps, policy_rejected_logps)
    chosen = _mean_logps("chosen_", policy_chosen_logps, chosen_lengths)
    rejected = _mean_logps("rejected_", policy_rejected_logps, rejected_lengths)
    margin = beta * (chosen - rejected) - gamma  # eq. eq-dpo-simpo
    return -logsigmoid(margin).mean().to(policy_chosen_logps.dtype)


def _logistic(h: Tensor, smoothing: float, *, debias: bool) -> Tensor:
    """Logistic loss of the margin under label noise. log(sigmoid(h)) would be -inf at h = -89."""
    agrees, disagrees = -logsigmoid(h), -logsigmoid(-h)
    if debias:
        noisy = (1 - smoothing) * agrees - smoothing * disagrees
        return noisy / (1 - 2 * smoothing)  # eq. eq-dpo-robust
    return (1 - smoothing) * agrees + smoothing * disagrees  # eq. eq-dpo-cdpo


def _mean_logps(which: str, policy: Tensor, lengths: Tensor) -> Tensor:
    if lengths.shape != policy.shape:
        raise ValueError(f"{which}lengths {tuple(lengths.shape)} must be {tuple(policy.shape)}")
    if not ((lengths > 0) & lengths.isfinite()).all():
        raise ValueError(f"{which}lengths must be positive, got {lengths.min().item()}")
    pi = response_logps(f"policy_{which}logps", policy)
    return pi / lengths


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    require_choice("reduction", reduction, Reduction)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _require_pairs(chosen: Tensor, rejected: Tensor) -> None:
    if chosen.ndim != 1 or chosen.shape != rejected.shape:
        raise ValueError(
            "the log-probabilities of chosen and rejected responses are (N,) each, summed over "
            f"tokens, got {tuple(chosen.shape)} and {tuple(rejected.shape)}"
        )
    if chosen.numel() == 0:
        raise ValueError("there is no pair: a mean over nothing does not exist")


def _require_smoothing(smoothing: float, loss_type: str) -> None:
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {smoothing}")
    if smoothing > 0 and loss_type in ("ipo", "hinge"):
        raise ValueError(f"label_smoothing has no meaning for loss_type={loss_type!r}")
